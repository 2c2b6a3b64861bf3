"""A loader whose epochs are rounds: the rows of each are made when it begins."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from rlhf.data.columns import Columns
from rlhf.training.online_dpo.plan import RoundPlan

Begin = Callable[[int], Columns]


class RoundRows(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """The rows of the round at hand; as long as a round has prompts."""

    def __init__(self, plan: RoundPlan, placeholder: dict[str, Any]) -> None:
        self.plan = plan
        self.placeholder = placeholder
        self.rows: Columns = []

    def __len__(self) -> int:
        return self.plan.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index] if self.rows else self.placeholder)


class RoundBatches:
    """A batch sampler of one process: `begin(round)` makes the rows when their epoch begins.

    transformers' Trainer says which epoch it is, for the first time after a checkpoint was
    loaded. Of a round without pairs every batch is the placeholder, which is not learnt from.
    """

    def __init__(self, rows: RoundRows, begin: Begin, process_index: int) -> None:
        self.rows = rows
        self.begin = begin
        self.process_index = process_index
        self.number = -1

    def set_epoch(self, epoch: int) -> None:
        """Begin a round; a second call for the same one changes nothing."""
        if epoch == self.number:
            return
        self.rows.rows = self.begin(epoch)
        self.number = epoch

    def __len__(self) -> int:
        return self.rows.plan.num_batches * self.rows.plan.num_passes

    def __iter__(self) -> Iterator[list[int]]:
        assert self.number >= 0, "a round begins before it is iterated"
        if not self.rows.rows:
            return iter([[0]] * len(self))
        plan, count = self.rows.plan, len(self.rows.rows)
        return iter(plan.batches_of(self.number, count, self.process_index))


class RoundLoader(DataLoader[dict[str, Any]]):  # type: ignore[misc]
    """A loader that hands the epoch on to its batches.

    Where the first batches of a round are skipped, after a resume, accelerate puts a plain loader
    in its place and the Trainer reaches the batches by itself.
    """

    def set_epoch(self, epoch: int) -> None:
        """Begin a round."""
        assert isinstance(self.batch_sampler, RoundBatches)
        self.batch_sampler.set_epoch(epoch)


def make_loader(
    rows: RoundRows, begin: Begin, collate: Callable[..., Any], process_index: int
) -> RoundLoader:
    """The loader of one process."""
    batches: Any = RoundBatches(rows, begin, process_index)
    return RoundLoader(rows, batch_sampler=batches, collate_fn=collate)
