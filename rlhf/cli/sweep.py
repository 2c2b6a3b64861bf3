"""`rlhf sweep`: search the settings of any training stage."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.cli.run import read_overrides
from rlhf.config import CommandParser, take_option
from rlhf.errors import ConfigError, StageError

SUMMARY = "search a training stage's settings; run it again to go on where it stopped"
EXAMPLE = "rlhf sweep configs/sweep/dpo.yaml --output_dir runs/sweep-dpo --num_trials 12"


def main(argv: Sequence[str]) -> int:
    """Parse, search (or only show), and print the table with what was found."""
    words = list(argv)
    folder = take_option(words, "show")
    if folder is not None:
        if words:
            raise ConfigError(f"--show runs nothing, so it takes no {words[0]}; drop one of them")
        return show(Path(folder))
    options, rest = command_line().parse_known_args(words)
    from rlhf.sweep.search import run_sweep

    plan = read_plan(options, rest)
    try:
        run_sweep(plan, options.output_dir, keep_checkpoints=options.keep_checkpoints)
    except StageError:
        show(options.output_dir)
        raise
    return show(options.output_dir)


def command_line() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="rlhf sweep",
        description=SUMMARY,
        epilog=f"example: {EXAMPLE}. Any other --KEY VALUE is a setting of the stage, for every "
        "trial; docs/sweep.md has the keys of the YAML.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP.yaml", help="what to search, of which stage"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder of the study and of its trials"
    )
    parser.add_argument(
        "--show", metavar="DIR", help="run nothing: the table, sweep.html and best.yaml of a sweep"
    )
    parser.add_argument("--num_trials", type=int, help="trials in all, those done before included")
    parser.add_argument("--metric", help="what to compare by: of the manifest or of log.json")
    parser.add_argument("--direction", help="minimize or maximize")
    parser.add_argument("--sampler", help="tpe, random or grid")
    parser.add_argument("--pruner", help="median or none")
    parser.add_argument("--seed", type=int, help="of the proposals; the stage's is in settings")
    parser.add_argument(
        "--keep_checkpoints", action="store_true", help="of pruned trials, which else lose them"
    )
    return parser


def read_plan(options: argparse.Namespace, rest: Sequence[str]) -> Any:
    """The checked plan of a command line; runs nothing."""
    from rlhf.cli import verb_module
    from rlhf.sweep.plan import load_plan
    from rlhf.training.arguments import TRAINING_STAGES

    own = ("num_trials", "metric", "direction", "sampler", "pruner", "seed")
    overrides = {key: getattr(options, key) for key in own if getattr(options, key) is not None}
    given = {key.replace("-", "_"): value for key, value in read_overrides(rest).items()}
    return load_plan(
        options.sweep,
        overrides,
        given,
        stages=TRAINING_STAGES,
        validate=lambda stage, words: verb_module(stage).parse(words),
    )


def plan(argv: Sequence[str]) -> Any:
    """The plan of a command line, checked as the sweep itself would; runs nothing."""
    options, rest = command_line().parse_known_args(list(argv))
    return read_plan(options, rest)


def show(folder: Path) -> int:
    """Write and print what a sweep has come to by now."""
    from rlhf.sweep.outcome import print_outcome, write_outcome
    from rlhf.sweep.study import read_study

    plan, trials = read_study(folder)
    print_outcome(plan, write_outcome(plan, trials, folder), folder)
    return 0
