"""ActorCritic: four models on one base, each saying what it would say alone."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from rlhf.errors import ConfigError, DataError
from rlhf.models.actor_critic import ActorCritic
from rlhf.models.loading import load_policy
from rlhf.models.scoring import RewardModel
from rlhf.models.transcripts import Transcripts
from tests.models.reward_models import save_reward
from tests.tiny import make_tiny_model

PROMPTS = [[5, 40, 41], [7], [9, 9, 12]]
COMPLETIONS = [[33, 2], [90, 91, 0, 2], [61]]  # with a pad token inside


def lora(**options) -> LoraConfig:
    settings = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(**(settings | {"init_lora_weights": False} | options))


def transcripts() -> Transcripts:
    return Transcripts.pack(PROMPTS, COMPLETIONS, 0)


@pytest.fixture
def reward(tiny_model: Path, tmp_path: Path) -> Path:
    heads = {"helpful": 0.5, "short": -1.5}
    return save_reward(tiny_model, tmp_path / "reward", num_members=2, heads=heads)


def built(base: Path, **options) -> ActorCritic:
    torch.manual_seed(3)
    return ActorCritic.build(load_policy(base), **({"lora_config": lora()} | options))


def plain_logps(model, temperature: float = 1.0) -> torch.Tensor:
    """[B, T] by the model's own forward, one transcript at a time."""
    found = torch.zeros(3, 4)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0] / temperature
        for place, token in enumerate(completion):
            found[row, place] = logits[len(prompt) + place - 1].log_softmax(-1)[token]
    return found


def test_policy_and_reference_say_what_they_would_alone(tiny_model, reward):
    model = built(tiny_model, reward_dir=reward)
    policy, reference = model(transcripts(), temperature=0.7), model(transcripts(), "reference")
    with torch.no_grad():
        torch.testing.assert_close(policy.logps, plain_logps(model.policy, 0.7), atol=1e-5, rtol=0)
        expected = plain_logps(load_policy(tiny_model))
    torch.testing.assert_close(reference.logps, expected, atol=1e-5, rtol=0)
    assert (policy.logps - reference.logps).abs().max() > 0.1
    assert reference.values is None
    assert policy.entropies is None


def test_reward_says_what_the_reward_model_says(tiny_model, reward):
    model = built(tiny_model, reward_dir=reward)
    rows = [[*p, *c] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    with torch.no_grad():
        raw = model(transcripts(), "reward")
    expected = RewardModel.load(reward).all_scores_ids(rows).raw
    assert raw.shape == (2, 3, 2)
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_what_is_trained_gets_gradients_and_nothing_else(critic, tiny_model, reward):
    model = built(tiny_model, reward_dir=reward, critic=critic)
    with torch.no_grad():
        model.value_head.weight.fill_(0.1)
    out = model(transcripts())
    (out.logps.sum() + out.values.square().sum()).backward()
    trained = {id(each) for each in model.policy_parameters() + model.critic_parameters()}
    assert len(trained) == (30 if critic == "head" else 38)
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == (id(weight) in trained), name


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_an_adapter_on_the_embeddings_is_trained_and_kept(critic, tiny_model, tmp_path):
    config = lora(target_modules=["embed_tokens", "q_proj"])
    model = built(tiny_model, lora_config=config, critic=critic)
    trained = model.policy_parameters() + model.critic_parameters()
    assert len(trained) == (6 + 2 if critic == "head" else 6 + 6 + 2)
    assert all(weight.requires_grad for weight in trained)
    model.save_policy(tmp_path / "saved")
    model.save_critic(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert len(stored) == 6
    assert all("lora_" in name for name in stored)
    other = built(tiny_model, lora_config=config, critic=critic)
    with torch.no_grad():
        for weight in other.policy_parameters() + other.critic_parameters():
            weight.normal_()
    other.load_policy(tmp_path / "saved")
    other.load_critic(tmp_path / "saved")
    assert torch.equal(model(transcripts()).logps, other(transcripts()).logps)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_saved_and_loaded_it_is_the_same(critic, tiny_model, reward, tmp_path):
    model = built(tiny_model, reward_dir=reward, critic=critic, critic_init="reward")
    model.save_policy(tmp_path / "saved")
    model.save_critic(tmp_path / "saved")
    torch.manual_seed(8)
    other = built(tiny_model, reward_dir=reward, critic=critic)
    with torch.no_grad():
        for weight in other.policy_parameters() + other.critic_parameters():
            weight.normal_()
    other.load_policy(tmp_path / "saved")
    other.load_critic(tmp_path / "saved")
    for ours, theirs in zip(model(transcripts()), other(transcripts()), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)
    flags = [weight.requires_grad for weight in model.parameters()]
    assert flags == [weight.requires_grad for weight in other.parameters()]


def test_saved_policy_is_a_plain_adapter_on_the_base(tiny_model, reward, tmp_path):
    model = built(tiny_model, reward_dir=reward, critic="adapter")
    model.save_policy(tmp_path / "policy")
    files = {path.name for path in (tmp_path / "policy").iterdir()} - {"README.md"}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    stored = load_file(tmp_path / "policy" / "adapter_model.safetensors")
    assert len(stored) == 28
    assert all("lora_" in name and "score" not in name for name in stored)
    alone = PeftModel.from_pretrained(load_policy(tiny_model), tmp_path / "policy")
    with torch.no_grad():
        out = model(transcripts())
        torch.testing.assert_close(out.logps, plain_logps(alone), atol=1e-5, rtol=0)


def test_what_is_missing_from_a_checkpoint_is_named(tiny_model, tmp_path):
    model = built(tiny_model)
    with pytest.raises(DataError, match=r"no adapter_config.json, so the policy is missing"):
        model.load_policy(tmp_path)
    with pytest.raises(DataError, match=r"no critic.safetensors, so the critic is missing"):
        model.load_critic(tmp_path)
    model.save_policy(tmp_path)
    model.save_critic(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no adapter_model.safetensors, so the policy is missing"):
        model.load_policy(tmp_path)
    (tmp_path / "critic.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(DataError, match=r"critic.safetensors: damaged"):
        model.load_critic(tmp_path)


def test_reward_model_of_another_base_is_refused(tiny_model, tmp_path):
    other = make_tiny_model(tmp_path / "other", seed=5)
    reward = save_reward(other, tmp_path / "reward")
    with pytest.raises(ConfigError, match=r"reward: trained on .*other, but .*--separate_reward"):
        built(tiny_model, reward_dir=reward)


def test_a_head_can_begin_as_the_reward_model(tiny_model, reward):
    """On the policy's trunk with the reward adapter's own states it gives that member's score."""
    model = built(tiny_model, reward_dir=reward, critic="adapter")
    out, raw = model(transcripts()), model(transcripts(), "reward")
    head = model.value_head
    assert not head.bias.any()
    # The state before the next token is the state of this one: append a token and read the value.
    longer = Transcripts.pack(PROMPTS, [[*completion, 5] for completion in COMPLETIONS], 0)
    last = model(longer).values[torch.arange(3), longer.lengths - 1]
    torch.testing.assert_close(last, raw[0] @ torch.tensor([0.5, -1.5]), atol=1e-5, rtol=0)
    assert out.values.abs().max() > 0.01


def test_how_a_critic_begins(tiny_model, reward):
    def begins(**options):
        return built(tiny_model, **options).value_head.weight.detach()

    own = begins(reward_dir=reward, critic_init="reward")
    assert own.abs().max() > 0
    assert torch.equal(own, begins(reward_dir=reward, critic="adapter"))
    assert not begins(reward_dir=reward).any()
    assert not begins(reward_dir=reward, critic="adapter", critic_init="zero").any()
    assert not begins(critic="adapter").any()
    fresh = built(tiny_model, reward_dir=reward, critic="adapter", critic_init="zero")
    weights = dict(fresh.policy.named_parameters())
    for name in fresh.critic_names()[:4]:
        reward_name = name.removeprefix("policy.").replace(".critic.", ".reward.")
        assert not torch.equal(weights[name.removeprefix("policy.")], weights[reward_name])


def test_two_reward_models_with_other_heads_on_one_base(tiny_model, reward, tmp_path):
    second = save_reward(tiny_model, tmp_path / "second")
    model = built(tiny_model, reward_dir=[reward, second])
    assert model.rewards == {"reward": ["reward", "reward-2"], "reward_2": ["reward_2"]}
    rows = [[*p, *c] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    for name, folder in (("reward", reward), ("reward_2", second)):
        raw = model(transcripts(), "reward", reward=name)
        expected = RewardModel.load(folder).all_scores_ids(rows).raw
        torch.testing.assert_close(raw, expected, atol=1e-5, rtol=0)


def test_full_fine_tuning_with_a_separate_reference(tiny_model, reward, tmp_path):
    options = {"lora_config": None, "separate_reference": load_policy(tiny_model)}
    model = built(tiny_model, reward_dir=reward, critic="adapter", **options)
    trained = {id(each) for each in model.parameters() if each.requires_grad}
    policy = {id(each) for each in model.policy.parameters()}
    assert policy < trained
    assert len(trained) == len(policy) + 8 + 2
    before = model(transcripts(), "reference").logps
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], 0.1)
    out = model(transcripts(), with_entropy=True, entropy_grad=True)
    (out.logps.sum() + out.values.sum() + out.entropies.sum()).backward()
    assert all(weight.grad is not None for weight in model.policy_parameters())
    optimizer.step()
    assert torch.equal(model(transcripts(), "reference").logps, before)
    after = model(transcripts()).logps
    assert (after - before).abs().max() > 0.01
    model.save_policy(tmp_path / "saved")
    with torch.no_grad():
        expected = plain_logps(load_policy_with(tmp_path / "saved", tiny_model))
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)
    other = built(tiny_model, lora_config=None)
    other.load_policy(tmp_path / "saved")
    assert torch.equal(other(transcripts()).logps, after)
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no model.safetensors, so the policy is missing"):
        other.load_policy(tmp_path / "saved")


def test_a_whole_policy_is_never_filled_up_with_what_nobody_trained(tiny_model, tmp_path):
    model = built(tiny_model, lora_config=None)
    folder = tmp_path / "saved"
    model.save_policy(folder)
    stored = load_file(folder / "model.safetensors")
    dropped = {key: each for key, each in stored.items() if key != "model.norm.weight"}
    save_file(dropped, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"model.norm.weight is missing"):
        model.load_policy(folder)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"no config.json, so the policy is missing"):
        model.load_policy(folder)


def load_policy_with(folder: Path, base: Path):
    """The saved model with the base's tokenizer, which the trainer saves beside it."""
    from rlhf.models.loading import load_tokenizer

    load_tokenizer(base).save_pretrained(folder)
    return load_policy(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_init": "reward"}, r"--critic_init reward: .* there is none"),
        ({"lora_config": None, "critic": "adapter"}, r"full fine-tuning .*--use_peft true"),
        ({"lora_config": lora(modules_to_save=["score"])}, r"--lora_modules_to_save score"),
    ],
)
def test_what_cannot_be_combined(options, message, tiny_model):
    with pytest.raises(ConfigError, match=message):
        built(tiny_model, **options)


def test_reward_adapters_need_a_frozen_base(tiny_model, reward):
    with pytest.raises(ConfigError, match=r"--separate_reward_model true"):
        built(tiny_model, lora_config=None, reward_dir=reward)


def test_a_whole_reward_model_is_no_adapter(tiny_model):
    with pytest.raises(ConfigError, match=r"a whole reward model.*--separate_reward_model true"):
        built(tiny_model, reward_dir=tiny_model)


def test_a_4_bit_base(tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    folder = make_tiny_model(tmp_path / "model", hidden_size=64)
    quantised = BitsAndBytesConfig(load_in_4bit=True)
    base = load_policy(folder, dtype="float32", quantization_config=quantised, device="cpu")
    assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    reward = save_reward(folder, tmp_path / "reward")
    model = ActorCritic.build(base, lora_config=lora(), reward_dir=reward, critic="adapter")
    out = model(transcripts())
    (out.logps.sum() + out.values.sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in model.policy_parameters())
    assert model(transcripts(), "reward").isfinite().all()
    assert model(transcripts(), "reference").logps.isfinite().all()


def test_no_kind_of_dropout_is_left():
    """OPT keeps rates as numbers of its layers, GPT-2 in modules; both are in train mode here."""
    sizes = {"vocab_size": 300, "num_hidden_layers": 1, "num_attention_heads": 2}
    for config in (
        GPT2Config(n_embd=16, **sizes),
        OPTConfig(hidden_size=16, ffn_dim=32, word_embed_proj_dim=16, layerdrop=0.5, **sizes),
    ):
        model = AutoModelForCausalLM.from_config(config).train()
        gpt2 = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
        modules = gpt2 if config.model_type == "gpt2" else {"target_modules": ["q_proj"]}
        whole = ActorCritic.build(model, lora_config=lora(lora_dropout=0.5, **modules))
        first, second = (whole.train()(transcripts()).logps for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(first, whole.eval()(transcripts()).logps)


def test_scores_that_are_shaped_in_unknown_ways_are_refused(tiny_model, monkeypatch):
    base = load_policy(tiny_model)
    forward = base.forward

    def shaped(*args, **options):
        out = forward(*args, **options)
        out.logits = out.logits * 0.5
        return out

    monkeypatch.setattr(base, "forward", shaped)
    with pytest.raises(ConfigError, match=r"models of type llama shape their scores"):
        ActorCritic.build(base, lora_config=lora())
