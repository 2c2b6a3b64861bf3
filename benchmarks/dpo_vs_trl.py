"""The DPO stage's trainer beside TRL's DPOTrainer: time, memory, and the same numbers.

    python benchmarks/dpo_vs_trl.py --data hh-helpful-train.jsonl.gz --json dpo_vs_trl.json

Each run is a process of its own. Both sides begin with the same weights and get the same pairs in
the same order. `time` alternates them; `causes` takes the two causes apart, each added to stock
alone; `equality` compares loss, gradient norm and all logged metrics step by step in fp32, and says
how far each side's bf16 is from stock's fp32; `ratios` times a pair's prompt shared, not shared
and as the stage chooses, for prompts from one token to four times as long as a completion. The
times mean something only on a machine that does nothing else.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from dpo_training import BATCHES, SETTINGS, SIDES, Run, longest, measure, write_rows
from machine import machine
from reward_data import DATA, MODEL
from reward_vs_trl import Remaining, spread, work_folder

from rlhf.manifest import write_json

PARTS = ("equality", "time", "causes", "ratios")
CAUSES = ("stock", "prompt", "head", "ours")
WAYS = ("plain", "shared", "auto")
RATIOS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Tokens of a prompt over those of a completion, for `ratios`."""
COMPLETION_TOKENS = 64
"""Of a completion in the mean, for `ratios`."""
LIMITS = {"time": 0.45, "memory": 1.0}
"""Ratios that were aimed at."""
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")
NOT_COMPARED = ("runtime", "per_second", "learning_rate", "epoch", "step")
PAIRS_A_STEP = SETTINGS[BATCHES[0]] * SETTINGS[BATCHES[1]]


def main() -> None:
    options = parse(None)
    with work_folder(options.work) as folder:
        found: dict[str, Any] = {}
        for part in PARTS if options.part == "all" else (options.part,):
            here = MEASURES[part](options, folder)
            print("\n".join(TABLES[part](here)), flush=True)
            found[part] = here
    if options.json:
        settings = SETTINGS | {"threads": os.environ.get("OMP_NUM_THREADS")}
        write_json(options.json, found | {"settings": settings} | machine(PACKAGES))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument(
        "--data", type=Path, default=DATA / "hh-helpful-train.jsonl.gz", help="pairs to train on"
    )
    parser.add_argument(
        "--work", type=Path, help="folder that keeps what was measured, to go on from"
    )
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="of all sides, for times")
    parser.add_argument("--steps", type=int, default=10, help=f"of {PAIRS_A_STEP} pairs, counted")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those, not counted")
    parser.add_argument("--equal_steps", type=int, default=5, help="steps compared, for equality")
    parser.add_argument("--ratio_steps", type=int, default=4, help="steps counted, for ratios")
    parser.add_argument("--model", default=MODEL, help="the base of both sides")
    return parser.parse_args(argv)


def hh_rows(options: argparse.Namespace, number: int, seed: int = 0) -> list[dict[str, Any]]:
    """`number` pairs of the data in random order, tokenised, each side within `max_length`."""
    from rlhf.data.columns import dpo_columns
    from rlhf.data.formats import preference_pairs
    from rlhf.data.sources import load_rows
    from rlhf.data.tokenization import Renderer
    from rlhf.models.loading import load_tokenizer

    dataset = load_rows(str(options.data))
    pairs = preference_pairs(dataset)
    order = np.random.default_rng(seed).permutation(len(pairs))[: 2 * number]
    renderer = Renderer(load_tokenizer(options.model))
    rows, _ = dpo_columns([pairs[place] for place in order], renderer, None, dataset.losses)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    kept = [{name: row[name] for name in names} for row in rows if is_within(row)]
    assert len(kept) >= number, f"{len(kept)} of {number} pairs are within max_length"
    return kept[:number]


def is_within(row: dict[str, Any]) -> bool:
    """Whether neither side of a pair would be cut."""
    return bool(len(row["prompt_ids"]) + longest(row) <= SETTINGS["max_length"])


def measure_time(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds a step and peak memory of each side, and their ratios."""
    return alternated(options, folder / "time", SIDES)


def measure_causes(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same with each cause added to stock alone, and with everything."""
    return alternated(options, folder / "causes", CAUSES)


def alternated(
    options: argparse.Namespace, folder: Path, sides: Sequence[str], rows: Any = None
) -> dict[str, Any]:
    """Rounds of all sides in turns, in both directions; ratios to stock, or to the first side."""
    folder.mkdir(parents=True, exist_ok=True)
    num_steps = options.warmup + options.steps
    rows = hh_rows(options, num_steps * PAIRS_A_STEP) if rows is None else rows
    write_rows(folder / "rows.json", rows)
    remaining, rounds = Remaining(len(sides) * options.rounds), []
    for number in range(options.rounds):
        one = {}
        for side in sides if number % 2 == 0 else sides[::-1]:
            remaining.announce(f"{folder.name}, {side}")
            result = measure(a_run(options, folder, side, num_steps), folder, f"{side}-{number}")
            one[side] = summary(result, options.warmup)
        rounds.append(one)
    base = "stock" if "stock" in sides else sides[0]
    return {
        "rounds": rounds,
        "num_steps": options.steps,
        "sides": {side: spread_of(rounds, side) for side in sides},
        "ratio": {side: ratios(rounds, side, base) for side in sides if side != base},
    }


def a_run(
    options: argparse.Namespace,
    folder: Path,
    side: str,
    num_steps: int,
    dtype: str = "bfloat16",
    **more: Any,
) -> Run:
    return Run(
        side=side,
        rows=str(folder / "rows.json"),
        weights=str(folder / "weights.safetensors"),
        dtype=dtype,
        num_steps=num_steps,
        options={"model_name_or_path": options.model} | more,
    )


def summary(result: dict[str, Any], warmup: int) -> dict[str, Any]:
    """Of one run: its seconds a step, their median and sum, peak memory, share of the tokens."""
    seconds = result["seconds"][warmup:]
    return {
        "seconds": seconds,
        "step_s": float(np.median(seconds)),
        "total_s": float(np.sum(seconds)),
        "peak_gb": result["peak_gb"],
        "token_share": result["token_share"],
    }


def spread_of(rounds: Sequence[dict[str, Any]], side: str) -> dict[str, dict[str, float]]:
    keys = ("step_s", "total_s", "peak_gb", "token_share")
    return {key: spread([one[side][key] for one in rounds]) for key in keys}


def ratios(rounds: Sequence[dict[str, Any]], side: str, base: str) -> dict[str, dict[str, float]]:
    """Of a side over the base within each round; of the time also its bootstrap interval."""
    found = {
        name: spread([one[side][key] / one[base][key] for one in rounds])
        for name, key in {"time": "total_s", "memory": "peak_gb"}.items()
    }
    pairs = [
        (ours, theirs)
        for one in rounds
        for ours, theirs in zip(one[side]["seconds"], one[base]["seconds"], strict=True)
    ]
    found["time"] |= ratio_interval(pairs)
    return found


def ratio_interval(pairs: Iterable[tuple[float, float]], seed: int = 0) -> dict[str, float]:
    """The ratio of sums over steps, and its 95% interval by the bootstrap over pairs of steps.

    A step of both sides has the same pairs, so it is drawn for both together.
    """
    seconds = np.array(list(pairs))  # [N, 2]
    drawn = np.random.default_rng(seed).integers(len(seconds), size=(10_000, len(seconds)))
    sums = seconds[drawn].sum(1)  # [10000, 2]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    ours, theirs = seconds.sum(0)
    return {"value": float(ours / theirs), "low": float(low), "high": float(high)}


def measure_equality(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What each side logs in each dtype, from the same weights on the same micro-batches."""
    folder = folder / "equality"
    folder.mkdir(exist_ok=True)
    number = options.equal_steps * PAIRS_A_STEP
    write_rows(folder / "rows.json", hh_rows(options, number))
    logged, logps, remaining = {}, {}, Remaining(2 * len(SIDES))
    for dtype in ("float32", "bfloat16"):
        for side in SIDES:
            remaining.announce(f"equality, {side} in {dtype}")
            steps, as_drawn = options.equal_steps, {"batch_by_length": "never"}
            run = replace(a_run(options, folder, side, steps, dtype, **as_drawn), num_scored=number)
            result = measure(run, folder, f"{side}-{dtype}")
            logged[f"{side} {dtype}"] = compared(result)
            logps[f"{side} {dtype}"] = result["logps"]
    exact = logged["stock float32"]
    return {
        "logged": logged,
        "fp32": distances(logged["ours float32"], exact),
        "bf16": {side: distances(logged[f"{side} bfloat16"], exact) for side in SIDES},
        "logps": logp_errors(logps),
    }


def logp_errors(logps: dict[str, list[float]], seed: int = 0) -> dict[str, Any]:
    """How far a completion's log-prob in bf16 is from stock's in fp32: root mean squares in nats,
    and the ratio of ours to stock's with its 95% interval by the bootstrap over completions.

    The fp32 of both sides is compared too: the largest difference.
    """
    exact = np.array(logps["stock float32"])
    squares = np.stack([(np.array(logps[f"{side} bfloat16"]) - exact) ** 2 for side in SIDES], 1)
    drawn = np.random.default_rng(seed).integers(len(squares), size=(10_000, len(squares)))
    means = squares[drawn].mean(1)  # [10000, 2]
    low, high = np.quantile(np.sqrt(means[:, 0] / means[:, 1]), [0.025, 0.975])
    ours, stock = np.sqrt(squares.mean(0))
    return {
        "num_completions": len(exact),
        "fp32_max": float(np.abs(np.array(logps["ours float32"]) - exact).max()),
        "bf16_rms": {"ours": float(ours), "stock": float(stock)},
        "ratio": {"value": float(ours / stock), "low": float(low), "high": float(high)},
    }


def compared(result: dict[str, Any]) -> list[dict[str, float]]:
    """Of each step what was logged but for times and places, and the loss unrounded."""
    steps = zip(result["logs"], result["losses"], strict=True)
    return [
        {key: value for key, value in row.items() if not key.endswith(NOT_COMPARED)}
        | {"loss": loss}
        for row, loss in steps
    ]


def distances(
    ours: Sequence[dict[str, float]], exact: Sequence[dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Of each logged number the mean and the largest difference over the steps, and the largest
    one relative to the number, of which 1 counts as the least.
    """
    found = {}
    for key in exact[0]:
        values = np.array([[a[key], b[key]] for a, b in zip(ours, exact, strict=True)])  # [N, 2]
        gaps = np.abs(values[:, 0] - values[:, 1])
        relative = gaps / np.maximum(1.0, np.abs(values[:, 1]))
        found[key] = {
            "mean": float(gaps.mean()),
            "max": float(gaps.max()),
            "relative": float(relative.max()),
        }
    return found


def measure_ratios(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prompts shared, not shared, and as chosen, with everything else fast in all three."""
    found = {}
    steps = {"steps": options.ratio_steps, "warmup": 1}
    options = argparse.Namespace(**(vars(options) | steps))
    number = (options.steps + options.warmup) * PAIRS_A_STEP
    for ratio in RATIOS:
        rows = ratio_rows(ratio, number)
        found[str(ratio)] = alternated(options, folder / f"ratio-{ratio}", WAYS, rows)
    return {"ratios": found, "crossover": crossover(found)}


def ratio_rows(ratio: float, number: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Pairs of random tokens whose prompt is `ratio` times a completion, one token at least.

    Completions have COMPLETION_TOKENS in the mean, each length between half of it and one and a
    half as likely.
    """
    generator = np.random.default_rng(seed)

    def tokens(count: float) -> list[int]:
        return generator.integers(100, 40_000, size=max(1, round(count))).tolist()  # type: ignore[no-any-return]

    rows = []
    for _ in range(number):
        size, other = generator.uniform(0.5, 1.5, size=2) * COMPLETION_TOKENS
        mean = (size + other) / 2
        ids = (tokens(ratio * mean), tokens(size), tokens(other))
        rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)))
    return rows


def crossover(found: dict[str, Any]) -> float | None:
    """The ratio above which sharing takes less time than not, between those that were measured.

    By a straight line between the last ratio where it does not pay and the next one; None when it
    pays, or does not, at all of them.
    """
    points = [(float(name), one["ratio"]["shared"]["time"]["value"]) for name, one in found.items()]
    for (low, slower), (high, faster) in reversed(list(pairwise(points))):
        if slower >= 1.0 > faster:
            return low + (high - low) * (slower - 1.0) / (slower - faster)
    return None


def time_table(found: dict[str, Any]) -> list[str]:
    lines = sides_table(found)
    (ratio,) = found["ratio"].values()
    for name, limit in LIMITS.items():
        value = ratio[name]["value" if name == "time" else "median"]
        said = "within" if value <= limit else "ABOVE"
        lines.append(f"  {name}: {value:.3f}, {said} the {limit} aimed at")
    return lines


def sides_table(found: dict[str, Any]) -> list[str]:
    num_rounds = len(found["rounds"])
    lines = [
        "",
        f"{found['num_steps']} steps of {PAIRS_A_STEP} pairs a round, {num_rounds} rounds, bf16: "
        "median [min, max]; ratio of all steps with its 95% interval",
    ]
    for side, numbers in found["sides"].items():
        line = f"  {side:7} {_range(numbers['step_s'])} s a step, {_range(numbers['peak_gb'])} GB"
        line += f", {numbers['token_share']['median']:.0%} of the tokens"
        if side in found["ratio"]:
            time = found["ratio"][side]["time"]
            memory = found["ratio"][side]["memory"]["median"]
            line += f"; time {_interval(time)}, memory {memory:.2f}"
        lines.append(line)
    return lines


def equality_table(found: dict[str, Any]) -> list[str]:
    worst = max(one["relative"] for one in found["fp32"].values())
    lines = ["", f"fp32: no logged number differs by more than {worst:.1e} of itself (or of 1)"]
    lines.append(f"  {'':22}{'fp32, ours':>12}{'bf16, ours':>22}{'bf16, stock':>22}")
    for key, exact in found["fp32"].items():
        cells = "".join(
            f"{found['bf16'][side][key]['mean']:>12.4f}, {found['bf16'][side][key]['max']:8.4f}"
            for side in SIDES
        )
        lines.append(f"  {key:22}{exact['max']:>12.1e}{cells}")
    noise = found["logps"]
    return [
        *lines,
        "  from stock's fp32: the largest difference; for bf16 mean, largest",
        f"  log-prob of a completion, {noise['num_completions']} of them, root mean square from "
        f"stock's fp32 in nats: bf16 ours {noise['bf16_rms']['ours']:.3f}, stock "
        f"{noise['bf16_rms']['stock']:.3f}, ratio {_interval(noise['ratio'])}",
    ]


def ratios_table(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "prompt:completion, seconds a step (plain, shared, auto), shared:plain, auto:plain",
    ]
    for name, one in found["ratios"].items():
        seconds = "".join(f"{one['sides'][way]['step_s']['median']:8.2f}" for way in WAYS)
        shares = "".join(f"{one['sides'][way]['token_share']['median']:6.0%}" for way in WAYS)
        times = "  ".join(_interval(one["ratio"][way]["time"]) for way in WAYS[1:])
        lines.append(f"  {float(name):5.3f}{seconds}   {times}   tokens{shares}")
    point = found["crossover"]
    said = "not among these ratios" if point is None else f"at {point:.2f}"
    return [*lines, f"  sharing stops paying {said}"]


def _range(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} [{values['min']:.2f}, {values['max']:.2f}]"


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


MEASURES = {
    "equality": measure_equality,
    "time": measure_time,
    "causes": measure_causes,
    "ratios": measure_ratios,
}
TABLES = {
    "equality": equality_table,
    "time": time_table,
    "causes": sides_table,
    "ratios": ratios_table,
}


if __name__ == "__main__":
    main()
