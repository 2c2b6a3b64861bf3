"""Stages of DPO and its family as they leave their folders: for the report's tests only."""

from pathlib import Path
from typing import Any

from rlhf.manifest import Manifest, write_json
from rlhf.training.dpo.watch import Watched, warnings_of

BETA = 0.1
NUM_STEPS = 60
BEST_STEP = 40
KL_BUDGET = 6.0
REFERENCE_LENGTH = 35.25

Row = dict[str, Any]


def write_dpo(
    stage: Path, *, kind: str = "dpo", simulated: bool = True, config: Row | None = None
) -> None:
    """The folder of a stage whose chosen completions fall with the rejected, beyond step 40."""
    stage.mkdir(parents=True)
    rows = log_rows()
    write_json(stage / "log.json", rows)
    manifest = Manifest(stage=kind, seed=0, config={}, simulated=simulated)
    manifest.config = {"beta": BETA, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}
    manifest.config |= {"early_stopping_patience": 2, "kl_budget": KL_BUDGET, **(config or {})}
    manifest.started, manifest.seconds, manifest.peak_rss_gb = "2026-01-05T10:16:30+00:00", 147, 1.9
    manifest.code_version = "0.1.0+abc123"
    losses = {"dropped": {"over max_length": 3}, "cut": {"prompt over max_length": 2}}
    manifest.provenance = {
        "losses": {"num_rows": 485, **losses},
        "reference": "the model that training starts from (runs/sft)",
        "prompt_sharing": "chosen and rejected shared their prompt in 9 of 10 batches",
    }
    manifest.metrics = {
        "num_steps": NUM_STEPS,
        "num_train": 400,
        "num_eval": 80,
        "labels": "soft",
        "num_ties": 12,
        "label_method": "dawid_skene",
        "weight_range": [0.5, 1.25],
        "uses_margin": True,
        "stopped_early": True,
        "best_step": BEST_STEP,
        "best_eval_loss": 0.61,
        "eval_rewards/accuracies": 0.7,
        "warnings": warnings_of(rows, Watched(BETA, ("sigmoid",), KL_BUDGET)),
    }
    manifest.write(stage)


def log_rows() -> list[Row]:
    """A log every second step and an evaluation every tenth: chosen ends 9 nats below 0."""
    rows: list[Row] = []
    for step in range(2, NUM_STEPS + 1, 2):
        done = step / NUM_STEPS
        chosen, rejected = -9.0 * done**2, -20.0 * done
        row: Row = {"step": step, "loss": 0.7 - 0.3 * done, "logps/chosen": -100.0 + chosen}
        row |= {"rewards/chosen": BETA * chosen, "rewards/rejected": BETA * rejected}
        row |= {"rewards/margins": BETA * (chosen - rejected), "logps/rejected": -120 + rejected}
        rows.append(row | {"rewards/accuracies": 0.5 + 0.3 * done})
        if step % 10 == 0:
            rows.append(_evaluation(step, done))
    return rows


def _evaluation(step: int, done: float) -> Row:
    worse = max(0, step - BEST_STEP) / 100
    row: Row = {"step": step, "eval_loss": 0.69 - 0.002 * min(step, BEST_STEP) + worse}
    row |= {"eval_rewards/chosen": -0.5 * done, "eval_rewards/rejected": -1.5 * done}
    row |= {"eval_rewards/margins": 1.0 * done, "eval_rewards/accuracies": 0.5 + 0.2 * done}
    row |= {"eval_kl": 8 * done**2, "eval_kl_se": 0.5, "eval_ended_rate": 0.9}
    row |= {"eval_completion_length": 35.0 - 14 * done, "eval_completion_length_se": 1.5}
    return row | {"eval_ref_completion_length": REFERENCE_LENGTH}
