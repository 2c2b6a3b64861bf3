"""From judgements to training labels: the votes on each pair summed up, and what was left out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from rlhf.feedback.evidence import Evidence
from rlhf.feedback.rated_pairs import RatedPairs, rated_pairs
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
from rlhf.records import Comparison, Demonstration, Judgement, LabelledPair, PairVote

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
    evidence: Evidence,
    *,
    method: LabelMethod = "votes",
    keep_ties: bool = False,
    with_ratings: bool = False,
) -> tuple[list[LabelledPair], AggregationReport]:
    """The labelled pairs of a campaign's evidence (see `aggregate`).

    With `keep_ties` pairs with equal votes are made too, at p_chosen 0.5 and margin 0 (and
    counted as they are without). With `with_ratings` pairs get p_chosen by each criterion that
    was rated, and ratings alone make pairs, labelled by their leading criterion (see
    `rated_pairs` for what `method` means there).
    """
    rated = RatedPairs(p_second={}, votes={})
    if with_ratings:
        rated = rated_pairs(evidence, method=method)
    report = _counted(evidence, with_ratings)
    labels = labels_of(evidence, method=method)
    decided = evidence.deciding
    votes: dict[PairKey, list[Vote]] = defaultdict(list)
    for vote in counted_votes(evidence):
        if vote.judgement.item not in decided:
            votes[vote.key].append(vote)
    for key, vote in adjudicated_votes(evidence).items():
        votes[key] = [vote]
    p_second = {key: rated.overall(key) for key in rated.votes} | labels.p_second
    votes = rated.votes | votes
    by_item: dict[str, list[PairKey]] = defaultdict(list)
    for key in sorted(votes):
        by_item[key[0]].append(key)
    pairs = []
    for comparison in evidence.comparisons:
        for key in by_item.get(comparison.item, []):
            made = _labelled(comparison, votes[key], p_second[key], evidence, report, keep_ties)
            pairs += [_with_criteria(pair, comparison, key, rated) for pair in made]
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


def _counted(evidence: Evidence, with_ratings: bool) -> AggregationReport:
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
        elif not votes_of(judgement) and not (with_ratings and judgement.ratings):
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
    keep_ties: bool,
) -> list[LabelledPair]:
    """The pair that votes on the same two completions make: a list of one, or of none."""
    if votes[0].second >= len(comparison.completions):
        raise damaged(votes[0])
    report.num_votes += len(votes)
    first, second = (comparison.completions[i] for i in (votes[0].first, votes[0].second))
    if first.text == second.text:
        report.num_identical += 1
        return []
    tied = abs(p_second - 0.5) < _EQUAL
    report.num_equal_votes += tied
    if tied and not keep_ties:
        return []
    report.num_pairs += not tied
    towards = 1 if p_second > 0.5 and not tied else -1
    chosen, rejected = (second, first) if towards > 0 else (first, second)
    several = len(comparison.completions) > 2
    suffix = f"#{votes[0].first}-{votes[0].second}" if several else ""
    return [
        LabelledPair(
            item=comparison.item + suffix,
            prompt=comparison.prompt,
            chosen=chosen,
            rejected=rejected,
            p_chosen=0.5 if tied else max(p_second, 1 - p_second),
            margin=0.0 if tied else max(0.0, towards * _mean_strength(votes, evidence)),
            simulated=any(vote.judgement.simulated for vote in votes),
            judgement_ids=tuple(vote.judgement.id for vote in votes),
            weight=_mean_weight(votes, evidence),
            group=comparison.prompt.id if several else None,
            votes=tuple(_said(vote, towards) for vote in votes),
            chosen_shown_first=_shown_first(votes, towards),
        )
    ]


def _with_criteria(
    pair: LabelledPair, comparison: Comparison, key: PairKey, rated: RatedPairs
) -> LabelledPair:
    """The pair with p_chosen by each criterion that was rated, if any was."""
    by_criterion = rated.p_second.get(key)
    if not by_criterion:
        return pair
    is_second = pair.chosen.text == comparison.completions[key[2]].text
    p_chosen = {name: p if is_second else 1 - p for name, p in by_criterion.items()}
    return replace(pair, criteria=p_chosen)


def _said(vote: Vote, towards: int) -> PairVote:
    """A vote as a word on the pair, `towards` being the sign of votes for chosen."""
    side = vote.sign * towards
    prefers: Literal["chosen", "rejected", "tie"] = (
        "chosen" if side > 0 else "rejected" if side < 0 else "tie"
    )
    judgement = vote.judgement
    return PairVote(
        id=judgement.id,
        annotator=judgement.annotator,
        prefers=prefers,
        strength=float(abs(vote.strength)),
    )


def _shown_first(votes: Sequence[Vote], towards: int) -> float | None:
    """The share of votes at which chosen stood before rejected on the screen; None: unknown."""
    first = []
    for vote in votes:
        order = vote.judgement.shown_order
        if vote.first in order and vote.second in order:
            second_leads = order.index(vote.second) < order.index(vote.first)
            first.append(second_leads == (towards > 0))
    return sum(first) / len(first) if first else None


def _mean_weight(votes: Sequence[Vote], evidence: Evidence) -> float:
    """The mean weight of the raters behind a pair; an adjudicator's word counts whole."""
    scale = [
        1.0
        if vote.judgement.purpose == "adjudication"
        else evidence.weight(vote.judgement.annotator)
        for vote in votes
    ]
    return sum(scale) / len(scale)


def _mean_strength(votes: Sequence[Vote], evidence: Evidence) -> float:
    """The weighted mean strength; a single word stands, whatever its rater's weight."""
    if len(votes) == 1:
        return float(votes[0].strength)
    scale = [evidence.weight(vote.judgement.annotator) for vote in votes]
    total = sum(one * vote.strength for one, vote in zip(scale, votes, strict=True))
    return total / sum(scale)
