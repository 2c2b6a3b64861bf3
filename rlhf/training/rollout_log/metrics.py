"""Numbers of completions, with intervals over prompts and over all ranks: pure functions."""

import math
from collections.abc import Sequence

import torch
from scipy.stats import t
from torch import Tensor

from rlhf.evaluation.drift import repetition
from rlhf.training.ppo.normalisation import Reduce, masked_mean, masked_variance
from rlhf.training.rollout_log.record import RolloutRecord

_TAIL = 0.025  # of a 95% interval, on each side


def completion_metrics(record: RolloutRecord, *, reduce: Reduce | None = None) -> dict[str, float]:
    """Score, KL (with its standard error), length, ending and repetition of completions."""
    reduce = reduce or of_this_rank
    kl, kl_error, _ = mean_and_error(record.kls, record.groups, reduce)
    columns = {
        "completion_length": [float(each) for each in record.num_tokens],
        "ended_rate": [float(each) for each in record.ended],
        "repetition": [repetition(text) for text in record.completions],
    }
    return {
        **with_interval("score", record.scores, record.groups, reduce),
        "score_std": deviation(record.scores, reduce),
        "kl": kl,
        "kl_se": kl_error,
        **{key: mean_of(doubles(column, record.scores), reduce) for key, column in columns.items()},
    }


def of_this_rank(numbers: Tensor) -> Tensor:
    """A `reduce` that sums over no other rank."""
    return numbers


def doubles(values: float | Sequence[float], like: Tensor) -> Tensor:
    """Numbers in float64, where `like` lies."""
    return torch.tensor(values, dtype=torch.float64, device=like.device)


def mean_of(values: Tensor, reduce: Reduce) -> float:
    """The mean of [N] over all ranks; 0 when no rank has any."""
    numbers = values.detach().double()
    return float(masked_mean(numbers, torch.ones_like(numbers, dtype=torch.bool), reduce))


def deviation(values: Tensor, reduce: Reduce) -> float:
    """The standard deviation (divided by N) of [N] over all ranks."""
    numbers = values.detach().double()
    whole = torch.ones_like(numbers, dtype=torch.bool)
    return math.sqrt(masked_variance(numbers, whole, reduce))


def with_interval(
    name: str, values: Tensor, groups: Sequence[int], reduce: Reduce
) -> dict[str, float]:
    """The mean of [N] over all ranks under `name`, and its 95% interval (Student's t)."""
    mean, error, num_groups = mean_and_error(values, groups, reduce)
    half = error * float(t.ppf(1 - _TAIL, max(num_groups - 1, 1)))
    return {name: mean, f"{name}_ci_low": mean - half, f"{name}_ci_high": mean + half}


def mean_and_error(
    values: Tensor, groups: Sequence[int], reduce: Reduce
) -> tuple[float, float, int]:
    """(mean, its standard error, number of groups) of [N] over all ranks.

    Completions of one prompt are alike, so the error is that of a mean over groups:
    sum over groups of (their summed deviation)^2 / N^2 * G / (G - 1), which for groups of one is
    the usual s^2 / N. NaN with a single group. A prompt on two ranks counts as two groups.
    Source: Cameron and Miller, J. Human Resources 50 (2015), section II.
    """
    numbers = values.detach().double()
    mean = mean_of(numbers, reduce)
    index = torch.tensor(groups, dtype=torch.long, device=values.device)
    num_here = int(index.max()) + 1 if len(index) else 0
    sums = numbers.new_zeros(num_here).index_add(0, index, numbers - mean)
    parts = [sums.square().sum(), numbers.new_tensor(num_here), numbers.new_tensor(len(numbers))]
    squares, num_groups, count = (float(each) for each in reduce(torch.stack(parts)))
    if num_groups < 2:
        return mean, float("nan"), int(num_groups)
    variance = squares / count**2 * num_groups / (num_groups - 1)
    return mean, math.sqrt(variance), int(num_groups)
