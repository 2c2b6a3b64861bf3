"""The model that a reward stage trains: a base with a fresh fp32 head."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, set_seed

from rlhf.errors import ConfigError
from rlhf.models.adapters import is_adapter
from rlhf.models.loading import best_device, prepare_for_tokenizer, reward_head
from rlhf.models.registry import resolve_model
from rlhf.models.trl_compat import without_new_head_warning
from rlhf.training.arguments import Settings
from rlhf.training.base import loading_options, with_one_layout


def load_scorer(settings: Settings, tokenizer: Any, num_heads: int = 1) -> Any:
    """The base as a sequence classifier with `num_heads` outputs: fresh heads drawn by the seed.

    The head is fp32 whatever the base is, and computes in it: in bf16 close scores become equal.
    """
    name = settings.model.model_name_or_path
    location = resolve_model(name)
    if is_adapter(location):
        raise ConfigError(f"{name}: holds an adapter; give a whole model, such as an sft stage's")
    options = loading_options(settings)
    device = best_device() if options.pop("device") == "auto" else "cpu"
    if options["quantization_config"] is not None:
        options["device_map"] = {"": device}
    set_seed(settings.training.seed)
    with without_new_head_warning():
        model = AutoModelForSequenceClassification.from_pretrained(
            location,
            num_labels=num_heads,
            dtype=settings.model.dtype,
            revision=settings.model.model_revision,
            **options,
        )
    prepare_for_tokenizer(model, tokenizer)
    reward_head(model).float().__class__ = Float32Head  # its weights and its name stay
    return with_one_layout(model) if "device_map" in options else model.to(device)


class Float32Head(torch.nn.Linear):
    """A head that computes in fp32, whatever it is given and under autocast too."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores [..., H] of hidden states [..., hidden]."""
        # --bf16, TRL's default on a GPU, is autocast: it would round an fp32 head's scores to bf16.
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float())
