"""The only place that touches private names of TRL and of transformers' Trainer.

Pinned to trl 1.16 and transformers 5.23; tests/models/test_trl_compat.py and
tests/training/test_resume.py hold what is used here to what those versions do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trl.trainer.utils
from datasets import Dataset
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import DPOTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference as PreferenceCollator
from trl.trainer.reward_trainer import suppress_seqcls_warning as without_new_head_warning

__all__ = [
    "PreferenceCollator",
    "TokenizedDPOTrainer",
    "completion_positions_only",
    "note_batch_metric",
    "train_from",
    "without_new_head_warning",
]


class TokenizedDPOTrainer(DPOTrainer):
    """DPOTrainer on rows that are tokenised already (`prompt_ids`, `chosen_ids`, `rejected_ids`).

    SFTTrainer and RewardTrainer leave such rows alone; DPOTrainer would tokenise them again,
    and append an end token to completions that were cut.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


@contextmanager
def completion_positions_only() -> Iterator[None]:
    """Score completion positions only, on every device, as TRL does on Triton devices.

    Elsewhere its fused LM head projects prompts and padding too and throws the result away,
    to spare recompiling devices a new shape per batch: on a CPU that is most of a DPO step.
    The name decides only this; the kernels ask their own module.
    """
    original = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = original


def train_from(trainer: Any, checkpoint: Path | None) -> None:
    """`trainer.train()`, continuing from `checkpoint` if there is one.

    A checkpoint of the last step is loaded as it is: transformers would take one more step
    when it lies within an epoch.
    """
    with completion_positions_only():
        _train_from(trainer, checkpoint)


def _train_from(trainer: Any, checkpoint: Path | None) -> None:
    if checkpoint is None:
        trainer.train()
        return
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.global_step >= state.max_steps or _stopped_early(state):
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = state
        _load_best(trainer, checkpoint.parent)
        return
    restore_token_count(trainer, state)
    trainer.train(resume_from_checkpoint=str(checkpoint))


def _stopped_early(state: TrainerState) -> bool:
    """Whether early stopping had already ended the run when this checkpoint was saved."""
    noted = state.stateful_callbacks.get("EarlyStoppingCallback")
    for one in noted if isinstance(noted, list) else [noted]:
        if one is not None:
            patience = one["args"]["early_stopping_patience"]
            return bool(one["attributes"]["early_stopping_patience_counter"] >= patience)
    return False


def _load_best(trainer: Any, folder: Path) -> None:
    """What train() does at its end, where load_best_model_at_end is set."""
    best = folder / f"checkpoint-{trainer.state.best_global_step}"
    if trainer.args.load_best_model_at_end and best.is_dir():
        trainer.state.best_model_checkpoint = str(best)
        trainer._load_best_model()


def note_batch_metric(trainer: Any, name: str, value: float | None, *, instead: bool) -> None:
    """Log `value` as a metric of the batch whose loss was just computed, as TRL logs its own.

    With `instead` it takes the place of what TRL noted of that batch. None: nothing to note.
    """
    metrics = trainer._metrics["train" if trainer.model.training else "eval"]
    if instead and metrics[name]:
        metrics[name].pop()
    if value is not None:
        metrics[name].append(value)
    if not metrics[name]:
        del metrics[name]  # TRL would divide by the number of batches, none


def restore_token_count(trainer: Any, state: TrainerState) -> None:
    """TRL counts tokens from 0 after a resume; go on from what the log says instead."""
    counts = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
    if counts:
        trainer._total_train_tokens = int(counts[-1])
