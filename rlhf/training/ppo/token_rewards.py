"""From the score of a completion to a reward for each of its tokens."""

import torch
from torch import Tensor


def token_rewards(
    scores: Tensor,
    kl: Tensor,
    mask: Tensor,
    kl_coef: float,
    token_scores: Tensor | None = None,
) -> Tensor:
    """Rewards [B, T]: the score on the last token, minus `kl_coef` times each token's KL.

    `scores` [B] are of whole completions, `kl` [B, T] in nats, `mask` [B, T] True on completion
    tokens; `token_scores` [B, T] are added where they stand. 0 at padding, whatever stands
    there. A row without tokens gets nothing, its score included. Float32 at least.

    The sum over a row is score - kl_coef KL, the objective of Ziegler et al. (2019, arXiv
    1909.08593, section 2); spread over the tokens, each is charged for its own KL.
    """
    assert kl.shape == mask.shape
    assert scores.shape == mask.shape[:1]
    dtype = torch.promote_types(torch.promote_types(scores.dtype, kl.dtype), torch.float32)
    rewards = torch.where(mask, -kl_coef * kl.to(dtype), 0.0)
    if token_scores is not None:
        assert token_scores.shape == mask.shape
        rewards = rewards + torch.where(mask, token_scores.to(dtype), 0.0)
    return rewards + torch.where(_is_last(mask), scores.to(dtype)[:, None], 0.0)


def _is_last(mask: Tensor) -> Tensor:
    """[B, T], True on the last token that `mask` keeps in each row; nowhere in an empty one."""
    places = torch.arange(mask.shape[1], device=mask.device)[None]  # [1, T]
    last = torch.where(mask, places, -1).amax(1, keepdim=True) if mask.shape[1] else places
    return places == last
