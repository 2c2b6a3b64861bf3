"""Reinforce with a leave-one-out baseline (arXiv 2402.14740), by TRL's trainer."""

from rlhf.training.online_trl import train_online as train_rloo
from rlhf.training.prompts import read_columns

__all__ = ["read_columns", "train_rloo"]
