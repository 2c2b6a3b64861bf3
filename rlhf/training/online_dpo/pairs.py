"""From the labelled samples of a round to its pairs: the best of a prompt's over the worst.

Source: Guo et al., arXiv 2402.04792 (two samples of the policy, labelled as it learns); Xu et al.,
arXiv 2312.16682 (best over worst of several, in rounds).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from rlhf.data.columns import Columns
from rlhf.data.formats import Pair
from rlhf.data.tokenization import Renderer
from rlhf.training.online_dpo.samples import PromptSamples, Sample
from rlhf.training.preferences.labels import LabelPlan, label_columns

PairRow = dict[str, Any]
"""One line of pairs.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The best and the worst sample of a prompt."""

    of: PromptSamples
    best: Sample
    worst: Sample

    @property
    def gap(self) -> float:
        """How much better, in the unit of the scores."""
        return self.best.score - self.worst.score


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The pairs of a round; ties have equal scores, identical ones equal tokens."""

    pairs: list[Chosen]
    num_ties: int
    num_identical: int


def best_over_worst(prompts: Sequence[PromptSamples]) -> Paired:
    """A pair of each prompt whose samples differ in score and in tokens.

    Of several best (or worst) the first drawn counts.
    """
    pairs, num_ties, num_identical = [], 0, 0
    for one in prompts:
        best = max(one.samples, key=lambda sample: sample.score)
        worst = min(one.samples, key=lambda sample: sample.score)
        if best.score == worst.score:
            num_ties += 1
        elif best.ids == worst.ids:
            num_identical += 1
        else:
            pairs.append(Chosen(of=one, best=best, worst=worst))
    return Paired(pairs=pairs, num_ties=num_ties, num_identical=num_identical)


def soft_label(gap: float, scale: float) -> float:
    """p = s(scale * gap), s the logistic function: how sure the scores are of the better one.

    Of a reward model fitted by Bradley and Terry, `scale` 1 is its own probability. At most the
    number below 1, since a label is never certain; a gap is above 0, so p is above 0.5.
    """
    return 1 / (1 + exp(-min(scale * gap, 30.0)))


def pair_row(pair: Chosen, *, common: Mapping[str, Any], soft_scale: float | None) -> PairRow:
    """A line of pairs.jsonl: TRL's preference format and, beside it, where the pair comes from.

    `margin` is the gap of the scores, `p_chosen` is there with soft labels alone. `common` are
    the columns that all pairs of a round share.
    """
    is_text = isinstance(pair.of.prompt, str)

    def shown(sample: Sample) -> Any:
        return sample.text if is_text else [{"role": "assistant", "content": sample.text}]

    row: PairRow = {
        "prompt": pair.of.prompt,
        "chosen": shown(pair.best),
        "rejected": shown(pair.worst),
        "margin": pair.gap,
    }
    if soft_scale is not None:
        row["p_chosen"] = soft_label(pair.gap, soft_scale)
    for side, sample in (("chosen", pair.best), ("rejected", pair.worst)):
        row |= {
            f"{side}_ended": sample.ended,
            f"{side}_score": sample.score,
            f"{side}_scores": sample.scores,
            f"{side}_draw": sample.draw,
            f"{side}_token_ids": sample.ids,
        }
    return row | dict(common)


def training_columns(rows: Sequence[PairRow], renderer: Renderer, name: str) -> Columns:
    """What the trainer reads of the lines of `name`: the very tokens that were sampled, and the
    labels where they are soft.
    """
    pairs = [
        Pair(
            prompt=row["prompt"],
            chosen="",
            rejected="",
            place=f"{name}:{number}",
            p_chosen=row.get("p_chosen"),
        )
        for number, row in enumerate(rows, 1)
    ]
    soft = any(pair.p_chosen is not None for pair in pairs)
    labels = label_columns(pairs, LabelPlan(kind="soft" if soft else "hard"))
    return [
        {
            "prompt_ids": renderer.prompt_ids(row["prompt"]),
            "chosen_ids": row["chosen_token_ids"],
            "rejected_ids": row["rejected_token_ids"],
        }
        | label
        for row, label in zip(rows, labels, strict=True)
    ]
