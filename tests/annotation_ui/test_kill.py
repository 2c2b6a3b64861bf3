"""The real server, killed as by a power cut while people rate: what it acknowledged is kept."""

import asyncio
import importlib
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.feedback.store import Store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_RATERS, OVERLAP, NUM_ROUNDS = 4, 2, 2


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, imported as Python runs it: a script beside the modules that it imports."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("annotation_kills")


async def rate_until_killed(
    kills: ModuleType, server: Any, location: str, names: list[str], tally: Any, after_s: float
) -> None:
    """Kill the server some time after it first acknowledged something, with all raters at work."""
    before = len(tally.acknowledged)
    async with kills.raters(server, location, names) as people:
        work = [
            asyncio.create_task(kills.submit_until_dead(one, tally, one.name)) for one in people
        ]
        async with asyncio.timeout(60):
            while len(tally.acknowledged) == before:
                await asyncio.sleep(0.01)
        await asyncio.sleep(after_s)
        server.kill()
        await asyncio.gather(*work)


def test_what_a_killed_server_acknowledged_is_in_the_store_once(kills: ModuleType, tmp_path: Path):
    location = str(tmp_path / "feedback.db")
    # more than anybody can rate in the time: nobody is done before the server is dead
    names = kills.fill(location, num_items=2000, overlap=OVERLAP, num_raters=NUM_RATERS)
    chance, tally = random.Random(0), kills.Tally()
    for number in range(1, NUM_ROUNDS + 1):
        with kills.serving(location) as server, ThreadPoolExecutor(1) as pool:
            after_s = chance.uniform(0, 1)
            work = rate_until_killed(kills, server, location, names, tally, after_s)
            # in a thread of its own: Playwright, for other tests, leaves a loop running in this one
            pool.submit(asyncio.run, work).result()
        assert tally.unanswered == NUM_RATERS * number  # all were at work when it died
    assert tally.refused == []
    assert kills.lost_and_doubled(location, tally.acknowledged, OVERLAP) == (0, 0, [])
    with Store.open(location) as store:
        rows = store.judgements("load", current_only=False)
    kept = Counter((one.annotator, one.item) for one in rows)
    assert {kept[key] for key in tally.acknowledged} == {1}
