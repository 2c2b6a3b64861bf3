"""Killed at any step, within one or between, and started again: the bytes of an unbroken run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.cli import main
from rlhf.training.checkpoints import is_complete, last_complete
from rlhf.training.dpo.trainer import GuardedDPOTrainer
from tests.processes import run_alone
from tests.training.conftest import metrics_of, read_json, write_rows

COMMON = [
    *("--learning_rate", "1e-2", "--max_steps", "8", "--save_steps", "2", "--logging_steps", "1"),
    *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"),
    *("--eval_fraction", "0.3", "--eval_strategy", "steps", "--eval_steps", "2"),
    *("--save_total_limit", "2"),
]
LORA = ["--use_peft", "--lora_target_modules", "all-linear", "--lora_dropout", "0.1"]
PRECOMPUTED = ["--precompute_ref_log_probs", "true"]
STOPPING = ["--early_stopping_patience", "1"]
SAMPLED = ["--num_kl_prompts", "2", "--kl_max_completion_length", "4"]
VARIANTS = {
    "everything": [*LORA, *PRECOMPUTED, *SAMPLED, "--early_stopping_patience", "9"],
    "stopped early": [*LORA, *STOPPING, "--learning_rate", "1", "--lr_scheduler_type", "constant"],
    "all weights": [*PRECOMPUTED],
    "reference adapter": [*LORA, *STOPPING, *SAMPLED, "--ref_model_name_or_path", "{adapter}"],
    "moving reference": ["--sync_ref_model", "true", "--ref_model_sync_steps", "3"],
    "second model": [*LORA, "--ref_model_name_or_path", "{other}"],
}
"""Data are rankings, whose pairs keep together, so batches are of unequal size in each."""
POINTS = [
    *[("everything", f"step {step}, micro-batch {1 + step % 2}") for step in range(8)],
    ("everything", "reference pass"),
    ("everything", "evaluation of step 6"),
    ("everything", "sampling at step 6"),
    ("everything", "save of step 6"),
    ("stopped early", "evaluation of step 4"),
    ("all weights", "step 5, micro-batch 2"),
    ("all weights", "reference pass"),
    ("reference adapter", "step 5, micro-batch 1"),
    ("moving reference", "step 5, micro-batch 2"),
    ("second model", "save of step 6"),
]
STEPS = POINTS[:8]
"""Every step, of which the second micro-batch lies within an accumulation."""


def run_until(point: str, words: list[str]) -> int:
    """Run the stage, and kill this very process at a point of the work, as kill -9 does."""
    step = int(point.partition("step ")[2].partition(",")[0] or 0)
    if "micro-batch" in point:
        number = int(point[-1])
        seen: list[int] = []

        def is_there(trainer: Any) -> bool:
            seen.extend([1] * (trainer.state.global_step == step))
            return len(seen) == number

        dying_after("training_step", is_there)
    elif point == "reference pass":
        dying_after("compute_ref_log_probs", lambda trainer: trainer.state.global_step == 0)
    elif point.startswith("evaluation"):
        dying_after("prediction_step", lambda trainer: trainer.state.global_step == step)
    elif point.startswith("sampling"):
        from rlhf.training.dpo.heldout_samples import HeldoutSamples

        plain = HeldoutSamples.metrics

        def metrics(self: Any, trainer: Any, prefix: str) -> dict[str, float]:
            found = plain(self, trainer, prefix)
            return die() if trainer.state.global_step == step else found

        HeldoutSamples.metrics = metrics  # type: ignore[method-assign]
    else:
        dying_half_way(f"checkpoint-{step}")
    return main(words)


def dying_after(method: str, is_there: Callable[[Any], bool]) -> None:
    plain = getattr(GuardedDPOTrainer, method)

    def patched(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        found = plain(trainer, *args, **kwargs)
        return die() if is_there(trainer) else found

    setattr(GuardedDPOTrainer, method, patched)


def dying_half_way(name: str) -> None:
    """In the middle of writing the optimizer's state: the weights are there already."""
    plain = torch.save

    def patched(value: Any, path: Any, *more: Any, **named: Any) -> Any:
        if name in str(path):
            Path(path).write_bytes(b"half")
            die()
        return plain(value, path, *more, **named)

    torch.save = patched


def die() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def setting(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rankings of three completions, another model and an adapter."""
    from tests.tiny import make_tiny_model

    folder = tmp_path_factory.mktemp("dpo")
    make_tiny_model(folder / "other", seed=3)
    texts = ["yes, that is it", "perhaps", "no"]
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {number}?"}],
            "chosen": f"{texts[better]} {number}.",
            "rejected": f"{texts[worse]} {number}.",
            "group": f"{number}",
            "p_chosen": 0.9 if worse - better > 1 else 0.7,
        }
        for number in range(16)
        for better, worse in ((0, 1), (0, 2), (1, 2))
    ]
    write_rows(folder / "pairs.jsonl", rows)
    words = ["dpo", "--model_name_or_path", str(tiny_model), "--use_peft", "--max_steps", "2"]
    words += ["--dataset_name", str(folder / "pairs.jsonl"), "--learning_rate", "1e-2"]
    assert main([*words, "--output_dir", str(folder / "adapter"), "--debug"]) == 0
    return folder


@pytest.fixture(scope="module")
def words(setting: Path, tiny_model: Path) -> Callable[..., list[str]]:
    def build(variant: str, output: Path, *more: str) -> list[str]:
        places = {"adapter": setting / "adapter", "other": setting / "other"}
        named = [word.format(**places) for word in VARIANTS[variant]]
        return [
            *("dpo", "--model_name_or_path", str(tiny_model)),
            *("--dataset_name", str(setting / "pairs.jsonl"), "--output_dir", str(output)),
            *(*COMMON, *named, *more),
        ]

    return build


@pytest.fixture(scope="module")
def unbroken(setting: Path, words: Callable[..., list[str]]) -> Callable[[str], Path]:
    """The folder of a variant's run that nobody killed, done once."""

    def run(variant: str) -> Path:
        folder = setting / variant
        if not (folder / "manifest.json").exists():
            assert main([*words(variant, folder), "--debug"]) == 0
        return folder

    return run


@pytest.mark.parametrize(("variant", "point"), POINTS[8:])
def test_killed_and_continued_equals_unbroken(variant, point, words, unbroken, tmp_path, capsys):
    kill_and_continue(variant, point, words, tmp_path)
    assert_same_outcome(tmp_path / "broken", unbroken(variant))
    step = int(point.partition("step ")[2].partition(",")[0] or 0)
    if step >= 2:
        assert "continuing from" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(("variant", "point"), STEPS)
def test_killed_at_every_step_and_continued_equals_unbroken(
    variant, point, words, unbroken, tmp_path
):
    kill_and_continue(variant, point, words, tmp_path)
    assert_same_outcome(tmp_path / "broken", unbroken(variant))


def kill_and_continue(variant: str, point: str, words: Any, folder: Path) -> None:
    broken = folder / "broken"
    ended = run_alone(folder / "said", run_until, point, words(variant, broken))
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    assert not (broken / "manifest.json").exists()
    if point.startswith("save of step 6"):
        assert last_complete(broken) == broken / "checkpoint-4"
        assert not is_complete(broken / "checkpoint-6")
    assert main([*words(variant, broken), "--debug"]) == 0


def assert_same_outcome(one: Path, other: Path) -> None:
    names = [path.name for path in other.glob("*model.safetensors")]
    assert names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(one) == without_times(other)
    assert metrics_of(one) == metrics_of(other)


def without_times(folder: Path) -> list[dict]:
    ends = ("_runtime", "_per_second")
    return [
        {key: value for key, value in row.items() if not key.endswith(ends)}
        for row in read_json(folder / "log.json")
    ]


def test_the_runs_above_do_what_they_are_about(unbroken):
    everything = unbroken("everything")
    assert len(list((everything / "reference").glob("*.npz"))) == 1
    assert "eval_kl" in metrics_of(everything)
    metrics = metrics_of(unbroken("stopped early"))
    assert metrics["stopped_early"] is True
    assert metrics["best_step"] < metrics["num_steps"] < 8
    assert not (unbroken("reference adapter") / "ref").exists()


def test_another_seed_is_another_run(words, unbroken, tmp_path):
    """The comparisons above can fail."""
    assert main([*words("everything", tmp_path / "other", "--seed", "1"), "--debug"]) == 0
    name = "adapter_model.safetensors"
    assert (tmp_path / "other" / name).read_bytes() != (unbroken("everything") / name).read_bytes()


def test_a_cache_that_is_gone_is_made_again_when_continuing(words, unbroken, tmp_path):
    """All weights are trained: the reference is the start, not what was trained since."""
    broken = tmp_path / "broken"
    point = "step 5, micro-batch 1"
    ended = run_alone(tmp_path / "said", run_until, point, words("all weights", broken))
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    (file,) = (broken / "reference").glob("*.npz")
    before = np.load(file)["logps"]
    file.unlink()
    assert main([*words("all weights", broken), "--debug"]) == 0
    assert (np.load(file)["logps"] == before).all()
    assert_same_outcome(broken, unbroken("all weights"))


def test_a_finished_run_is_not_done_again(words, unbroken, capsys):
    folder = unbroken("all weights")
    before = (folder / "manifest.json").read_bytes()
    assert main(words("all weights", folder)) == 0
    assert "finished already" in capsys.readouterr().out
    assert (folder / "manifest.json").read_bytes() == before


def test_the_best_checkpoint_is_what_is_kept(unbroken):
    folder = unbroken("stopped early")
    metrics = metrics_of(folder)
    best = folder / f"checkpoint-{metrics['best_step']}"
    name = "adapter_model.safetensors"
    assert (folder / name).read_bytes() == (best / name).read_bytes()
    assert metrics["eval_loss"] == pytest.approx(metrics["best_eval_loss"], abs=1e-6)


def test_early_stopping_needs_something_to_stop_by(words, tmp_path, capsys):
    assert main(words("stopped early", tmp_path / "out", "--eval_fraction", "0")) == 2
    assert "no prompt is held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (["--lr_scheduler_type", "constant"], [0.01] * 4),
        (["--lr_scheduler_type", "linear"], [0.01, 0.0075, 0.005, 0.0025]),
        (
            ["--lr_scheduler_type", "constant_with_warmup", "--warmup_steps", "2"],
            [0, 5e-3, 0.01, 0.01],
        ),
        (
            [
                *("--lr_scheduler_type", "cosine_with_min_lr"),
                *("--lr_scheduler_kwargs", '{"min_lr": 0.005}'),
            ],
            # 0.005 + 0.005 * (1 + cos(pi * step / 4)) / 2
            [0.01, 0.00926777, 0.0075, 0.00573223],
        ),
    ],
)
def test_schedules_are_those_of_transformers(options, rates, words, tmp_path):
    folder = tmp_path / "out"
    more = [
        "--max_steps",
        "4",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
        "--num_kl_prompts",
    ]
    assert main([*words("all weights", folder, *more, "0"), *options, "--debug"]) == 0
    found = [row["learning_rate"] for row in read_json(folder / "log.json") if "loss" in row]
    assert found == pytest.approx(rates, abs=1e-8)
