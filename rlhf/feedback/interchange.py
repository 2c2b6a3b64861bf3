"""Judgements as JSON rows: one row <-> one judgement and what it judged.

A row that comes back is the row that went in: where a line says something in other words than
the store keeps it (completions in another order, `created_at` in another time zone, keys we do
not know), those words are kept beside the judgement as `given` and laid over it on the way out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, get_args

from rlhf.errors import DataError
from rlhf.feedback.rules import check_comparison, problem_with
from rlhf.feedback.store import texts_hash
from rlhf.records import Comparison, Completion, Judgement, Prompt, Purpose, content_hash

_REQUIRED = (
    "prompt",
    "completions",
    "annotator",
    "simulated",
    "seconds",
    "created_at",
    "shown_order",
)
_OPTIONAL = (
    *("campaign", "id", "item", "supersedes", "guideline_version", "sources", "ended", "seeds"),
    *("flags", "verdict", "both_bad", "ranking", "ratings", "rewrite", "rewrite_of", "skip"),
    *("rationale", "purpose"),
)
KNOWN_KEYS = frozenset((*_REQUIRED, *_OPTIONAL))


Reader = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRow:
    """A row as records. `judgement` refers to the row's own order of completions.

    `named_item` is false when the row names no item, and the texts shall decide.
    """

    where: str
    row: dict[str, Any]
    comparison: Comparison
    judgement: Judgement
    named_item: bool


def parse_row(row: dict[str, Any], where: str, *, campaign: str | None = None) -> ParsedRow:
    """The records in a row; DataError (`FILE:LINE: what`) when it breaks the format.

    `campaign` overrides the row's own.
    """
    try:
        return _parse(row, where, campaign)
    except UnicodeEncodeError:
        what = "a text holds half a character (a lone surrogate)"
        raise DataError(f"{where}: {what}; write it as Unicode") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {error}") from None


def export_row(
    judgement: Judgement, comparison: Comparison, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A judgement with what it judged, as contract-shaped JSON; `given` has the last word."""
    parts = comparison.completions
    row: dict[str, Any] = {
        "id": judgement.id,
        "campaign": judgement.campaign,
        "item": judgement.item,
        "prompt": comparison.prompt.content,
        "completions": [one.text for one in parts],
        "annotator": judgement.annotator,
        "simulated": judgement.simulated,
        "seconds": judgement.seconds,
        "created_at": judgement.created_at.isoformat(),
        "shown_order": list(judgement.shown_order),
    }
    for key, values in (
        ("sources", [one.source for one in parts]),
        ("ended", [one.ended for one in parts]),
        ("seeds", [one.seed for one in parts]),
    ):
        if any(value is not None for value in values):
            row[key] = values
    row |= {key: value for key, value in _said(judgement).items() if value is not None}
    return row | dict(given or {})


def given_words(row: dict[str, Any], canonical: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a row says in other words than the store will; None when nothing."""
    differing = {
        key: value
        for key, value in row.items()
        if key != "campaign" and value is not None and canonical.get(key) != value
    }
    return differing or None


def in_item_order(parsed: ParsedRow, item: Comparison) -> Judgement:
    """The row's judgement with its values in the order of `item`, which holds the same texts."""
    places = _places(parsed.comparison, item)
    said = replace(parsed.judgement, item=item.item)
    if places == list(range(len(places))):
        return said
    back = [places.index(index) for index in range(len(places))]
    ratings = said.ratings and {
        name: tuple(values[index] for index in back) for name, values in said.ratings.items()
    }
    return replace(
        said,
        shown_order=tuple(places[index] for index in said.shown_order),
        verdict=None if said.verdict is None else -said.verdict,
        ranking=said.ranking and tuple(said.ranking[index] for index in back),
        ratings=ratings,
        flags=said.flags and tuple(said.flags[index] for index in back),
        rewrite_of=None if said.rewrite_of is None else places[said.rewrite_of],
    )


def same_texts(one: Comparison, other: Comparison) -> bool:
    """Whether two items hold the same prompt and texts, in whatever order."""
    return _texts_hash(one) == _texts_hash(other)


def item_by_texts(comparison: Comparison) -> str:
    """The identity of an item that has no name: what it holds."""
    return f"texts-{_texts_hash(comparison)[:32]}"


def _texts_hash(comparison: Comparison) -> str:
    return texts_hash(comparison.prompt.content, (one.text for one in comparison.completions))


def _places(given: Comparison, item: Comparison) -> list[int]:
    """For each of the row's completions its index in the item; equal texts keep their order."""
    texts = [one.text for one in item.completions]
    if texts == [one.text for one in given.completions]:
        return list(range(len(texts)))
    free = list(range(len(texts)))
    places = []
    for completion in given.completions:
        place = next(index for index in free if texts[index] == completion.text)
        free.remove(place)
        places.append(place)
    return places


def _parse(row: dict[str, Any], where: str, campaign: str | None) -> ParsedRow:
    missing = [key for key in _REQUIRED if key not in row]
    if missing:
        raise ValueError(f"no {missing[0]!r} in this judgement; see docs/interchange.md")
    named = _take(row, "campaign", _text)
    campaign = campaign or named
    if not campaign:
        raise ValueError("no 'campaign' in this judgement; add it, or give --campaign")
    item = _take(row, "item", _text)
    comparison = _comparison(row, item or "")
    if item is None:
        comparison = replace(comparison, item=item_by_texts(comparison))
    judgement = _judgement(row, campaign, comparison.item)
    try:
        check_comparison(comparison)
        problem = problem_with(judgement, comparison)
    except DataError as error:
        problem = str(error)
    if problem is not None:
        raise ValueError(problem)
    return ParsedRow(
        where=where,
        row=row,
        comparison=comparison,
        judgement=judgement,
        named_item=item is not None,
    )


def _comparison(row: dict[str, Any], item: str) -> Comparison:
    texts = _list_of("completions", row["completions"], _text)
    columns = {
        "source": _per_completion(row, "sources", _optional(_text), len(texts)),
        "ended": _per_completion(row, "ended", _optional(_truth), len(texts)),
        "seed": _per_completion(row, "seeds", _optional(_seed), len(texts)),
    }
    completions = tuple(
        Completion(text=text, **{name: column[index] for name, column in columns.items()})
        for index, text in enumerate(texts)
    )
    return Comparison(
        prompt=Prompt(content=_prompt(row["prompt"])), completions=completions, item=item
    )


def _judgement(row: dict[str, Any], campaign: str, item: str) -> Judgement:
    named = {key: value for key, value in row.items() if key != "id"}
    judgement_id = _take(row, "id", _text) or f"import-{content_hash([campaign, named])[:32]}"
    return Judgement(
        id=judgement_id,
        campaign=campaign,
        item=item,
        annotator=_text("annotator", row["annotator"]),
        simulated=_truth("simulated", row["simulated"]),
        seconds=_number("seconds", row["seconds"]),
        created_at=_moment("created_at", row["created_at"]),
        shown_order=tuple(_list_of("shown_order", row["shown_order"], _integer)),
        rationale=_take(row, "rationale", _text),
        guideline_version=_take(row, "guideline_version", _integer),
        supersedes=_take(row, "supersedes", _text),
        purpose=_take(row, "purpose", _purpose) or "rate",
        **values_of(row),
    )


def values_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of its completions, as the fields of a Judgement.

    Raises TypeError or ValueError for a value of another kind than its key's.
    """
    return {
        "verdict": _take(row, "verdict", _integer),
        "both_bad": _take(row, "both_bad", _truth) or False,
        "ranking": _take(row, "ranking", lambda key, value: tuple(_list_of(key, value, _integer))),
        "ratings": _take(row, "ratings", _ratings),
        "rewrite": _take(row, "rewrite", _text),
        "rewrite_of": _take(row, "rewrite_of", _integer),
        "skip": _take(row, "skip", _text),
        "flags": _take(row, "flags", _flags),
    }


def _said(judgement: Judgement) -> dict[str, Any]:
    ratings = judgement.ratings
    return {
        "verdict": judgement.verdict,
        "both_bad": None if judgement.verdict is None else judgement.both_bad,
        "ranking": _listed(judgement.ranking),
        "ratings": None if ratings is None else {name: list(ratings[name]) for name in ratings},
        "rewrite": judgement.rewrite,
        "rewrite_of": judgement.rewrite_of,
        "skip": judgement.skip,
        "flags": None if judgement.flags is None else [list(flags) for flags in judgement.flags],
        "rationale": judgement.rationale,
        "guideline_version": judgement.guideline_version,
        "supersedes": judgement.supersedes,
        "purpose": None if judgement.purpose == "rate" else judgement.purpose,
    }


def _listed(values: tuple[int, ...] | None) -> list[int] | None:
    return None if values is None else list(values)


def _take(row: Mapping[str, Any], key: str, reader: Reader) -> Any:
    return None if row.get(key) is None else reader(key, row[key])


def _optional(reader: Reader) -> Reader:
    return lambda key, value: None if value is None else reader(key, value)


def _per_completion(row: dict[str, Any], key: str, reader: Reader, count: int) -> list[Any]:
    if row.get(key) is None:
        return [None] * count
    values = _list_of(key, row[key], reader)
    if len(values) != count:
        raise ValueError(f"{key} has {len(values)} values for {count} completions")
    return values


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key} holds {_shown(value)} where text is wanted")
    return value


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{key} holds {_shown(value)} where true or false is wanted")
    return value


def _integer(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**31:
        raise TypeError(f"{key} holds {_shown(value)} where a whole number is wanted")
    return value


def _seed(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise TypeError(f"{key} holds {_shown(value)} where a seed is wanted")
    return value


def _number(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{key} holds {_shown(value)} where a number is wanted")
    return float(value)


def _list_of(key: str, value: Any, reader: Reader) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{key} holds {_shown(value)} where a list is wanted")
    return [reader(key, item) for item in value]


def _ratings(key: str, value: Any) -> dict[str, tuple[float | None, ...]]:
    if not isinstance(value, dict):
        raise TypeError(f"{key} holds {_shown(value)} where an object of criteria is wanted")
    number = _optional(_number)
    return {name: tuple(_list_of(f"{key}.{name}", value[name], number)) for name in value}


def _flags(key: str, value: Any) -> tuple[tuple[str, ...], ...]:
    def reader(name: str, one: Any) -> tuple[str, ...]:
        return tuple(_list_of(name, one, _text))

    return tuple(_list_of(key, value, reader))


def _purpose(key: str, value: Any) -> Purpose:
    if value not in get_args(Purpose):
        raise ValueError(f"{key} {_shown(value)} is none of {', '.join(get_args(Purpose))}")
    purpose: Purpose = value
    return purpose


def _moment(key: str, value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(key, value))
    except ValueError:
        raise ValueError(f"{key} {value!a} is no ISO 8601 time (2026-01-31T12:00:00Z)") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise TypeError(f"prompt holds {_shown(value)} where text or messages are wanted")
    for message in value:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise TypeError(f"prompt: {_shown(message)} is no message (role and content)")
        _text("role", message["role"])
        _text("content", message["content"])
    return value


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
