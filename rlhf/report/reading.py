"""Reads whatever a run folder holds; what is missing or damaged is noted, not fatal."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError
from rlhf.manifest import MANIFEST_NAME, Manifest
from rlhf.records import STAGES

LOGGED_STAGES = ("sft", "reward", "dpo", "ppo")


@dataclass(slots=True, kw_only=True)
class Run:
    """One run folder as it was found.

    `logs` are a stage's training log rows, `heldout` the reward model's held-out pairs,
    `rows` the evaluation's prompts with each policy's completion, `gaps` what could not be
    read, in words.
    """

    folder: Path
    stages: dict[str, Manifest] = field(default_factory=dict)
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    heldout: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def metrics(self, stage: str) -> dict[str, Any]:
        """A stage's metrics; empty when it has not run."""
        return self.stages[stage].metrics if stage in self.stages else {}

    @property
    def simulated(self) -> bool:
        """Whether any stage rests on simulated raters."""
        return any(manifest.simulated for manifest in self.stages.values())


def read_run(folder: Path) -> Run:
    """The run in a folder. ConfigError when it is missing, DataError when no stage is in it."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the --output_dir of a run")
    run = Run(folder=folder)
    for name in _stage_names(folder):
        _read_stage(run, name)
    if not run.stages:
        problem = run.gaps[0] if run.gaps else "no finished stage here"
        raise DataError(f"{folder}: {problem}; run a stage, then report again")
    absent = [name for name in STAGES if name not in run.stages and name not in _noted(run)]
    run.gaps += [f"{name}: this stage has not finished in this run" for name in absent]
    if "reward" in run.stages:
        run.heldout = _read_lines(run, folder / "reward" / "heldout.jsonl")
    if "evaluate" in run.stages:
        run.rows = _read_lines(run, folder / "evaluate" / "completions.jsonl")
    return run


def _stage_names(folder: Path) -> list[str]:
    """The known stages in their order, then any other folder with a manifest by name."""
    found = {path.parent.name for path in folder.glob(f"*/{MANIFEST_NAME}")}
    return [name for name in STAGES if name in found] + sorted(found - set(STAGES))


def _noted(run: Run) -> set[str]:
    return {gap.partition(":")[0] for gap in run.gaps}


def _read_stage(run: Run, name: str) -> None:
    try:
        run.stages[name] = Manifest.read(run.folder / name)
    except DataError:
        run.gaps.append(f"{name}: its {MANIFEST_NAME} is damaged; run the stage again")
        return
    log = run.folder / name / "log.json"
    if not log.exists():
        if name in LOGGED_STAGES:
            run.gaps.append(f"{name}: no log.json, so no curves")
        return
    try:
        rows = json.loads(log.read_text(encoding="utf-8"))
        run.logs[name] = [row for row in rows if isinstance(row, dict) and "step" in row]
    except (OSError, ValueError, TypeError):
        run.gaps.append(f"{name}: its log.json is damaged, so no curves")


def _read_lines(run: Run, path: Path) -> list[dict[str, Any]]:
    name = f"{path.parent.name}: {path.name}"
    if not path.exists():
        run.gaps.append(f"{name} is missing")
        return []
    rows: list[dict[str, Any]] = []
    # Not splitlines: a completion may hold U+2028 or a form feed, which it would split at.
    for number, line in enumerate(path.read_bytes().rstrip(b"\n").split(b"\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            run.gaps.append(f"{name} is damaged at line {number}; what stands above it is shown")
            break
        rows.append(row)
    return rows
