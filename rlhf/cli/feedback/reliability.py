"""`rlhf feedback reliability`: how reliable each rater is, and how sure that makes the labels."""

import argparse
from collections.abc import Sequence
from typing import Any

from rlhf.cli.feedback.reporting import add_arguments, report_on

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "how reliable each rater is, by one-coin Dawid-Skene, and how sure the labels are"
EXAMPLE = "rlhf feedback reliability --store feedback.db --campaign everyday --json raters.json"


def run(options: argparse.Namespace) -> None:
    """Print the table, and write it where it was asked for."""
    from rlhf.feedback.quality import reliability_report

    report_on(options, reliability_report, lines)


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
