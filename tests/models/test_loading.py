"""Loading: dtypes, pad tokens, adapters and their bases, reward heads, and damaged folders."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from rlhf.errors import ConfigError, DataError
from rlhf.models.adapters import base_of
from rlhf.models.loading import load_policy, load_reward_model, load_tokenizer, reward_head
from rlhf.models.tokenizer import ensure_own_pad_token
from tests.tiny import make_tokenizer

IDS = torch.tensor([[5, 40, 41, 42, 60]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def save_adapter(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """A LoRA adapter with weights that change the output, saved as a stage saves it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    peft = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False))
    peft.save_pretrained(folder)
    return folder


def save_reward_adapter(base: Path, folder: Path, *, with_head: bool) -> Path:
    torch.manual_seed(2)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = LoraConfig(r=2, task_type="SEQ_CLS", modules_to_save=["score"], init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)
    if not with_head:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "adapter_model.safetensors")
        kept = {name: value for name, value in weights.items() if "score" not in name}
        assert len(kept) < len(weights)
        save_file(kept, folder / "adapter_model.safetensors")
    return folder


def test_policy_comes_in_eval_mode_in_the_asked_dtype(tiny_model):
    assert load_policy(tiny_model).dtype == torch.float32
    model = load_policy(tiny_model, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert model.config._attn_implementation == "sdpa"


def test_unknown_dtype_is_a_config_error(tiny_model):
    with pytest.raises(ConfigError, match="unknown dtype 'fp8'; use one of float32"):
        load_policy(tiny_model, dtype="fp8")


def test_own_pad_token_is_kept(tiny_model):
    assert load_tokenizer(tiny_model).pad_token == "<|pad|>"


def test_pad_that_is_eos_is_replaced_by_a_spare_token():
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    ensure_own_pad_token(tokenizer)
    assert tokenizer.pad_token == "<|pad|>"
    assert len(tokenizer) == 300


def test_pad_that_ends_a_turn_is_replaced_though_eos_is_another():
    tokenizer = make_tokenizer()
    tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>"
    ensure_own_pad_token(tokenizer)
    assert tokenizer.pad_token == "<|pad|>"


def tokenizer_without_spare(folder: Path) -> None:
    """The tiny tokenizer as if <|pad|> had never been reserved: the name becomes another's."""
    text = (folder / "tokenizer.json").read_text().replace("<|pad|>", "<|other|>")
    (folder / "tokenizer.json").write_text(text)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>"
    )
    tokenizer.save_pretrained(folder)


def test_pad_is_added_when_nothing_is_spare_and_the_model_grows_by_the_mean(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    tokenizer_without_spare(folder)
    tokenizer, model = load_tokenizer(folder), load_policy(folder)
    assert (len(tokenizer), tokenizer.pad_token_id) == (301, 300)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 300
    rows = model.get_input_embeddings().weight
    assert rows.shape[0] == 301
    torch.testing.assert_close(rows[300], rows[:300].mean(0))
    assert model.lm_head.weight is rows
    torch.testing.assert_close(logits(model)[..., :300], logits(load_policy(tiny_model)))


def test_embeddings_with_rows_to_spare_keep_their_shape(tiny_model, tmp_path):
    folder = tmp_path / "m"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(320)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    assert load_policy(folder).get_input_embeddings().weight.shape[0] == 320


def test_adapter_folder_loads_onto_the_base_it_names(tiny_model, tmp_path):
    folder = save_adapter(tiny_model, tmp_path / "dpo")
    model = load_policy(folder)
    base = load_policy(tiny_model)
    assert not torch.allclose(logits(model), logits(base))
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(base))
    torch.testing.assert_close(logits(load_policy(tiny_model, adapter=folder)), logits(model))
    assert load_tokenizer(folder).pad_token == "<|pad|>"


def test_adapter_finds_its_base_after_the_run_folder_was_moved(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "run" / "sft")
    save_adapter(tmp_path / "run" / "sft", tmp_path / "run" / "dpo")
    save_adapter(tmp_path / "run" / "sft", tmp_path / "run" / "dpo" / "checkpoint-5")
    expected = logits(load_policy(tmp_path / "run" / "dpo"))
    (tmp_path / "run").rename(tmp_path / "moved")
    torch.testing.assert_close(logits(load_policy(tmp_path / "moved" / "dpo")), expected)
    assert base_of(tmp_path / "moved" / "dpo" / "checkpoint-5") == str(tmp_path / "moved" / "sft")


def test_adapter_without_its_base_says_what_is_gone(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "sft")
    save_adapter(tmp_path / "sft", tmp_path / "dpo")
    shutil.rmtree(tmp_path / "sft")
    with pytest.raises(ConfigError, match=r"its base model .*/sft is gone, and no folder sft"):
        load_policy(tmp_path / "dpo")


def test_base_named_after_a_named_model_is_found_in_another_cache(
    tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "here"))
    name = "smollm2-135m-instruct-q4"
    cached = shutil.copytree(tiny_model, tmp_path / "here" / "models" / name)
    (cached / "ORIGIN.json").write_text("{}")
    folder = save_adapter(tiny_model, tmp_path / "far" / "away" / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"/elsewhere/models/{name}"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert base_of(folder) == str(cached)


def test_adapter_trained_on_an_adapter_gets_both(tiny_model, tmp_path):
    first = save_adapter(tiny_model, tmp_path / "first", seed=1)
    merged = load_policy(first).merge_and_unload()
    merged.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    second = save_adapter(tmp_path / "whole", tmp_path / "second", seed=5)
    expected = logits(load_policy(second))
    config = json.loads((second / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(first)
    (second / "adapter_config.json").write_text(json.dumps(config))
    torch.testing.assert_close(logits(load_policy(second)), expected)


def test_adapter_of_another_size_does_not_fit(tiny_model, tmp_path):
    from tests.tiny import make_tiny_model

    other = make_tiny_model(tmp_path / "wide", hidden_size=32)
    adapter = save_adapter(other, tmp_path / "adapter")
    with pytest.raises(DataError, match="does not fit its base model"):
        load_policy(tiny_model, adapter=adapter)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "damaged"),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{}"),
            "does not name its base",
        ),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model"),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"short"),
            "damaged adapter",
        ),
    ],
)
def test_damaged_adapter_is_bad_data(tiny_model, tmp_path, spoil, message):
    folder = save_adapter(tiny_model, tmp_path / "dpo")
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load_policy(folder)


def test_damaged_weights_are_bad_data(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not safe")
    with pytest.raises(DataError, match="damaged weights"):
        load_policy(folder)


def test_folder_without_weights_is_bad_data(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="incomplete model folder"):
        load_policy(folder)


def test_hub_model_out_of_reach_says_what_to_check():
    with pytest.raises(
        ConfigError, match=r"someone/absent: no such folder.*HF_HUB_OFFLINE"
    ) as error:
        load_policy("someone/absent")
    assert "\n" not in str(error.value)


def test_reward_adapter_loads_with_its_head_in_fp32(tiny_model, tmp_path):
    folder = save_reward_adapter(tiny_model, tmp_path / "reward", with_head=True)
    from safetensors.torch import load_file

    stored = load_file(folder / "adapter_model.safetensors")
    [head] = [value for name, value in stored.items() if name.endswith("score.weight")]
    model = load_reward_model(folder, dtype="bfloat16")
    weight = dict(reward_head(model).named_parameters())["modules_to_save.default.weight"]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, head.to(torch.bfloat16).float())


def test_reward_adapter_without_head_is_refused(tiny_model, tmp_path):
    folder = save_reward_adapter(tiny_model, tmp_path / "reward", with_head=False)
    with pytest.raises(DataError, match="holds no reward head"):
        load_reward_model(folder)


def test_language_model_is_no_reward_model(tiny_model):
    with pytest.raises(DataError, match="a language model without a reward head"):
        load_reward_model(tiny_model)


def test_reward_model_is_no_policy(tiny_model, tmp_path):
    adapter = save_reward_adapter(tiny_model, tmp_path / "adapter", with_head=True)
    whole = tmp_path / "whole"
    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(
        whole
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(whole)
    assert load_reward_model(whole).config.pad_token_id == 0
    for folder in (adapter, whole):
        with pytest.raises(DataError, match="a reward model; it scores"):
            load_policy(folder)
