"""What else could explain the score: length, and the side on which a completion was shown."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.gate.accuracy import accuracy_of
from rlhf.evaluation.gate.checks import Check, judged, number_text, unmeasured
from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.evaluation.gate.overfitting import difference_of_means
from rlhf.evaluation.statistics import bootstrap_statistic, clustered_bootstrap
from rlhf.evaluation.win_rate import share_of_wins
from rlhf.records import Estimate

Floats = NDArray[np.float64]


def longer_right(pairs: ScoredPairs) -> Floats:
    """1 where the longer side is the chosen one, 0 where the shorter is, 0.5 alike [N]."""
    gaps = pairs.chosen_lengths - pairs.rejected_lengths
    return np.where(gaps == 0, 0.5, (gaps > 0).astype(np.float64))


def length_baseline_check(pairs: ScoredPairs, threshold: float | None) -> Check:
    """How much more often the model is right than the better of two rules of length alone.

    The rules are "pick the longer" and "pick the shorter"; the gain is taken pair by pair.
    """
    longer = longer_right(pairs)
    rule, picked = ("longer", longer) if longer.mean() >= 0.5 else ("shorter", 1 - longer)
    found = clustered_bootstrap(pairs.right - picked, pairs.prompts)
    baseline = share_of_wins(longer, clusters=pairs.prompts)
    words = (
        f"'pick the longer' is right on {number_text(baseline)}; over 'pick the {rule}' the "
        f"model gains {number_text(found)}"
    )
    details = {
        "pick_the_longer": baseline.as_dict(),
        "better_rule": rule,
        "accuracy": accuracy_of(pairs).as_dict(),
        "length_unit": pairs.length_unit,
    }
    title = "Gain over length alone"
    return judged("length_baseline", title, found, threshold, words=words, details=details)


def length_correlation_check(pairs: ScoredPairs, threshold: float | None, seed: int) -> Check:
    """How closely the score gap follows the length gap, from -1 to 1."""
    score_gaps, length_gaps = pairs.gaps, pairs.chosen_lengths - pairs.rejected_lengths
    name, title = "length_correlation", "Score gap against length gap"
    found = bootstrap_statistic(
        lambda rows: gap_correlation(score_gaps[rows], length_gaps[rows]), pairs.prompts, seed=seed
    )
    if not np.isfinite(found.value):
        return unmeasured(
            name, title, "the lengths, or the scores, do not differ", threshold, n=len(pairs)
        )
    words = f"correlation {number_text(found)} in {pairs.length_unit}"
    return judged(name, title, found, threshold, words=words, rule="within")


def gap_correlation(score_gaps: Floats, length_gaps: Floats) -> float:
    """The correlation of two gaps [N] when each pair counts in both of its orders.

    So it does not depend on which side was written first, and both means are 0. NaN where
    either gap is 0 throughout.
    """
    scale = float(np.sqrt((score_gaps**2).sum() * (length_gaps**2).sum()))
    return float((score_gaps * length_gaps).sum()) / scale if scale else float("nan")


def longer_rejected_check(pairs: ScoredPairs, threshold: float | None, min_pairs: int) -> Check:
    """Accuracy on the pairs where length misleads: the rejected side is the longer one."""
    name, title = "longer_rejected", "Accuracy where the longer is rejected"
    misled = pairs.rejected_lengths > pairs.chosen_lengths
    if misled.sum() < min_pairs:
        reason = f"only {int(misled.sum())} pairs whose longer side is rejected"
        return unmeasured(name, title, reason, threshold, n=int(misled.sum()))
    found = accuracy_of(pairs.where(misled))
    chosen_longer = pairs.chosen_lengths > pairs.rejected_lengths
    other = accuracy_of(pairs.where(chosen_longer)) if chosen_longer.any() else None
    words = f"{number_text(found)}" + (
        f", where the longer is chosen {number_text(other)}" if other else ""
    )
    details = {"longer_chosen": other.as_dict() if other else None}
    return judged(
        name, title, found, threshold, words=words, rule="not shown below", details=details
    )


def side_label_check(pairs: ScoredPairs, threshold: float | None, min_pairs: int) -> Check:
    """Whether the labels favour the side shown first: the share of votes that chosen stood first.

    The value is that share minus one half.
    """
    name, title = "side_of_labels", "Labels and the side shown first"
    known = ~np.isnan(pairs.chosen_shown_first)
    if known.sum() < min_pairs:
        reason = _unknown_side(known)
        return unmeasured(name, title, reason, threshold, n=int(known.sum()))
    of = pairs.where(known)
    share_first = share_of_wins(of.chosen_shown_first, clusters=of.prompts)
    found = Estimate(
        value=share_first.value - 0.5,
        low=share_first.low - 0.5,
        high=share_first.high - 0.5,
        n=share_first.n,
    )
    share = found.value + 0.5
    words = f"the preferred side stood first in {share:.0%} of votes: {number_text(found)} off half"
    if share in (0.0, 1.0):
        words += "; labels of one class: the side alone predicts every one"
    details = {"share_shown_first": share}
    return judged(name, title, found, threshold, words=words, rule="within", details=details)


def side_accuracy_check(pairs: ScoredPairs, threshold: float | None, min_pairs: int) -> Check:
    """Whether the model is right less often where the label goes against the favoured side.

    The favoured side is the one (first or second) that more of the labels went to. The value is
    the accuracy on labels for it minus that on labels against it: a model that learnt the
    raters' leaning has none to show, since it never sees a side; a difference says that labels
    for the favoured side, or those against it, are the noisier ones.
    """
    name, title = "side_accuracy", "Accuracy against the favoured side"
    first = pairs.chosen_shown_first
    leaning = np.nanmean(first) if (~np.isnan(first)).any() else 0.5
    with_it = first > 0.5 if leaning >= 0.5 else first < 0.5  # False for NaN
    against = first < 0.5 if leaning >= 0.5 else first > 0.5
    fewest = int(min(with_it.sum(), against.sum()))
    if fewest < min_pairs:
        known = ~np.isnan(first)
        reason = f"only {fewest} labels for one of the two sides"
        if not known.all():
            reason += f": {_unknown_side(known)}"
        return unmeasured(name, title, reason, threshold, n=len(pairs))
    found = bootstrap_statistic(
        lambda rows: difference_of_means(pairs.right[rows], with_it[rows], against[rows]),
        pairs.prompts,
    )
    details: dict[str, Any] = {
        "favoured_side": "first" if leaning >= 0.5 else "second",
        "with_it": accuracy_of(pairs.where(with_it)).as_dict(),
        "against_it": accuracy_of(pairs.where(against)).as_dict(),
    }
    words = (
        f"right on {details['with_it']['value']:.0%} of labels for the side shown "
        f"{details['favoured_side']}, {details['against_it']['value']:.0%} against it: "
        f"difference {number_text(found)}"
    )
    return judged(name, title, found, threshold, words=words, rule="at most", details=details)


def _unknown_side(known: NDArray[np.bool_]) -> str:
    if not known.any():
        return "the labels do not say which side was shown first"
    return f"only {int(known.sum())} pairs say which side was shown first"
