"""Stores of every earlier version are brought up with all that is in them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, text

from rlhf.errors import DataError
from rlhf.feedback import migrations
from rlhf.feedback.store import Store
from rlhf.feedback.store.database import parse_location
from rlhf.records import Annotator
from tests.feedback.makers import answer, judgement

# what the program of version 0002 wrote, and what it read from that
OLD = json.loads((Path(__file__).parent / "stores" / "version_0002.json").read_text())
EARLIER = migrations.REVISIONS[:-1]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet, on each engine."""
    if request.param == "sqlite":
        return str(tmp_path / "old.db")
    return str(request.getfixturevalue("postgres_url"))


def write_old_store(location: str, revision: str) -> None:
    """A store as a program of an earlier version left it. 0001 and 0002 have the same columns."""
    database = create_engine(parse_location(location))
    with database.begin() as connection:
        migrations.upgrade(connection, revision)
        found = MetaData()
        found.reflect(connection)
        for table, rows in OLD["rows"].items():
            connection.execute(found.tables[table].insert(), rows)
        if connection.dialect.name == "postgresql":
            for table in ("campaigns", "comparisons", "annotators"):
                last = f"(SELECT max(id) FROM {table})"
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")
                )
            newest = "(SELECT max(seq) FROM judgements)"
            connection.execute(
                text(f"SELECT setval(pg_get_serial_sequence('judgements', 'seq'), {newest})")
            )
    database.dispose()


def plain(records: Any) -> Any:
    """Records as the JSON that the old program's were written as."""
    return json.loads(json.dumps(records, default=str))


@pytest.mark.parametrize("revision", EARLIER)
def test_what_was_there_reads_the_same(new_location: str, revision: str) -> None:
    write_old_store(new_location, revision)
    with Store.open(new_location) as store:
        read = OLD["read"]
        names = [campaign.name for campaign in store.campaigns()]
        assert plain([asdict(one) for one in store.campaigns()]) == read["campaigns"]
        assert plain([asdict(one) for one in store.annotators()]) == read["annotators"]
        for name in names:
            items = [asdict(one) for one in store.comparisons(name)]
            assert plain(items) == read["comparisons"][name]
            assert plain(asdict(store.progress(name))) == read["progress"][name]
            assert set(store.purposes(name).values()) == {"rate"}
        said = [asdict(one) for one in store.judgements(current_only=False)]
        assert {one.pop("purpose") for one in said} == {"rate"}
        assert plain(said) == read["judgements"]
        assert [one.id for one in store.judgements()] == read["current"]
        assert store.given("mixed") == read["given"]
        assert {row.purpose for row in store.assignment_log("c")} == {"rate"}
        assert store.problems() == []


@pytest.mark.parametrize("revision", EARLIER)
def test_work_goes_on_in_an_upgraded_store(new_location: str, revision: str) -> None:
    write_old_store(new_location, revision)
    with Store.open(new_location) as store:
        [open_before] = [row for row in store.assignment_log("c") if row.closed_at is None]
        lease = store.next_assignment("c", "bob")
        assert lease is not None
        assert lease.comparison.item == open_before.item  # the lease of then
        answer(store, lease)
        store.add_annotator(Annotator(name="new"))
        while lease := store.next_assignment("c", "new"):
            answer(store, lease)
        [first] = [one for one in store.judgements("mixed") if one.id == "m1"]
        again = judgement(
            "x", "ann", campaign="mixed", supersedes="m1", ranking=(1, 1, 1), shown_order=(0, 1, 2)
        )
        store.revise(again, idempotency_key="new key")
        assert first.id not in {one.id for one in store.judgements("mixed")}
        assert store.account("lea").role == "lead"
        store.set_password_hash("lea", "argon2...")
        store.decide_on_rater("c", "ann", weight=0.0, reason="r", decided_by="lea", reopen=True)
        assert store.problems() == []


@pytest.mark.parametrize("revision", EARLIER)
def test_guards_hold_in_an_upgraded_store(new_location: str, revision: str) -> None:
    write_old_store(new_location, revision)
    with Store.open(new_location) as store:
        for column in ("verdict = 1", "purpose = 'gold'"):
            with (
                pytest.raises(DataError, match="append-only"),
                store._database.writing() as connection,
            ):
                connection.execute(text(f"UPDATE judgements SET {column}"))
        store.erase_annotator("ann")  # the one change that they let through
        assert store.problems() == []


def test_an_interrupted_upgrade_leaves_the_old_version(
    new_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old_store(new_location, "0002")
    from rlhf.feedback.store import opening

    def upgrade_and_fail(connection: Any) -> None:
        migrations.upgrade(connection)
        raise DataError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(opening, "upgrade", upgrade_and_fail)
        with pytest.raises(DataError, match="killed"):
            Store.open(new_location)
    database = create_engine(parse_location(new_location))
    with database.connect() as connection:
        assert opening.store_revision(connection) == "0002"
        columns = connection.execute(text("SELECT * FROM judgements")).keys()
    database.dispose()
    assert "purpose" not in columns
    with Store.open(new_location) as store:
        assert store.problems() == []
