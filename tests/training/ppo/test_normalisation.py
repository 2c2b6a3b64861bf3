"""Means, variances and running moments: by hand, over padding, over ranks."""

import threading
from math import inf, nan, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from rlhf.errors import StageError
from rlhf.training.ppo.normalisation import (
    RunningMoments,
    masked_mean,
    masked_sum,
    masked_variance,
    scale_to_unit_variance,
    standardize,
)

MASK = tensor([[True, True, False], [True, False, False]])
X = tensor([[1.0, 3.0, nan], [8.0, inf, -inf]])  # kept: 1, 3, 8; mean 4, variance 26/3


class Ranks:
    """Runs one function on each part of the data at once, with a sum over all of them."""

    def __init__(self, num_ranks: int) -> None:
        self._barrier = threading.Barrier(num_ranks, timeout=20)
        self._sent: list[Tensor | None] = [None] * num_ranks

    def run(self, function, parts: list) -> list:
        results: list = [None] * len(parts)

        def one(rank: int) -> None:
            try:
                results[rank] = function(*parts[rank], lambda x: self._sum(rank, x))
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def _sum(self, rank: int, x: Tensor) -> Tensor:
        self._sent[rank] = x.clone()
        self._barrier.wait()
        total = torch.stack(self._sent).sum(0)
        self._barrier.wait()  # nobody sends again before all have read
        return total


def test_sum_mean_and_variance_by_hand():
    assert masked_sum(X, MASK).item() == 12
    assert masked_mean(X, MASK).item() == 4
    assert masked_variance(X, MASK).item() == pytest.approx(26 / 3)  # (9 + 1 + 16) / 3


def test_standardised_by_hand_and_0_at_padding():
    # -3, -1, 4 over sqrt(26/3)
    s = sqrt(26 / 3)
    found = standardize(X, MASK)
    assert found.tolist() == [
        [pytest.approx(-3 / s), pytest.approx(-1 / s), 0],
        [pytest.approx(4 / s), 0, 0],
    ]
    assert masked_mean(found, MASK).item() == pytest.approx(0, abs=1e-6)
    assert masked_variance(found, MASK).item() == pytest.approx(1)


def test_scaled_to_unit_variance_keeps_the_mean():
    s = sqrt(26 / 3)
    found = scale_to_unit_variance(X, MASK)
    assert found.tolist() == [
        [pytest.approx(4 - 3 / s), pytest.approx(4 - 1 / s), 0],
        [pytest.approx(4 + 4 / s), 0, 0],
    ]


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6, 3e-7])
def test_constants_do_not_blow_up(constant):
    x = torch.full((7, 13), constant)
    keep = torch.ones(7, 13, dtype=torch.bool)
    assert standardize(x, keep).abs().max() == 0
    assert torch.equal(scale_to_unit_variance(x, keep), x)


def test_one_token_and_none():
    one, none = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)
    one[0, 1] = True
    assert masked_variance(X, one).item() == 0
    assert standardize(X, one).abs().sum() == 0
    assert scale_to_unit_variance(X, one).tolist() == [[0, 3, 0], [0, 0, 0]]
    assert masked_sum(X, none).item() == masked_mean(X, none).item() == 0
    assert masked_variance(X, none).item() == 0
    assert standardize(X, none).abs().sum() == scale_to_unit_variance(X, none).abs().sum() == 0
    empty = torch.zeros(2, 0)
    assert standardize(empty, empty.bool()).shape == (2, 0)


def test_rounding_noise_does_not_become_signal():
    noise = tensor([1e-9, -1e-9])
    assert standardize(noise, tensor([True, True])).abs().max() < 1e-4


def test_bf16_is_summed_without_loss():
    # 300 ones: bf16 stops counting at 256
    x = torch.ones(300, dtype=torch.bfloat16)
    keep = torch.ones(300, dtype=torch.bool)
    assert masked_sum(x, keep).item() == 300
    assert masked_sum(x, keep).dtype == standardize(x, keep).dtype == torch.float32


def test_a_mask_of_another_shape_is_our_own_mistake():
    with pytest.raises(AssertionError, match="in the mask"):
        masked_mean(torch.ones(2, 3), torch.ones(2, 1, dtype=torch.bool))


def numbers(seed: int, rows: int = 6, columns: int = 5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator) * 3 + 7
    return x, torch.rand(rows, columns, generator=generator) < 0.6


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_padding_and_order_change_nothing(seed):
    x, mask = numbers(seed)
    whole = standardize(x, mask)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    wider = torch.cat([torch.where(mask, x, nan), torch.full((len(x), 2), inf)], 1)[order]
    wider_mask = torch.cat([mask, torch.zeros(len(x), 2, dtype=torch.bool)], 1)[order]
    torch.testing.assert_close(standardize(wider, wider_mask)[:, :5], whole[order])


@pytest.mark.parametrize("cut", [1, 3, 6])  # at 6 the second rank has nothing
@pytest.mark.parametrize("function", [standardize, scale_to_unit_variance])
def test_two_ranks_are_one_process(function, cut):
    x, mask = numbers(cut)
    parts = [(x[:cut], mask[:cut]), (x[cut:], mask[cut:])]
    found = Ranks(2).run(lambda x, mask, reduce: function(x, mask, reduce=reduce), parts)
    torch.testing.assert_close(torch.cat(found), function(x, mask), rtol=1e-6, atol=1e-6)
    alone = torch.cat([function(*part) for part in parts])
    if cut != 6:
        assert not torch.allclose(alone, function(x, mask), atol=1e-3)  # the sum is what mends it


def test_two_ranks_have_one_mean_and_one_variance():
    x, mask = numbers(5)
    parts = [(x[:2], mask[:2]), (x[2:], mask[2:])]
    for function in (masked_sum, masked_mean, masked_variance):
        first, second = Ranks(2).run(function, parts)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, function(x, mask))


def test_running_moments_by_hand():
    moments = RunningMoments()
    assert (moments.count, moments.mean, moments.variance) == (0, 0, 0)
    moments.update(tensor([1.0, 3.0]))  # mean 2, M2 2
    assert (moments.count, moments.mean, moments.variance) == (2, 2, 1)
    # 8, 4: mean 6, M2 8; together mean 4, M2 2 + 8 + 4^2 * 2 * 2 / 4 = 26
    moments.update(tensor([8.0, 4.0]))
    assert (moments.count, moments.mean, moments.variance) == (4, 4, 6.5)
    assert moments.std == pytest.approx(sqrt(6.5))
    assert moments.standardize(tensor([4.0, 4 + sqrt(6.5)])).tolist() == pytest.approx([0, 1])


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 29))
def test_batches_are_as_good_as_all_at_once(seed, cut):
    x, mask = numbers(seed)
    x, mask = x.flatten().double() + 1e6, mask.flatten()  # a large mean, which costs digits
    batches, once = RunningMoments(), RunningMoments()
    batches.update(x[:cut], mask[:cut])
    batches.update(x[cut:], mask[cut:])
    once.update(x, mask)
    assert batches.count == once.count == int(mask.sum())
    assert batches.mean == pytest.approx(once.mean, rel=1e-12)
    assert batches.variance == pytest.approx(once.variance, rel=1e-6, abs=1e-9)
    if once.count:
        expected = x[mask].var(unbiased=False).item()
        assert once.variance == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_running_moments_of_two_ranks_are_those_of_one_process():
    x, mask = numbers(3)
    once = RunningMoments()
    once.update(x, mask)

    def update(x: Tensor, mask: Tensor, reduce) -> dict[str, float]:
        moments = RunningMoments()
        moments.update(x, mask, reduce=reduce)
        return moments.state_dict()

    first, second = Ranks(2).run(update, [(x[:1], mask[:1]), (x[1:], mask[1:])])
    assert first == second
    assert first == pytest.approx(once.state_dict())


def test_moments_without_spread_divide_by_nothing():
    moments = RunningMoments()
    moments.update(torch.full((5,), 0.1))
    assert moments.standardize(torch.full((2,), 0.1)).tolist() == [0, 0]
    assert moments.standardize(tensor([1.1])).item() == pytest.approx(1.0)
    moments.update(torch.zeros(0))
    assert moments.count == 5


def test_moments_go_on_where_they_stopped():
    moments, again = RunningMoments(), RunningMoments()
    moments.update(torch.randn(10))
    again.load_state_dict(moments.state_dict())
    batch = torch.randn(7)
    moments.update(batch)
    again.update(batch)
    assert again.state_dict() == moments.state_dict()


def test_a_number_that_is_none_is_refused_on_every_rank_and_leaves_no_trace():
    moments = RunningMoments()
    moments.update(tensor([1.0, 2.0]))
    before = moments.state_dict()
    with pytest.raises(StageError, match="not finite"):
        moments.update(tensor([1.0, nan]))
    assert moments.state_dict() == before
    moments.update(tensor([1.0, nan]), tensor([True, False]))  # padding may be anything

    def update(x: Tensor, reduce) -> None:
        RunningMoments().update(x, reduce=reduce)

    results = Ranks(2).run(update, [(tensor([1.0]),), (tensor([inf]),)])
    assert [type(each) for each in results] == [StageError, StageError]
