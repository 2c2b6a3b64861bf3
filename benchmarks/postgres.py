"""A PostgreSQL server of its own, on a free port of this machine, for measuring and for tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_AS_POSTGRES = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def what_is_missing() -> str:
    """Why no server can be started here; "" when one can."""
    if not _binaries():
        return "no server in /usr/lib/postgresql (apt-get install postgresql)"
    if _AS_POSTGRES and not shutil.which("runuser"):
        return "no runuser, and a server does not run as root"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "no psycopg (pip install 'rlhf-loop[postgres]')"
    return ""


@contextmanager
def postgres_server(settings: Sequence[str] = ()) -> Iterator[str]:
    """The URL of an empty database, on a server that ends with the block.

    `settings` are as in `postgresql.conf` ("fsync=off", say).
    """
    folder = Path(tempfile.mkdtemp(prefix="rlhf-postgres-"))
    if _AS_POSTGRES:
        shutil.chown(folder, "postgres")
    try:
        yield from _serve(folder, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def _serve(folder: Path, settings: Sequence[str]) -> Iterator[str]:
    binaries, data = _binaries()[-1].parent, folder / "data"
    make = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "tester", "-N"]
    subprocess.run([*_AS_POSTGRES, *make], check=True, capture_output=True, cwd=folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    for setting in ("listen_addresses=127.0.0.1", *settings):
        serve += ["-c", setting]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*_AS_POSTGRES, *serve], cwd=folder, **quiet)
    try:
        _wait(str(binaries / "pg_isready"), port)
        yield f"postgresql://tester@127.0.0.1:{port}/postgres?connect_timeout=10"
    finally:
        postmaster = data / "postmaster.pid"
        if postmaster.exists():  # at once: nothing is to be kept
            os.kill(int(postmaster.read_text().split()[0]), signal.SIGQUIT)
        server.wait(timeout=30)


def _wait(is_ready: str, port: int) -> None:
    for _ in range(300):
        probe = [is_ready, "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("PostgreSQL did not come up within 30 s")
