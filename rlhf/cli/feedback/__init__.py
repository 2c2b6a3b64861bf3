"""`rlhf feedback COMMAND`: campaigns and their ratings, in and out of a store.

A command is a module here with `SUMMARY` (one line), `EXAMPLE` (a command that works),
`add_arguments(parser)` and `run(options)`. Each takes `--store`.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from rlhf.config import CommandParser

SUMMARY = "make campaigns, bring ratings in and out of a feedback store, measure them"
EXAMPLE = "rlhf feedback export --store feedback.db --campaign everyday --output ratings.jsonl"

COMMANDS = {
    "import": "rlhf.cli.feedback.importing",
    "export": "rlhf.cli.feedback.exporting",
    "check": "rlhf.cli.feedback.checking",
    "backup": "rlhf.cli.feedback.backup",
    "campaign": "rlhf.cli.feedback.campaign",
    "agreement": "rlhf.cli.feedback.agreement",
    "reliability": "rlhf.cli.feedback.reliability",
}


def main(argv: Sequence[str]) -> int:
    """Run one of the commands."""
    words = list(argv)
    options = _parser(words).parse_args(words)
    command_module(options.command).run(options)
    return 0


def command_module(command: str) -> Any:
    """The module that implements `command`; imported only now, since some take long."""
    return importlib.import_module(COMMANDS[command])


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that `words` call and none of the others.

    Only `rlhf feedback --help` needs all of them: each has its line there.
    """
    parser = CommandParser(
        prog="rlhf feedback", description=SUMMARY, epilog=f"example: {EXAMPLE}", allow_abbrev=False
    )
    called = next(iter(words), "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        if called in (name, "-h", "--help"):
            _add_command(commands, name)
        else:
            commands.add_parser(name)
    return parser


def _add_command(commands: "argparse._SubParsersAction[CommandParser]", name: str) -> None:
    module = command_module(name)
    parser = commands.add_parser(
        name,
        help=module.SUMMARY,
        description=module.SUMMARY,
        epilog=f"example: {module.EXAMPLE}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--store", required=True, help="path of a SQLite file, or a postgresql:// URL"
    )
    module.add_arguments(parser)
