"""The gradient of PPO's first step, against the policy gradient worked out from the whole scores.

Nothing of what is tested is used: plain models, one transcript at a time, log_softmax over the
vocabulary, sums written as they stand in the papers, torch's own derivatives.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from tests.training.ppo.conftest import column, copied, lora

GAMMA, LAM, KL_COEF, VF_COEF, ENTROPY_COEF, TEMPERATURE = 0.9, 0.8, 0.3, 0.5, 0.2, 0.7
SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 3,
    "steps_per_generation": 3,
    "num_iterations": 1,
    "max_steps": 1,
    "max_grad_norm": 0.0,
    "gamma": GAMMA,
    "lam": LAM,
    "kl_coef": KL_COEF,
    "vf_coef": VF_COEF,
    "entropy_coef": ENTROPY_COEF,
    "temperature": TEMPERATURE,
}


class Noting(TrainerCallback):
    """Keeps the gradients of the first step."""

    def __init__(self, model):
        self.model = model
        self.grads: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, *_, **__):
        named = self.model.named_parameters()
        self.grads = {name: each.grad.clone() for name, each in named if each.grad is not None}


def first_step(trainer) -> tuple[list, dict[str, Tensor], dict[str, Tensor]]:
    """(rollout, weights before the step, gradients by name) of a trainer's first step."""
    torch.manual_seed(5)
    torch.nn.init.normal_(trainer.model.value_head.weight)  # at zero it hides what values do
    torch.nn.init.normal_(trainer.model.value_head.bias)
    ends = tuple(range(40, 90))  # more of them, so that completions are of several lengths
    trainer.engine.sampling = replace(trainer.engine.sampling, end_ids=ends)
    rollouts, plain = [], trainer.fill
    trainer.fill = lambda rollout: (plain(rollout), rollouts.append(rollout))
    names = [name for name, _ in trainer.model.named_parameters()]
    weights = dict(zip(names, copied(trainer.model.parameters()), strict=True))
    noting = Noting(trainer.model)
    trainer.add_callback(noting)
    trainer.train()
    return rollouts[0], weights, noting.grads


def plain_model(base: Path, weights: dict[str, Tensor], adapter: str | None):
    """A model of its own with the weights of one adapter, or of the whole policy for None."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    names = {name.removeprefix("policy."): each for name, each in weights.items()}
    if adapter is not None:
        model = get_peft_model(model, lora())
        names = {
            name.replace(f".{adapter}.", ".default."): each
            for name, each in names.items()
            if f".{adapter}." in name
        }
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, each in names.items():
            if name in own:
                own[name].copy_(each)
    return model


def read(model, prompt: list[int], completion: list[int]) -> tuple[Tensor, Tensor]:
    """(log-probabilities [T, V] at the temperature, states [T, H]) before each completion token."""
    output = model(torch.tensor([prompt + completion]), output_hidden_states=True)
    before = slice(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return (output.logits[0, before] / TEMPERATURE).log_softmax(-1), output.hidden_states[-1][
        0, before
    ]


def advantages_of(rewards: Tensor, values: Tensor) -> Tensor:
    """Sum over k of (gamma lam)^k delta_(t+k), the value after the end 0."""
    later = torch.cat([values[1:], values.new_zeros(1)])
    deltas = rewards + GAMMA * later - values
    size = len(deltas)
    return torch.stack(
        [sum((GAMMA * LAM) ** k * deltas[t + k] for k in range(size - t)) for t in range(size)]
    )


def expected_loss(policy, critic, reference, head, rollout, placement: str) -> Tensor:
    """What the first step descends on, by definition."""
    parts, advantages = [], []
    rows = zip(rollout.prompt_ids, rollout.completion_ids, rollout.scores.tolist(), strict=True)
    for prompt, completion, score in rows:
        chosen = torch.tensor(completion)[:, None]
        log_p, states = read(policy, prompt, completion)
        if critic is not None:
            states = read(critic, prompt, completion)[1]
        logps = log_p.gather(1, chosen)[:, 0]
        values = (states @ head["value_head.weight"].T)[:, 0] + head["value_head.bias"]
        with torch.no_grad():
            ref_logps = read(reference, prompt, completion)[0].gather(1, chosen)[:, 0]
            price = KL_COEF if placement == "reward" else 0.0
            rewards = -price * (logps - ref_logps)
            rewards[-1] += score
            advantages.append(advantages_of(rewards, values))
            returns = advantages[-1] + values
        entropy = -(log_p.exp() * log_p).sum(1)
        loss = 0.5 * VF_COEF * (values - returns) ** 2 - ENTROPY_COEF * entropy
        if placement == "loss":
            loss = loss + KL_COEF * 0.5 * (logps - ref_logps) ** 2
        parts.append((loss, logps))
    flat = torch.cat(advantages)
    standard = (flat - flat.mean()) / flat.std(correction=0)
    logps = torch.cat([each for _, each in parts])
    return (torch.cat([each for each, _ in parts]) - standard * logps).mean()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"critic": "adapter"},
        {"activation_checkpointing": True},
        {"critic": "adapter", "activation_checkpointing": True},
        {"peft": None},
        {"kl_placement": "loss", "kl_estimator": "k2"},
    ],
    ids=["head", "adapter", "checkpointing", "adapter-checkpointing", "whole", "kl-loss"],
)
def test_the_first_step_is_the_policy_gradient(options, make_trainer, tiny_model):
    given = {"peft": lora(init_lora_weights=False)} | options
    trainer = make_trainer(**SETTINGS, **given)
    if given["peft"] is None:  # else the policy would be its own reference
        with torch.no_grad():
            for weight in trainer.model.policy.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.05)
    rollout, weights, grads = first_step(trainer)
    assert len({len(ids) for ids in rollout.completion_ids}) > 2

    policy = plain_model(tiny_model, weights, "default" if given["peft"] else None)
    has_adapter = options.get("critic") == "adapter"
    critic = plain_model(tiny_model, weights, "critic") if has_adapter else None
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    head = {name: each.requires_grad_() for name, each in weights.items() if "value_head" in name}
    placement = options.get("kl_placement", "reward")
    expected_loss(policy, critic, reference, head, rollout, placement).backward()

    expected = {name: each.grad for name, each in head.items()}
    for model, adapter in ((policy, "default"), (critic, "critic")):
        for name, weight in model.named_parameters() if model is not None else ():
            if weight.grad is not None:
                expected["policy." + name.replace(".default.", f".{adapter}.")] = weight.grad
    assert set(grads) == set(expected)
    for name, grad in grads.items():
        assert float(expected[name].abs().max()) > 1e-3, name
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(grad, expected[name], rtol=0, atol=2e-5 * max(scale, 1.0))


def test_a_high_price_of_kl_in_the_reward_holds_the_policy(make_trainer):
    kls = {}
    for coef in (0.0, 10.0):
        trainer = make_trainer(kl_coef=coef, learning_rate=1e-3, max_steps=32)
        trainer.train()
        kls[coef] = sum(abs(each) for each in column(trainer, "kl")[-3:])
    assert kls[10.0] < 0.5 * kls[0.0]
