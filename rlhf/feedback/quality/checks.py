"""Raters held against what is known (gold items) and against themselves (retests)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.feedback.gold import meets
from rlhf.feedback.quality.estimates import beta_estimate
from rlhf.feedback.quality.measures import categories_of
from rlhf.records import Estimate, Judgement

_NOTHING: Mapping[str, Any] = {
    "verdict": None, "ranking": None, "ratings": None, "flags": None, "both_bad": False,
    "rewrite": None, "rewrite_of": None,
}  # fmt: skip


def gold_accuracy(
    judgements: Iterable[Judgement], gold: Mapping[str, Mapping[str, Any]]
) -> Estimate | None:
    """The share of gold items answered as expected, whole (see `rlhf.feedback.gold.meets`).

    The interval is the Beta posterior's. Skips are left out: who cannot tell is not wrong. None
    where nothing known was answered.
    """
    answered = [one for one in judgements if one.item in gold and one.skip is None]
    return _mean(float(meets(one, gold[one.item])) for one in answered)


def self_consistency(judgements: Sequence[Judgement]) -> Estimate | None:
    """The share of retests in which one rater said what they had said at first.

    Of a verdict the sign counts, of rankings, ratings and flags the share of what is repeated.
    """
    first = {one.item: one for one in judgements if one.purpose == "rate"}
    again = [one for one in judgements if one.purpose == "retest" and one.item in first]
    return _mean(share_repeated(first[one.item], one) for one in again)


def share_as_expected(judgement: Judgement, expected: Mapping[str, Any]) -> float | None:
    """How much of the expected values a judgement has, 0 to 1; None when it gives none of them.

    1 when it meets them. Else of a verdict the sign counts, of a ranking the order of each pair,
    of ratings and flags each completion's; verdict, ranking, each criterion and each flag weigh
    the same.
    """
    if meets(judgement, expected):
        return 1.0
    values = {key: value for key, value in expected.items() if key in _NOTHING}
    return share_repeated(replace(judgement, **{**_NOTHING, **values, "skip": None}), judgement)


def share_repeated(wanted: Judgement, found: Judgement) -> float | None:
    """The share of what `wanted` says that `found` says too, the mean over verdict, criteria ...

    None where they speak of nothing in common (a skip, say).
    """
    flags = {flag for one in (wanted, found) for each in one.flags or () for flag in each}
    there = categories_of(found, flags)
    outcomes: dict[str, list[bool]] = {}
    for (name, unit), value in categories_of(wanted, flags).items():
        if (name, unit) in there:
            outcomes.setdefault(name, []).append(there[name, unit] == value)
    shares = [sum(one) / len(one) for one in outcomes.values()]
    return sum(shares) / len(shares) if shares else None


def _mean(scores: Iterable[float | None]) -> Estimate | None:
    there = [score for score in scores if score is not None]
    return beta_estimate(sum(there), len(there))
