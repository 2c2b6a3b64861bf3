"""LoRA adapters on disk: which base one belongs to, and putting it onto that base."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError
from rlhf.models.registry import ADAPTER_CONFIG_NAME, NAMED_MODELS, resolve_model

_SWITCHES = "_rlhf_switches"  # where a model keeps the list of its layers that switch
WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")


def is_adapter(location: str | Path) -> bool:
    """Whether a resolved model location is a folder with an adapter, not a whole model."""
    return (Path(location) / ADAPTER_CONFIG_NAME).is_file()


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration as PEFT wrote it; DataError when it is damaged."""
    path = folder / ADAPTER_CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); run the stage that wrote it again") from None
    if not isinstance(values, dict) or not values.get("base_model_name_or_path"):
        raise DataError(f"{path}: does not name its base model; run the stage again")
    return values


def base_of(folder: Path) -> str:
    """The base model of the adapter in `folder`: a folder's path or a hub id.

    A run folder may have been moved or the cache be elsewhere: where the recorded path is
    gone, a folder of the same name beside the adapter's (DIR/sft for DIR/dpo) or above it, or
    a named model of that name, stands in. ConfigError when there is none of them.
    """
    recorded = str(read_adapter_config(folder)["base_model_name_or_path"])
    name = Path(recorded).name
    folder = folder.absolute()
    candidates = [Path(recorded), folder / recorded]
    candidates += [parent / name for parent in list(folder.parents)[:2]]
    for candidate in candidates:
        if candidate.is_dir() and candidate.absolute() != folder:
            return resolve_model(candidate)
    if name in NAMED_MODELS:
        return resolve_model(name)
    if Path(recorded).is_absolute() or recorded.count("/") != 1:
        raise ConfigError(
            f"{folder}: its base model {recorded} is gone, and no folder {name} is beside it; "
            "put it back, or run the stage again"
        )
    return resolve_model(recorded)


def adapter_chain(location: str) -> tuple[str, list[Path]]:
    """The whole model under `location` and the adapters to put onto it, innermost first."""
    adapters: list[Path] = []
    while is_adapter(location):
        adapters.insert(0, Path(location))
        location = base_of(Path(location))
        if Path(location) in adapters:
            raise DataError(f"{location}: an adapter that names itself as its base")
    return location, adapters


def require_adapter_weights(folder: Path) -> Path:
    """The adapter's weight file; DataError when a stage was cut short before writing it."""
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: no {WEIGHTS_NAMES[0]}; run the stage that writes it again")


def attach_adapter(model: Any, folder: Path, *, is_trainable: bool = False) -> Any:
    """`model` with the adapter in `folder` put on (a PeftModel), not merged.

    An adapter that `model` already carries is merged first, since this one was trained on top.
    Raises DataError when the weights are damaged or belong to another base.
    """
    from peft import PeftModel

    require_adapter_weights(folder)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    with _misfits_named(folder):
        return PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)


def load_another(model: Any, folder: Path, name: str) -> None:
    """Read the adapter in `folder` into `model` (a PeftModel) as `name`, beside those it has.

    It is neither made active nor trainable. Errors as `attach_adapter`.
    """
    require_adapter_weights(folder)
    device = str(next(model.parameters()).device)
    with _misfits_named(folder):
        model.load_adapter(str(folder), name, torch_device=device)


@contextmanager
def using_adapter(model: Any, name: str | None) -> Iterator[None]:
    """Within, `model` (a PeftModel) computes with the adapter `name`, or with none for None.

    What is trainable stays as it is, and afterwards everything is as before. PEFT's own
    set_adapter and disable_adapter make one adapter trainable and freeze the others: gradients
    of the others would then be None without a word. With gradient checkpointing see
    `checkpoint_contexts`.
    """
    before = adapter_in_use(model)
    if before == name:
        yield
        return
    _use(model, name)
    try:
        yield
    finally:
        _use(model, before)


def is_of_adapter(parameter_name: str, adapter: str) -> bool:
    """Whether PEFT made the parameter for `adapter`: its name is one part of the parameter's, the
    last one of what has no module of its own (lora_embedding_A.default).
    """
    return adapter in parameter_name.split(".")


def adapter_in_use(model: Any) -> str | None:
    """The adapter that a PeftModel computes with now; None while they are off."""
    layer = next(iter(_switches(model)))
    return None if layer.disable_adapters else str(model.active_adapter)


def checkpoint_contexts(model: Any) -> tuple[Any, Any]:
    """A `context_fn` for torch's checkpointing: computing again uses the adapter of the forward.

    Otherwise it would use the one that is active when the backward pass arrives, which gives
    wrong gradients without a word (https://github.com/huggingface/peft/issues/2832).
    """
    return nullcontext(), using_adapter(model, adapter_in_use(model))


def _use(model: Any, name: str | None) -> None:
    """Set what PEFT's layers look at, which its set_adapter and enable_adapter_layers set too."""
    if name is not None:
        assert name in model.peft_config, f"no adapter {name!r}"
        model.active_adapter = model.base_model.active_adapter = name
    for layer in _switches(model):
        layer._disable_adapters = name is None
        if name is not None:  # a wrapped module may have no copy for this adapter
            layer._active_adapter = [name] if name in _adapters_of(layer) else []


def _adapters_of(layer: Any) -> Any:
    return getattr(layer, "_adapters", None) or layer._all_available_adapter_names()


def _switches(model: Any) -> list[Any]:
    """The layers of a PeftModel that ask which adapter is active; found anew after additions."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kept = model.__dict__.get(_SWITCHES)
    if kept is None or kept[0] != len(model.peft_config):
        kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
        found = [module for module in model.modules() if isinstance(module, kinds)]
        kept = model.__dict__[_SWITCHES] = (len(model.peft_config), found)
    return list(kept[1])


@contextmanager
def _misfits_named(folder: Path) -> Iterator[None]:
    """Turn what PEFT raises for damaged or foreign weights into one line that names them."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise DataError(f"{folder}: damaged adapter ({error}); run the stage again") from None
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: does not fit its base model ({reason})") from None
