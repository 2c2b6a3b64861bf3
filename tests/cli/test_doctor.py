"""`rlhf doctor` from the outside, and the doctor at the start of the stages."""

import gzip
import json
import os
import unicodedata
from itertools import takewhile
from pathlib import Path

import pytest
import torch
import yaml

from rlhf.cli import main
from rlhf.cli.doctor import deduced_stage
from rlhf.errors import ConfigError
from tests.tiny import CHATML

QUICK = ["--max_steps", "1", "--logging_steps", "1", "--per_device_train_batch_size", "2"]
USER = "Is bread number {} good?"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs(num_rows: int, **changes) -> list[dict]:
    """Pairs with different prompts and completions of different words."""
    return [
        {
            "prompt": [{"role": "user", "content": USER.format(number)}],
            "chosen": f"yes {number}.",
            "rejected": f"no {number}!",
            "chosen_ended": True,
            "rejected_ended": True,
        }
        | changes
        for number in range(num_rows)
    ]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def doctor(tiny_model: Path, tmp_path: Path, capsys):
    """`doctor(stage, data, *options)` gives (exit code, what it printed, its JSON)."""

    def run(stage: str, data: Path, *options: str) -> tuple[int, str, dict]:
        written = tmp_path / "doctor.json"
        written.unlink(missing_ok=True)
        words = ["doctor", "--stage", stage, "--model_name_or_path", str(tiny_model)]
        words += ["--dataset_name", str(data), "--json", str(written), *options]
        capsys.readouterr()
        code = main(words)
        found = json.loads(written.read_text()) if written.exists() else {}
        out = capsys.readouterr()
        assert "Traceback" not in out.err
        return code, out.out + out.err, found.get("stages", {}).get(stage, {})

    return run


def named(findings: list[dict]) -> dict[str, int]:
    return {one["name"]: one["count"] for one in findings}


def test_nothing_lost_is_exit_0_whatever_the_warnings(doctor, tmp_path):
    rows = pairs(6)
    rows[2]["chosen"] = "Write to anna@example.org."
    code, said, found = doctor("dpo", write(tmp_path / "d.jsonl", rows))
    assert code == 0
    assert named(found["findings"])["private_email"] == 1
    assert found["num_lost"] == 0
    assert "d.jsonl:3" in said
    assert "a***@***.org" in said
    assert "anna@" not in said
    assert "--mask_private" in said


def test_a_loss_is_exit_5_and_every_place_is_written(doctor, tmp_path):
    rows = pairs(6)
    rows[1]["rejected"] = rows[1]["chosen"]
    rows[4]["chosen"] = None
    code, said, found = doctor("reward", write(tmp_path / "d.jsonl", rows), "--max_loss", "1")
    assert code == 5
    assert "reward 2 of 6 rows" in said.splitlines()[-1]
    data = str(tmp_path / "d.jsonl")
    places = {one["name"]: one.get("places") for one in found["findings"]}
    assert places["identical_pair"] == [f"{data}:2"]
    assert places["not_text"] == [f"{data}:5"]
    assert not found["refused"]


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_the_doctor_reports_what_the_stage_then_does(stage, doctor, tiny_model, tmp_path, capsys):
    rows = pairs(12)
    rows[3]["rejected"] = rows[3]["chosen"]
    rows[5]["chosen"] = rows[5]["rejected"] = "long " * 300
    rows[5]["rejected"] += "!"
    rows[7]["prompt"] = []
    data = write(tmp_path / "d.jsonl", rows)
    options = ["--max_length", "200", "--max_loss", "0.9", "--eval_fraction", "0.3"]
    _, _, found = doctor(stage, data, *options)
    words = [stage, "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    out = tmp_path / "out"
    capsys.readouterr()
    assert main([*words, "--output_dir", str(out), "--use_peft", *QUICK, *options]) == 0
    said = capsys.readouterr().err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["provenance"]["losses"] == found["data"][0]["losses"]
    assert json.loads((out / "doctor.json").read_text()) == found["findings"]
    without_places = [
        {key: value for key, value in one.items() if "places" not in key}
        for one in found["findings"]
    ]
    assert manifest["provenance"]["doctor"] == without_places
    lines = [line for line in said.splitlines() if line.startswith("doctor: ")]
    assert len(lines) == len(found["findings"])
    assert lines[0].startswith("doctor: loss: ")


def test_a_refused_stage_leaves_no_folder_and_names_the_flag(tiny_model, tmp_path, capsys):
    rows = pairs(10)
    rows[3]["rejected"] = rows[3]["chosen"]
    data = write(tmp_path / "d.jsonl", rows)
    words = ["dpo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    assert main([*words, "--output_dir", str(tmp_path / "out"), *QUICK]) == 5
    error = capsys.readouterr().err.splitlines()[-1]
    assert "--max_loss 0.1 (now 0.05)" in error
    assert "rlhf doctor" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"\n', "d.jsonl:1: not valid JSON"),
        ("[1]\n", "d.jsonl:1: a list where an object is wanted"),
        ('{"prompt": "a", "chosen": "x", "rejected": "x"}\n', "no usable row"),
        ("[" * 5000 + "\n", "d.jsonl:1: not usable JSON"),
        ('{"prompt": "a", "chosen": "\\ud83d", "rejected": "x"}\n', "half a character"),
        ('{"prompt": "a", "chosen": "b", "rejected": "x", "p_chosen": 2}\n', "p_chosen must be"),
        ("", "holds no rows"),
    ],
)
def test_what_cannot_be_parsed_or_leaves_nothing_is_exit_3(content, message, doctor, tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text(content)
    code, said, found = doctor("dpo", data)
    assert (code, found) == (3, {})
    assert message in said
    assert len(said.splitlines()) == 1


def test_hostile_rows_are_excluded_and_the_others_kept(doctor, tmp_path):
    rows = pairs(4)
    path = write(tmp_path / "d.jsonl", rows)
    lines = path.read_bytes().splitlines()
    bad = [
        b'{"prompt": {"a": 1}, "chosen": "x", "rejected": "y"}',
        b'{"prompt": "p", "chosen": "x", "rejected": "y", "margin": ' + b"9" * 400 + b"}",
        b'{"prompt": "p", "chosen": ["x"], "rejected": "y"}',
        b'{"prompt": "p", "chosen": "x", "rejected": "y", "judgement_ids": 3}',
        b'{"prompt": "p", "chosen": "' + b"x" * 1_000_000 + b'", "rejected": "y"}',
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*lines, *bad]) + b"\r\n")
    code, _, found = doctor("reward", path, "--max_length", "100", "--eval_fraction", "0")
    assert code == 5
    assert found["num_rows"] == 9
    lost = named([one for one in found["findings"] if one["severity"] == "loss"])
    assert lost == {"not_text": 2, "wrong_value": 2, "too_long": 1}


def test_prompts_are_looked_at_as_sampling_would(doctor, tmp_path):
    data = write(
        tmp_path / "p.jsonl", [{"prompt": "bread?"}, {"prompt": " "}, {"prompt": "x" * 900}]
    )
    code, _, found = doctor("sample", data, "--max_new_tokens", "10")
    assert code == 5
    assert named(found["findings"]) == {"empty_prompt": 1, "over_context": 1}
    assert found["max_loss"] == 0.05


@pytest.mark.parametrize("stage", ["sample", "evaluate"])
def test_a_stage_that_samples_finds_what_the_doctor_finds(stage, tiny_model, tmp_path, capsys):
    rows = [{"prompt": f"bread {number}?"} for number in range(5)]
    rows += [{"prompt": " "}, {"prompt": "x" * 900}, {"prompt": [{"role": "x", "content": "y"}]}]
    data = write(tmp_path / "p.jsonl", rows)
    words = ["--dataset_name", str(data), "--max_new_tokens", "2", "--rendering", "plain"]
    words += {
        "sample": ["--model_name_or_path", str(tiny_model)],
        "evaluate": ["--policies", f"sft={tiny_model}", f"dpo={tiny_model}"],
    }[stage]
    assert main(["doctor", "--stage", stage, *words, "--json", str(tmp_path / "f.json")]) == 5
    told = json.loads((tmp_path / "f.json").read_text())["stages"][stage]
    assert (told["num_lost"], told["refused"]) == (3, True)
    capsys.readouterr()
    words = [stage, *words, "--output_dir", str(tmp_path / "out")]
    assert main(words) == 5
    assert "3 of 8 rows lost" in capsys.readouterr().err.splitlines()[-1]
    assert main([*words, "--max_loss", "0.4"]) == 0
    assert json.loads((tmp_path / "out" / "doctor.json").read_text()) == told["findings"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert named(manifest["provenance"]["doctor"]) == named(told["findings"])
    assert manifest["metrics"]["num_prompts"] == 5


def test_a_stage_that_samples_needs_a_usable_prompt(doctor, tiny_model, tmp_path):
    data = write(tmp_path / "p.jsonl", [{"prompt": "x" * 900}])
    assert doctor("sample", data)[0] == 3
    words = ["sample", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    assert main([*words, "--output_dir", str(tmp_path / "out"), "--max_loss", "1"]) == 3


def test_another_template_than_the_models_own_is_a_warning(doctor, tmp_path):
    other = tmp_path / "other.jinja"
    other.write_text(CHATML.replace("assistant", "helper"))
    data = write(tmp_path / "d.jsonl", pairs(4))
    code, _, found = doctor("dpo", data, "--chat_template_file", str(other))
    assert code == 0
    [finding] = found["findings"]
    assert finding["name"] == "template_differs"
    assert "helper" in finding["examples"][0]["text"]
    same = tmp_path / "same.jinja"
    same.write_text(CHATML)
    assert doctor("dpo", data, "--chat_template_file", str(same))[2]["findings"] == []


def test_a_neighbour_of_another_rendering_is_a_warning(doctor, tiny_model, tmp_path):
    data = write(tmp_path / "d.jsonl", pairs(8))
    words = ["reward", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    words += ["--output_dir", str(tmp_path / "reward"), "--use_peft", "--eval_fraction", "0"]
    assert main([*words, "--rendering", "plain", *QUICK]) == 0
    beside = ["--output_dir", str(tmp_path / "dpo")]
    findings = doctor("dpo", data, *beside)[2]["findings"]
    [finding] = [one for one in findings if one["name"] == "template_differs"]
    assert finding["examples"][0]["place"] == str(tmp_path / "reward")
    assert "--rendering plain there, chat here" in finding["examples"][0]["text"]
    elsewhere = ["--output_dir", str(tmp_path / "x" / "dpo")]
    assert "template_differs" not in named(doctor("dpo", data, *elsewhere)[2]["findings"])


# Which stage a YAML is for


@pytest.mark.parametrize(
    ("name", "content", "stage"),
    [
        ("reward.yaml", {}, "reward"),
        ("my-dpo.yaml", {}, "dpo"),
        ("my-ppo.yaml", {}, "ppo"),
        ("mine.yaml", {"kl_coef": 0.1}, "ppo"),
        ("mine.yaml", {"beta": 0.2}, "dpo"),
        ("mine.yaml", {"center_rewards_coefficient": 0.1}, "reward"),
        ("mine.yaml", {"completion_only_loss": True}, "sft"),
    ],
)
def test_the_stage_is_deduced_from_name_or_keys(name, content, stage, tmp_path):
    path = tmp_path / name
    path.write_text(yaml.safe_dump({"model_name_or_path": "m", "dataset_name": "d", **content}))
    assert deduced_stage(path, ["--config", str(path)]) == stage


def test_a_stage_that_nothing_names_is_asked_for(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("model_name_or_path: m\ndataset_name: d\n")
    with pytest.raises(ConfigError, match=r"add --stage sft\|reward\|dpo"):
        deduced_stage(path, ["--config", str(path)])
    assert main(["doctor", "--stage", "rewrd", "--config", str(path)]) == 2
    assert "must be one of" in capsys.readouterr().err


def test_a_pipeline_is_looked_at_stage_by_stage_as_far_as_its_data_are_there(
    tiny_model, tmp_path, capsys
):
    demos = [
        {
            "prompt": [{"role": "user", "content": USER.format(n)}],
            "completion": f"answer {n}.",
            "ended": True,
        }
        for n in range(4)
    ]
    pipeline = {
        "model_name_or_path": str(tiny_model),
        "sft": {"dataset_name": str(write(tmp_path / "demos.jsonl", demos))},
        "sample": {"dataset_name": str(write(tmp_path / "prompts.jsonl", [{"prompt": "x?"}]))},
        "ratings": "simulated",
        "reward": {"dataset_name": str(write(tmp_path / "pairs.jsonl", pairs(5)))},
        "dpo": None,
    }
    path = tmp_path / "loop.yaml"
    path.write_text(yaml.safe_dump(pipeline))
    words = ["doctor", "--config", str(path), "--output_dir", str(tmp_path / "run")]
    words += ["--json", str(tmp_path / "f.json"), "--reward.eval_fraction", "0"]
    assert main(words) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "f.json").read_text())
    assert list(found["stages"]) == ["sft", "sample", "reward"]
    assert "judgements.jsonl is not there yet" in found["not_there"]["dpo"]
    assert f"run/sft is not there yet: read with {tiny_model}'s" in said
    assert {one["max_loss"] for one in found["stages"].values()} == {0}
    assert main([*words, "--stage", "sft"]) == 0
    assert list(json.loads((tmp_path / "f.json").read_text())["stages"]) == ["sft"]


def test_the_base_stands_in_for_policies_that_are_still_to_come(tiny_model, tmp_path, capsys):
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "a loaf?"}, {"prompt": "cake?"}])
    pipeline = {
        "model_name_or_path": str(tiny_model),
        "sft": {"dataset_name": str(prompts)},
        "sample": {"dataset_name": str(prompts)},
        "ratings": "simulated",
        "reward": None,
        "dpo": None,
        "evaluate": {"dataset_name": str(prompts)},
    }
    path = tmp_path / "loop.yaml"
    path.write_text(yaml.safe_dump(pipeline))
    words = ["doctor", "--config", str(path), "--stage", "evaluate"]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"run/dpo are not there yet: read with {tiny_model}'s" in said
    assert "evaluate: " in said


def test_help_has_an_example(capsys):
    assert main(["doctor", "--help"]) == 0
    assert "example: rlhf doctor --config" in capsys.readouterr().out


@pytest.mark.shared_data
def test_what_real_people_left_in_their_pairs(tiny_model, doctor):
    folder = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
    path = folder / "hh-helpful-train.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no real human data at {folder} (set RLHF_TEST_DATA)")
    options = ["--max_length", "100000", "--eval_fraction", "0"]
    code, _, found = doctor("reward", path, *options)
    counts = named(found["findings"])
    assert code == 5
    assert (counts["identical_pair"], found["num_lost"]) == (2, 2)
    assert counts["differing_prompts"] == 6
    assert counts["empty_answers"] == 2


@pytest.mark.shared_data
def test_how_many_real_transcripts_are_long(doctor, tmp_path):
    from rlhf.models.registry import is_pulled, model_folder

    folder = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
    path, model = folder / "hh-helpful-train.jsonl.gz", "smollm2-135m-instruct-q4"
    if not path.exists() or not is_pulled(model_folder(model)):
        pytest.skip(f"needs the data at {folder} (RLHF_TEST_DATA) and rlhf pull {model}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [as_plain_text(json.loads(line)) for line in lines]
    data = write(tmp_path / "plain.jsonl", rows)
    # 512 tokens of text, and the end token of ours.
    options = ["--model_name_or_path", model, "--max_length", "513", "--eval_fraction", "0"]
    _, _, found = doctor("reward", data, *options)
    assert named(found["findings"])["too_long"] == 45


def as_plain_text(row: dict[str, str]) -> dict[str, str]:
    """Two transcripts as the text that they share, up to the last turn, and what follows it."""
    mark = "\n\nAssistant:"
    begun = [row[side].rpartition(mark)[0] + mark for side in ("chosen", "rejected")]
    shared = begun[0]
    if begun[0] != begun[1]:
        same = takewhile(lambda both: both[0] == both[1], zip(*row.values(), strict=False))
        shared = "".join(both[0] for both in same)
    return {"prompt": shared} | {side: row[side][len(shared) :] for side in ("chosen", "rejected")}


def test_its_json_is_never_written_over_what_is_read(doctor, tiny_model, tmp_path, capsys):
    data = write(tmp_path / "pairs.jsonl", pairs(4))
    config = tmp_path / "reward.yaml"
    config.write_text("learning_rate: 0.001\n")
    words = ["doctor", "--config", str(config), "--model_name_or_path", str(tiny_model)]
    for path in (data, config):
        before = path.read_bytes()
        assert main([*words, "--dataset_name", str(data), "--json", str(path)]) == 2
        assert "never overwritten" in capsys.readouterr().err
        assert path.read_bytes() == before


def test_nothing_in_the_data_moves_the_terminals_cursor(tiny_model, tmp_path, capsys):
    rows = pairs(6)
    rows[1]["criteria"] = {"\x1b[31mred\x07\nnext": 5}
    rows[2]["item"] = rows[2]["group"] = "\ud800"
    data = write(tmp_path / "pairs.jsonl", rows)
    words = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    options = [*words, "--eval_fraction", "0", "--max_loss", "0.1"]
    assert main(["doctor", "--stage", "reward", *options]) == 5
    assert main(["reward", *options, "--output_dir", str(tmp_path / "run")]) == 5
    said = capsys.readouterr()
    text = (said.out + said.err).replace("\n", "").replace("\r", "")
    assert "red" in text
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs")]


def test_a_prompt_without_turns_is_a_loss_and_no_crash(doctor, tiny_model, tmp_path, capsys):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    data = write(tmp_path / "talks.jsonl", [{"messages": talk}, {"messages": []}])
    words = ["doctor", "--stage", "sample", "--model_name_or_path", str(tiny_model)]
    assert main([*words, "--dataset_name", str(data)]) == 5
    assert "empty prompt" in capsys.readouterr().out


def test_a_stage_that_is_misspelt_names_the_nearest(capsys):
    assert main(["doctor", "--stage", "rewrd"]) == 2
    assert "did you mean 'reward'?" in capsys.readouterr().err


def test_prompts_to_learn_from_need_room_for_a_completion(doctor, tmp_path):
    rows = [{"prompt": USER.format(1)}, {"prompt": "long " * 200}, {"prompt": ""}]
    data = write(tmp_path / "prompts.jsonl", rows)
    rewards = tmp_path / "rewards.py"
    rewards.write_text("def short(completions, **_):\n    return [0.0 for _ in completions]\n")
    options = ["--reward_funcs", f"{rewards}:short", "--max_loss", "1"]
    for stage in ("ppo", "rloo", "grpo"):
        code, said, found = doctor(stage, data, *options, "--max_completion_length", "128")
        assert code == 5
        assert "lower --max_completion_length" in said.splitlines()[-1]
        counts = named(found["findings"])
        assert (counts["over_context"], counts["empty_prompt"]) == (1, 1)
        assert found["num_lost"] == 2
        assert not found["refused"]
