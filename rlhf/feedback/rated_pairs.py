"""Pairs out of ratings: of two completions of an item, the one that was rated higher is better."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rlhf.feedback import dawid_skene
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.soft_labels import ADJUDICATED_P, LabelMethod, smoothed_share
from rlhf.feedback.votes import PairKey, Vote, last_of_each_rater
from rlhf.records import Estimate, Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPairs:
    """For each pair of completions that some rater rated both: what was said of it.

    `p_second` holds for each criterion the probability that the second is the better one by it,
    `votes` the raters' preferences by the pair's leading criterion: the campaign's first one, as
    judgements name them, or the first that anybody rated both completions by. `reliability` holds
    for each criterion how reliable the model finds each rater by it; empty for plain votes.
    """

    p_second: dict[PairKey, dict[str, float]]
    votes: dict[PairKey, list[Vote]]
    reliability: dict[str, dict[str, Estimate | None]] = field(default_factory=dict)

    def overall(self, key: PairKey) -> float:
        """How likely a pair's second completion is the better one, by its leading criterion."""
        return next(iter(self.p_second[key].values()))


def rated_pairs(evidence: Evidence, *, method: LabelMethod = "votes") -> RatedPairs:
    """The pairs that ratings tell of, labelled as votes on pairs are.

    By each criterion a rater votes for the completion that they rated higher; equal ratings are
    a tie, half a vote for each side. Raters' weights scale their votes, and an adjudicated
    item's pairs are `ADJUDICATED_P` sure, whatever else was said of it. With "dawid_skene" (and
    "auto") each criterion has a model of the raters of its own, which leaves ties out; with
    "crowd_bt", which knows no criteria, the votes count.
    """
    deciding = {item: one for item, one in evidence.deciding.items() if one.ratings}
    said = [
        one
        for one in last_of_each_rater(one for one in evidence.counted if one.ratings)
        if one.item not in evidence.deciding and one.skip is None
    ]
    by_model = method in ("dawid_skene", "auto")
    made = RatedPairs(p_second={}, votes={})
    for criterion in criteria_of([*said, *deciding.values()]):
        by_pair = _by_pair(said, criterion)
        if by_model:
            fitted = _fitted(by_pair, evidence)
            made.reliability[criterion] = fitted.reliability
            p_second = {key: fitted.p_yes.get(key, 0.5) for key in by_pair}
        else:
            p_second = {key: _share(votes, evidence) for key, votes in by_pair.items()}
        for key, votes in by_pair.items():
            _add(made, key, criterion, p_second[key], votes)
        for key, votes in _by_pair(deciding.values(), criterion).items():
            p_decided = 0.5 + votes[0].sign * (ADJUDICATED_P - 0.5)
            _add(made, key, criterion, p_decided, votes)
    return made


def _share(votes: Sequence[Vote], evidence: Evidence) -> float:
    """The smoothed weighted share of a pair's votes for its second completion."""
    weights = [evidence.weight(vote.judgement.annotator) for vote in votes]
    for_second = sum(
        weight * (vote.sign + 1) / 2 for weight, vote in zip(weights, votes, strict=True)
    )
    return smoothed_share(for_second, sum(weights))


def _fitted(
    by_pair: Mapping[PairKey, Sequence[Vote]], evidence: Evidence
) -> dawid_skene.Fit[PairKey]:
    """One-coin Dawid-Skene over the decisive votes by one criterion."""
    answers = [
        dawid_skene.Answer(question=key, rater=vote.judgement.annotator, yes=vote.sign > 0)
        for key, votes in by_pair.items()
        for vote in votes
        if vote.sign
    ]
    return dawid_skene.fit(answers, weights=evidence.weights)


def criteria_of(judgements: Iterable[Judgement]) -> list[str]:
    """The criteria that judgements rate by, in the order in which they name them."""
    ordered = sorted(judgements, key=lambda one: (one.item, one.annotator, one.id))
    return list(dict.fromkeys(name for one in ordered for name in one.ratings or {}))


def _add(
    made: RatedPairs, key: PairKey, criterion: str, p_second: float, votes: Sequence[Vote]
) -> None:
    made.p_second.setdefault(key, {})[criterion] = p_second
    made.votes.setdefault(key, list(votes))


def _by_pair(judgements: Iterable[Judgement], criterion: str) -> dict[PairKey, list[Vote]]:
    """What each rater prefers of each pair of completions that they rated by a criterion."""
    votes: dict[PairKey, list[Vote]] = defaultdict(list)
    for one in judgements:
        values = (one.ratings or {}).get(criterion) or ()
        for (first, low), (second, high) in combinations(enumerate(values), 2):
            if low is not None and high is not None:
                strength = (high > low) - (high < low)
                vote = Vote(first=first, second=second, strength=strength, judgement=one)
                votes[vote.key].append(vote)
    return votes
