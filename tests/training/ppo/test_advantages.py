"""GAE against three tokens worked out by hand, and the laws it must obey."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import inf, nan, tensor

from rlhf.training.ppo.advantages import generalized_advantages
from rlhf.training.ppo.normalisation import standardize


def episodes(seed: int, rows: int = 4, longest: int = 6):
    """Random rewards, values and a mask [rows, longest] with a completion of each length."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, rows, longest, generator=generator, dtype=torch.double)
    lengths = torch.randint(0, longest + 1, (rows, 1), generator=generator)
    return rewards, values, torch.arange(longest)[None] < lengths


def test_three_tokens_by_hand():
    # rewards 0, 0, 1; values 0.5, 0.6, 0.8; gamma = lam = 0.5; the value after the last is 0
    # d_2 = 1 + 0.5 * 0   - 0.8 =  0.2     A_2 = 0.2
    # d_1 = 0 + 0.5 * 0.8 - 0.6 = -0.2     A_1 = -0.2  + 0.25 * 0.2   = -0.15
    # d_0 = 0 + 0.5 * 0.6 - 0.5 = -0.2     A_0 = -0.2  + 0.25 * -0.15 = -0.2375
    advantages, returns = generalized_advantages(
        tensor([[0.0, 0.0, 1.0]]),
        tensor([[0.5, 0.6, 0.8]]),
        torch.ones(1, 3, dtype=torch.bool),
        gamma=0.5,
        lam=0.5,
    )
    assert advantages[0].tolist() == pytest.approx([-0.2375, -0.15, 0.2])
    assert returns[0].tolist() == pytest.approx([0.2625, 0.45, 1.0])  # A + V


def test_padding_is_never_read_and_comes_back_as_0():
    # the same two tokens, alone and beside a longer row, with garbage behind them
    # d_1 = 2 - 1 = 1; d_0 = 0 + 1 - 0.5 = 0.5, A_0 = 0.5 + 1 = 1.5 (gamma = lam = 1)
    rewards = tensor([[0.0, 2.0, nan, inf], [1.0, 1.0, 1.0, 1.0], [nan, nan, nan, nan]])
    values = tensor([[0.5, 1.0, inf, nan], [0.0, 0.0, 0.0, 0.0], [nan, inf, -inf, nan]])
    mask = tensor([[True, True, False, False], [True] * 4, [False] * 4])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[1.5, 1, 0, 0], [4, 3, 2, 1], [0, 0, 0, 0]]
    assert returns.tolist() == [[2, 2, 0, 0], [4, 3, 2, 1], [0, 0, 0, 0]]


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_lam_and_gamma_1_is_what_followed_minus_the_value(seed):
    rewards, values, mask = episodes(seed)
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    for row in range(len(mask)):
        length = int(mask[row].sum())
        for t in range(length):
            followed = sum(rewards[row, t:length].tolist())
            assert advantages[row, t].item() == pytest.approx(followed - values[row, t].item())
            assert returns[row, t].item() == pytest.approx(followed)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_lam_0_is_the_error_of_one_step(seed, gamma):
    rewards, values, mask = episodes(seed)
    advantages, _ = generalized_advantages(rewards, values, mask, gamma=gamma, lam=0.0)
    for row in range(len(mask)):
        length = int(mask[row].sum())
        for t in range(length):
            later = values[row, t + 1].item() if t + 1 < length else 0.0
            error = rewards[row, t].item() + gamma * later - values[row, t].item()
            assert advantages[row, t].item() == pytest.approx(error)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_rows_know_nothing_of_each_other_nor_of_the_width(seed, gamma, lam):
    rewards, values, mask = episodes(seed)
    whole, _ = generalized_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
    moved, _ = generalized_advantages(
        rewards[order], values[order], mask[order], gamma=gamma, lam=lam
    )
    assert torch.equal(moved, whole[order])
    for row in range(len(mask)):
        cut = slice(0, int(mask[row].sum()))
        alone, _ = generalized_advantages(
            rewards[row : row + 1, cut],
            values[row : row + 1, cut],
            mask[row : row + 1, cut],
            gamma=gamma,
            lam=lam,
        )
        assert torch.equal(alone[0], whole[row, cut])


def test_a_critic_that_is_right_leaves_no_advantage():
    # reward 1 a token to the end, and values that say so: 3, 2, 1
    rewards, values = torch.ones(1, 3), tensor([[3.0, 2.0, 1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    for lam in (0.0, 0.5, 1.0):
        advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=lam)
        assert advantages.tolist() == [[0, 0, 0]]
        assert returns.tolist() == [[3, 2, 1]]


def test_bf16_is_summed_in_float32():
    # in bf16 256 + 1 is 256 again; in float32 the first return is 257
    rewards = tensor([[1.0, 256.0]], dtype=torch.bfloat16)
    values = torch.zeros(1, 2, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    assert advantages.dtype == returns.dtype == torch.float32
    assert returns.tolist() == [[257, 256]]
    assert not returns.requires_grad


def test_no_columns_at_all():
    empty = torch.zeros(2, 0)
    advantages, returns = generalized_advantages(empty, empty, empty.bool(), gamma=1.0, lam=1.0)
    assert advantages.shape == returns.shape == (2, 0)


def test_a_gap_in_a_completion_is_our_own_mistake():
    with pytest.raises(AssertionError, match="no gaps"):
        generalized_advantages(
            torch.zeros(1, 3), torch.zeros(1, 3), tensor([[True, False, True]]), gamma=1.0, lam=1.0
        )


def test_with_lam_below_1_a_critic_that_says_nothing_favours_the_end():
    # every completion scores 3, so there is nothing to prefer (docs/ppo.md gives these numbers)
    lengths = torch.arange(10, 40)[:, None]
    mask = torch.arange(40)[None] < lengths
    rewards = torch.zeros(30, 40).scatter(1, lengths - 1, 3.0)

    def standardised(lam: float) -> torch.Tensor:
        advantages, _ = generalized_advantages(
            rewards, torch.zeros(30, 40), mask, gamma=1.0, lam=lam
        )
        return standardize(advantages, mask)

    assert standardised(1.0).abs().max() == 0
    assert standardised(0.95).gather(1, lengths - 1).mean().item() == pytest.approx(1.9, abs=0.1)
    assert standardised(0.95)[:, 0].mean().item() == pytest.approx(-1.0, abs=0.1)
