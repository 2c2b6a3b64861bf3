"""Watches a run's metrics for what goes wrong in PPO, and says it in words with the numbers."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from rlhf.training.ppo.monitoring.causes import CAUSES, History
from rlhf.training.watching import Warnings


class WatchedConfig(Protocol):
    """What of PPOConfig the watch reads."""

    kl_budget: float | None
    max_completion_length: int


STOP_AFTER = 3
"""Rollouts in a row beyond the KL budget: the estimate of one is noisy, and the adaptive
controller may bring it back."""
MUST_BE_FINITE = ("score", "reward", "kl", "policy_loss", "value_loss", "value_mean", "entropy")
"""Metrics after which nothing can be learnt once they are NaN or infinite."""


class Watch:
    """Looks at the metrics of each rollout in turn; all ranks see the same and say the same.

    `stop_reason` is None until the run had better stop. `said` keeps every warning with the
    number of its rollout (from 1) and its optimizer step, for the manifest and the report.
    """

    def __init__(self, config: WatchedConfig) -> None:
        self.config = config
        self.stop_reason: str | None = None
        self._history = History()
        self._warnings = Warnings()
        self._num_beyond = 0

    @property
    def said(self) -> list[dict[str, Any]]:
        """Every warning so far: its cause, rollout, step and words."""
        return self._warnings.said

    def look(self, metrics: Mapping[str, float], *, step: int | None = None) -> list[str]:
        """The warnings that this rollout's metrics give rise to, in words.

        Each is given once, and again only after its cause was gone in between. Call it once a
        rollout, with the metrics of the rollout and of its updates together.
        """
        self._history.append(metrics)
        found = {"nan": self._not_finite(metrics), "kl_budget": self._beyond_budget(metrics)}
        found |= {name: cause(self._history, self.config) for name, cause in CAUSES.items()}
        return self._warnings.take(found, rollout=self._history.num_looks, step=step)

    def state_dict(self) -> dict[str, Any]:
        """All that later looks depend on, as JSON can hold it."""
        return {
            "stop_reason": self.stop_reason,
            "history": self._history.state_dict(),
            **self._warnings.state_dict(),
            "num_beyond": self._num_beyond,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.stop_reason = state["stop_reason"]
        self._history.load_state_dict(state["history"])
        self._warnings.load_state_dict(state)
        self._num_beyond = int(state["num_beyond"])

    def _not_finite(self, metrics: Mapping[str, float]) -> str | None:
        broken = [
            key for key in MUST_BE_FINITE if key in metrics and not math.isfinite(metrics[key])
        ]
        if not broken:
            return None
        words = f"{' and '.join(broken)} became NaN or infinite: nothing can be learnt from it"
        self.stop_reason = self.stop_reason or words
        return words

    def _beyond_budget(self, metrics: Mapping[str, float]) -> str | None:
        budget, kl = self.config.kl_budget, metrics.get("kl")
        if budget is None or kl is None or not kl > budget:
            self._num_beyond = 0
            return None
        self._num_beyond += 1
        words = f"KL of {kl:.3g} nats a completion is above the budget of {budget:g}"
        if self._num_beyond >= STOP_AFTER and self.stop_reason is None:
            self.stop_reason = f"{words}, for {self._num_beyond} rollouts in a row"
        return words
