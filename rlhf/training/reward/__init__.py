"""The reward stage: one score for each completion, fitted so that the chosen one scores higher."""

from rlhf.training.reward.recipe import make_trainer, train_reward
from rlhf.training.reward.rows import read_columns

__all__ = ["make_trainer", "read_columns", "train_reward"]
