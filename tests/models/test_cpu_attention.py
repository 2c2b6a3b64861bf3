"""Attention for short rows on a CPU is torch's attention, forward and backward."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rlhf.models import cpu_attention
from rlhf.models.cpu_attention import (
    NAME,
    attending_short_rows,
    short_row_attention,
    use_short_row_attention,
)
from rlhf.models.loading import load_policy

CAUSAL = torch.nn.Module()
CAUSAL.is_causal = True
CAUSAL.num_key_value_groups = 3


def drawn(length: int = 7, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Query of 6 heads, keys and values of 2."""
    torch.manual_seed(0)
    return [torch.randn(2, heads, length, 4, dtype=dtype).requires_grad_() for heads in (6, 2, 2)]


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("length", [2, 7, 130])
def test_values_and_gradients_are_torchs(scaling, length):
    leaves = drawn(length)
    ours, _ = short_row_attention(CAUSAL, *leaves, None, scaling=scaling)
    theirs = scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True, scale=scaling)
    theirs = theirs.transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)  # probabilities pass through fp32
    factors = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad((ours * factors).sum(), leaves),
        torch.autograd.grad((theirs * factors).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [7, 130])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_mask_decides_what_is_seen(rows, length, is_causal):
    leaves = drawn(length)
    torch.manual_seed(2)
    mask = (torch.rand(rows, 1, length, length) < 0.4) | torch.eye(length, dtype=torch.bool)
    mask = mask.tril() if is_causal else mask
    ours, _ = short_row_attention(CAUSAL, *leaves, mask)
    theirs = scaled_dot_product_attention(*leaves, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    factors = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad((ours * factors).sum(), leaves),
        torch.autograd.grad((theirs * factors).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_place_that_sees_nothing_is_no_nan():
    leaves = drawn(dtype=torch.bfloat16)
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
    mask[0, 0, :2] = False  # padded on the left
    out, _ = short_row_attention(CAUSAL, *leaves, mask)
    gradients = torch.autograd.grad(out[:, 2:].sum(), leaves)
    assert all(each.isfinite().all() for each in (out, *gradients))


def test_no_token_sees_a_later_one():
    query, key, value = (each.detach() for each in drawn())
    before, _ = short_row_attention(CAUSAL, query, key, value, None)
    key[:, :, 4:], value[:, :, 4:] = 100.0, -100.0
    after, _ = short_row_attention(CAUSAL, query, key, value, None)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize(
    "change",
    ["added mask", "mask a head", "float32", "long", "window", "cache", "both ways", "not known"],
)
def test_whatever_else_there_is_goes_to_torchs_kernel(change, monkeypatch):
    called = []
    monkeypatch.setattr(
        cpu_attention, "sdpa_attention_forward", lambda *args, **options: called.append(args)
    )
    dtype = torch.float32 if change == "float32" else torch.bfloat16
    query, key, value = (each.detach() for each in drawn(dtype=dtype))
    masks = {
        "added mask": torch.zeros(2, 1, 7, 7, dtype=dtype),
        "mask a head": torch.ones(2, 6, 7, 7, dtype=torch.bool),
    }
    mask = masks.get(change)
    options = {
        "window": {"sliding_window": 4},
        "both ways": {"is_causal": False},
        "not known": {"position_bias": torch.zeros(1)},
    }.get(change, {})
    monkeypatch.setattr(cpu_attention, "MAX_TOKENS", 6 if change == "long" else 7)
    if change == "cache":
        query = query[:, :, -1:]
    short_row_attention(CAUSAL, query, key, value, mask, **options)
    assert called
    called.clear()
    monkeypatch.setattr(cpu_attention, "MAX_TOKENS", 7)
    short_row_attention(CAUSAL, *(each.detach() for each in drawn(dtype=torch.bfloat16)), None)
    assert not called


def test_a_bf16_model_computes_and_samples_with_it(tiny_model):
    plain, ours = (load_policy(tiny_model, dtype="bfloat16", device="cpu") for _ in range(2))
    assert use_short_row_attention(ours)
    assert use_short_row_attention(ours)  # a second time changes nothing
    assert ours.config._attn_implementation == NAME
    ids = torch.tensor([[5, 40, 41, 33, 2, 8], [7, 90, 91, 61, 9, 12]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        for options in ({}, {"attention_mask": mask}):
            one, other = (model(ids, **options).logits[:, -1] for model in (plain, ours))
            torch.testing.assert_close(one, other, atol=0.1, rtol=0.05)
        options = {"attention_mask": mask, "max_new_tokens": 3, "do_sample": False}
        assert torch.equal(plain.generate(ids, **options), ours.generate(ids, **options))


def test_within_a_block_and_no_longer(tiny_model, tmp_path):
    model = load_policy(tiny_model, device="cpu")
    with attending_short_rows(model) as used:
        assert used
        assert model.config._attn_implementation == NAME
        model.save_pretrained(tmp_path)
    assert model.config._attn_implementation == "sdpa"
    assert NAME not in (tmp_path / "config.json").read_text()
    taught = load_policy(tiny_model, device="cpu")
    assert use_short_row_attention(taught)
    with attending_short_rows(taught):
        pass
    assert taught.config._attn_implementation == NAME  # as it was before


def test_a_model_with_attention_of_its_own_is_left_alone(tiny_model):
    model = load_policy(tiny_model, attn_implementation="eager", device="cpu")
    assert not use_short_row_attention(model)
    assert model.config._attn_implementation == "eager"
