"""Whether an ensemble disagrees where it errs."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rlhf.evaluation.gate.checks import Check, judged, number_text, unmeasured
from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.evaluation.statistics import bootstrap_statistic

Floats = NDArray[np.float64]


def spread_check(pairs: ScoredPairs, threshold: float | None, seed: int) -> Check:
    """AUROC of the members' spread against the ensemble's mistakes.

    The spread of a pair is the standard deviation of the members' score gaps; a mistake is a
    pair whose rejected side scores higher by the mean. 0.5 means that the spread says nothing; it
    is said to predict error only where the interval clears that and the value the threshold.
    """
    name, title = "spread", "The spread predicts error"
    if pairs.member_gaps is None:
        return unmeasured(name, title, "one member: no spread to measure", threshold, n=len(pairs))
    spread = pairs.member_gaps.std(axis=0)  # [N]
    mistakes = pairs.right < 0.5
    if not mistakes.any() or mistakes.all():
        what = "no mistakes" if not mistakes.any() else "nothing but mistakes"
        reason = f"{what} among {len(pairs)} pairs, so nothing for the spread to predict"
        return unmeasured(name, title, reason, threshold, n=len(pairs))
    found = bootstrap_statistic(
        lambda rows: auroc(spread[rows], mistakes[rows]), pairs.prompts, seed=seed
    )
    predicts = np.nan_to_num(found.low, nan=0.0) > 0.5 and found.value >= (threshold or 0.5)
    says = "predicts error" if predicts else "does not predict error, as far as n shows"
    words = f"AUROC {number_text(found)}, {int(mistakes.sum())} mistakes: the spread {says}"
    details = {
        "num_members": len(pairs.member_gaps),
        "num_mistakes": int(mistakes.sum()),
        "predicts": bool(predicts),
    }
    return judged(name, title, found, threshold, words=words, details=details)


def auroc(values: Floats, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive case has the larger value than a negative one, ties half.

    `values` [N], `positive` [N]; NaN without one of either. Source: Mann and Whitney, 1947,
    by mid-ranks.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    ranks = rankdata(values)
    wins = float(ranks[positive].sum()) - num_positive * (num_positive + 1) / 2
    return wins / (num_positive * num_negative)
