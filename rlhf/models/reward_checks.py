"""What must hold before a reward model's scores mean anything: its heads, base and tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf.errors import DataError
from rlhf.models.adapters import is_adapter, require_adapter_weights
from rlhf.models.reward_spec import (
    HEAD_NAME,
    SPEC_NAME,
    RewardSpec,
    base_sha256,
    tokenizer_sha256,
)

_DIGITS = 12  # of a hash, in what people read


def require_heads(folder: Path, spec: RewardSpec) -> None:
    """Every member's adapter must hold a trained head with an output for each of the spec's.

    PEFT would leave a random one in silence. DataError naming the member.
    """
    for member in spec.members:
        place = spec.member_folder(folder, member)
        weights = require_adapter_weights(place)
        if weights.suffix != ".safetensors":
            continue  # an old .bin cannot be looked into without running what it holds
        num_outputs = stored_outputs(weights)
        if num_outputs is None:
            raise DataError(
                f"{place}: its adapter holds no reward head ({HEAD_NAME}.weight), so its scores "
                f"would be random; train it by rlhf reward, or with modules_to_save: [{HEAD_NAME}]"
            )
        _require_outputs(place, num_outputs, spec)


def require_checkpoint_heads(checkpoint: Path, spec: RewardSpec) -> None:
    """DataError when a checkpoint to continue from lacks a head: it would go on with a random one.

    Sharded checkpoints, which keep their weights elsewhere, are left to what loads them.
    """
    try:
        if is_adapter(checkpoint):
            require_heads(checkpoint, spec)
        else:
            require_whole_head(checkpoint, spec)
    except DataError as error:
        raise DataError(f"{error}; to begin anew, add --restart") from None


def require_whole_head(folder: Path, spec: RewardSpec) -> None:
    """The same of a whole model's folder; DataError when it is a language model."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return  # loading says what is missing
    found = [outputs for file in files if (outputs := stored_outputs(file)) is not None]
    if not found:
        raise DataError(f"{folder}: a language model without a reward head; run rlhf reward first")
    _require_outputs(folder, found[0], spec)


def stored_outputs(weights: Path) -> int | None:
    """How many outputs the head in a safetensors file has; None when there is no head."""
    with _tensors_of(weights) as tensors:
        for name in tensors.keys():  # noqa: SIM118  (no mapping)
            if name == f"{HEAD_NAME}.weight" or name.endswith(f".{HEAD_NAME}.weight"):
                return int(tensors.get_slice(name).get_shape()[0])
    return None


def require_base(folder: Path, base: str, spec: RewardSpec) -> None:
    """DataError when the adapter in `folder` was trained on other weights than those in `base`.

    The weights decide, not the path: a base that was moved is the same base.
    """
    if spec.base is None or spec.base.get("sha256") is None or not Path(base).is_dir():
        return
    recorded, found = spec.base["sha256"], base_sha256(Path(base))
    if recorded != found:
        raise DataError(
            f"{folder}: trained on {spec.base['path']} (sha256 {recorded[:_DIGITS]}), but its base "
            f"is now {base} with other weights (sha256 {found[:_DIGITS]}); put the first back, or "
            "train the reward model on the second"
        )


def require_tokenizer(folder: Path, tokenizer: Any, spec: RewardSpec) -> None:
    """DataError when `tokenizer` turns text into other ids than the one trained with."""
    if spec.tokenizer_sha256 is None:
        return
    found = tokenizer_sha256(tokenizer)
    if found != spec.tokenizer_sha256:
        raise DataError(
            f"{folder}: trained with another tokenizer or chat template (sha256 "
            f"{spec.tokenizer_sha256[:_DIGITS]}, now {found[:_DIGITS]}); put the folder's own "
            "tokenizer files back, or train it again"
        )


def _require_outputs(place: Path, num_outputs: int, spec: RewardSpec) -> None:
    if num_outputs != len(spec.heads):
        raise DataError(
            f"{place}: its head has {num_outputs} outputs, but by its {SPEC_NAME} (or without one) "
            f"it should have {len(spec.heads)} ({', '.join(spec.heads)}); put the {SPEC_NAME} back "
            "that it was trained with, or train it again"
        )


@contextmanager
def _tensors_of(weights: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise DataError(f"{weights}: damaged ({error}); run the stage again") from None
