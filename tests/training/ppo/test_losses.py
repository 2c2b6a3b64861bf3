"""The losses of PPO against numbers worked out by hand, and the laws they must obey."""

from math import inf, log, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from rlhf.training.ppo.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
)

LN2 = log(2)
ONE = tensor([[True]])


def policy_loss(log_ratio: float, advantage: float, epsilon: float = 0.2):
    """Loss, its gradient by the log-probability, and the statistics, of one token."""
    logps = tensor([[log_ratio]], dtype=torch.double, requires_grad=True)
    old = torch.zeros(1, 1, dtype=torch.double)
    advantages = tensor([[advantage]], dtype=torch.double)
    loss, stats = clipped_policy_loss(logps, old, advantages, ONE, epsilon=epsilon, total=1)
    loss.backward()
    return loss.item(), logps.grad.item(), {name: one.item() for name, one in stats.items()}


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (0.0, 3.0, -3.0, -3.0, 0),  # ratio 1: the plain policy gradient
        (LN2, 3.0, -3.6, 0.0, 1),  # ratio 2, good: counted as 1.2, and no further
        (LN2, -3.0, 6.0, 6.0, 0),  # ratio 2, bad: all of it, to bring it back
        (-LN2, 3.0, -1.5, -1.5, 0),  # ratio 1/2, good: all of it
        (-LN2, -3.0, 2.4, 0.0, 1),  # ratio 1/2, bad: counted as 0.8
        (log(1.1), 3.0, -3.3, -3.3, 0),  # within the range
    ],
)
def test_one_token_by_hand(log_ratio, advantage, loss, gradient, clipped):
    found, slope, stats = policy_loss(log_ratio, advantage)
    assert found == pytest.approx(loss)
    assert slope == pytest.approx(gradient)
    assert stats["clipped"] == clipped
    assert stats["policy_loss"] == pytest.approx(loss)


def test_the_statistics_of_a_ratio_of_2_and_one_of_a_half():
    logps = tensor([[LN2, -LN2, nan]])
    mask = tensor([[True, True, False]])
    _, stats = clipped_policy_loss(
        logps, torch.zeros(1, 3), torch.ones(1, 3), mask, epsilon=0.2, total=7
    )
    # k3 of KL(old || new) = ratio - 1 - ln ratio: (1 - ln 2) + (-1/2 + ln 2) = 1/2
    assert stats["approx_kl"].item() == pytest.approx(0.5)
    assert stats["ratio_error_max"].item() == pytest.approx(1.0)
    assert stats["clipped"].item() == 1
    assert stats["tokens"].item() == 2
    assert stats["policy_loss"].item() == pytest.approx(-1.2 - 0.5)  # a sum, not divided by 7
    assert not any(one.requires_grad for one in stats.values())


def test_the_divergence_is_measured_under_the_policy_that_sampled():
    # old (1/2, 1/2), new (3/4, 1/4): the mean of k3 is KL(old || new) = ln(4/3) / 2
    old, new = tensor([[0.5, 0.5]]).log(), tensor([[0.75, 0.25]]).log()
    _, stats = clipped_policy_loss(
        new, old, torch.ones(1, 2), torch.ones(1, 2).bool(), epsilon=0.2, total=2
    )
    assert stats["approx_kl"].item() / 2 == pytest.approx(log(4 / 3) / 2)


def test_an_infinite_epsilon_never_clips():
    loss, gradient, stats = policy_loss(LN2, 3.0, epsilon=inf)
    assert loss == pytest.approx(-6)
    assert gradient == pytest.approx(-6)
    assert stats["clipped"] == 0


def test_weights_multiply_each_token_or_each_row():
    zeros, ones = torch.zeros(2, 2), torch.ones(2, 2)
    mask = tensor([[True, True], [True, False]])

    def loss(weights: Tensor) -> float:
        return clipped_policy_loss(zeros, zeros, ones, mask, epsilon=0.2, total=1, weights=weights)[
            0
        ].item()

    assert loss(tensor([[1.0, 2.0], [4.0, nan]])) == -7
    assert loss(tensor([[2.0], [3.0]])) == -7  # 2 + 2 + 3


def test_a_ratio_beyond_all_numbers_times_no_advantage_is_nothing():
    loss, gradient, stats = policy_loss(5000.0, 0.0)
    assert (loss, gradient) == (0, 0)
    assert stats["ratio_error_max"] > 1e20  # but seen


def garbage(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with NaN and infinity where the mask is False."""
    return torch.where(mask, x, tensor([nan, inf, -inf])[torch.arange(x.shape[1]) % 3])


def step(seed: int):
    """Five rows of an optimizer step: all the tensors that the losses take."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(4, 5, 6, generator=generator, dtype=torch.double)
    lengths = torch.randint(0, 7, (5, 1), generator=generator)
    return numbers, torch.arange(6)[None] < lengths


def losses_of(numbers: Tensor, mask: Tensor, total: float):
    """Both losses with their gradients and statistics."""
    new = numbers[0].clone().requires_grad_()
    policy, policy_stats = clipped_policy_loss(
        new, numbers[1], numbers[2], mask, epsilon=0.2, total=total
    )
    value, value_stats = clipped_value_loss(
        new, numbers[1], numbers[3], mask, epsilon=0.2, total=total
    )
    (gradient,) = torch.autograd.grad(policy + value, new)
    return policy.detach(), value.detach(), gradient, policy_stats | value_stats


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_micro_batches_add_up_to_the_step(seed, cut):
    numbers, mask = step(seed)
    total = max(int(mask.sum()), 1)
    policy, value, gradient, stats = losses_of(numbers, mask, total)
    parts = [losses_of(numbers[:, rows], mask[rows], total) for rows in (slice(cut), slice(cut, 5))]
    torch.testing.assert_close(sum(part[0] for part in parts), policy)
    torch.testing.assert_close(sum(part[1] for part in parts), value)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), gradient)
    for name, whole in stats.items():
        each = torch.stack([part[3][name] for part in parts])
        torch.testing.assert_close(each.amax() if name.endswith("_max") else each.sum(), whole)


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_padding_and_the_order_of_rows_change_nothing(seed):
    numbers, mask = step(seed)
    policy, value, gradient, stats = losses_of(numbers, mask, 10)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    spoilt = torch.stack([garbage(each, mask) for each in numbers])
    wider = torch.cat([spoilt, torch.full((4, 5, 2), nan)], 2)[:, order]
    wider_mask = torch.cat([mask, torch.zeros(5, 2, dtype=torch.bool)], 1)[order]
    again = losses_of(wider, wider_mask, 10)
    torch.testing.assert_close(again[0], policy)
    torch.testing.assert_close(again[1], value)
    torch.testing.assert_close(again[2][:, :6], torch.where(mask, gradient, 0.0)[order])
    assert again[2][:, 6:].abs().sum() == 0
    for name, whole in stats.items():
        torch.testing.assert_close(again[3][name], whole)


def value_loss(value: float, old: float, target: float, epsilon: float = 0.2):
    values = tensor([[value]], dtype=torch.double, requires_grad=True)
    others = (tensor([[number]], dtype=torch.double) for number in (old, target))
    loss, stats = clipped_value_loss(values, *others, ONE, epsilon=epsilon, total=1)
    loss.backward()
    return loss.item(), values.grad.item(), stats["value_clipped"].item()


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient", "clipped"),
    [
        (1.0, 1.0, 3.0, 2.0, -2.0, 0),  # (1 - 3)^2 / 2
        (2.0, 1.0, 3.0, 1.62, 0.0, 1),  # moved 1, counted as 0.2: (1.2 - 3)^2 / 2
        (0.0, 1.0, 3.0, 4.5, -3.0, 0),  # moved the wrong way: all of it
        (1.1, 1.0, 3.0, 1.805, -1.9, 0),  # moved less than 0.2
    ],
)
def test_one_value_by_hand(value, old, target, loss, gradient, clipped):
    assert value_loss(value, old, target) == (
        pytest.approx(loss),
        pytest.approx(gradient),
        clipped,
    )


def test_an_infinite_epsilon_is_half_the_squared_error():
    assert value_loss(2.0, 1.0, 3.0, epsilon=inf) == (0.5, -1.0, 0)


def test_bf16_is_computed_in_float32():
    # (1 - 256)^2 = 65025 has no bf16; 0.5 of it neither
    ones = torch.ones(1, 1, dtype=torch.bfloat16)
    loss, _ = clipped_value_loss(ones, ones, ones * 256, ONE, epsilon=0.2, total=1)
    assert loss.dtype == torch.float32
    assert loss.item() == 32512.5
    # a ratio of 1 + 2^-8 rounds to 1 in bf16
    moved = tensor([[2.0**-8]], dtype=torch.bfloat16)
    loss, _ = clipped_policy_loss(moved, moved * 0, ones, ONE, epsilon=0.2, total=1)
    assert loss.item() == pytest.approx(-(1 + 2**-8 + 2**-17), rel=1e-6)


def test_rows_and_columns_that_are_not_there():
    nothing = torch.zeros(3, 4, requires_grad=True)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    loss, stats = clipped_policy_loss(nothing, nothing, nothing, mask, epsilon=0.2, total=1)
    loss.backward()
    assert loss.item() == 0
    assert nothing.grad.abs().sum() == 0
    assert all(one.item() == 0 for one in stats.values())
    empty = torch.zeros(2, 0)
    loss, stats = clipped_policy_loss(empty, empty, empty, empty.bool(), epsilon=0.2, total=1)
    assert loss.item() == stats["ratio_error_max"].item() == 0


def test_a_ratio_of_exactly_1_is_seen_as_exactly_1():
    logps = torch.randn(3, 4)
    _, stats = clipped_policy_loss(
        logps, logps.clone(), torch.ones(3, 4), torch.ones(3, 4).bool(), epsilon=0.2, total=1
    )
    assert stats["ratio_error_max"].item() == stats["approx_kl"].item() == 0


def test_explained_variance_by_hand():
    # returns 0, 2, 4: variance 8/3; left over 0, 1, -1: variance 2/3; explained 1 - 1/4
    mask = tensor([[True, True, True, False]])
    returns = tensor([[0.0, 2.0, 4.0, nan]])
    assert explained_variance(
        tensor([[0.0, 1.0, 5.0, inf]]), returns, mask
    ).item() == pytest.approx(0.75)
    assert explained_variance(returns, returns, mask).item() == 1
    assert explained_variance(returns - 100, returns, mask).item() == 1  # the mean is no variance
    assert explained_variance(torch.zeros(1, 4), returns, mask).item() == 0
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3)  # 1 - 4
    assert explained_variance(returns, torch.ones(1, 4), mask).item() == 0  # nothing to explain
    assert explained_variance(returns, returns, torch.zeros(1, 4).bool()).item() == 0
