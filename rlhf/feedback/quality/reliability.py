"""What the models say of a campaign's raters, and of the labels they make."""

from collections import Counter
from typing import Any

from rlhf.errors import DataError
from rlhf.feedback.dawid_skene import Fit
from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.soft_labels import (
    SoftLabels,
    comparison_graph,
    counted_votes,
    fit_flags,
    fit_reliability,
    labels_of,
)
from rlhf.feedback.store import Store
from rlhf.records import Estimate

_MODEL = "one-coin Dawid-Skene"
_ONE_RATER = "one rater only: reliability needs a second one, or gold items"
_TWO_RATERS = "two raters only: their agreement is known, not who of them errs"


def reliability_report(store: Store, campaign: str) -> dict[str, Any]:
    """How reliable each rater is, by which model and why, and what the soft labels look like.

    `raters` and each of `flags` hold value, low, high (None where nothing tells of a rater) and
    the number n of answers. `labels` sums up the probabilities, `connectivity` says what was
    compared with what and whether Crowd-Bradley-Terry has an answer. DataError where nothing
    was judged that the models know (comparisons, flags), ConfigError for an unknown campaign.
    """
    return report_on(read_evidence(store, campaign), campaign, where=store.location)


def report_on(evidence: Evidence, campaign: str, *, where: str) -> dict[str, Any]:
    """The same of evidence at hand."""
    comparisons, flags = fit_reliability(evidence), fit_flags(evidence)
    raters = sorted({*comparisons.reliability, *(n for f in flags.values() for n in f.reliability)})
    if not raters:
        raise DataError(
            f"{where}: campaign {campaign!r} has no comparison and no flag whose raters could be "
            "measured; collect ratings first (for ratings of criteria see `agreement`)"
        )
    simulated = evidence.simulated
    num_simulated = sum(simulated.get(name, False) for name in raters)
    labels = labels_of(evidence) if counted_votes(evidence) else None
    return {
        "campaign": campaign,
        "simulated": num_simulated > 0,
        "num_annotators": len(raters),
        "num_simulated_annotators": num_simulated,
        "model": _MODEL,
        "note": _note(evidence, len(raters)),
        "raters": _rows(evidence, comparisons) if comparisons.reliability else [],
        "flags": [
            {"flag": name, "share": fitted.prior, "raters": _rows(evidence, fitted)}
            for name, fitted in flags.items()
        ],
        "connectivity": comparison_graph(evidence).as_dict(),
        "labels": _labels(labels) if labels else None,
    }


def _note(evidence: Evidence, num_raters: int) -> str | None:
    return None if evidence.gold else {1: _ONE_RATER, 2: _TWO_RATERS}.get(num_raters)


def _rows(evidence: Evidence, fitted: Fit[Any]) -> list[dict[str, Any]]:
    counts = Counter(one.annotator for one in evidence.judgements)
    return [
        {
            "name": name,
            "simulated": evidence.simulated[name],
            "weight": evidence.weight(name),
            "num_judgements": counts[name],
            **_numbers(estimate),
        }
        for name, estimate in fitted.reliability.items()
    ]


def _numbers(estimate: Estimate | None) -> dict[str, float | int | None]:
    if estimate is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return dict(estimate.as_dict())


def _labels(labels: SoftLabels) -> dict[str, Any]:
    """How sure the labels are: `num_sure` at 0.9 or more, `num_unsure` under 0.6."""
    sureness = [max(p, 1 - p) for p in labels.p_second.values()]
    return {
        "method": labels.method,
        "why": labels.why,
        "num_pairs": len(sureness),
        "mean_p_chosen": sum(sureness) / len(sureness),
        "num_sure": sum(one >= 0.9 for one in sureness),
        "num_unsure": sum(one < 0.6 for one in sureness),
    }
