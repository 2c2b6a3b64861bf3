"""Tiny policies with adapters that matter, and log-probabilities by another way."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlhf.models.loading import load_policy
from rlhf.models.rollouts.engine import Sampling

PROMPTS = [[5, 9, 30, 44], [7], [5, 9, 30, 44], [60, 61, 62, 63, 64, 65, 66], [12, 13]]


def make_sampling(**changes) -> Sampling:
    """Twelve tokens of the tiny model, whose end token is 2."""
    return Sampling(**{"max_new_tokens": 12, "pad_id": 0, "end_ids": (2,)} | changes)


def make_adapted(folder, **options):
    """The tiny model with a random adapter on every projection, or as `options` say."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options
    model = get_peft_model(
        load_policy(folder, dtype=settings.pop("dtype", "float32")),
        LoraConfig(init_lora_weights=False, **settings),
    )
    return model.eval()


@pytest.fixture
def adapted(tiny_model):
    """A PeftModel whose adapter changes what it says."""
    return make_adapted(tiny_model)


def full_logps(model, prompt, token_ids, temperature=1.0) -> list[float]:
    """Of each token, by one forward over the whole row without cache and padding."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *token_ids]])).logits[0, len(prompt) - 1 : -1]
    logps = (logits.double() / temperature).log_softmax(-1)
    return logps.gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist()
