"""The table of raters: how much each did, how fast, how reliably, and which way they lean."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.protocols import recorded_protocol
from rlhf.feedback.quality.checks import gold_accuracy, self_consistency
from rlhf.feedback.quality.estimates import beta_estimate, share_estimate
from rlhf.feedback.quality.measures import measures_of, rater_pairs
from rlhf.feedback.soft_labels import fit_reliability
from rlhf.feedback.store import Store
from rlhf.feedback.votes import last_of_each_rater, votes_of
from rlhf.records import Comparison, Estimate, Judgement

CHECKS = ("gold", "qualification")


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterSummary:
    """One rater's line; None wherever there is nothing to tell it from.

    Shares are 0 to 1 with 95% intervals: `gold_accuracy` of gold and qualification items
    answered as expected, `self_consistency` of items answered the same when shown again,
    `agreement` of pairs with another rater who said the same, `reliability` of answers that are
    right by one-coin Dawid-Skene, `side_bias` of decisive answers for what was shown first,
    `length_bias` of those for the longer text, `too_fast_share` of answers under the campaign's
    limit. `num_judged` and `num_skipped` count ordinary items.
    """

    name: str
    simulated: bool
    num_judged: int
    num_skipped: int
    num_gold: int
    gold_accuracy: Estimate | None
    self_consistency: Estimate | None
    agreement: Estimate | None
    reliability: Estimate | None
    side_bias: Estimate | None
    length_bias: Estimate | None
    median_seconds: float | None
    too_fast_share: float | None
    weight: float
    last_at: datetime | None


def rater_table(store: Store, campaign: str) -> list[RaterSummary]:
    """A line for everybody who has judged in a campaign, by name; ConfigError for an unknown one.

    Excluded raters keep their line, measured against those who count.
    """
    found = store.campaign(campaign)
    limit = recorded_protocol(found.task, found.settings).too_fast_s
    return summaries(read_evidence(store, campaign), too_fast_s=limit)


def summaries(evidence: Evidence, *, too_fast_s: float) -> list[RaterSummary]:
    """The same of evidence at hand."""
    said: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in evidence.judgements:
        if judgement.purpose != "adjudication":
            said[judgement.annotator].append(judgement)
    reliability = fit_reliability(evidence).reliability
    agreement = agreement_with_others(evidence)
    items = {one.item: one for one in evidence.comparisons}
    return [
        _summary(
            evidence.weight(name),
            said[name],
            items,
            evidence.gold,
            agreement.get(name),
            reliability.get(name),
            too_fast_s,
        )
        for name in sorted(said)
    ]


def agreement_with_others(evidence: Evidence, *, seed: int = 0) -> dict[str, Estimate | None]:
    """For each rater the share of pairs with another rater, over all units, who said the same.

    Over the first measure of the campaign. The others are those who count; intervals are over
    items.
    """
    ordinary = [one for one in evidence.judgements if one.purpose == "rate"]
    outcomes: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for measure in measures_of(ordinary)[:1]:
        for unit, a, b, equal in rater_pairs(measure.categories):
            for rater, other in ((a, b), (b, a)):
                if evidence.weight(other) > 0:
                    outcomes[rater].append((unit[0], equal))
    return {name: share_estimate(found, seed=seed) for name, found in outcomes.items()}


def side_bias(judgements: Iterable[Judgement]) -> Estimate | None:
    """The share of decisive answers for what was shown first (on the left, or on top).

    Of a ranking the share of its pairs. 1/2 is even: sides are drawn by lot for every rater.
    """
    return _mean_of(_share_of_decisive(one, _places(one)) for one in judgements)


def length_bias(
    judgements: Iterable[Judgement], items: Mapping[str, Comparison]
) -> Estimate | None:
    """The share of decisive answers for the longer text, in characters; equal lengths left out.

    More than half is no proof of a bias: longer completions may be better. Compare raters.
    """
    return _mean_of(
        _share_of_decisive(one, [-float(len(each.text)) for each in items[one.item].completions])
        for one in judgements
        if one.item in items
    )


def _summary(
    weight: float,
    said: Sequence[Judgement],
    items: Mapping[str, Comparison],
    gold: Mapping[str, Mapping[str, Any]],
    agreement: Estimate | None,
    reliability: Estimate | None,
    too_fast_s: float,
) -> RaterSummary:
    ordinary = last_of_each_rater(one for one in said if one.purpose == "rate")
    judged = [one for one in ordinary if one.skip is None]
    checks = last_of_each_rater(one for one in said if one.purpose in CHECKS)
    # 0 s is no time that anybody took: imports and simulated raters have none.
    seconds = [one.seconds for one in said if one.skip is None and one.seconds > 0]
    return RaterSummary(
        name=said[0].annotator,
        simulated=said[0].simulated,
        num_judged=len(judged),
        num_skipped=len(ordinary) - len(judged),
        num_gold=len(checks),
        gold_accuracy=gold_accuracy(checks, gold),
        self_consistency=self_consistency(said),
        agreement=agreement,
        reliability=reliability,
        side_bias=side_bias(judged),
        length_bias=length_bias(judged, items),
        median_seconds=median(seconds) if seconds else None,
        too_fast_share=sum(one < too_fast_s for one in seconds) / len(seconds) if seconds else None,
        weight=weight,
        last_at=max((one.created_at for one in said), default=None),
    )


def _share_of_decisive(judgement: Judgement, places: Sequence[float]) -> float | None:
    """The share of decisive votes won by the completion of the lower place; None without any."""
    outcomes = [
        (places[vote.second] < places[vote.first]) == (vote.sign > 0)
        for vote in votes_of(judgement)
        if vote.sign and places[vote.first] != places[vote.second]
    ]
    return sum(outcomes) / len(outcomes) if outcomes else None


def _places(judgement: Judgement) -> list[float]:
    """For each completion the place at which it was shown, 0 first."""
    order = judgement.shown_order
    return [float(order.index(at)) for at in range(len(order))]


def _mean_of(shares: Iterable[float | None]) -> Estimate | None:
    """The mean of what is there with its Beta interval."""
    there = [one for one in shares if one is not None]
    return beta_estimate(sum(there), len(there))
