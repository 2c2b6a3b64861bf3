"""A run that cannot go on says why in one line, and leaves what was good."""

import resource
from contextlib import contextmanager

import pytest

from rlhf.training.checkpoints import last_complete

BROKEN_RATE = ("--use_peft", "--learning_rate", "1e30", "--max_grad_norm", "0")


def one_error_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlhf ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("verb", ["dpo", "reward", "sft"])
def test_a_loss_that_leaves_the_numbers_stops_the_run(verb, run_stage, pairs, capsys):
    options = (*BROKEN_RATE, "--max_steps", "9", "--save_steps", "1", "--logging_steps", "5")
    folder = run_stage(verb, pairs, *options, expect=4)
    line = one_error_line(capsys)
    assert "became NaN or infinite at step" in line
    assert f"the last good checkpoint is {last_complete(folder)}" in line
    assert not (folder / "manifest.json").exists()


@contextmanager
def files_of_at_most(num_bytes: int):
    """The system refuses larger files, as it does on a full disk."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [6_000, 15_000])
def test_a_full_disk_leaves_the_old_files_whole(limit, run_stage, pairs, capsys):
    folder = run_stage("dpo", pairs, "--use_peft", "--save_strategy", "no")
    adapter = (folder / "adapter_model.safetensors").read_bytes()
    options = ("--use_peft", "--seed", "9", "--restart", "--save_steps", "1")
    capsys.readouterr()
    with files_of_at_most(limit):
        run_stage("dpo", pairs, *options, expect=4)
    assert "free space" in one_error_line(capsys)
    assert (folder / "adapter_model.safetensors").read_bytes() == adapter


def test_a_folder_that_cannot_be_made_is_named(run_stage, pairs, capsys):
    run_stage("dpo", pairs, "--use_peft", out=f"{pairs.name}/below-a-file", expect=4)
    line = one_error_line(capsys)
    assert "below-a-file" in line
    assert "--output_dir" in line
