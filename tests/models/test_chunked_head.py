"""Token log-probabilities by tiles of the vocabulary equal those of the whole, gradients too."""

import math

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from rlhf.models import vocabulary_tiles
from rlhf.models.chunked_head import chunked_logps, head_of, model_logps
from rlhf.models.vocabulary_tiles import Head

NUM, HIDDEN, VOCABULARY = 7, 5, 11
OPTIONS = [
    {},
    {"temperature": 0.7},
    {"softcap": 2.0},
    {"softcap": 1.5, "scale": 0.6, "temperature": 1.3},
    {"scale": 3.0, "bias": True},
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles that do not divide the vocabulary."""
    monkeypatch.setitem(vocabulary_tiles.TILE_SIZES, "cpu", 4)


def drawn(dtype=torch.float64, *, trained=False, seed=0):
    torch.manual_seed(seed)
    hidden = torch.randn(NUM, HIDDEN, dtype=dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=dtype).requires_grad_(trained)
    bias = torch.randn(VOCABULARY, dtype=dtype).requires_grad_(trained)
    return hidden, weight, bias, torch.randint(VOCABULARY, (NUM,))


def plain(hidden, weight, ids, *, bias=None, temperature=1.0, softcap=None, scale=1.0):
    z = hidden @ weight.T
    z = (z if bias is None else z + bias) * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    log_p = (z / temperature).log_softmax(-1)
    return log_p[torch.arange(len(ids)), ids], -(log_p.exp() * log_p).sum(-1)


def gradients(values, leaves):
    found = torch.autograd.grad(values, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_values_and_gradients_are_those_of_log_softmax(options, trained, chunk_size):
    hidden, weight, bias, ids = drawn(trained=trained)
    options = options | {"bias": bias if options.get("bias") else None}
    asked = {"with_entropy": True, "entropy_grad": True, "chunk_size": chunk_size}
    ours = chunked_logps(hidden, weight, ids, **asked, **options)
    theirs = plain(hidden, weight, ids, **options)
    leaves = [hidden, *((weight, bias) if trained else ())]
    factors = torch.linspace(-1, 2, NUM, dtype=torch.float64)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    totals = [
        (factors * logps).sum() + factors.cos() @ entropy for logps, entropy in (ours, theirs)
    ]
    for one, other in zip(*(gradients(total, leaves) for total in totals), strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradcheck(trained, softcap):
    hidden, weight, bias, ids = drawn(trained=trained)

    def values(hidden, weight, bias):
        asked = {"with_entropy": True, "entropy_grad": True, "chunk_size": 3}
        return chunked_logps(
            hidden, weight, ids, bias=bias, temperature=0.7, softcap=softcap, scale=1.3, **asked
        )

    assert torch.autograd.gradcheck(values, (hidden, weight, bias))


def test_by_hand():
    """Scores 0 and ln 3: probabilities 1/4 and 3/4, entropy ln 4 - 3/4 ln 3; p'[1] by the second
    score is 1 - 3/4.
    """
    hidden = torch.tensor([[math.log(3.0)]], requires_grad=True)
    logps, entropies = chunked_logps(
        hidden, torch.tensor([[0.0], [1.0]]), torch.tensor([1]), with_entropy=True
    )
    logps.sum().backward()
    assert logps.item() == pytest.approx(math.log(0.75), abs=1e-6)
    assert entropies.item() == pytest.approx(math.log(4) - 0.75 * math.log(3), abs=1e-6)
    assert hidden.grad.item() == pytest.approx(0.25, abs=1e-6)


def test_entropies_carry_gradients_only_when_asked():
    hidden, weight, _, ids = drawn()
    for trained in (False, True):
        weight.requires_grad_(trained)
        assert not chunked_logps(hidden, weight, ids, with_entropy=True)[1].requires_grad
        asked = chunked_logps(hidden, weight, ids, with_entropy=True, entropy_grad=True)
        assert asked[1].requires_grad
        assert chunked_logps(hidden, weight, ids)[1] is None


@pytest.mark.parametrize("trained", [False, True])
def test_no_tokens(trained):
    hidden, weight, bias, ids = drawn(trained=trained)
    logps, entropies = chunked_logps(
        hidden[:0], weight, ids[:0], bias=bias, with_entropy=True, entropy_grad=True
    )
    assert logps.shape == entropies.shape == (0,)
    (logps.sum() + entropies.sum()).backward()
    assert hidden.grad is None or not hidden.grad.any()


def test_float32_is_close_where_a_token_is_nearly_certain():
    """1 - p is 1e-6 there, of which nothing is left when it is made by subtraction in fp32."""
    hidden = torch.tensor([[14.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.3], [0.0, 0.7], [-1.0, 0.2]])
    logps, _ = chunked_logps(hidden, weight, torch.tensor([0]))
    logps.sum().backward()
    exact = hidden.detach().double().requires_grad_()
    plain(exact, weight.double(), torch.tensor([0]))[0].sum().backward()
    assert float(exact.grad.abs().max()) < 1e-5
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=1e-4, atol=0)


@pytest.mark.parametrize("trained", [False, True])
def test_bfloat16_is_close_to_float32(trained):
    hidden, weight, _, ids = drawn(torch.float32, trained=trained)
    rough = [each.detach().bfloat16().requires_grad_() for each in (hidden, weight)]
    rough[1].requires_grad_(trained)
    logps, _ = chunked_logps(*rough, ids)
    assert logps.dtype == torch.float32
    exact = [each.detach().float().requires_grad_() for each in rough]
    expected, _ = plain(*exact, ids)
    torch.testing.assert_close(logps, expected, atol=0.03, rtol=0)
    logps.sum().backward()
    expected.sum().backward()
    for one, other in zip(rough, exact, strict=True):
        if one.grad is not None:
            assert one.grad.dtype == torch.bfloat16
            torch.testing.assert_close(one.grad.float(), other.grad, atol=0.05, rtol=0.02)


def test_scores_of_the_vocabulary_are_never_held(monkeypatch):
    """No tensor of N times V numbers is made, forward or backward."""
    monkeypatch.setitem(vocabulary_tiles.TILE_SIZES, "cpu", 64)
    torch.manual_seed(0)
    hidden = torch.randn(48, 8, requires_grad=True)
    weight, ids = torch.randn(1000, 8), torch.randint(1000, (48,))
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel() * (out.data_ptr() != weight.data_ptr()))
            return out

    with Watch():
        chunked_logps(hidden, weight, ids, with_entropy=True)[0].sum().backward()
    assert 0 < largest <= 48 * 64


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0)),
        (CohereForCausalLM, CohereConfig(**SIZES, logit_scale=0.25)),
        (GraniteForCausalLM, GraniteConfig(**SIZES, logits_scaling=4.0)),
    ],
)
def test_families_that_shape_their_scores(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    ids = torch.randint(1, 40, (1, 6))
    with torch.no_grad():
        expected = model(ids).logits[0].log_softmax(-1)
        states = model.base_model(ids)[0][0]
        ours, _ = model_logps(model, states, ids[0])
        raw, _ = chunked_logps(states, model.get_output_embeddings().weight, ids[0])
    torch.testing.assert_close(ours, expected[torch.arange(6), ids[0]], atol=1e-5, rtol=0)
    assert (ours - raw).abs().max() > 0.01


def test_a_head_that_is_no_plain_layer_is_called_as_it_is():
    class Odd(torch.nn.Linear):
        def forward(self, states):
            return super().forward(states) * 2

    class Model:
        config = Gemma2Config(**SIZES, final_logit_softcapping=3.0)
        head = Odd(HIDDEN, VOCABULARY).double()

        def get_output_embeddings(self):
            return self.head

    hidden, _, _, ids = drawn()
    model = Model()
    assert head_of(model) is None
    ours = model_logps(model, hidden, ids, temperature=0.7, with_entropy=True, chunk_size=32)
    head = model.head
    expected = plain(hidden, 2 * head.weight, ids, bias=2 * head.bias, temperature=0.7, softcap=3.0)
    torch.testing.assert_close(ours, expected)
    for one, other in zip(
        gradients(ours[0].sum(), [hidden, head.weight]),
        gradients(expected[0].sum(), [hidden, head.weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_tiles_cover_the_vocabulary_once():
    tiles = list(Head(torch.arange(11.0)[:, None]).tiles())
    assert [tile.start for tile in tiles] == [0, 4, 8]
    assert torch.equal(torch.cat([tile.weight for tile in tiles])[:, 0], torch.arange(11.0))
