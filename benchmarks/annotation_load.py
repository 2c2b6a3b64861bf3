"""How the annotation server bears 1, 20 and 100 raters at once, and whether it loses a judgement.

    python benchmarks/annotation_load.py --json load.json

Every rater is a signed-in HTTP client that gets an item, thinks, and submits; the reply to a
submit holds the next item, so its time is what a person waits between key press and next pair
(less the browser). One submit in twenty is sent twice, as a browser does that lost the answer.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from annotation_server import (
    Rater,
    Server,
    Tally,
    fill,
    lost_and_doubled,
    raters,
    serving,
)
from machine import machine
from postgres import postgres_server

RETRY_SHARE = 0.05
OVERLAP = 3


async def rate(person: Rater, tally: Tally, *, until: float, think_s: float, seed: str) -> None:
    """Submit until the time is up; think times are uniform within half and one and a half."""
    chance = random.Random(seed)
    await asyncio.sleep(chance.uniform(0, think_s))  # people do not start in step
    while time.monotonic() < until and person.view.get("item"):
        await submit(person, tally, chance)
        await asyncio.sleep(chance.uniform(0.5, 1.5) * think_s)


async def submit(person: Rater, tally: Tally, chance: random.Random) -> None:
    """One submit-and-next, timed; now and then sent a second time."""
    item, choice = person.view["item"]["item"], chance.randint(-3, 3)
    body = person.body(choice)
    started = time.perf_counter()
    reply = await person.client.post("/api/judgements", json=body)
    tally.latencies.append(time.perf_counter() - started)
    if reply.status_code != 200:
        tally.refused.append(f"{reply.status_code} {reply.text[:200]}")
        return await person.look()
    tally.acknowledged.append((person.name, item))
    if chance.random() < RETRY_SHARE:
        tally.retried += 1
        reply = await person.client.post("/api/judgements", json=body)
        reply.raise_for_status()
    person.view = reply.json()


async def load(server: Server, location: str, names: list[str], options: dict) -> dict:
    tally = Tally()
    async with raters(server, location, names) as people:
        started = time.monotonic()
        until = started + options["seconds"]
        await asyncio.gather(
            *(
                rate(one, tally, until=until, think_s=options["think_s"], seed=one.name)
                for one in people
            )
        )
        lasted = time.monotonic() - started
    times_ms = 1000 * np.array(tally.latencies)
    p50, p95, p99 = (float(np.percentile(times_ms, share)) for share in (50, 95, 99))
    lost, doubled, problems = lost_and_doubled(location, tally.acknowledged, OVERLAP)
    return {
        **options,
        "submits_per_s": len(times_ms) / lasted,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "num_acknowledged": len(tally.acknowledged),
        "num_retried": tally.retried,
        "num_refused": len(tally.refused),
        "refusals": sorted(set(tally.refused))[:3],
        "num_lost": lost,
        "num_doubled": doubled,
        "num_broken_invariants": len(problems),
    }


def run(location: str, options: dict) -> dict:
    """One run on a new store: fill it, serve it, rate, count."""
    per_rater = options["seconds"] / options["think_s"] * 2 if options["think_s"] else 800
    num_items = int(options["raters"] * min(per_rater, 150)) + 200
    names = fill(location, num_items=num_items, overlap=OVERLAP, num_raters=options["raters"])
    with serving(location) as server:
        return asyncio.run(load(server, location, names, options))


def plan(options: argparse.Namespace) -> list[dict]:
    """The runs: each number of raters with think time, then the most of them without."""
    common = {"seconds": options.seconds}
    thinking = [{"raters": count, "think_s": options.think_s, **common} for count in options.raters]
    return [*thinking, {"raters": max(options.raters), "think_s": 0.0, **common}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raters", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--seconds", type=float, default=20, help="of each run (default: 20)")
    parser.add_argument("--think_s", type=float, default=4, help="mean think time (default: 4 s)")
    parser.add_argument("--engines", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    runs = []
    print("| store | raters | think | submits/s | p50 ms | p95 ms | p99 ms | lost | doubled |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for engine in options.engines:
            for number, values in enumerate(plan(options)):
                result = {"engine": engine, **_on(engine, Path(folder), number, values)}
                runs.append(result)
                print(_line(result), flush=True)
    totals = {name: sum(run[name] for run in runs) for name in ("num_lost", "num_doubled")}
    print(f"\nlost {totals['num_lost']}, doubled {totals['num_doubled']}")
    if options.json:
        text = json.dumps({"runs": runs, **totals, "machine": machine()}, indent=1)
        options.json.write_text(text + "\n")


def _on(engine: str, folder: Path, number: int, values: dict) -> dict:
    if engine == "sqlite":
        return run(str(folder / f"load-{number}.db"), values)
    with postgres_server() as url:
        return run(url, values)


def _line(run: dict) -> str:
    think = f"{run['think_s']:g} s" if run["think_s"] else "none"
    return (
        f"| {run['engine']} | {run['raters']} | {think} | {run['submits_per_s']:.1f} "
        f"| {run['p50_ms']:.1f} | {run['p95_ms']:.1f} | {run['p99_ms']:.1f} "
        f"| {run['num_lost']} | {run['num_doubled']} |"
    )


if __name__ == "__main__":
    main()
