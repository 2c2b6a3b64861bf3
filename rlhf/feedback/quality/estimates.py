"""Intervals: of a share by the Beta posterior, of anything else by drawing the items again."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.records import Estimate

NUM_RESAMPLES = 1000


def beta_estimate(num_for: float, num: int) -> Estimate | None:
    """A share with its 95% interval under Jeffreys' prior, Beta(1/2, 1/2); None of nothing.

    `num_for` may hold halves and other parts. The interval is open to 0 where nothing was for
    and to 1 where all was (Brown, Cai and DasGupta, "Interval estimation for a binomial
    proportion", 2001).
    """
    if not num:
        return None
    from scipy.special import betaincinv

    against = num - num_for
    return Estimate(
        value=num_for / num,
        low=float(betaincinv(num_for + 0.5, against + 0.5, 0.025)) if num_for > 0 else 0.0,
        high=float(betaincinv(num_for + 0.5, against + 0.5, 0.975)) if against > 0 else 1.0,
        n=num,
    )


def resampling_counts(num_items: int, seed: int) -> NDArray[np.float64]:
    """How often each item is drawn in each of the resamples, [NUM_RESAMPLES, num_items].

    Items are drawn, not answers: those on one item hang together.
    """
    generator = np.random.default_rng(seed)
    shares = np.full(num_items, 1 / num_items)
    return generator.multinomial(num_items, shares, size=NUM_RESAMPLES).astype(np.float64)


def ratio_estimate(parts: Sequence[tuple[float, float]], *, seed: int = 0) -> Estimate | None:
    """The sum of parts over that of wholes; the interval is of drawing the items again.

    `parts` holds the part and the whole of each item. `n` is the sum of wholes, rounded; None
    where that is 0.
    """
    table = np.array([one for one in parts if one[1]], dtype=np.float64).reshape(-1, 2)
    part, whole = table.sum(axis=0)
    if not whole:
        return None
    totals = resampling_counts(len(table), seed) @ table
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return Estimate(value=float(part / whole), low=float(low), high=float(high), n=round(whole))


def share_estimate(outcomes: Iterable[tuple[str, bool]], *, seed: int = 0) -> Estimate | None:
    """The share of outcomes that are true, several an item; the interval is over the items."""
    by_item: dict[str, list[bool]] = defaultdict(list)
    for item, outcome in outcomes:
        by_item[item].append(outcome)
    return ratio_estimate([(sum(one), len(one)) for one in by_item.values()], seed=seed)
