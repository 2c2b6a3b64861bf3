"""Two processes learn what one does from the same completions."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlhf.cli import main
from rlhf.training.ppo.monitoring import TIMING_PREFIXES
from tests.processes import run_ranks
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.gated_reward import gated_reward

OPTIONS = [
    *("--use_peft", "--lora_target_modules", "all-linear", "--learning_rate", "1e-3"),
    *("--max_steps", "6", "--num_iterations", "2", "--max_completion_length", "8"),
    *("--per_device_train_batch_size", "2", "--num_generations", "2", "--save_steps", "4"),
    *("--reward_normalization", "running", "--kl_controller", "adaptive", "--kl_target", "0.1"),
    *("--kl_horizon", "20", "--critic", "adapter", "--critic_warmup", "1"),
]
CLOSE = 1e-5


@pytest.mark.long
def test_two_processes_equal_one_on_the_same_rollouts(tiny_model, tmp_path):
    gated_reward(tmp_path, tiny_model)
    rows = ({"prompt": [{"role": "user", "content": f"question {n}?"}]} for n in range(12))
    data = write_rows(tmp_path / "prompts.jsonl", rows)
    words = ["ppo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    words += ["--reward_model_name_or_path", str(tmp_path / "reward"), *OPTIONS]
    one, two = tmp_path / "one", tmp_path / "two"
    # 8 completions a rollout, of which every minibatch has all.
    alone = ["--output_dir", str(one), "--gradient_accumulation_steps", "4"]
    assert main([*words, *alone, "--debug"]) == 0

    shared = ["--output_dir", str(two), "--gradient_accumulation_steps", "2"]
    run_two(tmp_path / "said", *words, *shared)
    for name in ("adapter_model.safetensors", "critic/critic.safetensors"):
        assert_close(load_file(one / name), load_file(two / name))
    assert metrics_of(one)["num_episodes"] == metrics_of(two)["num_episodes"] == 24
    logs = [read_json(folder / "log.json") for folder in (one, two)]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for there, here in zip(*logs, strict=True):
        assert rounded(there) == pytest.approx(rounded(here), abs=CLOSE, rel=1e-4)
    assert (two / "checkpoint-4" / "ppo_state_1.pt").exists()
    assert (two / "completions" / "rollout-000001-rank-1.parquet").exists()

    before = (two / "adapter_model.safetensors").read_bytes()
    (two / "manifest.json").unlink()
    shutil.rmtree(two / "checkpoint-6")
    said = run_two(tmp_path / "said", *words, *shared)
    assert f"continuing from {two / 'checkpoint-4'}" in said
    assert (two / "adapter_model.safetensors").read_bytes() == before


def run_two(folder: Path, *words: str) -> str:
    """Run `rlhf WORDS` in two processes; what they said on standard error."""
    ended = run_ranks(2, folder, main, list(words))
    said = "".join(one.stderr for one in ended)
    assert [one.exit_code for one in ended] == [0, 0], said
    return said


def assert_close(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert float((weight - other[name]).abs().max()) < CLOSE, name


# Of the largest or smallest number of a process's own micro-batches, or of rounding alone.
_OWN = ("sampler_logp_difference", "explained_variance", "kl_se")


def rounded(row: dict) -> dict:
    return {
        key: value
        for key, value in row.items()
        if not key.startswith((*TIMING_PREFIXES, *_OWN)) and isinstance(value, int | float)
    }
