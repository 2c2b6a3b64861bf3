"""`rlhf ppo`: tune a policy by PPO to what its completions are rewarded with."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "tune a policy by PPO to what its completions are rewarded with"
EXAMPLE = "rlhf ppo --config configs/ppo.yaml --reward_model_name_or_path runs/reward"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("ppo", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("ppo", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.ppo.recipe import train_ppo

    return train_ppo
