"""The best checkpoint of a run: highest held-out score among those within the KL budget."""

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from rlhf.training.ppo.monitoring.watch import Watch


class BestWithinBudget(TrainerCallback):  # type: ignore[misc]
    """At each evaluation within the budget with the highest score so far: save, and note it.

    The state's `best_metric`, `best_global_step` and `best_model_checkpoint` are what
    CheckpointKeeper spares and a resumed run starts from. Without `kl_budget` (nats a
    completion) every evaluation may be the best. With `--save_strategy no` nothing is kept.
    """

    def __init__(self, kl_budget: float | None = None) -> None:
        self.kl_budget = kl_budget
        self._is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._is_training = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._is_training = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The evaluation may save, and a run that goes on from there must have logged up to there.
        control.should_log = control.should_log or control.should_evaluate

    on_epoch_end = on_step_end

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        score = metrics.get("eval_score", math.nan)
        is_kept = self._is_training and args.save_strategy != SaveStrategy.NO
        if not is_kept or not math.isfinite(score) or not self._is_within(metrics):
            return
        if state.best_metric is not None and score <= state.best_metric:
            return
        state.best_metric, state.best_global_step = score, state.global_step
        state.best_model_checkpoint = str(_checkpoint(args.output_dir, state.global_step))
        control.should_save = True

    def _is_within(self, metrics: dict[str, float]) -> bool:
        if self.kl_budget is None:
            return True
        return bool(metrics.get("eval_kl", math.nan) <= self.kl_budget)


def best_checkpoint(state: TrainerState, output_dir: str | Path) -> Path | None:
    """The folder of the best checkpoint; None when no evaluation was within the budget."""
    folder = _checkpoint(output_dir, state.best_global_step or 0)
    return folder if state.best_global_step and folder.is_dir() else None


def run_summary(watch: Watch, state: TrainerState) -> dict[str, Any]:
    """For the manifest's metrics: the best checkpoint, why the run stopped, its warnings.

    `best_step`, `best_eval_score` and `best_eval_kl` are None without a best one; `stop_reason`
    is None for a run that went to its end.
    """
    step = state.best_global_step or None
    rows = [row for row in state.log_history if row.get("step") == step and "eval_score" in row]
    row = rows[-1] if rows and step else {}
    return {
        "best_step": step,
        "best_eval_score": row.get("eval_score", state.best_metric if step else None),
        "best_eval_kl": row.get("eval_kl"),
        "stop_reason": watch.stop_reason,
        "warnings": [dict(each) for each in watch.said],
    }


def _checkpoint(output_dir: str | Path, step: int) -> Path:
    return Path(output_dir) / f"checkpoint-{step}"
