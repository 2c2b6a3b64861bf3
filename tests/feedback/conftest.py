"""Stores on both engines: SQLite in a folder, and a PostgreSQL server started for the tests."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.postgres import postgres_server as postgres_server_of
from benchmarks.postgres import what_is_missing
from rlhf.feedback.store import Store
from rlhf.feedback.tables import metadata


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store without campaigns: copying one is faster than making it."""
    path = tmp_path_factory.mktemp("template") / "feedback.db"
    Store.open(path, create=True).close()
    return path


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


@pytest.fixture
def sqlite_store(store_path: Path, empty_store: Path) -> Iterator[Store]:
    shutil.copy(empty_store, store_path)
    with Store.open(store_path) as store:
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, store_path: Path, empty_store: Path) -> str:
    """Where an empty store is, on each engine."""
    if request.param == "sqlite":
        return str(shutil.copy(empty_store, store_path))
    return str(request.getfixturevalue("postgres_store_url"))


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    """An empty store, on each engine."""
    with Store.open(location, create=True) as opened:
        yield opened


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database of its own on the tests' server."""
    import psycopg

    name = f"store_{time.monotonic_ns()}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def postgres_store_url(postgres_server: str) -> str:
    """An empty store, the same one emptied for each test: many databases take long to remove."""
    import psycopg

    steps = ["SET session_replication_role = replica"]  # past our own guards
    # TRUNCATE makes new files for each table and index, and takes four times as long
    steps += [f"DELETE FROM {table.name}" for table in metadata.sorted_tables]
    steps.append(
        "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)"
        " FROM pg_sequences"
    )
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("; ".join(steps))
    return postgres_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A server of the tests' own, with a store in it; without PostgreSQL a failure in CI, a named
    skip elsewhere."""
    missing = what_is_missing()
    if missing:
        message = f"no PostgreSQL to test with: {missing}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with postgres_server_of(["fsync=off"]) as url:
        Store.open(url, create=True).close()
        yield url
