"""`rlhf online_dpo`: tune a policy by DPO in rounds, on pairs of completions that it writes."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "tune a policy by DPO in rounds, on pairs of its own that rewards or a judge label"
EXAMPLE = "rlhf online_dpo --config configs/online_dpo.yaml --reward_model_name_or_path runs/reward"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("online_dpo", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("online_dpo", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.online_dpo.recipe import train_online_dpo

    return train_online_dpo
