"""`rlhf grpo`: tune a policy by GRPO on completions that it writes itself."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "tune a policy by GRPO against a reward model that passed its gate, or functions"
EXAMPLE = "rlhf grpo --config configs/grpo.yaml --reward_model_name_or_path runs/reward"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("grpo", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("grpo", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.grpo import train_grpo

    return train_grpo
