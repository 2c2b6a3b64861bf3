"""What is wrong with rewards, prompts, models and gates is said in one line, and stops in time."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.errors import ConfigError, DataError, StageError
from rlhf.training.ppo.trainer import MAX_CONSTANT
from tests.tiny import make_tiny_model
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.gated_reward import gated_reward
from tests.training.ppo.conftest import column, prompts

QUICK = [
    *("--use_peft", "--lora_target_modules", "all-linear", "--max_steps", "2"),
    *("--per_device_train_batch_size", "2", "--max_completion_length", "8"),
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(
        tmp_path / "prompts.jsonl",
        ({"prompt": [{"role": "user", "content": f"question {n}?"}]} for n in range(12)),
    )


@pytest.fixture
def ppo(tiny_model: Path, rows: Path, tmp_path: Path, capsys):
    """`ppo(*options)` runs the stage on a reward model: (exit code, its last line on stderr)."""

    def run(*options: str, data: Path = rows, model: Path = tiny_model) -> tuple[int, str]:
        words = ["ppo", "--model_name_or_path", str(model), "--dataset_name", str(data)]
        code = main([*words, "--output_dir", str(tmp_path / "out"), *QUICK, *options])
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    return run


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda ids: [float("nan")] * len(ids), "gave NaN or infinity for 8 of 8"),
        (lambda ids: [1.0], "returned 1 values for 8 completions"),
        (lambda ids: ["good"] * len(ids), "which is no number"),
    ],
    ids=["nan", "length", "text"],
)
def test_what_a_reward_function_may_not_return(make_trainer, returned, words):
    def broken(completion_ids, **_):
        return returned(completion_ids)

    with pytest.raises(StageError, match=words):
        make_trainer(rewards=broken).train()


def test_a_reward_function_that_raises_is_named(make_trainer):
    def broken(**_):
        raise KeyError("answer")

    with pytest.raises(StageError, match=r"'broken' raised KeyError.*question"):
        make_trainer(rewards=broken).train()


def test_constant_rewards_are_warned_of_and_end_the_run(make_trainer, capsys):
    def same(completion_ids, **_):
        return [1.0] * len(completion_ids)

    trainer = make_trainer(rewards=same, max_steps=400, num_iterations=1)
    trainer.train()
    assert trainer.state.global_step == 2 * MAX_CONSTANT
    assert "the same number" in trainer.watch.stop_reason
    said = capsys.readouterr().err
    assert "rollout 1: all 8 rewards are the same number (1)" in said


def test_a_policy_that_never_ends_is_warned_of(make_trainer, capsys):
    trainer = make_trainer(max_completion_length=2, max_steps=8)
    trainer.engine.sampling = _without_ends(trainer.engine.sampling)
    trainer.train()
    assert column(trainer, "ended_rate") == [0.0, 0.0]
    assert "no completion ended by itself within 2 tokens" in capsys.readouterr().err


def _without_ends(sampling):
    from dataclasses import replace

    return replace(sampling, ignore_end=True)


@pytest.mark.parametrize("copy", ["always", "never"])
def test_an_engine_that_is_not_the_policy_stops_the_run(copy, make_trainer):
    """A copy that is not brought up to date; a policy that samples by another temperature."""
    trainer = make_trainer(rollout_copy=copy, max_steps=16, learning_rate=3e-2)
    if copy == "always":
        trainer.engine.sync = lambda: None
    else:
        trainer.engine.sampling = replace(trainer.engine.sampling, temperature=0.5)
    with pytest.raises(StageError, match=r"not from the policy|disagree about the sampled tokens"):
        trainer.train()


def test_prompts_without_room_are_refused_by_the_trainer(make_trainer):
    rows = [*prompts(3), {"prompt": "word " * 600}]
    with pytest.raises(DataError, match=r"row 4: a prompt of \d+ tokens leaves no room"):
        make_trainer(dataset=rows)


def test_rows_without_prompts_are_refused(make_trainer):
    with pytest.raises(DataError, match="no column 'prompt'"):
        make_trainer(dataset=[{"question": "why?"}])
    with pytest.raises(ConfigError, match="no prompts"):
        make_trainer(dataset=[])


def test_prompts_without_room_are_counted_by_the_stage(ppo, tiny_model, tmp_path):
    gated_reward(tmp_path, tiny_model)
    long = write_rows(
        tmp_path / "long.jsonl",
        ({"prompt": "word " * (600 if n == 0 else 2)} for n in range(8)),
    )
    reward = ("--reward_model_name_or_path", str(tmp_path / "reward"))
    code, error = ppo(*reward, data=long)
    assert code == 5
    assert "1 of 8 rows lost (12.5%)" in error
    assert "lower --max_completion_length" in error
    assert ppo(*reward, "--max_loss", "0.2", data=long)[0] == 0
    assert metrics_of(tmp_path / "out")["num_train"] == 7


def test_a_reward_model_without_a_gate_is_refused(ppo, tiny_model, tmp_path):
    gated_reward(tmp_path, tiny_model)
    shutil.rmtree(tmp_path / "gate")
    code, error = ppo("--reward_model_name_or_path", str(tmp_path / "reward"))
    assert code == 5
    assert "gate" in error
    assert not (tmp_path / "out").exists()


def test_a_reward_model_of_another_base_is_refused_or_loaded_by_itself(ppo, tiny_model, tmp_path):
    other = make_tiny_model(tmp_path / "other", seed=5)
    gated_reward(tmp_path, other)
    reward = ("--reward_model_name_or_path", str(tmp_path / "reward"))
    code, error = ppo(*reward)
    assert code == 2
    assert "--separate_reward_model" in error
    assert ppo(*reward, "--separate_reward_model", "true")[0] == 0


def test_no_source_of_rewards_is_refused(ppo):
    code, error = ppo()
    assert code == 2
    assert "no source of rewards" in error


def test_evaluating_needs_held_out_prompts(ppo, tiny_model, tmp_path):
    gated_reward(tmp_path, tiny_model)
    reward = ("--reward_model_name_or_path", str(tmp_path / "reward"))
    code, error = ppo(*reward, "--eval_strategy", "steps", "--eval_steps", "1")
    assert code == 2
    assert "no prompt is held out" in error


def test_a_reward_function_of_a_file_alone_needs_no_gate(ppo, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def shorter(completion_ids, **_):\n    return [-len(i) for i in completion_ids]"
    )
    assert ppo("--reward_funcs", f"{file}:shorter", "--eval_fraction", "0.5")[0] == 0
    manifest = read_json(tmp_path / "out" / "manifest.json")
    (source,) = manifest["provenance"]["rewards"]
    assert source["name"] == "shorter"
    assert len(source["sha256"]) == 64
    assert manifest["metrics"]["eval_num_prompts"] == manifest["metrics"]["num_eval"]


def test_what_rests_on_simulated_labels_says_so(ppo, tiny_model, tmp_path):
    gated_reward(tmp_path, tiny_model, simulated=True)
    assert ppo("--reward_model_name_or_path", str(tmp_path / "reward"))[0] == 0
    assert read_json(tmp_path / "out" / "manifest.json")["simulated"] is True
