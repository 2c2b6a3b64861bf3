"""`rlhf feedback campaign create`: a campaign from a YAML file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhf.feedback.campaign_file import CreatedCampaign

SUMMARY = "make a campaign from a YAML file"
EXAMPLE = (
    "rlhf feedback campaign create configs/campaigns/helpful.yaml --completions completions.jsonl "
    "--store feedback.db"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to make, and of which completions."""
    parser.add_argument("action", choices=("create",), help="create, and nothing else")
    parser.add_argument("file", type=Path, help="YAML file of the campaign; see docs/campaigns.md")
    parser.add_argument(
        "--completions",
        type=Path,
        help="rows that `rlhf sample` wrote, in place of the file's own completions",
    )


def run(options: argparse.Namespace) -> None:
    """Make the campaign, whole or not at all, and say what is in it."""
    from rlhf.cli.feedback.filling import fill_store
    from rlhf.feedback.campaign_file import create_campaign, plan_campaign

    plan = plan_campaign(options.file, completions=options.completions)
    created = fill_store(options.store, lambda store: create_campaign(store, plan))
    print(f"{options.store}: {_line(created)}")
    if created.num_identical:
        print(f"  left out: {created.num_identical} pairs whose completions say the same")
    if created.num_repeated:
        print(f"  left out: {created.num_repeated} that stand in the file before")


def _line(created: "CreatedCampaign") -> str:
    campaign = created.campaign
    raters = "1 rater" if campaign.overlap == 1 else f"{campaign.overlap} raters"
    parts = [f"{created.num_items} items, {raters} for each"]
    if created.num_gold:
        parts.append(f"{created.num_gold} gold items")
    if created.num_qualification:
        parts.append(f"{created.num_qualification} qualification items")
    state = "made" if created.new else "is there already, and stays as it is"
    return f"campaign {campaign.name!r} ({campaign.task}) {state}: {', '.join(parts)}"
