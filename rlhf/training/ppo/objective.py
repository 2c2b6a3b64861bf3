"""What a step of PPO minimises, put together from its parts, and the norm of its gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.kl import kl_loss
from rlhf.training.ppo.losses import clipped_policy_loss, clipped_value_loss
from rlhf.training.ppo.rollout import MicroBatch

MEANS = {
    "policy_loss": "policy_loss",
    "value_loss": "value_loss",
    "kl_loss": "kl_loss",
    "clipped": "clip_fraction",
    "value_clipped": "value_clip_fraction",
    "approx_kl": "approx_kl",
}
"""Statistics of the losses, and what their means are called in the log."""


def step_loss(
    outputs: Any,
    batch: MicroBatch,
    options: PPOConfig,
    *,
    total: Tensor | float,
    kl_coef: float,
    critic_only: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The part of the step's loss that `batch` is, and the sums that its metrics come from.

    `outputs` are the policy's TokenOutputs [B, T] on the batch, `total` the completion tokens of
    the whole step over all ranks, `kl_coef` the price of KL where it is in the loss. The loss is
    policy + vf_coef * value - entropy_coef * entropy + kl_coef * KL.
    """
    mask = batch["mask"]
    policy, stats = clipped_policy_loss(
        outputs.logps,
        batch["logps"],
        batch["advantages"],
        mask,
        epsilon=options.epsilon,
        total=total,
    )
    value, value_stats = clipped_value_loss(
        outputs.values,
        batch["values"],
        batch["returns"],
        mask,
        epsilon=options.epsilon_value,
        total=total,
    )
    stats |= {key: each for key, each in value_stats.items() if key != "tokens"}
    if critic_only:  # DDP waits for every weight's gradient, of which this makes zeros
        return options.vf_coef * value + 0.0 * policy, stats
    loss = policy + options.vf_coef * value
    if options.entropy_coef:
        entropy = torch.where(mask, outputs.entropies, 0.0).sum() / total
        loss = loss - options.entropy_coef * entropy
    if options.kl_placement == "loss":
        kl = _kl(outputs, batch, options, total)
        loss = loss + kl_coef * kl
        stats["kl_loss"] = kl.detach() * total
    return loss, stats


def gradient_norm(weights: Sequence[Tensor]) -> Tensor:
    """The norm of the weights' gradients taken together, a scalar; 0 where none has one."""
    grads = [weight.grad for weight in weights if weight.grad is not None]
    if not grads:
        return torch.zeros((), device=weights[0].device)
    norm: Any = torch.nn.utils.get_total_norm(grads)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole.detach()


def _kl(outputs: Any, batch: MicroBatch, options: PPOConfig, total: Tensor | float) -> Tensor:
    return kl_loss(
        outputs.logps,
        batch["ref_logps"],
        batch["mask"],
        estimator=options.kl_estimator,
        total=total,
        old_logps=batch["logps"],
    )
