"""Log-probabilities of tokens from hidden states, without ever holding scores of the vocabulary.

With 50,000 entries in the vocabulary the scores of one token are as large as its states in a
hundred layers. Here they live for a tile of a few tokens and a few entries, small enough for the
processor's caches, and totals run along (the online softmax, arXiv:1805.02867). The derivatives
are written by hand:

    z = softcap(scale * (W h + b)) / temperature,   p = softmax(z)
    d log p[y] / d z[v] = [v = y] - p[v]
    d H / d z[v]        = -p[v] (log p[v] + H),     H = -sum_v p[v] log p[v]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHUNK_SIZE = 512
"""Tokens whose scores are held at a time, for one tile of the vocabulary."""
TILE_SIZES = {"cpu": 1024}
"""Entries of such a tile: 2 MiB of scores, so that what follows the product finds them in cache.
On one core, 384 tokens of 576 numbers and a vocabulary of 49,152 in bf16 take 119 ms with their
derivatives, their two products alone 118 ms, and torch's log_softmax with its backward 285 ms."""
TILE_SIZE_ELSEWHERE = 16_384
_LOW = -1e30  # below any score, and finite: its difference with itself is 0


@dataclass(frozen=True, slots=True)
class ScoreShape:
    """What happens between the head's product and the softmax.

    z = softcap * tanh(scale * product / softcap) / temperature; without `softcap` no tanh.
    """

    temperature: float = 1.0
    softcap: float | None = None
    scale: float = 1.0

    @property
    def factor(self) -> float:
        """dz / d product, where there is no softcap."""
        return self.scale / self.temperature

    def scores(self, product: Tensor) -> Tensor:
        """z of the head's product, in fp32 at least; may be written over `product`."""
        z = product.to(_precise(product.dtype))
        if self.softcap is not None:
            z.mul_(self.scale / self.softcap).tanh_()
            return z.mul_(self.softcap / self.temperature)
        return z if self.factor == 1.0 else z.mul_(self.factor)

    def slopes(self, z: Tensor) -> Tensor | None:
        """The softcap's own derivative at z, a new tensor; None without a softcap."""
        if self.softcap is None:
            return None
        return 1 - (z * (self.temperature / self.softcap)).square_()


@dataclass(frozen=True, slots=True)
class Head:
    """A linear output head: `weight` [V, H], `bias` [V] or None, and what follows."""

    weight: Tensor
    bias: Tensor | None = None
    shape: ScoreShape = ScoreShape()

    def tiles(self) -> Iterator["Tile"]:
        """The vocabulary in order, some entries at a time."""
        size = TILE_SIZES.get(self.weight.device.type, TILE_SIZE_ELSEWHERE)
        for start in range(0, len(self.weight), size):
            part = slice(start, start + size)
            yield Tile(start, self.weight[part], None if self.bias is None else self.bias[part])


@dataclass(frozen=True, slots=True)
class Tile:
    """The vocabulary's entries from `start` on: `weight` [v, H] and `bias` [v] or None."""

    start: int
    weight: Tensor
    bias: Tensor | None

    def scores(self, hidden: Tensor, shape: ScoreShape) -> Tensor:
        """z [n, v] of states [n, H]."""
        return shape.scores(functional.linear(hidden, self.weight, self.bias))

    def places(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Of each token whether it is in this tile, and where (else anywhere): two of [n, 1]."""
        own = token_ids[:, None] - self.start
        last = len(self.weight) - 1
        return (own >= 0) & (own <= last), own.clamp(0, last)

    def times_weight(self, slope: Tensor) -> Tensor:
        """`slope` [n, v] times the weight, [n, H]."""
        return slope.to(self.weight.dtype) @ self.weight


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
    empty = hidden.new_zeros(0, dtype=_precise(hidden.dtype))
    logps = torch.cat([empty, *(each[0] for each in found)])
    if not with_entropy:
        return logps, None
    entropies = torch.cat([empty, *(each[1] for each in found)])
    return logps, entropies if entropy_grad else entropies.detach()


def _whole(
    module: nn.Module, hidden: Tensor, token_ids: Tensor, shape: ScoreShape
) -> tuple[Tensor, Tensor]:
    """(log-probabilities [n], entropies [n]) by calling the head, with torch's own derivatives."""
    z = module(hidden).to(_precise(hidden.dtype)) * shape.scale  # [n, V]
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
    weights = [each for each in (head.weight, head.bias) if each is not None]
    grads = torch.is_grad_enabled()
    trained = grads and any(each.requires_grad for each in weights)
    derive = grads and not trained and hidden.requires_grad
    wanted = _Wanted(with_entropy, derive, derive and with_entropy and entropy_grad)
    function: Any = _TrainedHead if trained else _FrozenHead
    logps, entropies = function.apply(
        hidden, head.weight, head.bias, token_ids, head.shape, wanted, chunk_size
    )
    if entropies is not None and not entropy_grad:
        entropies = entropies.detach()
    return logps, entropies


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a pass over the vocabulary makes: entropies, and the derivatives by the states."""

    entropy: bool
    of_logp: bool = False
    of_entropy: bool = False


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
        wanted: _Wanted,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor | None]:
        head = Head(weight, bias, shape)
        logps = hidden.new_empty(len(hidden), dtype=_precise(hidden.dtype))
        entropies = torch.empty_like(logps) if wanted.entropy else None
        of_logp = torch.empty_like(hidden) if wanted.of_logp else None
        of_entropy = torch.empty_like(hidden) if wanted.of_entropy else None
        for rows in _chunks(len(hidden), chunk_size):
            totals = _scanned(head, hidden[rows], token_ids[rows], wanted)
            logps[rows] = totals.logps
            if entropies is not None:
                entropies[rows] = totals.entropies
            if of_logp is not None:
                of_logp[rows] = totals.of_logp(head, token_ids[rows])
            if of_entropy is not None:
                of_entropy[rows] = totals.of_entropy(head, token_ids[rows])
        ctx.save_for_backward(of_logp, of_entropy)
        ctx.set_materialize_grads(False)
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        total = None
        for gradient, slope in zip(grads, ctx.saved_tensors, strict=True):
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
        wanted: _Wanted,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor | None]:
        head = Head(weight, bias, shape)
        logps = hidden.new_empty(len(hidden), dtype=_precise(hidden.dtype))
        log_totals, rest = torch.empty_like(logps), torch.empty_like(logps)
        entropies = torch.empty_like(logps) if wanted.entropy else None
        for rows in _chunks(len(hidden), chunk_size):
            totals = _scanned(head, hidden[rows], token_ids[rows], wanted)
            logps[rows], log_totals[rows] = totals.logps, totals.log_total
            rest[rows] = totals.rest[:, 0]
            if entropies is not None:
                entropies[rows] = totals.entropies
        ctx.save_for_backward(hidden, weight, bias, token_ids, rest, log_totals, entropies)
        ctx.shape, ctx.chunk_size = shape, chunk_size
        ctx.set_materialize_grads(False)
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        hidden, weight, bias, token_ids, *values = ctx.saved_tensors
        head = Head(weight, bias, ctx.shape)
        for_hidden = torch.zeros_like(hidden, dtype=_precise(hidden.dtype))
        for_weight = torch.zeros_like(weight)
        for_bias = None if bias is None else torch.zeros_like(bias)
        for tile in head.tiles():
            part = slice(tile.start, tile.start + len(tile.weight))
            for rows in _chunks(len(hidden), ctx.chunk_size):
                of_rows = [None if each is None else each[rows] for each in (*values, *grads)]
                slope = _slope(tile, hidden[rows], token_ids[rows], ctx.shape, *of_rows)
                for_hidden[rows] += tile.times_weight(slope)
                for_weight[part] += slope.to(hidden.dtype).T @ hidden[rows]
                if for_bias is not None:
                    for_bias[part] += slope.sum(0)
        return (for_hidden.to(hidden.dtype), for_weight, for_bias, *(None,) * 4)


def _slope(
    tile: Tile,
    hidden: Tensor,
    token_ids: Tensor,
    shape: ScoreShape,
    rest: Tensor,
    log_totals: Tensor,
    entropies: Tensor | None,
    for_logps: Tensor | None,
    for_entropies: Tensor | None,
) -> Tensor:
    """The gradient [n, v] of the head's product, from those of the values [n].

    `rest` is 1 - p of the tokens, `log_totals` the log of the sum over the vocabulary.
    """
    z = tile.scores(hidden, shape)
    slopes = shape.slopes(z)
    log_p = z.sub_(log_totals[:, None])
    p = log_p.exp()
    slope = torch.zeros_like(p)
    if for_logps is not None:
        slope.addcmul_(p, for_logps[:, None], value=-1)
        _set_own(slope, *tile.places(token_ids), (for_logps * rest)[:, None])
    if for_entropies is not None and entropies is not None:
        log_p.add_(entropies[:, None]).mul_(p)
        slope.addcmul_(log_p, for_entropies[:, None], value=-1)
    if slopes is not None:
        slope.mul_(slopes)
    return slope.mul_(shape.factor)


class _Totals:
    """Sums over the vocabulary's entries so far, of n tokens, relative to each one's highest score.

    With e = exp(z - highest): `total` sum e, `moment` sum e (z - highest); and by the weights W
    (times the softcap's slope) `mean` sum e W, and `mean_moment` sum e (z - highest) W. All
    without the token's own entry, whose share is added last: where p is near 1, 1 - p would
    be a small difference of large sums.
    """

    def __init__(self, hidden: Tensor, wanted: _Wanted) -> None:
        def zeros(*shape: int) -> Tensor:
            return hidden.new_zeros(shape, dtype=_precise(hidden.dtype))

        num = len(hidden)
        self.wanted = wanted
        self.highest = zeros(num, 1).fill_(_LOW)
        self.total, self.moment, self.chosen = (zeros(num, 1) for _ in range(3))
        self.own_slope = zeros(num, 1).fill_(1.0)
        self.mean = zeros(*hidden.shape) if wanted.of_logp else zeros(0)
        self.mean_moment = zeros(*hidden.shape) if wanted.of_entropy else zeros(0)

    def add(self, tile: Tile, z: Tensor, token_ids: Tensor, shape: ScoreShape) -> None:
        """Add a tile by its scores z [n, v], which are overwritten."""
        slopes = shape.slopes(z) if self.wanted.of_logp else None
        inside, places = tile.places(token_ids)
        self.chosen = torch.where(inside, z.gather(1, places), self.chosen)
        if slopes is not None:
            self.own_slope = torch.where(inside, slopes.gather(1, places), self.own_slope)
        self._raise_to(torch.maximum(self.highest, z.amax(1, keepdim=True)))
        above = z.sub_(self.highest)
        e = above.exp() if self.wanted.entropy else above.exp_()
        _set_own(e, inside, places, 0.0)
        self.total += e.sum(1, keepdim=True)
        if self.wanted.entropy:
            self.moment += above.mul_(e).sum(1, keepdim=True)
        if self.wanted.of_logp:
            self.mean += tile.times_weight(e if slopes is None else e.mul_(slopes))
        if self.wanted.of_entropy:
            self.mean_moment += tile.times_weight(above if slopes is None else above.mul_(slopes))

    def close(self) -> None:
        """All entries are in: make the shares [n, 1] of the token itself and of all others."""
        own = (self.chosen - self.highest).exp()
        self.others, self.total = self.total, self.total + own
        self.p, self.rest = own / self.total, self.others / self.total

    @property
    def log_total(self) -> Tensor:
        """[n] log sum exp z."""
        return (self.highest + self.total.log())[:, 0]

    @property
    def logps(self) -> Tensor:
        """[n] of the tokens themselves."""
        return (self.chosen - self.highest - self.total.log())[:, 0]

    @property
    def entropies(self) -> Tensor:
        """[n] nats."""
        return (self.total.log() - self._mean_score())[:, 0]

    def of_logp(self, head: Head, token_ids: Tensor) -> Tensor:
        """[n, H] d log p / d h."""
        own = self.rest * self.own_slope * head.weight[token_ids]
        return (own - self.mean / self.total) * head.shape.factor

    def of_entropy(self, head: Head, token_ids: Tensor) -> Tensor:
        """[n, H] d H / d h."""
        own = self.p * self.own_slope * head.weight[token_ids]
        mean = self.mean / self.total + own
        mean_moment = self.mean_moment / self.total + (self.chosen - self.highest) * own
        return (self._mean_score() * mean - mean_moment) * head.shape.factor

    def _mean_score(self) -> Tensor:
        """[n, 1] sum p (z - highest)."""
        return self.moment / self.total + self.p * (self.chosen - self.highest)

    def _raise_to(self, highest: Tensor) -> None:
        """Make all sums relative to `highest`, which is not below the one before."""
        fall = self.highest - highest
        shrink = fall.exp()
        if self.wanted.of_entropy:
            self.mean_moment.addcmul_(fall, self.mean).mul_(shrink)
        if self.wanted.entropy:
            self.moment.addcmul_(fall, self.total).mul_(shrink)
        if self.wanted.of_logp:
            self.mean *= shrink
        self.total *= shrink
        self.highest = highest


def _set_own(sums: Tensor, inside: Tensor, places: Tensor, values: Tensor | float) -> None:
    """Put `values` at the tokens' own places in `sums` [n, v], where they are inside."""
    sums.scatter_(1, places, torch.where(inside, values, sums.gather(1, places)))


def _scanned(head: Head, hidden: Tensor, token_ids: Tensor, wanted: _Wanted) -> _Totals:
    """The totals over the whole vocabulary, of states [n, H] and their tokens [n]."""
    totals = _Totals(hidden, wanted)
    for tile in head.tiles():
        totals.add(tile, tile.scores(hidden, head.shape), token_ids, head.shape)
    totals.close()
    return totals


def _chunks(num_rows: int, chunk_size: int) -> list[slice]:
    return [slice(start, start + chunk_size) for start in range(0, num_rows, chunk_size)]


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
