"""Campaigns, their guidelines, and how far they have come."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, bindparam, case, func, insert, select, update

from rlhf.errors import ConfigError, nearest_hint
from rlhf.feedback.protocols import Protocol, names_what_it_asks, recorded_protocol
from rlhf.feedback.rules import TASKS, check_text
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.records import Campaign, Progress
from rlhf.feedback.store.remembering import forget, remembered
from rlhf.feedback.store.standing import not_taken_back, standing
from rlhf.feedback.tables import annotators, campaigns, comparisons, guidelines, judgements
from rlhf.records import TaskType

MAX_LEASE_S = 10.0**8


# built once: making a query's expression takes longer than running it
_BY_NAME = select(campaigns).where(campaigns.c.name == bindparam("campaign"))
_LOCKED = _BY_NAME.with_for_update()


def find_row(connection: Connection, name: str, *, lock: bool = False) -> RowMapping:
    """The row of a campaign; ConfigError names the nearest one when there is none.

    `lock` keeps other writers out of the campaign until the transaction ends (on SQLite the
    transaction itself does).
    """
    if lock:
        forget(connection)  # another writer may have changed it while we waited
    return remembered(
        connection, ("campaign", name), lambda: _read_row(connection, name, lock=lock)
    )


def _read_row(connection: Connection, name: str, *, lock: bool) -> RowMapping:
    with decoding():
        found = connection.execute(_LOCKED if lock else _BY_NAME, {"campaign": name})
        row = found.mappings().first()
        if row is not None:
            _check_row(row)
    if row is None:
        known = list(connection.execute(select(campaigns.c.name)).scalars())
        raise ConfigError(f"no campaign {name!r} in the store{nearest_hint(name, known)}")
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
    _check_protocol(name, task, settings)
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
    forget(connection)
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
    with decoding():
        rows = connection.execute(select(campaigns).order_by(campaigns.c.id)).mappings().all()
        return [
            _campaign(row, guideline(connection, row["id"], row["guideline_version"]))
            for row in rows
        ]


def guideline(connection: Connection, campaign_id: int, version: int) -> str:
    """The text of one version of a campaign's guideline; "" when there is no such version."""
    query = select(guidelines.c.text).where(
        guidelines.c.campaign_id == campaign_id, guidelines.c.version == version
    )
    return connection.execute(query).scalar() or ""


def guidelines_of(connection: Connection, name: str) -> list[tuple[int, str, datetime]]:
    """Every version of a campaign's guideline, oldest first: number, text, since when."""
    query = (
        select(guidelines)
        .where(guidelines.c.campaign_id == find_row(connection, name)["id"])
        .order_by(guidelines.c.version)
    )
    with decoding():
        return [(row.version, row.text, row.created_at) for row in connection.execute(query)]


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
    forget(connection)
    return get(connection, name)


def change_settings(
    connection: Connection,
    name: str,
    settings: Mapping[str, Any],
    *,
    overlap: int | None,
    lease_s: float | None,
    now: datetime,
) -> Campaign:
    """Replace a campaign's free settings (`kinds`, say), its overlap and its leases' length.

    What overlap and leases were before is kept in the settings under `earlier`: an item that
    was judged under a larger overlap has more raters than the present one asks for.
    """
    row = find_row(connection, name, lock=True)
    wanted = {"overlap": overlap, "lease_s": lease_s}
    changed = {key: value for key, value in wanted.items() if value not in (None, row[key])}
    _check_settings(
        name, row["task"], changed.get("overlap", row["overlap"]),
        changed.get("lease_s", row["lease_s"]),
    )  # fmt: skip
    _check_protocol(name, row["task"], settings)
    values = dict(settings)
    if changed:
        was = {"until": now.isoformat(), **{key: row[key] for key in changed}}
        values["earlier"] = [*values.get("earlier", []), was]
    connection.execute(
        update(campaigns).where(campaigns.c.id == row["id"]).values(settings=values, **changed)
    )
    forget(connection)
    return get(connection, name)


def kinds(row: RowMapping) -> set[str]:
    """The kinds of value that a campaign's judgements may carry."""
    return set(row["settings"].get("kinds", [row["task"]]))


def protocol(row: RowMapping) -> Protocol:
    """What a campaign asks of its raters; a bare one where its settings do not say."""
    return _protocol(row["task"], json.dumps(row["settings"]), f"campaign {row['name']!r}")


def asks_by_protocol(row: RowMapping) -> bool:
    """Whether answers are held to the protocol: not where an import mixed kinds of value, nor
    where it brought ratings or flags and nobody has named them."""
    settings = row["settings"]
    return "kinds" not in settings and names_what_it_asks(row["task"], settings)


@lru_cache(maxsize=256)
def _protocol(task: TaskType, settings: str, where: str) -> Protocol:
    try:
        return recorded_protocol(task, json.loads(settings))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_protocol(name: str, task: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError when settings that say what is asked cannot be read."""
    _protocol(cast(TaskType, task), json.dumps(dict(settings)), f"campaign {name!r}")


def largest_overlap(row: RowMapping) -> int:
    """The largest number of raters for an item that a campaign has ever asked for."""
    earlier = [was.get("overlap", 1) for was in row["settings"].get("earlier", [])]
    return max([int(row["overlap"]), *map(int, earlier)])


def progress(connection: Connection, name: str) -> Progress:
    """Counts of a campaign: see records.Progress."""
    row = find_row(connection, name)
    of_campaign = (comparisons.c.campaign_id == row["id"]) & (comparisons.c.purpose == "rate")
    full = comparisons.c.num_raters >= row["overlap"]
    count = select(func.count()).select_from(comparisons)
    voices = (
        select(judgements.c.annotator_id, judgements.c.skip.is_(None), annotators.c.simulated)
        .select_from(judgements.join(comparisons).join(annotators))
        .where(of_campaign, judgements.c.purpose == "rate", standing(), not_taken_back())
    )
    voiced = connection.execute(voices).all()
    given = [(annotator, simulated) for annotator, judged, simulated in voiced if judged]
    num_items = connection.execute(count.where(of_campaign)).scalar_one()
    voices_wanted = case((full, row["overlap"]), else_=comparisons.c.num_raters)
    filled = select(func.coalesce(func.sum(voices_wanted), 0)).where(of_campaign)
    return Progress(
        num_items=num_items,
        num_complete=connection.execute(count.where(of_campaign, full)).scalar_one(),
        num_judgements=len(given),
        num_wanted=num_items * row["overlap"],
        num_filled=connection.execute(filled).scalar_one(),
        num_skipped=len(voiced) - len(given),
        num_annotators=len({annotator for annotator, _ in given}),
        num_simulated=sum(simulated for _, simulated in given),
    )


def _campaign(row: RowMapping, text: str) -> Campaign:
    _check_row(row)
    names = ("name", "task", "overlap", "lease_s", "guideline_version", "seed", "settings")
    values = {name: row[name] for name in names}
    return Campaign(**values, created_at=row["created_at"], guideline=text)


def _check_row(row: RowMapping) -> None:
    """Raise TypeError for a row that no version of this program has written."""
    numbers = (row["overlap"], row["guideline_version"], row["seed"])
    if not all(isinstance(one, int) for one in numbers) or row["task"] not in TASKS:
        raise TypeError(f"campaign {row['name']!a} holds impossible settings")
    settings = row["settings"]
    if not isinstance(settings, dict) or not isinstance(settings.get("kinds", []), list):
        raise TypeError(f"campaign {row['name']!a} holds settings that are no object")
    if not isinstance(row["lease_s"], float | int) or not isinstance(row["created_at"], datetime):
        raise TypeError(f"campaign {row['name']!a} holds an impossible time")


def _check_settings(name: str, task: str, overlap: int, lease_s: float) -> None:
    if not name:
        raise ConfigError("a campaign needs a name; give --campaign NAME")
    if task not in TASKS:
        raise ConfigError(
            f"no task {task!r}{nearest_hint(task, TASKS)}; there are {', '.join(TASKS)}"
        )
    if overlap < 1:
        raise ConfigError(f"overlap {overlap}: each item needs at least 1 rater")
    if not 0 < lease_s < MAX_LEASE_S:
        raise ConfigError(f"lease_s {lease_s}: a lease lasts some seconds (1800, say)")
