"""LoRA layers in the base's dtype are PEFT's layers but for rounding, and step aside elsewhere."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlhf.models.loading import load_policy
from rlhf.models.lora_compute import (
    BaseDtypeLinear,
    compute_in_base_dtype,
    computing_in_base_dtype,
)

pytestmark = pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
IDS = torch.tensor([[5, 40, 41, 33, 2]])


def made(base, **options):
    torch.manual_seed(1)
    settings = {"r": 2, "target_modules": "all-linear", "init_lora_weights": False} | options
    return get_peft_model(load_policy(base), LoraConfig(**settings)).double()


def said_and_learnt(model):
    logits = model(IDS).logits
    logits.square().sum().backward()
    return [logits, *(weight.grad for weight in model.parameters() if weight.requires_grad)]


@pytest.mark.parametrize(
    "options",
    [{}, {"lora_alpha": 7}, {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}],
)
def test_values_and_gradients_are_pefts(options, tiny_model):
    theirs, ours = made(tiny_model, **options), made(tiny_model, **options)
    assert compute_in_base_dtype(ours) == 14
    assert compute_in_base_dtype(ours) == 0
    for one, other in zip(said_and_learnt(ours), said_and_learnt(theirs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_plain_lora_takes_the_fast_path_and_others_pefts(tiny_model):
    def takes(**options):
        model = made(tiny_model, **options).train()
        compute_in_base_dtype(model)
        layer = next(each for each in model.modules() if isinstance(each, BaseDtypeLinear))
        return layer._plain_adapter()

    assert takes() == "default"
    assert takes(use_dora=True) is None
    assert takes(lora_bias=True) is None
    assert takes(lora_dropout=0.1) is None


@pytest.mark.parametrize("part", ["base_layer", "lora_A", "lora_B"])
def test_layers_that_do_more_than_multiply_are_called(part, tiny_model):
    ours, seen = made(tiny_model), []
    for layer in ours.modules():
        if hasattr(layer, "lora_A"):
            inner = getattr(layer, part)
            inner = inner if part == "base_layer" else inner["default"]
            inner.register_forward_pre_hook(lambda *_: seen.append(1))  # as DeepSpeed gathers
    with computing_in_base_dtype(ours), torch.no_grad():
        ours(IDS)
    assert len(seen) == 14


def test_two_active_adapters_take_pefts_path(tiny_model):
    ours, theirs = made(tiny_model), made(tiny_model)
    for model in (ours, theirs):
        torch.manual_seed(2)
        model.add_adapter("more", model.peft_config["default"])
        model.double().base_model.set_adapter(["default", "more"])
    with computing_in_base_dtype(ours) as count, torch.no_grad():
        assert count == 14
        layers = [each for each in ours.modules() if isinstance(each, BaseDtypeLinear)]
        assert {each._plain_adapter() for each in layers} == {None}
        assert torch.equal(ours(IDS).logits, theirs(IDS).logits)


def test_a_block_ends_with_pefts_layers_but_leaves_those_that_were_changed_before(tiny_model):
    model = made(tiny_model)
    with pytest.raises(KeyError), computing_in_base_dtype(model):
        raise KeyError
    assert not any(isinstance(each, BaseDtypeLinear) for each in model.modules())
    compute_in_base_dtype(model)
    with computing_in_base_dtype(model) as count:
        assert count == 0
    assert sum(isinstance(each, BaseDtypeLinear) for each in model.modules()) == 14


def test_what_peft_does_with_its_layers_still_works(tiny_model):
    model = made(tiny_model)
    compute_in_base_dtype(model)
    with torch.no_grad():
        before = model(IDS).logits
        with model.disable_adapter():
            bare = model(IDS).logits
        assert torch.equal(bare, load_policy(tiny_model).double()(IDS).logits)
        merged = model.merge_and_unload()(IDS).logits
    torch.testing.assert_close(merged, before, atol=1e-9, rtol=0)
    assert (before - bare).abs().max() > 0.1
