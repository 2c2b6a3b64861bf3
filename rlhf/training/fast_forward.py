"""Model passes of the stages on rows of data, in less time and with the same values.

In force around training, evaluation and the reference's passes alike:

- a pair's prompt is computed once (`prefix_sharing`), where that pays;
- the LM head scores completion positions only, by tiles (`fused_head`);
- LoRA layers compute in the base's dtype (`lora_compute`);
- on a CPU, short rows have an attention of their own (`cpu_attention`).

Each steps aside where it would not be exact. In fp32 losses, gradients and logged metrics are those
of TRL's own passes within 1e-5; in bf16 the same sums are rounded in another order.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rlhf.models.cpu_attention import attending_short_rows
from rlhf.models.fused_head import fast_head
from rlhf.models.loading import backbone_of
from rlhf.models.lora_compute import computing_in_base_dtype
from rlhf.models.prefix_sharing import PrefixSharing, sharing_prefixes
from rlhf.models.trl_compat import completion_positions_only
from rlhf.training.arguments import Settings

PAIRED = ("reward", "dpo", "online_dpo")
"""Stages whose batches hold [chosen; rejected]."""

ON_ROWS = (*PAIRED, "sft", "kto")
"""Stages that learn from rows of data. Those that sample have passes of their own, or of TRL."""


@contextmanager
def fast_forward(trainer: Any, settings: Settings, *, quiet: bool = False) -> Iterator[None]:
    """Within the block the passes of `trainer`'s model and reference are the fast ones.

    Says at its end in a line what came of it, on the main process and unless `quiet`. A block
    within a block changes nothing.
    """
    if settings.verb not in ON_ROWS:
        with completion_positions_only():
            yield
        return
    if getattr(trainer, "passes_are_fast", False):
        yield
        return
    trainer.passes_are_fast = True
    try:
        with fast_passes(models_of(trainer), share=is_sharing(settings)) as sharing:
            yield
    finally:
        trainer.passes_are_fast = False
    if sharing:
        trainer.prompt_sharing = sharing[0].summary()
    if sharing and not quiet and settings.training.process_index == 0:
        print(sharing[0].summary(), file=sys.stderr)


@contextmanager
def fast_passes(models: list[Any], *, share: bool) -> Iterator[list[PrefixSharing]]:
    """Within the block the passes of `models` are the fast ones; with `share` rows hold pairs.

    Yields what each model's sharing of prompts came to.
    """
    with ExitStack() as stack:
        stack.enter_context(fast_head())
        for model in models:
            stack.enter_context(computing_in_base_dtype(model))
            stack.enter_context(attending_short_rows(_unwrapped(model)))
        sharing = [
            stack.enter_context(sharing_prefixes(backbone_of(model)))
            for model in (models if share else [])
        ]
        yield sharing


def models_of(trainer: Any) -> list[Any]:
    """The model that is trained, and its reference if that is a model of its own."""
    models = [trainer.model, getattr(trainer, "ref_model", None)]
    return [model for model in models if model is not None]


def is_sharing(settings: Settings) -> bool:
    """Whether pairs may share their prompt here."""
    return settings.verb in PAIRED and settings.stage.share_prefixes != "never"


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
