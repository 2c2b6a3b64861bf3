"""Soft labels against majority votes, from simulated raters of unequal reliability.

    python benchmarks/soft_labels.py --data FOLDER --json soft_labels.json

**Everything here is simulated.** Prompts and completions are real (the shortest of the HH pairs,
completions cut to two sentences), but what is better is the documented simulated utility, and a
panel of twelve simulated raters, from careful to nearly guessing, judges by it. Their judgements
become labels by the project's own aggregation; on each kind of label `rlhf reward` trains a reward
model (LoRA on a real one), which is judged by the truth on prompts that it has not seen.
"""

import argparse
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from reward_data import add_data_options, hh_pairs, renderer, right
from reward_training import run_stage
from reward_vs_trl import PACKAGES, Remaining, work_folder

from rlhf.data.feedback_pairs import pair_row
from rlhf.data.tokenization import Renderer
from rlhf.evaluation.statistics import mean_estimate
from rlhf.feedback.aggregation import aggregate_evidence
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.simulation import (
    SimulatedRater,
    panel_for,
    simulated_truth,
    simulated_verdict,
)
from rlhf.feedback.store import display_order
from rlhf.manifest import write_json
from rlhf.records import Comparison, Completion, Judgement, Prompt

MAX_PROMPT_TOKENS, MAX_COMPLETION_TOKENS = 48, 40
METHODS = {
    "majority": ("votes", "hard"),
    "votes": ("votes", "soft"),
    "dawid_skene": ("dawid_skene", "soft"),
}
"""Kind of label: how judgements are summed up, and how the stage takes the sum. Hard labels leave
out pairs with as many votes for either side; soft ones keep them, at one half."""

PANEL = tuple(
    SimulatedRater(name=f"simulated-{number:02}", noise=float(noise), lapse_rate=float(lapse))
    for number, (noise, lapse) in enumerate(
        zip(np.geomspace(0.3, 4.0, 12), np.linspace(0.0, 0.3, 12), strict=True)
    )
)
STAGE = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "per_device_eval_batch_size": 32,
    "train_sampling_strategy": "random",
    "max_length": 128,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_options(parser)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--raters", type=int, default=5, help="that judge each item")
    parser.add_argument("--heldout", type=int, default=250, help="pairs of other prompts")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="kinds of label"
    )
    options = parser.parse_args()
    if "majority" not in options.methods:
        parser.error("--methods: the others are compared with majority; name it too")
    if options.seeds < 2:
        parser.error("--seeds: an interval needs at least 2")
    with work_folder(options.work) as folder:
        pool = short_comparisons(options.data, renderer())
        remaining = Remaining(options.seeds * len(options.methods))
        seeds = [
            measure_seed(seed, pool, options, folder, remaining) for seed in range(options.seeds)
        ]
    found = summary(seeds)
    print("\n".join(table(found)))
    if options.json:
        budget = {key: getattr(options, key) for key in ("seeds", "items", "raters", "heldout")}
        write_json(options.json, {"simulated": True, **budget, **found, **machine(PACKAGES)})


def short_comparisons(data: Path, rendered: Renderer) -> list[Comparison]:
    """One comparison for each HH pair whose last question and two answers are short."""
    found: dict[str, Comparison] = {}
    for split in ("train", "eval"):
        for pair in hh_pairs(data, split, rendered).pairs:
            asked = pair.prompt[-1]["content"].strip() + "\n\n"
            texts = [beginning(pair.chosen), beginning(pair.rejected)]
            lengths = [len(rendered.completion_ids(text)) for text in texts]
            fits = len(rendered.prompt_ids(asked)) <= MAX_PROMPT_TOKENS
            fits &= min(lengths) >= 4 and max(lengths) <= MAX_COMPLETION_TOKENS
            if fits and texts[0] != texts[1]:
                found.setdefault(asked, comparison(asked, texts))
    return list(found.values())


def beginning(text: str, num_sentences: int = 2) -> str:
    """The first sentences of a text."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return " ".join(sentences[:num_sentences])


def comparison(asked: str, texts: Sequence[str]) -> Comparison:
    prompt = Prompt(content=asked)
    completions = tuple(Completion(text=text, source="hh", ended=True) for text in texts)
    return Comparison(prompt=prompt, completions=completions, item=prompt.id)


def measure_seed(
    seed: int,
    pool: Sequence[Comparison],
    options: argparse.Namespace,
    folder: Path,
    remaining: Remaining,
) -> dict[str, Any]:
    """One draw of items, raters and weights; what a model of each kind of label comes to."""
    order = np.random.default_rng(seed).permutation(len(pool))
    heldout = [pool[place] for place in order[: options.heldout]]
    items = [pool[place] for place in order[options.heldout :][: options.items]]
    if len(items) < options.items:
        raise SystemExit(f"only {len(items)} short pairs are left to train on; give fewer --items")
    judgements = [one for item in items for one in judged(item, options.raters, seed)]
    evidence = Evidence(comparisons=items, judgements=judgements)
    folder = folder / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    truth_file = write_lines(folder / "heldout.jsonl", truth_rows(heldout))
    found: dict[str, Any] = {"raters": rater_accuracies(items, judgements), "methods": {}}
    for name in options.methods:
        method, labels = METHODS[name]
        remaining.announce(f"seed {seed}, {name}")
        pairs, _ = aggregate_evidence(evidence, method=method, keep_ties=labels == "soft")
        train_file = write_lines(folder / f"{name}.jsonl", [pair_row(pair) for pair in pairs])
        rows = run_stage(folder / name, train_file, truth_file, seed=seed, labels=labels, **STAGE)
        gaps = np.array([row["chosen_score"] - row["rejected_score"] for row in rows])
        found["methods"][name] = judge(gaps) | {
            "num_pairs": len(pairs),
            "label_accuracy": label_accuracy(pairs),
        }
    return found


def judged(item: Comparison, num_raters: int, seed: int) -> list[Judgement]:
    """What the item's raters say of it."""
    found = []
    for rater in panel_for(item.item, PANEL, num_raters, seed=seed):
        order = display_order(seed, item.item, rater.name, 2)
        found.append(
            Judgement(
                id=f"{item.item}/{rater.name}",
                campaign="soft-labels",
                item=item.item,
                annotator=rater.name,
                simulated=True,
                seconds=1.0,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                shown_order=order,
                verdict=simulated_verdict(rater, item, order, seed=seed),
            )
        )
    return found


def advantage(item: Comparison) -> float:
    """How much better the second completion is, in truth."""
    first, second = (simulated_truth(item.prompt, one.text, one.ended) for one in item.completions)
    return second - first


def truth_rows(items: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Held-out pairs with the truly better completion as chosen; equals are left out."""
    rows = []
    for item in items:
        if (better := advantage(item)) == 0:
            continue
        rejected, chosen = item.completions if better > 0 else item.completions[::-1]
        texts = {"prompt": item.prompt.content, "chosen": chosen.text, "rejected": rejected.text}
        ended = {"chosen_ended": chosen.ended, "rejected_ended": rejected.ended}
        rows.append(texts | ended | {"simulated": True})
    return rows


def rater_accuracies(
    items: Sequence[Comparison], judgements: Sequence[Judgement]
) -> dict[str, float]:
    """How often each rater's answer (a tie counts half) agrees with the truth."""
    better = {item.item: np.sign(advantage(item)) for item in items}
    hits: dict[str, list[float]] = {}
    for one in judgements:
        if better[one.item]:
            agreed = (1 + np.sign(one.verdict) * better[one.item]) / 2
            hits.setdefault(one.annotator, []).append(agreed)
    return {name: float(np.mean(values)) for name, values in sorted(hits.items())}


def label_accuracy(pairs: Sequence[Any]) -> float:
    """How often a label's chosen completion is the truly better one, equals left out."""
    gaps = np.array(
        [
            simulated_truth(pair.prompt, pair.chosen.text, True)
            - simulated_truth(pair.prompt, pair.rejected.text, True)
            for pair in pairs
            if pair.p_chosen != 0.5
        ]
    )
    return float((gaps[gaps != 0] > 0).mean())


def judge(gaps: np.ndarray) -> dict[str, float]:
    """Accuracy and log-loss (nats) of gaps [N] of truly better less truly worse."""
    return {
        "accuracy": float(right(gaps).mean()),
        "log_loss": float(np.logaddexp(0, -gaps).mean()),
        "num_heldout": len(gaps),
    }


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and differences from majority labels within seeds, with 95% intervals."""
    methods: dict[str, Any] = {}
    for name in seeds[0]["methods"]:
        methods[name] = {}
        for number in ("accuracy", "log_loss", "label_accuracy"):
            values = [one["methods"][name][number] for one in seeds]
            methods[name][number] = mean_estimate(values).as_dict()
            if name != "majority":
                base = [one["methods"]["majority"][number] for one in seeds]
                difference = mean_estimate(np.subtract(values, base))
                methods[name][f"{number}_minus_majority"] = difference.as_dict()
    return {"methods": methods, "runs": seeds}


def table(found: dict[str, Any]) -> list[str]:
    """The summary as lines for reading."""
    accuracies = [value for one in found["runs"] for value in one["raters"].values()]
    lines = [
        f"SIMULATED: raters agree with the truth in {min(accuracies):.0%} to {max(accuracies):.0%}",
        "labels       label accuracy  held-out accuracy  minus majority (95%)        "
        "log-loss  minus majority (95%)",
    ]
    for name, numbers in found["methods"].items():
        columns = [f"{name:12} {numbers['label_accuracy']['value']:8.3f}      "]
        for number in ("accuracy", "log_loss"):
            columns.append(f"{numbers[number]['value']:8.4f}")
            difference = numbers.get(f"{number}_minus_majority")
            columns.append(f"{_interval(difference):28}")
        lines.append(" ".join(columns))
    return lines


def _interval(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


if __name__ == "__main__":
    main()
