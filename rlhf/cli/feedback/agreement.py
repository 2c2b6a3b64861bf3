"""`rlhf feedback agreement`: how far the raters of a campaign agree."""

import argparse
from typing import Any

from rlhf.cli.feedback.reporting import add_arguments, report_on

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "how far raters agree: percent, Krippendorff's alpha, Cohen's kappa two by two"
EXAMPLE = "rlhf feedback agreement --store feedback.db --campaign everyday --json agreement.json"


def run(options: argparse.Namespace) -> None:
    """Print the table, and write it where it was asked for."""
    from rlhf.feedback.quality import agreement_report

    report_on(options, agreement_report, lines)


def lines(report: dict[str, Any]) -> list[str]:
    """The report as a table for reading."""
    mark = f", {report['num_simulated_annotators']} SIMULATED" if report["simulated"] else ""
    out = [
        f"{report['campaign']}: {report['num_judgements']} judgements of "
        f"{report['num_judged_items']} items (of {report['num_items']}) by "
        f"{report['num_annotators']} raters{mark}"
    ]
    if report["num_excluded_annotators"]:
        out.append(f"left out: {report['num_excluded_annotators']} excluded raters")
    if report["note"]:
        out.append(f"note: {report['note']}")
    for name, numbers in report["measures"].items():
        out += ["", name, *_measure_lines(numbers)]
    return out


def _measure_lines(numbers: dict[str, Any]) -> list[str]:
    low, high = numbers["percent_agreement_ci"] or (None, None)
    out = [_line("percent agreement", numbers["percent_agreement"], low, high)]
    for level, alpha in numbers["krippendorff_alpha"].items():
        out.append(_line(f"alpha, {level}", alpha["value"], alpha["low"], alpha["high"]))
    if numbers["pairs"]:
        title = "pair of raters"
        names = [f"{one['a']} / {one['b']}" for one in numbers["pairs"]]
        width = max(map(len, [title, *names]))
        out.append(f"  {title:{width}}      n  agreement  kappa  weighted kappa")
    for one in numbers["pairs"]:
        values = [_number(one[key]) for key in ("percent_agreement", "kappa", "weighted_kappa")]
        out.append(
            f"  {one['a'] + ' / ' + one['b']:{width}}  {one['n']:5}  {values[0]:>9}  "
            f"{values[1]:>5}  {values[2]:>14}"
        )
    return out


def _line(name: str, value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return f"  {name:18}  undefined"
    return f"  {name:18}  {value:.3f}  (95% {low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
