"""What the stages that learn online say of a rollout alike: its record, the numbers of its
completions, and a run's score by its last rollouts.
"""

from rlhf.training.rollout_log.last import NUM_LAST, last_rollouts
from rlhf.training.rollout_log.metrics import completion_metrics
from rlhf.training.rollout_log.record import RolloutRecord

__all__ = ["NUM_LAST", "RolloutRecord", "completion_metrics", "last_rollouts"]
