"""What rounds show in numbers, and what goes wrong in them, in words."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from rlhf.training.online_dpo.samples import Sample

LOGGED = (
    *("num_pairs", "num_ties", "num_identical", "kl", "kl_se", "ended_rate", "completion_length"),
    *("chosen_score", "rejected_score", "empty_rate", "num_judge_failures", "num_order_ties"),
)
"""What of a round's metrics goes into the log, beside its scores."""
LENGTH_RATIO = 1.5
"""A mean length so many times longer or shorter than in round 1 is a change that readers notice."""
MAX_EMPTY = 0.1
"""A tenth of the completions empty: the policy learns to say nothing, or did from the start."""
MAX_REPEATED = 0.5
"""More than half of a round's micro-batches filled with pairs that came already."""


def completion_metrics(samples: Sequence[Sample], kls: Sequence[float]) -> dict[str, float]:
    """Length in tokens, shares that ended and that are empty, and KL in nats a completion.

    `kls` has log p - log p_ref of one completion a prompt, `kl_se` is the standard error of their
    mean (0 for a single one, of which nothing is known).
    """
    values = np.array(kls, dtype=np.float64)
    error = float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
    return {
        "completion_length": float(np.mean([len(sample.ids) for sample in samples])),
        "ended_rate": float(np.mean([sample.ended for sample in samples])),
        "empty_rate": float(np.mean([not sample.text.strip() for sample in samples])),
        "kl": float(values.mean()),
        "kl_se": error,
    }


def mean_of_each(noted: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """The mean of each metric that functions noted, over all processes."""
    names = sorted({name for each in noted for name in each})
    values = {name: [value for each in noted for value in each.get(name, [])] for name in names}
    return {name: float(np.mean(values[name])) for name in names}


def round_line(metrics: Mapping[str, Any], num_rounds: int) -> str:
    """One line for people when a round is labelled."""
    marked = " (SIMULATED labels)" if metrics["simulated"] else ""
    score = f", score {metrics['score']:.3g}{marked}" if "score" in metrics else marked
    return (
        f"round {metrics['round']} of {num_rounds}: {metrics['num_pairs']} pairs of "
        f"{metrics['num_prompts']} prompts, {metrics['num_ties']} ties{score}, KL "
        f"{metrics['kl']:.3g} nats, {metrics['completion_length']:.0f} tokens, "
        f"{metrics['ended_rate']:.0%} ended"
    )


def run_summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest's metrics of the rounds that were begun: the last one's numbers by name, all
    of them under `rounds`, and the warnings.
    """
    rounds = [dict(record["metrics"]) for record in records]
    if not rounds:
        return {"rounds": [], "num_rounds": 0, "warnings": []}
    kept = ("score", "score_se", "kl", "kl_se", "ended_rate", "completion_length")
    found: dict[str, Any] = {name: rounds[-1][name] for name in kept if name in rounds[-1]}
    if "score" in rounds[0]:
        found["score_first"] = rounds[0]["score"]
    for name in ("num_pairs", "num_ties", "num_identical", "num_prompts"):
        found[name] = sum(each[name] for each in rounds)
    return found | {
        "num_rounds": len(rounds),
        "rounds": rounds,
        "warnings": warnings_of(records),
    }


def warnings_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """[{"cause", "step", "words"}]: what the labellers said, and what the rounds show."""
    found = []
    rounds = [record["metrics"] for record in records]
    for record, metrics in zip(records, rounds, strict=True):
        named = [("labelling", words) for words in record["warnings"]]
        for cause, words in [*named, *_of_round(metrics, rounds[0])]:
            text = f"round {metrics['round']}: {words}"
            found.append({"cause": cause, "step": metrics["step"], "words": text})
    if words := _not_rising(rounds):
        found.append({"cause": "score_not_rising", "step": rounds[-1]["step"], "words": words})
    return found


def _of_round(metrics: Mapping[str, Any], first: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(cause, words) of one round."""
    found = []
    if metrics["num_pairs"] == 0:
        found.append(
            (
                "all_ties",
                f"no pair of {metrics['num_prompts']} prompts ({metrics['num_ties']} ties, "
                f"{metrics['num_identical']} identical): nothing was learnt; raise "
                "--num_generations or --temperature, or give a finer source of scores",
            )
        )
    elif metrics["num_repeated"] > MAX_REPEATED * (metrics["num_repeated"] + metrics["num_pairs"]):
        found.append(
            (
                "few_pairs",
                f"{metrics['num_pairs']} pairs of {metrics['num_prompts']} prompts: each came "
                "several times in a pass; raise --num_generations or --temperature",
            )
        )
    before, after = first["completion_length"], metrics["completion_length"]
    if not 1 / LENGTH_RATIO <= after / before <= LENGTH_RATIO:
        found.append(
            (
                "length_drift",
                f"completions went from {before:.0f} tokens in round 1 to {after:.0f}: length "
                "hacking? look at the pairs, or set --length_penalty",
            )
        )
    if metrics["empty_rate"] > MAX_EMPTY:
        found.append(
            ("empty_completions", f"{metrics['empty_rate']:.0%} of the completions are empty")
        )
    return found


def _not_rising(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    if len(rounds) < 2 or "score" not in rounds[0]:
        return None
    first, last = rounds[0], rounds[-1]
    if last["score"] > first["score"]:
        return None
    error = sqrt(first["score_se"] ** 2 + last["score_se"] ** 2)
    marked = " (SIMULATED labels)" if last["simulated"] else ""
    return (
        f"the score{marked} did not rise: {first['score']:.3g} in round 1, {last['score']:.3g} in "
        f"round {len(rounds)} (standard error of the difference {error:.2g}); "
        "raise --learning_rate or --num_generations, or lower --beta"
    )
