"""What each pair's label is: hard or soft, by one criterion or several, tied or not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rlhf.data.cells import TIE, without_rounding
from rlhf.data.formats import Pair
from rlhf.data.losses import DataLosses
from rlhf.errors import DataError, nearest_hint
from rlhf.models.reward_spec import DEFAULT_HEAD
from rlhf.training.arguments import parse_criteria
from rlhf.training.options import PreferenceArguments, RewardArguments

_TURNED = {"chosen": "rejected", "rejected": "chosen", "tie": "tie"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """How the pairs of a run are labelled.

    `heads` are the criteria with their weights in the scalar, one unnamed head without any;
    `margin_scale` multiplies the rows' margins, None leaves them out.
    """

    kind: Literal["hard", "soft"] = "hard"
    keeps_ties: bool = False
    heads: dict[str, float] = field(default_factory=lambda: {DEFAULT_HEAD: 1.0})
    by_criteria: bool = False
    margin_scale: float | None = None

    def words(self) -> str:
        """One line for the log."""
        labels = (
            "soft labels (p_chosen)" if self.kind == "soft" else "hard labels (chosen is right)"
        )
        ties = "ties kept at p_chosen 0.5" if self.keeps_ties else "ties dropped"
        heads = ", ".join(f"{weight:g} x {name}" for name, weight in self.heads.items())
        return f"{labels}, {ties}" + f"; score = {heads}" * self.by_criteria


def plan_labels(arguments: PreferenceArguments, pairs: Sequence[Pair], name: str) -> LabelPlan:
    """The plan for training pairs read from `name`.

    "auto" labels are soft where some pair carries p_chosen or a criterion's; ties are kept with
    soft labels and dropped with hard ones, unless the settings say. DataError when soft labels
    are asked for and there are none, and the same for margins.
    """
    heads = parse_criteria(arguments.criteria) if isinstance(arguments, RewardArguments) else {}
    says = any(pair.p_chosen is not None for pair in pairs) or bool(heads)
    if arguments.labels == "soft" and not says:
        raise DataError(f"{name}: no row carries p_chosen; add the column, or --labels hard")
    if arguments.use_margin and not any(pair.margin for pair in pairs):
        raise DataError(
            f"{name}: no row carries a margin above 0; add the column, or leave out --use_margin"
        )
    soft = arguments.labels == "soft" or (arguments.labels == "auto" and says)
    return LabelPlan(
        kind="soft" if soft else "hard",
        keeps_ties=arguments.ties == "keep" or (arguments.ties == "auto" and soft),
        heads=heads or {DEFAULT_HEAD: 1.0},
        by_criteria=bool(heads),
        margin_scale=arguments.margin_scale if arguments.use_margin else None,
    )


def labelled_pairs(pairs: Iterable[Pair], plan: LabelPlan, losses: DataLosses) -> list[Pair]:
    """The pairs that have a label, chosen first: p_chosen from 0.5 to 1 in each that says it.

    With criteria a pair's p_chosen is the weighted mean of those it has (weights by their
    size), since the score is the weighted sum of their heads. Ties that are not kept, pairs of
    weight 0 and pairs without any declared criterion are left out and noted.
    """
    read = list(pairs)
    if plan.by_criteria:
        read = _with_some_criterion(read, plan, losses)
    weighed = [pair for pair in read if pair.weight != 0]
    if len(weighed) < len(read):
        losses.note("pairs of weight 0, left out", len(read) - len(weighed))
    turned = [towards_chosen(pair) for pair in weighed]
    num_turned = sum(one is not pair for one, pair in zip(turned, weighed, strict=True))
    if num_turned:
        losses.note("pairs turned round: p_chosen below 0.5", num_turned)
    num_ties = sum(is_tie(pair) for pair in turned)
    if plan.keeps_ties or not num_ties:
        return turned
    losses.note("ties (p_chosen 0.5), left out", num_ties)
    return [pair for pair in turned if not is_tie(pair)]


def refuse_no_labels(pairs: Sequence[Pair], plan: LabelPlan, name: str) -> None:
    """DataError when nothing in the pairs read from `name` tells better from worse."""
    ties = sum(is_tie(pair) for pair in pairs)
    if ties and ties == len(pairs) and not plan.by_criteria:
        raise DataError(
            f"{name}: all {ties} pairs are ties (p_chosen 0.5), so nothing says what is better "
            "than what; rate more"
        )
    if pairs and all(pair.weight == 0 for pair in pairs):
        raise DataError(f"{name}: all pairs have weight 0; give some a weight above 0")
    for criterion in plan.heads if plan.by_criteria else ():
        said = [(pair.criteria or {}).get(criterion) for pair in pairs]
        if all(p is None or p == TIE for p in said):
            known = sorted({key for pair in pairs for key in pair.criteria or {}})
            raise DataError(
                f"{name}: no row says which completion is better by {criterion!r}"
                f"{nearest_hint(criterion, known)} (criteria in the rows: "
                f"{', '.join(known) or 'none'}); leave it out of --criteria, or rate by it"
            )


def is_tie(pair: Pair) -> bool:
    """Whether the labels favour neither side."""
    return pair.p_chosen == TIE


def towards_chosen(pair: Pair) -> Pair:
    """The pair itself, or turned round when its labels favour the rejected side."""
    if pair.p_chosen is None or pair.p_chosen >= TIE:
        return pair
    shown = pair.chosen_shown_first
    swapped = pair.rejected_prompt
    return replace(
        pair,
        prompt=pair.prompt if swapped is None else swapped,
        rejected_prompt=None if swapped is None else pair.prompt,
        chosen=pair.rejected,
        rejected=pair.chosen,
        chosen_ended=pair.rejected_ended,
        rejected_ended=pair.chosen_ended,
        p_chosen=1 - pair.p_chosen,
        criteria=None if pair.criteria is None else {k: 1 - p for k, p in pair.criteria.items()},
        votes=tuple(vote | {"prefers": _TURNED[vote["prefers"]]} for vote in pair.votes),
        chosen_shown_first=None if shown is None else 1 - shown,
    )


def label_columns(pairs: Sequence[Pair], plan: LabelPlan) -> list[dict[str, Any]]:
    """For each pair what the collator reads of its label (see `LABEL_COLUMNS`).

    Only what makes a difference: with plain hard labels nothing but `row`, so that the loss is
    TRL's own. Weights are divided by their mean, so that the learning rate means the same.
    """
    rows: list[dict[str, Any]] = [{"row": index} for index in range(len(pairs))]
    if plan.by_criteria or any(_p_chosen(pair, plan) != [1.0] for pair in pairs):
        for row, pair in zip(rows, pairs, strict=True):
            row["p_chosen"] = _p_chosen(pair, plan)
    if plan.margin_scale is not None:
        for row, pair in zip(rows, pairs, strict=True):
            row["margin"] = 0.0 if is_tie(pair) else plan.margin_scale * (pair.margin or 0.0)
    weights = [1.0 if pair.weight is None else pair.weight for pair in pairs]
    if len(set(weights)) > 1:
        for row, weight in zip(rows, with_mean_1(weights), strict=True):
            row["weight"] = weight
    return rows


def with_mean_1(weights: Sequence[float]) -> list[float]:
    """The weights, not all 0, divided by their mean."""
    largest = max(weights)  # a sum of huge weights would be infinite, and each then 0
    mean = sum(weight / largest for weight in weights) / len(weights)
    return [weight / largest / mean for weight in weights]


def _p_chosen(pair: Pair, plan: LabelPlan) -> list[float | None]:
    """The label for each head; None: there is none."""
    if not plan.by_criteria:
        p = 1.0 if pair.p_chosen is None else pair.p_chosen
        return [p if plan.kind == "soft" or is_tie(pair) else 1.0]
    said = [(pair.criteria or {}).get(name) for name in plan.heads]
    return said if plan.kind == "soft" else [_hardened(p, plan) for p in said]


def _hardened(p: float | None, plan: LabelPlan) -> float | None:
    if p is None:
        return None
    if p == TIE:
        return TIE if plan.keeps_ties else None
    return float(p > TIE)


def _with_some_criterion(pairs: Sequence[Pair], plan: LabelPlan, losses: DataLosses) -> list[Pair]:
    """The pairs with a label by some declared criterion, their p_chosen by all that are there."""
    labelled = []
    for pair in pairs:
        there = {key: p for key, p in (pair.criteria or {}).items() if plan.heads.get(key)}
        if there:
            total = sum(abs(plan.heads[key]) for key in there)
            # A criterion of negative weight speaks for the side that has less of it.
            p = sum(
                abs(weight) * (there[key] if weight > 0 else 1 - there[key])
                for key, weight in plan.heads.items()
                if key in there
            )
            labelled.append(replace(pair, p_chosen=without_rounding(p / total)))
    if len(labelled) < len(pairs):
        losses.note("pairs without a label by any declared criterion", len(pairs) - len(labelled))
    return labelled
