"""Pairs taken apart into completions with a label each, for what learns from single completions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rlhf.data.cells import TIE, without_rounding
from rlhf.data.examples import Pair, Unpaired
from rlhf.data.losses import DataLosses
from rlhf.records import PromptContent, content_hash


@dataclass(slots=True, kw_only=True)
class _Side:
    """A completion with what all its pairs say of it: weight for it, and weight in all."""

    prompt: PromptContent
    completion: str
    ended: bool | None
    pairs: list[Pair] = field(default_factory=list)
    weight_for: float = 0.0
    weight: float = 0.0

    def add(self, pair: Pair, p_better: float) -> None:
        weight = 1.0 if pair.weight is None else pair.weight
        self.pairs.append(pair)
        self.weight_for += weight * p_better
        self.weight += weight

    @property
    def share(self) -> float:
        """The share of its pairs that it wins, by their weights."""
        return without_rounding(self.weight_for / self.weight)


def taken_apart(pairs: Sequence[Pair], losses: DataLosses) -> list[Unpaired]:
    """Each completion of the pairs once, labelled true when it wins more than half of them.

    A pair is won by p_chosen (1 where the row does not say), and counts by its weight. The
    row's weight is that share (that of the label's side, 0.5 to 1) times the mean weight of the
    completion's pairs, so that a label counts by how sure it is. What wins exactly half (a tie,
    the middle of a ranking) and what has weight 0 is left out and noted.
    """
    sides = _sides(pairs)
    rows = []
    num_even = num_weightless = 0
    for side in sides:
        if side.weight == 0:
            num_weightless += 1
        elif side.share == TIE:
            num_even += 1
        else:
            rows.append(_labelled(side))
    losses.num_rows += len(sides) - len(pairs)  # from here on it is completions that get lost
    losses.note("pairs taken apart: chosen true, rejected false", len(pairs))
    for what, count in (
        ("completions that win half of their pairs, left out", num_even),
        ("completions of pairs of weight 0, left out", num_weightless),
    ):
        if count:
            losses.note(what, count)
    return rows


def _sides(pairs: Iterable[Pair]) -> list[_Side]:
    sides: dict[str, _Side] = {}
    for pair in pairs:
        p_chosen = 1.0 if pair.p_chosen is None else pair.p_chosen
        second = pair.prompt if pair.rejected_prompt is None else pair.rejected_prompt
        for prompt, text, ended, p_better in (
            (pair.prompt, pair.chosen, pair.chosen_ended, p_chosen),
            (second, pair.rejected, pair.rejected_ended, 1 - p_chosen),
        ):
            key = content_hash([prompt, text, ended])
            side = sides.setdefault(key, _Side(prompt=prompt, completion=text, ended=ended))
            side.add(pair, p_better)
    return list(sides.values())


def _labelled(side: _Side) -> Unpaired:
    first = side.pairs[0]
    label = side.share > TIE
    share = side.share if label else 1 - side.share
    says_weight = any(p.p_chosen is not None or p.weight is not None for p in side.pairs)
    weighs = says_weight or len(side.pairs) > 1
    return Unpaired(
        prompt=side.prompt,
        completion=side.completion,
        label=label,
        place=f"{first.place} {'chosen' if first.chosen == side.completion else 'rejected'}",
        ended=side.ended,
        weight=share * side.weight / len(side.pairs) if weighs else None,
        judgement_ids=tuple(dict.fromkeys(key for p in side.pairs for key in p.judgement_ids)),
        item=first.item,
        simulated=any(pair.simulated for pair in side.pairs),
        from_pair=True,
    )
