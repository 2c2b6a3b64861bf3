"""`rlhf feedback reliability`: how reliable each rater is, and how sure that makes the labels."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUMMARY = "how reliable each rater is, by one-coin Dawid-Skene, and how sure the labels are"
EXAMPLE = "rlhf feedback reliability --store feedback.db --campaign everyday --json raters.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--campaign", required=True, help="the campaign to measure")
    parser.add_argument("--json", type=Path, help="file to write the same numbers to")


def run(options: argparse.Namespace) -> None:
    """Print the table, and write it where it was asked for."""
    from rlhf.feedback.quality import reliability_report
    from rlhf.feedback.store import Store
    from rlhf.manifest import make_folder, write_json

    with Store.open(options.store) as store:
        report = reliability_report(store, options.campaign)
    if options.json:
        make_folder(options.json.parent)
        write_json(options.json, report)
    for line in lines(report):
        print(line)


def lines(report: dict[str, Any]) -> list[str]:
    """The report as a table for reading."""
    mark = f", {report['num_simulated_annotators']} SIMULATED" if report["simulated"] else ""
    out = [f"{report['campaign']}: {report['num_annotators']} raters{mark}; {report['model']}"]
    if report["note"]:
        out.append(f"note: {report['note']}")
    if report["raters"]:
        out += ["", "comparisons", *_rater_lines(report["raters"])]
    for flag in report["flags"]:
        head = f"flag {flag['flag']} (on {flag['share']:.1%} of completions)"
        out += ["", head, *_rater_lines(flag["raters"])]
    graph, labels = report["connectivity"], report["labels"]
    if labels:
        out += ["", f"labels by {labels['method']} ({labels['why']}): {labels['num_pairs']} pairs, "
                f"mean p_chosen {labels['mean_p_chosen']:.3f}, {labels['num_sure']} at 0.9 or "
                f"more, {labels['num_unsure']} under 0.6"]  # fmt: skip
        out.append(
            f"graph: {graph['num_completions']} completions, {graph['num_pairs']} judged pairs, "
            f"{graph['num_components']} components, the largest of {graph['num_largest']}"
        )
    return out


def _rater_lines(raters: Sequence[dict[str, Any]]) -> list[str]:
    width = max(len("rater"), *(len(one["name"]) for one in raters))
    out = [f"  {'rater':{width}}      n  weight  right answers (95%)"]
    for one in raters:
        known = one["value"] is not None
        said = f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" if known else "unknown"
        out.append(f"  {one['name']:{width}}  {one['n']:5}  {one['weight']:6.2f}  {said}")
    return out
