"""Direct preference optimisation of a policy on pairs, against the model that it starts from."""

from rlhf.training.dpo.recipe import train_dpo
from rlhf.training.dpo.rows import read_columns
from rlhf.training.dpo.trainer import make_trainer

__all__ = ["make_trainer", "read_columns", "train_dpo"]
