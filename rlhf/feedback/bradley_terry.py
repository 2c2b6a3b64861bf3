"""Labels from a graph of comparisons, with raters of differing reliability: Crowd-Bradley-Terry.

Completion i has a score s_i; rater k says that i is better than j with probability
e_k f(s_i - s_j) + (1 - e_k) f(s_j - s_i), f(x) = 1 / (1 + exp(-x)) (Chen, Bennett,
Collins-Thompson and Horvitz, "Pairwise ranking aggregation in a crowdsourced setting", 2013).

None of the libraries has it. Crowd-kit's NoisyBradleyTerry is another model (a rater who does
not look answers by side), and of version 1.4.2 two derivatives are in the wrong place and the
penalty on the scores has the wrong sign in the objective; choix and evalica know no raters.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlhf.feedback.dawid_skene import PRIOR_RIGHT, PRIOR_WRONG

Floats = NDArray[np.float64]
Node = TypeVar("Node", bound=Hashable)

SCORE_SPREAD = 2.0
"""Standard deviation of the normal prior on scores, which keeps those that always won finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Generic[Node]):
    """One rater's choice between two completions."""

    better: Node
    worse: Node
    rater: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectivity:
    """The graph of what was compared with what: completions are its nodes, judged pairs its edges.

    `refusal` says why Crowd-Bradley-Terry has no answer on this graph; None where it has one.
    """

    num_completions: int
    num_pairs: int
    num_components: int
    num_largest: int
    refusal: str | None

    def as_dict(self) -> dict[str, int | str | None]:
        return {
            "num_completions": self.num_completions,
            "num_pairs": self.num_pairs,
            "num_components": self.num_components,
            "num_largest": self.num_largest,
            "refusal": self.refusal,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Generic[Node]):
    """Scores (comparable within one component only) and how reliable each rater is."""

    score: dict[Node, float]
    reliability: dict[str, float]

    def p_better(self, one: Node, other: Node) -> float:
        """The probability that `one` is better than `other`."""
        return float(_logistic(np.float64(self.score[one] - self.score[other])))


def connectivity(pairs: Iterable[tuple[Node, Node]]) -> Connectivity:
    """What hangs together, and whether scores can be told from reliabilities.

    On pairs that share no completion every score difference is free: a rater who is half as
    reliable and a difference that is larger fit the same votes. The same holds in a chain or
    tree of pairs. Scores bind one another only round a circle, so each component needs one.
    """
    edges = {frozenset(pair) for pair in pairs if pair[0] != pair[1]}
    parent = {node: node for edge in edges for node in edge}
    for edge in edges:
        one, other = (_root(parent, node) for node in edge)
        parent[one] = other
    sizes: dict[Node, int] = {}
    for node in parent:
        sizes[_root(parent, node)] = sizes.get(_root(parent, node), 0) + 1
    num_edges = dict.fromkeys(sizes, 0)
    for edge in edges:
        num_edges[_root(parent, next(iter(edge)))] += 1
    trees = sum(num_edges[root] < sizes[root] for root in sizes)
    return Connectivity(
        num_completions=len(parent),
        num_pairs=len(edges),
        num_components=len(sizes),
        num_largest=max(sizes.values(), default=0),
        refusal=_refusal(trees, len(sizes), max(sizes.values(), default=0)),
    )


def fit(
    preferences: Sequence[Preference[Node]], *, weights: Mapping[str, float] | None = None
) -> Scores[Node]:
    """The most probable scores and reliabilities, scores with a normal prior around 0.

    `weights` (1 unless given) scale a rater's votes. Ask `connectivity` first: where it refuses,
    what comes back is the priors' doing.
    """
    from scipy.optimize import minimize

    nodes = sorted({node for one in preferences for node in (one.better, one.worse)}, key=repr)
    raters = sorted({one.rater for one in preferences})
    node_at = {node: place for place, node in enumerate(nodes)}
    rater_at = {name: place for place, name in enumerate(raters)}
    votes = _Votes(
        better=np.array([node_at[one.better] for one in preferences], dtype=np.int64),
        worse=np.array([node_at[one.worse] for one in preferences], dtype=np.int64),
        rater=np.array([rater_at[one.rater] for one in preferences], dtype=np.int64),
        weight=np.array([(weights or {}).get(one.rater, 1.0) for one in preferences]),
        num_nodes=len(nodes),
        num_raters=len(raters),
    )
    # At scores of 0 the slope is 0 for every rater: begin where the votes, taken plainly, point.
    balance = np.bincount(votes.better, minlength=len(nodes)) - np.bincount(
        votes.worse, minlength=len(nodes)
    )
    start = np.concatenate([0.1 * balance, np.full(len(raters), np.log(PRIOR_RIGHT / PRIOR_WRONG))])
    found = minimize(votes.loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    return Scores(
        score=dict(zip(nodes, found[: len(nodes)].tolist(), strict=True)),
        reliability=dict(zip(raters, _logistic(found[len(nodes) :]).tolist(), strict=True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Votes:
    """Preferences as arrays, one entry a vote."""

    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    rater: NDArray[np.int64]
    weight: Floats
    num_nodes: int
    num_raters: int

    def loss(self, values: Floats) -> tuple[float, Floats]:
        """The negative log posterior and its gradient at scores and log-odds of reliability."""
        scores, log_odds = values[: self.num_nodes], values[self.num_nodes :]
        right = _logistic(scores[self.better] - scores[self.worse])  # [votes]
        honest = _logistic(log_odds)[self.rater]
        likelihood = honest * right + (1 - honest) * (1 - right)
        slope = self.weight * (2 * honest - 1) * right * (1 - right) / likelihood
        lean = self.weight * (2 * right - 1) * honest * (1 - honest) / likelihood
        d_scores = _sums(self.better, slope, self.num_nodes)
        d_scores -= _sums(self.worse, slope, self.num_nodes)
        d_scores -= scores / SCORE_SPREAD**2
        believed = _logistic(log_odds)
        d_odds = _sums(self.rater, lean, self.num_raters)
        d_odds += PRIOR_RIGHT * (1 - believed) - PRIOR_WRONG * believed
        total = float((self.weight * np.log(likelihood)).sum())
        total -= float((scores**2).sum()) / (2 * SCORE_SPREAD**2)
        total -= float(
            (PRIOR_RIGHT * np.logaddexp(0, -log_odds) + PRIOR_WRONG * np.logaddexp(0, log_odds))
            .sum()
        )  # fmt: skip
        return -total, -np.concatenate([d_scores, d_odds])


def _refusal(trees: int, components: int, largest: int) -> str | None:
    if not components:
        return "nothing was compared"
    if not trees:
        return None
    if largest == 2:
        return (
            "the pairs share no completions, so nothing tells a small difference from an "
            "unreliable rater"
        )
    return (
        f"{trees} of {components} groups of completions are joined without a circle, so nothing "
        "tells a small difference from an unreliable rater"
    )


def _sums(places: NDArray[np.int64], values: Floats, number: int) -> Floats:
    return np.asarray(np.bincount(places, weights=values, minlength=number), dtype=np.float64)


def _root(parent: dict[Node, Node], node: Node) -> Node:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _logistic(values: Floats | np.float64) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))))
