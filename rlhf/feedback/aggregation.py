"""From judgements to training labels: the votes on each pair summed up, and what was left out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations

from rlhf.errors import DataError
from rlhf.feedback.rules import is_taken_back
from rlhf.records import Comparison, Demonstration, Judgement, LabelledPair


@dataclass(slots=True, kw_only=True)
class AggregationReport:
    """What became of the judgements of a campaign; every pair and vote is in one of the counts.

    `num_votes` votes on pairs (a ranking of k completions casts one on each of its pairs) made
    `num_pairs` pairs; pairs with equal votes, or with completions of the same text, make none.
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

    def as_dict(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One judgement's preference between two completions of its item.

    `strength` is negative when the completion at `first` is the better one, 0 for a tie.
    """

    first: int
    second: int
    strength: int
    judgement: Judgement

    @property
    def sign(self) -> int:
        return (self.strength > 0) - (self.strength < 0)


def votes_of(judgement: Judgement) -> list[Vote]:
    """The votes in a judgement: one of a verdict, one a pair of a ranking, none of a skip.

    A ranking says who is better, not by how much: its strengths are -1, 0 and 1.
    """
    if judgement.skip is not None:
        return []
    if judgement.verdict is not None:
        return [Vote(first=0, second=1, strength=judgement.verdict, judgement=judgement)]
    ranks = judgement.ranking or ()
    return [
        Vote(
            first=first,
            second=second,
            strength=(ranks[first] > ranks[second]) - (ranks[first] < ranks[second]),
            judgement=judgement,
        )
        for first, second in combinations(range(len(ranks)), 2)
    ]


def smoothed_share(num_for: float, num_votes: int) -> float:
    """The share of votes for one side, drawn towards 1/2: (for + 1) / (votes + 2).

    The posterior mean of the share under a uniform prior (Laplace's rule of succession): one
    vote of one says 2/3, three of three say 4/5, so a label is as sure as its votes make it.
    """
    return (num_for + 1) / (num_votes + 2)


def aggregate(
    comparisons: Iterable[Comparison], judgements: Iterable[Judgement]
) -> tuple[list[LabelledPair], AggregationReport]:
    """One labelled pair for each pair of completions that more raters decide one way.

    `judgements` are those that stand; of several by one rater on one item the last counts.
    One that was taken back is none. A tie counts half for each side. `margin` is the mean
    strength (0 to 3) in favour of chosen.
    """
    report = AggregationReport()
    by_item = _last_of_each_rater(judgements, report)
    pairs = []
    for comparison in comparisons:
        votes = defaultdict(list)
        for judgement in by_item.get(comparison.item, []):
            for vote in votes_of(judgement):
                votes[vote.first, vote.second].append(vote)
        for key in sorted(votes):
            pairs += _labelled(comparison, votes[key], report)
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


def _last_of_each_rater(
    judgements: Iterable[Judgement], report: AggregationReport
) -> dict[str, list[Judgement]]:
    last: dict[tuple[str, str], Judgement] = {}
    for judgement in judgements:
        if is_taken_back(judgement):
            continue
        report.num_judgements += 1
        report.num_simulated += judgement.simulated
        if judgement.skip is not None:
            report.num_skipped += 1
        elif not votes_of(judgement):
            report.num_without_preference += 1
        else:
            report.num_repeated += (judgement.item, judgement.annotator) in last
            last[judgement.item, judgement.annotator] = judgement
    by_item = defaultdict(list)
    for judgement in last.values():
        by_item[judgement.item].append(judgement)
    return by_item


def _labelled(
    comparison: Comparison, votes: Sequence[Vote], report: AggregationReport
) -> list[LabelledPair]:
    """The pair that votes on the same two completions make: a list of one, or of none."""
    if votes[0].second >= len(comparison.completions):
        raise DataError(
            f"judgement {votes[0].judgement.id!a} ranks more completions than item "
            f"{comparison.item!a} has; the store is damaged: `rlhf feedback check` tells more"
        )
    report.num_votes += len(votes)
    first, second = (comparison.completions[i] for i in (votes[0].first, votes[0].second))
    balance = sum(vote.sign for vote in votes)  # votes for second minus votes for first
    if first.text == second.text:
        report.num_identical += 1
        return []
    if balance == 0:
        report.num_equal_votes += 1
        return []
    report.num_pairs += 1
    chosen, rejected = (second, first) if balance > 0 else (first, second)
    towards = 1 if balance > 0 else -1
    several = len(comparison.completions) > 2
    suffix = f"#{votes[0].first}-{votes[0].second}" if several else ""
    return [
        LabelledPair(
            item=comparison.item + suffix,
            prompt=comparison.prompt,
            chosen=chosen,
            rejected=rejected,
            p_chosen=smoothed_share((len(votes) + abs(balance)) / 2, len(votes)),
            margin=max(0.0, towards * sum(vote.strength for vote in votes) / len(votes)),
            simulated=any(vote.judgement.simulated for vote in votes),
            judgement_ids=tuple(vote.judgement.id for vote in votes),
        )
    ]
