"""From a rollout and its updates to the numbers in the log: pure functions, over all ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf.training.ppo.losses import explained_variance
from rlhf.training.ppo.normalisation import Reduce
from rlhf.training.rollout_log.metrics import (
    completion_metrics,
    doubles,
    mean_of,
    of_this_rank,
    with_interval,
)
from rlhf.training.rollout_log.record import RolloutRecord

_LARGEST = ("first_ratio_error",)
_WHOLE = ("grad_norm_policy", "grad_norm_critic")


def rollout_metrics(
    record: RolloutRecord,
    kl_coef: float,
    *,
    reduce: Reduce | None = None,
    reduce_max: Reduce | None = None,
) -> dict[str, float]:
    """What a rollout shows before it is learnt from, over the completions of all ranks.

    Scores and rewards with their 95% intervals over prompts, `kl` in nats a completion, length in
    tokens, shares (0 to 1) of completions that ended and of repeated word trigrams, and, where
    the record has them, entropy, values and the engine's distance from the trainer's own
    log-probabilities (nats a token). What reward functions noted is of this rank. `reduce` sums
    over ranks, `reduce_max` takes the largest.
    """
    reduce, reduce_max = reduce or of_this_rank, reduce_max or of_this_rank
    found = dict(record.noted_metrics) | completion_metrics(record, reduce=reduce)
    found["kl_coef"] = kl_coef
    found |= {
        # A source may pass over a completion (TRL: None, here NaN), which says nothing of it.
        f"score/{name}": mean_of(scores[~scores.isnan()], reduce)
        for name, scores in record.source_scores.items()
    }
    if record.rewards is not None:
        found |= with_interval("reward", record.rewards, record.groups, reduce)
    if record.entropies is not None:
        found["entropy"] = mean_of(record.entropies, reduce)
    if record.values is not None and record.returns is not None:
        found["value_mean"] = mean_of(record.values, reduce)
        whole = torch.ones_like(record.values, dtype=torch.bool)
        share = explained_variance(record.values, record.returns, whole, reduce=reduce)
        found["explained_variance"] = float(share)
    if record.logps is not None and record.sampler_logps is not None:
        gaps = (record.logps.double() - record.sampler_logps.double()).abs()
        found["sampler_logp_difference"] = mean_of(gaps, reduce)
        largest = gaps.max() if len(gaps) else gaps.new_zeros(())
        found["sampler_logp_difference_max"] = float(reduce_max(largest))
    return found


def eval_metrics(record: RolloutRecord, *, reduce: Reduce | None = None) -> dict[str, float]:
    """What the completions of held-out prompts show, under `eval_` names.

    `eval_num_prompts` counts completions where each prompt has one.
    """
    found = completion_metrics(record, reduce=reduce)
    kept = ("score", "score_ci_low", "score_ci_high", "kl", "completion_length", "ended_rate")
    reduced = (reduce or of_this_rank)(doubles(len(set(record.groups)), record.scores))
    return {f"eval_{key}": found[key] for key in kept} | {"eval_num_prompts": float(reduced)}


def update_metrics(
    stats: Mapping[str, Tensor],
    *,
    reduce: Reduce | None = None,
    reduce_max: Reduce | None = None,
) -> dict[str, float]:
    """The means over the optimizer steps of a rollout of what each step measured.

    `stats[name]` is [num_steps] of this rank: its sum over tokens divided by the tokens of all
    ranks, so that the sum over ranks is the step's mean. Gradient norms are of all ranks
    already; of `first_ratio_error` the largest counts. Empty stats are left out.
    """
    reduce, reduce_max = reduce or of_this_rank, reduce_max or of_this_rank
    found = {}
    for name, values in stats.items():
        numbers = values.detach().double().reshape(-1)
        if len(numbers) == 0:
            continue
        if name in _LARGEST:
            found[name] = float(reduce_max(numbers.max()))
        elif name in _WHOLE:
            found[name] = float(numbers.mean())
        else:
            found[name] = float(reduce(numbers).mean())
    return found
