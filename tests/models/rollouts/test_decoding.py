"""Tokens and their log-probabilities: exact, repeatable, whatever the batch."""

import math

import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from rlhf.errors import ConfigError
from rlhf.models.loading import load_policy
from rlhf.models.rollouts import decoding
from rlhf.models.rollouts.decoding import choose, decode
from rlhf.models.rollouts.merged_copy import MergedCopy
from rlhf.models.rollouts.policy_engine import PolicyEngine
from tests.models.rollouts.conftest import PROMPTS, full_logps, make_sampling


@pytest.fixture
def model(tiny_model):
    return load_policy(tiny_model)


def always(model, *likely: tuple[int, float]) -> None:
    """Give these tokens these logits, whatever came before, and all others -100."""
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-100.0)
        for token, logit in likely:
            head.bias[token] = logit
    model.lm_head = head


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", [MergedCopy, PolicyEngine])
def test_logps_are_those_of_a_full_forward(adapted, kind, temperature):
    engine = kind(adapted, make_sampling(temperature=temperature, batch_size=3))
    for prompt, sampled in zip(PROMPTS, engine.sample(PROMPTS, seed=1), strict=True):
        expected = full_logps(adapted, prompt, sampled.token_ids, temperature)
        assert sampled.logps == pytest.approx(expected, abs=1e-5)


def test_greedy_is_transformers_generate(model):
    """Over prompts of other lengths, with ended rows among them."""
    config = GenerationConfig(max_new_tokens=20, eos_token_id=2, pad_token_id=0, do_sample=False)
    expected = []
    for prompt in PROMPTS:
        with torch.inference_mode():
            row = model.generate(torch.tensor([prompt]), generation_config=config)[0]
        expected.append(row[len(prompt) :].tolist())
    sampling = make_sampling(max_new_tokens=20, temperature=0.0)
    sampled = decode(model, PROMPTS, sampling, seed=0)
    assert [one.token_ids for one in sampled] == expected
    logps = full_logps(model, PROMPTS[0], sampled[0].token_ids)
    assert sampled[0].logps == pytest.approx(logps, abs=1e-5)


def test_rows_that_end_are_dropped_and_the_others_go_on(model, monkeypatch):
    """One token in four ends a row: the batch shrinks, and nobody's tokens change by it."""
    always(model, (2, 0.0), (40, math.log(3.0)))
    widths = []
    step = decoding._Batch._step
    monkeypatch.setattr(
        decoding._Batch,
        "_step",
        lambda self, tokens: (widths.append(len(tokens)), step(self, tokens))[1],
    )
    together = decode(model, PROMPTS * 4, make_sampling(), seed=5)
    assert len(together) == 20
    assert widths[0] == 20
    assert widths[-1] <= 5
    alone = decode(model, PROMPTS * 4, make_sampling(batch_size=1), seed=5)
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    for one in together:
        assert one.ended == (one.token_ids[-1] == 2)
        assert 2 not in one.token_ids[:-1]
        assert len(one.token_ids) == 12 or one.ended
        expected = [math.log(0.25 if token == 2 else 0.75) for token in one.token_ids]
        assert one.logps == pytest.approx(expected, abs=1e-5)


def test_end_token_counts_as_the_last_and_is_recorded_once(model):
    always(model, (2, 0.0))
    [one] = decode(model, [[5, 6]], make_sampling(), seed=0)
    assert (one.token_ids, one.ended) == ([2], True)
    assert one.logps == pytest.approx([0.0], abs=1e-5)


def test_completion_that_the_limit_cuts_has_not_ended(model):
    always(model, (40, 0.0))
    [one] = decode(model, [[5, 6]], make_sampling(), seed=0)
    assert (one.token_ids, one.ended) == ([40] * 12, False)


def test_end_token_in_the_last_place_has_ended(model):
    always(model, (2, 0.0))
    [one] = decode(model, [[5, 6]], make_sampling(max_new_tokens=1), seed=0)
    assert one.ended


def test_ignored_end_token_keeps_its_probability(model):
    always(model, (2, math.log(3.0)), (40, 0.0))
    sampled = decode(model, PROMPTS * 10, make_sampling(ignore_end=True), seed=0)
    tokens = [token for one in sampled for token in one.token_ids]
    assert len(tokens) == 600
    assert not any(one.ended for one in sampled)
    # 600 draws at 0.75: standard error 0.018, so 0.08 is over four of them
    assert tokens.count(2) / 600 == pytest.approx(0.75, abs=0.08)
    assert sampled[0].logps == pytest.approx(
        [math.log(0.75 if token == 2 else 0.25) for token in sampled[0].token_ids],
        abs=1e-5,
    )


def test_equal_seed_gives_equal_completions_whatever_the_batch_size(model):
    whole = decode(model, PROMPTS, make_sampling(), seed=4)
    assert decode(model, PROMPTS, make_sampling(), seed=4) == whole
    assert decode(model, PROMPTS, make_sampling(), seed=5) != whole
    for batch_size in (1, 2, 3):
        parts = decode(model, PROMPTS, make_sampling(batch_size=batch_size), seed=4)
        assert [one.token_ids for one in parts] == [one.token_ids for one in whole]
        for ours, theirs in zip(parts, whole, strict=True):
            assert ours.logps == pytest.approx(theirs.logps, abs=1e-5)


def test_copies_of_a_prompt_are_read_once_and_differ(model, monkeypatch):
    read = []
    forward = decoding._Batch._forward
    monkeypatch.setattr(
        decoding._Batch,
        "_forward",
        lambda self, ids, positions: (read.append(ids.shape), forward(self, ids, positions))[1],
    )
    prompts = [prompt for prompt in ([5, 9, 30], [7, 8]) for _ in range(4)]
    sampled = decode(model, prompts, make_sampling(), seed=0)
    assert read[0] == (2, 3)
    assert read[1] == (8, 1)
    assert len({tuple(one.token_ids) for one in sampled[:4]}) == 4
    for prompt, one in zip(prompts, sampled, strict=True):
        assert one.logps == pytest.approx(full_logps(model, prompt, one.token_ids), abs=1e-5)


def test_model_with_a_window_is_neither_shared_nor_shrunk_but_right():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=70,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
        initializer_range=0.3,
    )
    model = MistralForCausalLM(config).eval()
    for prompt, one in zip(PROMPTS, decode(model, PROMPTS, make_sampling(), seed=2), strict=True):
        assert one.logps == pytest.approx(full_logps(model, prompt, one.token_ids), abs=1e-5)


def test_model_that_knows_positions_by_its_mask_is_right():
    """Bloom: no position ids, distances from the mask, through the padding on the left."""
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=70, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.3, pad_token_id=0
    )
    model = BloomForCausalLM(config).eval()
    for prompt, one in zip(PROMPTS, decode(model, PROMPTS, make_sampling(), seed=2), strict=True):
        assert one.logps == pytest.approx(full_logps(model, prompt, one.token_ids), abs=1e-5)


def test_model_without_keys_and_values_is_refused():
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=70, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(ConfigError, match="MambaForCausalLM keeps other things"):
        decode(model, PROMPTS, make_sampling(), seed=0)


def test_random_state_outside_neither_matters_nor_changes(model):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = decode(model, PROMPTS, make_sampling(), seed=4)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert decode(model, PROMPTS, make_sampling(), seed=4) == first


def test_each_modules_mode_is_kept_and_dropout_is_off(adapted):
    adapted.train()
    adapted.get_base_model().model.layers[0].eval()
    for module in adapted.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    modes = [module.training for module in adapted.modules()]
    engine = PolicyEngine(adapted, make_sampling())
    first = engine.sample(PROMPTS, seed=1)
    assert [module.training for module in adapted.modules()] == modes
    assert engine.sample(PROMPTS, seed=1) == first


def test_config_and_gradients_of_the_policy_stay(adapted):
    config = adapted.get_base_model().generation_config
    grads = {name: weight.requires_grad for name, weight in adapted.named_parameters()}
    PolicyEngine(adapted, make_sampling()).sample(PROMPTS, seed=1)
    assert adapted.get_base_model().generation_config is config
    assert {name: weight.requires_grad for name, weight in adapted.named_parameters()} == grads
    ids = torch.tensor([PROMPTS[0]])
    adapted(ids, labels=ids).loss.backward()
    assert any(weight.grad is not None for weight in adapted.parameters())


def test_no_prompts_give_no_completions(model):
    assert decode(model, [], make_sampling(), seed=0) == []


@pytest.mark.parametrize("changes", [{"max_new_tokens": 0}, {"batch_size": 0}])
def test_impossible_counts_are_config_errors(changes):
    with pytest.raises(ConfigError, match="must be at least 1"):
        make_sampling(**changes)


@pytest.mark.parametrize("temperature", [-1.0, float("inf"), float("nan")])
def test_impossible_temperatures_are_config_errors(temperature):
    with pytest.raises(ConfigError, match="temperature is"):
        make_sampling(temperature=temperature)


def test_draw_is_the_share_of_probability_before_the_token():
    """Probabilities 1/2, 0, 1/4, 1/4: each draw falls into the half or quarter that it names."""
    logits = torch.tensor([math.log(2.0), -math.inf, 0.0, 0.0])
    draws = torch.tensor([0.0, 0.499, 0.501, 0.749, 0.751, 1 - 1e-16], dtype=torch.float64)
    tokens, logps = choose(logits.repeat(6, 1), draws, 1.0)
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]
    half, quarter = math.log(0.5), math.log(0.25)
    assert logps.tolist() == pytest.approx([half, half, quarter, quarter, quarter, quarter])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probabilities_say(temperature):
    """A chi-square test of 300 tokens in two blocks, at a level of one in ten thousand."""
    generator = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(300, generator=generator)
    draws = torch.rand(40_000, generator=generator, dtype=torch.float64)
    tokens, _ = choose(logits.repeat(len(draws), 1), draws, temperature)
    expected = len(draws) * (logits.double() / temperature).softmax(0)
    found = torch.bincount(tokens, minlength=300).double()
    common = expected >= 5  # the others count together
    pairs = [torch.cat([each[common], each[~common].sum()[None]]) for each in (found, expected)]
    assert chisquare(*pairs).pvalue > 1e-4


def test_scores_that_are_not_numbers_give_a_logp_that_is_no_number():
    """So that the canary can say what has happened."""
    tokens, logps = choose(torch.full((1, 300), math.nan), torch.zeros(1).double(), 1.0)
    assert 0 <= int(tokens) < 300
    assert logps.isnan().all()


def test_temperature_halves_the_logits():
    """Logits ln 9 and 0 at temperature 2 are odds of 3 to 1."""
    logits = torch.tensor([[math.log(9.0), 0.0]] * 2)
    draws = torch.tensor([0.74, 0.76], dtype=torch.float64)
    tokens, logps = choose(logits, draws, 2.0)
    assert tokens.tolist() == [0, 1]
    assert logps.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])


@pytest.mark.parametrize("vocabulary", [1, 255, 256, 257, 1000])
def test_search_over_blocks_finds_what_a_running_sum_finds(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 4 * torch.randn(200, vocabulary, generator=generator)
    logits[:, ::3] -= 1000.0  # of no weight: never to be drawn
    if vocabulary == 1:
        logits.zero_()
    draws = torch.rand(200, generator=generator, dtype=torch.float64)
    draws[0], draws[1] = 0.0, 1 - 1e-16
    sums = logits.double().softmax(1).cumsum(1)
    expected = (sums <= draws[:, None] * sums[:, -1:]).sum(1).clamp(max=vocabulary - 1)
    tokens, logps = choose(logits.clone(), draws, 1.0)
    assert (tokens == expected)[2:].float().mean() > 0.99  # a draw at an edge may go either way
    chosen = logits.double().log_softmax(1).gather(1, tokens[:, None])[:, 0]
    assert logps.double() == pytest.approx(chosen, abs=1e-5)
    assert chosen.min() > -100
