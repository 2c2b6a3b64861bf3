"""`rlhf sft`: fine-tune on demonstrations; the result is the base of the later stages."""

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.cli.training import run_stage

SUMMARY = "fine-tune on demonstrations; the result is the base of the later stages"
EXAMPLE = "rlhf sft --config configs/sft.yaml --dataset_name demonstrations.jsonl"


def main(argv: Sequence[str]) -> int:
    """Parse the settings and run the stage."""
    return run_stage("sft", argv, EXAMPLE, recipe, summary=SUMMARY)


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked as the stage itself would; runs nothing."""
    from rlhf.training.arguments import parse_settings

    return parse_settings("sft", list(argv), example=EXAMPLE)


def recipe() -> Callable[[Any], None]:
    from rlhf.training.sft import train_sft

    return train_sft
