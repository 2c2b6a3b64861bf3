"""Chosen and rejected begin alike: run the beginning they share through the backbone once.

A pair's two rows become one, `prefix | rest of chosen | rest of rejected`, with a mask that lets
each rest see the prefix and itself, and with the positions that each token had in its own row.
The hidden states are then put back where the plain path would have them, so that heads, losses
and metrics (TRL's or ours, reward or DPO) do not know the difference. The idea and its limits:
arXiv 2410.20305.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.models.cpu_attention import MAX_TOKENS
from rlhf.models.cpu_attention import NAME as SHORT_ROWS

MASKED_ATTENTION = ("sdpa", "eager", SHORT_ROWS)
"""Attention implementations that take a mask of our own making."""

MASKED_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that attend by that mask; a sliding one as long as its window holds a row."""

PAYS_BELOW = 0.9
"""Shared over plain tokens, padding included, below which sharing pays: an explicit mask costs
SDPA its fastest kernel, and the states are gathered back."""


@dataclass(frozen=True, slots=True)
class SharedRows:
    """P pairs, one row each.

    `ids` and `positions` are [P, S]; `visible` [P, 1, S, S] is True where a token (third axis)
    sees another (fourth); `sources` [2P, L] says for each place of the plain rows, chosen first,
    where in its pair's shared row its state stands; `lengths` [P] counts the tokens of each.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    sources: Tensor
    lengths: Tensor


def common_prefix_lengths(ids: Tensor, mask: Tensor) -> Tensor:
    """How many tokens [P] the rows of each pair begin with alike.

    `ids` and `mask` (1 on real tokens, which come first) are [2P, L], chosen rows first.
    """
    chosen, rejected = ids.chunk(2)
    both = mask.bool().chunk(2)
    alike = (chosen == rejected) & both[0] & both[1]  # [P, L]
    return alike.long().cumprod(1).sum(1)


def share_rows(ids: Tensor, mask: Tensor, pad_id: int) -> SharedRows:
    """The shared rows of pairs given as plain rows [2P, L], chosen first, padded on the right."""
    prefix = common_prefix_lengths(ids, mask)[:, None]  # [P, 1]
    lengths = mask.long().sum(1)  # [2P]
    chosen_length, rejected_length = (each[:, None] for each in lengths.chunk(2))  # [P, 1]
    total = chosen_length + rejected_length - prefix  # [P, 1]
    place = torch.arange(int(total.max()), device=ids.device)[None]  # [1, S]
    in_rejected = place >= chosen_length  # [P, S]
    position = torch.where(in_rejected, place - chosen_length + prefix, place)  # [P, S]
    is_real = place < total  # [P, S]
    position = torch.where(is_real, position, 0)
    chosen, rejected = ids.chunk(2)
    shared = torch.where(in_rejected, rejected.gather(1, position), chosen.gather(1, position))
    return SharedRows(
        ids=torch.where(is_real, shared, pad_id),
        positions=position,
        visible=_visible(place, prefix, in_rejected, is_real),
        sources=_sources(ids.shape[1], prefix, chosen_length, total),
        lengths=total[:, 0],
    )


def pack_rows(rows: SharedRows) -> SharedRows:
    """All pairs in one row, one after the other and blind to one another, without padding.

    `ids` and `positions` [1, N], `visible` [1, 1, N, N]; `sources` [2P, L] are places in that row.
    """
    num_pairs, length = rows.ids.shape
    place = torch.arange(length, device=rows.ids.device).expand(num_pairs, -1)  # [P, S]
    real = place < rows.lengths[:, None]
    pair, at = real.nonzero().unbind(1)  # [N] each, pair by pair
    visible = rows.visible[pair[:, None], 0, at[:, None], at]  # [N, N], of the query's own pair
    starts = rows.lengths.cumsum(0) - rows.lengths  # [P]
    return SharedRows(
        ids=rows.ids[real][None],
        positions=rows.positions[real][None],
        visible=(visible & (pair[:, None] == pair))[None, None],
        sources=rows.sources + starts.repeat(2)[:, None],
        lengths=rows.lengths.sum(0, keepdim=True),
    )


def _visible(place: Tensor, prefix: Tensor, in_rejected: Tensor, is_real: Tensor) -> Tensor:
    """The mask [P, 1, S, S]: causal, and the two rests blind to each other.

    Padding sees itself alone: a row that sees nothing would be NaN.
    """
    causal = place[0, :, None] >= place[0, None, :]  # [S, S]
    same_side = in_rejected[:, :, None] == in_rejected[:, None, :]  # [P, S, S]
    of_prefix = (place < prefix)[:, None, :]  # [P, 1, S]
    real = is_real[:, :, None] & is_real[:, None, :]
    itself = torch.eye(place.shape[1], dtype=torch.bool, device=place.device)
    return ((causal & (same_side | of_prefix) & real) | itself)[:, None]


def _sources(length: int, prefix: Tensor, chosen_length: Tensor, total: Tensor) -> Tensor:
    """Where each place of the plain rows [2P, L] stands in the shared row."""
    own = torch.arange(length, device=prefix.device)[None].expand(prefix.shape[0], -1)  # [P, L]
    shifted = torch.where(own < prefix, own, own - prefix + chosen_length)
    last = total - 1
    return torch.cat([own.minimum(chosen_length - 1), shifted.minimum(last)])


def put_back(hidden: Tensor, sources: Tensor) -> Tensor:
    """Hidden states [2P, L, H] of the plain rows from those [P, S, H] of the shared ones, or from
    those [1, N, H] of packed ones.

    Padding places hold some state of their row; nothing reads them.
    """
    if len(hidden) < len(sources) // 2:
        return hidden[0][sources]
    first, second = (
        hidden.gather(1, half[..., None].expand(-1, -1, hidden.shape[-1]))
        for half in sources.chunk(2)
    )
    return torch.cat([first, second])


def why_not(backbone: Any) -> str | None:
    """Why a backbone cannot share prefixes, in words; None when it can."""
    config = backbone.config
    attention = config._attn_implementation
    if attention not in MASKED_ATTENTION:
        return f"attention {attention!r} takes no mask of our own"
    if "position_ids" not in inspect.signature(type(backbone).forward).parameters:
        return f"{config.model_type} takes no positions"
    unknown = set(getattr(config, "layer_types", None) or ()) - MASKED_LAYERS
    if unknown:
        return f"{config.model_type} has layers of {', '.join(sorted(unknown))}"
    return None


class PrefixSharing:
    """A backbone's forward that shares prefixes of batches [chosen; rejected] where it pays.

    `refusal` says why it never can, in words. `num_shared` of `num_batches` took the shared path;
    `num_tokens` were computed, padding included, where the plain path computes `num_plain_tokens`.
    """

    def __init__(
        self, backbone: Any, *, pays_below: float = PAYS_BELOW, packs_always: bool = False
    ) -> None:
        self.refusal = why_not(backbone)
        self.pays_below = pays_below
        self.packs_always = packs_always
        self.num_shared = self.num_batches = 0
        self.num_tokens = self.num_plain_tokens = 0
        self._backbone = backbone
        self._plain = backbone.forward

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **rest: Any) -> Any:
        """What the backbone returns for plain rows [2P, L], `last_hidden_state` [2P, L, H]."""
        if not self._pays(input_ids, attention_mask, rest):
            return self._plain(input_ids=input_ids, attention_mask=attention_mask, **rest)
        self.num_shared += 1
        rows = share_rows(input_ids, attention_mask, self._backbone.config.pad_token_id or 0)
        if self._packs(rows):
            self.num_tokens -= rows.ids.numel() - int(rows.lengths.sum())
            rows = pack_rows(rows)
        shared = {"input_ids": rows.ids, "attention_mask": self._mask(rows.visible)}
        output = self._plain(**(rest | shared | {"position_ids": rows.positions}))
        output.last_hidden_state = put_back(output.last_hidden_state, rows.sources)
        return output

    def _pays(self, ids: Any, mask: Any, rest: Mapping[str, Any]) -> bool:
        """Whether a batch can be shared, and computes enough fewer tokens that way."""
        if self.refusal is not None or not _is_paired(ids, mask, rest):
            return False
        lengths = mask.long().sum(1)  # [2P]
        chosen, rejected = lengths.chunk(2)
        row = int((chosen + rejected - common_prefix_lengths(ids, mask)).max())
        shared, plain = row * len(chosen), ids.numel()
        window = getattr(self._backbone.config, "sliding_window", None)
        within = window is None or int(lengths.max()) <= window
        pays = within and shared <= self.pays_below * plain
        self.num_batches += 1
        self.num_tokens += shared if pays else plain
        self.num_plain_tokens += plain
        return pays

    def _packs(self, rows: SharedRows) -> bool:
        """Whether to put all pairs into one row: where attention skips what a token does not see.

        Other attention would look at every pair from every other.
        """
        num_tokens = int(rows.lengths.sum())
        skips = (
            self._backbone.config._attn_implementation == SHORT_ROWS
            and next(self._backbone.parameters()).dtype != torch.float32
        )
        is_less = num_tokens <= min(MAX_TOKENS, rows.ids.numel() - 1)
        return is_less and (skips or self.packs_always)

    def _mask(self, visible: Tensor) -> Tensor:
        """Eager attention adds its mask to the scores; SDPA takes True for "sees"."""
        if self._backbone.config._attn_implementation != "eager":
            return visible
        dtype = next(self._backbone.parameters()).dtype
        scores = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return scores.masked_fill(~visible, torch.finfo(dtype).min)

    def summary(self) -> str:
        """What came of it, in a line."""
        if self.refusal is not None:
            return f"prompts are not shared: {self.refusal}"
        share = self.num_tokens / self.num_plain_tokens if self.num_plain_tokens else 1.0
        return (
            f"chosen and rejected shared their prompt in {self.num_shared} of {self.num_batches} "
            f"batches: {share:.0%} of the tokens were computed"
        )


def _is_paired(ids: Any, mask: Any, rest: Mapping[str, Any]) -> bool:
    """Whether a call is a plain one on rows that can be halves of pairs, padded on the right."""
    if ids is None or mask is None or mask.ndim != 2 or len(ids) % 2:
        return False
    others = ("past_key_values", "inputs_embeds", "position_ids")
    if any(rest.get(name) is not None for name in others):
        return False
    return bool((mask[:, :-1] >= mask[:, 1:]).all())


@contextmanager
def sharing_prefixes(
    backbone: Any, *, pays_below: float = PAYS_BELOW, packs_always: bool = False
) -> Iterator[PrefixSharing]:
    """Within the block, `backbone` shares the prefixes of batches that hold [chosen; rejected].

    With `packs_always` their pairs stand in one row whatever the attention.
    """
    sharing = PrefixSharing(backbone, pays_below=pays_below, packs_always=packs_always)
    backbone.forward = sharing.forward
    try:
        yield sharing
    finally:
        del backbone.forward
