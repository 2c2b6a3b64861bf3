"""The reward stage, the gate and the doctor of fabricated runs: for the report's tests only."""

import json
import random
from pathlib import Path
from typing import Any

from rlhf.manifest import Manifest, write_json

_WORDS = ["wrap", "the", "bread", "in", "cloth", "and", "keep", "it", "dry", "then", "warm"]
NUM_PAIRS = 60
WORST = 7
"""The pair that is furthest wrong, and whose completions differ in one word."""

EMAIL_EXAMPLE = "write to [e-mail] for the recipe"

Row = dict[str, Any]


def heldout_rows(simulated: bool = True) -> list[Row]:
    """Held-out pairs of an ensemble of four, three votes each; some are misjudged."""
    rng = random.Random(0)
    return [_pair(rng, index, simulated) for index in range(NUM_PAIRS)]


def _pair(rng: random.Random, index: int, simulated: bool) -> Row:
    gap = -4.5 if index == WORST else rng.gauss(0.9, 1.2)
    rejected_score = rng.gauss(-0.5, 0.8)
    chosen, rejected = _text(rng, 12), _text(rng, 18)
    if index == WORST:
        chosen, rejected = "keep the bread dry and warm", "keep the bread wet and warm"
    votes = [_vote(rng, index, number, simulated) for number in range(3)]
    for_chosen = sum(vote["prefers"] == "chosen" for vote in votes)
    noise = [rng.gauss(0, 0.6 if gap < 0 else 0.3) for _ in range(4)]
    return {
        "prompt": [{"role": "user", "content": f"Loaf {index // 2}: how do I keep it fresh?"}],
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": rejected_score + gap,
        "rejected_score": rejected_score,
        "p_chosen": (for_chosen + 1) / 5,
        "margin": 1.0 + index % 3 * 0.7,
        "weight": 1.0,
        "item": f"pair-{index}",
        "judgement_ids": [vote["id"] for vote in votes],
        "votes": votes,
        "chosen_shown_first": 2 / 3,
        "num_chosen_tokens": 2 * len(chosen.split()),
        "num_rejected_tokens": 2 * len(rejected.split()),
        "chosen_ended": True,
        "rejected_ended": index % 5 != 0,
        "simulated": simulated,
        "chosen_member_scores": [gap + each for each in noise],
        "rejected_member_scores": [0.0, 0.0, 0.0, 0.0],
    }


def _vote(rng: random.Random, index: int, number: int, simulated: bool) -> Row:
    rater = f"{'simulated' if simulated else 'rater'}-{(index + number) % 5 + 1}"
    prefers = "rejected" if number == 2 and index % 3 == 0 else "chosen"
    return {
        "id": f"judgement-{3 * index + number:05d}",
        "rater": rater,
        "prefers": prefers,
        "strength": rng.choice([1, 2, 3]),
    }


def judgement_rows_of(rows: list[Row]) -> list[Row]:
    """The judgements behind held-out rows, as the ratings stage freezes them."""
    return [
        {
            "id": vote["id"],
            "campaign": "quick",
            "item": row["item"],
            "prompt": row["prompt"],
            "completions": [row["rejected"], row["chosen"]],
            "annotator": f"real name of {vote['rater']}",
            "simulated": row["simulated"],
            "seconds": 12.5,
            "created_at": "2026-01-05T10:00:00+00:00",
            "shown_order": [1, 0],
            "verdict": vote["strength"] * (1 if vote["prefers"] == "chosen" else -1),
            "rationale": "It dries out otherwise." if vote["id"] == "judgement-00021" else None,
        }
        for row in rows
        for vote in row["votes"]
    ]


def write_reward(stage: Path, manifest: Manifest) -> None:
    """Held-out and training pairs, a log with evaluation rows, heads, and the doctor's findings."""
    labels = {"kind": "feedback", "num_labels": 540, "label_ids_sha256": "ab" * 32}
    manifest.provenance = {"data": labels, "doctor": doctor_findings()}
    manifest.metrics = {
        "accuracy": 0.775,
        "accuracy_ci": [0.65, 0.9],
        "n": 40,
        "ece": 0.081,
        "noise_ceiling": 0.86,
        "longer_accuracy": {"value": 0.4, "low": 0.26, "high": 0.55, "n": 40},
    }
    rows = heldout_rows(manifest.simulated)
    write_rows(stage / "heldout.jsonl", rows)
    write_rows(stage / "train_sample.jsonl", [row | {"chosen_score": 5.0} for row in rows])
    write_json(stage / "doctor.json", doctor_findings())
    log: list[Row] = []
    for i in range(1, 15):
        step = {"step": i, "loss": 0.7 - 0.02 * i, "accuracy": 0.5 + 0.02 * i, "margin": 0.05 * i}
        log.append(step)
        if i % 5 == 0:
            log.append({"step": i, "eval_loss": 0.7 - 0.01 * i, "eval_accuracy": 0.5 + 0.01 * i})
    write_json(stage / "log.json", log)


def doctor_findings() -> list[Row]:
    """One finding of each severity."""
    place = "preferences.jsonl:12"
    return [
        {
            "name": "private_email",
            "severity": "warning",
            "count": 1,
            "share": 0.0056,
            "words": "rows that hold an e-mail address",
            "advice": "rlhf clean masks them",
            "data": "training rows",
            "examples": [{"place": "preferences.jsonl:40", "text": EMAIL_EXAMPLE}],
        },
        {
            "name": "too_long",
            "severity": "loss",
            "count": 4,
            "share": 0.0222,
            "words": "rows dropped: longer than max_length",
            "examples": [{"place": place, "text": "how do I keep my very long loaf"}],
        },
        {"name": "near_duplicate", "severity": "note", "count": 2, "share": 0.01, "words": "alike"},
    ]


def write_gate(stage: Path, manifest: Manifest, *, outcome: str) -> None:
    """A gate that `passed`, `failed`, or was `overridden`."""
    failed = outcome != "passed"
    gate = {
        "passed": outcome != "failed",
        "override": {"reason": "A trial run only, <b>nobody</b> uses it."}
        if outcome == "overridden"
        else None,
        "refused_by": ["length_correlation"] if failed else [],
        "simulated": manifest.simulated,
        "reward": {"path": "runs/quickstart/reward", "sha256": "ef" * 32},
        "checks": checks(failed, manifest.simulated),
    }
    write_json(stage / "gate.json", gate)
    manifest.inputs = {"reward": gate["reward"]}
    manifest.metrics = {"passed": gate["passed"], "num_checks": len(gate["checks"])}


def checks(failed: bool, simulated: bool) -> list[Row]:
    """One check of each kind that the page shows in a way of its own."""
    subsets = [
        {"group": "hhh/harmless", "value": 0.62, "low": 0.49, "high": 0.74, "n": 58},
        {"group": "hhh/honest", "value": 0.56, "low": 0.43, "high": 0.68, "n": 61},
    ]
    curves = {
        "score": [_point(n, 0.4 * i, 0.1) for i, n in enumerate((1, 2, 4, 8))],
        "value": [_point(n, 0.2 * i - 0.05 * i * i, 0.1) for i, n in enumerate((1, 2, 4, 8))],
        "words": [_point(n, 20 + 3 * i, 2) for i, n in enumerate((1, 2, 4, 8))],
        "repetition": [_point(n, 0.02 + 0.01 * i, 0.01) for i, n in enumerate((1, 2, 4, 8))],
    }
    source = {"curves": curves, "value_source": "the simulated truth", "simulated": simulated}
    return [
        _check("accuracy", "Held-out accuracy", (0.775, 0.65, 0.9), 0.6, n=40),
        _check(
            "length_correlation",
            "Score gap against length gap",
            (0.55, 0.4, 0.68) if failed else (0.2, 0.1, 0.3),
            0.5,
            passed=not failed,
            rule="within",
            asked="between -0.5 and 0.5",
        ),
        _check("padding", "The same score on any padding", (3e-7, 3e-7, 3e-7), 1e-5, n=16),
        _check("spread", "The spread predicts error", None, 0.6, words="one member: no spread"),
        _check("out_of_domain", "Out of domain", (0.59, 0.5, 0.67), 0.5, n=119, groups=subsets),
        _check(
            "best_of_n_value", "Best-of-n: the true value rises", (0.3, 0.1, 0.5), 0.0, **source
        ),
    ]


def _check(
    name: str,
    title: str,
    numbers: tuple[float, float, float] | None,
    threshold: float,
    *,
    passed: bool = True,
    n: int = 60,
    words: str = "what was measured, in words",
    **details: Any,
) -> Row:
    value, low, high = numbers or (None, None, None)
    return {
        "name": name,
        "title": title,
        "passed": passed if numbers else None,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "threshold": threshold,
        "words": words,
        "details": details,
    }


def _point(n: int, value: float, half: float) -> Row:
    return {"n": n, "value": value, "low": value - half, "high": value + half, "num_prompts": 50}


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _text(rng: random.Random, mean_length: int) -> str:
    return " ".join(rng.choices(_WORDS, k=max(1, round(rng.gauss(mean_length, 4)))))
