"""Is a judgement that the server acknowledged still there after `kill -9` at a random moment?

    python benchmarks/annotation_kills.py --rounds 50 --json kills.json

Each round serves the same store, lets raters submit without pause, kills the server with SIGKILL
at a random time after its first acknowledgement, and looks in the store: everything acknowledged
in any round so far must be there once, and the check must find nothing broken.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
from annotation_server import Rater, Server, Tally, fill, lost_and_doubled, raters, serving
from machine import machine

NUM_RATERS = 20
NUM_ITEMS = 30_000
OVERLAP = 3
LONGEST_S = 2.0


async def submit_until_dead(person: Rater, tally: Tally, seed: str) -> None:
    """Submit without pause until the server answers no more."""
    chance = random.Random(seed)
    with suppress(httpx.HTTPError):
        while person.view.get("item"):
            item = person.view["item"]["item"]
            reply = await person.answer(chance.randint(-3, 3))
            if reply.status_code == 200:
                tally.acknowledged.append((person.name, item))
                person.view = reply.json()
            else:
                tally.refused.append(reply.text[:200])
                await person.look()
        return
    tally.unanswered += 1


async def one_round(server: Server, location: str, names: list[str], tally: Tally, after_s: float):
    async with raters(server, location, names) as people:
        seed = f"{len(tally.acknowledged)}"
        before = len(tally.acknowledged)
        work = [asyncio.create_task(submit_until_dead(one, tally, seed)) for one in people]
        while len(tally.acknowledged) == before:  # a server that saves nothing yet loses nothing
            await asyncio.sleep(0.01)
        await asyncio.sleep(after_s)
        server.kill()
        await asyncio.gather(*work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    chance, tally, broken = random.Random(options.seed), Tally(), 0
    lost = doubled = 0
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder) / "feedback.db")
        names = fill(location, num_items=NUM_ITEMS, overlap=OVERLAP, num_raters=NUM_RATERS)
        started = time.monotonic()
        for number in range(1, options.rounds + 1):
            after_s = chance.uniform(0, LONGEST_S)
            with serving(location) as server:
                asyncio.run(one_round(server, location, names, tally, after_s))
            lost, doubled, problems = lost_and_doubled(location, tally.acknowledged, OVERLAP)
            broken += bool(problems)
            left_s = (time.monotonic() - started) / number * (options.rounds - number)
            print(
                f"round {number} of {options.rounds}: killed after {after_s:.2f} s, "
                f"{len(tally.acknowledged)} acknowledged, {lost} lost, {doubled} doubled, "
                f"{len(problems)} broken invariants; {left_s:.0f} s left",
                flush=True,
            )
    result = {
        "rounds": options.rounds,
        "num_acknowledged": len(tally.acknowledged),
        "num_cut_off": tally.unanswered,
        "num_lost": lost,
        "num_doubled": doubled,
        "num_rounds_with_broken_invariants": broken,
        "machine": machine(),
    }
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
