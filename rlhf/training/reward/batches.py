"""Which pairs stand in a batch together, and the tensors that they become."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from rlhf.models.trl_compat import PreferenceCollator

LABEL_COLUMNS = ("p_chosen", "margin", "weight", "row")
"""What a tokenised row may say of its label. `p_chosen` is a list with a value for each head
(None: no label), `row` the place of the row in its data set, counted from 0."""


@dataclass
class PairCollator(PreferenceCollator):  # type: ignore[misc]
    """TRL's collator, with what rows say of their labels beside its ids and mask.

    Adds `p_chosen` [P, H] (NaN: no label), `margin` [P], `weight` [P] and `row` [P], each where
    the rows have that column.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples`, chosen rows first."""
        batch: dict[str, Any] = super().torch_call(examples)
        first = examples[0]
        if "p_chosen" in first:
            labels = [
                [float("nan") if p is None else p for p in example["p_chosen"]]
                for example in examples
            ]
            batch["p_chosen"] = torch.tensor(labels, dtype=torch.float)
        if "weight" in first:
            weights = [example["weight"] for example in examples]
            batch["weight"] = torch.tensor(weights, dtype=torch.float)
        if "row" in first:
            batch["row"] = torch.tensor([example["row"] for example in examples])
        return batch


class GroupedBatches(Sampler[list[int]]):
    """Batches of at most `batch_size` rows, in which the rows of a group stand together.

    Pairs of one ranking share their completions: spread over batches, a completion would be
    trained on again and again (Ouyang et al. 2022, arXiv 2203.02155, 3.5). The sizes of groups
    are packed into batches once (the largest first, each where it first fits), so that every
    epoch has as many; which groups fill them, and their order, is drawn from seed and epoch. A
    group of more than `batch_size` rows fills neighbouring batches of its own. Of several
    processes each gets every so-many-th batch, and all get as many: the first ones come again
    at the end if need be.
    """

    def __init__(
        self,
        groups: Sequence[str | None],
        batch_size: int,
        *,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        """`groups[i]` names the group of row i; None: it stands alone."""
        members: dict[str, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(f"row {row}" if group is None else f"group {group}", []).append(row)
        self.by_size: dict[int, list[list[int]]] = defaultdict(list)
        for group_rows in members.values():
            self.by_size[len(group_rows)].append(group_rows)
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.epoch = 0
        sizes = sorted((len(group_rows) for group_rows in members.values()), reverse=True)
        self.packing = pack_sizes(sizes, batch_size)

    @property
    def num_groups(self) -> int:
        """Groups of more than one row."""
        return sum(len(groups) for size, groups in self.by_size.items() if size > 1)

    @property
    def largest_group(self) -> int:
        """The rows of the largest group: a batch of that size would split none."""
        return max(self.by_size, default=0)

    @property
    def num_split(self) -> int:
        """Groups that do not fit into one batch."""
        sizes = self.by_size.items()
        return sum(len(groups) for size, groups in sizes if size > self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; called by whatever iterates."""
        self.epoch = epoch

    def __len__(self) -> int:
        num_batches = sum(ceil(sum(sizes) / self.batch_size) for sizes in self.packing)
        return ceil(num_batches / self.num_processes)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        wanted = len(self) * self.num_processes
        again = list(islice(cycle(batches), wanted - len(batches)))
        return iter([*batches, *again][self.process_index :: self.num_processes])

    def _batches(self) -> list[list[int]]:
        """All batches of the epoch, of every process."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)

        def drawn(values: Sequence[Any]) -> list[Any]:
            order = torch.randperm(len(values), generator=generator)
            return [values[index] for index in order.tolist()]

        waiting = {size: iter(drawn(self.by_size[size])) for size in sorted(self.by_size)}
        batches = []
        for sizes in drawn(self.packing):
            rows = [row for size in sizes for row in next(waiting[size])]
            starts = range(0, len(rows), self.batch_size)
            batches += [rows[start : start + self.batch_size] for start in starts]
        return batches


def pack_sizes(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Sizes, the largest first, put together into bins of at most `limit`, each where it first
    fits; one above the limit has a bin of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    open_from = 0  # bins before it are full: most sizes are 1, and many
    for size in sizes:
        fits = next((at for at in range(open_from, len(bins)) if room[at] >= size), None)
        if fits is None:
            bins.append([])
            room.append(limit)
            fits = len(bins) - 1
        bins[fits].append(size)
        room[fits] -= size
        while open_from < len(bins) and room[open_from] <= 0:
            open_from += 1
    return bins


class GroupedLoader(DataLoader[dict[str, Any]]):
    """A loader that hands the epoch on to its batches, as transformers' Trainer asks."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        assert isinstance(self.batch_sampler, GroupedBatches)
        self.batch_sampler.set_epoch(epoch)
