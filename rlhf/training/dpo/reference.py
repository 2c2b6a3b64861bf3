"""The reference of a DPO run: which model it is, and its log-probabilities computed once.

It is, in this order: the model, or adapter, that --ref_model_name_or_path names; the starting
model itself, by switching the adapter off (LoRA) or as a second copy (all weights are trained).
With --precompute_ref_log_probs nothing of it stands in memory while the policy learns.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf.data.columns import Columns
from rlhf.errors import ConfigError
from rlhf.manifest import file_sha256
from rlhf.models.adapters import (
    adapter_chain,
    is_of_adapter,
    load_another,
    read_adapter_config,
)
from rlhf.models.loading import free_memory, load_tokenizer
from rlhf.models.registry import MODEL_CONFIG_NAME, model_identity, resolve_model, weights_sha256
from rlhf.records import content_hash
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.saving import disk_errors

REF_ADAPTER = "ref"
"""The name by which TRL looks for a frozen adapter that is the reference."""
LOGPS_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""What a row says of the reference, by TRL's own names: summed nats of each completion."""
_BASE_KEY = "base_model_name_or_path"


@dataclass(frozen=True, slots=True)
class Reference:
    """What the policy is compared with.

    "start": the starting model, by adapters off or a second copy; "adapter": the one in `name`,
    frozen beside that which is trained; "model": `name` as a second whole model.
    """

    kind: str
    name: str

    def words(self) -> str:
        """One line for the log."""
        return {
            "start": f"reference: the model that training starts from ({self.name})",
            "adapter": f"reference: the adapter {self.name}, frozen beside the trained one",
            "model": f"reference: {self.name}, a second model",
        }[self.kind]


def reference_of(settings: Settings) -> Reference:
    """The reference that the settings name.

    ConfigError when it has another vocabulary, or is an adapter on another base.
    """
    start, name = settings.model.model_name_or_path, settings.stage.ref_model_name_or_path
    if not name:
        return Reference("start", start)
    own, other = (adapter_chain(resolve_model(each)) for each in (start, name))
    if own == other:
        return Reference("start", start)
    if other[1] and _weights_of(own[0]) != _weights_of(other[0]):
        raise ConfigError(
            f"--ref_model_name_or_path {name}: an adapter on another base ({other[0]}) than the "
            f"policy's ({own[0]}); give an adapter on that base, or rlhf export it to a whole model"
        )
    require_vocabulary(settings, name)
    is_beside = settings.model.use_peft and not own[1] and len(other[1]) == 1
    return Reference("adapter" if is_beside else "model", name)


def require_vocabulary(settings: Settings, name: str) -> None:
    """ConfigError unless a token id means the same to the policy and to the model `name`.

    Chat templates and end tokens may differ: the reference reads ids, not text.
    """
    own, other = (load_tokenizer(each) for each in (settings.model.model_name_or_path, name))
    vocabularies = [
        {token: number for token, number in each.get_vocab().items() if token != each.pad_token}
        for each in (own, other)
    ]
    if vocabularies[0] != vocabularies[1]:
        raise ConfigError(
            f"--ref_model_name_or_path {name}: another vocabulary ({len(other)} entries) than "
            f"that of {settings.model.model_name_or_path} ({len(own)} entries), so their "
            "log-probabilities cannot be compared; give a model with the same tokenizer"
        )


def is_precomputed(rows: Columns) -> bool:
    """Whether the rows carry the reference's log-probabilities already."""
    return bool(rows) and LOGPS_COLUMNS[0] in rows[0]


def reference_inputs(reference: Reference) -> dict[str, dict[str, Any]]:
    """The manifest's entry of a reference that is not the starting model."""
    return {} if reference.kind == "start" else {"reference": model_identity(reference.name)}


def reference_model(settings: Settings, *, is_precomputed: bool = False) -> Any:
    """The second model that must stand in memory, frozen; None where none must.

    With `is_precomputed` the rows carry the log-probabilities already. Otherwise, and with
    --precompute_ref_log_probs, the starting model is not loaded again: the policy itself is the
    reference until its first step.
    """
    reference = reference_of(settings)
    is_policy = reference.kind == "start" and (
        settings.model.use_peft or settings.training.precompute_ref_log_probs
    )
    if is_precomputed or is_policy or reference.kind == "adapter":
        return None
    named = replace(settings.model, model_name_or_path=reference.name)
    if reference.kind == "model":
        named = replace(named, model_revision=None)  # the setting is the policy's
    # Left alone, TRL would load the reference by the name in the config, in another dtype.
    model = load_base(replace(settings, model=named))
    return model.requires_grad_(False)


def attach_reference(model: Any, settings: Settings) -> None:
    """Put a reference adapter onto `model` (a PeftModel), frozen; nothing for others.

    Without the dropout that it was trained with: a reference is the same at every pass.
    """
    reference = reference_of(settings)
    if reference.kind != "adapter":
        return
    load_another(model, Path(resolve_model(reference.name)), REF_ADAPTER)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and is_of_adapter(name, REF_ADAPTER):
            module.p = 0.0


class MovedReference(TrainerCallback):  # type: ignore[misc]
    """Keeps a reference that moves (--sync_ref_model) in each checkpoint, and takes it back.

    It must come before what marks a checkpoint as whole. `trainer` is set once there is one.
    """

    def __init__(self) -> None:
        self.trainer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        path = _moved_weights(args, state)
        if state.global_step and path.is_file():
            self._model().load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            with disk_errors(Path(args.output_dir)):
                torch.save(self._model().state_dict(), _moved_weights(args, state))

    def _model(self) -> Any:
        return self.trainer.accelerator.unwrap_model(self.trainer.ref_model)


def _moved_weights(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "reference.pt"


def release_reference(trainer: Any) -> None:
    """Free a reference that is a model, or an adapter, of its own."""
    trainer.ref_model = None
    if REF_ADAPTER in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter(REF_ADAPTER)
    free_memory()


def reference_sha256(name: str, revision: str | None = None) -> str:
    """The sha256 (hex) of all that decides what a model says: the weights under it, its adapters'
    and how strong they are, wherever the folders lie. Of a hub id, that of its name and of the
    commit that `revision` stands for now: a branch moves on.
    """
    base, adapters = adapter_chain(resolve_model(name))
    commit = None if Path(base).is_dir() else commit_of(base, revision)
    parts: list[Any] = [_weights_of(base), commit]
    config = Path(base) / MODEL_CONFIG_NAME
    if config.is_file():
        parts.append(file_sha256(config))
    for folder in adapters:
        parts += [weights_sha256(folder), read_adapter_config(folder) | {_BASE_KEY: None}]
    return content_hash(parts)


def commit_of(hub_id: str, revision: str | None) -> str | None:
    """The commit of a hub's revision (None: its main branch), as the model would be loaded now; the
    revision itself where neither the hub nor the cache knows it.
    """
    from transformers.utils import cached_file

    try:  # asks the hub, and the cache where there is no network; its folders are named by commits
        found = cached_file(hub_id, MODEL_CONFIG_NAME, revision=revision or "main")
    except OSError:
        return revision
    return Path(found).parent.name if found else revision


def _weights_of(base: str) -> str:
    return weights_sha256(Path(base)) if Path(base).is_dir() else base
