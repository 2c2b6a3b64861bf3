"""What trainers on pairs know of their rows beside tokens and labels, and the batches of these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training.arguments import Settings
from rlhf.training.options import PreferenceArguments
from rlhf.training.preferences.batches import (
    GroupedBatches,
    GroupedLoader,
    cut_by_length,
    pair_lengths,
)

COMPARING_LOSSES = {"aot", "aot_unpaired", "bco_pair", "sft"}
"""TRL's DPO losses of a pair that depend on the others in its micro-batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOrigins:
    """Where training rows come from: `places[i]` says where row i stands, `groups[i]` the ranking
    it is of (None: none). With `lengths`, what each row costs, a step is cut into micro-batches of
    rows of like length; without, as the rows were drawn.
    """

    places: Sequence[str] = ()
    groups: Sequence[str | None] = ()
    lengths: Sequence[int] = ()

    @property
    def is_grouped(self) -> bool:
        """Whether some ranking gave more than one pair."""
        named = [group for group in self.groups if group is not None]
        return len(set(named)) < len(named)


class GroupedTraining:
    """Mixin for a trainer on pairs: the pairs of a ranking are in one optimizer step.

    `rows` are its training rows' origins. `mean_batch` is the mean number of rows in a batch
    where batches differ in size, for the losses of a training batch to be divided by; else None.
    """

    rows: RowOrigins
    mean_batch: float | None = None

    def get_train_dataloader(self) -> Any:
        """TRL's own, or one whose steps keep the pairs of a ranking together."""
        args: Any = self.args  # type: ignore[attr-defined]
        if not self.rows.is_grouped:
            loader = super().get_train_dataloader()  # type: ignore[misc]
            if self.rows.lengths:
                num_batches = args.gradient_accumulation_steps * args.world_size
                cut_by_length(loader, self.rows.lengths, args.train_batch_size * num_batches)
            return loader
        batches = GroupedBatches(
            self.rows.groups,
            args.train_batch_size,
            num_accumulated=args.gradient_accumulation_steps,
            seed=args.data_seed if args.data_seed is not None else args.seed,
            process_index=args.process_index,
            num_processes=args.world_size,
            lengths=self.rows.lengths,
        )
        self.mean_batch = batches.mean_size
        if args.world_size > 1:
            gather_unequal(self.accelerator)  # type: ignore[attr-defined]
        return GroupedLoader(
            self.train_dataset,  # type: ignore[attr-defined]
            batch_sampler=batches,
            collate_fn=self.data_collator,  # type: ignore[attr-defined]
            num_workers=args.dataloader_num_workers,
        )


def gather_unequal(accelerator: Any) -> None:
    """Let an accelerator gather tensors that differ in length from process to process.

    TRL gathers what it logs of each row, and takes it that all processes have as many: gloo and
    nccl fail, or hang, where they do not.
    """
    gather = accelerator.gather

    def gather_any(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            return gather(tensor)
        lengths = gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        missing = max(lengths) - len(tensor)
        padded = torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])
        parts = gather(padded).chunk(len(lengths))
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    accelerator.gather = gather_any


def lengths_of(rows: Sequence[dict[str, Any]], settings: Settings) -> list[int]:
    """What each tokenised row costs, where steps are cut by length; else nothing."""
    training, stage = settings.training, settings.stage
    assert isinstance(stage, PreferenceArguments)
    losses = getattr(training, "loss_type", ())
    compared = COMPARING_LOSSES.intersection([losses] if isinstance(losses, str) else losses)
    is_cut = training.gradient_accumulation_steps * training.world_size > 1
    if stage.batch_by_length == "never" or compared or not is_cut:
        return []
    return pair_lengths(rows)


def rankings_line(groups: Sequence[str | None], arguments: Any) -> str:
    """How many rankings keep all their pairs in one optimizer step, and what would keep all."""
    batches = GroupedBatches(
        groups,
        arguments.per_device_train_batch_size,
        num_accumulated=arguments.gradient_accumulation_steps,
        num_processes=arguments.world_size,
        seed=arguments.seed,
    )
    num_split = batches.num_split()
    whole = batches.num_groups - num_split
    line = f"{whole} of {batches.num_groups} rankings keep their pairs in one optimizer step"
    if num_split == 0:
        return line
    return (
        f"{line}; for all of them a step (--per_device_train_batch_size, at least 2, times "
        f"--gradient_accumulation_steps) needs {batches.largest_group} pairs or more"
    )
