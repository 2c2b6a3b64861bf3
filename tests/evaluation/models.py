"""Adapters with random weights on a tiny base: policies and reward models in a moment."""

from pathlib import Path


def make_policy_adapter(base: Path, folder: Path, *, seed: int) -> Path:
    """A LoRA adapter on `base` whose weights change every output."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(
            r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
        )
        get_peft_model(model, config).save_pretrained(folder)
    return folder


def make_reward_adapter(base: Path, folder: Path, *, seed: int) -> Path:
    """A LoRA adapter with a random scoring head on `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(base, num_labels=1)
        model = AutoModelForSequenceClassification.from_config(config)
        lora = LoraConfig(
            r=4, target_modules=["q_proj"], task_type="SEQ_CLS", modules_to_save=["score"]
        )
        get_peft_model(model, lora).save_pretrained(folder)
    adapter_config = folder / "adapter_config.json"
    text = adapter_config.read_text()
    adapter_config.write_text(
        text.replace(
            '"base_model_name_or_path": ""', f'"base_model_name_or_path": "{base}"'
        ).replace('"base_model_name_or_path": null', f'"base_model_name_or_path": "{base}"')
    )
    return folder
