"""Advantages and returns of completion tokens."""

import torch
from torch import Tensor


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [B, T] by generalised advantage estimation; 0 at padding.

    `rewards` and `values` are [B, T], `values[:, t]` before token t was chosen; `mask` [B, T]
    is True on completion tokens, which begin each row without a gap. Whatever stands at padding
    is never read. With d_t = r_t + gamma V_{t+1} - V_t the advantage is

        A_t = d_t + gamma lam A_{t+1},    and the return is A_t + V_t

    (Schulman et al. 2016, arXiv 1506.02438, equation 16). The value after the last token is 0,
    also of a completion that was cut: what the cut costs is said by the score, not guessed by
    the critic. lam = 1 is what followed minus the value (no bias by the critic), lam = 0 the
    one-step error. Computed in float32 at least, without a gradient.
    """
    assert rewards.shape == values.shape == mask.shape
    assert not bool((mask[:, 1:] & ~mask[:, :-1]).any()), "a completion begins its row, no gaps"
    dtype = torch.promote_types(torch.promote_types(rewards.dtype, values.dtype), torch.float32)
    with torch.no_grad():
        rewards = torch.where(mask, rewards.to(dtype), 0.0)
        values = torch.where(mask, values.to(dtype), 0.0)
        advantages = torch.zeros_like(values)
        later = next_value = values.new_zeros(values.shape[0])  # [B], beyond the last token
        for t in reversed(range(values.shape[1])):
            # padding has reward and value 0, so that it adds nothing to the token before it
            delta = rewards[:, t] + gamma * next_value - values[:, t]
            later = delta + gamma * lam * later
            next_value = values[:, t]
            advantages[:, t] = later
        return advantages, advantages + values
