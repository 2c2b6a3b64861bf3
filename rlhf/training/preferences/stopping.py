"""Stopping a run once its held-out loss no longer falls, with the best checkpoint kept."""

from collections.abc import Sized
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerState

from rlhf.errors import ConfigError, StageError
from rlhf.training.arguments import Settings
from rlhf.training.options import KTOArguments, PreferenceArguments


def early_stopping(stage: PreferenceArguments | KTOArguments) -> list[EarlyStoppingCallback]:
    """The callback that stops a run once its held-out loss no longer falls, where asked for."""
    patience = stage.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []


def refuse_nothing_to_stop_by(settings: Settings, heldout: Sized) -> None:
    """ConfigError when early stopping is asked for and no row is held out."""
    if settings.stage.early_stopping_patience and not heldout:
        raise ConfigError(
            "--early_stopping_patience: no row is held out; give --eval_fraction above 0 or "
            "--eval_dataset_name"
        )


def keep_best(arguments: Any, patience: int) -> None:
    """Set a trainer's arguments so that it evaluates where it saves and ends at its best.

    Nothing for a `patience` of 0. ConfigError where some checkpoint would have no evaluation.
    """
    if not patience:
        return
    if arguments.eval_strategy.value == "no":
        arguments.eval_strategy = arguments.save_strategy
        arguments.eval_steps = arguments.save_steps
    if arguments.eval_strategy != arguments.save_strategy or (
        arguments.eval_strategy.value == "steps" and arguments.save_steps % arguments.eval_steps
    ):
        raise ConfigError(
            "--early_stopping_patience: the best checkpoint is kept, so --save_strategy must "
            "be --eval_strategy and --save_steps a multiple of --eval_steps"
        )
    arguments.load_best_model_at_end = True
    arguments.metric_for_best_model = "eval_loss"
    arguments.greater_is_better = False
    arguments.restore_callback_states_from_checkpoint = True  # how often it was no better


def stopping_summary(state: TrainerState, output_dir: str) -> dict[str, Any]:
    """For the manifest: whether the run stopped early, and its best step and held-out loss.

    StageError when the best checkpoint is gone.
    """
    best = Path(output_dir) / f"checkpoint-{state.best_global_step}"
    if state.best_global_step and not best.is_dir():
        raise StageError(
            f"{best}: the best checkpoint is gone, and the last one would stand in for it "
            "without a word; train again with --restart"
        )
    return {
        "stopped_early": state.global_step < state.max_steps,
        "best_step": state.best_global_step,
        "best_eval_loss": state.best_metric,
    }
