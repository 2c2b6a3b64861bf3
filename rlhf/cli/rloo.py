"""`rlhf rloo`: tune a policy by RLOO on completions that it writes itself."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "tune a policy by RLOO against a reward model that passed its gate, or functions"
EXAMPLE = "rlhf rloo --config configs/rloo.yaml --reward_model_name_or_path runs/reward"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("rloo", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("rloo", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.rloo import train_rloo

    return train_rloo
