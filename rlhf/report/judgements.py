"""Who said what of a held-out pair: its votes, and the judgements that they came in."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.records import content_hash
from rlhf.report.reading import Run
from rlhf.report.wording import shortened

MAX_ROWS = 300
"""Judgements that are written out; of the others the page has the ids."""

UNKNOWN = "unknown"  # the pseudonym of a rater whom neither vote nor judgement names
MAX_RATIONALE = 600  # characters
_STRENGTHS: Mapping[float, str] = {1: "slightly better", 2: "better", 3: "much better"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One judgement on one pair. `prefers` is chosen, rejected, tie, or None when it says none.

    `rater` is a pseudonym; `shown_first` names the side that stood first on the screen.
    """

    id: str
    rater: str
    simulated: bool
    prefers: str | None
    words: str
    shown_first: str | None = None
    seconds: float | None = None
    rationale: str | None = None

    @property
    def anchor(self) -> str:
        return anchor_of(self.id)


def anchor_of(judgement_id: str) -> str:
    """A judgement's place on the page: its id, or a hash beside what of it an address can hold."""
    plain = re.sub(r"[^\w.-]", "", judgement_id, flags=re.ASCII)
    if plain == judgement_id and plain:
        return f"judgement-{plain}"
    return f"judgement-{plain[:40]}-{content_hash(judgement_id)[:8]}"


def voices_of(run: Run, row: Mapping[str, Any], names: Mapping[str, str]) -> list[Voice]:
    """What was said of a held-out pair: by its votes, and by its judgements where they are."""
    votes = {str(vote["id"]): vote for vote in _votes(row) if vote.get("id") is not None}
    nameless = [vote for vote in _votes(row) if vote.get("id") is None]
    ids = dict.fromkeys([*map(str, row.get("judgement_ids") or ()), *votes])
    voices = []
    for one in ids:
        if one in run.judgements or one in votes:
            voices.append(_voice(one, run.judgements.get(one), votes.get(one), row, names))
    return voices + [_voice("", None, vote, row, names) for vote in nameless]


def raters_names(run: Run) -> dict[str, str]:
    """A pseudonym for each annotator of the judgements: the votes' own, or the next number."""
    names: dict[str, str] = {}
    for row in run.heldout:
        for vote in _votes(row):
            judgement = run.judgements.get(str(vote.get("id")))
            if judgement is not None and vote.get("rater"):
                names.setdefault(str(judgement.get("annotator")), str(vote["rater"]))
    taken = {str(vote.get("rater")) for row in run.heldout for vote in _votes(row)}
    number = 0
    for judgement in run.judgements.values():
        annotator = str(judgement.get("annotator"))
        while annotator not in names:
            number += 1
            name = f"{'simulated' if judgement.get('simulated') else 'rater'}-{number}"
            if name not in taken:
                names[annotator] = name
    return names


def judgement_rows(
    run: Run, cards: Iterable[Mapping[str, Any]], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Up to `MAX_ROWS` judgements in the table's order: first those behind the pairs shown.

    Each has its `voice`, the start of its pair's `prompt`, and the `cards` (their anchors) of
    the shown pairs that rest on it.
    """
    shown: dict[str, list[str]] = {}
    for card in cards:
        for one in card["ids"]:
            shown.setdefault(one, []).append(card["anchor"])
    rows: dict[str, dict[str, Any]] = {}
    for row in run.heldout:
        for voice in voices_of(run, row, names):
            if voice.id and voice.id not in rows:
                anchors = shown.get(voice.id, [])
                rows[voice.id] = {"voice": voice, "prompt": _start(row), "cards": anchors}
    place = {one: index for index, one in enumerate(shown)}
    ordered = sorted(rows.values(), key=lambda row: place.get(row["voice"].id, len(place)))
    return ordered[:MAX_ROWS]


def _voice(
    judgement_id: str,
    judgement: Mapping[str, Any] | None,
    vote: Mapping[str, Any] | None,
    row: Mapping[str, Any],
    names: Mapping[str, str],
) -> Voice:
    said = judgement or {}
    sides = _sides(said, row)
    prefers = str(vote.get("prefers")) if vote else _preferred(said, sides)
    told = vote.get("rater") if vote else None
    rater = str(told or names.get(str(said.get("annotator")), UNKNOWN))
    order = said.get("shown_order")
    first = order[0] if isinstance(order, list) and order else None
    seconds, rationale = said.get("seconds"), said.get("rationale")
    return Voice(
        id=judgement_id,
        rater=rater,
        simulated=bool(said.get("simulated", row.get("simulated")) or rater.startswith("simul")),
        prefers=prefers,
        words=_words(said, sides) if judgement else _vote_words(vote or {}),
        shown_first=_side_name(first, sides) if first is not None else None,
        seconds=seconds if isinstance(seconds, (int, float)) and seconds > 0 else None,
        rationale=shortened(str(rationale), MAX_RATIONALE) if rationale else None,
    )


def _votes(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    votes = row.get("votes")
    return [vote for vote in votes if isinstance(vote, dict)] if isinstance(votes, list) else []


def _sides(judgement: Mapping[str, Any], row: Mapping[str, Any]) -> dict[int, str]:
    """Which of the judgement's completions are the pair's chosen and its rejected one."""
    sides: dict[int, str] = {}
    for side in ("rejected", "chosen"):
        for index, text in enumerate(judgement.get("completions") or ()):
            if text == row.get(side):
                sides[index] = side
    return sides


def _preferred(judgement: Mapping[str, Any], sides: Mapping[int, str]) -> str | None:
    verdict, ranking = judgement.get("verdict"), judgement.get("ranking")
    if isinstance(verdict, int):
        return "tie" if verdict == 0 else sides.get(0 if verdict < 0 else 1)
    if isinstance(ranking, list):
        ranks = {side: ranking[i] for i, side in sides.items() if i < len(ranking)}
        if len(ranks) == 2:
            if ranks["chosen"] == ranks["rejected"]:
                return "tie"
            return min(ranks, key=lambda side: ranks[side])
    return None


def _words(judgement: Mapping[str, Any], sides: Mapping[int, str]) -> str:
    """What a judgement says, in words: it may say several things."""
    parts = []
    verdict = judgement.get("verdict")
    if isinstance(verdict, int):
        side = _side_name(0 if verdict < 0 else 1, sides)
        how = _STRENGTHS.get(abs(verdict), f"better by {abs(verdict)}")
        parts.append(f"{side} {how}" if verdict else "a tie")
    if judgement.get("both_bad"):
        parts.append("both bad")
    for key in ("ranking", "ratings"):
        if judgement.get(key):
            parts.append(f"{key}: {_listed(judgement[key])}")
    if judgement.get("rewrite"):
        parts.append("wrote a completion of its own")
    if judgement.get("skip"):
        parts.append(f"skipped: {judgement['skip']}")
    return "; ".join(parts) or "no preference"


def _vote_words(vote: Mapping[str, Any]) -> str:
    prefers, strength = vote.get("prefers"), vote.get("strength")
    if prefers == "tie":
        return "a tie"
    if prefers not in ("chosen", "rejected"):
        return "no preference"
    strength = strength if isinstance(strength, (int, float)) else 2
    how = _STRENGTHS.get(strength, f"better by {strength:g}")
    return f"the {prefers} {how}"


def _side_name(index: object, sides: Mapping[int, str]) -> str:
    if not isinstance(index, int):
        return "unknown"
    return f"the {sides[index]}" if index in sides else f"completion {index + 1}"


def _listed(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_listed(item)}" for key, item in value.items())
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _start(row: Mapping[str, Any], length: int = 80) -> str:
    prompt = row.get("prompt")
    turns = [turn for turn in prompt if isinstance(turn, dict)] if isinstance(prompt, list) else []
    text = str(turns[-1].get("content", "")) if turns else str(prompt or "")
    return shortened(text, length)
