"""Means and variances over completion tokens, of one process or of all ranks together.

Padding may hold anything, infinity and NaN too: it is selected away, never multiplied by zero.
Sums run in float64 (float32 where a device has none), so that one process and several ranks
agree to the last digits that matter.

`reduce` sums a tensor over the ranks, elementwise, and returns the sum; without it, statistics
are of this process alone. Every rank has to call, also one whose mask is empty.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rlhf.errors import StageError

Reduce = Callable[[Tensor], Tensor]

_MIN_VARIANCE = 1e-8
"""Added to a variance before it divides: rounding noise of 1e-8 must not become signal."""


def masked_sum(x: Tensor, mask: Tensor, reduce: Reduce | None = None) -> Tensor:
    """The scalar sum of `x` where `mask`, two tensors of one shape; 0 where it keeps nothing."""
    total, _ = _sum_and_count(x, mask, reduce)
    return total.to(_result_type(x))


def masked_mean(x: Tensor, mask: Tensor, reduce: Reduce | None = None) -> Tensor:
    """The scalar mean of `x` where `mask`, two tensors of one shape; 0 where it keeps nothing."""
    return _mean(x, mask, reduce).to(_result_type(x))


def masked_variance(x: Tensor, mask: Tensor, reduce: Reduce | None = None) -> Tensor:
    """The scalar mean squared deviation of `x` where `mask`; 0 for one token or none.

    Divided by the number of tokens, not by one less: of a single token it is 0, not NaN.
    """
    deviations, _ = _deviations(x, mask, reduce)
    return _mean(deviations.square(), mask, reduce).to(_result_type(x))


def standardize(x: Tensor, mask: Tensor, *, reduce: Reduce | None = None) -> Tensor:
    """`x` [any shape] brought to mean 0 and variance 1 over `mask`; 0 elsewhere.

    A constant x (or a single token) becomes 0. Float32 comes back, of float64 float64.
    """
    scaled, _ = _scaled_deviations(x, mask, reduce)
    return torch.where(mask, scaled, 0.0).to(_result_type(x))


def scale_to_unit_variance(x: Tensor, mask: Tensor, *, reduce: Reduce | None = None) -> Tensor:
    """`x` [any shape] brought to variance 1 over `mask` about the mean it has; 0 elsewhere.

    A constant x stays what it is. Float32 comes back, of float64 float64.
    """
    scaled, mean = _scaled_deviations(x, mask, reduce)
    return torch.where(mask, scaled + mean, 0.0).to(_result_type(x))


class RunningMoments:
    """Mean and variance of every number ever seen, merged batch by batch.

    The update is that of Chan, Golub and LeVeque (1979) for two samples: it keeps the sum of
    squared deviations (M2) and so loses no digits when the mean is large. The three numbers are
    Python floats, so float64 on every device, and come back from a checkpoint to the last bit.
    """

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = 0.0
        self._m2 = 0.0

    @property
    def variance(self) -> float:
        """Mean squared deviation of all numbers so far; 0 of fewer than two."""
        return self._m2 / self.count if self.count > 0 else 0.0

    @property
    def std(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    def update(
        self, x: Tensor, mask: Tensor | None = None, *, reduce: Reduce | None = None
    ) -> None:
        """Take in `x` [any shape] where `mask` (everywhere unless given), of all ranks at once.

        StageError when a number is not finite: it would stay in the mean for ever. With `reduce`
        every rank raises it, whichever rank the number came from.
        """
        keep = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        total, count_tensor = _sum_and_count(x, keep, reduce)
        count = float(count_tensor)
        mean = float(total) / max(count, 1.0)
        if not math.isfinite(mean):
            raise StageError(
                f"running mean of scores: a batch with a number that is not finite (sum "
                f"{float(total)}); look for the reward source that returned it"
            )
        deviations = torch.where(keep, x.to(_sum_type(x)) - mean, 0.0)
        squares, _ = _sum_and_count(deviations.square(), keep, reduce)
        self._merge(count, mean, float(squares))

    def standardize(self, x: Tensor) -> Tensor:
        """`x` minus the mean, over the deviation; undivided while no two numbers have differed."""
        scale = math.sqrt(self.variance + _MIN_VARIANCE) if self._m2 > 0 else 1.0
        return ((x.to(_sum_type(x)) - self.mean) / scale).to(_result_type(x))

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` needs to go on as if never stopped."""
        return {"count": self.count, "mean": self.mean, "m2": self._m2}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a `state_dict`."""
        self.count, self.mean, self._m2 = (float(state[key]) for key in ("count", "mean", "m2"))

    def _merge(self, count: float, mean: float, m2: float) -> None:
        if count == 0:
            return
        together = self.count + count
        delta = mean - self.mean
        self.mean += delta * count / together
        self._m2 += m2 + delta * delta * self.count * count / together
        self.count = together


def _scaled_deviations(x: Tensor, mask: Tensor, reduce: Reduce | None) -> tuple[Tensor, Tensor]:
    """(x - mean) / deviation, 0 where masked away, and the mean."""
    deviations, mean = _deviations(x, mask, reduce)
    variance = _mean(deviations.square(), mask, reduce)
    return deviations * (variance + _MIN_VARIANCE).rsqrt(), mean


def _deviations(x: Tensor, mask: Tensor, reduce: Reduce | None) -> tuple[Tensor, Tensor]:
    mean = _mean(x, mask, reduce)
    return torch.where(mask, x.to(_sum_type(x)) - mean, 0.0), mean


def _mean(x: Tensor, mask: Tensor, reduce: Reduce | None) -> Tensor:
    total, count = _sum_and_count(x, mask, reduce)
    return total / count.clamp(min=1)


def _sum_and_count(x: Tensor, mask: Tensor, reduce: Reduce | None) -> tuple[Tensor, Tensor]:
    assert x.shape == mask.shape, f"{tuple(x.shape)} numbers, {tuple(mask.shape)} in the mask"
    kept = torch.where(mask, x.to(_sum_type(x)), 0.0)
    both = torch.stack([kept.sum(), mask.sum().to(kept.dtype)])  # one message for the two
    total, count = (reduce(both) if reduce is not None else both).unbind()
    return total, count


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def _result_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
