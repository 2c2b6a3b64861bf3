"""Which prompts a rollout is of: every epoch all of them once, each epoch in another order."""

from typing import Any

import numpy as np


class PromptSampler:
    """An endless row of prompts, cut into rollouts; what an epoch leaves over begins the next.

    The order is drawn from (seed, epoch), so that two numbers say where it stands. All processes
    draw the same row and each takes its own part of it.
    """

    def __init__(self, num_prompts: int, seed: int) -> None:
        assert num_prompts > 0, "no prompts"
        self.num_prompts = num_prompts
        self.seed = seed
        self.epoch = 0
        self.position = 0

    @property
    def epochs(self) -> float:
        """How often the prompts have been gone through, as a fraction."""
        return self.epoch + self.position / self.num_prompts

    def take(self, count: int) -> list[int]:
        """The indices of the next `count` prompts, over the ends of epochs if need be."""
        taken: list[int] = []
        while len(taken) < count:
            order = self._order()
            part = order[self.position : self.position + count - len(taken)]
            taken += part
            self.position += len(part)
            if self.position == self.num_prompts:
                self.epoch, self.position = self.epoch + 1, 0
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another stood."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _order(self) -> list[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order: list[int] = generator.permutation(self.num_prompts).tolist()
        return order


def part_of(places: list[int], process_index: int, num_processes: int) -> list[int]:
    """The neighbouring places that one process takes of those of all; each takes as many."""
    assert len(places) % num_processes == 0, "processes take equal parts"
    size = len(places) // num_processes
    return places[process_index * size : (process_index + 1) * size]
