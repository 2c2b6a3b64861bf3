"""Where the score of a completion lands, and that padding and neighbours stay clean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import inf, nan, tensor

from rlhf.training.ppo.token_rewards import token_rewards

T, F = True, False


def test_the_score_is_on_the_last_token_and_each_pays_for_its_own_kl():
    # coefficient 0.5: KLs 0.2, 0.4, 0.6 cost 0.1, 0.2, 0.3; the last also has the score 2
    rewards = token_rewards(tensor([2.0]), tensor([[0.2, 0.4, 0.6]]), tensor([[T, T, T]]), 0.5)
    assert rewards[0].tolist() == pytest.approx([-0.1, -0.2, 1.7])


def test_a_negative_estimate_of_the_kl_pays():
    rewards = token_rewards(tensor([0.0]), tensor([[-0.2]]), tensor([[T]]), 0.5)
    assert rewards.item() == pytest.approx(0.1)


def test_token_scores_are_added_where_they_stand():
    rewards = token_rewards(
        tensor([1.0]),
        tensor([[0.0, 1.0, nan]]),
        tensor([[T, T, F]]),
        0.5,
        token_scores=tensor([[3.0, 4.0, inf]]),
    )
    assert rewards.tolist() == [[3, 4.5, 0]]  # 4 - 0.5 + 1


def test_garbage_at_padding_and_rows_without_tokens_touch_nobody():
    kl = tensor([[1.0, nan, inf], [nan, nan, nan], [1.0, 1.0, 1.0]])
    mask = tensor([[T, F, F], [F, F, F], [T, T, T]])
    rewards = token_rewards(tensor([10.0, nan, 20.0]), kl, mask, 1.0)
    assert rewards.tolist() == [[9, 0, 0], [0, 0, 0], [-1, -1, 19]]


def test_no_columns_at_all():
    assert token_rewards(torch.ones(2), torch.zeros(2, 0), torch.zeros(2, 0).bool(), 1.0).shape == (
        2,
        0,
    )


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 10))
def test_a_row_sums_to_score_minus_price_times_kl(seed, coef):
    generator = torch.Generator().manual_seed(seed)
    kl = torch.randn(5, 7, generator=generator, dtype=torch.double)
    scores = torch.randn(5, generator=generator, dtype=torch.double)
    mask = torch.arange(7)[None] < torch.randint(1, 8, (5, 1), generator=generator)
    rewards = token_rewards(scores, kl, mask, coef)
    expected = scores - coef * (kl * mask).sum(1)
    torch.testing.assert_close(rewards.sum(1), expected)
    assert rewards[~mask].abs().sum() == 0


def test_bf16_comes_back_in_float32():
    # 0.1 * 1 in bf16 would be 0.10009765625
    kl = torch.ones(1, 1, dtype=torch.bfloat16)
    rewards = token_rewards(torch.zeros(1, dtype=torch.bfloat16), kl, tensor([[T]]), 0.1)
    assert rewards.dtype == torch.float32
    assert rewards.item() == pytest.approx(-0.1, rel=1e-6)
