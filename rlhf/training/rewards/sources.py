"""Where rewards come from: reward models that passed their gate, and functions.

sources = load_sources(stage, training, shared=True, dtype="bfloat16")
for source in sources.sources:
    if source.is_shared: ...            # put its adapters (source.folder) on the policy's base
scored = sources.score(episodes, {"reward": scores})       # every rollout
scored.scores, scored.token_scores, scored.by_source, scored.warnings
sources.inputs(), sources.provenance(), sources.simulated   # for the manifest
sources.state_dict(), sources.load_state_dict(state)        # for checkpoints
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError
from rlhf.evaluation.gate.binding import GATE_NAME, require_passed, reward_sha256
from rlhf.manifest import file_sha256
from rlhf.models.registry import made_from_simulated
from rlhf.models.reward_spec import RewardSpec
from rlhf.models.scoring import RewardModel
from rlhf.training.rewards.checks import gate_folders, source_weights
from rlhf.training.rewards.functions import find_function, function_sha256
from rlhf.training.rewards.options import ScoreOptions
from rlhf.training.rewards.scoring import RewardSources


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate that lets a reward model be optimised against: its folder, the hash of what it
    wrote, and its verdict (`override` is {"reason", ...} where a person let it pass).
    """

    folder: Path
    sha256: str
    verdict: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For a manifest's provenance."""
        kept = {key: self.verdict.get(key) for key in ("passed", "override", "refused_by")}
        return {"path": str(self.folder), "sha256": self.sha256, **kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSource:
    """One source of rewards.

    A reward function has `function`. A reward model has `folder`, `spec` and `gate`; loaded
    whole it has `model` too, and without one it `is_shared`: PPO computes its raw Scores on the
    policy's own base and hands them in by `name`. `sha256` is of its weights, or of the file
    that defines the function.
    """

    name: str
    weight: float
    sha256: str
    function: Callable[..., Any] | None = None
    model: RewardModel | None = None
    folder: Path | None = None
    spec: RewardSpec | None = None
    gate: Gate | None = None
    origin: str = ""  # as it was named in the settings

    @property
    def is_shared(self) -> bool:
        """Whether somebody else computes its scores."""
        return self.function is None and self.model is None

    @property
    def simulated(self) -> bool:
        """Whether a reward model was fitted to simulated labels."""
        return self.folder is not None and made_from_simulated(self.folder)

    def as_dict(self) -> dict[str, Any]:
        """For a manifest's provenance."""
        kind = "function" if self.folder is None else "reward model"
        gate = "none: a function has no held-out data" if self.gate is None else self.gate.as_dict()
        return {
            "name": self.name,
            "kind": kind,
            "path": self.origin,
            "weight": self.weight,
            "sha256": self.sha256,
            "gate": gate,
        }


def load_sources(
    stage: Any, training: Any, *, shared: bool, dtype: str | None = "float32"
) -> RewardSources:
    """The sources that the settings name, reward models first; nothing of a run is touched.

    `stage` is an OnlineArguments; the ScoreOptions are those of `training` (PPOConfig) or else of
    `stage`, `reward_weights` those of `training`. `shared`: leave the weights of reward models to
    PPO, unless `--separate_reward_model`; otherwise each is loaded whole in `dtype`, which is that
    of the policy's base as the settings name it: None and "auto" are float32, since close scores
    would become equal in less that nobody asked for.
    ConfigError when there is no source, a name or folder that leads to none, the same one twice,
    weights that do not fit, or no score_mean for `--reward_normalization reference`; GateError
    (exit 5) for a reward model without a passed gate of its own; DataError for damaged weights.
    """
    options = training if isinstance(training, ScoreOptions) else stage
    folders, functions = stage.reward_model_name_or_path, stage.reward_funcs
    weights = source_weights(len(folders) + len(functions), training.reward_weights)
    refuse_twice([*(str(Path(each).resolve()) for each in folders), *functions])
    gates = gate_folders(folders, stage.gate_dir)
    whole = not shared or stage.separate_reward_model
    names = numbered([Path(each).resolve().name for each in folders])
    sources = [
        _reward_model(name, Path(folder), gate, weight)
        for name, folder, gate, weight in zip(names, folders, gates, weights, strict=False)
    ]
    for name, weight in zip(functions, weights[len(folders) :], strict=True):
        taken = [each.name for each in sources]
        sources.append(_function(name, weight, taken))
    refuse_no_reference(sources, options)
    if whole:
        sources = [_loaded(each, dtype, training) for each in sources]
    return RewardSources(sources, options)


def refuse_no_reference(sources: Sequence[RewardSource], options: ScoreOptions) -> None:
    """ConfigError when a reward model is to be normalised by numbers that it does not have."""
    if options.reward_normalization != "reference":
        return
    for source in sources:
        spec = source.spec
        if spec is not None and (spec.score_mean is None or not spec.score_std):
            raise ConfigError(
                f"{source.origin}: its reward.json has no score_mean and score_std for "
                "--reward_normalization reference; choose running or none, or train it again "
                "with held-out pairs"
            )


def _reward_model(name: str, folder: Path, gate: Path, weight: float) -> RewardSource:
    """A reward model that passed, its weights not yet loaded."""
    sha256 = reward_sha256(folder)
    verdict = require_passed(gate, folder)
    return RewardSource(
        name=name,
        weight=weight,
        sha256=sha256,
        folder=folder,
        spec=RewardSpec.read(folder),
        gate=Gate(folder=gate, sha256=file_sha256(gate / GATE_NAME), verdict=verdict),
        origin=str(folder),
    )


def _function(name: str, weight: float, taken: Sequence[str]) -> RewardSource:
    function = find_function(name)
    short = getattr(function, "__name__", name.rpartition(":")[2].rpartition(".")[2])
    return RewardSource(
        name=numbered([*taken, short])[-1],
        weight=weight,
        sha256=function_sha256(function, name),
        function=function,
        origin=name,
    )


def _loaded(source: RewardSource, dtype: str | None, training: Any) -> RewardSource:
    """A reward model with its weights, on the device that trains."""
    from dataclasses import replace

    if source.folder is None:
        return source
    device = str(training.device)
    named = "float32" if dtype in (None, "auto") else str(dtype)
    model = RewardModel.load(source.folder, dtype=named, device=device)
    return replace(source, model=model)


def numbered(names: Sequence[str]) -> list[str]:
    """The names, each once: the second of a name gets -2."""
    found: list[str] = []
    for name in names:
        number, title = 1, name
        while title in found:
            number += 1
            title = f"{name}-{number}"
        found.append(title)
    return found


def refuse_twice(origins: Sequence[str]) -> None:
    """ConfigError for a source that is named twice: its weight would be doubled in silence."""
    for origin in origins:
        if origins.count(origin) > 1:
            raise ConfigError(f"{origin}: named twice as a source of rewards; give it one weight")
