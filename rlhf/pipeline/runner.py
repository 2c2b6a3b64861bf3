"""Runs a plan: each stage a process of its own, continuing wherever the last run stopped.

A stage is finished when its folder holds a manifest; it is current when its settings and all
that it read (`reads.json`) are still the same. What is finished and current is skipped; what is
finished with other settings is never overwritten unasked.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rlhf.config import decides_result
from rlhf.errors import ConfigError, StageError
from rlhf.manifest import MANIFEST_NAME, file_sha256, make_folder, write_json, write_text
from rlhf.pipeline.plan import PipelinePlan, StagePlan
from rlhf.pipeline.summary import write_summary

CONFIG_NAME = "config.yaml"
READS_NAME = "reads.json"

Validate = Callable[[str, list[str]], object]
"""Parses a stage's command line and raises ConfigError on what the stage would refuse."""

DATA_KEYS = ("dataset_name", "eval_dataset_name", "ratings")
"""Settings that may name a file whose content decides what a stage makes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its exit code, and the stage that waits for people, if one does."""

    exit_code: int
    awaiting: str | None = None


def run_pipeline(
    plan: PipelinePlan,
    *,
    validate: Validate,
    until: str | None = None,
    from_stage: str | None = None,
) -> Outcome:
    """Run what is not finished, up to `until`; `from_stage` and those after it are done again.

    A stage that fails ends the run with its exit code. Settings of all stages are checked
    before anything is started or removed.
    """
    last = plan.index(until) if until else len(plan.stages) - 1
    first_redone = plan.index(from_stage) if from_stage else last + 1
    if from_stage and first_redone > last:
        raise ConfigError(f"--from_stage {from_stage} comes after --until {until}; nothing to do")
    with locked(make_folder(plan.output_dir)):
        validate_stages(plan, validate)
        refuse_changed_settings(plan, first_redone)
        for stage in plan.stages[first_redone : last + 1]:
            shutil.rmtree(stage.output_dir, ignore_errors=True)
        return run_stages(plan, last)


def run_stages(plan: PipelinePlan, last: int) -> Outcome:
    """Bring the stages up to `last` up to date, one after the other, until one stops the run."""
    for index, stage in enumerate(plan.stages[: last + 1]):
        print(f"[{index + 1}/{len(plan.stages)}] {stage.name}", end=" ", flush=True)
        code = bring_up_to_date(plan, stage)
        write_summary(plan)
        if code:
            return Outcome(code)
        if not is_finished(stage):
            return Outcome(0, awaiting=stage.name)
    return Outcome(0)


def bring_up_to_date(plan: PipelinePlan, stage: StagePlan) -> int:
    """Run one stage unless it is finished and what it reads is unchanged; its exit code."""
    reads, noted = what_is_read(plan, stage), read_json(stage.output_dir / READS_NAME)
    if noted is not None and noted != reads:
        print("read what has changed since, so it starts over:", end=" ")
        shutil.rmtree(stage.output_dir)
    elif is_finished(stage):
        print("is finished already")
        return 0
    print(f"-> {stage.output_dir}", flush=True)
    make_folder(stage.output_dir)
    write_text(stage.output_dir / CONFIG_NAME, config_text(stage))
    write_json(stage.output_dir / READS_NAME, reads)
    begun = time.monotonic()
    code = run_stage(stage)
    if code == 0 and is_finished(stage):
        print(f"    {stage.name} took {time.monotonic() - begun:.0f} s", flush=True)
    return code


def run_stage(stage: StagePlan) -> int:
    """Start `rlhf STAGE --config ...` and wait; the stage itself says what went wrong."""
    command = [sys.executable, "-m", "rlhf", stage.name]
    command += ["--config", str(stage.output_dir / CONFIG_NAME)]
    process = subprocess.Popen(command, preexec_fn=partial(die_with_parent, os.getpid()))
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if code < 0:
        name = signal.Signals(-code).name
        raise StageError(f"stage {stage.name} was ended by {name}; run the same command to go on")
    return code


def validate_stages(plan: PipelinePlan, validate: Validate) -> None:
    """Parse every stage's settings as the stage will, so that a misspelt key costs no time."""
    for stage in plan.stages:
        path = plan.output_dir / f".{stage.name}.yaml"
        write_text(path, config_text(stage))
        try:
            validate(stage.name, ["--config", str(path)])
        except ConfigError as error:
            message = str(error).replace(str(path), f"section {stage.name}")
            raise ConfigError(f"pipeline {plan.name}: {message}") from None
        finally:
            path.unlink(missing_ok=True)


def refuse_changed_settings(plan: PipelinePlan, first_redone: int) -> None:
    """A finished stage keeps its settings: changing them means asking for it by name."""
    for stage in plan.stages[:first_redone]:
        changed = changed_keys(stage) if is_finished(stage) else []
        if changed:
            raise ConfigError(
                f"{stage.output_dir} was made with other settings ({', '.join(changed)}); "
                f"use --from_stage {stage.name} to make it again, or another --output_dir"
            )


def changed_keys(stage: StagePlan) -> list[str]:
    """`key: old -> new` for each setting that changes the result and differs from what was."""
    path = stage.output_dir / CONFIG_NAME
    if not path.exists():
        return []
    old, new = (deciding_settings(text) for text in (path.read_text(), config_text(stage)))
    keys = sorted(set(old) | set(new))
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)
    ]


def deciding_settings(text: str) -> dict[str, Any]:
    """The settings that decide a stage's result, with the run's own folder written as `RUN`.

    So a run folder may be moved, or named by another path, and logging may change.
    """
    settings = yaml.safe_load(text)
    run = str(Path(settings["output_dir"]).parent)
    return {
        key: json.loads(json.dumps(value).replace(f'"{run}/', '"RUN/').replace(f"={run}/", "=RUN/"))
        for key, value in settings.items()
        if decides_result(key)
    }


def config_text(stage: StagePlan) -> str:
    """The stage's settings as YAML; `rlhf STAGE --config` on that file repeats the stage."""
    return yaml.safe_dump(stage.config, sort_keys=True, allow_unicode=True)


def is_finished(stage: StagePlan) -> bool:
    """Whether the stage ran to its end: the manifest is written last."""
    return (stage.output_dir / MANIFEST_NAME).exists()


def what_is_read(plan: PipelinePlan, stage: StagePlan) -> dict[str, str]:
    """sha256 of the manifest of each stage that this one reads, and of its data files."""
    manifests = {name: plan.output_dir / name / MANIFEST_NAME for name in stage.requires}
    files = {key: Path(str(stage.config.get(key))) for key in DATA_KEYS}
    paths = {**manifests, **files}
    return {name: file_sha256(path) for name, path in paths.items() if path.is_file()}


def read_json(path: Path) -> Any:
    """What a JSON file holds; None when there is none."""
    return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder: two runs in one folder would write over each other."""
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another run is at work there; wait for it or use another --output_dir"
            ) from None
        yield


def die_with_parent(parent: int) -> None:
    """Ask Linux to end this process with its parent: an orphan would disturb the next run."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it went before the request was made
            os._exit(1)
