"""Prompts, completions and the comparisons made of them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Row, Select, bindparam, func, insert, select, update

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.gold import check_expected
from rlhf.feedback.rules import check_comparison, prompt_texts
from rlhf.feedback.store.campaigns import find_row
from rlhf.feedback.store.database import decoding, insert_missing
from rlhf.feedback.tables import comparison_members, comparisons, completions, prompts
from rlhf.records import Comparison, Completion, Prompt, PromptContent, Purpose, content_hash

ITEM_PURPOSES: tuple[Purpose, ...] = ("rate", "gold", "qualification")
"""What an item may be for; the other purposes are only a judgement's."""


def texts_hash(prompt: PromptContent, texts: Iterable[str]) -> str:
    """What an item holds, whatever the order of its completions: prompt and texts, hashed."""
    return content_hash([prompt, sorted(texts)])


def add(
    connection: Connection,
    campaign: str,
    batch: Iterable[Comparison],
    now: datetime,
    *,
    purpose: Purpose,
    gold: Mapping[str, dict[str, Any]],
) -> int:
    """Append comparisons to a campaign; how many were new.

    One that is there already under the same item is left alone, whatever its purpose; DataError
    when it differs. `gold` holds the expected answers of gold and qualification items.
    """
    check_purpose(purpose)
    row = find_row(connection, campaign, lock=True)
    # a campaign of mixed kinds (an imported file) cannot say how many completions an item has
    task = None if "kinds" in row["settings"] else row["task"]
    known = {comparison.item: comparison for comparison in every(connection, campaign)}
    new = []
    for comparison in batch:
        check_comparison(comparison, task)
        check_gold(comparison, purpose, gold.get(comparison.item))
        there = known.setdefault(comparison.item, comparison)
        if there is comparison:
            new.append(comparison)
        elif there != comparison:
            raise DataError(
                f"item {comparison.item!a} of campaign {campaign!r} is there with other "
                "completions; give it another item name"
            )
    last = select(func.max(comparisons.c.position)).where(comparisons.c.campaign_id == row["id"])
    first = connection.execute(last).scalar()
    kept = _Kept(row["id"], 0 if first is None else first + 1, purpose, gold, now)
    _insert(connection, new, kept)
    return len(new)


def check_purpose(purpose: Purpose) -> None:
    """Raise DataError for a purpose that no item of its own has."""
    if purpose not in ITEM_PURPOSES:
        raise DataError(f"items are of purpose {', '.join(ITEM_PURPOSES)}, not {purpose!r}")


def check_gold(comparison: Comparison, purpose: Purpose, expected: dict[str, Any] | None) -> None:
    """Raise DataError unless an item has the expected answer that its purpose needs."""
    if expected is not None:
        if purpose == "rate":
            raise DataError(f"item {comparison.item!a}: to be rated, yet with an expected answer")
        check_expected(expected, comparison)
    elif purpose == "gold":
        raise DataError(f"item {comparison.item!a}: a gold item needs its expected answer")


def purposes(connection: Connection, campaign: str) -> dict[str, Purpose]:
    """What each item of a campaign is for, in the order of the items."""
    rows = _columns(connection, campaign, comparisons.c.purpose)
    return {row.item: row.purpose for row in rows}


def gold(connection: Connection, campaign: str) -> dict[str, dict[str, Any]]:
    """The expected answer of each item that has one."""
    rows = _columns(connection, campaign, comparisons.c.gold)
    return {row.item: row.gold for row in rows if row.gold is not None}


def set_gold(
    connection: Connection, campaign: str, item: str, expected: dict[str, Any] | None
) -> None:
    """Make an item a gold one with an expected answer, or one to be rated again.

    A qualification item stays one, with the new answer. What was judged before stays as it was.
    """
    row = find_row(connection, campaign, lock=True)
    mine = (comparisons.c.campaign_id == row["id"]) & (comparisons.c.item == item)
    found = connection.execute(select(comparisons).where(mine)).mappings().first()
    if found is None:
        raise ConfigError(f"campaign {campaign!r} has no item {item!a}; add it first")
    purpose = "rate" if expected is None else "gold"
    if found["purpose"] == "qualification":
        purpose = "qualification"
    if expected is not None:
        check_expected(expected, by_id(connection, found["id"]))
    connection.execute(update(comparisons).where(mine).values(purpose=purpose, gold=expected))


def _columns(connection: Connection, campaign: str, *columns: Column[Any]) -> list[Row[Any]]:
    row = find_row(connection, campaign)
    query = select(comparisons.c.item, *columns).where(comparisons.c.campaign_id == row["id"])
    with decoding():
        return list(connection.execute(query.order_by(comparisons.c.position)).all())


def every(connection: Connection, campaign: str) -> list[Comparison]:
    """The comparisons of a campaign in the order in which they are given out."""
    row = find_row(connection, campaign)
    return list(_read(connection, _OF_CAMPAIGN, {"campaign": row["id"]}).values())


def one(connection: Connection, campaign: str, item: str) -> Comparison:
    """The comparison of an item; ConfigError when the campaign has none of that name."""
    key = key_of(connection, find_row(connection, campaign)["id"], item)
    if key is None:
        raise ConfigError(f"campaign {campaign!r} has no item {item!r}; look for it in the list")
    return by_id(connection, key)


def key_of(connection: Connection, campaign_id: int, item: str) -> int | None:
    """The key of an item's row; None when the campaign has none of that name."""
    query = select(comparisons.c.id).where(
        comparisons.c.campaign_id == campaign_id, comparisons.c.item == item
    )
    key: int | None = connection.execute(query).scalar()
    return key


def by_id(connection: Connection, comparison_id: int) -> Comparison:
    """One comparison by the key of its row."""
    return _read(connection, _BY_ID, {"comparison": comparison_id})[comparison_id]


_WITH_TEXTS = (
    select(comparisons.c.id, comparisons.c.item, prompts.c.content, completions)
    .select_from(
        comparisons.join(prompts, comparisons.c.prompt_id == prompts.c.id)
        .join(comparison_members)
        .join(completions)
    )
    .order_by(comparisons.c.position, comparisons.c.id, comparison_members.c.position)
)
_OF_CAMPAIGN = _WITH_TEXTS.where(comparisons.c.campaign_id == bindparam("campaign"))
_BY_ID = _WITH_TEXTS.where(comparisons.c.id == bindparam("comparison"))


def _read(
    connection: Connection, query: Select[Any], keys: Mapping[str, int]
) -> dict[int, Comparison]:
    items: dict[int, tuple[str, PromptContent]] = {}
    members: dict[int, list[Completion]] = {}
    with decoding():
        rows = connection.execute(query, keys).all()
        for key, item, content, _, _, text, source, ended, seed in rows:
            _check_types(item, content, text, source, seed)
            items[key] = item, content
            completion = Completion(text=text, source=source, ended=ended, seed=seed)
            members.setdefault(key, []).append(completion)
    return {
        key: Comparison(prompt=Prompt(content=content), completions=tuple(members[key]), item=item)
        for key, (item, content) in items.items()
    }


def _check_types(item: Any, content: Any, text: Any, source: Any, seed: Any) -> None:
    """Raise TypeError for what a damaged SQLite file may hold in place of what was written."""
    parts = [item, text, "" if source is None else source]
    parts += [content] if isinstance(content, str) else prompt_texts(content)
    if not content or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"item {item!a}: a text that is none")
    if not isinstance(seed, int | NoneType):
        raise TypeError(f"item {item!a}: a seed that is no number")


class _Kept(NamedTuple):
    """What new rows of comparisons have in common: where they go and what they are for."""

    campaign_id: int
    first: int
    purpose: Purpose
    gold: Mapping[str, dict[str, Any]]
    now: datetime


def _insert(connection: Connection, new: Sequence[Comparison], kept: _Kept) -> None:
    if not new:
        return
    prompt_rows = {
        comparison.prompt.id: {"id": comparison.prompt.id, "content": comparison.prompt.content}
        for comparison in new
    }
    insert_missing(connection, prompts, list(prompt_rows.values()))
    completion_rows = {
        row["id"]: row
        for comparison in new
        for row in (_completion_row(comparison.prompt.id, one) for one in comparison.completions)
    }
    insert_missing(connection, completions, list(completion_rows.values()))
    rows = [
        {
            "campaign_id": kept.campaign_id,
            "item": comparison.item,
            "prompt_id": comparison.prompt.id,
            "position": kept.first + offset,
            "num_raters": 0,
            "texts_hash": texts_hash(
                comparison.prompt.content, (one.text for one in comparison.completions)
            ),
            "purpose": kept.purpose,
            "gold": kept.gold.get(comparison.item),
            "created_at": kept.now,
        }
        for offset, comparison in enumerate(new)
    ]
    connection.execute(insert(comparisons), rows)
    query = select(comparisons.c.item, comparisons.c.id)
    added = query.where(
        comparisons.c.campaign_id == kept.campaign_id, comparisons.c.position >= kept.first
    )
    keys = {row.item: row.id for row in connection.execute(added)}
    connection.execute(insert(comparison_members), _member_rows(new, keys))


def _member_rows(new: Sequence[Comparison], keys: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "comparison_id": keys[comparison.item],
            "position": position,
            "completion_id": _completion_row(comparison.prompt.id, completion)["id"],
        }
        for comparison in new
        for position, completion in enumerate(comparison.completions)
    ]


def _completion_row(prompt_id: str, completion: Completion) -> dict[str, Any]:
    values = {
        "prompt_id": prompt_id,
        "text": completion.text,
        "source": completion.source,
        "ended": completion.ended,
        "seed": completion.seed,
    }
    return {"id": content_hash(values), **values}
