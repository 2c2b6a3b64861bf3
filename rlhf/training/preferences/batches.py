"""Which pairs stand in a batch together, and the tensors that they become."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
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
        return label_tensors(examples) | batch


def label_tensors(examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The `LABEL_COLUMNS` of P tokenised rows, each where the rows have it.

    `p_chosen` [P, H] (NaN: no label), `margin` [P], `weight` [P] and `row` [P].
    """
    first, tensors = examples[0], {}
    if "p_chosen" in first:
        labels = [
            [float("nan") if p is None else p for p in example["p_chosen"]] for example in examples
        ]
        tensors["p_chosen"] = torch.tensor(labels, dtype=torch.float)
    for name in ("margin", "weight"):
        if name in first:
            values = [example[name] for example in examples]
            tensors[name] = torch.tensor(values, dtype=torch.float)
    if "row" in first:
        tensors["row"] = torch.tensor([example["row"] for example in examples])
    return tensors


class GroupedBatches(Sampler[list[int]]):
    """Batches of at most `batch_size` rows; the rows of a group are in one optimizer step.

    Pairs of one ranking share their completions: spread over steps, a completion would be
    trained on again and again (Ouyang et al. 2022, arXiv 2203.02155, 3.5). A step is
    `num_accumulated` batches of each process. The sizes of groups are packed into steps once
    (the largest first, each where it first fits), so that every epoch has as many; which groups
    fill them, and their order, is drawn from seed and epoch. A group larger than a step is
    spread evenly over neighbouring ones.

    A step's rows are spread evenly over its batches. One with fewer rows than batches comes at
    the end of the epoch, since it would put the steps after it out of line: with batches of two
    rows or more there is one such step at most. Of several processes each gets every so-many-th
    batch, and all get as many: the first ones come again at the end if need be.
    """

    def __init__(
        self,
        groups: Sequence[str | None],
        batch_size: int,
        *,
        seed: int,
        num_accumulated: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
        lengths: Sequence[int] = (),
    ) -> None:
        """`groups[i]` names the group of row i; None: it stands alone. With `lengths` a step is cut
        into batches of rows of like length.
        """
        members: dict[str, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(f"row {row}" if group is None else f"group {group}", []).append(row)
        self.by_size: dict[int, list[list[int]]] = defaultdict(list)
        for group_rows in members.values():
            self.by_size[len(group_rows)].append(group_rows)
        self.num_parts = num_accumulated * num_processes
        self.step_size = batch_size * self.num_parts
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.lengths = lengths
        self.epoch = 0
        sizes = sorted((len(group_rows) for group_rows in members.values()), reverse=True)
        self.packing = pack_sizes(sizes, self.step_size)

    @property
    def num_groups(self) -> int:
        """Groups of more than one row."""
        return sum(len(groups) for size, groups in self.by_size.items() if size > 1)

    @property
    def largest_group(self) -> int:
        """The rows of the largest group: a step of that size would split none."""
        return max(self.by_size, default=0)

    @property
    def mean_size(self) -> float:
        """Rows of a batch in the mean: what the losses of its pairs are divided by, so that
        every pair counts the same whatever the size of the batch that it came in.
        """
        num_rows = sum(size * len(groups) for size, groups in self.by_size.items())
        return num_rows / self.num_batches  # however many processes share them

    def num_split(self) -> int:
        """Groups whose rows are in more than one step, in the order of the present epoch."""
        step_of: dict[int, int] = {}
        for index, batch in enumerate(self._batches()):
            step_of |= dict.fromkeys(batch, index // self.num_parts)
        groups = [rows for groups in self.by_size.values() for rows in groups]
        return sum(len({step_of[row] for row in rows}) > 1 for rows in groups)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; called by whatever iterates."""
        self.epoch = epoch

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, over all processes, none of them twice."""
        steps = [even_parts(range(sum(sizes)), self._num_steps(sizes)) for sizes in self.packing]
        return sum(min(len(rows), self.num_parts) for parts in steps for rows in parts)

    def __len__(self) -> int:
        return ceil(self.num_batches / self.num_processes)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        wanted = len(self) * self.num_processes
        again = list(islice(cycle(batches), wanted - len(batches)))
        return iter([*batches, *again][self.process_index :: self.num_processes])

    def _num_steps(self, sizes: Sequence[int]) -> int:
        """The steps that one bin of the packing takes: one, unless it is a group too large."""
        return ceil(sum(sizes) / self.step_size)

    def _batches(self) -> list[list[int]]:
        """All batches of the epoch, of every process."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)

        def drawn(values: Sequence[Any]) -> list[Any]:
            order = torch.randperm(len(values), generator=generator)
            return [values[index] for index in order.tolist()]

        waiting = {size: iter(drawn(self.by_size[size])) for size in sorted(self.by_size)}
        bins = sorted(drawn(self.packing), key=lambda sizes: sum(sizes) < self.num_parts)
        batches = []
        for sizes in bins:
            rows = [row for size in sizes for row in next(waiting[size])]
            for step in even_parts(rows, self._num_steps(sizes)):
                batches += even_parts(self._in_order(step), min(len(step), self.num_parts))
        return batches

    def _in_order(self, step: list[int]) -> list[int]:
        return by_length(step, self.lengths) if self.lengths else step


def by_length(rows: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """The rows, the longest first; of one length in the order given."""
    return sorted(rows, key=lambda row: -lengths[row])


def even_parts(rows: Sequence[int], num_parts: int) -> list[list[int]]:
    """The rows in their order, in parts as long as each other (to one row)."""
    ends = [len(rows) * part // num_parts for part in range(num_parts + 1)]
    return [list(rows[start:end]) for start, end in pairwise(ends)]


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


class StepsByLength(Sampler[int]):
    """The order of another sampler, with the rows of each optimizer step sorted by length.

    The rows of a step stay those that were drawn; cut into micro-batches, those of like length
    stand together and little is padded. With micro-batches of one size the step's gradient is
    that of any other cut, as long as the loss of a pair does not depend on its micro-batch. A last
    step of fewer rows stays as it was drawn: its last micro-batch may be smaller, its pairs then
    count more, and they would be the shortest each time.
    """

    def __init__(self, drawn: Any, lengths: Sequence[int], step_size: int) -> None:
        """`lengths[i]` is what row i costs; a step is of `step_size` rows, of all processes."""
        self.drawn = drawn
        self.lengths = lengths
        self.step_size = step_size

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on: the order follows from it."""
        if hasattr(self.drawn, "set_epoch"):
            self.drawn.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.drawn)

    def __iter__(self) -> Iterator[int]:
        drawn = iter(self.drawn)
        while step := list(islice(drawn, self.step_size)):
            is_whole = len(step) == self.step_size
            yield from by_length(step, self.lengths) if is_whole else step


def cut_by_length(loader: Any, lengths: Sequence[int], step_size: int) -> None:
    """Let a Trainer's prepared loader cut its steps into micro-batches by length.

    `step_size` counts the rows of a step over micro-batches and processes. The loader's own order
    by seed and epoch, and so that of a continued run, stays as it is.
    """
    batches = loader.batch_sampler
    batches = getattr(batches, "batch_sampler", batches)  # of several processes each has a share
    batches.sampler = StepsByLength(batches.sampler, lengths, step_size)


def pair_lengths(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Tokens of each pair that are computed when its prompt is computed once.

    Rows hold `chosen_ids` and `rejected_ids`, with the prompt in both or as `prompt_ids`.
    """
    found = []
    for row in rows:
        chosen, rejected = row["chosen_ids"], row["rejected_ids"]
        both = enumerate(zip(chosen, rejected, strict=False))
        shared = next((at for at, (a, b) in both if a != b), min(len(chosen), len(rejected)))
        prompt = len(row.get("prompt_ids", ()))
        found.append(prompt + len(chosen) + len(rejected) - shared)
    return found
