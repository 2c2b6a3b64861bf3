"""The only place that touches private names of TRL and of transformers' Trainer.

Pinned to trl 1.16 and transformers 5.23; tests/models/test_trl_compat.py and
tests/training/test_resume.py hold what is used here to what those versions do.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trl.trainer.utils
from datasets import Dataset
from torch import Tensor
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import DPOTrainer, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference as DPOCollator
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference as UnpairedCollator
from trl.trainer.reward_trainer import DataCollatorForPreference as PreferenceCollator
from trl.trainer.reward_trainer import suppress_seqcls_warning as without_new_head_warning

__all__ = [
    "DPOCollator",
    "KeptRollouts",
    "OwnCheckpoints",
    "PreferenceCollator",
    "TokenizedDPOTrainer",
    "TokenizedKTOTrainer",
    "UnpairedCollator",
    "completion_positions_only",
    "count_tokens",
    "head_computed_by",
    "note_batch_metric",
    "train_from",
    "without_new_head_warning",
]


HeadOutputs = tuple[Tensor | None, ...]
"""What TRL's kernel returns of a fused head: five values a token, those not wanted None."""


class TokenizedDPOTrainer(DPOTrainer):
    """DPOTrainer on rows that are tokenised already (`prompt_ids`, `chosen_ids`, `rejected_ids`).

    SFTTrainer and RewardTrainer leave such rows alone; DPOTrainer would tokenise them again,
    and append an end token to completions that were cut.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Nothing yet: rows get their columns once the fast passes are in force, and are kept in
        the run's folder, where TRL keeps those of rows in memory in one that ends with the process.
        """
        return dataset


class TokenizedKTOTrainer(KTOTrainer):
    """KTOTrainer on rows that are tokenised already (`prompt_ids`, `completion_ids`, `label`).

    TRL would tokenise them again, and pair each prompt with its neighbour's completion for the
    KL, whatever prompt that one is of.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


class OwnCheckpoints(ABC):
    """Mixin before a transformers Trainer whose weights and state are not those of one model.

    The Trainer goes on keeping optimizer, scheduler, its own state and the global generators;
    what its subclass keeps is whole before the callbacks hear of the checkpoint. Of sharded
    training the weights come from `save_weights` too.
    """

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Write what has been trained; called on every process, of which the main one writes."""

    @abstractmethod
    def save_state(self, folder: Path) -> None:
        """Write the rest of what a run needs to go on; called on every process."""

    @abstractmethod
    def load_checkpoint(self, folder: Path) -> None:
        """Read both again, before the optimizer is made."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers' own: the weights into `output_dir`, that of the run unless given."""
        self.save_weights(Path(output_dir or self.args.output_dir))  # type: ignore[attr-defined]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
        self.save_state(folder)
        super()._save_checkpoint(model, trial)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_checkpoint(Path(resume_from_checkpoint))


class KeptRollouts:
    """Mixin before TRL's RLOOTrainer or GRPOTrainer: a continued run is the unbroken one, and
    prompts become ids as everywhere here.

    TRL 1.16 draws the order of prompts from one generator that goes on from epoch to epoch, and
    keeps neither its count of micro-batches nor the rollout that it learns from in a checkpoint:
    a run that is continued after epoch 0 meets epoch 0's prompts again, and samples anew where it
    stood within a rollout.
    """

    renderer: Any  # rlhf.data.tokenization.Renderer

    def rollout_state(self) -> dict[str, Any]:
        """The rollout that is being learnt from, and how far; torch.save can hold it."""
        return {"step": self._step, "buffer": self._buffered_inputs}

    def load_rollout_state(self, state: dict[str, Any]) -> None:
        """Go on from a `rollout_state`."""
        self._step, self._buffered_inputs = state["step"], state["buffer"]

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.renderer.prompt_ids(prompt) for prompt in prompts], None, {}

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return OrderByEpoch(sampler, lambda: int(self.state.epoch or 0))  # type: ignore[attr-defined]


class OrderByEpoch:
    """TRL's RepeatSampler in an order that follows from its seed and the epoch alone.

    `epoch` says which it is; it is asked when an epoch begins. accelerate's `set_epoch` would not
    reach a sampler below several wrappers, as when a run of two processes is continued.
    """

    def __init__(self, sampler: Any, epoch: Callable[[], int]) -> None:
        self.sampler = sampler
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.sampler.shuffle:
            self.sampler.generator.manual_seed((self.sampler.seed or 0) + self.epoch())
        yield from self.sampler

    def __len__(self) -> int:
        return len(self.sampler)


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


@contextmanager
def head_computed_by(token_scores: Callable[..., HeadOutputs | None]) -> Iterator[None]:
    """Within the block TRL's fused LM head has its values from `token_scores`.

    It is called as TRL's own kernel is, with hidden [N, H], weight [V, H], bias [V] or None, ids
    [N], temperature, TRL's tile size, softcap or None, scale, and the names of what is wanted
    beside the log-probabilities; it returns those [N], entropies, log sums of squared
    probabilities, mean scores and whether the id is the likeliest, each [N] or None. Where it
    returns None instead of them, TRL's own kernel computes.
    """
    original = trl.trainer.utils._ChunkedLogProbFunction

    class Kernel:
        @staticmethod
        def apply(*args: Any) -> HeadOutputs:
            found = token_scores(*args)
            return original.apply(*args) if found is None else found

    trl.trainer.utils._ChunkedLogProbFunction = Kernel
    try:
        yield
    finally:
        trl.trainer.utils._ChunkedLogProbFunction = original


def train_from(trainer: Any, checkpoint: Path | None) -> None:
    """`trainer.train()`, continuing from `checkpoint` if there is one.

    A checkpoint of the last step is loaded as it is: transformers would take one more step
    when it lies within an epoch.
    """
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


def count_tokens(trainer: Any, mask: Tensor) -> None:
    """Log the tokens of a batch, those where `mask` is 1, as TRL counts its own."""
    mode = "train" if trainer.model.training else "eval"
    if mode == "train":
        trainer._total_train_tokens += int(trainer.accelerator.gather(mask.sum()).sum())
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]


def restore_token_count(trainer: Any, state: TrainerState) -> None:
    """TRL counts tokens from 0 after a resume; go on from what the log says instead."""
    counts = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
    if counts:
        trainer._total_train_tokens = int(counts[-1])
