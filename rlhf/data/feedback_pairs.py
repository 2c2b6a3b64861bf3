"""Preference rows out of judgements: the raters' verdicts, summed up per comparison.

The judgements lie in a feedback store, or in files of the interchange format; either way the
same judgements give the same rows in the same order.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.data.losses import DataLosses
from rlhf.errors import DataError
from rlhf.feedback.aggregation import AggregationReport, aggregate_evidence
from rlhf.feedback.agreement import noise_ceiling_estimate, signs_by_pair
from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.exports import pseudonyms
from rlhf.feedback.imports import import_file
from rlhf.feedback.rated_pairs import RatedPairs, rated_pairs
from rlhf.feedback.soft_labels import LabelMethod, labels_of
from rlhf.feedback.store import Store
from rlhf.records import Estimate, Judgement, LabelledPair, content_hash

Row = dict[str, Any]
Labelled = tuple[list[Row], dict[str, Any], DataLosses]

_JUDGEMENT_KEYS = {"prompt", "completions", "annotator", "shown_order"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """How judgements become labels: the model of raters, and whether tied pairs are kept."""

    method: LabelMethod = "votes"
    keep_ties: bool = False


def feedback_rows(location: str, campaign: str, labelling: Labelling) -> Labelled:
    """Rows in TRL's preference format, where they came from, and what was left out.

    Each row also carries the columns of `pair_row`; rows are in the order of their items'
    names. ConfigError when store or campaign is unknown, or the method cannot label these
    comparisons; DataError when no pair can be labelled.
    """
    with Store.open(location) as store:
        evidence = read_evidence(store, campaign)
    origin = {"kind": "feedback", "store": location, "campaign": campaign}
    return _labelled(f"feedback:{location}#{campaign}", evidence, origin, labelling)


def is_judgement(row: Mapping[str, Any]) -> bool:
    """Whether a row is a judgement in the interchange format."""
    return row.keys() >= _JUDGEMENT_KEYS


def judgement_rows(
    paths: Sequence[Path],
    campaigns: set[str],
    name: str,
    labelling: Labelling,
) -> Labelled:
    """The same out of judgement files that hold the one campaign in `campaigns`.

    They pass through a store of their own, so that they are checked, and superseded and
    repeated ones counted, as an import would. DataError when a row breaks the format, when the
    files hold several campaigns, or when no pair can be labelled.
    """
    if len(campaigns) > 1:
        raise DataError(
            f"{name}: judgements of several campaigns ({', '.join(sorted(campaigns))}); give a "
            "file for each, or import it and give feedback:STORE#CAMPAIGN"
        )
    campaign = next(iter(campaigns), None) or Path(name).name.partition(".")[0]
    with tempfile.TemporaryDirectory(prefix="rlhf-judgements-") as folder:
        location = Path(folder) / "feedback.db"
        with Store.open(location, create=True) as store:
            for path in paths:
                import_file(store, path, campaign=campaign)
            evidence = read_evidence(store, campaign)
    return _labelled(name, evidence, {"kind": "judgements", "campaign": campaign}, labelling)


def _labelled(
    name: str, evidence: Evidence, origin: Mapping[str, Any], labelling: Labelling
) -> Labelled:
    pairs, report = aggregate_evidence(
        evidence, method=labelling.method, keep_ties=labelling.keep_ties, with_ratings=True
    )
    losses = _noted(report, labelling.keep_ties)
    if not pairs:
        raise DataError(
            f"{name}: no labelled pair among {report.num_judgements} judgements "
            f"({losses.summary()}); rate more"
        )
    # A store has its items in the order they were put in, a file in the order they were judged.
    pairs.sort(key=lambda pair: pair.item)
    judgements = [*evidence.counted, *evidence.deciding.values()]
    rated, names = rated_pairs(evidence, method=labelling.method), pseudonyms(evidence.judgements)
    made_by = _method_of(evidence, labelling.method, rated, names)
    provenance = {**origin, **made_by, **_labels(pairs, judgements, rated), **report.as_dict()}
    return [pair_row(pair, names) for pair in pairs], provenance, losses


def _method_of(
    evidence: Evidence, method: LabelMethod, rated: RatedPairs, names: Mapping[str, str]
) -> dict[str, Any]:
    """Which model made the labels, why, and how reliable it finds the raters."""
    if method == "votes":
        return {"label_method": "votes"}
    labels = labels_of(evidence, method=method)
    made_by = {
        "label_method": labels.method,
        "why": labels.why,
        "rater_reliability": _named(labels.reliability, names),
    }
    if rated.reliability:
        made_by["rater_reliability_by_criterion"] = {
            criterion: _named(found, names) for criterion, found in rated.reliability.items()
        }
    return made_by


def _named(
    reliability: Mapping[str, Estimate | None], names: Mapping[str, str]
) -> dict[str, dict[str, Any] | None]:
    """Each rater's reliability under their pseudonym."""
    return {
        names[rater]: None if estimate is None else estimate.as_dict()
        for rater, estimate in reliability.items()
        if rater in names
    }


def _noted(report: AggregationReport, keep_ties: bool) -> DataLosses:
    losses = DataLosses()
    for what, count in (
        ("judgements skipped by their rater", report.num_skipped),
        ("judgements without a preference", report.num_without_preference),
        ("judgements that only check their rater", report.num_checks),
        ("judgements by excluded raters", report.num_excluded),
        (f"pairs with equal votes{', kept as ties' * keep_ties}", report.num_equal_votes),
        ("pairs of identical completions", report.num_identical),
    ):
        if count:
            losses.note(what, count)
    return losses


def _labels(
    pairs: Sequence[LabelledPair], judgements: Sequence[Judgement], rated: RatedPairs
) -> dict[str, Any]:
    """Which labels these are: their number, the hash of their ids, how many raters gave them.

    The noise ceiling is of their votes; where completions were rated, of those by the leading
    criterion.
    """
    label_ids = sorted({label for pair in pairs for label in pair.judgement_ids})
    raters = {judgement.annotator: judgement.simulated for judgement in judgements}
    signs = {key: [vote.sign for vote in votes] for key, votes in rated.votes.items()}
    ceiling = noise_ceiling_estimate((signs | signs_by_pair(judgements)).values())
    return {
        "num_labels": len(label_ids),
        "label_ids_sha256": content_hash(label_ids),
        "num_annotators": len(raters),
        "num_simulated_annotators": sum(raters.values()),
        "noise_ceiling": ceiling.value if ceiling else None,
        "noise_ceiling_ci": [ceiling.low, ceiling.high] if ceiling else None,
    }


def pair_row(pair: LabelledPair, names: Mapping[str, str] | None = None) -> Row:
    """A labelled pair as a row of TRL's preference format with our columns beside it.

    `names` gives each rater's pseudonym; without it raters are not named. Beside the labels:
    `weight` of the raters, `group` (the prompt, where the pair is one of several of an item),
    `criteria` ({criterion: p_chosen by it}, where completions were rated), `votes` and
    `chosen_shown_first`.
    """
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
        "weight": pair.weight,
        "group": pair.group,
        "criteria": pair.criteria,
        "votes": [
            {
                "id": vote.id,
                "rater": names[vote.annotator] if names else None,
                "prefers": vote.prefers,
                "strength": vote.strength,
            }
            for vote in pair.votes
        ],
        "chosen_shown_first": pair.chosen_shown_first,
    }
