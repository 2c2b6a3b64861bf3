"""How far raters agree, and how good labels of such raters can be."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rlhf.feedback.votes import ordinary, votes_of
from rlhf.records import Estimate, Judgement

NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often two raters say the same of one pair of completions.

    `value` is None where no pair was judged twice; the interval is a bootstrap over items.
    """

    value: float | None
    low: float | None
    high: float | None
    num_agreeing: int
    num_rater_pairs: int
    num_items: int


def signs_by_pair(judgements: Iterable[Judgement]) -> dict[tuple[str, int, int], list[int]]:
    """For each judged pair of completions the sign of each rater's verdict (the rater's last).

    Of ordinary judgements only: gold items may be chosen for being plain.
    """
    last: dict[tuple[str, int, int], dict[str, int]] = defaultdict(dict)
    for judgement in ordinary(judgements):
        for vote in votes_of(judgement):
            key = judgement.item, vote.first, vote.second
            last[key][judgement.annotator] = vote.sign
    return {key: list(signs.values()) for key, signs in last.items()}


def percent_agreement(
    signs_by_item: Iterable[Sequence[int]], *, decisive_only: bool = False, seed: int = 0
) -> Agreement:
    """The share of pairs of raters, over all items, whose verdicts have the same sign.

    `signs_by_item` holds one sign (-1, 0, 1) a rater for each item. A tie agrees with a tie
    alone; `decisive_only` leaves ties out, as a forced choice would have.
    """
    counts = [_agreeing_pairs(signs, decisive_only) for signs in signs_by_item]
    table = np.array([each for each in counts if each[1]], dtype=np.int64).reshape(-1, 2)
    agreeing, pairs = (int(total) for total in table.sum(axis=0))
    low, high = _bootstrap(table, seed) if pairs else (None, None)
    return Agreement(
        value=agreeing / pairs if pairs else None,
        low=low,
        high=high,
        num_agreeing=agreeing,
        num_rater_pairs=pairs,
        num_items=len(table),
    )


def rater_accuracy(p: float) -> float | None:
    """How often one rater is right when two equally good ones agree with probability `p`.

    Two independent raters of accuracy a agree on which of two is better with probability
    p = a^2 + (1 - a)^2, so a = (1 + sqrt(2p - 1)) / 2. None for p <= 1/2: agreement at chance
    tells nothing of accuracy.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p = {p} is no probability")
    return (1 + math.sqrt(2 * p - 1)) / 2 if p > 0.5 else None


def majority_accuracy(accuracy: float, num_votes: int) -> float:
    """How often the majority of `num_votes` independent raters is right; an even split counts half.

    Condorcet's jury theorem: sum over k > n/2 of C(n, k) a^k (1 - a)^(n - k).
    """
    if num_votes < 1:
        raise ValueError("a majority needs at least one vote")
    return sum(
        math.comb(num_votes, right)
        * accuracy**right
        * (1 - accuracy) ** (num_votes - right)
        * (1.0 if 2 * right > num_votes else 0.5 if 2 * right == num_votes else 0.0)
        for right in range(num_votes + 1)
    )


def noise_ceiling(p: float | None, num_votes: int | Sequence[int]) -> float | None:
    """How often majority labels are right when two raters agree with probability `p`.

    `num_votes` is the number of votes of each item (or the one number for all); the ceiling is
    the mean over items. None where agreement is unknown or at chance, or nothing was judged.
    """
    accuracy = None if p is None else rater_accuracy(p)
    counts = [num_votes] if isinstance(num_votes, int) else [one for one in num_votes if one]
    if accuracy is None or not counts:
        return None
    return sum(majority_accuracy(accuracy, count) for count in counts) / len(counts)


def noise_ceiling_estimate(
    signs_by_item: Iterable[Sequence[int]], *, seed: int = 0
) -> Estimate | None:
    """The noise ceiling of labels with its interval, from the decisive verdicts on each item.

    The interval carries the agreement's bootstrap interval through the formula; where its lower
    end is at chance, the ceiling's lower end is 1/2.
    """
    items = [[sign for sign in signs if sign] for signs in signs_by_item]
    agreement = percent_agreement(items, decisive_only=True, seed=seed)
    counts = [len(signs) for signs in items if signs]
    value = noise_ceiling(agreement.value, counts)
    if value is None:
        return None
    low = noise_ceiling(agreement.low, counts)
    high = noise_ceiling(agreement.high, counts)
    return Estimate(
        value=value,
        low=0.5 if low is None else low,
        high=value if high is None else high,
        n=len(counts),
    )


def _agreeing_pairs(signs: Sequence[int], decisive_only: bool) -> tuple[int, int]:
    kept = [sign for sign in signs if sign or not decisive_only]
    pairs = list(combinations(kept, 2))
    return sum(one == other for one, other in pairs), len(pairs)


def _bootstrap(table: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """The 95% interval of agreeing over all pairs when items ([n, 2] counts) are drawn again."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(table), size=(NUM_RESAMPLES, len(table)))
    totals = table[drawn].sum(axis=1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(low), float(high)
