"""`rlhf export`: a finished stage's model in a folder, or on the hub, with a card."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlhf.config import CommandParser

SUMMARY = "write a stage's model, merged or as an adapter, to a folder or the hub, with its card"
EXAMPLE = "rlhf export runs/quickstart/dpo --output_dir exported"


def main(argv: Sequence[str]) -> int:
    """Export, and say in one line what came out."""
    words = command_line().parse_args(list(argv))
    from rlhf.export.stage import ExportOptions, export_stage
    from rlhf.models.loading import quiet_transformers
    from rlhf.training.quiet import silence_known_noise

    silence_known_noise()
    options = ExportOptions(**vars(words))
    with quiet_transformers():
        made = export_stage(options)
    kind = "adapter" if options.adapter_only else f"whole model, {made.metrics['dtype']}"
    marked = "; SIMULATED labels are behind it" if made.simulated else ""
    print(f"{options.output_dir}: {kind}, with model card and tokenizer{marked}")
    if options.push_to_hub:
        print(f"{options.push_to_hub}: uploaded")
    return 0


def command_line() -> argparse.ArgumentParser:
    """The options of `rlhf export`."""
    parser = CommandParser(
        prog="rlhf export", description=SUMMARY, epilog=f"example: {EXAMPLE}", allow_abbrev=False
    )
    parser.add_argument("stage_dir", type=Path, metavar="STAGE_DIR", help="a stage's --output_dir")
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help="folder to write; replaces an export",
    )
    parser.add_argument(
        "--dtype", help="float32 (the default), bfloat16 or float16: cast after merging in float32"
    )
    parser.add_argument(
        "--adapter_only", action="store_true", help="the adapter without its base, for PEFT"
    )
    parser.add_argument("--push_to_hub", metavar="REPO_ID", help="also upload it to OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="the hub's repository is private")
    return parser
