"""The reward stage's scored pairs, as arrays: `heldout.jsonl` and `train_sample.jsonl`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.errors import DataError
from rlhf.evaluation.drift import num_words
from rlhf.feedback.files import read_rows
from rlhf.records import content_hash

HELDOUT_NAME = "heldout.jsonl"
TRAIN_SAMPLE_NAME = "train_sample.jsonl"

_EQUAL = 1e-9  # as the reward stage takes p_chosen for a tie

Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """N pairs whose first side is the one the labels favour, with a reward model's scores.

    Arrays are [N]; NaN stands for what a row does not say. `lengths` are tokens where the rows
    have them, else words. `member_gaps` [K, N] are an ensemble's, chosen minus rejected.
    """

    rows: list[Row]
    prompts: list[str]
    chosen_scores: Floats
    rejected_scores: Floats
    p_chosen: Floats
    margins: Floats
    chosen_lengths: Floats
    rejected_lengths: Floats
    length_unit: str
    chosen_shown_first: Floats
    member_gaps: Floats | None
    simulated: bool

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def gaps(self) -> Floats:
        """Score of chosen minus score of rejected [N]."""
        return self.chosen_scores - self.rejected_scores

    @property
    def right(self) -> Floats:
        """1 where chosen scores higher, 0 where lower, 0.5 where equal [N]."""
        return np.where(self.gaps == 0, 0.5, (self.gaps > 0).astype(np.float64))

    @property
    def outcomes(self) -> Floats:
        """The probability that chosen is the better one [N]: the soft label, 1 without one."""
        return np.where(np.isnan(self.p_chosen), 1.0, self.p_chosen)

    @property
    def is_soft(self) -> bool:
        """Whether any label is a probability."""
        return bool((self.outcomes < 1).any())

    def where(self, kept: NDArray[np.bool_]) -> "ScoredPairs":
        """The pairs that `kept` [N] marks."""
        indices = np.flatnonzero(kept)
        return ScoredPairs(
            rows=[self.rows[i] for i in indices],
            prompts=[self.prompts[i] for i in indices],
            chosen_scores=self.chosen_scores[kept],
            rejected_scores=self.rejected_scores[kept],
            p_chosen=self.p_chosen[kept],
            margins=self.margins[kept],
            chosen_lengths=self.chosen_lengths[kept],
            rejected_lengths=self.rejected_lengths[kept],
            length_unit=self.length_unit,
            chosen_shown_first=self.chosen_shown_first[kept],
            member_gaps=None if self.member_gaps is None else self.member_gaps[:, kept],
            simulated=self.simulated,
        )

    @property
    def decided(self) -> "ScoredPairs":
        """Without the ties, which are in no accuracy."""
        return self.where(self.p_chosen != 0.5)


def read_scored_pairs(path: Path) -> ScoredPairs:
    """The scored pairs of a reward stage.

    DataError, with the line, for a missing or empty file, a row without texts or finite
    scores, and where every pair is a tie, so that there is nothing to be right about.
    """
    if not path.is_file():
        raise DataError(
            f"{path.parent}: no {path.name}; give a reward stage's folder, made with "
            "--eval_fraction above 0 or an --eval_dataset_name"
        )
    rows = [favoured_first(checked_row(place, row)) for place, row in read_rows(path)]
    if not rows:
        raise DataError(
            f"{path}: no held-out pairs, so nothing can be measured; train with a larger "
            "--eval_fraction, or give --eval_dataset_name"
        )
    pairs = scored_pairs(rows)
    if (pairs.p_chosen == 0.5).all():
        raise DataError(
            f"{path}: all {len(rows)} labels are ties: labels of one class say nothing of "
            "accuracy; collect comparisons that raters decide"
        )
    return pairs


def scored_pairs(rows: Sequence[Row]) -> ScoredPairs:
    """Checked rows as arrays."""
    in_tokens = all(row.get("num_chosen_tokens") is not None for row in rows)
    return ScoredPairs(
        rows=list(rows),
        prompts=[content_hash(row["prompt"]) for row in rows],
        chosen_scores=_column(rows, "chosen_score"),
        rejected_scores=_column(rows, "rejected_score"),
        p_chosen=_ties_exact(_column(rows, "p_chosen")),
        margins=_column(rows, "margin"),
        chosen_lengths=_lengths(rows, "chosen", in_tokens),
        rejected_lengths=_lengths(rows, "rejected", in_tokens),
        length_unit="tokens" if in_tokens else "words",
        chosen_shown_first=_column(rows, "chosen_shown_first"),
        member_gaps=_member_gaps(rows),
        simulated=any(row.get("simulated") is True for row in rows),
    )


def checked_row(place: str, row: Row) -> Row:
    """The row, once it is known to hold what the checks rely on; DataError at `place`."""
    if not isinstance(row.get("prompt"), (str, list)):
        raise DataError(f"{place}: no prompt; run rlhf reward again")
    for key in ("chosen", "rejected"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{place}: {key} must be text; run rlhf reward again")
    for key in ("chosen_score", "rejected_score"):
        if not _is_number(row.get(key)):
            raise DataError(
                f"{place}: {key} is {row.get(key)!r}, no finite number; look for a NaN in "
                "training and run rlhf reward again"
            )
    counts = [(f"num_{side}_tokens", None) for side in ("chosen", "rejected")]
    for key, high in (("p_chosen", 1.0), ("chosen_shown_first", 1.0), ("margin", None), *counts):
        value = row.get(key)
        if value is not None and not (_is_number(value) and 0 <= value <= (high or value)):
            raise DataError(f"{place}: {key} is {value!r}, out of range; run rlhf reward again")
    return row


def favoured_first(row: Row) -> Row:
    """The row with its sides turned where the label favours `rejected` (p_chosen below 0.5)."""
    if row.get("p_chosen") is None or row["p_chosen"] >= 0.5:
        return row
    turned = {_other_side(key): value for key, value in row.items()}
    turned["p_chosen"] = 1 - row["p_chosen"]
    if row.get("chosen_shown_first") is not None:
        turned["chosen_shown_first"] = 1 - row["chosen_shown_first"]
    if row.get("rejected_prompt") is not None:
        turned |= {"prompt": row["rejected_prompt"], "rejected_prompt": row["prompt"]}
    turned["votes"] = [
        {**vote, "prefers": _other_side(str(vote.get("prefers")))}
        for vote in row.get("votes") or []
    ]
    return turned


def _other_side(key: str) -> str:
    if key in ("p_chosen", "chosen_shown_first", "rejected_prompt"):
        return key
    if "rejected" in key:
        return key.replace("rejected", "chosen")
    return key.replace("chosen", "rejected")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _column(rows: Sequence[Row], key: str) -> Floats:
    values = [row.get(key) for row in rows]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _ties_exact(p_chosen: Floats) -> Floats:
    """With 0.5 for what differs from it by rounding alone, as the mean of several criteria may."""
    return np.where(np.abs(p_chosen - 0.5) < _EQUAL, 0.5, p_chosen)


def _lengths(rows: Sequence[Row], side: str, in_tokens: bool) -> Floats:
    if in_tokens:
        return _column(rows, f"num_{side}_tokens")
    return np.array([num_words(row[side]) for row in rows], dtype=np.float64)


def _member_gaps(rows: Sequence[Mapping[str, Any]]) -> Floats | None:
    """[K, N], or None where the model is no ensemble."""
    sides = [(row.get("chosen_member_scores"), row.get("rejected_member_scores")) for row in rows]
    if any(not chosen or not rejected for chosen, rejected in sides):
        return None
    sizes = {len(side) for pair in sides for side in pair if side}
    if len(sizes) != 1 or sizes == {1}:
        return None
    chosen, rejected = (np.array([pair[side] for pair in sides], float) for side in (0, 1))
    gaps: Floats = (chosen - rejected).T
    return gaps
