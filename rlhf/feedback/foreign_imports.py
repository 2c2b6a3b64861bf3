"""Other tools' ratings into the store, through our own interchange format."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.foreign import Converted
from rlhf.feedback.imports import ImportReport, import_rows
from rlhf.feedback.interchange import item_by_texts, parse_row
from rlhf.feedback.pairing import item_name, sample_row
from rlhf.feedback.rules import TASKS
from rlhf.feedback.store import Store
from rlhf.records import Comparison, TaskType, content_hash


def import_converted(
    store: Store,
    converted: Converted,
    *,
    campaign: str,
    judged_at: datetime,
    task: TaskType | None = None,
) -> ImportReport:
    """Put converted judgements into a campaign, in one transaction, as an import of ours does.

    `judged_at` stands for a time that the file does not say (the file's own, say); a judgement
    that is there already keeps the time that it has, so importing again changes nothing.
    """
    if not converted.rows:
        raise DataError(f"no judgement in it ({_left_out(converted)}); nothing was imported")
    known = _known_times(store, campaign)
    rows = []
    for where, given in converted.rows:
        row = {"seconds": 0.0, "shown_order": list(range(len(given["completions"]))), **given}
        row.setdefault("id", f"import-{content_hash([campaign, given])[:32]}")
        time = known.get(row["id"], judged_at).isoformat()
        rows.append(parse_row({"created_at": time, **row}, where, campaign=campaign))
    return import_rows(store, rows, task=task)


def import_unrated(
    store: Store, converted: Converted, *, campaign: str, task: TaskType | None = None
) -> ImportReport:
    """Put the comparisons alone into a campaign, to be rated here; what is there stays."""
    items: dict[str, Comparison] = {}
    for where, row in converted.rows:
        comparison = _comparison(row, where)
        items.setdefault(comparison.item, comparison)
    if not items:
        raise DataError("no comparisons in it; nothing was imported")
    report = ImportReport(num_rows=len(converted.rows), campaigns=[campaign])
    with store.atomically():
        there = {one.name: one for one in store.campaigns()}.get(campaign)
        if there is None:
            store.create_campaign(campaign, task=task or _task(list(items.values())))
        elif task is not None and task != there.task:
            raise ConfigError(f"campaign {campaign!r} is of task {there.task}, not {task}")
        report.num_items = store.add_comparisons(campaign, items.values())
    return report


def _comparison(row: dict[str, Any], where: str) -> Comparison:
    columns = {"source": row.get("sources"), "ended": row.get("ended"), "seed": row.get("seeds")}
    prompt, completions = sample_row({**row, **columns}, where)
    if not completions:
        raise DataError(f"{where}: no completions; give at least one")
    unnamed = Comparison(prompt=prompt, completions=tuple(completions), item="-")
    name = item_name(row, where) or item_by_texts(unnamed)
    return Comparison(prompt=prompt, completions=tuple(completions), item=name)


def _task(items: Sequence[Comparison]) -> TaskType:
    """What raters can be asked of these items: pairs are compared, more are ranked."""
    counts = {len(item.completions) for item in items}
    task: TaskType = "pairwise" if counts == {2} else "rewrite" if 1 in counts else "ranking"
    assert task in TASKS
    return task


def _known_times(store: Store, campaign: str) -> dict[str, datetime]:
    if campaign not in {one.name for one in store.campaigns()}:
        return {}
    return {one.id: one.created_at for one in store.judgements(campaign, current_only=False)}


def _left_out(converted: Converted) -> str:
    parts = [f"{number} {reason}" for reason, number in converted.left_out.items()]
    return ", ".join(parts) or "it is empty"
