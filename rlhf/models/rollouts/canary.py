"""Whether the engine that samples and the trainer that learns are the same policy.

They compute the same log-probabilities by other kernels, in other batches, from weights that were
copied: small differences are noise. An adapter that never reached the engine looks like noise too
in the first updates, and is told apart by where the engine stands between reference and policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from rlhf.errors import StageError

LogpRows: TypeAlias = Tensor | Sequence[Sequence[float]]
"""Log-probabilities as [B, T], or a list of them for each completion."""


@dataclass(frozen=True, slots=True)
class LogpDifference:
    """How far the engine's log-probabilities are from the trainer's, in nats a token.

    `way` is where the engine stands on the way from the reference (0) to the policy (1), and
    `way_error` its standard error; None where the two do not differ or no reference was given.
    """

    mean: float
    max: float
    num_tokens: int
    way: float | None = None
    way_error: float | None = None


class LogpCanary:
    """Compares after each sync, and stops the run (StageError) when the two are not one policy.

    `tolerance` is the mean absolute difference in nats a token that is put up with; `engine` is
    the engine's name for the message.
    """

    def __init__(self, tolerance: float, *, engine: str = "the sampler") -> None:
        assert tolerance > 0, "a tolerance is above 0"
        self.tolerance = tolerance
        self.engine = engine

    def check(
        self,
        engine_logps: LogpRows,
        policy_logps: LogpRows,
        mask: Tensor,
        ref_logps: LogpRows | None = None,
    ) -> LogpDifference:
        """The difference on the tokens where `mask` [B, T] is True.

        All are of the same completions at the same temperature; `policy_logps` and `ref_logps`
        are the trainer's. Raises StageError on a value that is not a number, on a mean difference
        above the tolerance, and below it when the engine is nearer to the reference than to the
        policy by more than chance.
        """
        engine, policy = _tokens(engine_logps, mask), _tokens(policy_logps, mask)
        self._require_numbers(engine, self.engine)
        self._require_numbers(policy, "the trainer")
        if engine.numel() == 0:
            return LogpDifference(0.0, 0.0, 0)
        gaps = (engine - policy).abs()
        way, error = None, None
        if ref_logps is not None:
            way, error = _way(engine, policy, _tokens(ref_logps, mask))
        found = LogpDifference(float(gaps.mean()), float(gaps.max()), len(gaps), way, error)
        self._judge(found)
        return found

    def _judge(self, found: LogpDifference) -> None:
        numbers = (
            f"mean {found.mean:.3g} and at most {found.max:.3g} nats a token over "
            f"{found.num_tokens} tokens"
        )
        if _stayed_behind(found):
            raise StageError(
                f"rollouts: {self.engine} samples from the reference, not from the policy (it "
                f"stands {found.way:.2f} of the way between them; {numbers}): the trained adapter "
                "has not reached it; set rollout_copy never and leave use_vllm out, and report this"
            )
        if found.mean > self.tolerance:
            raise StageError(
                f"rollouts: {self.engine} and the trainer disagree about the sampled tokens "
                f"({numbers}; logp_tolerance {self.tolerance:g}): other weights, another dtype or "
                "temperature; set rollout_copy never, or raise logp_tolerance if this is rounding"
            )

    @staticmethod
    def _require_numbers(logps: Tensor, whose: str) -> None:
        bad = int((~logps.isfinite()).sum())
        if bad:
            raise StageError(
                f"rollouts: {bad} of {logps.numel()} log-probabilities of {whose} are not finite: "
                "the policy's weights have diverged; go back to an earlier checkpoint with a lower "
                "learning_rate"
            )


def _tokens(logps: LogpRows, mask: Tensor) -> Tensor:
    """The values [N] where `mask` is True, in fp64 on the CPU."""
    if isinstance(logps, Tensor):
        assert logps.shape == mask.shape, (logps.shape, mask.shape)
        return logps.detach()[mask].double().cpu()
    lengths = mask.sum(1).tolist()
    assert [len(row) for row in logps] == lengths, "a log-probability for each token"
    return torch.tensor([value for row in logps for value in row], dtype=torch.float64)


def _way(engine: Tensor, policy: Tensor, ref: Tensor) -> tuple[float | None, float | None]:
    """The slope of (engine - ref) on (policy - ref) through 0, and its standard error.

    The error is White's (1980), which holds when some tokens are noisier than others.
    """
    apart = policy - ref
    total = float((apart**2).sum())
    if not 0 < total < float("inf"):
        return None, None
    slope = float(((engine - ref) * apart).sum()) / total
    residuals = engine - ref - slope * apart
    error = float(((residuals * apart) ** 2).sum()) ** 0.5 / total
    return slope, error


def _stayed_behind(found: LogpDifference) -> bool:
    """Whether the engine is at the reference, where rounding alone would leave it half way.

    Policy and reference are rounded apart: when nothing but that separates them, the slope is one
    half whichever of the two the engine samples from.
    """
    if found.way is None or found.way_error is None:
        return False
    return found.way < 0.25 and found.way + 4 * found.way_error < 0.5
