"""The PPO stage of fabricated runs: for the report's tests only."""

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from rlhf.manifest import Manifest, write_json
from rlhf.report.findings import findings
from rlhf.report.reading import Run, read_run
from rlhf.training.ppo.monitoring import CompletionLog, RolloutRecord, Watch
from tests.report.runs import HOSTILE, make_run

NUM_ROLLOUTS = 24
STEPS_A_ROLLOUT = 4
BUDGET = 6.0
OVERRIDE = "The lead wants to see what comes of it."
_WORDS = ["wrap", "the", "bread", "in", "cloth", "and", "keep", "it", "dry", "then", "warm"]

Row = dict[str, Any]


def make_ppo_run(
    folder: Path, *, simulated: bool = True, gate: str = "passed", stops: bool = True
) -> Path:
    """A run of the whole loop with a PPO stage beside DPO's, its policy 18 to 10 words long.

    `stops`: its KL stays beyond the budget at last, so that it stopped early.
    """
    make_run(folder, simulated=simulated, gate=gate)
    write_ppo(folder / "ppo", simulated=simulated, overridden=gate == "overridden", stops=stops)
    _add_policy(folder / "evaluate")
    return folder


def run_of(folder: Path, **changes: Any) -> Run:
    """A PPO run as the report reads it."""
    return read_run(make_ppo_run(folder / "run", **changes))


def texts_of(run: Run) -> list[str]:
    """What its findings say."""
    return [finding.text for finding in findings(run)]


def loud(run: Run) -> list[str]:
    """What those say that a reader must not miss."""
    return [finding.text for finding in findings(run) if finding.is_alarming]


def write_ppo(
    stage: Path, *, simulated: bool = True, overridden: bool = False, stops: bool = True
) -> None:
    """The folder of a PPO stage: log, completions, manifest."""
    stage.mkdir(parents=True)
    rows, watch = _log(BUDGET if stops else None)
    write_json(stage / "log.json", rows)
    log = CompletionLog(stage)
    for number in (1, NUM_ROLLOUTS):
        log.write(number, _record(number))
    manifest = Manifest(stage="ppo", seed=0, config={"seed": 0, "kl_coef": 0.05, "critic": "head"})
    manifest.config |= {"kl_budget": BUDGET, "kl_controller": "fixed", "num_iterations": 4}
    manifest.started, manifest.seconds, manifest.peak_rss_gb = (
        "2026-01-05T10:16:30+00:00",
        147.0,
        1.9,
    )
    manifest.code_version, manifest.simulated = "0.1.0+abc123", simulated
    manifest.provenance = {"rewards": [_source(overridden)]}
    best = max((row for row in rows if row.get("eval_kl", math.inf) <= BUDGET), key=_eval_score)
    manifest.metrics = {
        "num_steps": rows[-1]["step"],
        "best_step": best["step"],
        "best_eval_score": best["eval_score"],
        "best_eval_kl": best["eval_kl"],
        "stop_reason": watch.stop_reason,
        "warnings": watch.said,
    }
    manifest.write(stage)


def _eval_score(row: Row) -> float:
    return float(row["eval_score"])


def _log(budget: float | None) -> tuple[list[Row], Watch]:
    """The rows of a log, and the watch that has looked at them."""
    rng = random.Random(3)
    watch = Watch(SimpleNamespace(kl_budget=budget, max_completion_length=64))
    rows: list[Row] = []
    for number in range(1, NUM_ROLLOUTS + 1):
        done = number / NUM_ROLLOUTS
        score = 0.1 + 1.6 * done + rng.gauss(0, 0.12)
        row: Row = {"step": STEPS_A_ROLLOUT * number, "loss": 0.02, "score": score}
        row |= {"score_ci_low": score - 0.45, "score_ci_high": score + 0.45, "score_std": 0.9}
        row |= {"reward": score - 0.2, "kl": 7.4 * done**1.4, "kl_se": 0.4, "kl_coef": 0.05}
        row |= {
            "completion_length": 24 - 11 * done + rng.gauss(0, 0.7),
            "ended_rate": 0.86 + 0.1 * done,
        }
        row |= {"entropy": 1.9 - 0.7 * done + rng.gauss(0, 0.03), "repetition": 0.03}
        row |= {"explained_variance": 0.5 - math.exp(-3 * done), "clip_fraction": 0.08 + 0.1 * done}
        row |= {
            "value_clip_fraction": 0.05,
            "policy_loss": -0.01,
            "value_loss": 0.3,
            "value_mean": 0.1,
        }
        row |= {"episodes": 16 * number, "score/reward": score, "score/brief": -0.4 * (1 - done)}
        row |= {"seconds/rollout": 2.0, "seconds/score": 1.0, "seconds/train": 3.0}
        row |= {"tokens_per_second/rollout": 150.0, "tokens_per_second/train": 400.0}
        rows.append(row)
        watch.look(row, step=row["step"])
        if number % 4 == 0:
            held = {"eval_score": score - 0.1, "eval_kl": row["kl"], "eval_ended_rate": 0.9}
            held |= {"eval_score_ci_low": score - 0.4, "eval_score_ci_high": score + 0.2}
            rows.append({"step": row["step"], "eval_completion_length": 23.0, **held})
    return rows, watch


def _record(number: int) -> RolloutRecord:
    rng = random.Random(number)
    count, mean = 16, 18 if number == 1 else 10
    texts = [
        " ".join(rng.choices(_WORDS, k=max(1, round(rng.gauss(mean, 2))))) for _ in range(count)
    ]
    texts[5] = HOSTILE
    texts[6] = ""
    prompts: list[Any] = [[{"role": "user", "content": f"Loaf {i}: how?"}] for i in range(3)]
    prompts += [[{"role": "user", "content": f"Rollout {number}, {i}?"}] for i in range(count - 3)]
    prompts[5] = HOSTILE
    return RolloutRecord(
        prompts=prompts,
        completions=texts,
        num_tokens=[max(1, len(text.split())) for text in texts],
        ended=[i % 8 != 0 for i in range(count)],
        scores=torch.tensor([rng.gauss(number / 12, 1) for _ in range(count)]),
        kls=torch.full((count,), number / 4),
        source_scores={"reward": torch.zeros(count)},
    )


def _source(overridden: bool) -> Row:
    override = {"reason": OVERRIDE, "who": "lead"} if overridden else None
    gate = {"path": "gate", "sha256": "ef" * 32, "passed": not overridden, "override": override}
    source = {"name": "reward", "kind": "reward model", "path": "runs/reward", "weight": 1.0}
    return {**source, "sha256": "ab" * 32, "gate": gate}


def _add_policy(evaluate: Path) -> None:
    """PPO's completions and win rate beside the others', SFT's about 18 words long."""
    rng = random.Random(5)
    lines = (evaluate / "completions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        for name, mean in (("sft", 18), ("ppo", 10)):
            text = " ".join(rng.choices(_WORDS, k=max(1, round(rng.gauss(mean, 2)))))
            row["policies"].setdefault(name, {"scores": {"simulated truth": rng.random()}})
            row["policies"][name] |= {"text": text, "ended": True, "num_tokens": 12}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (evaluate / "completions.jsonl").write_text(text)
    manifest = Manifest.read(evaluate)
    policies = manifest.metrics["policies"]
    policies["ppo"] = policies["dpo"] | {"mean_tokens": 13.0, "mean_tokens_ci": [12.1, 13.9]}
    rate = {"value": 0.7, "low": 0.61, "high": 0.79, "n": 96, "simulated": True}
    policies["ppo"]["win_rate_vs_sft"] = {**rate, "judge": "simulated truth"}
    policies["ppo"]["judges"] = policies["ppo"]["judges"] | {"simulated truth": rate}
    manifest.write(evaluate)
