"""What PPO minimises: sums over completion tokens, divided by the tokens of the optimizer step.

`total` is the number of completion tokens of the whole optimizer step, of all its micro-batches
on all ranks. So the gradients of micro-batches add up to that of the step, however it was cut.
(DDP averages over ranks: its caller multiplies by their number.) Padding may hold anything.

The statistics are plain sums too (`_max`: a maximum), detached, one float scalar each: add them
up over micro-batches and ranks, then divide by `tokens`.
"""

import torch
from torch import Tensor

from rlhf.training.ppo.kl import MAX_LOG_RATIO
from rlhf.training.ppo.normalisation import Reduce, masked_variance

Stats = dict[str, Tensor]


def clipped_policy_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    epsilon: float,
    total: Tensor | float,
    weights: Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """PPO's clipped loss, a scalar, and its statistics.

    `logps`, `old_logps` (of the policy that sampled) and `advantages` are [B, T], `mask` [B, T]
    True on completion tokens; `weights` [B, T] or [B, 1] multiply each token's loss. With the
    ratio r = exp(logps - old_logps), a token costs

        -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A)

    (Schulman et al. 2017, arXiv 1707.06347, equation 7); epsilon inf never clips.

    Statistics: `policy_loss` (not yet divided), `clipped` (tokens whose clipped branch is the
    smaller, which have no gradient), `approx_kl` (k3 of KL(old || new), nats),
    `ratio_error_max` (of |r - 1|) and `tokens`.
    """
    log_ratio = _log_ratio(logps, old_logps, mask)  # [B, T], 0 at padding
    ratio = log_ratio.exp()
    advantages = torch.where(mask, advantages.to(ratio.dtype), 0.0)
    unclipped = ratio * advantages
    clipped = ratio.clamp(1.0 - epsilon, 1.0 + epsilon) * advantages
    objective = torch.minimum(unclipped, clipped)
    if weights is not None:
        objective = objective * torch.where(mask, weights.to(ratio.dtype), 0.0)
    loss = -objective.sum()
    with torch.no_grad():
        stats = {
            "policy_loss": loss.detach(),
            "clipped": (clipped < unclipped).sum().to(loss.dtype),
            "approx_kl": (torch.expm1(log_ratio) - log_ratio).sum(),
            "ratio_error_max": _max((ratio - 1.0).abs()),
            "tokens": mask.sum().to(loss.dtype),
        }
    return loss / total, stats


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    epsilon: float,
    total: Tensor | float,
) -> tuple[Tensor, Stats]:
    """Half the squared error of the values, a scalar, clipped as the policy is; and statistics.

    All [B, T]; `old_values` are those of the rollout. A token costs the greater of (V - R)^2 / 2
    and the same for V kept within `epsilon` of its old value: one that has moved that far gets
    no gradient to move further. It is how OpenAI's PPO code does it (paper 1707.06347 has no
    clipping of values); epsilon inf is the plain squared error.

    Statistics: `value_loss` (not yet divided), `value_clipped` (tokens) and `tokens`.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    values, old_values, returns = (
        torch.where(mask, each.to(dtype), 0.0) for each in (values, old_values, returns)
    )
    near = old_values + (values - old_values).clamp(-epsilon, epsilon)
    unclipped = (values - returns).square()  # [B, T]
    clipped = (near - returns).square()
    loss = 0.5 * torch.maximum(unclipped, clipped).sum()
    stats = {
        "value_loss": loss.detach(),
        "value_clipped": (clipped > unclipped).sum().to(loss.dtype),
        "tokens": mask.sum().to(loss.dtype),
    }
    return loss / total, stats


def explained_variance(
    values: Tensor, returns: Tensor, mask: Tensor, *, reduce: Reduce | None = None
) -> Tensor:
    """Which share of the returns' variance the values foresee, a scalar; all tensors [B, T].

    1 - var(returns - values) / var(returns): 1 is a perfect critic, 0 one that knows the mean
    at best, below 0 one that is worse than none. 0 where the returns do not vary. `reduce` as
    in `normalisation`: of all ranks.
    """
    with torch.no_grad():
        left = masked_variance(returns.double() - values.double(), mask, reduce)
        there = masked_variance(returns.double(), mask, reduce)
        share = 1.0 - left / torch.where(there > 0, there, 1.0)
        return torch.where(there > 0, share, 0.0).float()


def _log_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    dtype = torch.promote_types(logps.dtype, torch.float32)
    # selected before exp: at padding a gradient of 0 times infinity would be NaN
    difference = torch.where(mask, logps.to(dtype) - old_logps.to(dtype), 0.0)
    return difference.clamp(max=MAX_LOG_RATIO)


def _max(x: Tensor) -> Tensor:
    return x.amax() if x.numel() else x.new_zeros(())
