"""Trackers: a missing one is said before the run, and offline ones write where the run does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.errors import ConfigError
from rlhf.training import trackers


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_one_line(name, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    words = ["dpo", "--model_name_or_path", "m", "--dataset_name", "d", "--report_to", name]
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"--report_to {name}: the package is not installed; pip install {name}" in line


def test_an_unknown_tracker_names_the_nearest():
    with pytest.raises(ConfigError, match=r"--report_to wandbb: .*did you mean 'wandb'"):
        trackers.require_trackers(["wandbb"])


@pytest.fixture
def run_tracked(tiny_model, pairs, tmp_path):
    """`run_tracked(NAME)` trains two steps in a process, at whose end trackers close, of nobody."""

    def run(name: str) -> Path:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
        apart = {"HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path / "trackio")}
        words = ["dpo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(pairs)]
        words += ["--output_dir", str(tmp_path / "out"), "--use_peft", "--max_steps", "2"]
        words += ["--logging_steps", "1", "--report_to", name]
        command = [sys.executable, "-m", "rlhf", *words]
        done = subprocess.run(
            command, env=kept | apart, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "manifest.json").exists()
        return tmp_path / "out"

    return run


def test_wandb_writes_its_run_into_the_output_folder(run_tracked):
    [written] = run_tracked("wandb").glob("wandb/offline-run-*/*.wandb")
    assert b"rewards/margins" in written.read_bytes()


def test_trackio_keeps_its_run_on_this_machine(run_tracked, tmp_path):
    run_tracked("trackio")
    [kept] = (tmp_path / "trackio").glob("*.db")
    assert b"rewards/margins" in kept.read_bytes()
