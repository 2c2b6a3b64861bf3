"""The reward model's charts: how often it is right, among which pairs, and how sure it may be."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhf.evaluation.gate.accuracy import (
    accuracy_of,
    group_row,
    length_difference_check,
    rater_check,
    strength_check,
)
from rlhf.evaluation.gate.biases import longer_right
from rlhf.evaluation.gate.calibration import diagram, fit_temperature, gap_ece, half_by_prompt
from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.evaluation.gate.spread import spread_check
from rlhf.evaluation.win_rate import share_of_wins
from rlhf.records import content_hash
from rlhf.report import charts, reward_charts
from rlhf.report.drawing import Figure, figure, reward_accuracy, row_of
from rlhf.report.pairs import heldout_pairs, train_pairs
from rlhf.report.reading import Run
from rlhf.report.wording import known, percent

MAX_RATERS = 20
_NUM_SPREAD_BINS = 5
_FEWEST_A_BIN = 10
_HELD_OUT = "measured on held-out pairs"


def reward_figures(run: Run) -> list[Figure]:
    """The charts that the run has material for, the most important first."""
    everything = heldout_pairs(run)
    if everything is None or not len(pairs := everything.decided):
        return [drawn for drawn in [accuracy_figure(run, None)] if drawn]
    drawn = [
        accuracy_figure(run, pairs),
        reliability_figure(everything),
        *strength_figures(pairs),
        length_figure(pairs),
        rater_figure(pairs),
        heads_figure(run),
        spread_figure(pairs),
        score_figure(pairs),
    ]
    return [each for each in drawn if each]


def accuracy_figure(run: Run, pairs: ScoredPairs | None) -> Figure | None:
    """Its accuracy beside that on its training pairs, its ceiling, chance, and length alone."""
    metrics = run.metrics("reward")
    if metrics.get("accuracy") is None:
        return None
    rows = [row_of("the reward model", reward_accuracy(metrics), _HELD_OUT)]
    trained_on = train_pairs(run)
    if trained_on is not None and len(trained_on.decided):
        found = accuracy_of(trained_on.decided).as_dict()
        rows.append(row_of("on its training pairs", found, "measured in training"))
    # By the gate's lengths, so that one page has one number; the stage's own where no pairs are.
    longer = _longer(pairs) or metrics.get("longer_accuracy")
    if known(longer):
        unit = f" (in {pairs.length_unit})" if pairs is not None else ""
        rows.append(row_of(f"picking the longer{unit}", longer, _HELD_OUT))
        rows.append(row_of(f"picking the shorter{unit}", _opposite(longer), _HELD_OUT))
    ceiling = metrics.get("noise_ceiling")
    if ceiling is not None:
        low, high = metrics.get("noise_ceiling_ci") or (None, None)
        numbers = {"value": ceiling, "low": low, "high": high}
        rows.append(row_of("ceiling set by the raters' noise", numbers, "estimated"))
    rows.append(row_of("chance", {"value": 0.5}, "known"))
    spec = charts.interval_chart(rows, reference=0.5)
    drawn = figure("Accuracy and its ceiling", spec, rows, run.is_simulated("reward"))
    note = "Share of pairs on which each agrees with the label, with 95% intervals."
    if trained_on is not None:
        note += " Far more on the pairs that it was trained on means that it learnt them by heart."
    return {**drawn, "note": note}


def reliability_figure(pairs: ScoredPairs) -> Figure | None:
    """Confidence against how often the label agrees, a tie counting half.

    With a temperature fitted on half of the prompts, before and after it on the other half.
    """
    fitted = half_by_prompt(pairs)
    temperature = fit_temperature(pairs.gaps[fitted], pairs.outcomes[fitted])
    rest = ~fitted
    if not np.isfinite(temperature) or not rest.any():
        gaps, outcomes = pairs.gaps, pairs.outcomes
        told = {"as it is": gaps}
        note = f" Expected calibration error {gap_ece(gaps, outcomes):.3f}, n={len(gaps)}."
    else:
        gaps, outcomes = pairs.gaps[rest], pairs.outcomes[rest]
        told = {"as it is": gaps, f"at temperature {temperature:.2f}": gaps / temperature}
        before, after = (gap_ece(each, outcomes) for each in told.values())
        note = (
            f" On one half of the prompts (n={len(gaps)}) the expected calibration error is "
            f"{before:.3f}; with the temperature that fits the other half best it is {after:.3f}."
        )
    rows = []
    for kind, scaled in told.items():
        for bin_ in diagram(scaled, outcomes):
            label = f"{kind}, said {percent(bin_['low'])} to {percent(bin_['high'])}"
            said = {"said": bin_["mean_probability"]}
            rows.append(row_of(label, bin_["observed"], kind) | said)
    labels = "the raters' probability" if pairs.is_soft else "the label"
    dashes = f"The dashed line is a model that is right as often as it says, against {labels}."
    drawn = figure("Reliability", reward_charts.reliability_chart(rows), rows, pairs.simulated)
    return {**drawn, "note": dashes + note}


def strength_figures(pairs: ScoredPairs) -> list[Figure | None]:
    """Accuracy by how clear the label is: by its probability, and by the raters' strength."""
    details = strength_check(pairs, None, 1).details
    by_p = _named(details.get("by_p_chosen") or [], "p_chosen", "probability")
    by_margin = _named(details.get("by_margin") or [], "margin", "strength")
    return [
        _groups_figure(
            "Accuracy by how sure the label is",
            by_p,
            pairs,
            "By the label's probability that the chosen one is better.",
        ),
        _groups_figure(
            "Accuracy by strength of preference",
            by_margin,
            pairs,
            "By the raters' mean strength: 1 slightly, 2 better, 3 much better.",
        ),
    ]


def length_figure(pairs: ScoredPairs) -> Figure | None:
    """Accuracy by how much longer or shorter the chosen completion is."""
    groups = length_difference_check(pairs, None, 1).details["groups"]
    note = (
        f"In {pairs.length_unit}: about equal is within a tenth of the longer one, much is more "
        "than half. A model of length alone is right at one end and wrong at the other."
    )
    return _groups_figure("Accuracy by length difference", groups, pairs, note)


def rater_figure(pairs: ScoredPairs) -> Figure | None:
    """How often it sides with each rater's own votes, ties left out; the busiest raters."""
    groups = rater_check(pairs, None, 1).details.get("groups", [])
    busiest = sorted(groups, key=lambda group: -group["n"])[:MAX_RATERS]
    shown = [group for group in groups if group in busiest]
    note = "Share of each rater's votes, under a pseudonym, that the scores agree with; ties apart."
    if len(groups) > len(shown):
        note += f" The {len(shown)} of {len(groups)} raters with the most votes."
    return _groups_figure("Agreement with each rater", shown, pairs, note)


def heads_figure(run: Run) -> Figure | None:
    """Accuracy of each head of a reward model of several criteria, by that criterion's labels.

    Over the pairs on which that criterion favours a side, be it the rejected one; equal scores
    count half.
    """
    results: dict[str, list[tuple[float, str]]] = {}
    for row in run.heldout:
        labels = row.get("criteria") or {}
        for name, (chosen, rejected) in _head_scores(row).items():
            if labels.get(name) not in (None, 0.5):
                gap = (chosen - rejected) * (1 if labels[name] > 0.5 else -1)
                right = 0.5 if gap == 0 else float(gap > 0)
                results.setdefault(name, []).append((right, content_hash(row["prompt"])))
    rows = []
    for name, told in results.items():
        results_of = np.array([right for right, _ in told])
        found = share_of_wins(results_of, clusters=[prompt for _, prompt in told]).as_dict()
        rows.append(row_of(name, found, "head"))
    if not rows:
        return None
    spec = charts.interval_chart(rows, reference=0.5)
    drawn = figure("Accuracy by criterion", spec, rows, run.is_simulated("reward"))
    return {**drawn, "note": "Each head against its own criterion's labels, with 95% intervals."}


def _head_scores(row: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Each head's scores of a pair's chosen and its rejected completion."""
    chosen, rejected = (row.get(f"{side}_head_scores") for side in ("chosen", "rejected"))
    if not isinstance(chosen, dict) or not isinstance(rejected, dict):
        return {}
    return {name: (chosen[name], rejected[name]) for name in chosen if name in rejected}


def spread_figure(pairs: ScoredPairs) -> Figure | None:
    """How often the ensemble is wrong where its members agree, and where they do not."""
    if pairs.member_gaps is None:
        return None
    spread = pairs.member_gaps.std(axis=0)  # [N]
    num_bins = max(1, min(_NUM_SPREAD_BINS, len(pairs) // _FEWEST_A_BIN))
    edges = np.quantile(spread, np.linspace(0, 1, num_bins + 1))
    index = np.searchsorted(edges[1:-1], spread, side="left")
    rows = []
    for number in range(num_bins):
        inside = index == number
        if inside.any():
            label = f"spread {spread[inside].min():.2f} to {spread[inside].max():.2f}"
            wrong = _opposite(group_row(pairs, inside, label))
            rows.append(row_of(label, wrong, "wrong"))
    spec = charts.interval_chart(rows, reference=float(1 - pairs.right.mean()))
    note = (
        f"Share of pairs that it gets wrong, by how far its {len(pairs.member_gaps)} members "
        f"disagree; dashed is the share of all. {spread_words(pairs)}"
    )
    title = "Mistakes by the ensemble's spread"
    return {**figure(title, spec, rows, pairs.simulated), "note": note}


def spread_words(pairs: ScoredPairs) -> str:
    """Whether the spread predicts mistakes, with its AUROC; empty without an ensemble."""
    if pairs.member_gaps is None or not len(pairs):
        return ""
    check = spread_check(pairs, None, 0)
    if check.value is None:
        return f"Whether the ensemble's spread predicts mistakes is unknown: {check.words}."
    told = f"AUROC {check.value:.2f}"
    if check.low is None or check.high is None:
        return (
            f"{told}, n={check.n}: too few to say whether the ensemble's spread predicts mistakes."
        )
    told += f" (95% interval {check.low:.2f} to {check.high:.2f}, n={check.n})"
    if check.low > 0.5:
        return f"The ensemble's spread predicts mistakes: {told}; 0.5 is chance."
    silent = "This run does not show that the ensemble's spread predicts mistakes"
    return f"{silent}: {told}; 0.5 is chance."


def score_figure(pairs: ScoredPairs) -> Figure:
    """How the scores of chosen and rejected completions lie."""
    sides = {"chosen": pairs.chosen_scores, "rejected": pairs.rejected_scores}
    bins = reward_charts.histogram({side: scores.tolist() for side, scores in sides.items()})
    caption = "; ".join(
        f"{side}: mean {scores.mean():.2f}, standard deviation {scores.std():.2f}, n={len(scores)}"
        for side, scores in sides.items()
    )
    return {
        "title": "Scores of chosen and rejected completions",
        "spec": reward_charts.score_chart(bins),
        "caption": f"{caption}.",
        "note": f"{caption}.",
        "simulated": pairs.simulated,
    }


def _groups_figure(
    title: str, groups: list[dict[str, Any]], pairs: ScoredPairs, note: str
) -> Figure | None:
    rows = [row_of(str(group["group"]), group, "group") for group in groups]
    if not rows:
        return None
    drawn = figure(title, charts.interval_chart(rows, reference=0.5), rows, pairs.simulated)
    return {**drawn, "note": f"{note} Lines are 95% intervals; dashed is chance."}


def _named(groups: list[dict[str, Any]], column: str, word: str) -> list[dict[str, Any]]:
    """The gate's bins under a reader's word, short enough for a phone."""
    named = []
    for group in groups:
        text = str(group["group"]).replace(column, word)
        text = text.replace(" over ", " ").replace(" up to ", " to ") if " up to " in text else text
        named.append({**group, "group": text})
    return named


def _longer(pairs: ScoredPairs | None) -> dict[str, Any] | None:
    """How often the longer completion is the chosen one; equal counts half."""
    if pairs is None:
        return None
    return share_of_wins(longer_right(pairs), clusters=pairs.prompts).as_dict()


def _opposite(rate: Mapping[str, Any]) -> dict[str, Any]:
    """What always doing the opposite would score: ties count half either way."""
    turned = {"value": 1 - rate["value"], "n": rate.get("n"), "low": None, "high": None}
    if rate.get("low") is not None and rate.get("high") is not None:
        turned |= {"low": 1 - rate["high"], "high": 1 - rate["low"]}
    return turned
