"""The numbers of a whole campaign: agreement, ceiling, sides, and the truth if it is known."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rlhf.feedback.aggregation import aggregate, aggregate_evidence
from rlhf.feedback.agreement import (
    Agreement,
    noise_ceiling_estimate,
    percent_agreement,
    rater_accuracy,
    signs_by_pair,
)
from rlhf.feedback.evidence import read_evidence
from rlhf.feedback.simulation import (
    SimulatedRater,
    UtilityWeights,
    length_share,
    simulated_truth,
)
from rlhf.feedback.store import Store
from rlhf.records import Comparison, Completion, Judgement, LabelledPair, Prompt


def rating_metrics(store: Store, campaign: str) -> dict[str, Any]:
    """Counts, agreement, estimated rater accuracy, noise ceiling and side share of a campaign.

    `noise_ceiling` is null where agreement is unknown or at chance.
    """
    evidence = read_evidence(store, campaign)
    judgements = evidence.counted
    _, report = aggregate_evidence(evidence)
    progress = store.progress(campaign)
    signs = list(signs_by_pair(judgements).values())
    decisive = percent_agreement(signs, decisive_only=True)
    ceiling = noise_ceiling_estimate(signs)
    return {
        "num_items": progress.num_items,
        "num_complete": progress.num_complete,
        "num_judgements": progress.num_judgements,
        "num_skipped": progress.num_skipped,
        "num_annotators": progress.num_annotators,
        "num_simulated": progress.num_simulated,
        "num_pairs": report.num_pairs,
        "num_equal_votes": report.num_equal_votes,
        "percent_agreement": _agreement(percent_agreement(signs)),
        "decisive_agreement": _agreement(decisive),
        "rater_accuracy": None if decisive.value is None else rater_accuracy(decisive.value),
        "noise_ceiling": None if ceiling is None else ceiling.value,
        "noise_ceiling_ci": None if ceiling is None else [ceiling.low, ceiling.high],
        "side_share": side_share(judgements),
    }


def truth_metrics(
    store: Store, campaign: str, completions: Iterable[tuple[Prompt, Completion]]
) -> dict[str, Any]:
    """How the simulated raters and their labels stand to the known truth.

    `accuracy` is over pairs whose truths differ, a tie counting half. `length_share` is the
    share of the truth's variance over `completions` that their length (in words) explains.
    """
    comparisons = store.comparisons(campaign)
    judgements = [one for one in store.judgements(campaign) if one.simulated]
    truths = {one.item: _difference(one) for one in comparisons if len(one.completions) == 2}
    points = defaultdict(list)
    for judgement in judgements:
        if judgement.verdict is not None and truths[judgement.item]:
            agreed = judgement.verdict * truths[judgement.item]
            points[judgement.annotator].append(0.5 if agreed == 0 else float(agreed > 0))
    pairs, _ = aggregate(comparisons, judgements)
    listed = list(completions)
    utilities = [simulated_truth(prompt, one.text, one.ended) for prompt, one in listed]
    return {
        "raters": {name: _mean(points[name]) for name in sorted(points)},
        "labels": _mean([score for pair in pairs for score in _label_score(pair)]),
        "length_share": length_share(utilities, [len(one.text.split()) for _, one in listed]),
        "num_completions": len(listed),
        "mean_utility": sum(utilities) / len(utilities) if utilities else None,
    }


def truth_settings(panel: Sequence[SimulatedRater]) -> dict[str, Any]:
    """The weights of the truth and the raters of the panel, for the record."""
    return {"weights": asdict(UtilityWeights()), "panel": [asdict(rater) for rater in panel]}


def side_share(judgements: Iterable[Judgement]) -> dict[str, float | int | None]:
    """How often a decisive verdict was for the completion that was shown first."""
    decisive = [one for one in judgements if one.verdict and one.skip is None]
    first = sum((one.verdict or 0) < 0 if one.shown_order[0] == 0 else (one.verdict or 0) > 0
                for one in decisive)  # fmt: skip
    return {"value": first / len(decisive) if decisive else None, "n": len(decisive)}


def _difference(comparison: Comparison) -> float:
    first, second = (
        simulated_truth(comparison.prompt, one.text, one.ended) for one in comparison.completions
    )
    return second - first


def _label_score(pair: LabelledPair) -> list[float]:
    chosen, rejected = (
        simulated_truth(pair.prompt, one.text, one.ended) for one in (pair.chosen, pair.rejected)
    )
    return [] if chosen == rejected else [float(chosen > rejected)]


def _mean(values: Sequence[float]) -> dict[str, float | int | None]:
    return {"accuracy": sum(values) / len(values) if values else None, "n": len(values)}


def _agreement(agreement: Agreement) -> dict[str, float | int | None]:
    return {
        "value": agreement.value,
        "low": agreement.low,
        "high": agreement.high,
        "n": agreement.num_rater_pairs,
    }
