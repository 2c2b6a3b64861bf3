"""Ratings that other tools wrote, as rows of our own interchange format.

Each format has a module that turns its rows into ours; what a row of ours holds is then checked
by the interchange format itself.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.feedback.foreign import argilla, label_studio, trl
from rlhf.feedback.foreign.reading import ForeignOptions, Row, Rows

__all__ = ["FOREIGN_FORMATS", "Converted", "ForeignOptions", "convert", "recognise"]

JUDGEMENTS = "judgements"

_READERS: Mapping[str, tuple[str, Callable[[str, Row, ForeignOptions], Rows]]] = {
    "preference": ("TRL's preference pairs", trl.preference),
    "transcripts": ("pairs of HH transcripts", trl.transcripts),
    "unpaired": ("TRL's unpaired preference", trl.unpaired),
    "ranking": ("prompts with completions", trl.ranking),
    "argilla": ("Argilla records", argilla.record),
    "label_studio": ("Label Studio tasks", label_studio.task),
}
FOREIGN_FORMATS = tuple(_READERS)

_JUDGEMENT_KEYS = {"annotator", "shown_order", "created_at", "simulated", "seconds", "verdict"}
_KNOWN_COLUMNS = (
    *("prompt", "chosen", "rejected", "completion", "completions", "label", "ranking"),
    *("fields", "responses", "data", "annotations", "annotator"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Rows of the interchange format, without a campaign; each with where it came from.

    `what` names the format for people. Rows that say nothing (unrated ones) have no `annotator`.
    `left_out` counts what made no row, by its reason.
    """

    format_name: str
    what: str
    rows: list[tuple[str, Row]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def recognise(rows: Sequence[tuple[str, Row]], name: str) -> str:
    """The format that the first row is of: one of ours or `FOREIGN_FORMATS`.

    Raises DataError that names the formats when it is none of them.
    """
    if not rows:
        raise DataError(f"{name}: no rows in it; give a file of ratings")
    where, first = rows[0]
    keys = set(first)
    if len(keys & _JUDGEMENT_KEYS) >= 2:
        return JUDGEMENTS
    if {"annotation_id", "lead_time"} <= keys:
        raise DataError(f"{where}: Label Studio's JSON-MIN, which lacks types; export as JSON")
    tests: Mapping[str, bool] = {
        "label_studio": {"data", "annotations"} <= keys,
        "argilla": argilla.is_record(first),
        "transcripts": trl.are_transcripts(first),
        "preference": {"chosen", "rejected"} <= keys,
        "unpaired": {"prompt", "completion", "label"} <= keys,
        "ranking": {"prompt", "completions"} <= keys,
    }
    found = next((format_name for format_name, holds in tests.items() if holds), None)
    if found is None:
        hint = next((h for key in sorted(keys) if (h := nearest_hint(key, _KNOWN_COLUMNS))), "")
        raise DataError(
            f"{where}: columns {', '.join(sorted(keys)) or 'none'}: no known format of ratings"
            f"{hint}; known are judgements, {', '.join(FOREIGN_FORMATS)} (--format)"
        )
    return found


def convert(
    rows: Sequence[tuple[str, Row]], format_name: str, options: ForeignOptions
) -> Converted:
    """The rows of another tool as ours; DataError naming file and line for one that is broken."""
    if format_name not in _READERS:
        hint = nearest_hint(format_name, FOREIGN_FORMATS)
        raise ConfigError(f"no format {format_name!r}{hint}; {', '.join(FOREIGN_FORMATS)}")
    what, reader = _READERS[format_name]
    if format_name == "label_studio":
        options = label_studio.with_names(rows, options)
    converted = Converted(format_name=format_name, what=what)
    for where, row in rows:
        try:
            made = reader(where, row, options)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{where}: not one of {what}: {reason}") from None
        converted.rows.extend((where, one) for one in made.rows)
        converted.left_out.update(made.left_out)
    return converted
