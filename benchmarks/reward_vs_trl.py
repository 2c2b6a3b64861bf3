"""The reward stage's trainer beside TRL's RewardTrainer: time, memory, loss and accuracy.

    python benchmarks/reward_vs_trl.py --data FOLDER --json reward_vs_trl.json

Each run is a process of its own. Both sides begin with the same weights and get the same pairs in
the same order. `time` alternates them; `equality` compares losses step by step in fp32 and says
how far each side's bf16 is from stock's fp32; `accuracy` trains both on more pairs and scores
held-out ones. The times mean something only on a machine that does nothing else.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from reward_data import (
    Pairs,
    accuracy,
    add_data_options,
    draw,
    hh_pairs,
    hhh_pairs,
    renderer,
    right,
)
from reward_training import SETTINGS, Run, measure, write_rows

from rlhf.evaluation.statistics import clustered_bootstrap
from rlhf.manifest import write_json

PARTS = ("equality", "time", "accuracy")
SIDES = ("ours", "stock")
PAIRS_A_STEP = SETTINGS["per_device_train_batch_size"] * SETTINGS["gradient_accumulation_steps"]
MAX_LENGTH = 512
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_options(parser)
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="of both sides, for time")
    parser.add_argument("--steps", type=int, default=10, help=f"of {PAIRS_A_STEP} pairs, counted")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those, not counted")
    parser.add_argument("--train_pairs", type=int, default=640, help="for accuracy")
    parser.add_argument("--heldout", type=int, help="HH pairs at most, for accuracy; else all")
    options = parser.parse_args()
    chosen = PARTS if options.part == "all" else (options.part,)
    with work_folder(options.work) as folder:
        found: dict[str, Any] = {}
        for part in chosen:
            found_here = MEASURES[part](options, folder)
            print("\n".join(TABLES[part](found_here)), flush=True)
            found |= found_here
    if options.json:
        settings = SETTINGS | {
            "max_length": MAX_LENGTH,
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }
        write_json(options.json, found | {"settings": settings} | machine(PACKAGES))


@contextmanager
def work_folder(given: Path | None) -> Any:
    """The folder that was named, or one that goes when all is done."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


class Remaining:
    """Says before each of `total` runs how long the rest may take."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.monotonic()

    def announce(self, name: str) -> None:
        left = ""
        if self.done:
            a_run_s = (time.monotonic() - self.began) / self.done
            left = f", about {a_run_s * (self.total - self.done) / 60:.0f} min left"
        self.done += 1
        print(f"run {self.done} of {self.total}: {name}{left}", file=sys.stderr, flush=True)


def measure_time(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds a step (median) and peak memory of each side, and their ratio in each round."""
    num_steps = options.warmup + options.steps
    run = prepared(options, folder / "time", num_steps)
    remaining = Remaining(2 * options.rounds)
    rounds = []
    for number in range(options.rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        one = {}
        for side in order:
            remaining.announce(f"time, {side}")
            measured = measure(run(side), folder / "time", f"{side}-{number}")
            seconds = measured["seconds"][options.warmup :]
            one[side] = {
                "step_s": float(np.median(seconds)),
                "total_s": float(np.sum(seconds)),
                "peak_gb": measured["peak_gb"],
            }
        rounds.append(one)
    return {
        "rounds": rounds,
        "num_steps": options.steps,
        "ours": spread_of(rounds, "ours"),
        "peer": spread_of(rounds, "stock"),
        "ratio": {
            "time": ratio(rounds, "total_s"),
            "memory": ratio(rounds, "peak_gb"),
        },
    }


def spread_of(rounds: list[dict], side: str) -> dict[str, dict[str, float]]:
    return {key: spread([one[side][key] for one in rounds]) for key in rounds[0][side]}


def ratio(rounds: list[dict], key: str) -> dict[str, float]:
    """Ours over stock's, within each round."""
    return spread([one["ours"][key] / one["stock"][key] for one in rounds])


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def measure_equality(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Losses of each side in each dtype, from the same weights on the same batches."""
    run = prepared(options, folder / "equality", options.steps)
    losses = {}
    remaining = Remaining(4)
    for dtype in ("float32", "bfloat16"):
        for side in SIDES:
            remaining.announce(f"equality, {side} in {dtype}")
            measured = measure(run(side, dtype), folder / "equality", f"{side}-{dtype}")
            losses[f"{side} {dtype}"] = np.array(measured["losses"])
    exact = losses["stock float32"]
    return {
        "losses": {name: values.tolist() for name, values in losses.items()},
        "loss_difference_fp32": float(np.abs(losses["ours float32"] - exact).max()),
        "bf16_from_fp32": {
            side: {
                "mean": float(np.abs(losses[f"{side} bfloat16"] - exact).mean()),
                "max": float(np.abs(losses[f"{side} bfloat16"] - exact).max()),
                "first_step": float(abs(losses[f"{side} bfloat16"][0] - exact[0])),
            }
            for side in SIDES
        },
    }


def measure_accuracy(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both sides after the same training, on HH's held-out pairs and on BIG-bench's."""
    folder = folder / "accuracy"
    folder.mkdir(exist_ok=True)
    rendered = renderer()
    heldout = hh_pairs(options.data, "eval", rendered)
    number = len(heldout.pairs) if options.heldout is None else options.heldout
    sets = {"hh heldout": draw(heldout, number)}
    sets |= hhh_pairs(options.data, rendered, folder)
    num_steps = options.train_pairs // PAIRS_A_STEP
    run = prepared(options, folder, num_steps, sets)
    gaps: dict[str, dict[str, np.ndarray]] = {}
    remaining, losses = Remaining(len(SIDES)), {}
    for side in SIDES:
        remaining.announce(f"accuracy, {side}")
        measured = measure(run(side), folder, side)
        losses[side] = float(np.mean(measured["losses"][-10:]))
        gaps[side] = {name: pairs.gaps(measured["scores"][name]) for name, pairs in sets.items()}
    return {
        "accuracy": {
            name: compare(pairs, {side: gaps[side][name] for side in SIDES})
            for name, pairs in merged(sets, gaps).items()
        },
        "num_train_pairs": num_steps * PAIRS_A_STEP,
        "loss_of_last_10_steps": losses,
    }


def merged(sets: dict[str, Pairs], gaps: dict[str, dict[str, np.ndarray]]) -> dict[str, Pairs]:
    """The sets, and BIG-bench's subsets as one more, whose gaps are added to `gaps`."""
    subsets = [name for name in sets if name.startswith("hhh ")]
    if not subsets:
        return sets
    for side in gaps:
        gaps[side]["hhh all"] = np.concatenate([gaps[side][name] for name in subsets])
    every = Pairs(
        pairs=[pair for name in subsets for pair in sets[name].pairs],
        columns=[row for name in subsets for row in sets[name].columns],
    )
    return sets | {"hhh all": every}


def compare(pairs: Pairs, gaps: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Accuracy of each side, their difference pair by pair, and of picking the longer."""
    prompts = pairs.prompts()
    found = {side: accuracy(values, prompts) for side, values in gaps.items()}
    difference = right(gaps["ours"]) - right(gaps["stock"])
    found["ours_minus_stock"] = clustered_bootstrap(difference, prompts).as_dict()
    found["pick_the_longer"] = accuracy(pairs.length_gaps(), prompts)
    return found


def prepared(
    options: argparse.Namespace,
    folder: Path,
    num_steps: int,
    scored: dict[str, Pairs] | None = None,
) -> Any:
    """Write the rows of `num_steps` steps; a function that makes each side's Run on them."""
    folder.mkdir(exist_ok=True)
    pairs = hh_pairs(options.data, "train", renderer(), MAX_LENGTH)
    train = draw(pairs, num_steps * PAIRS_A_STEP)
    rows = folder / "rows.json"
    ids = {name: each.transcripts() for name, each in (scored or {}).items()}
    write_rows(rows, train.columns, ids)

    def run(side: str, dtype: str = "bfloat16") -> Run:
        weights = str(folder / "weights.safetensors")
        return Run(side=side, rows=str(rows), weights=weights, dtype=dtype, num_steps=num_steps)

    return run


def time_table(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"{found['num_steps']} steps of {PAIRS_A_STEP} pairs a round, bf16, median [min, max]",
    ]
    for name, side in (("ours", found["ours"]), ("stock", found["peer"])):
        lines.append(f"  {name:6} {_range(side['step_s'])} s a step, {_range(side['peak_gb'])} GB")
    ratios = found["ratio"]
    lines.append(f"  ratio  time {_range(ratios['time'])}, memory {_range(ratios['memory'])}")
    return lines


def equality_table(found: dict[str, Any]) -> list[str]:
    lines = ["", f"fp32: losses differ by at most {found['loss_difference_fp32']:.2e}"]
    for side, numbers in found["bf16_from_fp32"].items():
        lines.append(
            f"  {side} in bf16 is {numbers['mean']:.4f} from stock's fp32 on average, "
            f"at most {numbers['max']:.4f}, {numbers['first_step']:.4f} on the first step"
        )
    return lines


def accuracy_table(found: dict[str, Any]) -> list[str]:
    lines = ["", f"accuracy after {found['num_train_pairs']} pairs (95% intervals over prompts)"]
    for name, numbers in found["accuracy"].items():
        lines.append(f"  {name} (n {numbers['ours']['n']})")
        lines += [f"    {each:17} {_interval(value)}" for each, value in numbers.items()]
    return lines


def _range(values: dict[str, float]) -> str:
    return f"{values['median']:.3f} [{values['min']:.3f}, {values['max']:.3f}]"


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"


MEASURES = {
    "equality": measure_equality,
    "time": measure_time,
    "accuracy": measure_accuracy,
}
TABLES = {"equality": equality_table, "time": time_table, "accuracy": accuracy_table}


if __name__ == "__main__":
    main()
