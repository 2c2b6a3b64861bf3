"""TRL's fused LM head, computed by tiles, gives what TRL's own kernel gives, or leaves it to it."""

import math

import pytest
import torch
import trl.trainer.utils
from trl.kernels import ChunkedLogProbFunction

from rlhf.models import vocabulary_tiles
from rlhf.models.fused_head import fast_head, fused_token_scores

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
OPTIONS = [{}, {"bias": True}, {"softcap": 2.0, "scale": 0.6}, {"temperature": 0.7}]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles that do not divide the vocabulary."""
    monkeypatch.setitem(vocabulary_tiles.TILE_SIZES, "cpu", 4)


def drawn(trained, *, bias=False):
    torch.manual_seed(0)
    hidden = torch.randn(9, 5).requires_grad_()
    weight = torch.randn(11, 5).requires_grad_(trained)
    offset = torch.randn(11).requires_grad_(trained) if bias else None
    return hidden, weight, offset, torch.randint(11, (9,))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("trained", [False, True])
def test_values_and_gradients_are_trls(trained, options):
    leaves = drawn(trained, bias=options.get("bias", False))
    rest = (options.get("temperature", 1.0), 3, options.get("softcap"), options.get("scale", 1.0))
    ours = fused_token_scores(*leaves, *rest, OUTPUTS)
    theirs = ChunkedLogProbFunction.apply(*leaves, *rest, OUTPUTS)
    assert [each is None for each in ours] == [each is None for each in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    learnt = [each for each in leaves[:3] if each is not None and each.requires_grad]
    factors = torch.linspace(-1, 2, 9)
    for one, other in zip(
        torch.autograd.grad(factors @ ours[0], learnt),
        torch.autograd.grad(factors @ theirs[0], learnt),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_logged_values_by_hand():
    # scores ln 2, ln 2, 0 of one state: shares 0.4, 0.4, 0.2, their mean 2/3 ln 2
    hidden, weight = torch.tensor([[math.log(2)]] * 3), torch.tensor([[1.0], [1.0], [0.0]])
    found = fused_token_scores(
        hidden, weight, None, torch.tensor([0, 1, 2]), 1.0, 8, None, 1.0, OUTPUTS
    )
    assert found[0].exp().tolist() == pytest.approx([0.4, 0.4, 0.2])
    assert found[3].tolist() == pytest.approx([2 / 3 * math.log(2)] * 3)
    assert found[4].tolist() == [True, False, False]  # of two that are as likely, the first


def test_only_what_is_asked_for_is_computed():
    leaves = drawn(False)
    logps, *rest = fused_token_scores(*leaves, 1.0, 3, None, 1.0, ("log_probs",))
    assert rest == [None] * 4
    assert logps.requires_grad
    _, entropies, _, means, tops = fused_token_scores(*leaves, 1.0, 3, None, 1.0, OUTPUTS)
    assert not any(each.requires_grad for each in (entropies, means, tops))


def test_what_is_not_known_is_left_to_trl():
    leaves = drawn(False)
    rest = (1.0, 3, None, 1.0)
    assert fused_token_scores(*leaves, *rest, (*OUTPUTS, "log_sum_sq_probs")) is None
    assert fused_token_scores(leaves[0].bfloat16(), *leaves[1:], *rest, OUTPUTS) is None
    nothing = (leaves[0][:0], *leaves[1:3], leaves[3][:0])
    assert fused_token_scores(*nothing, *rest, OUTPUTS) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert fused_token_scores(*leaves, *rest, OUTPUTS) is None


def test_trls_head_is_put_back_and_asked_where_it_must():
    before = trl.trainer.utils._ChunkedLogProbFunction
    with fast_head():
        kernel = trl.trainer.utils._ChunkedLogProbFunction
        wanted = (*OUTPUTS, "log_sum_sq_probs")
        found = kernel.apply(*drawn(False), 1.0, 3, None, 1.0, wanted)
        assert kernel is not before
        assert all(each is not None for each in found)
    assert trl.trainer.utils._ChunkedLogProbFunction is before
