"""Short ways to make what the tests of the store need."""

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf.feedback.store import Assignment, Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, Prompt

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def comparison(item: str, *texts: str, prompt: Any = None, ended: Any = None) -> Comparison:
    """An item of the given texts ("yes" and "no" when there are none)."""
    return Comparison(
        prompt=Prompt(content=prompt or f"question {item}"),
        completions=tuple(Completion(text=text, ended=ended) for text in texts or ("yes", "no")),
        item=item,
    )


def judgement(item: str = "i0", annotator: str = "ann", **values: Any) -> Judgement:
    """A judgement by a person: verdict 1 unless something else is said."""
    said = {"verdict", "ranking", "ratings", "rewrite", "skip", "flags"} & values.keys()
    defaults: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "campaign": "c",
        "simulated": False,
        "seconds": 2.5,
        "created_at": NOON,
        "shown_order": (0, 1),
        "verdict": None if said else 1,
    }
    return Judgement(item=item, annotator=annotator, **{**defaults, **values})


def fill(
    store: Store, num_items: int, *, raters: Iterable[str] = ("ann",), **settings: Any
) -> None:
    """Campaign `c` with items i0, i1, ... and people to rate them."""
    store.create_campaign("c", **settings)
    store.add_comparisons("c", [comparison(f"i{index}") for index in range(num_items)])
    for name in raters:
        store.add_annotator(Annotator(name=name))


def answer(
    store: Store, lease: Assignment, *, now: datetime | None = None, **values: Any
) -> Judgement:
    """Submit a judgement on a lease, as a page would."""
    said = judgement(
        lease.comparison.item, lease.annotator, shown_order=lease.shown_order, **values
    )
    return store.submit(said, assignment_id=lease.id, idempotency_key=said.id, now=now)


def row(**values: Any) -> dict[str, Any]:
    """A line of the interchange format."""
    defaults = {
        "campaign": "c",
        "prompt": "question",
        "completions": ["yes", "no"],
        "annotator": "ann",
        "simulated": False,
        "seconds": 2.5,
        "created_at": "2026-01-02T12:00:00+00:00",
        "shown_order": [0, 1],
        "verdict": 1,
    }
    return {key: value for key, value in {**defaults, **values}.items() if value is not ...}


def write_jsonl(path: Path, *rows: Any) -> Path:
    """Rows as lines; a text stands for itself."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
