"""KL estimates against distributions whose KL is known, their gradients, and the controllers."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import inf, nan, tensor

from rlhf.errors import ConfigError, StageError
from rlhf.training.ppo.kl import (
    AdaptiveKL,
    FixedKL,
    kl_estimate,
    kl_loss,
    require_estimator,
)

POLICY = tensor([[0.5, 0.5]], dtype=torch.double)
REFERENCE = tensor([[0.75, 0.25]], dtype=torch.double)
# KL(policy || reference) = 1/2 ln(2/3) + 1/2 ln 2 = ln(4/3) / 2 = 0.14384
# KL(reference || policy) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.13081
KNOWN_KL = log(4 / 3) / 2


def expected(estimator: str) -> float:
    """The mean of the estimate over what the policy samples, by enumeration."""
    return (POLICY * kl_estimate(POLICY.log(), REFERENCE.log(), estimator)).sum().item()


def test_one_token_by_hand():
    # the policy gives it 1/2, the reference 1/4: x = ln 2
    logps, ref_logps = tensor([[-log(2)]]), tensor([[-log(4)]])
    assert kl_estimate(logps, ref_logps, "k1").item() == pytest.approx(log(2))
    assert kl_estimate(logps, ref_logps, "k2").item() == pytest.approx(log(2) ** 2 / 2)
    assert kl_estimate(logps, ref_logps, "k3").item() == pytest.approx(log(2) - 0.5)  # 1/2 - 1 + x
    # and the other way round x = -ln 2: k1 is negative, the others are not
    assert kl_estimate(ref_logps, logps, "k1").item() == pytest.approx(-log(2))
    assert kl_estimate(ref_logps, logps, "k3").item() == pytest.approx(1 - log(2))  # 2 - 1 + x


def test_k1_and_k3_are_unbiased_in_the_direction_policy_to_reference():
    assert expected("k1") == pytest.approx(KNOWN_KL)
    assert expected("k3") == pytest.approx(KNOWN_KL)


def test_k2_is_biased_but_near():
    # (ln(2/3)^2 + ln(2)^2) / 4 = (0.16440 + 0.48045) / 4
    assert expected("k2") == pytest.approx(0.16121, abs=1e-5)


@settings(deadline=None)
@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k2_and_k3_are_never_negative(logp, ref_logp):
    for estimator in ("k2", "k3"):
        assert kl_estimate(tensor([[logp]]), tensor([[ref_logp]]), estimator).item() >= 0


def test_k3_keeps_its_digits_where_policy_and_reference_are_near():
    # x^2 / 2 = 5e-9 is lost in float32 when exp(-x) is rounded to 1 - 1e-4 first
    k3 = kl_estimate(tensor([[0.0]]), tensor([[-1e-4]]), "k3").item()
    assert k3 == pytest.approx(5e-9, rel=0.2)


def gradient_of_loss(estimator: str, logits: torch.Tensor) -> torch.Tensor:
    """The mean gradient of `kl_loss` over what the policy of `logits` samples."""
    logits = logits.clone().requires_grad_()
    logps = logits.log_softmax(0)
    total = tensor(0.0, dtype=torch.double)
    for token in range(len(logits)):
        loss = kl_loss(
            logps[token].view(1, 1),
            REFERENCE[:, token].log().view(1, 1),
            torch.ones(1, 1, dtype=torch.bool),
            estimator=estimator,
            total=1,
        )
        total = total + logps[token].exp().detach() * loss  # sampled: no gradient by the sampling
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient


def test_the_gradients_that_a_loss_gives():
    logits = tensor([0.3, -0.4], dtype=torch.double, requires_grad=True)
    logps, ref_logps = logits.log_softmax(0), REFERENCE[0].log()
    (right,) = torch.autograd.grad(
        (logps.exp() * (logps - ref_logps)).sum(), logits, retain_graph=True
    )
    (other,) = torch.autograd.grad((ref_logps.exp() * (ref_logps - logps)).sum(), logits)
    assert right.abs().max() > 0.05  # and not the same as the other direction's
    assert (right - other).abs().max() > 0.001
    torch.testing.assert_close(gradient_of_loss("k2", logits.detach()), right)
    torch.testing.assert_close(gradient_of_loss("k3", logits.detach()), other)
    torch.testing.assert_close(
        gradient_of_loss("k1", logits.detach()), torch.zeros(2, dtype=torch.double)
    )


def test_the_weights_mend_the_gradient_when_an_older_policy_sampled():
    logits = tensor([0.3, -0.4], dtype=torch.double)
    old = tensor([-1.0, 0.5], dtype=torch.double).log_softmax(0)
    moving = logits.clone().requires_grad_()
    logps = moving.log_softmax(0)
    losses = [
        old[token].exp()
        * kl_loss(
            logps[token].view(1, 1),
            REFERENCE[:, token].log().view(1, 1),
            torch.ones(1, 1, dtype=torch.bool),
            estimator="k2",
            total=1,
            old_logps=old[token].view(1, 1),
        )
        for token in range(2)
    ]
    (gradient,) = torch.autograd.grad(sum(losses), moving)
    torch.testing.assert_close(gradient, gradient_of_loss("k2", logits))


def test_the_loss_is_a_sum_over_tokens_divided_by_the_total():
    # x = 2 at one token, 4 at the other: (4 / 2 + 16 / 2) / 5 = 2; padding is garbage
    logps = tensor([[2.0, 4.0, nan], [inf, nan, -inf]], requires_grad=True)
    mask = tensor([[True, True, False], [False] * 3])
    loss = kl_loss(logps, torch.zeros(2, 3), mask, estimator="k2", total=5)
    assert loss.item() == 2
    loss.backward()
    # x / 5
    assert logps.grad.flatten().tolist() == pytest.approx([0.4, 0.8, 0, 0, 0, 0])


def test_bf16_is_computed_in_float32():
    logps = tensor([[-3.0]], dtype=torch.bfloat16)
    ref_logps = tensor([[-2.984375]], dtype=torch.bfloat16)
    k2 = kl_estimate(logps, ref_logps, "k2")
    assert k2.dtype == torch.float32
    assert k2.item() == 0.015625**2 / 2


def test_k1_in_the_loss_is_refused_and_the_rest_is_not():
    with pytest.raises(ConfigError, match="take k2"):
        require_estimator("k1", "loss")
    for pair in (("k1", "reward"), ("k2", "reward"), ("k3", "reward"), ("k2", "loss")):
        require_estimator(*pair)
    require_estimator("k3", "loss")
    with pytest.raises(ConfigError, match="kl_estimator: 'k4'"):
        require_estimator("k4", "reward")
    with pytest.raises(ConfigError, match="kl_placement: 'both'"):
        require_estimator("k1", "both")


def test_the_fixed_price_stays():
    price = FixedKL(0.05)
    price.update(1000.0, 512)
    assert price.coef == 0.05


@pytest.mark.parametrize(
    ("kl", "completions", "coef"),
    [
        (6.6, 100, 0.1 * (1 + 0.1 * 0.1)),  # 10% above the target, a tenth of the horizon
        (5.4, 100, 0.1 * (1 - 0.1 * 0.1)),
        (6.0, 100, 0.1),
        (60.0, 100, 0.1 * 1.02),  # ten times the target counts as 20% above it
        (-5.0, 100, 0.1 * 0.98),  # an estimate may be negative
        (0.0, 10**9, 0.1 * 0.8),  # more than a horizon counts as one
    ],
)
def test_the_adaptive_price_moves_as_ziegler_has_it(kl, completions, coef):
    price = AdaptiveKL(0.1, target=6.0, horizon=1000)
    price.update(kl, completions)
    assert price.coef == pytest.approx(coef)


def test_the_adaptive_price_brings_the_kl_to_its_target():
    # a policy whose KL is 1 / price: at price 1/6 it is 6
    price = AdaptiveKL(1.0, target=6.0, horizon=1000)
    for _ in range(300):
        price.update(1 / price.coef, 100)
    assert 1 / price.coef == pytest.approx(6.0, rel=1e-2)


def test_a_price_goes_on_where_it_stopped():
    price = AdaptiveKL(0.1, target=6.0, horizon=1000)
    price.update(7.0, 64)
    again = AdaptiveKL(0.1, target=6.0, horizon=1000)
    again.load_state_dict(price.state_dict())
    assert again.coef == price.coef != 0.1
    price.update(5.0, 64)
    again.update(5.0, 64)
    assert again.coef == price.coef


@pytest.mark.parametrize("coef", [-0.1, nan, inf])
def test_a_price_that_is_none(coef):
    with pytest.raises(ConfigError, match="kl_coef"):
        FixedKL(coef)


def test_an_adaptive_price_that_could_never_move():
    with pytest.raises(ConfigError, match="stays 0"):
        AdaptiveKL(0.0, target=6.0, horizon=1000)
    with pytest.raises(ConfigError, match="kl_target"):
        AdaptiveKL(0.1, target=0.0, horizon=1000)
    with pytest.raises(ConfigError, match="kl_horizon"):
        AdaptiveKL(0.1, target=6.0, horizon=0)
    with pytest.raises(StageError, match="nan"):
        AdaptiveKL(0.1, target=6.0, horizon=1000).update(nan, 1)
