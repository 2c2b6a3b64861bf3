"""`rlhf clean`: a data set repaired, with a log of each change."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf.config import CommandParser

SUMMARY = "write a repaired copy of a data set, with a log of each change"
EXAMPLE = "rlhf clean --dataset_name pairs.jsonl --output_file pairs.clean.jsonl"


def main(argv: Sequence[str]) -> int:
    """Clean, write the rows, the log and the manifest, and say what was changed."""
    options = command_line().parse_args(list(argv))
    from rlhf.data.cleaning import CleaningSteps, clean_to_file

    steps = CleaningSteps(
        normalise=options.normalise,
        extract=options.extract,
        mask_private=options.mask_private,
        drop_unusable=options.drop_unusable,
        deduplicate=options.deduplicate,
        near_threshold=options.near_threshold,
    )
    manifest = clean_to_file(
        options.dataset_name,
        options.output_file,
        options.log_file,
        steps,
        split=options.split,
        dataset_config=options.dataset_config,
    )
    metrics = manifest["metrics"]
    print(
        f"{options.output_file}: {metrics['num_rows_out']} of {metrics['num_rows_in']} rows, "
        f"{sum(metrics['changes'].values())} changes"
    )
    for step, count in sorted(metrics["changes"].items(), key=lambda item: -item[1]):
        print(f"  {step}: {count}", file=sys.stderr)
    return 0


def command_line() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="rlhf clean",
        description=SUMMARY,
        epilog=f"example: {EXAMPLE}. Cleaning the output again changes nothing.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dataset_name", required=True, help="file, folder, hub id or feedback:STORE#CAMPAIGN")
    add("--output_file", type=Path, required=True, help="JSONL file to write; never the input")
    add("--log_file", type=Path, help="a line for each change (default: OUTPUT.changes.jsonl)")
    add("--split", default="train", help="split of a hub data set or a folder (default: train)")
    add("--dataset_config", help="configuration name of a hub data set")
    switches = {
        "normalise": "line ends, control and zero-width characters, Unicode NFC, outer blanks",
        "extract": "transcripts (Human:, Assistant:) into messages",
        "drop_unusable": "remove the rows that a stage would drop",
        "deduplicate": "remove rows that repeat an earlier one exactly",
    }
    for name, text in switches.items():
        add(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=text)
    add(
        "--mask_private",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="put [EMAIL], [PHONE], [CARD], [IBAN] in the place of private data",
    )
    add(
        "--near_threshold",
        type=_similarity,
        metavar="X",
        help="also remove rows whose Jaccard similarity to an earlier one is X or more (0.8)",
    )
    return parser


def _similarity(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0 and at most 1")
    return value
