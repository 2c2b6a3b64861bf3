"""Campaigns, their guidelines, and how far they have come."""

import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from rlhf.errors import ConfigError
from rlhf.feedback.rules import TASKS, check_text
from rlhf.feedback.store.records import Campaign, Progress
from rlhf.feedback.store.standing import standing
from rlhf.feedback.tables import annotators, campaigns, comparisons, guidelines, judgements


def find_row(connection: Connection, name: str, *, lock: bool = False) -> RowMapping:
    """The row of a campaign; ConfigError names the nearest one when there is none.

    `lock` keeps other writers out of the campaign until the transaction ends (on SQLite the
    transaction itself does).
    """
    query = select(campaigns).where(campaigns.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        known = list(connection.execute(select(campaigns.c.name)).scalars())
        raise ConfigError(f"no campaign {name!r} in the store{_hint(name, known)}")
    return row


def create(
    connection: Connection,
    *,
    name: str,
    task: str,
    overlap: int,
    lease_s: float,
    guideline: str,
    settings: Mapping[str, Any],
    seed: int,
    now: datetime,
) -> Campaign:
    """Make a campaign, or return the one that is there with the same settings."""
    wanted = {"task": task, "overlap": overlap, "lease_s": lease_s, "seed": seed}
    _check_settings(name, task, overlap, lease_s)
    for text in (name, guideline):
        check_text(text, f"campaign {name!a}")
    existing = connection.execute(select(campaigns).where(campaigns.c.name == name)).first()
    if existing is not None:
        found = get(connection, name)
        wanted |= {"guideline": guideline, "settings": dict(settings)}
        for key, value in wanted.items():
            if getattr(found, key) != value:
                raise ConfigError(
                    f"campaign {name!r} exists with {key} {getattr(found, key)!r}, not {value!r}; "
                    "use its settings or another name"
                )
        return found
    values = {"name": name, "guideline_version": 1, "settings": dict(settings), "created_at": now}
    connection.execute(insert(campaigns).values(**wanted, **values))
    key = find_row(connection, name)["id"]
    row = {"campaign_id": key, "version": 1, "text": guideline, "created_at": now}
    connection.execute(insert(guidelines).values(**row))
    return get(connection, name)


def get(connection: Connection, name: str) -> Campaign:
    """The campaign of that name, with its newest guideline."""
    row = find_row(connection, name)
    return _campaign(row, guideline(connection, row["id"], row["guideline_version"]))


def every(connection: Connection) -> list[Campaign]:
    """All campaigns, oldest first."""
    rows = connection.execute(select(campaigns).order_by(campaigns.c.id)).mappings().all()
    return [
        _campaign(row, guideline(connection, row["id"], row["guideline_version"])) for row in rows
    ]


def guideline(connection: Connection, campaign_id: int, version: int) -> str:
    """The text of one version of a campaign's guideline; "" when there is no such version."""
    query = select(guidelines.c.text).where(
        guidelines.c.campaign_id == campaign_id, guidelines.c.version == version
    )
    return connection.execute(query).scalar() or ""


def revise_guideline(connection: Connection, name: str, text: str, now: datetime) -> Campaign:
    """Give a campaign a new guideline; judgements keep the version that they were made under."""
    check_text(text, "the guideline")
    row = find_row(connection, name, lock=True)
    version = row["guideline_version"] + 1
    values = {"campaign_id": row["id"], "version": version, "text": text, "created_at": now}
    connection.execute(insert(guidelines).values(**values))
    connection.execute(
        update(campaigns).where(campaigns.c.id == row["id"]).values(guideline_version=version)
    )
    return get(connection, name)


def change_settings(connection: Connection, name: str, settings: Mapping[str, Any]) -> Campaign:
    """Replace a campaign's free settings (`kinds`, say, when an import adds one)."""
    row = find_row(connection, name, lock=True)
    connection.execute(
        update(campaigns).where(campaigns.c.id == row["id"]).values(settings=dict(settings))
    )
    return get(connection, name)


def progress(connection: Connection, name: str) -> Progress:
    """Counts of a campaign: see records.Progress."""
    row = find_row(connection, name)
    of_campaign = comparisons.c.campaign_id == row["id"]
    full = comparisons.c.num_raters >= row["overlap"]
    count = select(func.count()).select_from(comparisons)
    voices = (
        select(judgements.c.annotator_id, judgements.c.skip.is_(None), annotators.c.simulated)
        .select_from(judgements.join(comparisons).join(annotators))
        .where(of_campaign, standing())
    )
    voiced = connection.execute(voices).all()
    given = [(annotator, simulated) for annotator, judged, simulated in voiced if judged]
    num_items = connection.execute(count.where(of_campaign)).scalar_one()
    return Progress(
        num_items=num_items,
        num_complete=connection.execute(count.where(of_campaign, full)).scalar_one(),
        num_judgements=len(given),
        num_wanted=num_items * row["overlap"],
        num_skipped=len(voiced) - len(given),
        num_annotators=len({annotator for annotator, _ in given}),
        num_simulated=sum(simulated for _, simulated in given),
    )


def _campaign(row: RowMapping, text: str) -> Campaign:
    names = ("name", "task", "overlap", "lease_s", "guideline_version", "seed", "settings")
    values = {name: row[name] for name in names}
    return Campaign(**values, created_at=row["created_at"], guideline=text)


def _check_settings(name: str, task: str, overlap: int, lease_s: float) -> None:
    if not name:
        raise ConfigError("a campaign needs a name; give --campaign NAME")
    if task not in TASKS:
        raise ConfigError(f"no task {task!r}{_hint(task, TASKS)}; there are {', '.join(TASKS)}")
    if overlap < 1:
        raise ConfigError(f"overlap {overlap}: each item needs at least 1 rater")
    if not 0 < lease_s < 10**8:
        raise ConfigError(f"lease_s {lease_s}: a lease lasts some seconds (1800, say)")


def _hint(word: str, known: Any) -> str:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
