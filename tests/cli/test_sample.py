"""`rlhf sample`: rows as the contract names them, repeatable, whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from rlhf.cli import main
from rlhf.manifest import Manifest
from rlhf.models.registry import model_source

PROMPTS = [
    {"prompt": [{"role": "user", "content": "How do I keep bread fresh?"}]},
    {"prompt": "Wrap it in"},
    {"prompt": [{"role": "user", "content": "What should I cook tonight?"}]},
]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS[:1] + PROMPTS[2:]))
    return path


@pytest.fixture
def words(tiny_model, prompts):
    return [
        *("sample", "--model_name_or_path", str(tiny_model), "--dataset_name", str(prompts)),
        *("--num_completions", "2", "--max_new_tokens", "6", "--seed", "3"),
    ]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_file_has_a_row_a_prompt_as_the_contract_says(words, tiny_model, tmp_path, capsys):
    output = tmp_path / "out" / "completions.jsonl"
    assert main([*words, "--output", str(output)]) == 0
    rows = read(output)
    assert [row["prompt"] for row in rows] == [PROMPTS[0]["prompt"], PROMPTS[2]["prompt"]]
    for row in rows:
        assert [len(row[name]) for name in ("completions", "source", "ended", "seed")] == [2] * 4
        assert row["source"] == [model_source(tiny_model)] * 2
        assert all(isinstance(flag, bool) for flag in row["ended"])
        assert all(isinstance(seed, int) for seed in row["seed"])
    assert "4 completions of 2 prompts" in capsys.readouterr().err


def test_equal_seed_gives_the_same_bytes(words, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        assert main([*words, "--output", str(tmp_path / name)]) == 0
    assert main([*words, "--output", str(tmp_path / "c.jsonl"), "--seed", "4"]) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() != (tmp_path / "c.jsonl").read_bytes()


def test_plain_text_prompts_stay_text(words, prompts, tmp_path):
    prompts.write_text(json.dumps(PROMPTS[1]) + "\n")
    assert main([*words, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert read(tmp_path / "out.jsonl")[0]["prompt"] == "Wrap it in"


def test_stage_folder_has_completions_and_manifest(words, prompts, tmp_path):
    folder = tmp_path / "sample"
    assert main([*words, "--output_dir", str(folder)]) == 0
    manifest = Manifest.read(folder)
    assert len(read(folder / "completions.jsonl")) == 2
    assert manifest.stage == "sample"
    assert manifest.seed == 3
    assert manifest.inputs["prompts"]["path"] == str(prompts)
    assert manifest.inputs["prompts"]["rows"] == 2
    metrics = manifest.metrics
    assert (metrics["num_prompts"], metrics["num_completions"], metrics["n"]) == (2, 4, 4)
    assert 0 < metrics["mean_tokens"] <= 6
    low, high = metrics["ended_rate_ci"]
    assert low <= metrics["ended_rate"] <= high
    assert metrics["tokens_per_second"] > 0
    assert not manifest.simulated


def test_manifest_and_log_say_what_was_read(words, prompts, tiny_model, tmp_path, capsys):
    from rlhf.models.registry import weights_sha256

    with prompts.open("a") as stream:
        stream.write(json.dumps({"prompt": "  "}) + "\n")
    assert main([*words, "--output_dir", str(tmp_path / "sample"), "--max_loss", "0.34"]) == 0
    said = f"{prompts}: 3 rows, prompt-only (conversational); 1 of 3 rows lost (33.3%): 1 dropped"
    assert said in capsys.readouterr().err
    manifest = Manifest.read(tmp_path / "sample")
    assert manifest.inputs["model"]["sha256"] == weights_sha256(tiny_model)
    assert manifest.inputs["model"]["path"] == str(tiny_model)
    assert manifest.provenance["losses"]["dropped"] == {"empty prompt": 1}
    assert manifest.provenance["data"]["format"] == "prompt-only (conversational)"


def test_samples_of_a_model_from_simulated_ratings_are_marked(words, tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    Manifest(stage="dpo", config={}, simulated=True).write(model)
    words = [str(model) if word == str(tiny_model) else word for word in words]
    assert main([*words, "--output_dir", str(tmp_path / "sample")]) == 0
    assert Manifest.read(tmp_path / "sample").simulated


def test_one_prompt_has_no_interval(words, prompts, tmp_path, capsys):
    prompts.write_text(json.dumps(PROMPTS[1]) + "\n")
    assert main([*words, "--output", str(tmp_path / "o.jsonl"), "--num_completions", "4"]) == 0
    assert "nan" not in capsys.readouterr().err


def test_yaml_gives_settings_and_the_command_line_wins(words, tmp_path):
    (tmp_path / "sample.yaml").write_text("num_completions: 5\nmax_new_tokens: 2\n")
    output = tmp_path / "out.jsonl"
    command = ["sample", *words[1:5], "--config", str(tmp_path / "sample.yaml")]
    assert main([*command, "--output", str(output), "--num_completions", "1"]) == 0
    assert [len(row["completions"]) for row in read(output)] == [1, 1]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--temperatur", "1"], 2, "did you mean 'temperature'"),
        (["--num_completions", "0"], 2, "num_completions is 0; it must be at least 1"),
        (["--num_completions", "many"], 2, "many"),
        (["--temperature", "-1"], 2, "temperature is -1"),
        (["--dtype", "fp8"], 2, "fp8"),
        (["--output_dir", "x"], 2, "give one of --output FILE.jsonl and --output_dir DIR"),
        (["--model_name_or_path", "smollm2-135m-instruct-q"], 2, "did you mean 'smollm2"),
        (["--model_name_or_path", "someone/absent"], 2, "HF_HUB_OFFLINE"),
        (["--dataset_name", "absent.jsonl"], 2, "absent.jsonl"),
        (["--max_new_tokens", "600"], 3, "no room for 600 tokens in the model's context of 512"),
        (["--max_loss", "-1"], 2, "--max_loss -1.0: must be a share of the rows, from 0 to 1"),
    ],
)
def test_bad_settings_are_one_line(words, tmp_path, capsys, change, code, message):
    output = tmp_path / "out.jsonl"
    output.write_text("what was there before\n")
    assert main([*words, "--output", str(output), *change]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlhf ")]
    assert len(said) == 1
    assert message in said[0]
    assert output.read_text() == "what was there before\n"


@pytest.fixture
def partly_lost(prompts):
    """Two prompts that can be sampled from, one too long and one of a role that plain lacks."""
    with prompts.open("a") as stream:
        for prompt in ("x" * 600, [{"role": "tool", "content": "12"}]):
            stream.write(json.dumps({"prompt": prompt}) + "\n")
    return prompts


def test_prompts_that_cannot_be_sampled_from_are_left_out_and_listed(
    words, partly_lost, tmp_path, capsys
):
    folder, alone = tmp_path / "sample", tmp_path / "alone" / "out.jsonl"
    words = [*words, "--rendering", "plain", "--max_loss", "0.5"]
    assert main([*words, "--output_dir", str(folder)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("doctor: ")]
    found = json.loads((folder / "doctor.json").read_text())
    places = {one["name"]: one["places"] for one in found}
    assert places == {"over_context": [f"{partly_lost}:3"], "wrong_roles": [f"{partly_lost}:4"]}
    assert len(said) == len(found)
    assert [one["name"] for one in Manifest.read(folder).provenance["doctor"]] == list(places)
    assert main([*words, "--output", str(alone)]) == 0
    assert [path.name for path in alone.parent.iterdir()] == ["out.jsonl"]
    assert alone.read_bytes() == (folder / "completions.jsonl").read_bytes()
    assert len(read(alone)) == 2
    assert said[0] in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output_dir", "--output"])
def test_more_losses_than_allowed_are_exit_5(option, words, partly_lost, tmp_path, capsys):
    output = tmp_path / "out" / "it"
    assert main([*words, "--rendering", "plain", option, str(output)]) == 5
    error = capsys.readouterr().err.splitlines()[-1]
    assert "lower --max_new_tokens, or accept it with --max_loss 0.5 (now 0.05)" in error
    assert not output.exists()


def test_broken_line_of_the_prompts_is_named(words, prompts, tmp_path, capsys):
    prompts.write_text('{"prompt": "Hi"}\n{"prompt": \n')
    assert main([*words, "--output", str(tmp_path / "out.jsonl")]) == 3
    assert f"{prompts}:2" in capsys.readouterr().err


def test_failed_stage_keeps_what_was_there(words, prompts, tmp_path):
    folder = tmp_path / "sample"
    assert main([*words, "--output_dir", str(folder)]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    prompts.write_text("")
    assert main([*words, "--output_dir", str(folder)]) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_output_that_is_a_folder_is_refused(words, tmp_path, capsys):
    assert main([*words, "--output", str(tmp_path)]) == 2
    assert "a folder" in capsys.readouterr().err


def test_unwritable_output_is_one_line(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*words, "--output", str(tmp_path / "file" / "out.jsonl")]) == 4
    assert "cannot be created" in capsys.readouterr().err


def test_no_model_and_no_data_set_are_said(capsys):
    assert main(["sample", "--output", "x.jsonl"]) == 2
    assert "--model_name_or_path is missing" in capsys.readouterr().err


def test_killed_run_leaves_the_old_file_and_no_other(words, tmp_path):
    output = tmp_path / "out" / "completions.jsonl"
    output.parent.mkdir()
    output.write_text("old\n")
    slow = ["--max_new_tokens", "400", "--num_completions", "400", "--batch_size", "8"]
    command = [sys.executable, "-m", "rlhf", *words, *slow, "--output", str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ)) as run:
        deadline = time.monotonic() + 120
        said = b""
        while b"sampling" not in said and time.monotonic() < deadline:
            said += run.stderr.read1()
        run.send_signal(signal.SIGKILL)
    assert b"sampling" in said
    assert run.returncode == -signal.SIGKILL
    assert [path.name for path in output.parent.iterdir()] == ["completions.jsonl"]
    assert output.read_text() == "old\n"
