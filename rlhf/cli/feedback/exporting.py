"""`rlhf feedback export`: a campaign's judgements into a file, or onto the hub."""

import argparse
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError

SUMMARY = "a campaign's judgements into a file or onto the hub, as they are or for a trainer"
EXAMPLE = "rlhf feedback export --store feedback.db --campaign everyday --output ratings.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to export, as what, and where to."""
    from rlhf.feedback.exports import FORMATS
    from rlhf.feedback.soft_labels import METHODS

    add = parser.add_argument
    add("--campaign", required=True, help="the campaign to export")
    add("--output", type=Path, help="file to write: .jsonl, .jsonl.gz, .json or .parquet")
    add(
        "--format",
        choices=FORMATS,
        default="judgements",
        help="judgements as they are (default); TRL's preference pairs, unpaired, rankings as "
        "pairs, written demonstrations; or rated completions",
    )
    add(
        "--method",
        choices=METHODS,
        default="votes",
        help="how votes become labels (default: votes); see `rlhf feedback reliability`",
    )
    add("--push_to_hub", metavar="REPO", help="put them there as a data set, USER/NAME")
    add("--private", action="store_true", help="with --push_to_hub: make the repository private")


def run(options: argparse.Namespace) -> None:
    """Write or push, and say what was left out."""
    from rlhf.feedback.exports import export_file
    from rlhf.feedback.publishing import push_export
    from rlhf.feedback.store import Store

    if options.output is None and options.push_to_hub is None:
        raise ConfigError("give --output FILE, --push_to_hub REPO, or both")
    if options.private and options.push_to_hub is None:
        raise ConfigError("--private goes with --push_to_hub")
    words = {"method": options.method}
    with Store.open(options.store) as store:
        if options.output is not None:
            manifest = export_file(
                store, options.campaign, options.output, format_name=options.format, **words
            )
            _print_result(str(options.output), manifest)
        if options.push_to_hub is not None:
            manifest = push_export(
                store,
                options.campaign,
                options.format,
                options.push_to_hub,
                private=options.private,
                **words,
            )
            _print_result(options.push_to_hub, manifest)


def _print_result(where: str, manifest: dict[str, Any]) -> None:
    mark = "; SIMULATED raters among them" if manifest["simulated"] else ""
    print(
        f"{where}: {manifest['num_rows']} rows from {manifest['num_judgements']} judgements{mark}"
    )
    for name, number in manifest["counts"].items():
        if number:
            print(f"  {name}: {number}")
