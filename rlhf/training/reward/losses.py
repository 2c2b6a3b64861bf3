"""What a reward model pays for the scores that it gives: tensors in, tensors out.

`delta` is always the score of chosen minus the score of rejected.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def pair_losses(delta: Tensor, p_chosen: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-p log s(delta - m) - (1 - p) log s(-delta - m), elementwise; s is the logistic function.

    Bradley and Terry (1952) give chosen the better one with probability s(delta). With
    probability p it is, and costs -log s(delta); with 1 - p rejected is, and costs
    -log s(-delta): the cross-entropy, least at delta = logit(p). For p = 1 it is the loss of
    Ouyang et al. (2022, arXiv 2203.02155), for p = 1/2 a tie, least at delta = 0.

    A margin m >= 0 asks whichever one is better to lead by m more (Llama 2, arXiv 2307.09288,
    equation 2, for p = 1). How strongly raters prefer says nothing of who is right, so it is
    taken off on both sides. Hence the loss stays the same when chosen and rejected change
    places (delta to -delta, p to 1 - p), and a tie stays least at 0 whatever its margin. The
    other reading, -(1 - p) log s(m - delta), would shift its minimum to m and give neither.

    Any shapes that broadcast. A p_chosen that is NaN gives NaN: see `row_losses`.
    """
    return -p_chosen * logsigmoid(delta - margin) - (1 - p_chosen) * logsigmoid(-delta - margin)


def row_losses(delta: Tensor, p_chosen: Tensor, margin: Tensor) -> Tensor:
    """Each pair's mean loss [P] over the criteria that it has a label for.

    `delta` and `p_chosen` are [P, H], one column for each head, `margin` [P] is every head's.
    Where p_chosen is NaN the label is missing: it costs nothing, and its head gets no gradient.
    A pair without any label costs 0.
    """
    there = ~torch.isnan(p_chosen)  # [P, H]
    known = torch.where(there, p_chosen, 0.5)  # a NaN would poison the gradient of what it masks
    losses = pair_losses(delta, known, margin[:, None])  # [P, H]
    return torch.where(there, losses, 0.0).sum(1) / there.sum(1).clamp(min=1)


def weighted_mean(losses: Tensor, weight: Tensor, total: float | None = None) -> Tensor:
    """sum(weight * losses) / total, of [P] each; `total` is the sum of the weights unless given.

    A training step gives the number of its pairs: weights whose mean over the whole data is 1
    then count the same whatever else is in the batch. Divided by the sum of the batch's own,
    the weight of a pair alone in its batch would count nothing. 0 where all weights are 0.
    """
    if total is None:
        total = max(float(weight.sum()), torch.finfo(losses.dtype).tiny)
    return (weight * losses).sum() / total


def preference_loss(
    delta: Tensor,
    p_chosen: Tensor,
    margin: Tensor,
    weight: Tensor,
    total: float | None = None,
) -> Tensor:
    """The weighted mean (a scalar) of the pairs' losses.

    `margin` and `weight` are [P]; `delta` and `p_chosen` are [P], or [P, H] with a column for
    each head (see `row_losses`). `total` as in `weighted_mean`. A pair of weight 0 might as
    well not be there. With p = 1, margin 0 and weight 1 this is TRL's loss.
    """
    if delta.ndim == 1:
        delta, p_chosen = delta[:, None], p_chosen[:, None]  # [P, 1]
    return weighted_mean(row_losses(delta, p_chosen, margin), weight, total)


def centring_loss(
    chosen_scores: Tensor, rejected_scores: Tensor, weight: Tensor, total: float | None = None
) -> Tensor:
    """The weighted mean of (chosen + rejected)^2, of scores [P] or [P, H] (their mean over H).

    A preference fixes differences alone; this draws the scores themselves towards 0
    (Eisenstein et al. 2023, arXiv 2312.09244, equation 2).
    """
    squares = (chosen_scores + rejected_scores) ** 2
    if squares.ndim == 2:
        squares = squares.mean(1)  # [P]
    return weighted_mean(squares, weight, total)
