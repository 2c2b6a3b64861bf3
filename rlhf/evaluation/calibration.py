"""Whether a model that says 80% is right 80% of the time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.errors import DataError
from rlhf.evaluation.statistics import wilson
from rlhf.records import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The cases whose probability fell in [low, high): what was said and what came."""

    low: float
    high: float
    mean_probability: float
    observed: Estimate


def ece(probabilities: ArrayLike, outcomes: ArrayLike, num_bins: int = 10) -> float:
    """The expected calibration error in [0, 1]: mean |said - came| over bins, weighted by size.

    `probabilities` [N] and `outcomes` [N] lie in [0, 1]; an outcome is 1 when the thing came,
    and may be a share (a soft label). Of pairs, where the chosen one stands first by
    construction, give `folded` values. DataError on bad input. Source: Naeini et al., AAAI
    2015, with bins of equal width.
    """
    said, came = _checked(probabilities, outcomes)
    # A bin's size times |mean said - mean came| is the |sum of their differences|.
    sums = np.bincount(_bin_numbers(said, num_bins), weights=said - came)
    return float(np.abs(sums).sum() / len(said))


def reliability_bins(
    probabilities: ArrayLike, outcomes: ArrayLike, num_bins: int = 10
) -> list[ReliabilityBin]:
    """The bins that hold anything, in order, each with Wilson's interval of what came."""
    said, came = _checked(probabilities, outcomes)
    index = _bin_numbers(said, num_bins)
    bins = []
    for number in np.unique(index):
        inside = index == number
        bins.append(
            ReliabilityBin(
                low=float(number / num_bins),
                high=float((number + 1) / num_bins),
                mean_probability=float(said[inside].mean()),
                observed=wilson(float(came[inside].sum()), int(inside.sum())),
            )
        )
    return bins


def folded(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Floats, Floats]:
    """The same cases as (confidence in the likelier side, whether that side came), both [N].

    Confidence lies in [0.5, 1], so that the order in which a pair was written does not matter.
    """
    said, came = _checked(probabilities, outcomes)
    turned = said < 0.5
    return np.where(turned, 1 - said, said), np.where(turned, 1 - came, came)


def _bin_numbers(said: Floats, num_bins: int) -> NDArray[np.int64]:
    """Which bin of equal width each probability [N] lies in."""
    if num_bins < 1:
        raise DataError(f"num_bins is {num_bins}; give at least 1")
    # A probability of 1 belongs to the last bin, there being none above it.
    return np.minimum((said * num_bins).astype(np.int64), num_bins - 1)


def _checked(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Floats, Floats]:
    said = np.asarray(probabilities, dtype=np.float64).reshape(-1)
    came = np.asarray(outcomes, dtype=np.float64).reshape(-1)
    if len(said) == 0 or len(said) != len(came):
        raise DataError(f"{len(said)} probabilities and {len(came)} outcomes; give one for each")
    for name, values in (("probability", said), ("outcome", came)):
        if not ((values >= 0) & (values <= 1)).all():  # NaN fails this too
            raise DataError(f"a {name} lies outside [0, 1]; give shares")
    return said, came
