"""`rlhf reward`: fit a reward model to preference pairs."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "fit a reward model to preference pairs"
EXAMPLE = "rlhf reward --config configs/reward.yaml --dataset_name feedback:feedback.db#quickstart"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("reward", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("reward", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.reward import train_reward

    return train_reward
