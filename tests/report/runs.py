"""Fabricated run folders, as the stages leave them: for the report's tests only."""

import hashlib
import json
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

from rlhf.manifest import Manifest, write_json
from tests.report.reward_runs import (
    heldout_rows,
    judgement_rows_of,
    write_gate,
    write_reward,
    write_rows,
)

HOSTILE = (
    "</script><script>window.pwned = 1</script><img src=http://evil.example/x.png "
    "onerror='window.pwned = 2'> {{ 7 * 7 }} ${7 * 7} <!--<script> <b>bold</b>"
)
_WORDS = ["wrap", "the", "bread", "in", "cloth", "and", "keep", "it", "dry", "then", "warm"]


def make_run(
    folder: Path,
    *,
    simulated: bool = True,
    stages: tuple[str, ...] | None = None,
    gate: str = "passed",
) -> Path:
    """A run of the whole pipeline (or of `stages`) with plausible numbers under `folder`.

    `gate` is how its gate went: passed, failed, or overridden.
    """
    makers = {
        "sft": _sft,
        "sample": _sample,
        "ratings": _ratings,
        "reward": _reward,
        "gate": partial(write_gate, outcome=gate),
        "dpo": _dpo,
        "evaluate": _evaluate,
    }
    for index, name in enumerate(makers):
        if stages is None or name in stages:
            stage = folder / name
            stage.mkdir(parents=True)
            manifest = _manifest(name, index, simulated and index >= 2)
            makers[name](stage, manifest)
            manifest.write(stage)
    return folder


def _manifest(name: str, index: int, simulated: bool) -> Manifest:
    manifest = Manifest(stage=name, config={"seed": 0, "learning_rate": 3e-4}, seed=0)
    manifest.started = f"2026-01-05T10:{10 + index}:00+00:00"
    manifest.seconds, manifest.peak_rss_gb = 41.0 + 17 * index, 1.9 + 0.2 * index
    manifest.code_version = "0.1.0+abc123"
    manifest.libraries = {"torch": "2.13.0", "trl": "1.16.0"}
    manifest.machine = {"platform": "Linux", "cpus": 2}
    manifest.simulated = simulated
    return manifest


def _input(path: str, rows: int) -> dict[str, Any]:
    return {"path": path, "sha256": hashlib.sha256(path.encode()).hexdigest(), "rows": rows}


def _sft(stage: Path, manifest: Manifest) -> None:
    manifest.inputs = {"dataset": _input("configs/quickstart/demonstrations.jsonl", 160)}
    manifest.metrics = {"train_loss": 2.1, "num_train": 160, "num_steps": 60}
    decay = [
        {"step": 5 * i, "loss": 2 + 2 * math.exp(-i / 4), "epoch": i / 8} for i in range(1, 13)
    ]
    for row in decay:
        row["mean_token_accuracy"] = 0.62 - 0.05 * row["loss"]
    write_json(stage / "log.json", [*decay, {"step": 60, "train_runtime": 70.0}])


def _sample(stage: Path, manifest: Manifest) -> None:
    manifest.inputs = {"prompts": _input("configs/quickstart/train_prompts.jsonl", 200)}
    manifest.metrics = {"num_prompts": 200, "num_completions": 400}


def _ratings(stage: Path, manifest: Manifest) -> None:
    manifest.inputs = {"completions": _input(str(stage.parent / "sample/completions.jsonl"), 200)}
    manifest.metrics = {"num_items": 200, "num_judgements": 600, "noise_ceiling": 0.86}
    manifest.provenance = {"judgement_ids_sha256": "cd" * 32, "campaign": "quick"}
    rows = judgement_rows_of(heldout_rows(manifest.simulated))
    write_rows(stage / "judgements.jsonl", rows)


def _reward(stage: Path, manifest: Manifest) -> None:
    manifest.inputs = {"preferences": _input(f"feedback:{stage.parent}/feedback.db#quick", 180)}
    write_reward(stage, manifest)


def _dpo(stage: Path, manifest: Manifest) -> None:
    manifest.inputs = {"preferences": _input(f"feedback:{stage.parent}/feedback.db#quick", 180)}
    manifest.metrics = {"train_loss": 0.55, "num_train": 108, "num_steps": 27}
    manifest.config |= {"beta": 0.1, "loss_type": ["sigmoid"]}
    rows = []
    for i in range(1, 28):
        row = {"step": i, "loss": 0.69 - 0.012 * i, "rewards/margins": 0.04 * i}
        row |= {"rewards/accuracies": min(1.0, 0.5 + 0.018 * i)}
        row |= {"rewards/chosen": -0.01 * i, "rewards/rejected": -0.05 * i}
        rows.append(row | {"logps/chosen": -90 - i, "logps/rejected": -95 - 2.5 * i})
    write_json(stage / "log.json", rows)


def _evaluate(stage: Path, manifest: Manifest) -> None:
    manifest.inputs = {"prompts": _input("configs/quickstart/heldout_prompts.jsonl", 96)}
    judge = {"judge": "simulated truth", "simulated": True}
    manifest.metrics = {
        "baseline": "sft",
        "num_prompts": 96,
        "temperature": 1.0,
        "truth_length_r2": 0.31,
        "judges": {
            "simulated truth": {"kind": "truth", "simulated": True, "caveat": "It is a formula."},
            "reward": {"kind": "reward", "simulated": True, "caveat": "Trained on the ratings."},
            "shorter": {"kind": "shorter", "simulated": False, "caveat": ""},
        },
        "shorter_baseline": {"dpo": {**_estimate(0.57, 0.47, 0.67), **judge}},
        "policies": {
            "base": _policy(0.12, 38.0, 120.0, 0.05, judge),
            "sft": _policy(None, 0.0, 60.0, 0.88, judge),
            "dpo": _policy(0.64, 4.2, 52.0, 0.91, judge) | {"trained_on_simulated": True},
        },
    }
    rng = random.Random(1)
    with (stage / "completions.jsonl").open("w") as stream:
        for index in range(96):
            stream.write(json.dumps(_row(rng, index)) + "\n")


def _estimate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 96}


def _policy(
    rate: float | None, kl: float, tokens: float, ended: float, judge: dict[str, Any]
) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "kl_to_sft": kl,
        "kl_to_sft_se": 0.4,
        "mean_tokens": tokens,
        "mean_tokens_ci": [tokens - 5, tokens + 5],
        "ended_rate": ended,
        "ended_rate_ci": [max(0, ended - 0.06), min(1, ended + 0.05)],
        "repetition": 0.03,
        "distinct_2": 0.71,
        "n": 96,
    }
    if rate is not None:
        estimate = _estimate(rate, rate - 0.09, rate + 0.09)
        others = {"reward": _estimate(rate + 0.03, rate - 0.06, rate + 0.12) | {"simulated": True}}
        others["shorter"] = _estimate(0.55, 0.45, 0.65)
        policy["judges"] = {"simulated truth": estimate | {"simulated": True}, **others}
        policy["win_rate_vs_sft"] = estimate | judge
    return policy


def _row(rng: random.Random, index: int) -> dict[str, Any]:
    policies = {}
    for name, length in (("base", 60), ("sft", 30), ("dpo", 24)):
        text = _text(rng, length)
        scores = {"simulated truth": rng.random(), "reward": rng.gauss(0, 1), "shorter": -length}
        ended = name != "base"
        policies[name] = {"text": text, "ended": ended, "num_tokens": 2 * length, "scores": scores}
    policies["sft"]["text"] = HOSTILE if index % 7 == 0 else policies["sft"]["text"]
    policies["dpo"]["text"] = "" if index == 3 else policies["dpo"]["text"]
    prompt = [{"role": "user", "content": f"Question {index}: how do I keep bread fresh?"}]
    return {"prompt": prompt, "policies": policies}


def _text(rng: random.Random, mean_length: int) -> str:
    return " ".join(rng.choices(_WORDS, k=max(1, round(rng.gauss(mean_length, 4)))))
