"""What plain transformers and PEFT read back from an export: the model that the stage left."""

import json
from pathlib import Path

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    get_peft_model,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from rlhf.cli import main
from rlhf.manifest import Manifest
from rlhf.models.generation import generate
from rlhf.models.loading import load_policy, load_reward_model, load_tokenizer
from rlhf.models.reward_spec import RewardSpec, tokenizer_sha256

PROMPTS = [[{"role": "user", "content": f"What of number {number}?"}] for number in range(4)]
ONE = "Wrap it in a cloth."


def greedy(model, tokenizer) -> list[list[int]]:
    found = generate(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=12)
    return [one[0].token_ids for one in found]


def logits(model, tokenizer):
    with torch.inference_mode():
        return model(**tokenizer(ONE, return_tensors="pt", return_token_type_ids=False)).logits


def test_merged_policy_says_what_the_adapter_says(trained, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(trained / "dpo"), "--output_dir", str(out), "--debug"]) == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    adapter = load_policy(trained / "dpo")
    own = load_tokenizer(trained / "dpo")
    assert model.dtype == torch.float32
    assert greedy(model, tokenizer) == greedy(adapter, own)
    assert greedy(model, tokenizer) != greedy(load_policy(trained / "sft"), own)
    torch.testing.assert_close(logits(model, tokenizer), logits(adapter, own), atol=1e-5, rtol=1e-5)
    assert tokenizer_sha256(tokenizer) == tokenizer_sha256(own)
    assert tokenizer.chat_template == own.chat_template
    made = Manifest.read(out)
    assert made.metrics["weights"] == "whole"
    assert 0 <= made.metrics["merge_error"] < 1e-5


def test_plain_generation_ends_where_a_turn_does(trained, stages, tmp_path):
    path = stages / "sft" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": 7, "bos_token_id": 1}))  # a base's own, of no chat
    assert main(["export", str(stages / "sft"), "--output_dir", str(tmp_path / "out")]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == [2, 7]
    assert model.generation_config.pad_token_id == model.config.pad_token_id == 0
    assert model.config.use_cache is True
    same = AutoModelForCausalLM.from_pretrained(trained / "sft").state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, same[name])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_merged_in_fp32_and_then_cast(dtype, trained, tmp_path):
    for name, words in (("whole", []), ("cast", ["--dtype", dtype])):
        stage = [str(trained / "dpo"), "--output_dir", str(tmp_path / name)]
        assert main(["export", *stage, *words]) == 0
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").state_dict()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "cast")
    assert model.dtype == getattr(torch, dtype)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, whole[name].to(getattr(torch, dtype)))


def test_adapter_alone_is_found_by_peft(stages, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(stages / "dpo"), "--output_dir", str(out), "--adapter_only"]) == 0
    model = AutoPeftModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert greedy(model, tokenizer) == greedy(load_policy(stages / "dpo"), tokenizer)
    assert not (out / "config.json").exists()
    assert Manifest.read(out).metrics == {
        "weights": "adapter",
        "num_parameters": sum(
            each.numel() for name, each in model.named_parameters() if "lora_" in name
        ),
    }


def test_reward_model_scores_as_before(trained, tmp_path):
    for name, words in (("whole", []), ("adapter", ["--adapter_only"])):
        stage = [str(trained / "reward"), "--output_dir", str(tmp_path / name)]
        assert main(["export", *stage, *words, "--debug"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    expected = logits(load_reward_model(trained / "reward"), tokenizer)
    assert expected.shape == (1, 1)
    found = [
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole"),
        AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=1),
        load_reward_model(tmp_path / "whole"),
        load_reward_model(tmp_path / "adapter"),
    ]
    for model in found:
        torch.testing.assert_close(logits(model, tokenizer), expected, atol=1e-5, rtol=1e-5)
    spec = RewardSpec.read(tmp_path / "whole")
    assert spec.base is None
    assert spec.tokenizer_sha256 == tokenizer_sha256(tokenizer)


def test_heads_stay_fp32_in_a_cast_reward_model(trained, tmp_path):
    words = [str(trained / "reward"), "--output_dir", str(tmp_path / "out"), "--dtype", "bfloat16"]
    assert main(["export", *words]) == 0
    exported = load_reward_model(tmp_path / "out")
    head = load_reward_model(trained / "reward").base_model.model.score
    trained_head = getattr(head, "modules_to_save", {"default": head})["default"].weight
    assert exported.score.weight.dtype == torch.float32
    assert torch.equal(exported.score.weight, trained_head)


def test_ensemble_goes_out_as_adapters_alone(trained, tmp_path, capsys):
    stage = tmp_path / "ensemble"
    words = ["reward", "--model_name_or_path", str(trained / "sft"), "--num_members", "2"]
    words += ["--dataset_name", str(trained / "pairs.jsonl"), "--max_steps", "1", "--use_peft"]
    assert main([*words, "--lora_r", "2", "--output_dir", str(stage)]) == 0
    words = ["export", str(stage), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 2
    assert "an ensemble of 2 members" in capsys.readouterr().err
    assert main([*words, "--adapter_only"]) == 0
    spec = RewardSpec.read(tmp_path / "out")
    assert len(spec.members) == 2
    tokenizer = load_tokenizer(stage)
    model, again = load_reward_model(stage), load_reward_model(tmp_path / "out")
    for member in spec.members:
        for one in (model, again):
            one.set_adapter(member)
        torch.testing.assert_close(logits(again, tokenizer), logits(model, tokenizer))


@pytest.mark.filterwarnings("ignore:Model .*tie_word_embeddings=True:UserWarning")
def test_merge_that_would_make_another_model_is_refused(trained, stages, tmp_path, capsys):
    """The tiny model's head shares its embedding: merged into it, the adapter changes both."""
    base = AutoModelForCausalLM.from_pretrained(trained / "sft")
    config = LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False)
    adapted = get_peft_model(base, config)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (stages / "dpo" / name).unlink()
    adapted.save_pretrained(stages / "dpo", save_embedding_layers=False)
    note = stages / "dpo" / "manifest.json"  # as if the stage had trained that one
    note.write_text(json.dumps(json.loads(note.read_text()) | {"outputs": {}}))
    words = ["export", str(stages / "dpo"), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert "merged, its outputs differ by" in error
    assert "add --adapter_only" in error
    assert not (tmp_path / "out").exists()
    assert main([*words, "--adapter_only"]) == 0


def test_policy_of_ppo_goes_without_its_critic(trained, tmp_path):
    (tmp_path / "score.py").write_text(
        "def words(completions, **_):\n    return [float(len(str(each))) for each in completions]\n"
    )
    stage = tmp_path / "ppo"
    words = ["ppo", "--model_name_or_path", str(trained / "sft"), "--use_peft", "--lora_r", "2"]
    words += ["--dataset_name", str(trained / "demos.jsonl"), "--output_dir", str(stage)]
    words += ["--reward_funcs", f"{tmp_path / 'score.py'}:words", "--max_steps", "2"]
    words += ["--per_device_train_batch_size", "4", "--max_completion_length", "6", "--debug"]
    assert main(words) == 0
    assert main(["export", str(stage), "--output_dir", str(tmp_path / "out"), "--debug"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("README.md", "manifest.json", "model.safetensors", "config.json"),
        *("generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        "chat_template.jinja",
    }
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert greedy(model, tokenizer) == greedy(load_policy(stage), tokenizer)


def test_every_policy_stage_can_go_out(stages, tmp_path):
    from rlhf.export.stage import POLICIES

    assert set(POLICIES) == {"sft", "dpo", "kto", "ppo", "online_dpo", "rloo", "grpo"}
    path = stages / "dpo" / "manifest.json"
    values = json.loads(path.read_text())
    for stage in POLICIES:
        path.write_text(json.dumps(values | {"stage": stage}))
        out: Path = tmp_path / stage
        assert main(["export", str(stages / "dpo"), "--output_dir", str(out), "--debug"]) == 0
        assert f"stage `{stage}`" in (out / "README.md").read_text()
