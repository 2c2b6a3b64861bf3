"""Whether the modules that `--lora_target_modules` names are there, before anything is claimed."""

import re
from typing import Any

from rlhf.errors import ConfigError, nearest_hint
from rlhf.models.adapters import adapter_chain
from rlhf.models.loading import quiet_transformers
from rlhf.models.registry import resolve_model
from rlhf.training.arguments import Settings

ALL_LINEAR = "all-linear"  # PEFT's own word


def refuse_unknown_modules(settings: Settings) -> None:
    """ConfigError for a name that no module of the model has, with those that there are.

    PEFT says nothing of one unknown name among others, and speaks of none at all only once the
    weights are loaded. Names are looked at as PEFT does: each of several is a module's name or
    the end of it, one alone is a regular expression for the whole name.
    """
    model = settings.model
    targets = model.lora_target_modules
    if not model.use_peft or not targets or targets in (ALL_LINEAR, [ALL_LINEAR]):
        return
    names = _module_names(settings)
    if names is None:  # loading the model will say what is wrong with it
        return
    for target in [targets] if isinstance(targets, str) else targets:
        if not _matches(target, names, is_pattern=isinstance(targets, str)):
            raise ConfigError(_words(target, names, is_pattern=isinstance(targets, str)))


def _words(target: str, names: list[str], *, is_pattern: bool) -> str:
    said = f"--lora_target_modules {target}"
    if is_pattern and _matches(target, names, is_pattern=False):
        return f"{said}: one alone is a pattern of whole names; write '.*{target}'"
    last = sorted({name.rpartition(".")[2] for name in names})
    hint = nearest_hint(target, [*last, ALL_LINEAR])
    return (
        f"{said}: the model has no module of that name{hint} (it has: {', '.join(last)}); or give "
        f"{ALL_LINEAR}"
    )


def _matches(target: str, names: list[str], *, is_pattern: bool) -> bool:
    if not is_pattern:
        return any(name == target or name.endswith(f".{target}") for name in names)
    try:
        pattern = re.compile(target)
    except re.error as error:
        raise ConfigError(
            f"--lora_target_modules {target}: no regular expression ({error}); give several names, "
            f"or {ALL_LINEAR}"
        ) from None
    return any(pattern.fullmatch(name) for name in names)


def _module_names(settings: Settings) -> list[str] | None:
    """The names of the modules with a matrix, from the model's config alone; None without one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    model = settings.model
    base = adapter_chain(resolve_model(model.model_name_or_path))[0]
    kind: Any = AutoModelForCausalLM
    if settings.verb == "reward":
        kind = AutoModelForSequenceClassification
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(base, revision=model.model_revision or "main")
            built = kind.from_config(config)
    except (OSError, ValueError, KeyError, ImportError):
        return None
    return [name for name, module in built.named_modules() if _has_matrix(module)]


def _has_matrix(module: Any) -> bool:
    return any(weight.dim() > 1 for weight in module.parameters(recurse=False))
