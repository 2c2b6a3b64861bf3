"""`rlhf report`: a run folder as one HTML file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlhf.config import CommandParser
from rlhf.errors import ConfigError

SUMMARY = "write what a run shows into one HTML file that opens anywhere, without a network"
EXAMPLE = "rlhf report runs/quickstart"


def main(argv: Sequence[str]) -> int:
    """Write a report for each run folder and print where it is."""
    options = command_line().parse_args(list(argv))
    if options.output is not None and len(options.folders) > 1:
        raise ConfigError("--output takes one file; give one run folder with it")
    from rlhf.report.page import write_report
    from rlhf.report.reading import read_run

    for folder in options.folders:
        path = write_report(read_run(folder), options.output or folder / "report.html")
        print(f"report: {path}")
    return 0


def command_line() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="rlhf report", description=SUMMARY, epilog=f"example: {EXAMPLE}", allow_abbrev=False
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="a pipeline's --output_dir, or one stage's",
    )
    parser.add_argument("--output", type=Path, metavar="F.html", help="default: DIR/report.html")
    return parser
