"""The order in which rollouts are learnt from, one micro-batch at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf.models.transcripts import Transcripts
from rlhf.training.ppo.rollout import MicroBatch

Begin = Callable[[int], Sequence[MicroBatch] | None]


class RolloutLoader:
    """Micro-batches of one rollout after the other, for as long as there are rollouts.

    `begin(number)` makes rollout `number`, counted from 0: micro-batches, or None when no more
    are wanted. Each rollout is gone through `num_iterations` times, every time in another order
    drawn from (seed, rollout, iteration): so many neighbours in it as an optimizer step
    accumulates are a minibatch. Before each iteration but the first, `leaves()` may leave the
    rollout.

    It is asked for a micro-batch only when that is about to be learnt from. Accelerate's own
    loaders fetch one ahead: they would sample a rollout before the last step of the one before.
    """

    def __init__(
        self, begin: Begin, *, num_iterations: int, seed: int, leaves: Callable[[], bool]
    ) -> None:
        self.begin = begin
        self.num_iterations = num_iterations
        self.seed = seed
        self.leaves = leaves
        self.number = -1  # of the rollout at hand
        self.position = 0  # micro-batches of it handed out, over all iterations
        self.buffer: list[MicroBatch] = []

    @property
    def iteration(self) -> int:
        """The iteration that the next micro-batch is of, counted from 0."""
        return self.position // max(len(self.buffer), 1)

    def __iter__(self) -> "RolloutLoader":
        return self

    def __next__(self) -> MicroBatch:
        if self._is_through():
            self._begin_rollout()
        place = self.position % len(self.buffer)
        batch = self.buffer[self.order(self.iteration)[place]]
        self.position += 1
        return batch

    def order(self, iteration: int) -> list[int]:
        """Which micro-batch comes when, in an iteration over the rollout at hand."""
        generator = np.random.default_rng([self.seed, self.number, iteration])
        order: list[int] = generator.permutation(len(self.buffer)).tolist()
        return order

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, with the rollout at hand; tensors and plain values only."""
        buffer = [_plain(batch) for batch in self.buffer]
        return {"number": self.number, "position": self.position, "buffer": buffer}

    def load_state_dict(self, state: dict[str, Any], device: Any) -> None:
        """Go on from where another stood, its tensors on `device`."""
        self.number, self.position = int(state["number"]), int(state["position"])
        self.buffer = [_restored(batch, device) for batch in state["buffer"]]

    def _is_through(self) -> bool:
        if self.position == self.num_iterations * len(self.buffer):
            return True
        return self.position > 0 and self.position % len(self.buffer) == 0 and self.leaves()

    def _begin_rollout(self) -> None:
        batches = self.begin(self.number + 1)
        if batches is None:
            raise StopIteration
        self.number, self.position, self.buffer = self.number + 1, 0, list(batches)


_TOKENS = ("ids", "mask", "starts", "lengths")


def _plain(batch: MicroBatch) -> dict[str, Any]:
    transcripts = batch["transcripts"]
    named = {name: getattr(transcripts, name).cpu() for name in _TOKENS}
    return {"transcripts": named} | {
        key: value.cpu() for key, value in batch.items() if key != "transcripts"
    }


def _restored(batch: dict[str, Any], device: Any) -> MicroBatch:
    tokens = batch["transcripts"]
    transcripts = Transcripts(**{name: tokens[name].to(device) for name in _TOKENS})
    return {"transcripts": transcripts} | {
        key: value.to(device) for key, value in batch.items() if key != "transcripts"
    }
