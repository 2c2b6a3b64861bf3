"""A real annotation server over a store of its own, and raters who speak to it over HTTP."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Prompt

CAMPAIGN = "load"
_SESSION_S = 3600
_FILLER = "the answer is not short because it depends on what one wants and why " * 8


def fill(location: str, *, num_items: int, overlap: int, num_raters: int) -> list[str]:
    """A new store at `location` with one pairwise campaign; the names of its raters."""
    names = [f"rater-{number}" for number in range(num_raters)]
    with Store.open(location, create=True) as store:
        store.create_campaign(CAMPAIGN, overlap=overlap, guideline="Prefer the *helpful* one.")
        store.add_comparisons(CAMPAIGN, [_comparison(number) for number in range(num_items)])
        for name in ("lead", *names):
            store.add_annotator(Annotator(name=name, role="lead" if name == "lead" else "rater"))
    return names


def _comparison(number: int) -> Comparison:
    first, second = (f"{side} {number}: {_FILLER}" for side in ("One", "Other"))
    return Comparison(
        prompt=Prompt(content=f"Question {number}: what would you do, and why?"),
        completions=(Completion(text=first), Completion(text=second)),
        item=f"item-{number}",
    )


@dataclass
class Server:
    """A running server process; `address` is where it answers."""

    process: subprocess.Popen[str]
    address: str

    @property
    def cookie_name(self) -> str:
        return f"rlhf_session_{urlsplit(self.address).port}"

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no goodbye."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(location: str, *, timeout_s: float = 120) -> Iterator[Server]:
    """`python -m annotation_ui` over the store, from its first answer until the block ends."""
    command = [sys.executable, "-m", "annotation_ui", "--store", location, "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    server = Server(process, _address(process, timeout_s))
    try:
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()


def _address(process: subprocess.Popen[str], timeout_s: float) -> str:
    """The address that the server prints, once something answers there."""
    assert process.stdout is not None
    found = None
    while found is None:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended before it printed its address")
        found = re.search(r"http://[\w.]+:\d+", line)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            httpx.get(found[0], timeout=5)
            return found[0]
        except httpx.HTTPError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing answered at {found[0]} within {timeout_s:.0f} s")


@dataclass
class Tally:
    """What raters saw: how long each submit-and-next took (s), what was acknowledged, refusals."""

    latencies: list[float] = field(default_factory=list)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)  # rater, item
    retried: int = 0
    refused: list[str] = field(default_factory=list)
    unanswered: int = 0


@dataclass
class Rater:
    """One person at a browser: looks, thinks, answers, looks at the next."""

    name: str
    client: httpx.AsyncClient
    view: dict

    async def look(self) -> None:
        reply = await self.client.get("/api/view", params={"campaign": CAMPAIGN})
        reply.raise_for_status()
        self.view = reply.json()

    async def answer(self, choice: int) -> httpx.Response:
        return await self.client.post("/api/judgements", json=self.body(choice))

    def body(self, choice: int) -> dict:
        item = self.view["item"]
        return {
            "annotator": self.name,
            "campaign": CAMPAIGN,
            "ticket": item["ticket"],
            "item": item["item"],
            "shown_order": item["shown_order"],
            "seconds": 4.0,
            "answer": {"choice": choice},
        }


@asynccontextmanager
async def raters(server: Server, location: str, names: Sequence[str]) -> AsyncIterator[list[Rater]]:
    """The raters signed in, each with a connection of their own and the first item before them."""
    with Store.open(location) as store:
        tokens = {name: store.open_session(name, lifetime_s=_SESSION_S) for name in names}
    people = [
        Rater(
            name,
            httpx.AsyncClient(
                base_url=server.address, cookies={server.cookie_name: token}, timeout=30
            ),
            {},
        )
        for name, token in tokens.items()
    ]
    try:
        for person in people:
            await person.look()
        yield people
    finally:
        await asyncio.gather(*(person.client.aclose() for person in people))


def lost_and_doubled(
    location: str, acknowledged: Sequence[tuple[str, str]], overlap: int
) -> tuple[int, int, list[str]]:
    """Acknowledged judgements that the store lacks, ones too many, and what the check finds.

    Too many are a rater's second judgement of an item, and an item's raters beyond `overlap`.
    """
    with Store.open(location) as store:
        rows = [(one.annotator, one.item) for one in store.judgements(CAMPAIGN)]
        problems = store.problems()
    kept = set(rows)
    raters_of: dict[str, set[str]] = {}
    for annotator, item in rows:
        raters_of.setdefault(item, set()).add(annotator)
    beyond = sum(max(0, len(people) - overlap) for people in raters_of.values())
    return len(set(acknowledged) - kept), len(rows) - len(kept) + beyond, problems


def remove(location: str) -> None:
    """Delete a SQLite store and its logs."""
    for suffix in ("", "-wal", "-shm"):
        Path(location + suffix).unlink(missing_ok=True)
