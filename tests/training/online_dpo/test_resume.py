"""A run that was killed and goes on is the run that was not, whatever it was at."""

import os
import shutil
import signal

import pytest
import torch
from transformers import TrainerCallback

from rlhf.cli import main
from rlhf.models.rollouts.merged_copy import MergedCopy
from rlhf.training.checkpoints import mark_complete
from rlhf.training.online_dpo import recipe
from rlhf.training.online_dpo import trainer as trainer_module
from rlhf.training.online_dpo.labelling import RewardLabeller
from rlhf.training.stage import callbacks
from tests.processes import run_alone, run_ranks
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.online_dpo.conftest import FUNCTIONS, QUICK, lines

ADAPTER = "adapter_model.safetensors"
FILES = ("pairs.jsonl", "completions.jsonl", "round.json")
# Rounds are of 3 steps; dropout and a source that draws numbers show what is not drawn again.
LONG = [
    *("--num_rounds", "3", "--prompts_per_round", "6", "--save_steps", "2"),
    *("--lora_dropout", "0.2", "--rollout_batch_size", "4", "--reward_normalization", "running"),
]


class Killer(TrainerCallback):
    """Kills its own process at a step, as kill -9 does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_in_training(step, words):
    trainer_module.callbacks = lambda settings: [*callbacks(settings), Killer(step)]
    return main(words)


def killed_in_sampling(number, words):
    """At the second part of round `number`, which takes two."""
    calls, sample = [], MergedCopy.sample

    def counted(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == 2 * number:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(self, *args, **kwargs)

    MergedCopy.sample = counted
    return main(words)


def killed_in_labelling(number, words):
    """When round `number` has been scored and nothing of it is on disk."""
    calls, label = [], RewardLabeller.label

    def counted(self, *args, **kwargs):
        calls.append(None)
        found = label(self, *args, **kwargs)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    RewardLabeller.label = counted
    return main(words)


def killed_in_measuring(_, words):
    """When all is learnt and the last checkpoint saved."""
    recipe.measure = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    return main(words)


@pytest.fixture(scope="module")
def long_words(tiny_model, tmp_path_factory):
    """The command line of a run of three rounds, without its folder."""
    place = tmp_path_factory.mktemp("labels")
    functions = place / "labels.py"
    functions.write_text(FUNCTIONS)
    rows = [{"prompt": f"question {number}?"} for number in range(12)]
    start = ["online_dpo", "--model_name_or_path", str(tiny_model), "--dataset_name"]
    start += [str(write_rows(place / "prompts.jsonl", rows)), *QUICK, *LONG]
    held = [{"prompt": f"other question {number}?"} for number in range(3)]
    start += ["--eval_dataset_name", str(write_rows(place / "held.jsonl", held))]
    return [*start, "--reward_funcs", f"{functions}:vowels", f"{functions}:noisy"]


@pytest.fixture(scope="module")
def unbroken(long_words, tmp_path_factory):
    """That run, left alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("unbroken") / "out"
    assert main([*long_words, "--output_dir", str(folder)]) == 0
    torch.set_num_threads(before)
    return folder


CASES = [
    (killed_in_sampling, 2, [], 3),
    (killed_in_labelling, 3, [], 6),
    (killed_in_training, 1, [], None),  # round 1 is on disk
    (killed_in_training, 5, [], 4),  # within round 2
    (killed_in_training, 8, ["--save_steps", "100"], 6),  # round 3 is taken from disk
    (killed_in_measuring, 0, [], 9),
]


@pytest.mark.parametrize(("killed", "at", "more", "checkpoint"), CASES)
def test_killed_and_continued_equals_unbroken(
    killed, at, more, checkpoint, long_words, unbroken, tmp_path
):
    broken = tmp_path / "broken"
    given = [*long_words, *more, "--output_dir", str(broken)]
    ended = run_alone(tmp_path / "said", killed, at, given)
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    assert not (broken / "manifest.json").exists()
    there = sorted(int(path.name.partition("-")[2]) for path in broken.glob("checkpoint-*"))
    assert (there[-1] if there else None) == checkpoint
    assert main(given) == 0
    assert_same_outcome(broken, unbroken)


def test_a_round_of_another_policy_or_labeller_is_made_anew(run, functions, capsys):
    options = [*LONG, "--reward_funcs", f"{functions}:low"]
    folder = run(*options)
    first = [(folder / "round-01" / name).read_bytes() for name in FILES]
    (folder / "manifest.json").unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    run(*options)  # as if it had been killed before its first checkpoint
    assert [(folder / "round-01" / name).read_bytes() for name in FILES] == first
    (folder / "manifest.json").unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    functions.write_text(functions.read_text().replace("i < 150", "i < 100"))
    run(*options)
    assert (folder / "round-01" / "pairs.jsonl").read_bytes() != first[0]


def test_a_checkpoint_within_a_round_whose_pairs_changed_is_refused(run, functions, capsys):
    options = [*LONG, "--reward_funcs", f"{functions}:low", "--max_steps", "4"]
    folder = run(*options)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "checkpoint-4")
    pairs = folder / "round-01" / "pairs.jsonl"
    shutil.copytree(folder / "checkpoint-3", folder / "checkpoint-2")
    state = folder / "checkpoint-2" / "trainer_state.json"
    state.write_text(state.read_text().replace('"global_step": 3', '"global_step": 2'))
    mark_complete(folder / "checkpoint-2")
    shutil.rmtree(folder / "checkpoint-3")
    pairs.write_text(pairs.read_text() + "\n")
    run(*options, expect=3)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "round-01: its pairs.jsonl or round.json is gone or changed" in line


def test_other_settings_do_not_go_on(run, functions, capsys):
    options = [*LONG, "--reward_funcs", f"{functions}:low"]
    folder = run(*options)
    (folder / "manifest.json").unlink()
    run(*options, "--temperature", "0.5", expect=2)
    assert "holds another run (temperature: 1.0 there, 0.5 here" in capsys.readouterr().err


def test_two_processes_sample_and_learn_as_one(words, run, functions, tmp_path):
    """The same draws, pairs and updates, to rounding."""
    options = ["--reward_funcs", f"{functions}:vowels", "--num_rounds", "2", "--lora_dropout", "0"]
    held = [{"prompt": f"other question {number}?"} for number in range(5)]
    options += ["--eval_dataset_name", str(write_rows(tmp_path / "held.jsonl", held))]
    two = tmp_path / "two"
    given = [*words, "--output_dir", str(two), *options, "--per_device_train_batch_size", "1"]
    ended = run_ranks(2, tmp_path / "said", main, given)
    assert [each.exit_code for each in ended] == [0, 0], [each.stderr for each in ended]
    one = run(
        *options,
        *("--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "2"),
        out="one",
    )
    for number in ("round-01", "round-02"):
        both = [lines(each / number / "pairs.jsonl") for each in (one, two)]
        for ours, theirs in zip(*both, strict=True):
            for name in ("prompt", "chosen", "rejected", "chosen_draw", "chosen_token_ids"):
                assert ours[name] == theirs[name]
    assert_close(metrics_of(one), metrics_of(two))


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, abs=1e-5), name
    for ours, theirs in zip(one["rounds"], other["rounds"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def assert_same_outcome(one, other):
    assert (one / ADAPTER).read_bytes() == (other / ADAPTER).read_bytes()
    assert read_json(one / "log.json") == read_json(other / "log.json")
    assert metrics_of(one) == metrics_of(other)
    folders = sorted(path.name for path in other.glob("round-*"))
    assert folders == ["round-01", "round-02", "round-03"]
    for name in folders:
        for file in FILES:
            assert (one / name / file).read_bytes() == (other / name / file).read_bytes()
