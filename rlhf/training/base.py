"""The model that a stage starts from, in the dtype and quantisation that the settings declare."""

from typing import Any

from trl import get_quantization_config

from rlhf.errors import ConfigError
from rlhf.models.loading import load_policy
from rlhf.training.arguments import Settings


def load_base(settings: Settings) -> Any:
    """The causal model to train, on the trainer's device.

    A model folder that holds an adapter (a tuned policy, say) is merged in fp32 first, so that
    the new adapter has one whole base.
    """
    model, options = settings.model, loading_options(settings)
    if model.model_revision:
        options["revision"] = model.model_revision
    policy = load_policy(model.model_name_or_path, dtype=model.dtype, **options)
    if not hasattr(policy, "merge_and_unload"):
        return with_one_layout(policy)
    refuse_quantised_adapter(settings)
    options.pop("quantization_config")
    whole = load_policy(model.model_name_or_path, dtype="float32", **options).merge_and_unload()
    whole.name_or_path = model.model_name_or_path  # what PEFT notes as the new adapter's base
    whole.requires_grad_(not model.use_peft)  # PEFT had frozen what it is merged into
    return whole if model.dtype in (None, "auto") else whole.to(torch_dtype(model.dtype))


def with_one_layout(model: Any) -> Any:
    """The same model, whose 4-bit layers never change the layout of their weights.

    On CPUs that know bf16, bitsandbytes 0.49 packs them anew in the first pass without gradients,
    an evaluation or the reference's, and from then on computes with other rounding and hands no
    gradient to what lies below.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
    return model


def loading_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for rlhf.models.loading that follow from TRL's ModelConfig."""
    return {
        "quantization_config": get_quantization_config(settings.model),
        "attn_implementation": settings.model.attn_implementation,
        "device": "cpu" if settings.training.use_cpu else "auto",
    }


def torch_dtype(name: str) -> Any:
    """`bfloat16` -> torch.bfloat16."""
    import torch

    return getattr(torch, name)


def refuse_quantised_adapter(settings: Settings) -> None:
    """ConfigError for 4- or 8-bit on top of an adapter: the merge needs whole weights."""
    model = settings.model
    if model.load_in_4bit or model.load_in_8bit:
        raise ConfigError(
            f"{model.model_name_or_path}: holds an adapter, which cannot be merged in 4 or 8 "
            "bits; rlhf export it first, or leave out load_in_4bit"
        )
