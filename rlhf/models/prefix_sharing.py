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
from rlhf.models.rollouts.decoding import evaluating

MASKED_ATTENTION = ("sdpa", "eager", SHORT_ROWS)
"""Attention implementations that take a mask of our own making."""

MASKED_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that attend by that mask; a sliding one as long as its window holds a row."""

PLACE_WINDOWS = ("window_size", "attention_window_size")
"""Configured widths within which some families (GPT-Neo) let a layer see by its place in a row."""

PER_TOKEN = ("output_router_logits", "output_hidden_states", "output_attentions")
"""What a call can ask for that a shared row would have of other tokens than plain rows."""

EXACT, ROUNDED = {torch.float32: 1e-3, torch.float64: 1e-3}, 0.05
"""By how much of the states' size both paths may differ on a probe, and by how much in narrower
dtypes: SmolLM2-135M differs by less than 1e-3 in bf16, and by 0.2 without its positions."""

PROBE_LENGTHS = (12, 15)
"""Tokens of the longest plain and of the longest shared row of the probe."""

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
    config = backbone.config.get_text_config()
    attention = backbone.config._attn_implementation
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
        self._is_probed = self.refusal is not None

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **rest: Any) -> Any:
        """What the backbone returns for plain rows [2P, L], `last_hidden_state` [2P, L, H]."""
        if not self._pays(input_ids, attention_mask, rest):
            return self._plain(input_ids=input_ids, attention_mask=attention_mask, **rest)
        self.num_shared += 1
        rows = share_rows(input_ids, attention_mask, self._pad_id)
        packed = self._packed(rows)
        self.num_tokens -= rows.ids.numel() - packed.ids.numel()
        return self._on(packed, rest)

    def _on(self, rows: SharedRows, rest: Mapping[str, Any]) -> Any:
        """The backbone's output on shared rows, with the states of the plain ones."""
        shared = {"input_ids": rows.ids, "attention_mask": self._mask(rows.visible)}
        output = self._plain(**(dict(rest) | shared | {"position_ids": rows.positions}))
        output.last_hidden_state = put_back(output.last_hidden_state, rows.sources)
        return output

    @property
    def _pad_id(self) -> int:
        return getattr(self._backbone.config.get_text_config(), "pad_token_id", None) or 0

    def _probe(self, device: Any) -> None:
        """Refuse a backbone whose states are others on the shared path, whatever its reason.

        One that attends to later tokens, that counts distances by places, or that takes no mask
        of our own would otherwise learn from wrong states without a word.
        """
        self._is_probed = True
        kind = self._backbone.config.model_type
        try:
            ids, mask = (each.to(device) for each in _probe_rows(self._backbone))
            with torch.no_grad(), evaluating(self._backbone):  # and without noise
                plain = self._plain(input_ids=ids, attention_mask=mask, use_cache=False)
                rows = self._packed(share_rows(ids, mask, self._pad_id))
                shared = self._on(rows, {"use_cache": False})
        except Exception as error:  # whatever a family does with rows it was not made for
            self.refusal = f"{kind} does not take shared rows ({type(error).__name__})"
            return
        expected, found = (each.last_hidden_state[mask.bool()] for each in (plain, shared))
        differs = float((found - expected).float().norm() / expected.float().norm())
        exact = EXACT.get(expected.dtype, ROUNDED)
        if torch.is_autocast_enabled(device.type):
            exact = ROUNDED
        if not differs <= exact:
            self.refusal = f"{kind} computes something else on shared rows (a probe, {differs:.1%})"

    def _pays(self, ids: Any, mask: Any, rest: Mapping[str, Any]) -> bool:
        """Whether a batch can be shared, and computes enough fewer tokens that way."""
        if self.refusal is not None or not _is_paired(ids, mask, rest):
            return False
        if not self._is_probed and self._is_within_windows(*PROBE_LENGTHS):
            self._probe(ids.device)
            if self.refusal is not None:
                return False
        lengths = mask.long().sum(1)  # [2P]
        chosen, rejected = lengths.chunk(2)
        row = int((chosen + rejected - common_prefix_lengths(ids, mask)).max())
        shared, plain = row * len(chosen), ids.numel()
        within = self._is_within_windows(int(lengths.max()), row)
        pays = self._is_probed and within and shared <= self.pays_below * plain
        self.num_batches += 1
        self.num_tokens += shared if pays else plain
        self.num_plain_tokens += plain
        return pays

    def _is_within_windows(self, plain: int, shared: int) -> bool:
        """Whether no token of a plain row of so many tokens, or of a shared one, is out of sight of
        another: a mask of our own tells a layer of no window.
        """
        config = self._backbone.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        places = [getattr(config, name, None) for name in PLACE_WINDOWS]
        if not getattr(self._backbone, "_supports_attention_backend", False):
            # Older families keep a causal mask of that size, or a table of places.
            places.append(getattr(config, "max_position_embeddings", None))
        return (not window or plain <= window) and all(
            shared <= each for each in places if isinstance(each, int)
        )

    def _packed(self, rows: SharedRows) -> SharedRows:
        return pack_rows(rows) if self._packs(rows) else rows

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
    if any(isinstance(each, Tensor) for each in rest.values()):  # of the plain rows' tokens
        return False
    if any(rest.get(name) for name in PER_TOKEN):
        return False
    return bool((mask[:, :-1] >= mask[:, 1:]).all())


def _probe_rows(backbone: Any) -> tuple[Tensor, Tensor]:
    """Two ragged pairs of few tokens [4, L] from all over the vocabulary, and their mask."""
    size = int(backbone.config.get_text_config().vocab_size)
    tokens = iter((index * 7919 + 11) % size for index in range(40))
    prompts = [[next(tokens) for _ in range(count)] for count in (7, 2)]
    rows = [
        prompt + [next(tokens) for _ in range(count)]
        for counts in ((3, 6), (5, 4))
        for prompt, count in zip(prompts, counts, strict=True)
    ]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


@contextmanager
def sharing_prefixes(
    backbone: Any, *, pays_below: float = PAYS_BELOW, packs_always: bool = False
) -> Iterator[PrefixSharing]:
    """Within the block, `backbone` shares the prefixes of batches that hold [chosen; rejected].

    With `packs_always` their pairs stand in one row whatever the attention.
    """
    sharing = PrefixSharing(backbone, pays_below=pays_below, packs_always=packs_always)
    before = vars(backbone).get("forward")  # such as accelerate's, of a model on several devices
    backbone.forward = sharing.forward
    try:
        yield sharing
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before
