"""`rlhf feedback backup`: a consistent copy of a store, taken while it serves."""

import argparse
from pathlib import Path

SUMMARY = "copy a whole store to a new file, consistent while people rate"
EXAMPLE = "rlhf feedback backup feedback-monday.db --store feedback.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the file to make; it must not be there yet")


def run(options: argparse.Namespace) -> None:
    """Make the copy and say what is in it."""
    from rlhf.feedback.store import Store

    with Store.open(options.store) as store:
        store.backup(options.file)
    size = options.file.stat().st_size
    print(f"{options.file}: a copy of {options.store} ({size / 1e6:.1f} MB)")
