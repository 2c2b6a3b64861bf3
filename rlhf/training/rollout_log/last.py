"""What a run that learns online came to, by its last rollouts."""

from collections.abc import Mapping, Sequence

NUM_LAST = 5
"""Rollouts at the end whose mean is the run's score: one alone is a few completions."""

_REPORTED = (
    *("score", "reward", "kl", "completion_length", "ended_rate", "repetition", "entropy"),
)
"""What the manifest has of them: of all stages that learn online the same."""


def last_rollouts(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the last NUM_LAST rows of a log that has one a rollout, as far as rows have each.

    `score_ci_low` and `score_ci_high` bound the mean score: rollouts are of other completions
    each, so their errors add up as squares. They are left out where a rollout has no interval.
    """
    last = rows[-NUM_LAST:]
    columns = {name: [row[name] for row in last if name in row] for name in _REPORTED}
    found = {name: sum(values) / len(values) for name, values in columns.items() if values}
    if last and all("score_ci_low" in row and "score_ci_high" in row for row in last):
        halves = [(row["score_ci_high"] - row["score_ci_low"]) / 2 for row in last]
        half = sum(each**2 for each in halves) ** 0.5 / len(last)
        found |= {"score_ci_low": found["score"] - half, "score_ci_high": found["score"] + half}
    return found
