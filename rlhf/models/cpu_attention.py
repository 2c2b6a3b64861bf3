"""Attention for short rows on a CPU, where torch's own backward pass is slow.

Rows of an RLHF batch have tens to hundreds of tokens. There the scores of some queries fit into the
caches, and three plain products a pass take a third or less of the time of torch's blocked kernel,
whose backward pass in bf16 costs most. Like that kernel it keeps no scores for the backward pass,
which makes them again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf.models.vocabulary_tiles import precise

NAME = "rlhf_short_rows"
"""What transformers calls it in `attn_implementation`."""
BLOCK = 64
"""Queries at a time. Two rows of SmolLM2-135M's heads, on one core in bf16, both passes: 300 tokens
take 6 ms in blocks, 20 ms whole and 18 ms in torch's kernel; 700 tokens 27, 145 and 85 ms."""
MAX_TOKENS = 2048
"""In a row; longer ones go to torch's kernel. At this length: 255 ms against 575."""
_HARMLESS = {
    *("is_causal", "position_ids", "use_cache", "past_key_values", "num_items_in_batch"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "return_dict"),
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
}
"""Options that change nothing here; whatever else a family adds (a window, a cap of the scores,
sinks, a bias by position) is for its own kernel."""


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


@contextmanager
def attending_short_rows(model: Any) -> Iterator[bool]:
    """Within the block `model` computes this way where it can; whether it does."""
    before = model.config._attn_implementation
    used = use_short_row_attention(model)
    try:
        yield used
    finally:
        if used and before != NAME:
            model.set_attn_implementation(before)


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

    `attention_mask` [B or 1, 1, L, L] is True where a token (third axis) sees another; without one
    each sees those up to itself. Anything but whole rows goes to torch's kernel.
    """
    length = query.shape[2]
    plain = (
        query.dtype != torch.float32  # of which torch's kernel is as fast
        and 1 < length <= MAX_TOKENS
        and key.shape[2] == length
        and dropout == 0.0
        and value.shape[-1] == query.shape[-1]
        and _is_known(attention_mask, module, length, options)
        and all(name in _HARMLESS or value is None for name, value in options.items())
    )
    if not plain:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _MaskedAttention.apply(query, key, value, attention_mask, scale)
    return out.transpose(1, 2).contiguous(), None


def _is_known(mask: Tensor | None, module: nn.Module, length: int, options: dict[str, Any]) -> bool:
    """Whether the mask is one that is taken here: ours or transformers' own, or causal."""
    if mask is None:
        return bool(getattr(module, "is_causal", False)) and options.get("is_causal") is not False
    return mask.dtype == torch.bool and tuple(mask.shape[1:]) == (1, length, length)


class _MaskedAttention(torch.autograd.Function):  # type: ignore[misc]
    """Some queries at a time, with the keys from the first to the last that any of them sees.

    Heads that share a key stand below one another, so that each key is read once.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        blocks = list(_blocks(mask, key.shape[2]))
        rows = _Rows(query, key, mask, scale)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        parts = rows.grouped(out)
        for block, seen in blocks:
            p = rows.probabilities(block, seen)
            parts[:, :, :, block] = (p @ value[:, :, seen]).view_as(parts[:, :, :, block])
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale, ctx.blocks = scale, blocks
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        query, key, value, mask = ctx.saved_tensors
        rows = _Rows(query, key, mask, ctx.scale)
        gradients = rows.grouped(grads[0])
        for_query = torch.empty_like(query, memory_format=torch.contiguous_format)
        parts = rows.grouped(for_query)
        for_key, for_value = (
            torch.zeros_like(each, dtype=precise(each.dtype)) for each in (key, value)
        )
        for block, seen in ctx.blocks:
            p = rows.probabilities(block, seen)  # [B, K, G * l, S]
            gradient = gradients[:, :, :, block].reshape(*p.shape[:-1], -1)
            for_value[:, :, seen] += p.mT @ gradient
            for_p = gradient @ value[:, :, seen].mT
            mean = (for_p * p).sum(-1, keepdim=True)
            slope = for_p.sub_(mean).mul_(p).mul_(ctx.scale)
            parts[:, :, :, block] = (slope @ key[:, :, seen]).view_as(parts[:, :, :, block])
            for_key[:, :, seen] += slope.mT @ rows.queries(block)
        return for_query, for_key.to(key.dtype), for_value.to(value.dtype), None, None


def _blocks(mask: Tensor | None, length: int) -> Iterator[tuple[slice, slice]]:
    """Places of some queries at a time, and of the keys that any of them sees in any row."""
    seen = None if mask is None else mask.any(0)[0]  # [L, L]
    for start in range(0, length, BLOCK):
        block = slice(start, min(start + BLOCK, length))
        if seen is None:
            yield block, slice(0, block.stop)
            continue
        places = seen[block].any(0).nonzero()[:, 0]
        first, last = (int(places[0]), int(places[-1])) if len(places) else (0, 0)
        yield block, slice(first, last + 1)


class _Rows:
    """Rows of L tokens: what their queries [B, K, G, L, D] see of the keys [B, K, L, D]."""

    def __init__(self, query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> None:
        self.key, self.mask, self.scale = key, mask, scale
        self.by_key = self.grouped(query)

    def grouped(self, heads: Tensor) -> Tensor:
        """[B, heads, L, D] -> [B, K, heads / K, L, D] for K heads of keys."""
        rows, num, length, size = heads.shape
        return heads.reshape(rows, self.key.shape[1], num // self.key.shape[1], length, size)

    def queries(self, block: slice) -> Tensor:
        """[B, K, G * l, D]"""
        part = self.by_key[:, :, :, block]
        return part.reshape(*part.shape[:2], -1, part.shape[-1])

    def probabilities(self, block: slice, seen: slice) -> Tensor:
        """[B, K, G * l, S]: how much each token of a block looks at each one that it sees."""
        scores = torch.matmul(self.queries(block) * self.scale, self.key[:, :, seen].mT)
        blocked = self._blocked(block, seen, scores)
        scores.view(len(scores), -1, *blocked.shape[-2:]).add_(blocked)
        return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)  # faster than in bf16

    def _blocked(self, block: slice, seen: slice, scores: Tensor) -> Tensor:
        """[l, S] or [B, 1, l, S]: 0 where a token is seen, else so low that its share is 0.

        Finite: a padding place that sees nothing looks at all alike, and is not NaN.
        """
        low = torch.finfo(scores.dtype).min
        if self.mask is None:
            size = (block.stop - block.start, seen.stop)  # from the first key on
            return scores.new_full(size, low).triu_(block.start + 1)
        part = self.mask[:, :, block, seen]
        return scores.new_zeros(part.shape).masked_fill_(~part, low)
