"""Preference rows out of a feedback store: the raters' verdicts, summed up per comparison."""

from collections.abc import Sequence
from typing import Any

from rlhf.data.losses import DataLosses
from rlhf.errors import DataError
from rlhf.feedback.aggregation import AggregationReport, aggregate
from rlhf.feedback.agreement import noise_ceiling_estimate, signs_by_pair
from rlhf.feedback.store import Store
from rlhf.records import Judgement, LabelledPair, content_hash

Row = dict[str, Any]


def feedback_rows(location: str, campaign: str) -> tuple[list[Row], dict[str, Any], DataLosses]:
    """Rows in TRL's preference format, where they came from, and what was left out.

    Each row also carries `p_chosen`, `margin`, `item`, `judgement_ids` and `simulated`.
    ConfigError when store or campaign is unknown, DataError when no pair can be labelled.
    """
    with Store.open(location) as store:
        comparisons, judgements = store.comparisons(campaign), store.judgements(campaign)
    pairs, report = aggregate(comparisons, judgements)
    losses = _noted(report)
    if not pairs:
        raise DataError(
            f"feedback:{location}#{campaign}: no labelled pair among {report.num_judgements} "
            f"judgements ({losses.summary()}); rate more"
        )
    provenance = _provenance(location, campaign, pairs, judgements)
    return [pair_row(pair) for pair in pairs], provenance | report.as_dict(), losses


def _noted(report: AggregationReport) -> DataLosses:
    losses = DataLosses()
    for what, count in (
        ("judgements skipped by their rater", report.num_skipped),
        ("judgements without a preference", report.num_without_preference),
        ("pairs with equal votes", report.num_equal_votes),
        ("pairs of identical completions", report.num_identical),
    ):
        if count:
            losses.note(what, count)
    return losses


def _provenance(
    location: str, campaign: str, pairs: Sequence[LabelledPair], judgements: Sequence[Judgement]
) -> dict[str, Any]:
    """Which labels these are: their number, the hash of their ids, how many raters gave them."""
    label_ids = sorted({label for pair in pairs for label in pair.judgement_ids})
    raters = {judgement.annotator: judgement.simulated for judgement in judgements}
    ceiling = noise_ceiling_estimate(signs_by_pair(judgements).values())
    return {
        "kind": "feedback",
        "store": location,
        "campaign": campaign,
        "num_labels": len(label_ids),
        "label_ids_sha256": content_hash(label_ids),
        "num_annotators": len(raters),
        "num_simulated_annotators": sum(raters.values()),
        "noise_ceiling": ceiling.value if ceiling else None,
        "noise_ceiling_ci": [ceiling.low, ceiling.high] if ceiling else None,
    }


def pair_row(pair: LabelledPair) -> Row:
    """A labelled pair as a row of TRL's preference format with our columns beside it."""
    return {
        "prompt": pair.prompt.content,
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "chosen_ended": pair.chosen.ended,
        "rejected_ended": pair.rejected.ended,
        "p_chosen": pair.p_chosen,
        "margin": pair.margin,
        "simulated": pair.simulated,
        "item": pair.item,
        "judgement_ids": list(pair.judgement_ids),
    }
