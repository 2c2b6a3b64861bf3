"""What the commands that measure a campaign share: which one, a table, and the numbers as JSON."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf.feedback.store import Store

Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which campaign, and where the numbers go."""
    parser.add_argument("--campaign", required=True, help="the campaign to measure")
    parser.add_argument("--json", type=Path, help="file to write the same numbers to")


def report_on(
    options: argparse.Namespace,
    measure: "Callable[[Store, str], Report]",
    lines: Callable[[Report], list[str]],
) -> None:
    """Print what is measured as `lines` say it, and write it where it was asked for."""
    from rlhf.feedback.store import Store
    from rlhf.manifest import make_folder, write_json

    with Store.open(options.store) as store:
        report = measure(store, options.campaign)
    if options.json:
        make_folder(options.json.parent)
        write_json(options.json, report)
    for line in lines(report):
        print(line)
