"""How far the policy is from its reference: estimates from samples, and the price of it.

All of it is about KL(policy || reference), the mean of log policy - log reference over what the
policy itself samples. The other direction would punish what the policy no longer says.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from rlhf.errors import ConfigError, StageError

Estimator = Literal["k1", "k2", "k3"]

MAX_LOG_RATIO = 60.0
"""exp(60) is still far from float32's end, so that 0 times it is 0, not NaN."""

_MAX_ERROR = 0.2
"""Ziegler et al. (2019): a step's relative error counts as no more than this."""


def kl_estimate(logps: Tensor, ref_logps: Tensor, estimator: Estimator) -> Tensor:
    """Each token's estimate [B, T], in nats, of KL(policy || reference) where it was chosen.

    `logps` and `ref_logps` [B, T] are log-probabilities of tokens that the policy of `logps`
    sampled, at one temperature. With x = logps - ref_logps (Schulman, "Approximating KL
    divergence", joschu.net/blog/kl-approx.html):

    - k1 = x: unbiased, but a single one is often negative;
    - k2 = x^2 / 2: never negative, biased, little so while the two are near;
    - k3 = exp(-x) - 1 + x: never negative and unbiased.

    Where both are 0, as at padding, all three are 0. Float32 at least; differentiable, but see
    `kl_loss` for what the gradients are worth.
    """
    dtype = torch.promote_types(logps.dtype, torch.float32)
    x = logps.to(dtype) - ref_logps.to(dtype)
    if estimator == "k1":
        return x
    if estimator == "k2":
        return 0.5 * x.square()
    assert estimator == "k3", estimator
    return torch.expm1(-x) + x


def kl_loss(
    logps: Tensor,
    ref_logps: Tensor,
    mask: Tensor,
    *,
    estimator: Estimator,
    total: Tensor | float,
    old_logps: Tensor | None = None,
) -> Tensor:
    """The scalar sum of each token's estimate where `mask` [B, T], divided by `total`.

    `total` is the number of completion tokens of the whole optimizer step, over all ranks. What
    the gradients with respect to `logps` are in expectation, over tokens that the policy p
    samples, with reference q and s the gradient of log p:

    - k2: the mean of (log p - log q) s, which is the gradient of KL(p || q). The right one.
    - k3: the mean of (1 - q/p) s, the gradient of KL(q || p): the other direction, which agrees
      where the two are near and pulls much harder where the policy has given up a token.
    - k1: the mean of s, which is 0: it adds noise and holds nothing. See `require_estimator`.

    It is each token's own KL: that a token leads to states further from the reference is not
    charged to it, as it is when the KL is in the reward.

    From the second pass over a rollout on, its tokens are samples of an older policy. Given its
    `old_logps` [B, T], each token is weighted by p / p_old (a constant to the gradient), which
    keeps the expectations above. At the first pass the weights are 1.
    """
    logps = torch.where(mask, logps, 0.0)  # before exp: garbage times a gradient of 0 is NaN
    estimates = kl_estimate(logps, torch.where(mask, ref_logps, 0.0), estimator)  # [B, T]
    if old_logps is not None:
        moved = (logps.detach() - torch.where(mask, old_logps, 0.0)).to(estimates.dtype)
        estimates = estimates * moved.clamp(max=MAX_LOG_RATIO).exp()
    return torch.where(mask, estimates, 0.0).sum() / total


def require_estimator(estimator: str, placement: str) -> None:
    """ConfigError for an unknown estimator or placement, and for k1 in the loss."""
    if estimator not in ("k1", "k2", "k3"):
        raise ConfigError(f"kl_estimator: {estimator!r} is none of k1, k2, k3")
    if placement not in ("reward", "loss"):
        raise ConfigError(f"kl_placement: {placement!r} is neither reward nor loss")
    if (estimator, placement) == ("k1", "loss"):
        raise ConfigError(
            "kl_estimator: k1 with kl_placement: loss holds nothing, since the mean of its "
            "gradient is zero; take k2, whose gradient is that of the KL, or kl_placement: reward"
        )


class FixedKL:
    """A price of KL that stays what it is."""

    def __init__(self, coef: float) -> None:
        _require_coef(coef)
        self.coef = float(coef)

    def update(self, kl: float, num_completions: int) -> None:
        """Nothing: as `AdaptiveKL.update`, so that the trainer need not ask which it has."""

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` needs to go on as if never stopped."""
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a `state_dict`."""
        self.coef = float(state["coef"])


class AdaptiveKL(FixedKL):
    """A price of KL that rises while the KL is above `target` and falls while it is below.

    The proportional controller of Ziegler et al. (2019, arXiv 1909.08593, section 2.2): with
    e = clip(kl / target - 1, -0.2, 0.2), a rollout of n completions multiplies the price by
    1 + e n / horizon. `target` is in nats a completion, `horizon` in completions.
    """

    def __init__(self, coef: float, *, target: float, horizon: float) -> None:
        super().__init__(coef)
        if not coef > 0:
            raise ConfigError("kl_coef: 0 with kl_controller: adaptive stays 0; begin above it")
        if not (math.isfinite(target) and target > 0):
            raise ConfigError(f"kl_target: {target} nats a completion; it has to be above 0")
        if not horizon > 0:
            raise ConfigError(f"kl_horizon: {horizon} completions; it has to be above 0")
        self.target = float(target)
        self.horizon = float(horizon)

    def update(self, kl: float, num_completions: int) -> None:
        """Move the price after a rollout: `kl` is the mean nats of its `num_completions`.

        A rollout longer than the horizon counts as one horizon: the price stays above 0.
        StageError when `kl` is not finite.
        """
        if not math.isfinite(kl):
            raise StageError(f"KL of a rollout is {kl}; the policy's log-probabilities are broken")
        error = min(max(kl / self.target - 1.0, -_MAX_ERROR), _MAX_ERROR)
        self.coef *= 1.0 + error * min(num_completions / self.horizon, 1.0)


def _require_coef(coef: float) -> None:
    if not (math.isfinite(coef) and coef >= 0):
        raise ConfigError(f"kl_coef: {coef}; it has to be 0 or more")
