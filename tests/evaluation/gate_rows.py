"""Rows of a reward stage's heldout.jsonl, made by hand for the gate's tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.evaluation.gate.heldout import ScoredPairs, checked_row, favoured_first, scored_pairs


def row(gap: float, prompt: str = "", **columns: Any) -> dict[str, Any]:
    """A pair whose chosen side scores `gap` above the rejected one, which scores 0."""
    made = {
        "prompt": prompt or f"prompt {gap}",
        "chosen": "a b c",
        "rejected": "a b c",
        "chosen_score": gap,
        "rejected_score": 0.0,
        "p_chosen": None,
        "chosen_ended": True,
        "rejected_ended": True,
    }
    return made | columns


def pairs_of(rows: Sequence[dict[str, Any]]) -> ScoredPairs:
    return scored_pairs([favoured_first(checked_row("row", each)) for each in rows])


def right_and_wrong(num_right: int, num_wrong: int, **columns: Any) -> list[dict[str, Any]]:
    """Pairs of different prompts, so many of them right and so many wrong."""
    gaps = [1.0] * num_right + [-1.0] * num_wrong
    return [row(gap, f"prompt {index}", **columns) for index, gap in enumerate(gaps)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
