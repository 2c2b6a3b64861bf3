"""A store with pairs in it, the application over it, and a real browser before it."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from annotation_ui.rate import Desk
from annotation_ui.server import bind, build_app
from annotation_ui.session import Sessions
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, Prompt

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CAMPAIGN = "everyday"
GUIDELINE = "Prefer the *more helpful* one.\n\n1. Correct\n2. Short"


def comparison(number: int, texts: Sequence[str] = ()) -> Comparison:
    """Pair `number`: its texts say which completion they are, whatever side they are shown on."""
    first, second = texts or (f"completions[0] of pair {number}", f"completions[1] of {number}")
    return Comparison(
        prompt=Prompt(content=f"Question {number}?"),
        completions=(Completion(text=first), Completion(text=second)),
        item=f"item-{number}",
    )


def make_desk(
    folder: Path, comparisons: Sequence[Comparison], *, annotator: str = "ada", overlap: int = 1
) -> Desk:
    """A new store in `folder` with one campaign of these comparisons, and one person to rate."""
    store = Store.open(folder / "feedback.db", create=True)
    store.create_campaign(CAMPAIGN, guideline=GUIDELINE, overlap=overlap)
    store.add_comparisons(CAMPAIGN, comparisons)
    store.add_annotator(Annotator(name=annotator))
    return Desk(store, CAMPAIGN)


@dataclass
class LiveServer:
    """The application on a real port; `desk` is its store, to look at what was written."""

    desk: Desk
    sessions: Sessions
    address: str

    def link(self, annotator: str = "ada") -> str:
        return f"{self.address}/join?token={self.sessions.invite(annotator)}"

    def judgements(self, *, current_only: bool = True) -> list[Judgement]:
        return self.desk.store.judgements(CAMPAIGN, current_only=current_only)

    def wait_for_judgements(self, count: int, *, current_only: bool = True) -> list[Judgement]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            rows = self.judgements(current_only=current_only)
            if len(rows) >= count:
                return rows
            time.sleep(0.02)
        raise AssertionError(f"{len(rows)} judgements came, not {count}")


@pytest.fixture(scope="module")
def serve_pairs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Sequence[Comparison]], LiveServer]]:
    """Starts a server over a store of these comparisons; stopped when the module is done."""
    running: list[tuple[uvicorn.Server, threading.Thread, LiveServer]] = []

    def start(comparisons: Sequence[Comparison]) -> LiveServer:
        desk = make_desk(tmp_path_factory.mktemp("store"), comparisons)
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        sessions = Sessions(f"rlhf_session_{port}")
        app = build_app(desk, sessions)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        live = LiveServer(desk, sessions, f"http://127.0.0.1:{port}")
        running.append((server, thread, live))
        return live

    yield start
    for server, thread, live in running:
        server.should_exit = True
        thread.join(timeout=10)
        live.desk.store.close()


def find_chromium() -> str | None:
    """The browser of this machine, as tests find it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser():
    """A Chromium; without one the test fails in CI and is skipped, by name, elsewhere."""
    executable = find_chromium()
    if executable is None:
        reason = "no chromium on this machine: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()
