"""Whether a score is the completion's own: on any padding, in any batch, saved, loaded, merged.

Differences are in units of the spread (standard deviation) of the held-out scores: one that is
small beside it changes no verdict, whatever the scale of the scores and the dtype.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.gate.checks import Check, exact, judged, unmeasured
from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.records import PromptContent

Floats = NDArray[np.float64]


class Scorer(Protocol):
    """What is asked of a reward model here."""

    def score(
        self,
        prompts: Sequence[PromptContent],
        completions: Sequence[str],
        ended: Sequence[bool | None] | None = None,
        *,
        batch_size: int = 16,
    ) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Held-out transcripts from the shortest to the longest, and the scores recorded of them."""

    prompts: list[PromptContent]
    completions: list[str]
    ended: list[bool | None]
    knows_ended: bool
    recorded: Floats
    spread: float

    def __len__(self) -> int:
        return len(self.prompts)

    def scored(self, model: Scorer, *, batch_size: int, backwards: bool = False) -> Floats:
        """The scores [N] in the probes' order, however they were batched and ordered."""
        order = range(len(self))[:: -1 if backwards else 1]
        scores = model.score(
            [self.prompts[i] for i in order],
            [self.completions[i] for i in order],
            [self.ended[i] for i in order],
            batch_size=batch_size,
        )
        found = np.asarray([float(value) for value in scores], dtype=np.float64)
        return found[::-1] if backwards else found


def choose_probes(pairs: ScoredPairs, num_probes: int) -> Probes:
    """Up to `num_probes` transcripts, evenly over the order of their lengths.

    So that in one batch the shortest is padded by the length of the longest.
    """
    sides = [
        (row.get("rejected_prompt") or row["prompt"], row, side)
        if side == "rejected"
        else (row["prompt"], row, side)
        for row in pairs.rows
        for side in ("chosen", "rejected")
    ]
    sides.sort(key=lambda each: len(str(each[0])) + len(each[1][each[2]]))
    picks = np.linspace(0, len(sides) - 1, min(num_probes, len(sides))).astype(int)
    probed = [sides[index] for index in np.unique(picks)]
    scores = np.concatenate([pairs.chosen_scores, pairs.rejected_scores])
    return Probes(
        prompts=[prompt for prompt, _, _ in probed],
        completions=[row[side] for _, row, side in probed],
        ended=[row.get(f"{side}_ended") for _, row, side in probed],
        knows_ended=all(f"{side}_ended" in row for _, row, side in probed),
        recorded=np.array([row[f"{side}_score"] for _, row, side in probed], dtype=np.float64),
        spread=float(scores.std()),
    )


def padding_check(alone: Floats, model: Scorer, probes: Probes, threshold: float | None) -> Check:
    """The largest shift of a score between `alone` [N], one by one, and in one padded batch in
    another order.
    """
    title = "Padding and batch do not matter"
    together = probes.scored(model, batch_size=len(probes), backwards=True)
    shift = largest_shift(alone, together)
    what = "one by one and in a padded batch"
    return shift_check("padding", title, shift, probes, threshold, what)


def reload_check(alone: Floats, probes: Probes, threshold: float | None, dtype: str) -> Check:
    """The largest shift between what training recorded of held-out pairs and the saved model."""
    name, title = "reload", "Loaded, the scores that training recorded"
    if not probes.knows_ended:
        reason = "the held-out rows do not say which completions ended; train again to measure it"
        return unmeasured(name, title, reason, threshold)
    shift = largest_shift(alone, probes.recorded)
    what = f"as recorded in training and as loaded in {dtype}"
    return shift_check(name, title, shift, probes, threshold, what)


def roundtrip_check(
    reward_dir: Path, probes: Probes, threshold: float | None, scratch: Path
) -> Check:
    """The largest shift in float32 by padding, batch, saving and loading, and by merging.

    Over all members and heads. `scratch` gets a copy of the model for a moment; copies that a
    killed gate left there are removed.
    """
    from rlhf.models.reward_roundtrip import SCRATCH_PREFIX, roundtrip_gaps

    name, title = "roundtrip", "Saved, loaded and merged, the same scores"
    for left in scratch.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    gaps = roundtrip_gaps(
        reward_dir, probes.prompts, probes.completions, probes.ended, scratch=scratch
    )
    found = {key: gap for key, gap in gaps.items() if gap is not None}
    what = f"in float32 ({', '.join(f'{key} {gap:.1g}' for key, gap in found.items())})"
    return shift_check(name, title, max(found.values()), probes, threshold, what, details=gaps)


def largest_shift(scores: Floats, others: Floats) -> float:
    """The largest absolute difference; infinite where a score is not finite."""
    gaps = np.abs(scores - others)
    return float(gaps.max()) if np.isfinite(gaps).all() else float("inf")


def shift_check(
    name: str,
    title: str,
    shift: float,
    probes: Probes,
    threshold: float | None,
    what: str,
    *,
    details: Mapping[str, float | None] | None = None,
) -> Check:
    """The check that a shift is small beside the spread of the held-out scores."""
    details = {"largest_difference": shift, "spread": probes.spread, **(details or {})}
    if not np.isfinite(shift):
        return Check(
            name=name,
            title=title,
            passed=None if threshold is None else False,
            value=None,
            low=None,
            high=None,
            n=len(probes),
            threshold=threshold,
            words=f"scores {what}: one is NaN or infinite",
            details=details,
        )
    if probes.spread == 0:
        reason = "all held-out scores are equal, so a shift has no scale"
        return unmeasured(name, title, reason, threshold, n=len(probes), details=details)
    words = f"scores {what} differ by at most {shift:.2g} (spread {probes.spread:.2g})"
    found = exact(shift / probes.spread, len(probes))
    return judged(name, title, found, threshold, words=words, rule="at most", details=details)
