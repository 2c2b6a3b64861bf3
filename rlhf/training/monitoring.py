"""Watches a run: the log on disk as it grows, and a stop at the first NaN."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf.errors import StageError
from rlhf.manifest import write_json
from rlhf.training.checkpoints import last_complete

_MAX_PLACES = 3
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
    """Stops before a step whose gradients are NaN or infinite would spoil the weights.

    `places` are those of the rows that the step was computed from, where the trainer says so.
    """

    def __init__(self) -> None:
        self.places: list[str] = []

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.fp16:
            return  # its loss scaler meets infinite gradients on purpose and skips the step
        grads = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if grads and not all(bool(torch.isfinite(grad).all()) for grad in grads):
            folder = Path(args.output_dir)
            raise diverged("a gradient", state.global_step + 1, folder, self.places)
        self.places = []


class FiniteLoss:
    """Mixin for a trainer: the run stops at the first loss that is NaN or infinite.

    `row_places[i]` says for people where row i of the training data stands; a batch that carries
    `row` is then named.
    """

    row_places: Sequence[str] = ()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of one micro-batch, as the trainer under this mixin computes it."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        places = self._places(args)
        for callback in self.callback_handler.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FiniteGuard):
                callback.places += [place for place in places if place not in callback.places]
        if not bool(torch.isfinite(loss).all()):
            state, folder = self.state, Path(self.args.output_dir)  # type: ignore[attr-defined]
            raise diverged("the loss", state.global_step + 1, folder, places)
        return loss

    def _places(self, args: Sequence[Any]) -> list[str]:
        """Where the rows of the batch stand: it is the one argument that is a mapping."""
        rows = next((one["row"] for one in args if isinstance(one, Mapping) and "row" in one), [])
        return [self.row_places[int(row)] for row in rows if int(row) < len(self.row_places)]


def diverged(what: str, step: int, folder: Path, places: Sequence[str] = ()) -> StageError:
    """The error for a run that left the finite numbers at `step`, on the rows at `places`."""
    shown = ", ".join(places[:_MAX_PLACES])
    more = f" and {len(places) - _MAX_PLACES} more" if len(places) > _MAX_PLACES else ""
    rows = f" on {shown}{more}" if places else ""
    look = "those rows" if places else "the rows of that step"
    kept = last_complete(folder)
    good = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint before it"
    return StageError(
        f"{what} became NaN or infinite at step {step}{rows}; {good}; lower --learning_rate or "
        f"look at {look}"
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
