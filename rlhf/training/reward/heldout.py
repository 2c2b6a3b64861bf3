"""What a reward model says of the pairs held out: its scores, their rows and their numbers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.data.columns import Columns
from rlhf.data.formats import Pair
from rlhf.data.progress import progress
from rlhf.data.tokenization import Renderer
from rlhf.manifest import json_lines
from rlhf.models.reward_spec import RewardSpec
from rlhf.models.scoring import RewardModel
from rlhf.records import PromptContent, content_hash
from rlhf.training.preferences.labels import is_tie
from rlhf.training.reward.metrics import calibration_error, longer_accuracy, pair_accuracy

MAX_SAMPLE = 300
"""Training pairs scored at most, to see how far the model fits them better than others."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Pairs with each member's scores [K, N] of their chosen and rejected completions.

    `chosen_heads` and `rejected_heads` are each pair's scores by head; empty for a single head.
    `num_cut` transcripts were longer than the model's context and lost their beginning.
    """

    pairs: Sequence[Pair]
    chosen: Floats
    rejected: Floats
    num_cut: int = 0
    chosen_heads: Sequence[dict[str, float]] = ()
    rejected_heads: Sequence[dict[str, float]] = ()

    @property
    def chosen_scores(self) -> Floats:
        """The score [N]: the mean over members."""
        return np.asarray(self.chosen.mean(0))

    @property
    def rejected_scores(self) -> Floats:
        """The score [N] of the rejected completions."""
        return np.asarray(self.rejected.mean(0))

    def without_ties(self) -> "PairScores":
        """The pairs of which one side is the better one: what an accuracy is of."""
        kept = [index for index, pair in enumerate(self.pairs) if not is_tie(pair)]
        pairs = [self.pairs[index] for index in kept]
        return PairScores(pairs, self.chosen[:, kept], self.rejected[:, kept], self.num_cut)


def score_pairs(
    trainer: Any,
    renderer: Renderer,
    spec: RewardSpec,
    rows: Columns,
    pairs: Sequence[Pair],
    *,
    what: str = "held-out",
    is_main: bool = True,
) -> PairScores:
    """The scores of `pairs`, tokenised as `rows`; how many were cut is said."""
    num_members = len(spec.members)
    if not rows:
        nothing = np.zeros((num_members, 0))
        return PairScores(pairs, nothing, nothing)
    scorer = RewardModel(trainer.model.eval(), renderer.tokenizer, spec)
    texts = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
    batch_size = trainer.args.per_device_eval_batch_size
    with progress(f"scoring {what} pairs", len(texts), "transcript") as advance:
        scores = scorer.all_scores_ids(
            texts, batch_size=batch_size, on_progress=advance if is_main else None
        )
    if scorer.num_cut and is_main:
        print(
            f"{scorer.num_cut} of {len(texts)} {what} transcripts were scored without their "
            "beginning: they are longer than the model's context",
            file=sys.stderr,
        )
    chosen, rejected = np.split(scores.members.double().numpy(), 2, axis=1)  # [K, N] each
    heads = [dict(zip(spec.heads, row, strict=True)) for row in scores.heads.tolist()]
    heads = heads if len(spec.heads) > 1 else []
    by_side = heads[: len(pairs)], heads[len(pairs) :]
    return PairScores(pairs, chosen, rejected, scorer.num_cut, *by_side)


def num_trained_on(heldout: Sequence[Pair], train: Sequence[Pair]) -> int:
    """How many held-out pairs have a prompt that is trained on too.

    None by our own split, but for the second prompt of pairs whose prompts differ; a data set
    that is given to measure on may hold any.
    """
    known = {content_hash(prompt) for pair in train for prompt in _prompts_of(pair)}
    return sum(any(content_hash(p) in known for p in _prompts_of(pair)) for pair in heldout)


def sampled(pairs: Sequence[Pair], num_heldout: int) -> list[int]:
    """The places of as many pairs as are held out, MAX_SAMPLE at most (and where none is).

    Those with the smallest hash, so that every run on the same pairs draws the same.
    """
    wanted = min(num_heldout or MAX_SAMPLE, MAX_SAMPLE)
    drawn = sorted(range(len(pairs)), key=lambda index: (_hash_of(pairs[index]), index))
    return sorted(drawn[:wanted])


def heldout_metrics(scored: PairScores) -> dict[str, Any]:
    """Accuracy with its interval, n, ECE, and what choosing the longer completion would reach.

    `n` counts the pairs that are no ties; what the scores themselves are like counts all.
    """
    num_ties = len(scored.pairs) - len(decided := scored.without_ties().pairs)
    counts = {"n": len(decided), "num_eval_ties": num_ties, "num_cut": scored.num_cut}
    if not decided:
        return {"accuracy": None, "accuracy_ci": None, "ece": None} | counts
    chosen, rejected, prompts = _decided(scored)
    accuracy = pair_accuracy(chosen, rejected, prompts)
    longer = longer_accuracy(
        np.array([len(pair.chosen) for pair in decided]),
        np.array([len(pair.rejected) for pair in decided]),
        prompts,
    )
    return counts | {
        "accuracy": accuracy.value,
        "accuracy_ci": [accuracy.low, accuracy.high],
        "num_eval_prompts": len(set(prompts)),
        "ece": calibration_error(chosen, rejected),
        "longer_accuracy": longer.as_dict(),
    }


def train_metrics(scored: PairScores) -> dict[str, Any]:
    """The accuracy on the sample of training pairs: far above the held-out one is overfitting."""
    chosen, rejected, prompts = _decided(scored)
    if not prompts:
        return {"train_accuracy": None, "train_accuracy_ci": None, "train_n": 0}
    accuracy = pair_accuracy(chosen, rejected, prompts)
    return {
        "train_accuracy": accuracy.value,
        "train_accuracy_ci": [accuracy.low, accuracy.high],
        "train_n": accuracy.n,
    }


def score_statistics(scored: PairScores) -> dict[str, float | None]:
    """Mean and standard deviation of the scores of all completions of the pairs."""
    scores = np.concatenate([scored.chosen_scores, scored.rejected_scores])
    if not len(scores):
        return {"score_mean": None, "score_std": None}
    return {"score_mean": float(scores.mean()), "score_std": float(scores.std())}


def pair_lines(scored: PairScores, renderer: Renderer) -> str:
    """A row for each pair with its scores and the labels behind it, as heldout.jsonl holds them.

    `num_chosen_tokens` and `num_rejected_tokens` are of the completions alone. An ensemble's
    rows also say each member's scores, those of several heads each head's by its name.
    """
    rows = []
    for index, pair in enumerate(scored.pairs):
        row = {
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen_score": float(scored.chosen_scores[index]),
            "rejected_score": float(scored.rejected_scores[index]),
            "p_chosen": pair.p_chosen,
            "margin": pair.margin,
            "weight": pair.weight,
            "item": pair.item,
            "judgement_ids": list(pair.judgement_ids),
            "votes": list(pair.votes),
            "chosen_shown_first": pair.chosen_shown_first,
            "num_chosen_tokens": len(renderer.completion_ids(pair.chosen, pair.chosen_ended)),
            "num_rejected_tokens": len(renderer.completion_ids(pair.rejected, pair.rejected_ended)),
            "chosen_ended": pair.chosen_ended,
            "rejected_ended": pair.rejected_ended,
            "simulated": pair.simulated,
        }
        if pair.rejected_prompt is not None:
            row["rejected_prompt"] = pair.rejected_prompt
        if pair.criteria:
            row["criteria"] = pair.criteria
        if len(scored.chosen) > 1:
            row["chosen_member_scores"] = scored.chosen[:, index].tolist()
            row["rejected_member_scores"] = scored.rejected[:, index].tolist()
        if scored.chosen_heads:
            row["chosen_head_scores"] = scored.chosen_heads[index]
            row["rejected_head_scores"] = scored.rejected_heads[index]
        rows.append(row)
    return json_lines(rows)


def _decided(scored: PairScores) -> tuple[Floats, Floats, list[str]]:
    """Scores [N] of chosen and rejected and the prompt of each pair that is no tie."""
    kept = scored.without_ties()
    prompts = [content_hash(pair.prompt) for pair in kept.pairs]
    return kept.chosen_scores, kept.rejected_scores, prompts


def _prompts_of(pair: Pair) -> list[PromptContent]:
    return [pair.prompt] + ([] if pair.rejected_prompt is None else [pair.rejected_prompt])


def _hash_of(pair: Pair) -> str:
    return content_hash([pair.prompt, pair.chosen, pair.rejected])
