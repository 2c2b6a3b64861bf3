"""Log-probabilities of tokens from hidden states, without ever holding scores of the vocabulary.

With 50,000 entries in the vocabulary the scores of one token are as large as its states in a
hundred layers. Here they live for a tile of a few tokens and a few entries, small enough for the
processor's caches, and totals run along (the online softmax, arXiv:1805.02867). The derivatives
are written by hand:

    z = softcap(scale * (W h + b)) / temperature,   p = softmax(z)
    d log p[y] / d z[v] = [v = y] - p[v]
    d H / d z[v]        = -p[v] (log p[v] + H),     H = -sum_v p[v] log p[v]
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlhf.models.vocabulary_tiles import (
    Head,
    ScoreShape,
    Totals,
    Wanted,
    precise,
    scanned,
    slope_of,
)

CHUNK_SIZE = 512
"""Tokens whose scores are held at a time, for one tile of the vocabulary."""

Values = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Log-probabilities, entropies, mean scores, whether likeliest; each [N], None if not wanted."""


def head_of(causal_lm: Any, temperature: float = 1.0) -> Head | None:
    """The head of `causal_lm` (a PeftModel or not); None when it is no plain linear layer."""
    module = causal_lm.get_output_embeddings()
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return None
    return Head(module.weight, module.bias, score_shape(causal_lm.config, temperature))


def score_shape(config: Any, temperature: float = 1.0) -> ScoreShape:
    """What follows the head by a model's configuration.

    Gemma 2 has `final_logit_softcapping`; Cohere multiplies by `logit_scale`, and Granite divides
    by `logits_scaling`.
    """
    text = config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    scale /= float(getattr(text, "logits_scaling", None) or 1.0)
    softcap = getattr(text, "final_logit_softcapping", None)
    return ScoreShape(temperature, float(softcap) if softcap else None, scale)


def chunked_logps(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    with_entropy: bool = False,
    entropy_grad: bool = False,
    chunk_size: int = CHUNK_SIZE,
    softcap: float | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """(log-probabilities [N], entropies [N] or None) in nats of `token_ids` [N], in float32.

    `hidden` [N, H] are the states that predict them, `weight` [V, H] and `bias` [V] the head's.
    Entropies are of the whole distribution; with `entropy_grad` they carry gradients too. At most
    [chunk_size, tile] scores are held. Of a frozen head the forward pass already makes the
    derivatives [N, H], so that the backward pass does not see the vocabulary again. In float64
    throughout for float64 states.
    """
    assert chunk_size > 0
    head = Head(weight, bias, ScoreShape(temperature, softcap, scale))
    return _logps_by(head, hidden, token_ids, with_entropy, entropy_grad, chunk_size)


def token_scores(
    head: Head,
    hidden: Tensor,
    token_ids: Tensor,
    *,
    with_entropy: bool = True,
    with_mean: bool = True,
    with_top: bool = True,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """`chunked_logps` with what trainers log of each token beside it: (log-probabilities [N],
    entropies [N], mean scores over the vocabulary [N], whether the token is the likeliest [N]).

    What is not wanted is None. Only the log-probabilities carry gradients.
    """
    wanted = Wanted(with_entropy, mean_score=with_mean, is_top=with_top)
    logps, *rest = _values_by(head, hidden, token_ids, wanted, chunk_size)
    entropies, means, tops = (None if each is None else each.detach() for each in rest)
    return logps, entropies, means, tops


def model_logps(
    model: Any,
    hidden: Tensor,
    token_ids: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    entropy_grad: bool = False,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor | None]:
    """`chunked_logps` by the head of `model`, whatever it is.

    A head that is no plain linear layer (quantised, or with an adapter of its own) is called with
    a few states at a time, and again in the backward pass.
    """
    head = head_of(model, temperature)
    if head is not None:
        return _logps_by(head, hidden, token_ids, with_entropy, entropy_grad, chunk_size)
    module, shape = model.get_output_embeddings(), score_shape(model.config, temperature)
    found = [
        checkpoint(_whole, module, hidden[rows], token_ids[rows], shape, use_reentrant=False)
        for rows in _chunks(len(hidden), max(1, chunk_size // 16))
    ]
    empty = hidden.new_zeros(0, dtype=precise(hidden.dtype))
    logps = torch.cat([empty, *(each[0] for each in found)])
    if not with_entropy:
        return logps, None
    entropies = torch.cat([empty, *(each[1] for each in found)])
    return logps, entropies if entropy_grad else entropies.detach()


def _whole(
    module: nn.Module, hidden: Tensor, token_ids: Tensor, shape: ScoreShape
) -> tuple[Tensor, Tensor]:
    """(log-probabilities [n], entropies [n]) by calling the head, with torch's own derivatives."""
    z = module(hidden).to(precise(hidden.dtype)) * shape.scale  # [n, V]
    if shape.softcap is not None:
        z = shape.softcap * torch.tanh(z / shape.softcap)
    log_p = (z / shape.temperature).log_softmax(1)
    return log_p.gather(1, token_ids[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)


def _logps_by(
    head: Head,
    hidden: Tensor,
    token_ids: Tensor,
    with_entropy: bool,
    entropy_grad: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor | None]:
    wanted = Wanted(with_entropy, of_entropy=with_entropy and entropy_grad)
    logps, entropies, *_ = _values_by(head, hidden, token_ids, wanted, chunk_size)
    if entropies is not None and not entropy_grad:
        entropies = entropies.detach()
    return logps, entropies


def _values_by(
    head: Head, hidden: Tensor, token_ids: Tensor, wanted: Wanted, chunk_size: int
) -> Values:
    """What is wanted, with derivatives where something asks for gradients."""
    weights = [each for each in (head.weight, head.bias) if each is not None]
    grads = torch.is_grad_enabled()
    trained = grads and any(each.requires_grad for each in weights)
    derive = grads and not trained and hidden.requires_grad
    wanted = replace(wanted, of_logp=derive, of_entropy=derive and wanted.of_entropy)
    function: Any = _TrainedHead if trained else _FrozenHead
    values: Values = function.apply(
        hidden, head.weight, head.bias, token_ids, head.shape, wanted, chunk_size
    )
    return values


class _Gathered:
    """The values of N tokens, filled in some rows at a time."""

    def __init__(self, hidden: Tensor, wanted: Wanted) -> None:
        num = len(hidden)
        self.logps = hidden.new_empty(num, dtype=precise(hidden.dtype))
        self.entropies = torch.empty_like(self.logps) if wanted.entropy else None
        self.means = torch.empty_like(self.logps) if wanted.mean_score else None
        self.tops = hidden.new_empty(num, dtype=torch.bool) if wanted.is_top else None

    def put(self, rows: slice, totals: Totals, num_entries: int) -> None:
        """Take the values of some rows from their sums over a vocabulary of so many entries."""
        self.logps[rows] = totals.logps
        if self.entropies is not None:
            self.entropies[rows] = totals.entropies
        if self.means is not None:
            self.means[rows] = totals.sum[:, 0] / num_entries
        if self.tops is not None:
            self.tops[rows] = totals.is_top

    def values(self, ctx: Any) -> Values:
        """All of them, as an autograd function returns them."""
        logged = [each for each in (self.means, self.tops) if each is not None]
        ctx.mark_non_differentiable(*logged)
        ctx.set_materialize_grads(False)
        return self.logps, self.entropies, self.means, self.tops


class _FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    """The derivatives by the states are made with the values."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token_ids: Tensor,
        shape: ScoreShape,
        wanted: Wanted,
        chunk_size: int,
    ) -> Values:
        head = Head(weight, bias, shape)
        gathered = _Gathered(hidden, wanted)
        of_logp = torch.empty_like(hidden) if wanted.of_logp else None
        of_entropy = torch.empty_like(hidden) if wanted.of_entropy else None
        for rows in _chunks(len(hidden), chunk_size):
            totals = scanned(head, hidden[rows], token_ids[rows], wanted)
            gathered.put(rows, totals, len(weight))
            if of_logp is not None:
                of_logp[rows] = totals.of_logp(head, token_ids[rows])
            if of_entropy is not None:
                of_entropy[rows] = totals.of_entropy(head, token_ids[rows])
        ctx.save_for_backward(of_logp, of_entropy)
        return gathered.values(ctx)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        total = None
        for gradient, slope in zip(grads[:2], ctx.saved_tensors, strict=True):
            if gradient is not None and slope is not None:
                part = gradient[:, None] * slope  # [N, H]
                total = part if total is None else total + part
        return (None if total is None else total.to(ctx.saved_tensors[0].dtype), *(None,) * 6)


class _TrainedHead(torch.autograd.Function):  # type: ignore[misc]
    """The backward pass makes the scores again, for the gradients of weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token_ids: Tensor,
        shape: ScoreShape,
        wanted: Wanted,
        chunk_size: int,
    ) -> Values:
        head = Head(weight, bias, shape)
        gathered = _Gathered(hidden, wanted)
        log_totals, rest = torch.empty_like(gathered.logps), torch.empty_like(gathered.logps)
        for rows in _chunks(len(hidden), chunk_size):
            totals = scanned(head, hidden[rows], token_ids[rows], wanted)
            gathered.put(rows, totals, len(weight))
            log_totals[rows], rest[rows] = totals.log_total, totals.rest[:, 0]
        kept = (hidden, weight, bias, token_ids, rest, log_totals, gathered.entropies)
        ctx.save_for_backward(*kept)
        ctx.shape, ctx.chunk_size = shape, chunk_size
        return gathered.values(ctx)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        hidden, weight, bias, token_ids, *values = ctx.saved_tensors
        head = Head(weight, bias, ctx.shape)
        for_hidden = torch.zeros_like(hidden, dtype=precise(hidden.dtype))
        for_weight = torch.zeros_like(weight)
        for_bias = None if bias is None else torch.zeros_like(bias)
        for tile in head.tiles():
            part = slice(tile.start, tile.start + len(tile.weight))
            for rows in _chunks(len(hidden), ctx.chunk_size):
                of_rows = [None if each is None else each[rows] for each in (*values, *grads[:2])]
                slope = slope_of(tile, hidden[rows], token_ids[rows], ctx.shape, *of_rows)
                for_hidden[rows] += tile.times_weight(slope)
                for_weight[part] += slope.to(hidden.dtype).T @ hidden[rows]
                if for_bias is not None:
                    for_bias[part] += slope.sum(0)
        return (for_hidden.to(hidden.dtype), for_weight, for_bias, *(None,) * 4)


def _chunks(num_rows: int, chunk_size: int) -> list[slice]:
    return [slice(start, start + chunk_size) for start in range(0, num_rows, chunk_size)]
