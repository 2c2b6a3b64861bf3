"""One question put to a reward model: what was measured, what was asked, and whether it holds."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal

from rlhf.records import Estimate

Rule = Literal["at least", "low end at least", "not shown below", "at most", "within"]

_HOLDS: Mapping[Rule, Callable[[Estimate, float], bool]] = {
    "at least": lambda found, limit: found.value >= limit,
    "low end at least": lambda found, limit: found.low >= limit,
    "not shown below": lambda found, limit: not found.high < limit,
    "at most": lambda found, limit: found.value <= limit,
    "within": lambda found, limit: abs(found.value) <= limit,
}
_ASKED: Mapping[Rule, str] = {
    "at least": "at least {:g}",
    "low end at least": "the interval's low end at least {:g}",
    "not shown below": "the interval not wholly below {:g}",
    "at most": "at most {:g}",
    "within": "between -{0:g} and {0:g}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A measured value with its 95% interval and count, beside the threshold.

    `passed` is None where nothing could be measured, with the reason in `words`; a check
    without a threshold is measured, shown, and passes.
    """

    name: str
    title: str
    passed: bool | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    threshold: float | None
    words: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(
    name: str,
    title: str,
    found: Estimate,
    threshold: float | None,
    *,
    words: str,
    rule: Rule = "at least",
    details: Mapping[str, Any] | None = None,
) -> Check:
    """The check that `found` keeps `rule` against `threshold` (None: nothing is asked).

    A value that is not finite, or an interval's end that the rule needs and is not there, is
    no measurement.
    """
    needed = found.low if rule == "low end at least" else found.value
    if not isfinite(needed):
        return unmeasured(name, title, f"{words}: too few for a number", threshold, n=found.n)
    passed = threshold is None or _HOLDS[rule](found, threshold)
    return Check(
        name=name,
        title=title,
        passed=passed,
        value=found.value,
        low=found.low if isfinite(found.low) else None,
        high=found.high if isfinite(found.high) else None,
        n=found.n,
        threshold=threshold,
        words=words,
        details={"rule": rule, "asked": asked(rule, threshold), **(details or {})},
    )


def unmeasured(
    name: str,
    title: str,
    reason: str,
    threshold: float | None,
    *,
    n: int = 0,
    details: Mapping[str, Any] | None = None,
) -> Check:
    """The check for which there is nothing to measure, with the reason in words."""
    return Check(
        name=name,
        title=title,
        passed=None,
        value=None,
        low=None,
        high=None,
        n=n,
        threshold=threshold,
        words=reason,
        details=dict(details or {}),
    )


def asked(rule: Rule, threshold: float | None) -> str:
    """What a threshold asks for, in words."""
    return "nothing asked" if threshold is None else _ASKED[rule].format(threshold)


def number_text(found: Estimate, digits: int = 2) -> str:
    """`0.68 [0.56, 0.79] n=81`; without the interval where there is none."""
    interval = f" [{found.low:.{digits}f}, {found.high:.{digits}f}]" if isfinite(found.low) else ""
    return f"{found.value:.{digits}f}{interval} n={found.n}"


def exact(value: float, n: int) -> Estimate:
    """A number that was computed rather than sampled: a largest difference over n cases."""
    return Estimate(value=value, low=value, high=value, n=n)
