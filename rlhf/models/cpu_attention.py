"""Causal attention for short rows on a CPU, where torch's own backward pass is slow.

Rows of an RLHF batch have tens to hundreds of tokens. There the scores fit into the caches, and
three plain products a pass take a third or less of the time of torch's blocked kernel, whose
backward pass in bf16 costs most. Like that kernel it keeps no scores for the backward pass, which
makes them again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "rlhf_short_rows"
"""What transformers calls it in `attn_implementation`."""
MAX_TOKENS = 512
"""In a row, above which torch's kernel is the faster one."""
_SPECIAL = ("sliding_window", "softcap", "s_aux")  # what some families add to attention


def use_short_row_attention(model: Any) -> bool:
    """Let a causal language model on a CPU compute this way where it can; whether it will.

    Models with attention of their own, or set to anything but torch's, stay as they are.
    """
    if next(model.parameters()).device.type != "cpu" or not model._supports_attention_backend:
        return False
    if model.config._attn_implementation != "sdpa":
        return bool(model.config._attn_implementation == NAME)
    AttentionInterface.register(NAME, short_row_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def short_row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: query [B, heads, L, D], key and value of as many heads
    or of fewer that each serve several; -> [B, L, heads, D].

    Anything but whole causal rows without padding goes to torch's kernel.
    """
    length = query.shape[2]
    plain = (
        attention_mask is None
        and query.dtype != torch.float32  # of which torch's kernel is as fast
        and 1 < length <= MAX_TOKENS
        and key.shape[2] == length
        and dropout == 0.0
        and value.shape[-1] == query.shape[-1]
        and getattr(module, "is_causal", False)
        and options.get("is_causal") is not False
        and all(options.get(name) is None for name in _SPECIAL)
    )
    if not plain:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _CausalAttention.apply(query, key, value, scale)
    return out.transpose(1, 2).contiguous(), None


class _CausalAttention(torch.autograd.Function):  # type: ignore[misc]
    """Heads that share a key stand below one another, so that each key is read once."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        grouped = _grouped(query, key)  # [B, K, G * L, D]
        p = _probabilities(grouped, key, scale)
        ctx.save_for_backward(grouped, key, value)
        ctx.scale = scale
        return (p @ value).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        grouped, key, value = ctx.saved_tensors
        gradient = _grouped(grads[0], key)  # [B, K, G * L, D]
        p = _probabilities(grouped, key, ctx.scale)
        for_value = p.mT @ gradient
        for_p = gradient @ value.mT
        mean = (for_p * p).sum(-1, keepdim=True)
        slope = for_p.sub_(mean).mul_(p).mul_(ctx.scale)
        for_query = (slope @ key).view(grads[0].shape)
        return for_query, slope.mT @ grouped, for_value, None


def _grouped(heads: Tensor, key: Tensor) -> Tensor:
    """[B, heads, L, D] -> [B, K, heads / K * L, D] for K heads of keys."""
    rows, num, length, size = heads.shape
    return heads.reshape(rows, key.shape[1], num // key.shape[1] * length, size)


def _probabilities(grouped: Tensor, key: Tensor, scale: float) -> Tensor:
    """[B, K, G * L, L]: how much each token looks at each one up to itself."""
    length = key.shape[2]
    scores = torch.matmul(grouped * scale, key.mT)
    future = scores.new_full((length, length), float("-inf")).triu_(1)
    scores.view(*scores.shape[:2], -1, length, length).add_(future)
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)  # faster than in bf16
