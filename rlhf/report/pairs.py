"""The reward model's scored pairs as the gate reads them, so that both give the same numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rlhf.evaluation.gate.heldout import ScoredPairs, favoured_first, scored_pairs
from rlhf.report.judgements import UNKNOWN, raters_names, voices_of
from rlhf.report.reading import Run

Row = dict[str, Any]


def heldout_pairs(run: Run) -> ScoredPairs | None:
    """The held-out pairs, ties among them, with votes from the judgements where rows have none."""
    names = raters_names(run)
    rows = [_with_votes(run, row, names) for row in run.heldout]
    return _arrays(rows, run.is_simulated("reward"))


def train_pairs(run: Run) -> ScoredPairs | None:
    """A sample of the pairs that it was trained on, ties among them."""
    return _arrays(run.train_sample, run.is_simulated("reward"))


def _arrays(rows: Iterable[Row], simulated: bool) -> ScoredPairs | None:
    """The rows as arrays, the completion that the label favours as chosen; None without rows."""
    turned = [favoured_first(row) for row in rows]
    if not turned:
        return None
    pairs = scored_pairs(turned)
    return replace(pairs, simulated=pairs.simulated or simulated)


def _with_votes(run: Run, row: Row, names: Mapping[str, str]) -> Row:
    """The row with its votes by raters who are known, if only by the judgements."""
    voices = [one for one in voices_of(run, row, names) if one.rater != UNKNOWN]
    votes = [{"id": one.id, "rater": one.rater, "prefers": one.prefers} for one in voices]
    return {**row, "votes": votes}
