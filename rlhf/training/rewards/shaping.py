"""From what each source says to the score of a completion: pure functions, in their order.

Ensemble, normalisation, weights, clip, penalties. B completions, N sources; all fp32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf.models.scores import Scores


def ensemble_score(scores: Scores, penalty: float) -> Tensor:
    """[B] the members' mean minus `penalty` of their standard deviations (divided by K).

    The lower bound of arXiv 2310.02743 ("uncertainty-weighted optimisation" takes the variance;
    here it is the deviation, which has the score's own unit).
    """
    return scores.mean - penalty * scores.spread


def normalized(scores: Tensor, mean: float, std: float) -> Tensor:
    """[B] `(score - mean) / std`; only the mean is taken off where `std` is 0. NaN stays NaN."""
    return (scores - mean) / (std if std > 0 else 1.0)


def weighted_sum(scores: Tensor, weights: Sequence[float]) -> Tensor:
    """[B] of `scores` [N, B]: the sum of `weight * score` over the sources that apply to a
    completion (NaN: it does not); NaN where none does.
    """
    if not len(scores):
        return torch.full(scores.shape[1:], torch.nan)
    products = scores * scores.new_tensor(list(weights))[:, None]  # [N, B]
    return products.nansum(0).masked_fill(products.isnan().all(0), torch.nan)


def clipped(scores: Tensor, limit: float | None) -> Tensor:
    """[B] cut to between -limit and limit; None cuts nothing."""
    return scores if limit is None else scores.clamp(-limit, limit)


def penalties(
    ended: Tensor, lengths: Tensor, *, missing_eos_penalty: float, length_penalty: float
) -> Tensor:
    """[B] to take off the scores: for a completion that did not end (`ended` [B] bool), and
    `length_penalty` for each of its `lengths` [B] tokens.
    """
    return missing_eos_penalty * (~ended).float() + length_penalty * lengths


def distance_from_mean(values: Tensor, count: Tensor, total: Tensor) -> Tensor:
    """The sum of the distances of `values` [B] from the mean `total / count`, float64 [].

    It is 0 exactly where all are equal: a float64 sum of equal fp32 numbers is exact up to 2**29
    of them. `count` and `total` may be those of all ranks.
    """
    return (values.double() - total / count).abs().sum()
