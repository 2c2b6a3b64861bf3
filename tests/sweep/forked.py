"""Trials forked from the test's own process, which has imported all that they need: the real
stage, or a scripted one that takes no time. Both are processes that can be killed.
"""

import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlhf.manifest import Manifest, write_json
from rlhf.pipeline.runner import die_with_parent
from rlhf.sweep.plan import SweepPlan
from rlhf.sweep.space import parameters_of
from tests.processes import _exit_code

SEARCH = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "beta": [0.1, 0.2, 0.4]}
NUM_STEPS = 4


class Forked:
    """Stands in for a trial's subprocess.Popen: `body()` in a process group of its own."""

    def __init__(self, body: Callable[[], int], output: Path) -> None:
        parent = os.getpid()
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            die_with_parent(parent)
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            code = 1
            try:
                code = body()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """As Popen's."""
        ends = math.inf if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired("trial", timeout or 0)
            time.sleep(0.002)
        return code


def start_real(stage: str, config: Path, output: Path) -> Forked:
    """The stage itself, as `rlhf STAGE --config CONFIG` would run it."""
    forked = Forked(lambda: _exit_code([stage, "--config", str(config)]), output)
    output.with_name("pid").write_text(str(forked.pid))
    return forked


def start_scripted(stage: str, config: Path, output: Path) -> Forked:
    """A stage of four steps whose loss is known: see `loss_at`."""
    return Forked(lambda: scripted(yaml.safe_load(config.read_text())), output)


def loss_at(settings: Mapping[str, Any], step: int) -> float:
    """Least at a learning rate of 1e-3 and a small beta; falls with the steps."""
    miss = math.log10(settings["learning_rate"]) + 3
    return miss * miss + settings["beta"] + (NUM_STEPS - step)


def scripted(settings: Mapping[str, Any]) -> int:
    """Trains nothing: a log that grows and a manifest; `wait_at` and `fail` say otherwise.

    Goes on from the steps that are in its log, as a stage does from its last checkpoint.
    """
    folder = Path(settings["output_dir"])
    with (folder / "starts").open("a") as stream:
        stream.write("x")
    if (folder / "manifest.json").exists():
        return 0
    log = folder / "log.json"
    rows = json.loads(log.read_text()) if log.exists() else []
    for step in range(len(rows) + 1, NUM_STEPS + 1):
        if code := _trouble(settings, step, folder):
            return code
        rows.append({"step": step, "loss": 1.0, "eval_loss": loss_at(settings, step)})
        (folder / f"checkpoint-{step}").mkdir(exist_ok=True)
        write_json(log, rows)
    manifest = Manifest(stage="dpo", config=dict(settings), simulated=settings.get("mark", False))
    manifest.metrics = {"num_steps": NUM_STEPS, "eval_loss": loss_at(settings, NUM_STEPS)}
    manifest.metrics |= {"held": {"accuracy": 0.5}, "reached": None}
    manifest.write(folder)
    return 0


def _trouble(settings: Mapping[str, Any], step: int, folder: Path) -> int:
    """What happens at a step: the exit code of a failure, or a wait for `folder`/go."""
    if settings["learning_rate"] > settings.get("diverges_above", math.inf):
        os.write(2, b"rlhf dpo: the loss became NaN at step 1; lower --learning_rate\n")
        return 4
    if "fails_with" in settings:
        os.write(2, b"a line before\nrlhf dpo: pairs.jsonl: no such file\n")
        return int(settings["fails_with"])
    if step == settings.get("dies_at") and len((folder / "starts").read_text()) <= settings["dies"]:
        os.kill(os.getpid(), 9)
    while step == settings.get("waits_at") and not (folder.parent / "go").exists():
        time.sleep(0.005)
    return 0


def make_plan(search: Mapping[str, Any] = SEARCH, **changes: Any) -> SweepPlan:
    """A plan over SEARCH that no parser has seen; `settings` go to the scripted stage."""
    values: dict[str, Any] = {
        "stage": "dpo",
        "settings": {},
        "parameters": parameters_of(dict(search), "search"),
        "metric": "eval_loss",
        "direction": "minimize",
        "num_trials": 5,
        "sampler": "tpe",
        "sampler_startup_trials": 3,
        "pruner": "none",
        "pruner_metric": "eval_loss",
        "pruner_startup_trials": 2,
        "pruner_warmup_steps": 0,
        "seed": 0,
        "reads": {},
    }
    return SweepPlan(**{**values, **changes})


def sweep_scripted(folder: Path, changes: Mapping[str, Any]) -> int:
    """A sweep of the scripted stage as a process of its own: 0 at its end."""
    from rlhf.sweep import search, trial

    # As in a terminal: what a shell starts in the background is born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    vars(trial)["start"] = start_scripted
    vars(trial)["_POLL_S"] = 0.005
    search.run_sweep(make_plan(**changes), folder)
    return 0


def sweep_real(words: list[str]) -> int:
    """`rlhf sweep WORDS` in this process, its trials forked from it."""
    from rlhf.cli import main
    from rlhf.sweep import trial

    vars(trial)["start"] = start_real
    return main(["sweep", *words])
