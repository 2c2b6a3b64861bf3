"""What both sides of the PPO benchmarks share: what a run is, its process, and its clock.

TRL's side runs beside another version of TRL, so this module imports nothing but the standard
library.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

PEER_VERSION = "1.12.0"
SCRIPTS = {"ours": "ppo_ours.py", "peer": "ppo_peer.py"}
PHASES = ("rollout_s", "scoring_s", "training_s")

_BEFORE_IMPORT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process trains: `num_updates` times `num_completions` completions.

    `policy` is the base's folder, `reward` an adapter of the reward stage on it, `merged_reward`
    the same as a whole model, `prompts` a JSONL of prompts and `prompt_ids` a JSON of their ids.
    Where `ignore_eos`, every completion has `max_new_tokens` tokens. With `adapter`, the policy
    that comes out is saved there. `options` hold for one side alone.
    """

    side: str
    policy: str
    reward: str
    merged_reward: str
    prompts: str
    prompt_ids: str
    num_updates: int
    num_completions: int = 16
    micro_batch_size: int = 4
    max_new_tokens: int = 48
    ignore_eos: bool = True
    num_iterations: int = 2
    learning_rate: float = 1e-5
    kl_coef: float = 0.05
    missing_eos_penalty: float = 0.0
    lora_r: int = 16
    lora_alpha: int = 32
    dtype: str = "bfloat16"
    seed: int = 0
    adapter: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


# The same on both sides, by TRL's names of them.
CLIP = 0.2
VALUE_CLIP = 0.2
VALUE_COEF = 0.1
GAMMA = 1.0
LAM = 0.95
TEMPERATURE = 1.0


def install_peer(folder: Path) -> Path:
    """The folder with TRL's last release that has PPO, made when it is missing."""
    if not (folder / "trl").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        wanted = f"trl=={PEER_VERSION}"
        subprocess.run([*command, "--target", str(folder), wanted], check=True)
    return folder


def measure(
    run: Run, folder: Path, name: str, trl_dir: Path, threads: int | None = None
) -> dict[str, Any]:
    """The result of `run`, made in a fresh process; one that is in `folder` already is read.

    `threads`: as many as the environment says, unless given. What it prints is in NAME.log.
    """
    spec, result = folder / f"{name}.run.json", folder / f"{name}.json"
    described = json.dumps(asdict(run), indent=1)
    if result.is_file() and spec.is_file() and spec.read_text() == described:
        print(f"{name}: measured before", file=sys.stderr)
        return dict(json.loads(result.read_text()))
    result.unlink(missing_ok=True)
    spec.write_text(described)
    script = Path(__file__).parent / SCRIPTS[run.side]
    with (folder / f"{name}.log").open("w") as log:
        finished = subprocess.run(
            [sys.executable, str(script), str(spec), str(result)],
            env=environment(run.side, trl_dir, threads),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if finished.returncode:
        raise SystemExit(f"{log.name}: the run failed; its last lines:\n{last_lines(log.name)}")
    return dict(json.loads(result.read_text()))


def environment(side: str, trl_dir: Path, threads: int | None = None) -> dict[str, str]:
    """Of a side's process: the peer finds TRL in `trl_dir` before the one that is installed."""
    found = os.environ | _BEFORE_IMPORT
    if threads is not None:
        found["OMP_NUM_THREADS"] = str(threads)
    if side == "peer":
        paths = [str(trl_dir.absolute()), os.environ.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return found


def last_lines(path: str, number: int = 15) -> str:
    return "\n".join(Path(path).read_text(errors="replace").splitlines()[-number:])


class Clock:
    """Seconds of each phase of each update, from calls that a trainer makes.

    An update begins where the one before it ended. Its rollout is what passes until the
    completions are there, its training begins with the first micro-batch that has gradients, and
    scoring is all that lies between: log-probabilities, values, rewards, advantages. `cpu_s` is
    what the process itself computed in an update: it says more where others use the machine too.
    """

    def __init__(self) -> None:
        self.updates: list[dict[str, float]] = []
        self.num_tokens: list[int] = []
        self._marks: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """An update begins: what was done until here is no part of it."""
        self._marks = {"began": time.perf_counter(), "cpu": time.process_time()}

    def sampled(self) -> None:
        self._marks["sampled"] = time.perf_counter()

    def count(self, num_tokens: int) -> None:
        """So many completion tokens were sampled, the end tokens among them."""
        self.num_tokens.append(num_tokens)

    def trains(self) -> None:
        """Called before each micro-batch; the first of an update counts."""
        self._marks.setdefault("trains", time.perf_counter())

    def end(self) -> None:
        """An update is done, and the next one begins."""
        now, marks = time.perf_counter(), self._marks
        self.updates.append(
            {
                "rollout_s": marks["sampled"] - marks["began"],
                "scoring_s": marks["trains"] - marks["sampled"],
                "training_s": now - marks["trains"],
                "step_s": now - marks["began"],
                "cpu_s": time.process_time() - marks["cpu"],
            }
        )
        self.begin()


def after(function: Callable[..., Any], do: Callable[[Any], None]) -> Callable[..., Any]:
    """`function`, which then calls `do` with what came back."""

    @wraps(function)
    def called(*args: Any, **rest: Any) -> Any:
        found = function(*args, **rest)
        do(found)
        return found

    return called


def peak_gb() -> float:
    """The most memory that this process ever held at once.

    On Linux ru_maxrss begins with what the parent held, which VmHWM does not.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def dtypes(named: Any) -> dict[str, int]:
    """{dtype: how many values of it are trained} of (name, parameter) pairs."""
    found: dict[str, int] = {}
    for _, one in named:
        if one.requires_grad:
            name = str(one.dtype).removeprefix("torch.")
            found[name] = found.get(name, 0) + one.numel()
    return found


def main(train: Callable[[Run], dict[str, Any]]) -> None:
    """What each side's script does: read the run, train, write the result in one piece."""
    spec, result = map(Path, sys.argv[1:])
    found = train(Run(**json.loads(spec.read_text())))
    part = result.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(result)
