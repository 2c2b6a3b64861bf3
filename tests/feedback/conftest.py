"""Stores on both engines: SQLite in a folder, and a PostgreSQL server started for the tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.feedback.store import Store
from rlhf.feedback.tables import metadata

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
_AS_POSTGRES = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


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

    Store.open(postgres_server, create=True).close()
    names = ", ".join(table.name for table in metadata.sorted_tables)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # past our own guards
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
    return postgres_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    missing = _what_is_missing()
    if missing:
        message = f"no PostgreSQL to test with: {missing}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(tempfile.mkdtemp(prefix="rlhf-postgres-"))  # pytest's own are closed to others
    if _AS_POSTGRES:
        shutil.chown(folder, "postgres")
    try:
        yield from _serve(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _what_is_missing() -> str:
    if not _BINARIES:
        return "no server in /usr/lib/postgresql (apt-get install postgresql)"
    if _AS_POSTGRES and not shutil.which("runuser"):
        return "no runuser, and a server does not run as root"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "no psycopg (pip install 'rlhf-loop[postgres]')"
    return ""


def _serve(folder: Path) -> Iterator[str]:
    binaries = _BINARIES[-1].parent
    data = folder / "data"
    make = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "tester", "-N"]
    subprocess.run([*_AS_POSTGRES, *make], check=True, capture_output=True, cwd=folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    quiet = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = subprocess.Popen(
        [*_AS_POSTGRES, *serve, *quiet],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        for _ in range(300):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql://tester@127.0.0.1:{port}/postgres?connect_timeout=10"
    finally:
        postmaster = data / "postmaster.pid"
        if postmaster.exists():
            os.kill(
                int(postmaster.read_text().split()[0]), signal.SIGQUIT
            )  # at once: nothing is to be kept
        server.wait(timeout=30)
