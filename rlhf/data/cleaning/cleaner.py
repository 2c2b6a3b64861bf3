"""The steps of a cleaning, one after the other, over the rows of a data set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rlhf.data.cleaning.changes import Change, changed_part, row_text
from rlhf.data.cleaning.extraction import extracted
from rlhf.data.cleaning.text_steps import Kind, normalise_text
from rlhf.data.doctor.near import NearDuplicates
from rlhf.data.doctor.private import without_private
from rlhf.data.formats import (
    demonstrations,
    placed_prompts,
    preference_pairs,
    recognise,
)
from rlhf.data.losses import DataLosses
from rlhf.data.sources import LoadedDataset, Row
from rlhf.records import content_hash

_MASKED = "(masked)"
_COMPLETIONS = ("chosen", "rejected", "completion")
_KEY_COLUMNS = (
    *("prompt", *_COMPLETIONS, "messages", "item"),
    *("label", "p_chosen", "margin", "weight", "criteria", "group"),
    *("ended", "chosen_ended", "rejected_ended"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningSteps:
    """Which steps to take. `near_threshold` is the Jaccard similarity (above 0, at most 1) from
    which a row repeats an earlier one; None keeps all but exact repetitions.
    """

    normalise: bool = True
    extract: bool = True
    mask_private: bool = False
    drop_unusable: bool = True
    deduplicate: bool = True
    near_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The rows that are left, with their places in the input, and every change on the way."""

    rows: Sequence[Row]
    places: Sequence[str]
    changes: Sequence[Change]


Placed = list[tuple[str, Row]]


def clean_rows(dataset: LoadedDataset, steps: CleaningSteps) -> Cleaned:
    """The data set's rows after the steps; cleaning them again changes nothing.

    DataError when the format is not known, or when no usable row is left.
    """
    changes: list[Change] = []
    placed: Placed = [(p, dict(row)) for p, row in zip(dataset.places, dataset.rows, strict=True)]
    normalised = partial(_normalised, hides=steps.mask_private)
    for wanted, step in (
        (steps.mask_private, _masked),  # first, so that no other step logs what it hides
        (steps.normalise, normalised),
        (steps.mask_private, _masked),  # an address is whole once a zero-width space has gone
        (steps.extract, _extracted),
        (steps.normalise, normalised),  # what was inside a transcript has ends of its own now
        (steps.mask_private, _masked),
    ):
        if wanted:
            placed = [(place, step(place, row, changes)) for place, row in placed]
    if steps.drop_unusable:
        placed = _usable(placed, dataset, changes)
    if steps.deduplicate:
        placed = _without_repetitions(placed, changes)
    if steps.near_threshold is not None:
        placed = _without_near_repetitions(placed, steps.near_threshold, changes)
    return Cleaned([row for _, row in placed], [place for place, _ in placed], changes)


def _normalised(place: str, row: Row, changes: list[Change], *, hides: bool = False) -> Row:
    """`hides`: of a text that turns out to hold private data the log keeps nothing."""

    def mend(text: str, kind: Kind, column: str) -> str:
        steps = list(normalise_text(text, kind))
        mended = steps[-1][2] if steps else text
        is_private = hides and without_private(mended) != mended
        for step, before, after in steps:
            before, after = (_MASKED, _MASKED) if is_private else changed_part(before, after)
            changes.append(
                Change(place=place, step=step, before=before, after=after, column=column)
            )
        return mended

    return _with_texts(row, mend)


def _masked(place: str, row: Row, changes: list[Change]) -> Row:
    def mend(text: str, kind: Kind, column: str) -> str:
        while (after := without_private(text)) != text:
            # The log would otherwise keep what the data set is rid of.
            _, shown = changed_part(text, after)
            changes.append(
                Change(place=place, step="mask_private", before=_MASKED, after=shown, column=column)
            )
            text = after
        return text

    return _with_texts(row, mend)


def _extracted(place: str, row: Row, changes: list[Change]) -> Row:
    after = extracted(place, row)
    if after is not row:
        changes.append(
            Change(place=place, step="extract", before=row_text(row), after=row_text(after))
        )
    return after


def _usable(placed: Placed, dataset: LoadedDataset, changes: list[Change]) -> Placed:
    """Without the rows that a stage would drop, by the very code that a stage reads with."""
    losses = DataLosses(num_rows=len(placed), max_places=len(placed))
    check = replace(
        dataset,
        rows=[row for _, row in placed],
        places=[place for place, _ in placed],
        losses=losses,
    )
    found = recognise(check, "prompts")
    if found.kind in ("preference", "HH transcripts"):
        preference_pairs(check)
    elif found.kind == "prompt-only":
        placed_prompts(check)
    else:
        demonstrations(check)
    reasons = {place: why for why in losses.dropped for place in losses.places[why]}
    for place, row in placed:
        if place in reasons:
            changes.append(_removal(place, "drop_unusable", row, reasons[place]))
    return [(place, row) for place, row in placed if place not in reasons]


def _without_repetitions(placed: Placed, changes: list[Change]) -> Placed:
    """Without rows that have every text, label and end of an earlier one (and its item, if any)."""
    first: dict[str, str] = {}
    kept: Placed = []
    for place, row in placed:
        key = content_hash([_key_value(row.get(column)) for column in _KEY_COLUMNS])
        if key in first:
            changes.append(_removal(place, "deduplicate", row, f"repeats {first[key]}"))
        else:
            first[key] = place
            kept.append((place, row))
    return kept


def _without_near_repetitions(placed: Placed, threshold: float, changes: list[Change]) -> Placed:
    near = NearDuplicates(threshold)
    kept: Placed = []
    for place, row in placed:
        text = "\n".join(text for _, _, text in _texts(row))
        if near.find_or_add(text):
            reason = f"a Jaccard similarity of {threshold:g} or more to an earlier row"
            changes.append(_removal(place, "near_deduplicate", row, reason))
        else:
            kept.append((place, row))
    return kept


def _texts(row: Row) -> Iterator[tuple[str, Kind, str]]:
    """(column, kind, text) of every text of a row."""
    found: list[tuple[str, Kind, str]] = []

    def note(text: str, kind: Kind, column: str) -> str:
        found.append((column, kind, text))
        return text

    _with_texts(row, note)
    return iter(found)


def _with_texts(row: Row, mend: Callable[[str, Kind, str], str]) -> Row:
    """The row with `mend(text, kind, column)` in place of each of its texts."""
    mended = dict(row)
    for column in ("prompt", *_COMPLETIONS, "messages"):
        value = row.get(column)
        if isinstance(value, str):
            mended[column] = mend(value, "prompt" if column == "prompt" else "completion", column)
        elif isinstance(value, list):
            mended[column] = [_with_turn(turn, mend, column) for turn in value]
    return mended


def _with_turn(turn: Any, mend: Callable[[str, Kind, str], str], column: str) -> Any:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        return turn
    return {**turn, "content": mend(turn["content"], "turn", column)}


def _removal(place: str, step: str, row: Row, reason: str) -> Change:
    return Change(place=place, step=step, before=row_text(row), after=None, reason=reason)


def _key_value(value: Any) -> Any:
    """A value as the key of a repetition: content that JSON holds, half characters replaced."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_key_value(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _key_value(one) for key, one in value.items()}
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
