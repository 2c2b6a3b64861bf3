"""Telling findings: as lines when a stage starts, and as doctor.json in its folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf.data.doctor.findings import Finding, finding_lines, findings_as_dicts
from rlhf.data.formats import data_line
from rlhf.data.sources import LoadedDataset
from rlhf.manifest import write_json

DOCTOR_NAME = "doctor.json"


def print_inputs(
    datasets: Sequence[LoadedDataset], wanted: str, findings: Sequence[Finding]
) -> None:
    """Log a line for each data set and one for each finding, the gravest first."""
    lines = [data_line(dataset, wanted) for dataset in datasets]
    for line in [*lines, *(f"doctor: {line}" for line in finding_lines(findings))]:
        print(line, file=sys.stderr)


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Write doctor.json: every finding with its examples, and the places of what is lost."""
    write_json(folder / DOCTOR_NAME, findings_as_dicts(findings, places=True))
