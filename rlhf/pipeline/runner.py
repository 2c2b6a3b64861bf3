"""Runs a plan: each stage a process of its own, continuing wherever the last run stopped.

A stage is finished when its folder holds a manifest; it is current when the settings in
`config.yaml` and the manifests that it read are still the same. What is finished and current
is skipped; what is finished with other settings is never overwritten unasked.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import ConfigError, StageError
from rlhf.manifest import MANIFEST_NAME, file_sha256, make_folder, write_json, write_text
from rlhf.pipeline.plan import PipelinePlan, StagePlan
from rlhf.pipeline.summary import write_summary

CONFIG_NAME = "config.yaml"
UPSTREAM_NAME = "upstream.json"

Validate = Callable[[str, list[str]], object]
"""Parses a stage's command line and raises ConfigError on what the stage would refuse."""


def run_pipeline(
    plan: PipelinePlan,
    *,
    validate: Validate,
    until: str | None = None,
    from_stage: str | None = None,
) -> int:
    """Run what is not finished, up to `until`; `from_stage` and all after it are done again.

    Returns 0, also when people's ratings are still awaited, or the exit code of the stage
    that failed. Settings of all stages are checked before the first one starts.
    """
    last = plan.index(until) if until else len(plan.stages) - 1
    first_redone = plan.index(from_stage) if from_stage else len(plan.stages)
    with locked(make_folder(plan.output_dir)):
        validate_stages(plan, validate)
        refuse_changed_settings(plan, first_redone, last)
        for index, stage in enumerate(plan.stages[: last + 1]):
            print(f"[{index + 1}/{len(plan.stages)}] {stage.name}", end=" ", flush=True)
            if index >= first_redone:
                shutil.rmtree(stage.output_dir, ignore_errors=True)
            code = bring_up_to_date(plan, stage)
            write_summary(plan)
            if code or not is_finished(stage):
                return code
    return 0


def bring_up_to_date(plan: PipelinePlan, stage: StagePlan) -> int:
    """Run one stage unless it is finished and what it read is unchanged; its exit code."""
    upstream = upstream_hashes(plan, stage)
    if is_finished(stage):
        if read_upstream(stage) == upstream:
            print("is finished already")
            return 0
        print("read what has been made again since, so it starts over:", flush=True)
        shutil.rmtree(stage.output_dir)
    else:
        print(f"-> {stage.output_dir}", flush=True)
    make_folder(stage.output_dir)
    write_text(stage.output_dir / CONFIG_NAME, config_text(stage))
    begun = time.monotonic()
    code = run_stage(stage)
    if code == 0 and is_finished(stage):
        write_json(stage.output_dir / UPSTREAM_NAME, upstream)
        print(f"    {stage.name} took {time.monotonic() - begun:.0f} s", flush=True)
    return code


def run_stage(stage: StagePlan) -> int:
    """Start `rlhf STAGE --config ...` and wait; the stage itself says what went wrong."""
    command = [sys.executable, "-m", "rlhf", stage.name]
    command += ["--config", str(stage.output_dir / CONFIG_NAME)]
    process = subprocess.Popen(command, preexec_fn=die_with_parent)
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


def refuse_changed_settings(plan: PipelinePlan, first_redone: int, last: int) -> None:
    """A finished stage keeps its settings: changing them means asking for it by name."""
    for stage in plan.stages[: min(first_redone, last + 1)]:
        if not is_finished(stage):
            continue
        changed = changed_keys(stage)
        if changed:
            raise ConfigError(
                f"{stage.output_dir} was made with other settings ({', '.join(changed)}); "
                f"use --from_stage {stage.name} to make it again, or another --output_dir"
            )


def changed_keys(stage: StagePlan) -> list[str]:
    """`key: old -> new` for each setting that differs from those the stage was made with."""
    path = stage.output_dir / CONFIG_NAME
    old = yaml.safe_load(path.read_text()) if path.exists() else {}
    new = yaml.safe_load(config_text(stage))
    keys = sorted(set(old) | set(new))
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)
    ]


def config_text(stage: StagePlan) -> str:
    """The stage's settings as YAML; `rlhf STAGE --config` on that file repeats the stage."""
    return yaml.safe_dump(stage.config, sort_keys=True, allow_unicode=True)


def is_finished(stage: StagePlan) -> bool:
    """Whether the stage ran to its end: the manifest is written last."""
    return (stage.output_dir / MANIFEST_NAME).exists()


def upstream_hashes(plan: PipelinePlan, stage: StagePlan) -> dict[str, str]:
    """sha256 of the manifest of each stage that this one reads."""
    return {
        name: file_sha256(plan.output_dir / name / MANIFEST_NAME)
        for name in stage.requires
        if (plan.output_dir / name / MANIFEST_NAME).exists()
    }


def read_upstream(stage: StagePlan) -> Any:
    """The hashes noted when the stage finished; None when it was run by hand."""
    path = stage.output_dir / UPSTREAM_NAME
    return yaml.safe_load(path.read_text()) if path.exists() else None


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


def die_with_parent() -> None:
    """Ask Linux to end this process with its parent: an orphan would disturb the next run."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)
