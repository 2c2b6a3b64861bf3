"""Group-relative policy optimisation (arXiv 2402.03300), by TRL's trainer."""

from rlhf.training.online_trl import train_online as train_grpo
from rlhf.training.prompts import read_columns

__all__ = ["read_columns", "train_grpo"]
