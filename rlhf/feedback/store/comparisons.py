"""Prompts, completions and the comparisons made of them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import NoneType
from typing import Any

from sqlalchemy import Connection, func, insert, select

from rlhf.errors import DataError
from rlhf.feedback.rules import check_comparison, prompt_texts
from rlhf.feedback.store.campaigns import find_row
from rlhf.feedback.store.database import decoding, insert_missing
from rlhf.feedback.tables import comparison_members, comparisons, completions, prompts
from rlhf.records import Comparison, Completion, Prompt, PromptContent, content_hash


def texts_hash(prompt: PromptContent, texts: Iterable[str]) -> str:
    """What an item holds, whatever the order of its completions: prompt and texts, hashed."""
    return content_hash([prompt, sorted(texts)])


def add(connection: Connection, campaign: str, batch: Iterable[Comparison], now: datetime) -> int:
    """Append comparisons to a campaign; how many were new.

    One that is there already under the same item is left alone; DataError when it differs.
    """
    row = find_row(connection, campaign, lock=True)
    # a campaign of mixed kinds (an imported file) cannot say how many completions an item has
    task = None if "kinds" in row["settings"] else row["task"]
    known = {comparison.item: comparison for comparison in every(connection, campaign)}
    new = []
    for comparison in batch:
        check_comparison(comparison, task)
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
    _insert(connection, row["id"], new, 0 if first is None else first + 1, now)
    return len(new)


def every(connection: Connection, campaign: str) -> list[Comparison]:
    """The comparisons of a campaign in the order in which they are given out."""
    row = find_row(connection, campaign)
    return list(_read(connection, comparisons.c.campaign_id == row["id"]).values())


def by_id(connection: Connection, comparison_id: int) -> Comparison:
    """One comparison by the key of its row."""
    return _read(connection, comparisons.c.id == comparison_id)[comparison_id]


def _read(connection: Connection, condition: Any) -> dict[int, Comparison]:
    query = (
        select(comparisons.c.id, comparisons.c.item, prompts.c.content, completions)
        .select_from(
            comparisons.join(prompts, comparisons.c.prompt_id == prompts.c.id)
            .join(comparison_members)
            .join(completions)
        )
        .where(condition)
        .order_by(comparisons.c.position, comparisons.c.id, comparison_members.c.position)
    )
    items: dict[int, tuple[str, PromptContent]] = {}
    members: dict[int, list[Completion]] = {}
    with decoding():
        rows = connection.execute(query).all()
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


def _insert(
    connection: Connection, campaign_id: int, new: Sequence[Comparison], first: int, now: datetime
) -> None:
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
            "campaign_id": campaign_id,
            "item": comparison.item,
            "prompt_id": comparison.prompt.id,
            "position": first + offset,
            "num_raters": 0,
            "texts_hash": texts_hash(
                comparison.prompt.content, (one.text for one in comparison.completions)
            ),
            "purpose": "rate",
            "created_at": now,
        }
        for offset, comparison in enumerate(new)
    ]
    connection.execute(insert(comparisons), rows)
    query = select(comparisons.c.item, comparisons.c.id)
    added = query.where(comparisons.c.campaign_id == campaign_id, comparisons.c.position >= first)
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
