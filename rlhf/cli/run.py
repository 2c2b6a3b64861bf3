"""`rlhf run`: a whole pipeline, continuing where it stopped."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.config import CommandParser
from rlhf.errors import ConfigError

SUMMARY = "run a pipeline of stages; run it again to continue where it stopped"
EXAMPLE = "rlhf run configs/pipeline/quickstart.yaml --output_dir runs/quickstart"
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?", re.IGNORECASE)


def main(argv: Sequence[str]) -> int:
    """Parse, plan, run the stages, write the report and print the closing table."""
    from rlhf.cli import verb_module
    from rlhf.pipeline.plan import load_plan
    from rlhf.pipeline.runner import run_pipeline
    from rlhf.pipeline.summary import print_summary

    options, rest = command_line().parse_known_args(list(argv))
    plan = load_plan(options.pipeline, options.output_dir, read_overrides(rest))
    outcome = run_pipeline(
        plan,
        validate=lambda stage, words: verb_module(stage).parse(words),
        until=options.until,
        from_stage=options.from_stage,
    )
    if (outcome.exit_code and not outcome.refused) or outcome.awaiting:
        return outcome.exit_code
    # A refused run, too, ends in a report: what the gate found stands there.
    code = verb_module("report").main([str(plan.output_dir)]) or 0
    print_summary(plan)
    if outcome.refused:
        print(
            f"rlhf run: {outcome.refused} was not started, since the gate stopped it; what does "
            "not rest on it is done",
            file=sys.stderr,
        )
    return outcome.exit_code or code


def command_line() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="rlhf run",
        description=SUMMARY,
        epilog=f"example: {EXAMPLE} --ratings human --dpo.learning_rate 1e-4. "
        "Any --STAGE.KEY VALUE and any shared --KEY VALUE overrides the YAML.",
        allow_abbrev=False,
    )
    parser.add_argument("pipeline", type=Path, help="pipeline YAML: a section for each stage")
    parser.add_argument("--output_dir", type=Path, required=True, help="run folder")
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage")
    parser.add_argument(
        "--from_stage", metavar="STAGE", help="do this stage and all after it again"
    )
    return parser


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`--dpo.beta 0.2 --seed 1` as `{"dpo.beta": 0.2, "seed": 1}`; several values make a list."""
    overrides: dict[str, Any] = {}
    values: list[Any] = []
    key = None
    for word in words:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            values = [scalar(value)] if equals else []
            overrides[key] = values
        elif key is None:
            raise ConfigError(f"{word!r}: expected --KEY VALUE; see rlhf run --help")
        else:
            values.append(scalar(word))
    return {key: values_of(values) for key, values in overrides.items()}


def values_of(values: list[Any]) -> Any:
    """A flag alone means true, one value is itself, several are a list."""
    if not values:
        return True
    return values[0] if len(values) == 1 else values


def scalar(word: str) -> Any:
    """A word as the number, truth value or null that it plainly is, else the text itself.

    YAML's own rules would make `A or B: which?` a mapping and `010` eight.
    """
    if _NUMBER.fullmatch(word):
        return int(word) if word.lstrip("-").isdecimal() else float(word)
    return {"true": True, "false": False, "null": None}.get(word.lower(), word)
