"""Expected answers: what the makers of a gold or qualification item know to be right.

An expected answer holds any of `verdict`, `ranking`, `ratings` and `flags`, in the order of the
item's completions, and perhaps `tolerance`: by how much a rating may differ (0).
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rlhf.errors import DataError
from rlhf.feedback.rules import problem_with
from rlhf.records import Comparison, Judgement

PARTS = ("verdict", "ranking", "ratings", "flags")


def meets(judgement: Judgement, expected: Mapping[str, Any]) -> bool:
    """Whether a judgement says all that is expected; a skip never does.

    Of a verdict the side counts, not how far; of a ranking the order with its ties; of ratings
    every value that is named; of flags which of them stand at each completion.
    """
    if judgement.skip is not None:
        return False
    return all(_MEETS[part](judgement, expected) for part in PARTS if part in expected)


def check_expected(expected: Mapping[str, Any], comparison: Comparison) -> None:
    """Raise DataError unless a rater of this item could give the expected answer."""
    problem = problem_with_expected(expected, comparison)
    if problem is not None:
        raise DataError(f"item {comparison.item!a}: the expected answer: {problem}")


def problem_with_expected(expected: Any, comparison: Comparison) -> str | None:
    """What makes an expected answer impossible, in words; None when nothing does."""
    if not isinstance(expected, Mapping) or not expected.keys() & set(PARTS):
        return f"give at least one of {', '.join(PARTS)}"
    unknown = sorted(expected.keys() - {*PARTS, "tolerance"})
    if unknown:
        return f"it cannot hold {unknown[0]!r}; there are {', '.join(PARTS)}, tolerance"
    tolerance = expected.get("tolerance", 0)
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        return f"tolerance {tolerance!r} is no number of points"
    wrong = next((part for part in PARTS if not _is_of_kind(part, expected.get(part))), None)
    if wrong is not None:
        return f"{wrong} {expected[wrong]!r} is not what a rater gives there"
    try:
        return problem_with(_as_judgement(expected, comparison), comparison)
    except (TypeError, ValueError, AttributeError):
        return "its values are not those of a judgement"


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "verdict": int,
    "ranking": (list, tuple),
    "ratings": Mapping,
    "flags": (list, tuple),
}


def _is_of_kind(part: str, value: Any) -> bool:
    return value is None or (isinstance(value, _KINDS[part]) and not isinstance(value, bool))


def _as_judgement(expected: Mapping[str, Any], comparison: Comparison) -> Judgement:
    """The expected answer as if a rater had given it, to be held to the rules of one."""
    ranking, flags = expected.get("ranking"), expected.get("flags")
    return Judgement(
        id="expected",
        campaign="-",
        item=comparison.item,
        annotator="-",
        simulated=False,
        seconds=0.0,
        created_at=datetime.fromtimestamp(0, UTC),
        shown_order=tuple(range(len(comparison.completions))),
        verdict=expected.get("verdict"),
        ranking=None if ranking is None else tuple(ranking),
        ratings=expected.get("ratings"),
        flags=None if flags is None else tuple(map(tuple, flags)),
    )


def _meets_verdict(judgement: Judgement, expected: Mapping[str, Any]) -> bool:
    return judgement.verdict is not None and _sign(judgement.verdict) == _sign(expected["verdict"])


def _meets_ranking(judgement: Judgement, expected: Mapping[str, Any]) -> bool:
    ranking = judgement.ranking
    return ranking is not None and _dense(ranking) == _dense(expected["ranking"])


def _meets_ratings(judgement: Judgement, expected: Mapping[str, Any]) -> bool:
    said, tolerance = judgement.ratings or {}, expected.get("tolerance", 0)
    for criterion, values in expected["ratings"].items():
        given = said.get(criterion, (None,) * len(values))
        for value, wanted in zip(given, values, strict=True):
            if wanted is not None and (value is None or abs(value - wanted) > tolerance):
                return False
    return True


def _meets_flags(judgement: Judgement, expected: Mapping[str, Any]) -> bool:
    said = judgement.flags or ((),) * len(expected["flags"])
    return [set(flags) for flags in said] == [set(flags) for flags in expected["flags"]]


_MEETS = {
    "verdict": _meets_verdict,
    "ranking": _meets_ranking,
    "ratings": _meets_ratings,
    "flags": _meets_flags,
}


def _sign(verdict: int) -> int:
    return (verdict > 0) - (verdict < 0)


def _dense(ranking: Sequence[int]) -> list[int]:
    """Ranks without gaps: 1, 2, 2, 4 is the same order as 1, 2, 2, 3."""
    ranks = sorted(set(ranking))
    return [ranks.index(rank) for rank in ranking]
