"""Killed anywhere and started again: the same bytes as a run that nobody killed."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

import rlhf.models.actor_critic_saving as saving
from rlhf.cli import main
from rlhf.errors import DataError
from rlhf.training.checkpoints import is_complete, last_complete
from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.monitoring import TIMING_PREFIXES
from rlhf.training.ppo.rollout import LEARNT_FROM
from rlhf.training.ppo.state import read_state
from rlhf.training.ppo.trainer import PPOTrainer
from tests.processes import run_alone
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.gated_reward import gated_reward

# A rollout gives 4 steps, so checkpoints lie in the middle of one: after step 3 in the second
# iteration over rollout 0, after 6 in the first over rollout 1, after 9 in that over rollout 2.
OPTIONS = [
    *("--use_peft", "--lora_target_modules", "all-linear", "--learning_rate", "1e-2"),
    *("--max_steps", "12", "--save_steps", "3", "--logging_steps", "2", "--save_total_limit", "3"),
    *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"),
    *("--steps_per_generation", "4", "--num_iterations", "2", "--max_completion_length", "8"),
    *("--kl_controller", "adaptive", "--kl_target", "0.5", "--kl_horizon", "40"),
    *("--reward_normalization", "running", "--critic", "adapter"),
    *("--eval_fraction", "0.3", "--eval_strategy", "steps", "--eval_steps", "4"),
]

POINTS = [
    "mid-rollout",
    "mid-scoring",
    "mid-step",
    "mid-save of the critic",
    "mid-save of the state",
]


def run_until(point: str, words: list[str]) -> int:
    """Run the stage, and kill this very process at a point of the work, as kill -9 does."""
    if point == "mid-rollout":
        dying_after("sample", lambda trainer, _: trainer.rollout_number == 2)
    elif point == "mid-scoring":
        dying_after("score", lambda trainer, _: trainer.rollout_number == 2)
    elif point == "mid-step":
        dying_after("compute_loss", lambda trainer, *_: trainer.state.global_step == 7)
    elif point == "mid-save of the critic":
        dying_half_way(saving, "save_file")
    else:
        dying_half_way(torch, "save")
    return main(words)


def dying_after(method: str, is_there: Callable[..., bool]) -> None:
    plain = getattr(PPOTrainer, method)

    def patched(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        if is_there(*args):
            die()
        return found

    setattr(PPOTrainer, method, patched)


def dying_half_way(module: Any, writer: str) -> None:
    """In the middle of writing a file of checkpoint 9."""
    plain = getattr(module, writer)

    def patched(value: Any, path: Any, *more: Any, **named: Any) -> Any:
        if "checkpoint-9" in str(path):
            Path(path).write_bytes(b"half")
            die()
        return plain(value, path, *more, **named)

    setattr(module, writer, patched)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def setting(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reward model that passed its gate, and prompts."""
    folder = tmp_path_factory.mktemp("ppo")
    gated_reward(folder, tiny_model)
    rows = [
        {"prompt": [{"role": "user", "content": f"question {number}?"}]} for number in range(24)
    ]
    write_rows(folder / "prompts.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def words(setting: Path, tiny_model: Path) -> Callable[[Path], list[str]]:
    def build(output: Path, *more: str) -> list[str]:
        return [
            *("ppo", "--model_name_or_path", str(tiny_model)),
            *("--dataset_name", str(setting / "prompts.jsonl"), "--output_dir", str(output)),
            *("--reward_model_name_or_path", str(setting / "reward"), *OPTIONS, *more),
        ]

    return build


@pytest.fixture(scope="module")
def unbroken(setting: Path, words) -> Path:
    folder = setting / "unbroken"
    assert main([*words(folder), "--debug"]) == 0
    return folder


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_continued_equals_unbroken(point, words, unbroken, tmp_path, capsys):
    broken = tmp_path / "broken"
    ended = run_alone(tmp_path / "said", run_until, point, words(broken))
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    assert not (broken / "manifest.json").exists()
    assert is_complete(broken / "checkpoint-6")
    assert not is_complete(broken / "checkpoint-9")

    assert main([*words(broken), "--debug"]) == 0
    assert f"continuing from {broken / 'checkpoint-6'}" in capsys.readouterr().err
    assert_same_outcome(broken, unbroken)


def assert_same_outcome(one: Path, other: Path) -> None:
    for name in ("adapter_model.safetensors", "critic/critic.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_timings(one / "log.json") == without_timings(other / "log.json")
    kept = [
        {key: value for key, value in metrics_of(each).items() if not key.startswith("seconds")}
        for each in (one, other)
    ]
    assert kept[0] == kept[1]
    parts = sorted(path.name for path in (other / "completions").iterdir())
    assert parts == [f"rollout-{number:06d}.parquet" for number in (1, 2, 3)]
    for name in parts:
        there, here = ((each / "completions" / name).read_bytes() for each in (one, other))
        assert there == here, name


def without_timings(path: Path) -> list[dict]:
    return [
        {key: value for key, value in row.items() if not key.startswith(TIMING_PREFIXES)}
        for row in read_json(path)
    ]


def test_a_checkpoint_has_all_that_is_not_a_weight(unbroken):
    """After step 9: one step into the last of three rollouts of 8, in the second epoch."""
    folder = unbroken / "checkpoint-9"
    state = read_state(folder, 0)
    assert state["sampler"] == {"epoch": 1, "position": 24 - metrics_of(unbroken)["num_train"]}
    loader = state["loader"]
    assert (loader["number"], loader["position"], len(loader["buffer"])) == (2, 2, 4)
    for batch in loader["buffer"]:
        assert set(batch) == {"transcripts", "mask", *LEARNT_FROM}
        assert set(batch["transcripts"]) == {"ids", "mask", "starts", "lengths"}
    assert state["kl"]["coef"] != PPOConfig.kl_coef  # adaptive: moved three times
    (moments,) = state["rewards"]["moments"].values()
    assert moments["count"] == 24
    assert state["progress"]["episodes"] == 24
    assert set(state["progress"]["current"]) >= {"score", "kl"}
    assert state["watch"]["history"]
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"adapter_model.safetensors", "critic.safetensors", "trainer_state.json"} <= files
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= files


def test_another_seed_is_another_run(words, unbroken, tmp_path):
    """The comparison above can fail."""
    assert main([*words(tmp_path / "other", "--seed", "1"), "--debug"]) == 0
    name = "adapter_model.safetensors"
    assert (tmp_path / "other" / name).read_bytes() != (unbroken / name).read_bytes()


@pytest.mark.parametrize("writer", ["save_file", "torch.save"])
def test_a_full_disk_leaves_the_checkpoint_before(
    writer, words, unbroken, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "full"
    with monkeypatch.context() as patched:
        fill_disk(patched, writer, "checkpoint-6")
        assert main(words(folder)) == 4
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be written (No space left on device); free space" in error
    kept = last_complete(folder)
    assert kept is not None
    assert kept.name in ("checkpoint-3", "checkpoint-4")  # at 4 the first evaluation is the best
    assert not is_complete(folder / "checkpoint-6")

    assert main([*words(folder), "--debug"]) == 0
    assert f"continuing from {kept}" in capsys.readouterr().err
    assert_same_outcome(folder, unbroken)


def fill_disk(patched: pytest.MonkeyPatch, writer: str, name: str) -> None:
    module, attribute = (torch, "save") if writer == "torch.save" else (saving, "save_file")
    plain = getattr(module, attribute)

    def full(value, path, *more, **named):
        if name in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return plain(value, path, *more, **named)

    patched.setattr(module, attribute, full)


@pytest.mark.parametrize(
    "missing",
    [
        "adapter_model.safetensors",
        "adapter_config.json",
        "critic/critic.safetensors",
        "ppo_state_0.pt",
    ],
)
def test_a_checkpoint_that_lacks_something_is_named(missing, unbroken, make_trainer, tmp_path):
    checkpoint = tmp_path / "checkpoint-9"
    shutil.copytree(unbroken / "checkpoint-9", checkpoint)
    (checkpoint / missing).unlink()
    peft = LoraConfig(r=16, target_modules="all-linear")
    trainer = make_trainer(critic="adapter", peft=peft, save_strategy="steps")
    with pytest.raises(DataError, match=f"{Path(missing).name}.*--restart"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_a_finished_run_is_not_done_again(words, unbroken, capsys):
    before = (unbroken / "manifest.json").read_bytes()
    assert main(words(unbroken)) == 0
    assert "finished already" in capsys.readouterr().out
    assert (unbroken / "manifest.json").read_bytes() == before


def test_the_policy_alone_is_a_plain_adapter(unbroken, tiny_model):
    from safetensors import safe_open

    with safe_open(unbroken / "adapter_model.safetensors", framework="pt") as weights:
        names = list(weights.keys())
    assert names
    assert all(".lora_A.weight" in name or ".lora_B.weight" in name for name in names)
    config = read_json(unbroken / "adapter_config.json")
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["modules_to_save"] is None


def test_the_manifest_names_reward_and_gate(unbroken, setting):
    manifest = read_json(unbroken / "manifest.json")
    (source,) = manifest["provenance"]["rewards"]
    assert source["path"] == str(setting / "reward")
    assert source["gate"]["passed"] is True
    assert manifest["inputs"]["reward reward"]["sha256"] == source["sha256"]
    metrics = manifest["metrics"]
    assert metrics["num_episodes"] == 24
    assert metrics["num_rollouts"] == 3
    assert metrics["num_steps"] == 12
    assert metrics["score_ci_low"] < metrics["score"] < metrics["score_ci_high"]
    assert metrics["best_step"] in (4, 8, 12)
