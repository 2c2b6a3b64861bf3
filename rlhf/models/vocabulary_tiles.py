"""Sums over a vocabulary, a tile of it at a time: what chunked_head makes its values of."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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
        z = product.to(precise(product.dtype))
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pass over the vocabulary makes: entropies, the derivatives by the states, and the mean
    score over the vocabulary and whether no entry is likelier than the token itself.
    """

    entropy: bool
    of_logp: bool = False
    of_entropy: bool = False
    mean_score: bool = False
    is_top: bool = False


class Totals:
    """Sums over the vocabulary's entries so far, of n tokens, relative to each one's highest score.

    With e = exp(z - highest): `total` sum e, `moment` sum e (z - highest); and by the weights W
    (times the softcap's slope) `mean` sum e W, and `mean_moment` sum e (z - highest) W. All
    without the token's own entry, whose share is added last: where p is near 1, 1 - p would
    be a small difference of large sums. `sum` is of the scores as they are, and `before` the
    highest one of the entries before the token's own.
    """

    def __init__(self, hidden: Tensor, wanted: Wanted) -> None:
        def zeros(*shape: int) -> Tensor:
            return hidden.new_zeros(shape, dtype=precise(hidden.dtype))

        num = len(hidden)
        self.wanted = wanted
        self.highest = zeros(num, 1).fill_(_LOW)
        self.total, self.moment, self.chosen = (zeros(num, 1) for _ in range(3))
        self.own_slope = zeros(num, 1).fill_(1.0)
        self.mean = zeros(*hidden.shape) if wanted.of_logp else zeros(0)
        self.mean_moment = zeros(*hidden.shape) if wanted.of_entropy else zeros(0)
        self.sum, self.before = zeros(num, 1), zeros(num, 1).fill_(_LOW)

    def add(self, tile: Tile, z: Tensor, token_ids: Tensor, shape: ScoreShape) -> None:
        """Add a tile by its scores z [n, v], which are overwritten."""
        slopes = shape.slopes(z) if self.wanted.of_logp else None
        inside, places = tile.places(token_ids)
        self.chosen = torch.where(inside, z.gather(1, places), self.chosen)
        if slopes is not None:
            self.own_slope = torch.where(inside, slopes.gather(1, places), self.own_slope)
        if self.wanted.mean_score:
            self.sum += z.sum(1, keepdim=True)
        if self.wanted.is_top:
            self._note_before(z, inside[:, 0], places)
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

    def _note_before(self, z: Tensor, inside: Tensor, places: Tensor) -> None:
        """Of the tokens in this tile the highest score before their own, here or earlier."""
        rows = inside.nonzero()[:, 0]  # few: each token is in one tile
        later = torch.arange(z.shape[1], device=z.device) >= places[rows]  # [m, v]
        here = z[rows].masked_fill_(later, _LOW).amax(1, keepdim=True)
        self.before[rows] = torch.maximum(self.highest[rows], here)

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

    @property
    def is_top(self) -> Tensor:
        """[n] whether the token is the likeliest; of two that are as likely the first one is."""
        return ((self.chosen >= self.highest) & (self.chosen > self.before))[:, 0]

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


def scanned(head: Head, hidden: Tensor, token_ids: Tensor, wanted: Wanted) -> Totals:
    """The totals over the whole vocabulary, of states [n, H] and their tokens [n]."""
    totals = Totals(hidden, wanted)
    for tile in head.tiles():
        totals.add(tile, tile.scores(hidden, head.shape), token_ids, head.shape)
    totals.close()
    return totals


def slope_of(
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


def precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
