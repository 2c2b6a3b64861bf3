"""A tiny reward model that passed its gate, made once a session for each shape of it."""

import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from rlhf.evaluation.gate.binding import GATE_NAME, reward_sha256
from rlhf.manifest import Manifest, write_json
from rlhf.models.reward_spec import RewardSpec
from tests.models.reward_models import save_reward

SCORE_MEAN, SCORE_STD = 0.25, 2.0
_kept = tempfile.TemporaryDirectory(prefix="tiny-reward-")  # until the process ends


def gated_reward(
    root: Path,
    base: Path,
    *,
    num_members: int = 1,
    heads: tuple[tuple[str, float], ...] = (("score", 1.0),),
    simulated: bool = False,
    passed: bool = True,
    override: str | None = None,
    name: str = "reward",
) -> Path:
    """The folder ROOT/NAME of a reward model on `base` (the `tiny_model` fixture, say), with
    ROOT/gate beside it, where stages look for it.

    `passed=False` with an `override` is a gate that a person let pass, without one a failed gate.
    """
    folder = root / name
    shutil.copytree(_made(base, num_members, heads), folder)
    Manifest(stage="reward", config={}, simulated=simulated).write(folder)
    write_gate(root / "gate", folder, passed=passed, override=override)
    return folder


def write_gate(
    gate: Path, reward: Path, *, passed: bool = True, override: str | None = None
) -> Path:
    """A finished gate's folder of `reward`."""
    gate.mkdir(parents=True, exist_ok=True)
    verdict = {
        "passed": passed or override is not None,
        "override": {"reason": override} if override else None,
        "refused_by": [] if passed else ["accuracy"],
        "reward": {"path": str(reward), "sha256": reward_sha256(reward)},
        "checks": [{"name": "accuracy", "passed": passed}],
    }
    write_json(gate / GATE_NAME, verdict)
    Manifest(stage="gate", config={}).write(gate)
    return gate


@cache
def _made(base: Path, num_members: int, heads: tuple[tuple[str, float], ...]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_kept.name)) / "reward"
    save_reward(base, folder, num_members=num_members, heads=dict(heads))
    spec = RewardSpec.read(folder)
    replace(spec, score_mean=SCORE_MEAN, score_std=SCORE_STD).write(folder)
    return folder
