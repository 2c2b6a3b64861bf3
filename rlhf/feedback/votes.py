"""Judgements as votes: who said which of two completions is better, and what raters agree on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from rlhf.feedback.rules import is_taken_back
from rlhf.records import Judgement

PairKey = tuple[str, int, int]
"""Two completions that were compared: the item, and their places in it, the lower one first."""


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

    @property
    def key(self) -> PairKey:
        return self.judgement.item, self.first, self.second


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


def last_of_each_rater(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Of several judgements by one rater on one item the last; what was taken back is none."""
    last = {
        (one.item, one.annotator): one for one in judgements if not is_taken_back(one)
    }  # fmt: skip
    return list(last.values())


def ordinary(judgements: Iterable[Judgement]) -> list[Judgement]:
    """The judgements that make labels by themselves: no checks of raters, no adjudications."""
    return [one for one in judgements if one.purpose == "rate"]


def expected_signs(gold: Mapping[str, Mapping[str, object]]) -> dict[PairKey, int]:
    """For each pair of completions in a gold item the sign (-1, 1) of the expected answer.

    Expected ties are left out: the models of raters know only a better and a worse one.
    """
    signs: dict[PairKey, int] = {}
    for item, expected in gold.items():
        verdict, ranking = expected.get("verdict"), expected.get("ranking")
        if isinstance(verdict, int):
            signs[item, 0, 1] = (verdict > 0) - (verdict < 0)
        elif isinstance(ranking, list | tuple):
            for first, second in combinations(range(len(ranking)), 2):
                signs[item, first, second] = (ranking[first] > ranking[second]) - (
                    ranking[first] < ranking[second]
                )
    return {key: sign for key, sign in signs.items() if sign}
