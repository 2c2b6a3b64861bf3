"""One item as leads see it: its texts, and all that was ever said of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from annotation_ui.lead.words import screen_words, values_of, words_of
from annotation_ui.rendering import render_inert, word_diff
from annotation_ui.view import turns_of
from rlhf.feedback.protocols import Protocol
from rlhf.feedback.rules import is_taken_back
from rlhf.records import Comparison, Judgement, Prompt

EXCERPT_CHARS = 160


def texts_of(comparison: Comparison, *, blind: bool = False) -> dict[str, Any]:
    """Prompt and completions, each raw and as inert HTML; of two also their differences.

    With `blind` it does not say which model wrote them.
    """
    completions: list[dict[str, Any]] = [
        {
            "raw": completion.text,
            "html": render_inert(completion.text),
            "source": None if blind else completion.source,
            "ended": completion.ended,
            "diff": None,
        }
        for completion in comparison.completions
    ]
    if len(completions) == 2:
        first, second = completions
        first["diff"], second["diff"] = word_diff(first["raw"], second["raw"])
    return {"turns": turns_of(comparison.prompt), "completions": completions}


def judgement_rows(
    judgements: Sequence[Judgement],
    protocol: Protocol,
    *,
    names: Mapping[str, str] | None = None,
    withdrawn: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """Everything said of one item as it arrived, superseded and taken-back rows too.

    `names` are put in place of the raters' own; `withdrawn` are ids of adjudications that no
    longer hold.
    """
    superseded = {row.supersedes for row in judgements if row.supersedes is not None}
    return [_judgement_row(row, protocol, names, row.id in superseded, withdrawn)
            for row in judgements]  # fmt: skip


def _judgement_row(
    row: Judgement,
    protocol: Protocol,
    names: Mapping[str, str] | None,
    is_superseded: bool,
    withdrawn: frozenset[str],
) -> dict[str, Any]:
    return {
        "id": row.id,
        "annotator": row.annotator if names is None else names[row.annotator],
        "simulated": row.simulated,
        "created_at": row.created_at.isoformat(),
        "seconds": round(row.seconds, 1),
        "screen": screen_words(row.shown_order),
        "purpose": row.purpose,
        "guideline_version": row.guideline_version,
        "words": words_of(row, protocol),
        "values": values_of(row),
        "rewrite_html": None if row.rewrite is None else render_inert(row.rewrite),
        "rationale": row.rationale,
        "supersedes": row.supersedes,
        "standing": _standing(row, is_superseded, withdrawn),
    }


def _standing(row: Judgement, is_superseded: bool, withdrawn: frozenset[str]) -> str:
    if is_superseded:
        return "superseded"
    if row.id in withdrawn:
        return "not in force"
    return "taken back" if is_taken_back(row) else "stands"


def excerpt(prompt: Prompt) -> str:
    """The beginning of the last turn, in one line."""
    words = " ".join(prompt.text.split())
    return words if len(words) <= EXCERPT_CHARS else words[: EXCERPT_CHARS - 1] + "\u2026"
