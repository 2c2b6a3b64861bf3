"""How far the raters of a campaign agree, over all and two by two."""

from typing import Any

from rlhf.errors import DataError
from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.quality.chance_corrected import Level, cohen_kappas, krippendorff_alpha
from rlhf.feedback.quality.estimates import share_estimate
from rlhf.feedback.quality.measures import Measure, measures_of, rater_pairs
from rlhf.feedback.store import Store
from rlhf.records import Estimate

LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")


def agreement_report(store: Store, campaign: str, *, seed: int = 0) -> dict[str, Any]:
    """Percent agreement, Krippendorff's alphas and Cohen's kappas of a campaign.

    Over the ordinary judgements (no gold items, no retests) of raters who are not excluded. The
    upper level speaks of the first measure, which it names: the verdict, else the pairs of
    rankings, else the first criterion or flag; `measures` has each. Numbers are None where they
    are undefined, and `note` says why when only one person has judged. DataError where nothing
    was judged, ConfigError where there is no such campaign.
    """
    return report_on(read_evidence(store, campaign), campaign, where=store.location, seed=seed)


def report_on(evidence: Evidence, campaign: str, *, where: str, seed: int = 0) -> dict[str, Any]:
    """The same of evidence at hand."""
    judged = [one for one in evidence.counted if one.skip is None]
    measures = measures_of(judged)
    if not measures:
        raise DataError(
            f"{where}: nothing in campaign {campaign!r} was judged that raters could agree on; "
            "collect ratings first"
        )
    raters = {one.annotator: one.simulated for one in judged}
    numbers = {one.name: measure_agreement(one, seed=seed) for one in measures}
    return {
        "campaign": campaign,
        "simulated": any(raters.values()),
        "num_items": len(evidence.comparisons),
        "num_judged_items": len({one.item for one in judged}),
        "num_judgements": len(judged),
        "num_annotators": len(raters),
        "num_simulated_annotators": sum(raters.values()),
        "num_excluded_annotators": sum(not weight for weight in evidence.weights.values()),
        "note": "one rater only: nobody to agree with" if len(raters) == 1 else None,
        "measure": measures[0].name,
        **numbers[measures[0].name],
        "measures": numbers,
    }


def measure_agreement(measure: Measure, *, seed: int = 0) -> dict[str, Any]:
    """Agreement on one measure: of its categories, and alphas and kappas of its values."""
    categories = measure.categories
    agreement = share_estimate(
        ((unit[0], equal) for unit, _, _, equal in rater_pairs(categories)), seed=seed
    )
    alphas = {
        level: krippendorff_alpha(
            categories if level == "nominal" else measure.table, level, seed=seed
        )
        for level in LEVELS
    }
    return {
        "percent_agreement": agreement.value if agreement else None,
        "percent_agreement_ci": [agreement.low, agreement.high] if agreement else None,
        "krippendorff_alpha": {level: _as_dict(alpha) for level, alpha in alphas.items()},
        "pairs": [
            {
                "a": one.a,
                "b": one.b,
                "n": one.n,
                "percent_agreement": one.agreement,
                "kappa": one.kappa,
                "weighted_kappa": one.weighted,
            }
            for one in cohen_kappas(measure.table, categories)
        ],
    }


def _as_dict(estimate: Estimate | None) -> dict[str, float | int | None]:
    if estimate is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return dict(estimate.as_dict())
