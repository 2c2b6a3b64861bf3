"""`rlhf kto`: tune a policy on completions labelled good or not by KTO."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "tune a policy on completions labelled good or not by KTO"
EXAMPLE = "rlhf kto --config configs/kto.yaml --dataset_name feedback:feedback.db#quickstart"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("kto", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("kto", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.kto.recipe import train_kto

    return train_kto
