"""What PPO keeps of its models: a policy that stands alone, and the critic beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.errors import DataError
from rlhf.models.adapters import WEIGHTS_NAMES, is_adapter, is_of_adapter
from rlhf.models.reward_spec import DEFAULT_MEMBER

CRITIC_NAME = "critic.safetensors"
"""The value head, and the weights of the critic's adapter, by their names in the model."""
_WHOLE_NAMES = ("model.safetensors", "model.safetensors.index.json")
_AGAIN = "continue from another checkpoint, or begin anew with --restart"


def save_policy(model: Any, folder: Path, *, is_main: bool = True) -> None:
    """A PEFT adapter at the folder's root, or a whole model; nothing else's weights in it.

    Where weights are sharded every rank must call this; only the main one writes.
    """
    weights = _weights(model.policy, trained_only=model.uses_lora)
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {}
        if model.uses_lora:  # embeddings under an adapter are the base's, and frozen
            options = {"selected_adapters": [DEFAULT_MEMBER], "save_embedding_layers": False}
        model.policy.save_pretrained(str(folder), state_dict=weights, **options)


def save_critic(model: Any, folder: Path, *, is_main: bool = True) -> None:
    """The value head and the critic's adapter, in one file; ranks as for `save_policy`."""
    weights = _weights(model, trained_only=True)
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: weights[name].detach().cpu().contiguous() for name in model.critic_names()}
        save_file(kept, folder / CRITIC_NAME, metadata={"format": "pt"})


def load_policy(model: Any, folder: Path) -> None:
    """Read what `save_policy` wrote; what is trainable stays so.

    DataError naming a file or a tensor that is missing or does not fit.
    """
    if not model.uses_lora:
        _load_whole(model.policy, folder)
        return
    if not is_adapter(folder):
        raise DataError(f"{folder}: no adapter_config.json, so the policy is missing; {_AGAIN}")
    path = folder / WEIGHTS_NAMES[0]
    names = _stored_names(model.policy)
    stored = _read(path, "policy")
    _put(model.policy, {names.get(key, key): each for key, each in stored.items()}, path, names)


def load_critic(model: Any, folder: Path) -> None:
    """Read what `save_critic` wrote; DataError as for `load_policy`."""
    path = folder / CRITIC_NAME
    _put(model, _read(path, "critic"), path, {name: name for name in model.critic_names()})


def _load_whole(policy: Any, folder: Path) -> None:
    if not any((folder / name).is_file() for name in _WHOLE_NAMES):
        raise DataError(f"{folder}: no {_WHOLE_NAMES[0]}, so the policy is missing; {_AGAIN}")
    if not (folder / "config.json").is_file():  # transformers would make a model of its own size
        raise DataError(f"{folder}: no config.json, so the policy is missing; {_AGAIN}")
    try:
        found, loading = type(policy).from_pretrained(
            str(folder), dtype=policy.dtype, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{folder}: damaged policy ({reason}); {_AGAIN}") from None
    if missing := sorted(loading["missing_keys"]):  # transformers draws them anew
        raise DataError(f"{folder}: {missing[0]} is missing; {_AGAIN}")
    names = {name: name for name, _ in policy.named_parameters()}
    stored = dict(found.named_parameters())
    _put(policy, stored, folder, names)


def _read(path: Path, what: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"{path.parent}: no {path.name}, so the {what} is missing; {_AGAIN}")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise DataError(f"{path}: damaged ({error}); {_AGAIN}") from None


def _put(
    module: nn.Module, found: Mapping[str, Tensor], path: Path, names: Mapping[str, str]
) -> None:
    """Copy into `module` every tensor of `names` (stored name -> its own); DataError otherwise."""
    own = dict(module.named_parameters())
    shapes = {name: own[name].shape for name in names.values()}
    for stored, name in names.items():
        if name not in found:
            raise DataError(f"{path}: {stored} is missing; {_AGAIN}")
        if found[name].shape != shapes[name]:
            raise DataError(
                f"{path}: {stored} is {list(found[name].shape)} where the model has "
                f"{list(shapes[name])}; continue with the settings it was trained with"
            )
    if strange := sorted(set(found) - set(shapes)):
        raise DataError(f"{path}: {strange[0]} is nothing that this model has; {_AGAIN}")
    if _sharded(module):
        _put_into_shards(module, found)
        return
    with torch.no_grad():
        for name, weight in found.items():
            own[name].copy_(weight)


def _stored_names(policy: Any) -> dict[str, str]:
    """PEFT's name in a file -> its name in the model, of each tensor of the policy's adapter.

    Asked of PEFT itself: numbers stand for the tensors, and it says under which name it saves
    each.
    """
    from peft import get_peft_model_state_dict

    named = policy.named_parameters()
    own = [name for name, _ in named if is_of_adapter(name, DEFAULT_MEMBER)]
    numbered = {name: torch.tensor(number) for number, name in enumerate(own)}
    saved = get_peft_model_state_dict(
        policy, state_dict=numbered, adapter_name=DEFAULT_MEMBER, save_embedding_layers=False
    )
    return {stored: own[int(number)] for stored, number in saved.items()}


def _sharded(module: nn.Module) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) for weight in module.parameters())


def _weights(module: nn.Module, *, trained_only: bool) -> dict[str, Tensor]:
    """The module's tensors by name, whole ones; of shards gathered on the main rank."""
    if not _sharded(module):
        return dict(module.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=trained_only
    )
    return dict(get_model_state_dict(module, options=options))


def _put_into_shards(module: nn.Module, found: Mapping[str, Tensor]) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    options = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(module, dict(found), options=options)
