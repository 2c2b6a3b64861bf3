"""Watches a run: the log on disk as it grows, and a stop at the first NaN."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf.errors import StageError
from rlhf.manifest import write_json
from rlhf.training.checkpoints import last_complete

LOG_NAME = "log.json"
_TIMINGS = ("train_runtime", "train_samples_per_second", "train_steps_per_second")


class LogWriter(TrainerCallback):  # type: ignore[misc]
    """Keeps OUTPUT/log.json equal to the trainer's log: rows with `step`, `loss`, metrics."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            write_json(Path(args.output_dir) / LOG_NAME, log_rows(state))


class FiniteGuard(TrainerCallback):  # type: ignore[misc]
    """Stops before a step whose gradients are NaN or infinite would spoil the weights."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.fp16:
            return  # its loss scaler meets infinite gradients on purpose and skips the step
        grads = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if grads and not all(bool(torch.isfinite(grad).all()) for grad in grads):
            raise diverged("a gradient", state.global_step + 1, Path(args.output_dir))


class FiniteLoss:
    """Mixin for a trainer: the run stops at the first loss that is NaN or infinite."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of one micro-batch, as the trainer under this mixin computes it."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not bool(torch.isfinite(loss).all()):
            state, folder = self.state, Path(self.args.output_dir)  # type: ignore[attr-defined]
            raise diverged("the loss", state.global_step + 1, folder)
        return loss


def diverged(what: str, step: int, folder: Path) -> StageError:
    """The error for a run that left the finite numbers at `step`."""
    kept = last_complete(folder)
    good = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint before it"
    return StageError(
        f"{what} became NaN or infinite at step {step}; {good}; lower --learning_rate or look "
        "at the rows of that step"
    )


def log_rows(state: TrainerState) -> list[dict[str, Any]]:
    """The trainer's log without its last row of timings, which no two runs share."""
    return [row for row in state.log_history if not any(key in row for key in _TIMINGS)]


def mean_loss(rows: list[dict[str, Any]]) -> float | None:
    """The mean over optimizer steps of the logged training loss; None when none was logged.

    transformers' own `train_loss` counts only the steps since the last resume.
    """
    total, previous = 0.0, 0
    for row in rows:
        if "loss" in row:
            total += row["loss"] * (row["step"] - previous)
            previous = row["step"]
    return total / previous if previous else None
