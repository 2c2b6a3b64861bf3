"""The length probe: how long each policy's completions are beside the baseline's, in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.evaluation.drift import num_words
from rlhf.evaluation.statistics import clustered_bootstrap
from rlhf.evaluation.win_rate import DEFAULT_TIE_TOLERANCE, win_rate
from rlhf.records import Estimate, content_hash
from rlhf.report.charts import is_number
from rlhf.report.reading import Run
from rlhf.report.wording import Finding, interval, known, label_of, percent, sentence_start

CHANGE = 0.2
"""Share by which the mean length must differ for the sentence to be loud: what a reader sees."""
_FEWEST = 10
"""Prompts below which a win rate over those where the length did not change says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Words of a policy's completions and the baseline's on the same prompts; `gap` is the mean
    difference prompt by prompt.
    """

    policy: Estimate
    baseline: Estimate
    gap: Estimate

    @property
    def change(self) -> float:
        """By which share the policy is longer (or, below 0, shorter)."""
        return self.policy.value / self.baseline.value - 1 if self.baseline.value else 0.0

    @property
    def is_large(self) -> bool:
        """Whether the change is one that a reader sees, and more than chance."""
        apart = self.gap.low > 0 or self.gap.high < 0
        return abs(self.change) >= CHANGE and apart


def lengths_of(run: Run, name: str, baseline: str) -> Lengths | None:
    """Words of a policy and the baseline over the evaluation's prompts; None without the texts."""
    rows = _pairs(run, name, baseline)
    if not rows:
        return None
    prompts = [content_hash(prompt) for prompt, _, _ in rows]
    policy = [_words(mine) for _, mine, _ in rows]
    reference = [_words(other) for _, _, other in rows]
    gaps = [mine - other for mine, other in zip(policy, reference, strict=True)]
    columns = [clustered_bootstrap(each, prompts) for each in (policy, reference, gaps)]
    return Lengths(policy=columns[0], baseline=columns[1], gap=columns[2])


def length_finding(
    run: Run, name: str, baseline: str, rate: Mapping[str, Any] | None
) -> Finding | None:
    """What stands beside a policy's win rate: its length, loudly when that has changed much.

    None without the texts, or for the baseline itself.
    """
    found = None if name == baseline else lengths_of(run, name, baseline)
    if found is None:
        return None
    label, other = sentence_start(label_of(name)), label_of(baseline)
    words = (
        f"{told(found.policy)} words on average, {other}'s {told(found.baseline)} "
        "(in brackets 95% intervals)."
    )
    if not found.is_large or name == "base":  # which nobody tuned
        return Finding(text=f"{label}'s completions have {words}")
    direction = "longer" if found.change > 0 else "shorter"
    by = percent(abs(found.change))
    text = f"{label}'s completions are {by} {direction.upper()} than {other}'s: {words}"
    if not known(rate) or rate["value"] <= 0.5:
        return Finding(text=text, is_alarming=True)
    text += f" What it won may have been won by {direction} completions."
    text += without_change(run, name, baseline, rate, direction)
    return Finding(text=text, simulated=bool(rate.get("simulated")), is_alarming=True)


def without_change(
    run: Run, name: str, baseline: str, rate: Mapping[str, Any], direction: str
) -> str:
    """What the policy wins, by the same judge, where its completion is not the shorter (longer)."""
    judge, sign = str(rate.get("judge")), 1 if direction == "longer" else -1
    pairs = [
        (_score(mine, judge), _score(other, judge))
        for _, mine, other in _pairs(run, name, baseline)
        if sign * (_words(mine) - _words(other)) <= 0
    ]
    scored = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(scored) < len(pairs):
        return ""
    if len(scored) < _FEWEST:
        count = f"{len(scored)} prompt{'' if len(scored) == 1 else 's'}"
        return f" It was not {direction} on {count} only: too few to say what it wins otherwise."
    tolerance = run.metrics("evaluate").get("tie_tolerance", DEFAULT_TIE_TOLERANCE)
    mine, other = zip(*scored, strict=True)
    share = win_rate(mine, other, tie_tolerance=tolerance)
    return (
        f" On the {share.n} prompts where it was not {direction} it won {percent(share.value)} "
        f"({interval(share.as_dict())})."
    )


def _pairs(run: Run, name: str, baseline: str) -> list[tuple[object, Any, Any]]:
    """(prompt, the policy's completion, the baseline's) of each row that has both."""
    rows = [(row.get("prompt"), row.get("policies")) for row in run.rows]
    return [
        (prompt, both[name], both[baseline])
        for prompt, both in rows
        if isinstance(both, dict)
        and all(isinstance(both.get(one), dict) for one in (name, baseline))
    ]


def _score(completion: Mapping[str, Any], judge: str) -> float | None:
    scores = completion.get("scores")
    value = scores.get(judge) if isinstance(scores, dict) else None
    return value if is_number(value) else None


def _words(completion: Mapping[str, Any]) -> int:
    return num_words(str(completion.get("text", "")))


def told(estimate: Estimate) -> str:
    """A mean number of words with its 95% interval, where one is known."""
    if not math.isfinite(estimate.low):
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f} ({estimate.low:.1f}\N{EN DASH}{estimate.high:.1f})"
