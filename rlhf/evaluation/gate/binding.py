"""Holds a gate's verdict to the reward model that it was passed on."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError, GateError
from rlhf.evaluation.gate.heldout import HELDOUT_NAME, TRAIN_SAMPLE_NAME
from rlhf.manifest import MANIFEST_NAME, Manifest, file_sha256
from rlhf.models.adapters import is_adapter
from rlhf.models.registry import ADAPTER_CONFIG_NAME, weight_hashes
from rlhf.models.reward_spec import SPEC_NAME, RewardSpec

GATE_NAME = "gate.json"
_RUN_NAME = "run.json"  # a training stage writes it first, and the manifest last
_NO_WEIGHTS = {"training_args.bin"}  # the trainer's, beside the weights


def reward_sha256(reward_dir: Path) -> str:
    """The sha256 (hex) of a reward model: all its members' weights, what they are computed by (an
    adapter's alpha, say), and how they are scored.

    ConfigError when there is no such folder, DataError when it holds no weights. It does not
    depend on where the folder lies.
    """
    if not reward_dir.is_dir():
        raise ConfigError(f"{reward_dir}: no such folder; give the --output_dir of rlhf reward")
    spec = RewardSpec.read(reward_dir)
    hashes = {
        f"{member}/{name}": digest
        for member in spec.members
        for name, digest in weight_hashes(spec.member_folder(reward_dir, member)).items()
        if name not in _NO_WEIGHTS
    }
    if not hashes:
        raise DataError(f"{reward_dir}: holds no weights; run rlhf reward to its end")
    for member in spec.members:
        folder = spec.member_folder(reward_dir, member)
        config = folder / (ADAPTER_CONFIG_NAME if is_adapter(folder) else "config.json")
        if config.is_file():
            hashes[f"{member}/{config.name}"] = file_sha256(config)
    parts = [f"{name} {digest}" for name, digest in sorted(hashes.items())]
    if (reward_dir / SPEC_NAME).is_file():
        parts.append((reward_dir / SPEC_NAME).read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def reward_stage(reward_dir: Path) -> Manifest:
    """The manifest of the stage that made the reward model, whose scored rows are as it left them.

    A reward model of another tool has no manifest, and so no ceiling; its held-out rows are
    enough for the rest, and an empty one is given. DataError for a stage that did not end (its
    files may be of two trainings), and for rows that were changed since.
    """
    if not (reward_dir / MANIFEST_NAME).is_file():
        if (reward_dir / _RUN_NAME).is_file():
            raise DataError(f"{reward_dir}: its training did not end; run rlhf reward to its end")
        return Manifest(stage="reward", config={})
    stage = Manifest.read(reward_dir)
    recorded = stage.outputs
    for name in (HELDOUT_NAME, TRAIN_SAMPLE_NAME):
        path = reward_dir / name
        if name in recorded and path.is_file() and file_sha256(path) != recorded[name]:
            raise DataError(
                f"{path}: changed since training wrote it, so its labels and scores prove nothing; "
                "put it back, or run rlhf reward again"
            )
    return stage


def read_gate(gate_dir: Path) -> dict[str, Any]:
    """What a finished gate wrote; GateError when there is none, DataError when it is damaged or
    contradicts itself or its manifest.
    """
    path = gate_dir / GATE_NAME
    if not path.is_file() or not (gate_dir / MANIFEST_NAME).is_file():
        raise GateError(f"{gate_dir}: no finished gate there; run rlhf gate on the reward model")
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(verdict["passed"], bool) and isinstance(verdict["reward"]["sha256"], str):
            refuse_contradictions(verdict, Manifest.read(gate_dir).metrics)
            return dict(verdict)
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path}: damaged; run rlhf gate again")


def refuse_contradictions(verdict: dict[str, Any], metrics: dict[str, Any]) -> None:
    """ValueError where a verdict is not what follows from its checks, or not what was recorded.

    A file edited by hand, or copied from another gate, is found by it; who edits everything
    consistently is not.
    """
    refused, override = verdict["refused_by"], verdict["override"]
    overridden = override is not None and bool(str(override["reason"]).strip())
    if not set(failed_names(verdict)) <= set(refused) or not isinstance(refused, list):
        raise ValueError("a check failed that it does not name")
    if verdict["passed"] != (not refused or overridden):
        raise ValueError("its verdict does not follow from what refused it")
    for key in ("passed", "override", "refused_by"):
        if key in metrics and metrics[key] != verdict[key]:
            raise ValueError("its manifest recorded another verdict")
    for check in verdict["checks"]:
        noted = (metrics.get("checks") or {}).get(check["name"], {})
        if any(check.get(key) != value for key, value in noted.items()):
            raise ValueError("its manifest recorded other checks")


def require_passed(gate_dir: str | Path, reward_dir: str | Path) -> dict[str, Any]:
    """The verdict of a gate that lets this reward model be optimised against.

    GateError (exit 5) when there is none, when it failed and nobody overrode it, and when it
    was passed by other weights. What comes back may be an override: `verdict["override"]`.
    """
    verdict = read_gate(Path(gate_dir))
    if verdict["reward"]["sha256"] != reward_sha256(Path(reward_dir)):
        raise GateError(
            f"{gate_dir}: this gate is of another reward model than {reward_dir} "
            f"({verdict['reward'].get('path')}); run rlhf gate --reward_dir {reward_dir}"
        )
    if not verdict["passed"]:
        raise GateError(
            f"{gate_dir}: the gate failed ({', '.join(failed_names(verdict))}); mend the reward "
            'model, or write down why it may be used with --override_reason "..."'
        )
    return verdict


def failed_names(verdict: dict[str, Any]) -> list[str]:
    """The names of the checks that failed."""
    return [check["name"] for check in verdict.get("checks", []) if check["passed"] is False]
