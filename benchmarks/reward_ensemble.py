"""Does the spread of an ensemble of reward models say where it errs? On real human pairs.

    python benchmarks/reward_ensemble.py --data FOLDER --json reward_ensemble.json

`rlhf reward --num_members K` trains K adapters and heads on one base, and scores the HH pairs of
its held-out prompts by each. A mistake is a pair whose rejected completion gets the higher mean
score. The question is whether the members' score gaps (chosen less rejected) spread wider there.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from reward_data import MODEL, Pairs, accuracy, add_data_options, draw, hh_pairs, renderer, right
from reward_training import run_stage
from reward_vs_trl import PACKAGES, work_folder

from rlhf.evaluation.gate.spread import auroc
from rlhf.evaluation.statistics import bootstrap_statistic, clustered_bootstrap
from rlhf.manifest import write_json
from rlhf.records import content_hash

WANTED_AUROC = 0.6
MAX_LENGTH = 384
STAGE = {"train_sampling_strategy": "random", "max_length": 768, "max_loss": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_options(parser)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--train_pairs", type=int, default=200, help="that every member sees")
    parser.add_argument("--heldout", type=int, default=300, help="pairs at most, of HH's eval file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bagging", action="store_true", help="each member sees its own draw")
    options = parser.parse_args()
    with work_folder(options.work) as folder:
        found = judge(train(options, folder))
    print("\n".join(table(found)))
    if options.json:
        budget = {key: getattr(options, key) for key in ("train_pairs", "seed", "bagging")}
        write_json(options.json, {"model": MODEL, **budget, **found, **machine(PACKAGES)})


def train(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The stage's held-out rows, with the scores of each member."""
    rendered = renderer()
    drawn = draw(hh_pairs(options.data, "train", rendered, MAX_LENGTH), options.train_pairs)
    heldout = draw(hh_pairs(options.data, "eval", rendered), options.heldout)
    return run_stage(
        folder / "ensemble",
        write_pairs(folder / "train.jsonl", drawn),
        write_pairs(folder / "heldout.jsonl", heldout),
        num_members=options.members,
        member_bagging=options.bagging,
        seed=options.seed,
        **STAGE,
    )


def write_pairs(path: Path, pairs: Pairs) -> Path:
    """The pairs as a preference data set; those whose two prompts differ are left out."""
    rows = [
        {
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen_ended": True,
            "rejected_ended": True,
        }
        for pair in pairs.pairs
        if pair.rejected_prompt is None
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy of the ensemble and of its members, and how well each sign tells the mistakes."""
    chosen, rejected = (
        np.array([row[f"{side}_member_scores"] for row in rows], dtype=float)
        for side in ("chosen", "rejected")
    )  # [N, K]
    gaps = chosen - rejected
    prompts = [content_hash(row["prompt"]) for row in rows]
    members = right(gaps)  # [N, K]
    together = right(gaps.mean(1))
    return {
        "num_members": gaps.shape[1],
        "num_heldout": len(rows),
        "accuracy_ensemble": accuracy(gaps.mean(1), prompts),
        "accuracy_of_a_member": clustered_bootstrap(members.mean(1), prompts).as_dict(),
        "ensemble_minus_a_member": clustered_bootstrap(
            together - members.mean(1), prompts
        ).as_dict(),
        "member_gap_correlation": float(
            np.corrcoef(gaps.T)[np.triu_indices(gaps.shape[1], 1)].mean()
        ),
        "auroc": {
            name: auroc_estimate(sign, together < 0.5, prompts)
            for name, sign in signs_of_error(chosen, rejected).items()
        },
    }


def signs_of_error(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, np.ndarray]:
    """What might be larger [N] where the ensemble errs, from the members' scores [N, K].

    The first is the spread that is asked about; the last needs no ensemble of more than one.
    """
    gaps = chosen - rejected
    mean, spread = gaps.mean(1), gaps.std(1, ddof=1)
    return {
        "spread of the gap": spread,
        "spread of the scores": (chosen.std(1, ddof=1) + rejected.std(1, ddof=1)) / 2,
        "spread over size of the gap": spread / np.maximum(np.abs(mean), 1e-12),
        "small gap": -np.abs(mean),
    }


def auroc_estimate(
    sign: np.ndarray, mistaken: np.ndarray, prompts: Sequence[str]
) -> dict[str, float] | None:
    """AUROC with its 95% interval by bootstrap over prompts; None without mistakes or hits."""
    if not mistaken.any() or mistaken.all():
        return None
    return bootstrap_statistic(lambda rows: auroc(sign[rows], mistaken[rows]), prompts).as_dict()


def table(found: dict[str, Any]) -> list[str]:
    """The numbers as lines for reading, and what they say of the spread."""
    lines = [f"{found['num_members']} members, {found['num_heldout']} held-out pairs"]
    for name in ("accuracy_ensemble", "accuracy_of_a_member", "ensemble_minus_a_member"):
        lines.append(f"  {name.replace('_', ' '):28} {_interval(found[name])}")
    lines.append(f"  correlation of two members' gaps {found['member_gap_correlation']:.3f}")
    for name, value in found["auroc"].items():
        lines.append(f"  AUROC of {name:28} {_interval(value)}")
    return [*lines, verdict(found["auroc"]["spread of the gap"])]


def verdict(estimate: dict[str, float] | None) -> str:
    """Whether the spread predicts error, in words."""
    if estimate is None:
        return "The ensemble made no mistake, or nothing but mistakes: its spread cannot be judged."
    if estimate["low"] > WANTED_AUROC:
        return f"The spread predicts error: AUROC above {WANTED_AUROC} with its whole interval."
    if estimate["value"] > WANTED_AUROC:
        return f"AUROC above {WANTED_AUROC}, but its interval is not: not shown to predict error."
    return f"The spread does not predict error here: AUROC not above {WANTED_AUROC}."


def _interval(value: dict[str, float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value['value']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"


if __name__ == "__main__":
    main()
