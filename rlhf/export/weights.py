"""What an export holds of a model: merged weights, or the adapter alone, and the tokenizer."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, StageError
from rlhf.manifest import write_json
from rlhf.models.adapters import (
    adapter_chain,
    is_adapter,
    require_adapter_weights,
)
from rlhf.models.generation import end_token_ids
from rlhf.models.loading import load_policy, load_reward_model, load_tokenizer, reward_head
from rlhf.models.registry import ADAPTER_CONFIG_NAME
from rlhf.models.reward_spec import HEAD_NAME, SPEC_NAME, RewardSpec, tokenizer_sha256

DTYPES = ("float32", "bfloat16", "float16")
_PROBE = "How do I keep bread fresh? Wrap it in a cloth, and it keeps for 3 days."
_MERGE_TOLERANCE = 1e-3
"""How far merging may move an output, of the largest: 2e-6 with SmolLM2-135M in fp32."""


def write_policy(
    stage_dir: Path, folder: Path, *, dtype: str, revision: str | None, rendering: str
) -> dict[str, Any]:
    """Write a policy as one whole model with its generation config and tokenizer into `folder`.

    Adapters are merged in fp32 on the CPU, then cast to `dtype`. Returns `num_parameters` and,
    where an adapter was merged, `merge_error`: how far the outputs on a probe moved, relative
    to the largest. StageError when that is not rounding.
    """
    model = load_policy(stage_dir, dtype="float32", device="cpu", revision=revision)
    tokenizer = load_tokenizer(stage_dir, revision=revision)
    model, found = merged(model, tokenizer, stage_dir)
    renderer = Renderer(tokenizer, rendering)
    # A base's own generation config knows its eos, and not always what ends a turn of a chat.
    ends = end_token_ids(model, tokenizer, renderer)
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.config.use_cache = True  # off while a model is trained
    _cast(model, dtype)
    model.save_pretrained(folder)
    write_tokenizer(tokenizer, folder)
    return found


def write_reward(stage_dir: Path, folder: Path, *, dtype: str) -> dict[str, Any]:
    """Write a reward model as one sequence classifier, its heads fp32, and reward.json beside it.

    Returns and raises as `write_policy`; ConfigError for several members, which are adapters on
    one base and no single model.
    """
    spec = RewardSpec.read(stage_dir)
    if len(spec.members) > 1:
        raise ConfigError(
            f"{stage_dir}: an ensemble of {len(spec.members)} members, which cannot be one merged "
            "model; add --adapter_only"
        )
    model = load_reward_model(stage_dir, dtype="float32", device="cpu")
    tokenizer = load_tokenizer(stage_dir)
    model, found = merged(model, tokenizer, stage_dir)
    head = deepcopy(reward_head(model))
    _cast(model, dtype)
    setattr(model, HEAD_NAME, head)  # fp32, or close scores would become equal
    model.save_pretrained(folder)
    replace(spec, base=None).write(folder)
    write_tokenizer(tokenizer, folder)
    return found


def write_adapter(stage_dir: Path, folder: Path, *, base: str) -> dict[str, Any]:
    """Copy a stage's adapter (an ensemble's: all of them) so that PEFT finds `base` under it.

    Returns `num_parameters`, the adapters' own.
    """
    spec = RewardSpec.read(stage_dir)
    num_parameters = 0
    for member in spec.members:
        source, target = spec.member_folder(stage_dir, member), spec.member_folder(folder, member)
        target.mkdir(exist_ok=True)
        weights = require_adapter_weights(source)
        shutil.copyfile(weights, target / weights.name)
        config = json.loads((source / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
        write_json(target / ADAPTER_CONFIG_NAME, config | {"base_model_name_or_path": base})
        num_parameters += _num_stored(weights)
    if (stage_dir / SPEC_NAME).is_file():
        located = spec.base and spec.base | {"path": base}
        replace(spec, base=located).write(folder)
    write_tokenizer(load_tokenizer(stage_dir), folder)
    return {"num_parameters": num_parameters}


def adapter_base(stage_dir: Path) -> str:
    """The one whole model that a stage's adapter is on: a folder's absolute path or a hub id.

    ConfigError when the stage trained all weights, or when there is another adapter between.
    """
    if not is_adapter(stage_dir):
        raise ConfigError(f"{stage_dir}: all weights were trained; leave out --adapter_only")
    base, adapters = adapter_chain(str(stage_dir.absolute()))
    if len(adapters) > 1:
        raise ConfigError(
            f"{stage_dir}: its base {adapters[-2]} is an adapter itself, which PEFT alone would "
            "not merge; leave out --adapter_only"
        )
    return base


def merged(model: Any, tokenizer: Any, stage_dir: Path) -> tuple[Any, dict[str, Any]]:
    """(the model without adapters, what was measured of merging them).

    StageError when it computes something else then: an adapter of an embedding that the output
    head shares, for one, changes the head too once it is merged.
    """
    error = None
    if hasattr(model, "merge_and_unload"):
        before = _probe_logits(model, tokenizer)
        model = model.merge_and_unload()
        error = float((_probe_logits(model, tokenizer) - before).abs().max() / before.abs().max())
        if not error <= _MERGE_TOLERANCE:
            raise StageError(
                f"{stage_dir}: merged, its outputs differ by {error:.1%} from the adapter's, so it "
                "would be another model; add --adapter_only"
            )
    found = {"num_parameters": sum(each.numel() for each in model.parameters())}
    return model, found if error is None else found | {"merge_error": error}


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer; StageError when what plain transformers reads back gives other ids."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    again = AutoTokenizer.from_pretrained(folder)
    same: tuple[Callable[[Any], Any], ...] = (tokenizer_sha256, lambda one: one.pad_token_id)
    if any(one(again) != one(tokenizer) for one in same):
        raise StageError(
            f"{folder.name}: this transformers reads the tokenizer back as another one (class "
            f"{type(again).__name__}); give the base a tokenizer of the class "
            "PreTrainedTokenizerFast, and train again"
        )


def _probe_logits(model: Any, tokenizer: Any) -> Any:
    import torch

    ids = tokenizer(_PROBE, return_tensors="pt")["input_ids"].to(model.device)
    with torch.inference_mode():
        return model(input_ids=ids).logits.double()


def _cast(model: Any, dtype: str) -> None:
    import torch

    model.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)


def _num_stored(weights: Path) -> int:
    from math import prod

    from safetensors import safe_open

    if weights.suffix != ".safetensors":
        return 0
    with safe_open(weights, framework="pt") as tensors:
        names = list(tensors.keys())
        return sum(prod(tensors.get_slice(name).get_shape()) for name in names)
