"""What a PPO run says of itself: numbers, warnings in words, its best checkpoint, its completions.

The trainer hands a `RolloutRecord` (flat, without padding) and the statistics of its updates to
pure functions; what they return goes to the log, to `Watch` and to `CompletionLog`.
"""

from rlhf.training.ppo.monitoring.best import BestWithinBudget, best_checkpoint, run_summary
from rlhf.training.ppo.monitoring.clock import TIMING_PREFIXES, PhaseClock
from rlhf.training.ppo.monitoring.completions import CompletionLog, send_table
from rlhf.training.ppo.monitoring.metrics import eval_metrics, rollout_metrics, update_metrics
from rlhf.training.ppo.monitoring.watch import Watch
from rlhf.training.rollout_log.record import RolloutRecord

__all__ = [
    "TIMING_PREFIXES",
    "BestWithinBudget",
    "CompletionLog",
    "PhaseClock",
    "RolloutRecord",
    "Watch",
    "best_checkpoint",
    "eval_metrics",
    "rollout_metrics",
    "run_summary",
    "send_table",
    "update_metrics",
]
