"""Tiny reward models with visible weights: single, with several heads, and ensembles."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from rlhf.models.loading import load_tokenizer
from rlhf.models.reward_ensemble import add_members
from rlhf.models.reward_spec import RewardSpec, base_record, tokenizer_sha256


def tiny_members(base: Path, num_members: int = 1, *, num_heads: int = 1, seed: int = 2) -> Any:
    """A PeftModel on `base` whose members all change the output."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_heads)
    lora = LoraConfig(r=2, task_type="SEQ_CLS", modules_to_save=["score"], init_lora_weights=False)
    torch.manual_seed(seed)
    model = get_peft_model(model, lora)
    add_members(model, num_members, seed=seed)
    return model


def save_reward(
    base: Path, folder: Path, *, num_members: int = 1, heads: dict[str, float] | None = None
) -> Path:
    """A reward stage's folder: adapters, tokenizer and a spec with every hash in it."""
    heads = heads or {"score": 1.0}
    model = tiny_members(base, num_members, num_heads=len(heads))
    model.save_pretrained(folder)
    tokenizer = load_tokenizer(base)
    tokenizer.save_pretrained(folder)
    spec = RewardSpec(
        heads=heads,
        members=list(model.peft_config),
        base=base_record(base),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
    )
    spec.write(folder)
    return folder
