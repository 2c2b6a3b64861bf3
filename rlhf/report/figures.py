"""Which charts a run has material for, and the rows that each one draws."""

import math
from collections.abc import Mapping
from typing import Any

from rlhf.errors import DataError
from rlhf.evaluation.calibration import folded, reliability_bins
from rlhf.evaluation.statistics import wilson
from rlhf.report import charts
from rlhf.report.findings import (
    baseline_of,
    known,
    label_of,
    percent,
    policies_of,
    ranked_policies,
    reward_accuracy,
)
from rlhf.report.reading import Run

Figure = dict[str, Any]


def figures(run: Run) -> dict[str, list[Figure]]:
    """The page's charts by section; a section without material is an empty list.

    A figure has `id`, `title`, `spec` (Vega-Lite), `caption` (the numbers in words, for those
    who cannot see or run the chart) and `simulated`.
    """
    sections = {
        "wins": [win_figure(run)],
        "shape": shape_figures(run),
        "reward": [accuracy_figure(run), reliability_figure(run)],
        "curves": [figure for stage in run.logs for figure in curve_figures(run, stage)],
    }
    return {
        name: [
            {**figure, "id": f"{name}-{index}"} for index, figure in enumerate(filter(None, row))
        ]
        for name, row in sections.items()
    }


def win_figure(run: Run) -> Figure | None:
    """Win rates over the baseline by every judge, with what picking the shorter would win."""
    evaluate, baseline = run.metrics("evaluate"), baseline_of(run)
    rows, simulated = [], False
    for name, policy in ranked_policies(run):
        for judge, rate in (policy.get("judges") or {}).items():
            if known(rate):
                marked = bool(rate.get("simulated"))
                label = f"{label_of(name)}, by {judge}"
                label += " (simulated)" if marked and "simulated" not in judge else ""
                rows.append(_row(label, rate, f"judge: {judge}"))
                simulated |= marked
    for name, rate in (evaluate.get("shorter_baseline") or {}).items():
        if known(rate):
            label = f"always picking the shorter of {label_of(name)} and {label_of(baseline)}"
            rows.append(_row(label, rate, f"picking the shorter, by {rate.get('judge', 'truth')}"))
    if not rows:
        return None
    spec = charts.interval_chart(rows, reference=0.5)
    figure = _figure(f"Win rates over {label_of(baseline)}", spec, rows, simulated)
    against = f"Share of held-out prompts won against {label_of(baseline)}, ties counting half."
    return {**figure, "note": f"{against} Lines are 95% intervals; dashed is no difference."}


def shape_figures(run: Run) -> list[Figure]:
    """Length and share of ended completions, a bar a policy."""
    lengths, endings = [], []
    for name, policy in policies_of(run).items():
        for rows, key in ((lengths, "mean_tokens"), (endings, "ended_rate")):
            if policy.get(key) is not None:
                low, high = policy.get(f"{key}_ci") or (None, None)
                numbers = {"value": policy[key], "low": low, "high": high, "n": policy.get("n")}
                rows.append(_row(label_of(name), numbers, name))
    made = []
    if lengths:
        spec = charts.bar_chart(lengths)
        made.append(_figure("Tokens in a completion (mean)", spec, lengths, False, share=False))
    if endings:
        spec = charts.bar_chart(endings, share=True)
        made.append(_figure("Completions ended by the model itself", spec, endings, False))
    return made


def accuracy_figure(run: Run) -> Figure | None:
    """The reward model's accuracy beside its ceiling, chance, and picking the longer."""
    metrics = run.metrics("reward")
    if metrics.get("accuracy") is None:
        return None
    rows = [_row("the reward model", reward_accuracy(metrics), "measured on held-out pairs")]
    longer = metrics.get("longer_accuracy") or longer_accuracy(run)
    if known(longer):
        rows.append(_row("picking the longer", longer, "measured on held-out pairs"))
        rows.append(_row("picking the shorter", _opposite(longer), "measured on held-out pairs"))
    ceiling = metrics.get("noise_ceiling")
    if ceiling is not None:
        low, high = metrics.get("noise_ceiling_ci") or (None, None)
        numbers = {"value": ceiling, "low": low, "high": high}
        rows.append(_row("ceiling set by the raters' noise", numbers, "estimated"))
    rows.append(_row("chance", {"value": 0.5}, "known"))
    spec = charts.interval_chart(rows, reference=0.5)
    figure = _figure("Accuracy and its ceiling", spec, rows, run.stages["reward"].simulated)
    note = "Share of held-out pairs on which each agrees with the label, with 95% intervals."
    return {**figure, "note": note}


def longer_accuracy(run: Run) -> dict[str, Any] | None:
    """How often the longer completion (in characters) is the chosen one; equal counts half."""
    wins: list[float] = []
    for row in run.heldout:
        chosen, rejected = row.get("chosen"), row.get("rejected")
        if not isinstance(chosen, str) or not isinstance(rejected, str):
            return None
        gap = len(chosen) - len(rejected)
        wins.append(0.5 if gap == 0 else float(gap > 0))
    return wilson(sum(wins), len(wins)).as_dict() if wins else None


def reliability_figure(run: Run) -> Figure | None:
    """The reward model's confidence against how often the label agrees."""
    said, came = [], []
    for row in run.heldout:
        scores = (row.get("chosen_score"), row.get("rejected_score"))
        if not all(isinstance(score, (int, float)) for score in scores):
            return None
        said.append(_sigmoid(scores[0] - scores[1]))
        came.append(1.0)  # the label: chosen is better
    if not said:
        return None
    try:
        bins = reliability_bins(*folded(said, came))
    except DataError:
        return None
    rows = []
    for bin_ in bins:
        label = f"said {percent(bin_.low)} to {percent(bin_.high)}"
        row = _row(label, bin_.observed.as_dict(), "bin")
        rows.append({**row, "said": bin_.mean_probability})
    spec = charts.reliability_chart(rows)
    figure = _figure("Reliability", spec, rows, run.stages["reward"].simulated)
    error = run.metrics("reward").get("ece")
    note = "" if error is None else f" Expected calibration error {error:.3f}."
    dashes = "The dashed line is a model that is as often right as it says."
    return {**figure, "note": f"{dashes}{note}"}


def curve_figures(run: Run, stage: str) -> list[Figure]:
    """A stage's training curves, those that its log has."""
    made = []
    simulated = stage in run.stages and run.stages[stage].simulated
    for title, keys in charts.CURVES.get(stage, charts.CURVES["dpo"]):
        spec = charts.curve_chart(run.logs[stage], keys)
        if spec is None:
            continue
        heading = f"{label_of(stage)}: {title.lower()}"
        caption = f"{title} over {run.logs[stage][-1]['step']} steps of {stage}."
        made.append({"title": heading, "spec": spec, "caption": caption, "simulated": simulated})
    return made


def _row(label: str, numbers: Mapping[str, Any], kind: str) -> dict[str, Any]:
    picked = {key: numbers.get(key) for key in ("value", "low", "high", "n")}
    return {"label": label, "kind": kind, **picked}


def _figure(
    title: str,
    spec: dict[str, Any],
    rows: list[dict[str, Any]],
    simulated: bool,
    share: bool = True,
) -> Figure:
    words = []
    for row in rows:
        show = percent if share else (lambda value: f"{value:.0f}")
        text = f"{row['label']}: {show(row['value'])}"
        if row["low"] is not None and row["high"] is not None:
            text += f" ({show(row['low'])} to {show(row['high'])})"
        words.append(text)
    caption = "; ".join(words) + "."
    return {"title": title, "spec": spec, "caption": caption, "simulated": simulated}


def _opposite(rate: Mapping[str, Any]) -> dict[str, Any]:
    """What always doing the opposite would score: ties count half either way."""
    turned = {"value": 1 - rate["value"], "n": rate.get("n"), "low": None, "high": None}
    if rate.get("low") is not None and rate.get("high") is not None:
        turned |= {"low": 1 - rate["high"], "high": 1 - rate["low"]}
    return turned


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))
