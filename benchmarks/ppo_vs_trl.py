"""PPO beside TRL 1.12's PPOTrainer, the last one that TRL had: time by phase, memory, growth.

    python benchmarks/ppo_vs_trl.py --json ppo_vs_trl.json

Each run is a process of its own; the sides take turns. Both get the same base in bf16, LoRA of
the same size in fp32 on all linear layers, the same prompts, and write completions of the same
length, since the end token is ignored. `time` gives the ratio in each round, `growth` the same
for more and for longer completions. The times mean something only on a machine that does nothing
else.
"""

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from ppo_models import make_reward, write_prompt_ids
from ppo_runs import PEER_VERSION, PHASES, Run, install_peer, measure
from reward_vs_trl import Remaining, spread, work_folder

from rlhf.manifest import write_json
from rlhf.models.registry import resolve_model

PARTS = ("time", "growth")
SIDES = ("ours", "peer")
MODEL = "smollm2-135m-instruct-q4"
PROMPTS = Path(__file__).parent.parent / "configs" / "quickstart" / "train_prompts.jsonl"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")
MEDIANS = (*PHASES, "step_s", "cpu_s")
LIMITS = {"time": 0.62, "memory": 0.45}
"""Ratios that were aimed at."""


def main() -> None:
    options = parse(None)
    with work_folder(options.work) as folder:
        options.trl_dir = install_peer(options.trl_dir or folder / f"trl-{PEER_VERSION}")
        runs = prepared(options, folder)
        found: dict[str, Any] = {}
        for part in PARTS if options.part == "all" else (options.part,):
            found |= MEASURES[part](options, runs, folder)
            print("\n".join(TABLES[part](found)), flush=True)
    found["settings"] = {name: asdict(run) for name, run in runs.items()}
    found["settings"]["threads"] = os.environ.get("OMP_NUM_THREADS")
    found["peer_version"] = PEER_VERSION
    if options.json:
        write_json(options.json, found | machine(PACKAGES))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps what was measured, to go on from"
    )
    parser.add_argument(
        "--trl_dir", type=Path, help=f"folder with TRL {PEER_VERSION}; made when it is missing"
    )
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="of both sides, for time")
    parser.add_argument("--steps", type=int, default=3, help="updates that are counted")
    parser.add_argument("--warmup", type=int, default=1, help="updates before those")
    parser.add_argument("--growth_steps", type=int, default=1, help="updates counted, for growth")
    parser.add_argument("--scales", default="1,2,4", help="how much more and longer, for growth")
    parser.add_argument("--model", default=MODEL, help="the base of both sides")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="JSONL with prompts")
    parser.add_argument(
        "--peer_autocast",
        action="store_true",
        help="TRL with bf16=True: neither faster nor smaller here",
    )
    return parser.parse_args(argv)


def prepared(options: argparse.Namespace, folder: Path) -> dict[str, Run]:
    """Each side's run of as many updates as are warmed up with and counted."""
    base = str(resolve_model(options.model))
    reward, merged = make_reward(base, folder)
    lengths = write_prompt_ids(base, options.prompts, folder / "prompt_ids.json")
    print(f"{len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens", flush=True)
    run = Run(
        side="ours",
        policy=base,
        reward=str(reward),
        merged_reward=str(merged),
        prompts=str(options.prompts.absolute()),
        prompt_ids=str(folder / "prompt_ids.json"),
        num_updates=options.warmup + options.steps,
    )
    peer_options = {"autocast": True} if options.peer_autocast else {}
    return {"ours": run, "peer": replace(run, side="peer", options=peer_options)}


def measure_time(options: argparse.Namespace, runs: dict[str, Run], folder: Path) -> dict[str, Any]:
    """Seconds of each phase (median of the updates) and peak memory; their ratios by round."""
    remaining, rounds = Remaining(2 * options.rounds), []
    dtypes: dict[str, Any] = {}
    for number in range(options.rounds):
        one = {}
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            remaining.announce(f"time, {side}")
            result = measure(runs[side], folder, f"{side}-{number}", options.trl_dir)
            one[side] = summary(result, options.warmup)
            dtypes[side] = dtypes_of(result)
        rounds.append(one)
    return {
        "rounds": rounds,
        "dtypes": dtypes,
        "num_updates": options.steps,
        "ours": spread_of(rounds, "ours"),
        "peer": spread_of(rounds, "peer"),
        "ratio": ratios(rounds),
    }


def dtypes_of(result: dict[str, Any]) -> dict[str, Any]:
    """What a side trained in which dtype; it must be fp32 for LoRA and what AdamW keeps of it."""
    found = {name: result[name] for name in ("policy_dtypes", "optimizer_dtypes", "value_dtypes")}
    assert list(found["policy_dtypes"]) == ["float32"], found
    assert found["optimizer_dtypes"]["policy"] == ["float32"], found
    return found


def summary(result: dict[str, Any], warmup: int) -> dict[str, float]:
    """Of one run: the median of each phase over the updates that count, their sum, the peak."""
    updates = result["updates"][warmup:]
    found = {key: float(np.median([one[key] for one in updates])) for key in MEDIANS}
    found["total_s"] = float(sum(one["step_s"] for one in updates))
    found["num_tokens"] = float(sum(result["num_tokens"][warmup:]))
    return found | {"peak_gb": result["peak_gb"]}


def spread_of(rounds: list[dict[str, Any]], side: str) -> dict[str, dict[str, float]]:
    return {key: spread([one[side][key] for one in rounds]) for key in rounds[0][side]}


def ratios(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Ours over the peer's within each round: all the time, memory, and each phase's time."""
    keys = {"time": "total_s", "memory": "peak_gb"} | {name: name for name in (*PHASES, "cpu_s")}
    return {
        name: spread([one["ours"][key] / one["peer"][key] for one in rounds])
        for name, key in keys.items()
    }


def measure_growth(
    options: argparse.Namespace, runs: dict[str, Run], folder: Path
) -> dict[str, Any]:
    """Both sides once with more completions, and once with longer ones."""
    points = growth_points(runs["ours"], [int(scale) for scale in options.scales.split(",")])
    remaining, found = Remaining(2 * len(points)), []
    for point in points:
        name = "x".join(str(value) for value in point.values())
        one: dict[str, Any] = dict(point)
        for side in SIDES:
            remaining.announce(f"growth, {name}, {side}")
            num_updates = options.warmup + options.growth_steps
            run = replace(runs[side], num_updates=num_updates, **point)
            result = measure(run, folder, f"growth-{name}-{side}", options.trl_dir)
            one[side] = summary(result, options.warmup)
        one["ratio"] = {
            "time": one["ours"]["total_s"] / one["peer"]["total_s"],
            "memory": one["ours"]["peak_gb"] / one["peer"]["peak_gb"],
        }
        found.append(one)
    return {"growth": found}


def growth_points(run: Run, scales: list[int]) -> list[dict[str, Any]]:
    """Completions and their tokens: one of the two grows while the other stays."""
    more = [(run.num_completions * scale, run.max_new_tokens) for scale in scales]
    longer = [(run.num_completions, run.max_new_tokens * scale) for scale in scales]
    return [
        {"num_completions": completions, "max_new_tokens": tokens}
        for completions, tokens in dict.fromkeys(more + longer)
    ]


def time_table(found: dict[str, Any]) -> list[str]:
    rows = (*MEDIANS, "peak_gb")
    lines = [
        "",
        f"{found['num_updates']} updates a round, {len(found['rounds'])} rounds: median [min, max]",
        f"  {'':7}" + "".join(f"{row:>24}" for row in rows),
    ]
    for side in SIDES:
        lines.append(f"  {side:7}" + "".join(f"{_range(found[side][row]):>24}" for row in rows))
    names = {"step_s": "time", "peak_gb": "memory"}
    cells = (f"{_range(found['ratio'][names.get(row, row)]):>24}" for row in rows)
    lines.append(f"  {'ratio':7}" + "".join(cells))
    for name, limit in LIMITS.items():
        median = found["ratio"][name]["median"]
        said = "within" if median <= limit else "ABOVE"
        lines.append(f"  {name}: {median:.3f}, {said} the {limit} aimed at")
    return lines


def growth_table(found: dict[str, Any]) -> list[str]:
    lines = ["", "completions x tokens: seconds an update, GB; ours, TRL's, ratio"]
    for one in found["growth"]:
        ours, peer = one["ours"], one["peer"]
        lines.append(
            f"  {one['num_completions']:3} x {one['max_new_tokens']:3}"
            f"   {ours['step_s']:7.1f} {peer['step_s']:7.1f} {one['ratio']['time']:6.2f}"
            f"   {ours['peak_gb']:6.2f} {peer['peak_gb']:6.2f} {one['ratio']['memory']:6.2f}"
        )
    return lines


def _range(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} [{values['min']:.2f}, {values['max']:.2f}]"


MEASURES = {"time": measure_time, "growth": measure_growth}
TABLES = {"time": time_table, "growth": growth_table}


if __name__ == "__main__":
    main()
