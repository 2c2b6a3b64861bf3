"""How sure it is which of two completions is better, by several models of the raters."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.feedback import bradley_terry, dawid_skene
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.votes import (
    PairKey,
    Vote,
    expected_signs,
    last_of_each_rater,
    votes_of,
)
from rlhf.records import Comparison, Estimate

LabelMethod = Literal["votes", "dawid_skene", "crowd_bt", "auto"]
METHODS: tuple[LabelMethod, ...] = get_args(LabelMethod)

ADJUDICATED_P = 0.98
"""How sure the answer of an adjudicator is taken to be: nearly, since a lead may err as well."""

Node = tuple[str, str]  # the prompt's id and the completion's text


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabels:
    """For each judged pair of completions the probability that the second is the better one.

    `method` is the model used and `why` the reason. `reliability` is by one-coin Dawid-Skene
    whichever model makes the labels, and empty for plain votes; None: nothing tells of the rater.
    """

    method: Literal["votes", "dawid_skene", "crowd_bt"]
    why: str
    p_second: dict[PairKey, float]
    reliability: dict[str, Estimate | None]


def smoothed_share(num_for: float, num_votes: float) -> float:
    """The share of votes for one side, drawn towards 1/2: (for + 1) / (votes + 2).

    The posterior mean of the share under a uniform prior (Laplace's rule of succession): one
    vote of one says 2/3, three of three say 4/5, so a label is as sure as its votes make it.
    """
    return (num_for + 1) / (num_votes + 2)


def labels_of(evidence: Evidence, *, method: LabelMethod = "auto") -> SoftLabels:
    """The probability that the second completion is better, for every pair that was voted on.

    Raters' weights scale their votes (0 removes them), an adjudicated item's pairs are
    `ADJUDICATED_P` sure, and answers to gold items tell the models how reliable raters are; only
    ordinary judgements vote. "auto" is Crowd-Bradley-Terry where the graph of comparisons allows
    it, one-coin Dawid-Skene elsewhere; ConfigError for a method that is none, and where
    "crowd_bt" is asked for and the graph does not allow it.

    A tie is half a vote for each side in "votes"; the models leave ties out, since a tie is as
    likely whichever completion is better, and it must not make its rater look unreliable.
    """
    if method not in METHODS:
        raise ConfigError(f"no method {method!r} of labelling{nearest_hint(method, METHODS)}")
    votes = counted_votes(evidence)
    if method == "votes":
        p_second, why = _shares(evidence, votes), "asked for"
        reliability: dict[str, Estimate | None] = {}
        return _labels("votes", why, _adjudicated(evidence, p_second), reliability)
    graph = comparison_graph(evidence)
    if method == "crowd_bt" and graph.refusal:
        raise ConfigError(f"Crowd-Bradley-Terry has no answer here: {graph.refusal}")
    fitted = fit_reliability(evidence)
    p_second = {vote.key: fitted.p_yes.get(vote.key, 0.5) for vote in votes}
    if method == "dawid_skene" or graph.refusal:
        why = "asked for" if method == "dawid_skene" else str(graph.refusal)
        return _labels(
            "dawid_skene", why, _adjudicated(evidence, p_second), fitted.reliability
        )  # fmt: skip
    why = "asked for" if method == "crowd_bt" else "completions are compared in circles"
    scored = _scored(evidence, votes)
    return _labels("crowd_bt", why, _adjudicated(evidence, scored), fitted.reliability)


def counted_votes(evidence: Evidence) -> list[Vote]:
    """The votes that make labels: each rater's last ordinary word on an item, weight above 0."""
    said = last_of_each_rater(one for one in evidence.counted if votes_of(one))
    return [vote for one in said for vote in votes_of(one)]


def adjudicated_votes(evidence: Evidence) -> dict[PairKey, Vote]:
    """What the adjudicators said of each pair of the items that they decided."""
    return {vote.key: vote for one in evidence.deciding.values() for vote in votes_of(one)}


def fit_reliability(evidence: Evidence) -> dawid_skene.Fit[PairKey]:
    """One-coin Dawid-Skene over every decisive vote: ordinary, gold and qualification.

    Gold answers are known, adjudicated ones nearly. The prior that the second completion is
    better is one half, so the order in which completions were written down changes nothing.
    Raters of weight 0 are measured against the labels that the others make.
    """
    asked = [one for one in evidence.judgements if one.purpose in _TELLING and votes_of(one)]
    known: dict[PairKey, float] = {
        key: ADJUDICATED_P if vote.sign > 0 else 1 - ADJUDICATED_P
        for key, vote in adjudicated_votes(evidence).items()
        if vote.sign
    }
    known |= {key: (sign + 1) / 2 for key, sign in expected_signs(evidence.gold).items()}
    answers = [
        dawid_skene.Answer(question=vote.key, rater=vote.judgement.annotator, yes=vote.sign > 0)
        for one in last_of_each_rater(asked)
        for vote in votes_of(one)
        if vote.sign
    ]
    return dawid_skene.fit(answers, known=known, weights=evidence.weights)


def fit_flags(evidence: Evidence) -> dict[str, dawid_skene.Fit[tuple[str, int]]]:
    """For each flag one-coin Dawid-Skene over (item, place of the completion), yes when raised.

    The share of completions with the flag is estimated: flags are rare. Who judged an item and
    named no flag of a completion said no to all of them.
    """
    asked = [one for one in evidence.judgements if one.purpose in _TELLING]
    said = last_of_each_rater(one for one in asked if one.flags is not None and one.skip is None)
    names = sorted({flag for one in said for flags in one.flags or () for flag in flags})
    known = _known_flags(evidence, names)
    return {
        name: dawid_skene.fit(
            [
                dawid_skene.Answer(question=(one.item, at), rater=one.annotator, yes=name in flags)
                for one in said
                for at, flags in enumerate(one.flags or ())
            ],
            known=known[name],
            weights=evidence.weights,
            prior=None,
        )
        for name in names
    }


def comparison_graph(evidence: Evidence) -> bradley_terry.Connectivity:
    """What was compared with what by ordinary decisive votes."""
    nodes = _nodes(evidence.comparisons)
    votes = [vote for vote in counted_votes(evidence) if vote.sign]
    return bradley_terry.connectivity(_ends(nodes, vote) for vote in votes)


_TELLING = ("rate", "gold", "qualification")


def _labels(
    method: Literal["votes", "dawid_skene", "crowd_bt"],
    why: str,
    p_second: dict[PairKey, float],
    reliability: dict[str, Estimate | None],
) -> SoftLabels:
    return SoftLabels(method=method, why=why, p_second=p_second, reliability=reliability)


def _shares(evidence: Evidence, votes: Sequence[Vote]) -> dict[PairKey, float]:
    """The smoothed weighted share of votes for the second completion; a tie is half a vote."""
    for_second: dict[PairKey, float] = defaultdict(float)
    total: dict[PairKey, float] = defaultdict(float)
    for vote in votes:
        weight = evidence.weight(vote.judgement.annotator)
        for_second[vote.key] += weight * (vote.sign + 1) / 2
        total[vote.key] += weight
    return {key: smoothed_share(for_second[key], total[key]) for key in total}


def _scored(evidence: Evidence, votes: Sequence[Vote]) -> dict[PairKey, float]:
    nodes = _nodes(evidence.comparisons)
    preferences = []
    for vote in votes:
        first, second = _ends(nodes, vote)
        if vote.sign and first != second:
            better, worse = (second, first) if vote.sign > 0 else (first, second)
            preferences.append(
                bradley_terry.Preference(better=better, worse=worse, rater=vote.judgement.annotator)
            )
    scores = bradley_terry.fit(preferences, weights=evidence.weights)
    p_second = {}
    for vote in votes:
        first, second = _ends(nodes, vote)
        there = first in scores.score and second in scores.score
        p_second[vote.key] = scores.p_better(second, first) if there else 0.5
    return p_second


def _adjudicated(evidence: Evidence, p_second: dict[PairKey, float]) -> dict[PairKey, float]:
    """The labels with those of decided items put in their place (and gone for a skip)."""
    decided = evidence.deciding.keys()
    kept = {key: p for key, p in p_second.items() if key[0] not in decided}
    for key, vote in adjudicated_votes(evidence).items():
        kept[key] = 0.5 + vote.sign * (ADJUDICATED_P - 0.5)
    return kept


def _known_flags(
    evidence: Evidence, names: Sequence[str]
) -> dict[str, dict[tuple[str, int], float]]:
    """Per flag the completions of which it is known whether they bear it: gold, adjudicated."""
    sources = [
        (item, one.flags, ADJUDICATED_P)
        for item, one in evidence.deciding.items()
        if one.flags is not None
    ]
    sources += [(item, tuple(map(tuple, expected["flags"])), 1.0)
                for item, expected in evidence.gold.items() if "flags" in expected]  # fmt: skip
    known: dict[str, dict[tuple[str, int], float]] = {name: {} for name in names}
    for item, flagged, p in sources:
        for at, flags in enumerate(flagged):
            for name in names:
                known[name][item, at] = p if name in flags else 1 - p
    return known


def _nodes(comparisons: Iterable[Comparison]) -> dict[str, list[Node]]:
    """The nodes of each item's completions: one text under one prompt is one node."""
    return {
        one.item: [(one.prompt.id, completion.text) for completion in one.completions]
        for one in comparisons
    }


def _ends(nodes: Mapping[str, Sequence[Node]], vote: Vote) -> tuple[Node, Node]:
    ends = nodes.get(vote.judgement.item, ())
    if vote.second >= len(ends):
        raise damaged(vote)
    return ends[vote.first], ends[vote.second]


def damaged(vote: Vote) -> DataError:
    """The error of a vote on a completion that its item does not have."""
    return DataError(
        f"judgement {vote.judgement.id!a} ranks more completions than item "
        f"{vote.judgement.item!a} has; the store is damaged: `rlhf feedback check` tells more"
    )
