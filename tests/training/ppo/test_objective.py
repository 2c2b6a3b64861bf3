"""The loss of a step from its parts, and the statistics of its micro-batches put together."""

from math import log

import pytest
import torch

from rlhf.models.actor_critic import TokenOutputs
from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.objective import MEANS, gradient_norm, step_loss
from rlhf.training.ppo.progress import mean_metrics
from rlhf.training.ppo.step_stats import StepStats


def options(**settings) -> PPOConfig:
    plain = {"use_cpu": True, "bf16": False, "report_to": "none", "vf_coef": 0.1}
    return PPOConfig(output_dir="unused", **plain, **settings)


def two_tokens(entropies: bool = True) -> tuple[TokenOutputs, dict]:
    """Two tokens and one of padding, at ratio 1; see the numbers below."""
    logps = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    values = torch.tensor([[0.0, 0.0, 9.0]], requires_grad=True)
    outputs = TokenOutputs(logps, torch.tensor([[1.0, 3.0, 9.0]]) if entropies else None, values)
    batch = {
        "logps": logps.detach().clone(),
        "ref_logps": torch.tensor([[-1.2, -2.4, 5.0]]),
        "values": values.detach().clone(),
        "advantages": torch.tensor([[1.0, -2.0, 9.0]]),
        "returns": torch.tensor([[1.0, 2.0, 9.0]]),
        "mask": torch.tensor([[True, True, False]]),
    }
    return outputs, batch


def test_the_loss_is_the_sum_of_its_parts():
    outputs, batch = two_tokens()
    settings = options(entropy_coef=0.01, kl_placement="loss", kl_estimator="k2")
    loss, stats = step_loss(outputs, batch, settings, total=2.0, kl_coef=0.5)
    # policy -(1 - 2) / 2 = 0.5; value (1 + 4) / 2 / 2 = 1.25, a tenth of it 0.125; entropy
    # (1 + 3) / 2 = 2, a hundredth 0.02; KL (0.2^2 + 0.4^2) / 2 / 2 = 0.05, half of it 0.025.
    assert loss.item() == pytest.approx(0.5 + 0.125 - 0.02 + 0.025)
    assert {name: float(stats[name]) for name in ("policy_loss", "value_loss", "kl_loss")} == (
        pytest.approx({"policy_loss": 1.0, "value_loss": 2.5, "kl_loss": 0.1})
    )


def test_twice_the_tokens_in_the_step_halve_a_part():
    outputs, batch = two_tokens(entropies=False)
    parts = [
        step_loss(outputs, batch, options(), total=total, kl_coef=0.0)[0].item()
        for total in (2.0, 4.0)
    ]
    assert parts == pytest.approx([0.625, 0.3125])


def test_the_critic_alone_gives_the_policy_gradients_of_zero():
    outputs, batch = two_tokens(entropies=False)
    loss, _ = step_loss(outputs, batch, options(), total=2.0, kl_coef=0.0, critic_only=True)
    loss.backward()
    assert loss.item() == pytest.approx(0.125)
    assert outputs.logps.grad.tolist() == [[0.0, 0.0, 0.0]]
    # d of 0.1 (V - R)^2 / 2 / 2 is 0.05 (V - R): -0.05 and -0.1, nothing for padding.
    assert outputs.values.grad.tolist()[0] == pytest.approx([-0.05, -0.1, 0.0])


def test_the_gradient_norm_is_of_all_weights_together():
    weights = [torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert float(gradient_norm(weights)) == 5.0
    assert float(gradient_norm([torch.zeros(1, requires_grad=True)])) == 0.0


def test_sums_of_micro_batches_become_means_and_maxima_of_the_step():
    stats = StepStats()
    for clipped, error in ((1, 0.25), (2, 0.0)):
        stats.add({"clipped": torch.tensor(clipped), "ratio_error_max": torch.tensor(error)})
    names = {**MEANS, "ratio_error_max": "first_ratio_error"}
    means = stats.finish(12, names)
    found = {name: float(value) for name, value in means.items()}
    assert found == {"clip_fraction": 0.25, "first_ratio_error": 0.25}
    stats.append(means)
    stats.add({"clipped": torch.tensor(12)})
    stats.append(stats.finish(12, names))  # nothing is left of the step before
    other = StepStats()
    other.load_state_dict(stats.state_dict())
    assert other.stacked()["clip_fraction"].tolist() == [0.25, 1.0]


def test_a_row_of_the_log_has_means_but_the_latest_count_and_price():
    rows = [
        {"score": 1.0, "episodes": 8, "kl_coef": 0.1},
        {"score": 3.0, "episodes": 16, "kl_coef": 0.2, "entropy": log(2)},
    ]
    expected = {"score": 2.0, "episodes": 16, "kl_coef": 0.2, "entropy": log(2)}
    assert mean_metrics(rows) == expected
