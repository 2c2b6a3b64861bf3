"""Killed in the middle, started again: the same bytes as a run that nobody killed."""

import importlib
import os
import signal
from pathlib import Path

import pytest
from transformers import TrainerCallback

from rlhf.cli import main
from rlhf.training.stage import callbacks
from tests.processes import run_alone
from tests.training.conftest import metrics_of, read_json

OPTIONS = [
    *("--use_peft", "--learning_rate", "1e-2", "--max_steps", "10", "--save_steps", "3"),
    *("--logging_steps", "2", "--per_device_train_batch_size", "2"),
    *("--gradient_accumulation_steps", "2", "--lora_dropout", "0.2"),
]


class Killer(TrainerCallback):
    """Kills its own process, as kill -9 does. The last whole checkpoint before step 8 is that of 6,
    and 8 lies in the second pass over the data.
    """

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(words):
    trainer = importlib.import_module(f"rlhf.training.{words[0]}.trainer")
    trainer.callbacks = lambda settings: [*callbacks(settings), Killer()]
    return main(words)


def test_killed_and_continued_equals_unbroken(run_stage, pairs, tiny_model, tmp_path):
    verb = "dpo"
    broken = tmp_path / "broken"
    words = [verb, "--model_name_or_path", str(tiny_model), "--dataset_name", str(pairs)]
    words += ["--output_dir", str(broken), *OPTIONS]
    ended = run_alone(tmp_path / "said", run_until_killed, words)
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    assert not (broken / "manifest.json").exists()
    assert (broken / "checkpoint-6" / "complete.json").exists()
    half = broken / "checkpoint-9"  # and the kill came while the next one was being written
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 9')

    run_stage(verb, pairs, *OPTIONS, out="broken")
    unbroken = run_stage(verb, pairs, *OPTIONS, out="unbroken")

    assert_same_outcome(broken, unbroken)


@pytest.mark.parametrize("verb", ["sft", "reward"])
def test_stopped_by_an_error_and_continued_equals_unbroken(verb, run_stage, pairs, monkeypatch):
    module = {"sft": "sft", "reward": "reward.recipe"}[verb]
    recipe = importlib.import_module(f"rlhf.training.{module}")
    with monkeypatch.context() as patched:
        patched.setattr(recipe, "callbacks", lambda settings: [*callbacks(settings), Stopper()])
        run_stage(verb, pairs, *OPTIONS, out="broken", expect=4)
    broken = run_stage(verb, pairs, *OPTIONS, out="broken")
    assert_same_outcome(broken, run_stage(verb, pairs, *OPTIONS, out="unbroken"))


class Stopper(TrainerCallback):
    """Ends a run in its second pass over the data, between two checkpoints."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            raise OSError("stopped by the test")


def assert_same_outcome(one: Path, other: Path) -> None:
    weights = sorted(path.relative_to(one) for path in one.glob("**/*model.safetensors"))
    final = [path for path in weights if "checkpoint" not in str(path)]
    assert final
    for path in final:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path
    assert read_json(one / "log.json") == read_json(other / "log.json")
    assert metrics_of(one) == metrics_of(other)


def test_what_is_continued_is_said(run_stage, pairs, capsys):
    folder = run_stage("dpo", pairs, "--use_peft", "--max_steps", "4", "--save_steps", "2")
    remove_ending(folder, beyond=2)
    capsys.readouterr()
    run_stage("dpo", pairs, "--use_peft", "--max_steps", "4", "--save_steps", "2")
    assert f"continuing from {folder / 'checkpoint-2'}" in capsys.readouterr().err


def remove_ending(folder: Path, beyond: int) -> None:
    import shutil

    (folder / "manifest.json").unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > beyond:
            shutil.rmtree(checkpoint)
