"""`rlhf gate`: whether a reward model may be optimised against."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf.errors import printable

if TYPE_CHECKING:
    from rlhf.evaluation.gate.arguments import GateArguments

SUMMARY = "judge a reward model against thresholds before anyone optimises against it"
EXAMPLE = "rlhf gate --reward_dir RUN/reward --output_dir RUN/gate --config configs/gate.yaml"


def main(argv: Sequence[str]) -> int:
    """Measure, write gate.json and manifest.json, print the table; 5 when the gate refuses."""
    config = parse(argv)
    from rlhf.errors import GateError
    from rlhf.evaluation.gate.study import run_gate
    from rlhf.training.quiet import silence_known_noise

    silence_known_noise()
    verdict = run_gate(config)
    print_verdict(verdict)
    print(f"gate: {config.output_dir}/gate.json")
    if verdict["passed"]:
        return 0
    print(f"rlhf gate: {refusal(verdict, config.output_dir)}", file=sys.stderr)
    return GateError.exit_code


def parse(argv: Sequence[str]) -> GateArguments:
    """The settings in --config and on the command line; ConfigError for what is wrong there."""
    from rlhf.config import parse_config
    from rlhf.evaluation.gate.arguments import GateArguments

    (config,) = parse_config("gate", [GateArguments], argv, example=EXAMPLE, summary=SUMMARY)
    return config


def refusal(verdict: Mapping[str, Any], folder: str) -> str:
    """What failed, where, and what may be done, in one line."""
    names = ", ".join(verdict["refused_by"])
    return (
        f"{folder}: failed by {names}; mend the reward model or its labels, or write down why it "
        'may be used all the same: --override_reason "..."'
    )


def print_verdict(verdict: Mapping[str, Any]) -> None:
    """The closing table: each check with its value, interval, n and what was asked."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "check", "found", "asked", title="The gate")
    for check in verdict["checks"]:
        asked = check["details"].get("asked") or threshold_text(check["threshold"])
        table.add_row(mark(check), check["title"], value_text(check), asked)
    console = Console()
    console.print(table)
    for check in verdict["checks"]:
        if check["passed"] is not True:
            line = printable(f"{mark(check)} {check['title']}: {check['words']}")
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if verdict["simulated"]:
        console.print("The raters were SIMULATED: these numbers say nothing about people.")
    if verdict["override"]:
        reason = printable(verdict["override"]["reason"])
        console.print(f"FAILED, and passed by an override: {reason}", markup=False)
    else:
        console.print("passed" if verdict["passed"] else "FAILED")


def mark(check: Mapping[str, Any]) -> str:
    """Passed, failed or not measured, in words."""
    return {True: "ok", False: "FAIL", None: "not measured"}[check["passed"]]


def value_text(check: Mapping[str, Any]) -> str:
    """`0.68 [0.56, 0.79] n=81`; a dash where nothing was measured."""
    if check["value"] is None:
        return "-"
    if check["low"] is None or check["low"] == check["high"]:
        return f"{check['value']:.3g} n={check['n']}"
    return f"{check['value']:.2f} [{check['low']:.2f}, {check['high']:.2f}] n={check['n']}"


def threshold_text(threshold: float | None) -> str:
    return "nothing asked" if threshold is None else f"threshold {threshold:g}"
