"""The held-out pairs that the reward model gets most wrong, side by side with their votes."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.report.judgements import anchor_of, voices_of
from rlhf.report.reading import Run
from rlhf.report.wording import prompt_text

NUM_WORST = 10
MAX_TEXT = 4000  # characters of a completion
_MAX_WORDS = 800  # a comparison of longer texts takes too long
_LEAST_SHARED = 0.25
"""Of the words; below it nearly all would be marked, which shows nothing."""

Segment = tuple[str, bool]
"""A stretch of text, and whether the other completion lacks it."""


def worst_cards(
    run: Run, pairs: ScoredPairs | None, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The pairs whose rejected completion scores higher, the largest gap first, for the page:
    texts as segments, scores, label and votes.
    """
    if pairs is None:
        return []
    order = np.argsort(pairs.gaps, kind="stable")[: (pairs.gaps < 0).sum()].tolist()
    spreads = None if pairs.member_gaps is None else pairs.member_gaps.std(axis=0)
    cards = []
    for number, index in enumerate(order[:NUM_WORST], start=1):
        spread = None if spreads is None else float(spreads[index])
        card = _card(run, pairs.rows[index], names)
        place = {"number": number, "anchor": f"pair-{number}"}
        cards.append({**card, **place, "gap": -float(pairs.gaps[index]), "spread": spread})
    return cards


def _card(run: Run, row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    chosen, rejected = word_differences(*(row[side][:MAX_TEXT] for side in ("chosen", "rejected")))
    voices = voices_of(run, row, names)
    spoken = {voice.id for voice in voices}
    ids = [str(one) for one in row.get("judgement_ids") or ()]
    return {
        "prompt": prompt_text(row["prompt"]),
        "rejected_prompt": prompt_text(row["rejected_prompt"])
        if "rejected_prompt" in row
        else None,
        "label": row.get("p_chosen"),
        "margin": row.get("margin"),
        "shown_first": row.get("chosen_shown_first"),
        "simulated": bool(row.get("simulated", run.is_simulated("reward"))),
        "sides": [_side(row, "chosen", chosen), _side(row, "rejected", rejected)],
        "voices": voices,
        "ids": ids,
        "silent": [(one, anchor_of(one)) for one in ids if one not in spoken],
    }


def _side(row: Mapping[str, Any], side: str, segments: Sequence[Segment]) -> dict[str, Any]:
    return {
        "name": side,
        "segments": segments,
        "is_cut": len(row[side]) > MAX_TEXT,
        "score": row[f"{side}_score"],
        "tokens": row.get(f"num_{side}_tokens"),
        "ended": row.get(f"{side}_ended"),
    }


def word_differences(first: str, second: str) -> tuple[list[Segment], list[Segment]]:
    """Both texts in segments that join to the text again, the words of one alone marked.

    Nothing is marked where the texts share too little, or are too long to compare.
    """
    one, two = (re.findall(r"\S+\s*|\s+", text) for text in (first, second))
    if max(len(one), len(two)) > _MAX_WORDS:
        return [(first, False)], [(second, False)]
    matcher = difflib.SequenceMatcher(
        None, [word.strip() for word in one], [word.strip() for word in two], autojunk=False
    )
    if matcher.ratio() < _LEAST_SHARED:
        return [(first, False)], [(second, False)]
    codes = matcher.get_opcodes()
    left = _segments(one, [(tag != "equal", start, end) for tag, start, end, _, _ in codes])
    right = _segments(two, [(tag != "equal", start, end) for tag, _, _, start, end in codes])
    return left, right


def _segments(words: Sequence[str], spans: Sequence[tuple[bool, int, int]]) -> list[Segment]:
    def pieces() -> Iterator[Segment]:
        for changed, start, end in spans:
            text = "".join(words[start:end])
            bare = text.rstrip()
            if bare:
                yield bare, changed
            if text[len(bare) :]:  # the space after a word is no part of the difference
                yield text[len(bare) :], False

    return list(pieces())
