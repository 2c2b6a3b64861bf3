"""What every engine that samples for a trainer does, and which one a run gets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from rlhf.models.rollouts.vllm_engine import VllmOptions


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion and how likely the engine itself found each of its tokens.

    `token_ids` holds the end token too when `ended`; `logps` is as long, in nats at the sampling
    temperature (at temperature 1 for greedy decoding).
    """

    token_ids: list[int]
    ended: bool
    logps: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample: from the whole distribution at `temperature` (0 is greedy), nothing cut off.

    `end_ids` end a completion; with `ignore_end` none does, so that all have `max_new_tokens`
    (benchmarks); the end tokens keep their probability, as the trainer's log-probabilities have
    them. `batch_size` completions are decoded together, all of them when None.
    """

    max_new_tokens: int
    pad_id: int
    end_ids: tuple[int, ...]
    temperature: float = 1.0
    batch_size: int | None = None
    ignore_end: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ConfigError(
                f"sampling of {self.max_new_tokens} tokens in batches of {self.batch_size}; both "
                "must be at least 1"
            )
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")


class RolloutEngine(Protocol):
    """Samples completions with the weights that the policy had at the last `sync`."""

    name: str

    def sync(self) -> None:
        """Take over the policy's present weights. On every rank at once where it is sharded."""

    def sample(
        self, prompt_ids: list[list[int]], *, seed: int, first_row: int = 0
    ) -> list[Sampled]:
        """A completion for each row, in their order; equal prompts are read once.

        Equal seed, prompts and weights give equal completions on one machine. Rollouts need seeds
        of their own; ranks share one when each says by `first_row` how many rows precede its own,
        and so draw what one process would for all of them.
        """

    def describe(self) -> str:
        """In words which engine this is, and why it was chosen."""

    def close(self) -> None:
        """Give back what the engine holds; it samples no more."""


def make_engine(
    policy: Any,
    sampling: Sampling,
    *,
    copy: Literal["auto", "always", "never"] = "auto",
    adapter: str = "default",
    vllm: "VllmOptions | None" = None,
) -> RolloutEngine:
    """The engine that samples from `policy` (a PeftModel, or a whole causal language model).

    `copy` is PPOConfig's rollout_copy: the adapter merged into a copy of the base, or the policy
    itself. Make it before a launcher shards the policy; `adapter` names the policy's. With `vllm`
    it is vLLM. Raises ConfigError when `always` asks for a copy that cannot be made, or vLLM for
    an adapter that it cannot serve.
    """
    if vllm is not None:
        from rlhf.models.rollouts.vllm_engine import VllmEngine

        return VllmEngine(policy, sampling, vllm, adapter=adapter)
    from rlhf.models.rollouts.merged_copy import MergedCopy, copy_size, free_bytes, obstacle
    from rlhf.models.rollouts.policy_engine import PolicyEngine

    if copy == "never":
        return PolicyEngine(policy, sampling, why="no copy was asked for")
    reason = obstacle(policy, adapter)
    if copy == "always":
        if reason is not None:
            raise ConfigError(f"rollout_copy always: {reason}; use auto or never")
        return MergedCopy(policy, sampling, adapter=adapter, why="it was asked for")
    if reason is None:
        size, free = copy_size(policy, adapter), free_bytes(policy)
        if free >= 2 * size:
            why = f"{_gb(size)} of the {_gb(free)} GB that are free"
            return MergedCopy(policy, sampling, adapter=adapter, why=why)
        reason = f"a copy of {_gb(size)} GB needs twice that free, and {_gb(free)} GB are"
    return PolicyEngine(policy, sampling, why=reason)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
