"""What is sampled at evaluations: the KL it estimates, and that it disturbs nothing."""

import pytest
import torch

from rlhf.models.adapters import using_adapter
from rlhf.models.rollouts.engine import Sampling
from rlhf.training.dpo.heldout_samples import HeldoutSamples
from rlhf.training.dpo.watch import warnings_of
from rlhf.training.dpo.watch import watched as watched_of
from tests.tiny import make_tiny_model
from tests.training.conftest import metrics_of, read_json

HELD_OUT = ("--eval_fraction", "0.4", "--num_kl_prompts", "3", "--kl_max_completion_length", "5")
PROMPT = [1, 40, 41, 42]


def samples_of(num_rows: int, limit: int, end_ids: tuple[int, ...] = ()) -> HeldoutSamples:
    sampling = Sampling(max_new_tokens=limit, pad_id=0, end_ids=end_ids, batch_size=500)
    return HeldoutSamples([PROMPT] * num_rows, sampling)


def next_token(model) -> torch.Tensor:
    """Log-probabilities [V] of the token after the prompt."""
    with torch.no_grad():
        return model.eval()(torch.tensor([PROMPT])).logits[0, -1].double().log_softmax(-1)


@pytest.mark.parametrize("named", ["start", "model"])
def test_the_kl_of_one_token_is_that_of_the_two_distributions(named, trainer_for, pairs, tmp_path):
    """KL = sum over tokens of p (log p - log q), which 2000 draws give within their error."""
    options = []
    if named == "model":
        options = ["--ref_model_name_or_path", str(make_tiny_model(tmp_path / "other", seed=5))]
    trainer = trainer_for(pairs, *options)
    policy = next_token(trainer.model)
    if named == "model":
        reference = next_token(trainer.ref_model)
    else:
        with using_adapter(trainer.model, None):
            reference = next_token(trainer.model)
    exact = float((policy.exp() * (policy - reference)).sum())
    assert exact > 0.05
    found = samples_of(2000, limit=1).metrics(trainer)
    assert abs(found["eval_kl"] - exact) < 4 * found["eval_kl_se"]
    assert found["eval_kl_se"] < exact / 4
    variance = float((policy.exp() * (policy - reference - exact).square()).sum())
    assert found["eval_kl_se"] == pytest.approx((variance / 2000) ** 0.5, rel=0.15)


def test_a_policy_that_is_its_reference_has_a_kl_of_nothing(trainer_for, pairs):
    trainer = trainer_for(pairs)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    found = samples_of(4, limit=6).metrics(trainer)
    assert (found["eval_kl"], found["eval_kl_se"]) == (0.0, 0.0)


def test_lengths_and_ends_are_of_what_was_sampled(trainer_for, pairs):
    """Where every token ends a completion, each is one long; where none does, each is the limit."""
    trainer = trainer_for(pairs)
    size = trainer.model.config.vocab_size
    found = samples_of(5, limit=4, end_ids=tuple(range(size))).metrics(trainer)
    assert (found["eval_completion_length"], found["eval_ended_rate"]) == (1.0, 1.0)
    assert found["eval_ref_completion_length"] == 1.0
    found = samples_of(5, limit=4).metrics(trainer)
    assert (found["eval_completion_length"], found["eval_ended_rate"]) == (4.0, 0.0)
    assert found["eval_completion_length_se"] == 0.0


def test_draws_follow_from_seed_and_step_and_touch_no_generator(trainer_for, pairs):
    trainer = trainer_for(pairs)
    before = torch.get_rng_state()
    first, again = (samples_of(8, limit=4).metrics(trainer) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    trainer.state.global_step = 7
    assert samples_of(8, limit=4).metrics(trainer)["eval_kl"] != first["eval_kl"]
    trainer.state.global_step = 0
    trainer.args.seed = 1
    assert samples_of(8, limit=4).metrics(trainer)["eval_kl"] != first["eval_kl"]


def test_modes_and_trained_weights_stay_as_they_were(trainer_for, pairs):
    trainer = trainer_for(pairs)
    trainer.model.train()
    before = [each.requires_grad for each in trainer.model.parameters()]
    samples_of(2, limit=2).metrics(trainer)
    assert trainer.model.training
    assert [each.requires_grad for each in trainer.model.parameters()] == before


def test_the_first_distinct_prompts_that_leave_room_are_sampled(trainer_for, pairs):
    trainer = trainer_for(pairs, *HELD_OUT)
    held_out = [row["prompt_ids"] for row in trainer.eval_dataset]
    assert trainer.heldout_samples.prompts == held_out[:3]
    assert trainer_for(pairs).heldout_samples is None


def test_no_room_is_said_and_nothing_is_sampled(trainer_for, pairs, capsys):
    options = [*HELD_OUT[:-1], "600"]  # the tiny model attends to 512
    assert trainer_for(pairs, *options).heldout_samples is None
    assert "no held-out prompt leaves room for 600 tokens" in capsys.readouterr().err


def test_an_evaluation_carries_them_and_its_cost_is_said(run_stage, pairs, capsys):
    options = ("--use_peft", "--learning_rate", "1e-2", *HELD_OUT, "--kl_budget", "1e-6")
    folder = run_stage("dpo", pairs, *options, "--eval_strategy", "steps", "--eval_steps", "1")
    rows = [row for row in read_json(folder / "log.json") if "eval_loss" in row]
    names = ("eval_kl", "eval_kl_se", "eval_completion_length", "eval_ended_rate")
    for row in rows:
        assert all(name in row for name in (*names, "eval_ref_completion_length"))
    assert len({row["eval_ref_completion_length"] for row in rows}) == 1
    assert metrics_of(folder)["eval_kl"] == rows[-1]["eval_kl"]
    said = capsys.readouterr().err
    assert said.count("sampling 3 held-out prompts (up to 5 tokens each) took") == 1


def test_the_budget_in_the_settings_is_the_one_that_is_watched(tiny_model, pairs, tmp_path):
    from rlhf.training.arguments import parse_settings

    words = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(pairs), *HELD_OUT]
    words += ["--output_dir", str(tmp_path / "o"), "--kl_budget", "2", "--beta", "0.3"]
    run = watched_of(parse_settings("dpo", words, example=""))
    assert run.beta == 0.3
    assert [each["cause"] for each in warnings_of([{"eval_kl": 2.1}], run)] == ["kl_budget"]
    assert warnings_of([{"eval_kl": 1.9}], run) == []
