"""`rlhf sft | reward | dpo` from the outside: formats, every bad input, feedback, trackers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from rlhf.cli import main, verb_module
from rlhf.errors import DataError
from rlhf.training.trackers import go_offline_where_needed

QUICK = ["--max_steps", "2", "--logging_steps", "1", "--per_device_train_batch_size", "2"]
PAIR = {"prompt": "Is bread good?", "chosen": "yes", "rejected": "no"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "run it again to go on"),
        (["--restart", "true"], "run it again without --restart to go on"),
        (["--from_stage=dpo"], "run it again without --from_stage to go on"),
    ],
)
def test_interrupted_by_hand_it_says_how_to_go_on(options, said, monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb_module("dpo"), "main", interrupted)
    assert main(["dpo", *options]) == 130
    assert capsys.readouterr().err == f"rlhf: interrupted; {said}\n"


def test_an_error_has_a_line_of_its_own_below_a_progress_bar(monkeypatch, capsys):
    open_bars = []

    def failing(words):
        open_bars.append(tqdm(total=3, file=sys.stderr))
        open_bars[0].update()
        raise DataError("pairs.jsonl: broken; mend it")

    monkeypatch.setattr(verb_module("dpo"), "main", failing)
    assert main(["dpo"]) == 3
    err = capsys.readouterr().err
    assert "1/3" in err
    assert err.endswith("\nrlhf dpo: pairs.jsonl: broken; mend it\n")


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path, capsys):
    """`train(verb, data, *options)` gives (exit code, error lines of ours)."""

    def run(verb: str, data: object, *options: str) -> tuple[int, list[str]]:
        words = [verb, "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
        words += ["--output_dir", str(tmp_path / "out"), "--use_peft", *QUICK, *options]
        capsys.readouterr()
        code = main(words)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return code, [line for line in err.splitlines() if line.startswith("rlhf ")]

    return run


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(row: dict, num_rows: int) -> list[dict]:
    return [row | {"prompt": f"{row['prompt']} {number}"} for number in range(num_rows)]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ('{"prompt": "a", "chosen"\n', 3, "data.jsonl:1: not valid JSON"),
        (json.dumps(PAIR) + "\n{oh\n", 3, "data.jsonl:2: not valid JSON"),
        ("", 3, "holds no rows"),
        (json.dumps(PAIR | {"rejected": "yes"}) + "\n", 3, "identical chosen and rejected"),
        ('{"prompt": "a", "choosen": "b", "rejected": "c"}\n', 3, "did you mean 'choosen'"),
        ('{"prompt": "a", "chosen": 3, "rejected": "c"}\n', 3, "data.jsonl:1: chosen must be text"),
    ],
)
@pytest.mark.parametrize("verb", ["reward", "dpo"])
def test_bad_data_is_one_line_and_the_old_output_stays(
    verb, content, code, message, train, tmp_path
):
    old = tmp_path / "out" / "manifest.json"
    old.parent.mkdir()
    old.write_text("{}")
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    found, lines = train(verb, data)
    assert found == code
    assert len(lines) == 1
    assert message in lines[0]
    assert old.read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset_name", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--model_name_or_path", "smollm2-135m-instruct-q5"), "did you mean"),
        (("--betta", "1"), "unknown key 'betta'"),
        (("--accelerate_config", "zero33"), "did you mean 'zero3'"),
        (("--dataset_name", "feedback:nowhere.db#c"), "nowhere.db"),
        (("--chat_template_file", "nowhere.jinja"), "nowhere.jinja"),
    ],
)
def test_what_is_not_there_is_a_usage_error(options, message, train, tmp_path):
    data = write(tmp_path / "data.jsonl", numbered(PAIR, 4))
    code, lines = train("dpo", data, *options)
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


def test_losing_more_than_allowed_is_refused_and_may_be_allowed(train, tmp_path):
    rows = [*numbered(PAIR, 9), PAIR | {"rejected": "yes"}]
    data = write(tmp_path / "data.jsonl", rows)
    code, [line] = train("dpo", data)
    assert code == 5
    assert "1 of 10 rows lost (10.0%)" in line
    assert "data.jsonl:10" in line
    assert "--max_loss 0.1 (now 0.05)" in line
    assert not (tmp_path / "out").exists()
    assert train("dpo", data, "--max_loss", "0.1") == (0, [])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["provenance"]["losses"]["dropped"] == {"identical chosen and rejected": 1}


def test_a_limit_that_fits_nothing_is_bad_data(train, tmp_path):
    data = write(tmp_path / "data.jsonl", numbered(PAIR, 4))
    for verb in ("dpo", "reward", "sft"):
        code, [line] = train(verb, data, "--max_length", "3", "--eval_fraction", "0")
        assert code == 3
        assert "--max_length" in line


def test_a_fraction_that_holds_out_nobody_is_said(train, tmp_path):
    data = write(tmp_path / "data.jsonl", [PAIR] * 6)
    code, [line] = train("reward", data)
    assert code == 3
    assert "--eval_fraction" in line


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (PAIR, "preference (plain text, explicit prompt)"),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            "HH transcripts",
        ),
        ({"prompt": "a", "completion": "b"}, "prompt-completion (plain text)"),
    ],
)
def test_formats_are_named_in_the_log(row, name, tiny_model, tmp_path, capsys):
    data = write(tmp_path / "data.jsonl", [row] * 3)
    words = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(data), *QUICK]
    assert main(["sft", *words, "--use_peft", "--output_dir", str(tmp_path / "out")]) == 0
    assert f"3 rows, {name}; 0 of 3 rows lost" in capsys.readouterr().err


def test_feedback_goes_from_raters_to_a_reward_model(train, tmp_path):
    store, num_items = tmp_path / "feedback.db", 20
    rate(store, num_items)
    code, lines = train("reward", f"feedback:{store}#c", "--eval_fraction", "0.3")
    assert (code, lines) == (0, [])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["simulated"] is True
    data = manifest["provenance"]["data"]
    assert data["num_labels"] == 3 * num_items
    assert data["num_annotators"] == data["num_simulated_annotators"] == 3
    assert manifest["metrics"]["noise_ceiling"] == pytest.approx(1.0)  # they always agreed
    rows = (tmp_path / "out" / "heldout.jsonl").read_text().splitlines()
    first = json.loads(rows[0])
    assert len(rows) == manifest["metrics"]["n"]
    assert first["p_chosen"] == pytest.approx(4 / 5)  # three votes of three
    assert len(first["judgement_ids"]) == 3
    assert first["chosen"].startswith("yes")


def rate(location: Path, num_items: int) -> None:
    """Three simulated raters who always prefer the first completion."""
    lines = [
        {
            "campaign": "c",
            "item": f"item {number}",
            "prompt": f"Is bread good? {number}",
            "completions": [f"yes {number}", f"no {number}"],
            "annotator": rater,
            "simulated": True,
            "seconds": 1.0,
            "created_at": "2026-01-01T00:00:00+00:00",
            "shown_order": [0, 1],
            "verdict": -2,
        }
        for number in range(num_items)
        for rater in ("sim-a", "sim-b", "sim-c")
    ]
    path = write(location.with_suffix(".jsonl"), lines)
    assert main(["feedback", "import", str(path), "--store", str(location)]) == 0


def test_wandb_writes_to_disk_when_nobody_is_logged_in(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back at the end
        monkeypatch.delenv(name)
    go_offline_where_needed(["wandb"], tmp_path / "out")
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_DIR"] == str(tmp_path / "out")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    go_offline_where_needed(["wandb"], tmp_path / "out")
    assert "WANDB_MODE" not in os.environ


def test_help_shows_an_example(capsys):
    for verb in ("sft", "reward", "dpo"):
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"example: rlhf {verb} --config" in shown
        assert shown.startswith(f"usage: rlhf {verb} [--config F.yaml] [--KEY VALUE ...]")
        assert verb_module(verb).SUMMARY in shown
        assert "--eval_fraction" in shown


def test_the_overview_imports_no_torch():
    code = "import sys; from rlhf.cli import dpo, reward, sft; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
