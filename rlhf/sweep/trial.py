"""One trial: the stage's own command as a process, watched by the log that it writes."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import yaml

from rlhf.errors import ConfigError, nearest_hint
from rlhf.manifest import MANIFEST_NAME, Manifest, make_folder, write_text
from rlhf.pipeline.runner import CONFIG_NAME, die_with_parent
from rlhf.training.checkpoints import checkpoints
from rlhf.training.monitoring import LOG_NAME

OUTPUT_NAME = "output.log"
_POLL_S = 0.2
_GRACE_S = 15
_TAIL = 20_000  # bytes of what a process said last
_MAX_NAMED = 40

Prune = Callable[[int, float], bool]
"""Takes a step and the watched metric there; whether the trial is to be stopped."""


class Process(Protocol):
    """What is asked of a trial's process; subprocess.Popen has it."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a trial's process ended: its exit code (below 0 for a signal), or where it was pruned.

    `reason` is what it said last, when it failed. `metrics` are all numbers of its manifest and of
    the last rows of its log, nested ones by dots. `simulated` is None where no manifest says.
    """

    exit_code: int | None
    pruned_at: int | None = None
    reason: str = ""
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    simulated: bool | None = None


def run_trial(
    stage: str,
    settings: Mapping[str, Any],
    *,
    watched: str,
    prune: Prune,
    note: Callable[[int], None],
) -> Ended:
    """Run `rlhf STAGE` with `settings` in their `output_dir`, or go on with it there.

    `prune` is asked at each row of the log that has the `watched` metric, in order and whatever
    the process has done meanwhile: the log alone decides, never the clock. `note` hears of steps.
    """
    folder = make_folder(Path(settings["output_dir"]))
    config = prepare(folder, settings)
    begun = time.monotonic()
    process = start(stage, config, folder / OUTPUT_NAME)
    try:
        pruned_at = watch(process, folder / LOG_NAME, watched, prune, note)
    except BaseException:
        stop(process)
        raise
    seconds = round(time.monotonic() - begun, 1)
    code = None if pruned_at is not None else process.wait()
    finished = code == 0 and (folder / MANIFEST_NAME).exists()
    manifest = Manifest.read(folder) if finished else None
    return Ended(
        exit_code=code,
        pruned_at=pruned_at,
        reason="" if finished or code is None else reason_of(stage, folder, code),
        seconds=seconds,
        metrics=all_metrics(manifest.metrics if manifest else {}, read_log(folder / LOG_NAME)),
        simulated=manifest.simulated if manifest else None,
    )


def prepare(folder: Path, settings: Mapping[str, Any]) -> Path:
    """The trial's config.yaml. What an interrupted trial of other values left is cleared away;
    ConfigError when that one is finished, which no study of ours knows of.
    """
    path = folder / CONFIG_NAME
    text = yaml.safe_dump(dict(settings), sort_keys=True, allow_unicode=True)
    if path.exists() and _without_folder(path.read_text()) != _without_folder(text):
        if (folder / MANIFEST_NAME).exists():
            raise ConfigError(
                f"{folder}: holds a finished trial of other values, which this study has not; "
                "choose another --output_dir"
            )
        shutil.rmtree(folder)
        make_folder(folder)
    write_text(path, text)
    return path


def _without_folder(text: str) -> dict[str, Any]:
    return {key: value for key, value in yaml.safe_load(text).items() if key != "output_dir"}


def start(stage: str, config: Path, output: Path) -> Process:
    """`rlhf STAGE --config CONFIG` as a process group of its own, which ends when this one does."""
    command = [sys.executable, "-m", "rlhf", stage, "--config", str(config)]
    with output.open("ab") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )


def watch(
    process: Process, log: Path, watched: str, prune: Prune, note: Callable[[int], None]
) -> int | None:
    """Read the log as it grows until the process ends; the step at which the trial was pruned."""
    seen, stamp = 0, -1
    while True:
        code = process.poll()  # before the log is read: its last rows must not be missed
        now = log.stat().st_mtime_ns if log.exists() else -1
        if now != stamp:
            stamp, rows = now, read_log(log)
            if rows:
                note(int(rows[-1].get("step", 0)))
            for step, value in list(values_of(rows, watched))[seen:]:
                seen += 1
                if prune(step, value):
                    stop(process)
                    return step
        if code is not None:
            return None
        time.sleep(_POLL_S)


def values_of(rows: list[dict[str, Any]], key: str) -> Iterator[tuple[int, float]]:
    """(step, value) of the rows that have a number under `key`."""
    for row in rows:
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield int(row["step"]), float(value)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a trial's log.json; none where there is none yet."""
    try:
        rows = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def stop(process: Process) -> None:
    """End a process and all that it started: asked to first, then made to."""
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):  # they are gone; the exit code is still to be fetched
            os.killpg(process.pid, number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue


def reason_of(stage: str, folder: Path, code: int) -> str:
    """Why a process failed: the line that the stage ends with, or how it was ended."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if code == 0:
        return f"it made no {MANIFEST_NAME}"
    with (folder / OUTPUT_NAME).open("rb") as stream:
        stream.seek(max(0, (folder / OUTPUT_NAME).stat().st_size - _TAIL))
        lines = [line for line in stream.read().decode(errors="replace").splitlines() if line]
    said = [line for line in lines if line.startswith(f"rlhf {stage}: ")] or lines
    return said[-1].removeprefix(f"rlhf {stage}: ") if said else f"exit code {code}"


def all_metrics(metrics: Mapping[str, Any], rows: list[dict[str, Any]]) -> dict[str, float]:
    """Every number that a trial can be compared by: the log's last ones < the manifest's.

    One that came out as NaN or infinite, which JSON holds as null, is NaN.
    """
    found: dict[str, float] = {}
    for row in rows:
        found |= _numbers(row)
    for key in ("step", "epoch"):
        found.pop(key, None)
    return found | _numbers(metrics)


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{key}.")
        elif value is None:
            found[f"{prefix}{key}"] = math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = value
    return found


def metric_of(metrics: Mapping[str, float], name: str, where: Path) -> float:
    """The metric that trials are compared by, NaN where it came out as no number; ConfigError that
    lists what there is instead.
    """
    if name in metrics:
        return float(metrics[name])
    named = sorted(key for key, value in metrics.items() if math.isfinite(value))
    more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    raise ConfigError(
        f"{where}: has no metric {name!r}{nearest_hint(name, named)}; there are "
        f"{', '.join(named[:_MAX_NAMED])}{more}; give another --metric"
    )


def clear_checkpoints(folder: Path) -> None:
    """Remove a pruned trial's checkpoints; its settings, its log and what it said stay."""
    for checkpoint in checkpoints(folder):
        shutil.rmtree(checkpoint, ignore_errors=True)
