"""What an ensemble of reward models said: every member's every head, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw values [K, B, H] of K members and H heads for B completions, float32 on the CPU.

    `weights` are the heads' in the scalar, [H]. A single reward model has K = 1, and one
    without criteria H = 1 of weight 1.
    """

    raw: Tensor
    weights: Sequence[float]

    @property
    def members(self) -> Tensor:
        """Each member's score [K, B]: the weighted sum of its heads."""
        return (self.raw * self.raw.new_tensor(list(self.weights))).sum(-1)

    @property
    def mean(self) -> Tensor:
        """The score [B]: the mean over members."""
        return self.members.mean(0)

    @property
    def spread(self) -> Tensor:
        """How far the members are apart [B]: their standard deviation, divided by K and not by
        K - 1, so that a single member has 0.
        """
        return self.members.std(0, correction=0)

    @property
    def heads(self) -> Tensor:
        """Each head's value [B, H], unweighted: the mean over members."""
        return self.raw.mean(0)
