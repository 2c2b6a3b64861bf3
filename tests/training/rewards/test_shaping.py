"""The pure functions that shape a score, with numbers worked out by hand."""

from math import nan

import torch

from rlhf.models.scores import Scores
from rlhf.training.rewards.shaping import (
    clipped,
    distance_from_mean,
    ensemble_score,
    normalized,
    penalties,
    weighted_sum,
)
from tests.training.rewards.scored import (
    scores_of,
)


def test_an_ensemble_is_its_mean_less_k_deviations():
    # Members 1 and 3: mean 2, each 1 away from it, so the deviation (divided by K) is 1.
    scores = scores_of([1.0, 5.0], [3.0, 5.0])
    assert ensemble_score(scores, 0.0).tolist() == [2.0, 5.0]
    assert ensemble_score(scores, 0.5).tolist() == [1.5, 5.0]


def test_heads_are_weighted_before_members_are_compared():
    raw = torch.tensor([[[1.0, 2.0]], [[2.0, 1.5]]])  # 2 members, 1 completion, 2 heads
    # 1 + 2*2 = 5 and 2 + 2*1.5 = 5: the members agree although their heads do not.
    assert ensemble_score(Scores(raw, [1.0, 2.0]), 10.0).tolist() == [5.0]


def test_normalized_to_the_reference_and_a_constant_only_centred():
    assert normalized(torch.tensor([3.0, -1.0]), 1.0, 2.0).tolist() == [1.0, -1.0]
    assert normalized(torch.tensor([3.0]), 3.0, 0.0).tolist() == [0.0]


def test_the_weighted_sum_leaves_out_what_does_not_apply():
    scores = torch.tensor([[1.0, nan, nan], [10.0, 20.0, nan]])
    found = weighted_sum(scores, [2.0, 0.5])
    assert found[:2].tolist() == [7.0, 10.0]
    assert found[2].isnan()


def test_clipped_to_both_sides_or_not_at_all():
    assert clipped(torch.tensor([-9.0, 0.5, 9.0]), 2.0).tolist() == [-2.0, 0.5, 2.0]
    assert clipped(torch.tensor([-9.0]), None).tolist() == [-9.0]


def test_penalties_for_no_end_and_for_each_token():
    found = penalties(
        torch.tensor([True, False]),
        torch.tensor([4.0, 8.0]),
        missing_eos_penalty=1.0,
        length_penalty=0.25,
    )
    assert found.tolist() == [1.0, 3.0]  # 4/4, and 1 + 8/4


def test_distance_from_the_mean_is_exactly_0_only_of_equal_numbers():
    one = torch.tensor(1.0).double()
    for value in (0.1, 1 / 3, 1e-30, 12345.678):
        values = torch.full((77,), value)
        assert distance_from_mean(values, 77 * one, values.double().sum()) == 0
    values = torch.tensor([0.1] * 76 + [0.1 + 1e-7])
    assert distance_from_mean(values, 77 * one, values.double().sum()) > 0
