"""From judgements to training labels: the votes on each pair summed up, and what was left out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rlhf.feedback.evidence import Evidence
from rlhf.feedback.rules import is_taken_back
from rlhf.feedback.soft_labels import (
    LabelMethod,
    adjudicated_votes,
    counted_votes,
    damaged,
    labels_of,
    smoothed_share,
)
from rlhf.feedback.votes import PairKey, Vote, votes_of
from rlhf.records import Comparison, Demonstration, Judgement, LabelledPair

__all__ = [
    "AggregationReport",
    "Vote",
    "aggregate",
    "aggregate_evidence",
    "demonstrations",
    "smoothed_share",
    "votes_of",
]

_EQUAL = 1e-9


@dataclass(slots=True, kw_only=True)
class AggregationReport:
    """What became of the judgements of a campaign; every pair and vote is in one of the counts.

    `num_votes` votes on pairs (a ranking of k completions casts one on each of its pairs) made
    `num_pairs` pairs; pairs with equal votes, or with completions of the same text, make none.
    `num_checks` judgements (gold, qualification, retest) tell of raters and make no label,
    `num_excluded` are by raters who were excluded; `num_adjudicated` pairs follow an adjudicator.
    """

    num_judgements: int = 0
    num_skipped: int = 0
    num_without_preference: int = 0
    num_repeated: int = 0
    num_votes: int = 0
    num_pairs: int = 0
    num_equal_votes: int = 0
    num_identical: int = 0
    num_simulated: int = 0
    num_checks: int = 0
    num_excluded: int = 0
    num_adjudicated: int = 0

    def as_dict(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


def aggregate(
    comparisons: Iterable[Comparison],
    judgements: Iterable[Judgement],
    *,
    method: LabelMethod = "votes",
    weights: Mapping[str, float] | None = None,
    adjudications: Mapping[str, str] | None = None,
    gold: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[LabelledPair], AggregationReport]:
    """One labelled pair for each pair of completions that more raters decide one way.

    `judgements` are those that stand; of several by one rater on one item the last counts.
    One that was taken back is none. A tie counts half for each side. `margin` is the mean
    strength (0 to 3) in favour of chosen. With another `method` than "votes" the model of
    `labels_of` says which completion is chosen and how sure that is; see there for `weights`,
    `adjudications` (item to judgement id) and `gold`.
    """
    evidence = Evidence(
        comparisons=list(comparisons),
        judgements=list(judgements),
        weights=weights or {},
        adjudications=adjudications or {},
        gold=gold or {},
    )
    return aggregate_evidence(evidence, method=method)


def aggregate_evidence(
    evidence: Evidence, *, method: LabelMethod = "votes"
) -> tuple[list[LabelledPair], AggregationReport]:
    """The labelled pairs of a campaign's evidence (see `aggregate`)."""
    report = _counted(evidence)
    labels = labels_of(evidence, method=method)
    decided = evidence.deciding
    votes: dict[PairKey, list[Vote]] = defaultdict(list)
    for vote in counted_votes(evidence):
        if vote.judgement.item not in decided:
            votes[vote.key].append(vote)
    for key, vote in adjudicated_votes(evidence).items():
        votes[key] = [vote]
    by_item: dict[str, list[PairKey]] = defaultdict(list)
    for key in sorted(votes):
        by_item[key[0]].append(key)
    pairs = []
    for comparison in evidence.comparisons:
        for key in by_item.get(comparison.item, []):
            p_second = labels.p_second[key]
            pairs += _labelled(comparison, votes[key], p_second, evidence, report)
    return pairs, report


def demonstrations(
    comparisons: Iterable[Comparison], judgements: Iterable[Judgement]
) -> Iterator[tuple[Demonstration, Judgement]]:
    """The completions that raters wrote themselves, each with the judgement it came in.

    Empty texts (an erased rewrite, say) demonstrate nothing and are left out.
    """
    items = {comparison.item: comparison for comparison in comparisons}
    for judgement in judgements:
        if judgement.rewrite and judgement.skip is None and judgement.item in items:
            prompt = items[judgement.item].prompt
            yield Demonstration(prompt=prompt, completion=judgement.rewrite), judgement


def _counted(evidence: Evidence) -> AggregationReport:
    """What was said, counted by what becomes of it, before any pair is made."""
    report = AggregationReport()
    deciding = {one.id for one in evidence.deciding.values()}
    seen: set[tuple[str, str]] = set()
    for judgement in evidence.judgements:
        if is_taken_back(judgement):
            continue
        report.num_judgements += 1
        report.num_simulated += judgement.simulated
        if judgement.skip is not None:
            report.num_skipped += 1
        elif judgement.purpose not in ("rate", "adjudication"):
            report.num_checks += 1
        elif not votes_of(judgement):
            report.num_without_preference += 1
        elif judgement.purpose == "rate":
            report.num_excluded += evidence.weight(judgement.annotator) <= 0
            report.num_repeated += (judgement.item, judgement.annotator) in seen
            seen.add((judgement.item, judgement.annotator))
        elif judgement.id in deciding:
            report.num_adjudicated += len(votes_of(judgement))
    return report


def _labelled(
    comparison: Comparison,
    votes: Sequence[Vote],
    p_second: float,
    evidence: Evidence,
    report: AggregationReport,
) -> list[LabelledPair]:
    """The pair that votes on the same two completions make: a list of one, or of none."""
    if votes[0].second >= len(comparison.completions):
        raise damaged(votes[0])
    report.num_votes += len(votes)
    first, second = (comparison.completions[i] for i in (votes[0].first, votes[0].second))
    if first.text == second.text:
        report.num_identical += 1
        return []
    if abs(p_second - 0.5) < _EQUAL:
        report.num_equal_votes += 1
        return []
    report.num_pairs += 1
    chosen, rejected = (second, first) if p_second > 0.5 else (first, second)
    several = len(comparison.completions) > 2
    suffix = f"#{votes[0].first}-{votes[0].second}" if several else ""
    return [
        LabelledPair(
            item=comparison.item + suffix,
            prompt=comparison.prompt,
            chosen=chosen,
            rejected=rejected,
            p_chosen=max(p_second, 1 - p_second),
            margin=max(0.0, (1 if p_second > 0.5 else -1) * _mean_strength(votes, evidence)),
            simulated=any(vote.judgement.simulated for vote in votes),
            judgement_ids=tuple(vote.judgement.id for vote in votes),
        )
    ]


def _mean_strength(votes: Sequence[Vote], evidence: Evidence) -> float:
    """The weighted mean strength; a single word stands, whatever its rater's weight."""
    if len(votes) == 1:
        return float(votes[0].strength)
    scale = [evidence.weight(vote.judgement.annotator) for vote in votes]
    total = sum(one * vote.strength for one, vote in zip(scale, votes, strict=True))
    return total / sum(scale)
