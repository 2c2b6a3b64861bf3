"""Sampling from the policy itself: no memory, no sync, the adapter computed beside the base."""

from typing import Any

from rlhf.errors import ConfigError
from rlhf.models.rollouts.decoding import decode
from rlhf.models.rollouts.engine import Sampled, Sampling
from rlhf.models.rollouts.whole_weights import is_sharded


class PolicyEngine:
    """Samples from `policy` as it stands, with whichever adapter is active; `why` says why."""

    name = "policy"

    def __init__(self, policy: Any, sampling: Sampling, *, why: str = "it was asked for") -> None:
        self.policy = policy
        self.sampling = sampling
        self.why = why

    def sync(self) -> None:
        """Nothing: the policy is always itself."""

    def sample(
        self, prompt_ids: list[list[int]], *, seed: int, first_row: int = 0
    ) -> list[Sampled]:
        """See RolloutEngine. ConfigError where other ranks hold parts of the policy."""
        if any(is_sharded(weight) for weight in self.policy.parameters()):
            raise ConfigError(
                "rollouts from the policy itself: it is sharded over processes, which each decode "
                "at their own pace; use LoRA with rollout_copy always, or use_vllm"
            )
        # LoRA lives inside the base's own layers, so the unwrapped model decodes with it.
        wrapped = hasattr(self.policy, "get_base_model")
        model = self.policy.get_base_model() if wrapped else self.policy
        return decode(model, prompt_ids, self.sampling, seed=seed, first_row=first_row)

    def describe(self) -> str:
        """In words which engine this is, and why it was chosen."""
        return f"rollouts from the policy itself: {self.why}"

    def close(self) -> None:
        """Nothing is held."""
