"""Crowd-Bradley-Terry: where it has an answer, and which."""

import math
import random

import numpy as np
import pytest
from scipy.optimize import check_grad

from rlhf.feedback.bradley_terry import Preference, _Votes, connectivity, fit


@pytest.mark.parametrize(
    ("pairs", "components", "refused"),
    [
        ([], 0, "nothing was compared"),
        (["ab"], 1, "share no completions"),
        (["ab", "cd", "ef"], 3, "share no completions"),
        (["ab", "bc"], 1, "without a circle"),  # a chain: each difference is free
        (["ab", "bc", "ca"], 1, None),
        (["ab", "bc", "ca", "de"], 2, "1 of 2 groups"),
        (["ab", "ba", "aa"], 1, "share no completions"),  # the same pair again, and no pair
    ],
)
def test_graphs_with_and_without_an_answer(
    pairs: list[str], components: int, refused: str | None
) -> None:
    found = connectivity((one[0], one[1]) for one in pairs)
    assert found.num_components == components
    assert (refused is None and found.refusal is None) or refused in str(found.refusal)


def test_disjoint_pairs_really_are_not_identified() -> None:
    # On one pair, a share of 3/4 for a fits e = 1 with f(s) = 3/4, and e = .75 with f(s) = 1:
    # e f + (1 - e)(1 - f) is 3/4 for both, so no data can tell the two apart.
    for honest, right in ((1.0, 0.75), (0.75, 1.0)):
        assert honest * right + (1 - honest) * (1 - right) == 0.75


def test_gradient_is_the_slope_of_the_loss() -> None:
    chance = np.random.default_rng(0)
    votes = _Votes(
        better=np.array([0, 1, 2, 0, 1, 2]),
        worse=np.array([1, 2, 0, 2, 0, 1]),
        rater=np.array([0, 1, 2, 0, 1, 2]),
        weight=np.array([1, 1, 0.5, 1, 1, 0.5]),
        num_nodes=3,
        num_raters=3,
    )
    for _ in range(5):
        at = chance.normal(size=6)
        assert check_grad(lambda x: votes.loss(x)[0], lambda x: votes.loss(x)[1], at) < 1e-5


def test_loss_by_hand() -> None:
    # scores 0: every vote is 1/2 likely; log-odds 0: the prior takes 6 ln 2 for each of 2 raters
    votes = _Votes(
        better=np.array([0, 1]), worse=np.array([1, 2]), rater=np.array([0, 1]),
        weight=np.ones(2), num_nodes=3, num_raters=2,
    )  # fmt: skip
    assert votes.loss(np.zeros(5))[0] == pytest.approx(2 * math.log(2) + 2 * 6 * math.log(2))


def test_scores_and_raters_are_found_again() -> None:
    chance = random.Random(0)
    truth = {"a": -1.5, "b": -0.5, "c": 0.5, "d": 1.5}
    honest = {"careful": 0.97, "careless": 0.7, "guessing": 0.5}
    said = []
    for rater, e in honest.items():
        for _ in range(600):
            one, other = chance.sample(sorted(truth), 2)
            p = 1 / (1 + math.exp(truth[other] - truth[one]))
            one, other = (one, other) if chance.random() < p else (other, one)
            one, other = (one, other) if chance.random() < e else (other, one)
            said.append(Preference(better=one, worse=other, rater=rater))
    found = fit(said)
    assert sorted(truth, key=truth.__getitem__) == sorted(truth, key=found.score.__getitem__)
    assert found.p_better("d", "a") == pytest.approx(1 / (1 + math.exp(-3)), abs=0.04)
    assert found.reliability == pytest.approx(honest, abs=0.1)


def test_weight_nought_is_as_if_not_there() -> None:
    said = [Preference(better=x[0], worse=x[1], rater="a") for x in ("ab", "bc", "ca", "ab")]
    noise = [Preference(better=x[0], worse=x[1], rater="b") for x in ("ba", "cb", "ba")]
    assert fit([*said, *noise], weights={"b": 0.0}).score == pytest.approx(
        fit(said).score, abs=1e-3
    )


def test_votes_are_predicted_as_plain_bradley_terry_predicts_them() -> None:
    # 3 to 1 and 3 to 1, so 9 to 1 round the corner: choix finds ln 3 and fits all three exactly
    counts = {(0, 1): 300, (1, 0): 100, (1, 2): 300, (2, 1): 100, (0, 2): 360, (2, 0): 40}
    import choix

    plain = choix.ilsr_pairwise(3, [pair for pair, n in counts.items() for _ in range(n)])
    assert plain[0] - plain[1] == pytest.approx(math.log(3), abs=0.01)
    said = [
        Preference(better=a, worse=b, rater="r") for (a, b), n in counts.items() for _ in range(n)
    ]
    found = fit(said)
    honest = found.reliability["r"]  # the priors trade a little of it for larger differences
    for pair, share in (((0, 1), 0.75), ((1, 2), 0.75), ((0, 2), 0.9)):
        p = found.p_better(*pair)
        assert honest * p + (1 - honest) * (1 - p) == pytest.approx(share, abs=0.02)
