"""From a rollout and its updates to the numbers in the log: pure functions, over all ranks."""

import math
from collections.abc import Mapping, Sequence

import torch
from scipy.stats import t
from torch import Tensor

from rlhf.evaluation.drift import repetition
from rlhf.training.ppo.losses import explained_variance
from rlhf.training.ppo.monitoring.record import RolloutRecord
from rlhf.training.ppo.normalisation import Reduce, masked_mean, masked_variance

_TAIL = 0.025  # of a 95% interval, on each side
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
    reduce, reduce_max = reduce or _alone, reduce_max or _alone
    found = dict(record.noted_metrics) | completion_metrics(record, reduce=reduce)
    found["kl_coef"] = kl_coef
    found |= {
        # A source may pass over a completion (TRL: None, here NaN), which says nothing of it.
        f"score/{name}": _mean(scores[~scores.isnan()], reduce)
        for name, scores in record.source_scores.items()
    }
    if record.rewards is not None:
        found |= _with_interval("reward", record.rewards, record.groups, reduce)
    if record.entropies is not None:
        found["entropy"] = _mean(record.entropies, reduce)
    if record.values is not None and record.returns is not None:
        found["value_mean"] = _mean(record.values, reduce)
        whole = torch.ones_like(record.values, dtype=torch.bool)
        share = explained_variance(record.values, record.returns, whole, reduce=reduce)
        found["explained_variance"] = float(share)
    if record.logps is not None and record.sampler_logps is not None:
        gaps = (record.logps.double() - record.sampler_logps.double()).abs()
        found["sampler_logp_difference"] = _mean(gaps, reduce)
        largest = gaps.max() if len(gaps) else gaps.new_zeros(())
        found["sampler_logp_difference_max"] = float(reduce_max(largest))
    return found


def eval_metrics(record: RolloutRecord, *, reduce: Reduce | None = None) -> dict[str, float]:
    """What the completions of held-out prompts show, under `eval_` names.

    `eval_num_prompts` counts completions where each prompt has one.
    """
    found = completion_metrics(record, reduce=reduce)
    kept = ("score", "score_ci_low", "score_ci_high", "kl", "completion_length", "ended_rate")
    reduced = (reduce or _alone)(_doubles(len(set(record.groups)), record.scores))
    return {f"eval_{key}": found[key] for key in kept} | {"eval_num_prompts": float(reduced)}


def completion_metrics(record: RolloutRecord, *, reduce: Reduce | None = None) -> dict[str, float]:
    """Score, KL (with its standard error), length, ending and repetition of completions."""
    reduce = reduce or _alone
    kl, kl_error, _ = _mean_and_error(record.kls, record.groups, reduce)
    columns = {
        "completion_length": [float(each) for each in record.num_tokens],
        "ended_rate": [float(each) for each in record.ended],
        "repetition": [repetition(text) for text in record.completions],
    }
    return {
        **_with_interval("score", record.scores, record.groups, reduce),
        "score_std": _deviation(record.scores, reduce),
        "kl": kl,
        "kl_se": kl_error,
        **{key: _mean(_doubles(column, record.scores), reduce) for key, column in columns.items()},
    }


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
    reduce, reduce_max = reduce or _alone, reduce_max or _alone
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


def _alone(numbers: Tensor) -> Tensor:
    return numbers


def _doubles(values: float | Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)


def _mean(values: Tensor, reduce: Reduce) -> float:
    """The mean of [N] over all ranks; 0 when no rank has any."""
    numbers = values.detach().double()
    return float(masked_mean(numbers, torch.ones_like(numbers, dtype=torch.bool), reduce))


def _deviation(values: Tensor, reduce: Reduce) -> float:
    """The standard deviation (divided by N) of [N] over all ranks."""
    numbers = values.detach().double()
    whole = torch.ones_like(numbers, dtype=torch.bool)
    return math.sqrt(masked_variance(numbers, whole, reduce))


def _with_interval(
    name: str, values: Tensor, groups: Sequence[int], reduce: Reduce
) -> dict[str, float]:
    """The mean of [N] over all ranks under `name`, and its 95% interval (Student's t)."""
    mean, error, num_groups = _mean_and_error(values, groups, reduce)
    half = error * float(t.ppf(1 - _TAIL, max(num_groups - 1, 1)))
    return {name: mean, f"{name}_ci_low": mean - half, f"{name}_ci_high": mean + half}


def _mean_and_error(
    values: Tensor, groups: Sequence[int], reduce: Reduce
) -> tuple[float, float, int]:
    """(mean, its standard error, number of groups) of [N] over all ranks.

    Completions of one prompt are alike, so the error is that of a mean over groups:
    sum over groups of (their summed deviation)^2 / N^2 * G / (G - 1), which for groups of one is
    the usual s^2 / N. NaN with a single group. A prompt on two ranks counts as two groups.
    Source: Cameron and Miller, J. Human Resources 50 (2015), section II.
    """
    numbers = values.detach().double()
    mean = _mean(numbers, reduce)
    index = torch.tensor(groups, dtype=torch.long, device=values.device)
    num_here = int(index.max()) + 1 if len(index) else 0
    sums = numbers.new_zeros(num_here).index_add(0, index, numbers - mean)
    parts = [sums.square().sum(), numbers.new_tensor(num_here), numbers.new_tensor(len(numbers))]
    squares, num_groups, count = (float(each) for each in reduce(torch.stack(parts)))
    if num_groups < 2:
        return mean, float("nan"), int(num_groups)
    variance = squares / count**2 * num_groups / (num_groups - 1)
    return mean, math.sqrt(variance), int(num_groups)
