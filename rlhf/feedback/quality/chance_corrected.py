"""Agreement beyond chance: Krippendorff's alpha over all raters, Cohen's kappa of two."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlhf.feedback.quality.estimates import resampling_counts
from rlhf.feedback.quality.measures import Table
from rlhf.records import Estimate

Level = Literal["nominal", "ordinal", "interval"]
Floats = NDArray[np.float64]
_NO_SPREAD = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Kappa:
    """Cohen's kappas of two raters over the `n` units that both judged.

    `kappa` is over categories, `weighted` over values with quadratic weights; None where it is
    undefined: no common unit, or both gave one and the same value throughout. `agreement` is
    the share of the units in which the categories are equal.
    """

    a: str
    b: str
    n: int
    agreement: float | None
    kappa: float | None
    weighted: float | None


def krippendorff_alpha(table: Table, level: Level, *, seed: int = 0) -> Estimate | None:
    """Krippendorff's alpha with its 95% interval; None where it is undefined.

    1 is full agreement, 0 what chance would give, below 0 worse than chance. It is undefined
    where no unit has two values, or all values are equal. `n` counts the units with two values
    or more. The value is evalica's (Krippendorff, "Computing Krippendorff's alpha-reliability",
    2011). Its interval is not taken: it draws single differences of pairs of values as though
    those of one unit did not hang together, with the disagreement by chance held fixed; here
    items are drawn again with all their units (percentiles of 1000 resamples).
    """
    pairable = {unit: values for unit, values in table.items() if len(values) > 1}
    if len({value for values in pairable.values() for value in values.values()}) < 2:
        return None
    import pandas  # type: ignore[import-untyped]
    from evalica import alpha

    frame = pandas.DataFrame(list(pairable.values()), dtype=float).T  # raters by units
    alphas = _resampled_alphas(pairable, level, seed)
    low, high = np.nanquantile(alphas, [0.025, 0.975])
    return Estimate(
        value=float(alpha(frame, level).alpha), low=float(low), high=float(high), n=len(pairable)
    )


def cohen_kappas(table: Table, categories: Table) -> list[Kappa]:
    """Both kappas for every pair of raters who judged a unit in common, in the order of names.

    Weights are quadratic: a disagreement counts by the square of its size, as in interval alpha.
    """
    common: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for unit, values in table.items():
        signs = categories[unit]
        for a, b in combinations(sorted(values), 2):
            common.setdefault((a, b), []).append((signs[a], signs[b], values[a], values[b]))
    return [
        Kappa(
            a=a,
            b=b,
            n=len(rows),
            agreement=sum(row[0] == row[1] for row in rows) / len(rows),
            kappa=cohen_kappa([row[0] for row in rows], [row[1] for row in rows]),
            weighted=weighted_kappa([row[2] for row in rows], [row[3] for row in rows]),
        )
        for (a, b), rows in sorted(common.items())
    ]


def cohen_kappa(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Cohen's kappa of two raters' categories of the same units; None where it is undefined.

    (o - c) / (1 - c): o the share of units in which they agree, c the same by chance, the sum
    over categories of the product of their shares (Cohen 1960). Written out, as is the weighted
    one: scikit-learn's takes milliseconds a pair, a quarter of a minute for a hundred raters.
    """
    if not one:
        return None
    shares, other_shares = Counter(one), Counter(other)
    chance = sum(shares[value] * other_shares[value] for value in shares) / len(one) ** 2
    agreeing = sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
    return None if chance == 1 else (agreeing - chance) / (1 - chance)


def weighted_kappa(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Cohen's kappa with quadratic weights of two raters' values; None where it is undefined.

    1 - d / c: d the mean squared difference of the two values of a unit, c that of any value of
    one with any of the other (Cohen 1968; Fleiss and Cohen 1973). The values themselves count;
    scikit-learn takes their places among those that occur, where -3 and 1 may be neighbours.
    """
    if not one:
        return None
    a, b = np.array(one), np.array(other)
    chance = float((a**2).mean() + (b**2).mean() - 2 * a.mean() * b.mean())
    return None if chance < _NO_SPREAD else 1 - float(((a - b) ** 2).mean()) / chance


def _resampled_alphas(table: Table, level: Level, seed: int) -> Floats:
    """Alpha when the items are drawn again; NaN for a draw in which all values are equal.

    alpha = 1 - (n - 1) sum o_ck d_ck / sum n_c n_k d_ck over the coincidences o of values c, k
    (a unit's pair of values counts 1 / (its values - 1)), n_c = sum_k o_ck, n = sum n_c.
    """
    values = sorted({value for given in table.values() for value in given.values()})
    coincidences = _coincidences(table, values)  # [items, values, values]
    size = len(values)
    counts = resampling_counts(len(coincidences), seed)
    drawn = (counts @ coincidences.reshape(len(coincidences), -1)).reshape(-1, size, size)
    totals = drawn.sum(axis=2)  # [resamples, values]
    distance = _distances(np.array(values), totals, level)
    observed = (drawn * distance).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.where(expected > 0, 1 - (totals.sum(axis=1) - 1) * observed / expected, np.nan)
        )


def _coincidences(table: Table, values: Sequence[float]) -> Floats:
    """For each item how often each two values coincide in its units, [items, values, values]."""
    item_at = {item: at for at, item in enumerate(dict.fromkeys(unit[0] for unit in table))}
    value_at = {value: at for at, value in enumerate(values)}
    found = np.zeros((len(item_at), len(values), len(values)))
    for unit, given in table.items():
        counts = np.bincount([value_at[one] for one in given.values()], minlength=len(values))
        pairs = np.outer(counts, counts) - np.diag(counts)
        found[item_at[unit[0]]] += pairs / (len(given) - 1)
    return found


def _distances(values: Floats, totals: Floats, level: Level) -> Floats:
    """Squared distances of values, [resamples or 1, values, values].

    Ordinal: the square of the number of values given from one to the other, half of the ends'.
    """
    if level == "nominal":
        return 1.0 - np.eye(len(values))[None]
    places = values[None] if level == "interval" else totals.cumsum(axis=1) - totals / 2
    return np.asarray((places[:, :, None] - places[:, None, :]) ** 2)
