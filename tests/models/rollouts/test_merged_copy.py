"""The copy says what the unmerged policy says after any number of syncs, and costs little."""

from functools import partial

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn

from rlhf.errors import ConfigError
from rlhf.models.adapters import checkpoint_contexts
from rlhf.models.loading import load_policy
from rlhf.models.lora_compute import compute_in_base_dtype
from rlhf.models.rollouts import merged_copy
from rlhf.models.rollouts.engine import make_engine
from rlhf.models.rollouts.merged_copy import MergedCopy, copy_size, obstacle
from rlhf.models.rollouts.merged_linear import MergedLinear
from rlhf.models.rollouts.policy_engine import PolicyEngine
from tests.models.rollouts.conftest import PROMPTS, full_logps, make_adapted, make_sampling

IDS = torch.tensor([[5, 9, 30, 44, 7, 60, 61]])


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alpha pattern": {"alpha_pattern": {"q_proj": 64}, "rank_pattern": {"v_proj": 2}},
    "some layers": {"target_modules": ["q_proj", "down_proj"]},
    "some depths": {"target_modules": ["v_proj"], "layers_to_transform": [1]},
    "tied head": {"target_modules": ["q_proj", "lm_head"]},
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", KINDS)
def test_copy_equals_the_unmerged_policy(tiny_model, kind):
    policy = make_adapted(tiny_model, **KINDS[kind])
    with policy.disable_adapter():
        base = logits_of(policy)
    expected = logits_of(policy)
    assert (expected - base).abs().max() > 0.1, "the adapter changes nothing"
    assert obstacle(policy, "default") is None
    copied = MergedCopy(policy, make_sampling())
    assert torch.allclose(logits_of(copied.model), expected, atol=1e-4, rtol=1e-5)


def test_copy_and_policy_sample_the_same(adapted):
    copied = make_engine(adapted, make_sampling(), copy="always").sample(PROMPTS, seed=3)
    plain = make_engine(adapted, make_sampling(), copy="never").sample(PROMPTS, seed=3)
    assert [one.token_ids for one in copied] == [one.token_ids for one in plain]
    for ours, theirs in zip(copied, plain, strict=True):
        assert ours.logps == pytest.approx(theirs.logps, abs=1e-5)


def test_layers_that_compute_in_the_bases_dtype_are_copied_too(tiny_model):
    policy = make_adapted(tiny_model)
    assert compute_in_base_dtype(policy) == 14
    engine = make_engine(policy, make_sampling(), copy="always")
    assert torch.allclose(logits_of(engine.model), logits_of(policy), atol=1e-4)


def test_policy_with_gradient_checkpointing_is_not_copied_along(adapted):
    base = adapted.get_base_model()
    again = partial(checkpoint_contexts, adapted)
    for layer in base.model.layers:  # as transformers does it when checkpointing is asked for
        layer._gradient_checkpointing_func = again
    engine = MergedCopy(adapted, make_sampling())
    assert engine.model.model.layers[0]._gradient_checkpointing_func is again
    assert torch.allclose(logits_of(engine.model), logits_of(adapted), atol=1e-4)


def test_conv1d_layers_are_copied_in_their_own_orientation():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=70, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3
    )
    lora = LoraConfig(
        r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, init_lora_weights=False
    )
    policy = get_peft_model(GPT2LMHeadModel(config), lora).eval()
    copied = MergedCopy(policy, make_sampling())
    assert torch.allclose(logits_of(copied.model), logits_of(policy), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_thousand_syncs_leave_no_trace(tiny_model, dtype):
    policy = make_adapted(tiny_model, dtype=dtype)
    frozen = {name: w.clone() for name, w in policy.named_parameters() if "lora_" not in name}
    with policy.disable_adapter():
        expected = logits_of(policy)
    engine = MergedCopy(policy, make_sampling())
    generator = torch.Generator().manual_seed(0)
    adapter = [w for name, w in policy.named_parameters() if "lora_" in name]
    for _ in range(1000):
        with torch.no_grad():
            adapter[0].normal_(generator=generator)
        engine.sync()
    with torch.no_grad():
        for weight in adapter:
            weight.zero_()
    engine.sync()
    assert torch.equal(logits_of(engine.model), expected)
    for name, weight in policy.named_parameters():
        assert name not in frozen or torch.equal(weight, frozen[name])


def test_nothing_changes_before_a_sync(adapted):
    engine = MergedCopy(adapted, make_sampling())
    before = engine.sample(PROMPTS, seed=1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.mul_(3)
    assert engine.sample(PROMPTS, seed=1) == before
    engine.sync()
    assert engine.sample(PROMPTS, seed=1) != before
    assert torch.allclose(logits_of(engine.model), logits_of(adapted), atol=1e-3)


def test_sum_is_rounded_once(tiny_model):
    """1 and 2^-9 in bf16: an adapter of 2^-8 rounded first gives another neighbour of 1.0039."""
    policy = make_adapted(tiny_model, dtype="bfloat16", target_modules=["q_proj"], r=1)
    layer = policy.get_base_model().model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.base_layer.weight.fill_(1.0)
        layer.lora_A["default"].weight.fill_(1.0)
        layer.lora_B["default"].weight.fill_(0.0040 / layer.scaling["default"])
    engine = MergedCopy(policy, make_sampling())
    twin = engine.model.model.layers[0].self_attn.q_proj
    # bf16 has 1 and 1 + 2^-7 = 1.0078: 1.0040 is nearer to the upper one
    assert twin(torch.ones(1, 16, dtype=torch.bfloat16)).float() == pytest.approx(16 * 1.0078125)


def test_everything_but_the_changed_matrices_is_the_bases_own_memory(adapted):
    engine = MergedCopy(adapted, make_sampling())
    base = {weight.data_ptr() for weight in adapted.get_base_model().parameters()}
    assert all(weight.data_ptr() in base for weight in engine.model.parameters())
    own = [module for module in engine.model.modules() if isinstance(module, MergedLinear)]
    assert len(own) == 14  # seven projections in two layers
    assert all(module.matrix.data_ptr() not in base for module in own)
    held = sum(module.matrix.numel() * module.matrix.element_size() for module in own)
    assert held == copy_size(adapted, "default")


def test_other_adapters_on_the_base_are_not_in_the_copy(adapted):
    expected = logits_of(adapted)
    adapted.add_adapter(
        "critic", LoraConfig(r=2, target_modules=["k_proj"], init_lora_weights=False)
    )
    engine = MergedCopy(adapted, make_sampling())
    adapted.set_adapter("critic")
    engine.sync()
    assert torch.allclose(logits_of(engine.model), expected, atol=1e-4)


OBSTACLES = {
    "DoRA": ({"use_dora": True}, "variant of LoRA"),
    "biases": ({"lora_bias": True, "target_modules": ["q_proj"]}, "lora_bias"),
    "embeddings": ({"target_modules": ["embed_tokens"]}, "cannot be merged .Embedding"),
    "modules": ({"modules_to_save": ["norm"]}, "ModulesToSaveWrapper"),
    "tokens": ({"trainable_token_indices": [3, 4]}, "TrainableTokensWrapper"),
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_cannot_be_merged_is_sampled_from_the_policy(tiny_model, kind):
    options, reason = OBSTACLES[kind]
    base = load_policy(tiny_model)
    if kind == "biases":
        for layer in base.model.layers:
            layer.self_attn.q_proj.bias = nn.Parameter(torch.ones(16))
    torch.manual_seed(0)
    settings = {"r": 2, "target_modules": "all-linear", "init_lora_weights": False} | options
    policy = get_peft_model(base, LoraConfig(**settings)).eval()
    engine = make_engine(policy, make_sampling())
    assert isinstance(engine, PolicyEngine)
    with pytest.raises(ConfigError, match=f"rollout_copy always: .*{reason}"):
        make_engine(policy, make_sampling(), copy="always")
    [sampled] = engine.sample(PROMPTS[:1], seed=0)
    expected = full_logps(policy, PROMPTS[0], sampled.token_ids)
    assert sampled.logps == pytest.approx(expected, abs=1e-5)


def test_policies_without_lora_have_no_copy(tiny_model):
    whole = load_policy(tiny_model)
    assert "no adapter" in obstacle(whole, "default")
    assert isinstance(make_engine(whole, make_sampling()), PolicyEngine)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert "PROMPT_TUNING is not LoRA" in obstacle(get_peft_model(whole, prompts), "default")


def test_policy_without_that_adapter_has_no_copy(adapted):
    assert "no adapter called 'policy'" in obstacle(adapted, "policy")


@pytest.mark.parametrize(("factor", "name"), [(2.0, "merged copy"), (1.99, "policy")])
def test_auto_copies_where_twice_the_size_is_free(adapted, monkeypatch, factor, name):
    size = copy_size(adapted, "default")
    monkeypatch.setattr(merged_copy, "free_bytes", lambda policy: int(factor * size))
    engine = make_engine(adapted, make_sampling())
    assert engine.name == name
    assert "GB" in engine.describe()


def test_copy_leaves_the_policy_as_it_was(adapted):
    adapted.train()
    base = adapted.get_base_model()
    base.model.layers[0].eval()  # a mode of its own, to be kept
    modes = {name: module.training for name, module in adapted.named_modules()}
    grads = {name: weight.requires_grad for name, weight in adapted.named_parameters()}
    config = base.generation_config
    engine = MergedCopy(adapted, make_sampling())
    engine.sample(PROMPTS, seed=0)
    assert {name: module.training for name, module in adapted.named_modules()} == modes
    assert {name: w.requires_grad for name, w in adapted.named_parameters()} == grads
    assert base.generation_config is config
    assert adapted.active_adapters == ["default"]
    assert adapted(IDS, labels=IDS).loss.requires_grad


def test_wrapped_forward_of_the_policy_is_not_called_by_the_copy(adapted):
    base = adapted.get_base_model()
    expected = logits_of(adapted)

    def broken(*args, **kwargs):
        raise AssertionError("the trainer's own forward")

    base.forward = broken
    engine = MergedCopy(adapted, make_sampling())
    assert torch.allclose(logits_of(engine.model), expected, atol=1e-4)
    assert base.forward is broken


def test_closed_engine_holds_nothing(adapted):
    engine = MergedCopy(adapted, make_sampling())
    engine.close()
    assert engine.model is None
    with pytest.raises(AssertionError, match="closed"):
        engine.sample(PROMPTS, seed=0)


@pytest.mark.parametrize("bias", [None, torch.tensor([0.5, -1.0, 2.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_linear_is_torchs_linear_bit_for_bit(dtype, bias):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=generator).to(dtype)
    hidden = torch.randn(2, 4, 5, generator=generator).to(dtype)
    shift = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
    linear = MergedLinear(shift)
    linear.write(weight)
    assert torch.equal(linear(hidden), nn.functional.linear(hidden, weight, shift))
    with torch.inference_mode():
        assert torch.equal(linear(hidden[:, :1]), linear(hidden)[:, :1])
    linear.write(2 * weight)
    assert torch.equal(linear(hidden), nn.functional.linear(hidden, 2 * weight, shift))
