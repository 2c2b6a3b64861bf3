"""Sweeps of the real stages on a tiny model: a trial is what the stage's own command does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.cli import main
from rlhf.sweep.study import read_study
from tests.processes import Started, run_alone
from tests.sweep.forked import sweep_real
from tests.training.conftest import write_rows

QUICK: dict[str, Any] = {
    "max_steps": 2,
    "logging_steps": 1,
    "per_device_train_batch_size": 2,
    "eval_fraction": 0.3,
    "use_peft": True,
    "lora_r": 4,
}
ONLINE: dict[str, Any] = {
    "max_completion_length": 6,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "eval_fraction": 0.0,
    "max_loss": 1,
}
ADAPTER = "adapter_model.safetensors"
SEARCH: dict[str, Any] = {"learning_rate": [1e-3]}


@pytest.fixture
def settings(tiny_model: Path) -> dict[str, Any]:
    return {**QUICK, "model_name_or_path": str(tiny_model)}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {number}?"}],
            "completion": f"answer {number}.",
            "label": number % 2 == 0,
        }
        for number in range(24)
    ]
    return write_rows(tmp_path / "labelled.jsonl", rows)


def swept(folder: Path, **values: Any) -> Path:
    """Run a sweep in a process of its own; its folder."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"sampler": "grid", "search": SEARCH, **values}))
    ended = run_alone(folder, sweep_real, [str(path), "--output_dir", str(folder / "out")])
    assert ended.exit_code == 0, ended.stderr
    return folder / "out"


@pytest.mark.parametrize(
    ("stage", "data"), [("sft", "demos"), ("reward", "pairs"), ("kto", "labelled")]
)
def test_each_kind_of_stage_is_searched(stage, data, settings, tmp_path, request):
    named = settings | {"dataset_name": str(request.getfixturevalue(data))}
    out = swept(tmp_path, stage=stage, settings=named)
    held = json.loads((out / "sweep.json").read_text())
    assert held["counts"]["complete"] == 1
    for row in held["trials"]:
        manifest = json.loads((out / row["folder"] / "manifest.json").read_text())
        assert manifest["stage"] == stage
        assert manifest["config"]["learning_rate"] == row["settings"]["learning_rate"]
        assert row["value"] == manifest["metrics"][held["metric"]]
    assert held["metric"] == ("accuracy" if stage == "reward" else "eval_loss")


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_stages_that_sample_are_searched(stage, settings, tmp_path):
    functions = tmp_path / "rewards.py"
    functions.write_text(
        "def variety(completion_ids, **kwargs):\n"
        "    return [float(len(set(ids))) + ids[0] / 1000 for ids in completion_ids]\n"
    )
    prompts = write_rows(
        tmp_path / "prompts.jsonl",
        [{"prompt": [{"role": "user", "content": f"question {n}?"}]} for n in range(10)],
    )
    named = {**settings, **ONLINE, "dataset_name": str(prompts)}
    named["reward_funcs"] = [f"{functions}:variety"]
    if stage == "ppo":
        del named["num_generations"]
    out = swept(tmp_path, stage=stage, settings=named, search={"learning_rate": [1e-3]})
    [row] = json.loads((out / "sweep.json").read_text())["trials"]
    assert row["state"] == "complete"
    assert row["value"] == row["metrics"]["score"]


def test_best_yaml_does_the_best_trial_again_to_the_byte(settings, pairs, tmp_path):
    named = settings | {"dataset_name": str(pairs), "eval_strategy": "steps", "eval_steps": 1}
    search = {"learning_rate": [1e-4, 1e-2], "beta": [0.3]}
    out = swept(tmp_path, stage="dpo", settings=named, search=search)
    held = json.loads((out / "sweep.json").read_text())
    assert main(["dpo", "--config", str(out / "best.yaml")]) == 0
    again = json.loads((out / "best" / "manifest.json").read_text())["metrics"]
    assert again["eval_loss"] == held["best"]["value"]
    best = out / held["best"]["folder"]
    assert (out / "best" / ADAPTER).read_bytes() == (best / ADAPTER).read_bytes()
    assert [step for step, _ in held["best"]["on_the_way"]] == [1, 2]


def test_a_trial_killed_in_its_midst_ends_as_an_unbroken_one(settings, pairs, tmp_path):
    """kill -9 of the trial alone: it goes on from its checkpoint, bit for bit."""
    named = settings | {"dataset_name": str(pairs), "max_steps": 8, "save_steps": 2}
    values = {"stage": "dpo", "settings": named, "search": {"learning_rate": [1e-2]}}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"sampler": "grid", **values}))
    words = [str(path), "--output_dir", str(tmp_path / "out")]
    process = Started(tmp_path / "said.log", sweep_real, (words,), {})
    trial = tmp_path / "out" / "trials" / "000"
    ends = time.monotonic() + 200
    while not (trial / "checkpoint-2" / "complete.json").exists():
        assert process.is_running
        assert time.monotonic() < ends
        time.sleep(0.002)
    os.kill(int((trial / "pid").read_text()), signal.SIGKILL)
    ended = process.wait(200)
    assert ended.exit_code == 0
    assert "000: ended by SIGKILL; it goes on once more" in ended.stderr
    assert "continuing from" in (trial / "output.log").read_text()
    assert main(["dpo", "--config", str(tmp_path / "out" / "best.yaml")]) == 0
    assert (tmp_path / "out/best" / ADAPTER).read_bytes() == (trial / ADAPTER).read_bytes()


@pytest.mark.long
def test_the_command_itself_from_end_to_end(settings, pairs, tmp_path):
    """`python -m rlhf sweep`, its trial `python -m rlhf dpo`: exit codes, streams and files."""
    path = tmp_path / "sweep.yaml"
    named = settings | {"dataset_name": str(pairs)}
    search = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    path.write_text(yaml.safe_dump({"stage": "dpo", "settings": named, "search": search}))
    command = [sys.executable, "-m", "rlhf", "sweep", str(path), "--num_trials", "1"]
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "[1/1] 000: eval_loss" in done.stdout
    plan, [trial] = read_study(tmp_path / "out")
    assert plan.num_trials == 1
    assert trial.value is not None
    assert (tmp_path / "out/trials/000" / ADAPTER).exists()
    for name in ("sweep.json", "sweep.html", "best.yaml", "study.db"):
        assert (tmp_path / "out" / name).exists(), name
