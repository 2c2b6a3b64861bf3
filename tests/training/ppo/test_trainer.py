"""PPOTrainer as a researcher uses it: exact first ratios, losses that add up, hooks, options."""

import math

import pandas
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rlhf.errors import ConfigError, StageError
from rlhf.training.ppo.evaluation import evaluate_prompts
from rlhf.training.ppo.normalisation import masked_mean, standardize
from tests.training.ppo.conftest import (
    are_equal,
    column,
    copied,
    lora,
    noted_rollouts,
    prompts,
    variety,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"critic": "adapter"},
        {"temperature": 0.7, "entropy_coef": 0.01},
        {"rollout_copy": "never", "activation_checkpointing": True},
    ],
    ids=["head", "adapter", "entropy", "checkpointing"],
)
def test_the_first_ratio_of_every_rollout_is_exactly_one(make_trainer, dtype, options):
    trainer = make_trainer(dtype=dtype, max_steps=12, **options)
    trainer.train()
    errors = column(trainer, "first_ratio_error")
    assert errors == [0.0, 0.0, 0.0]
    assert max(column(trainer, "approx_kl")) > 1e-3  # and it does move


def test_it_learns_what_is_rewarded(make_trainer):
    def early_ids(completion_ids, **_):
        return [sum(index < 150 for index in ids) / len(ids) for ids in completion_ids]

    trainer = make_trainer(
        rewards=early_ids,
        per_device_train_batch_size=16,
        learning_rate=3e-2,
        max_steps=60,
        kl_coef=0.0,
        missing_eos_penalty=0.0,
        lr_scheduler_type="constant",
    )
    trainer.train()
    scores = column(trainer, "score")
    assert len(scores) == 15
    # 64 completions of 8 tokens a rollout: the mean of five is known to about 0.01.
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.06


def test_the_base_stays_as_it_was_and_only_policy_and_critic_move(make_trainer):
    trainer = make_trainer()
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {
        name
        for name, weight in trainer.model.named_parameters()
        if not torch.equal(before[name], weight)
    }
    assert moved
    assert all("lora_" in name or name.startswith("value_head") for name in moved)
    assert any("lora_" in name for name in moved)
    assert "value_head.weight" in moved


def test_how_a_step_is_cut_into_micro_batches_does_not_matter(make_trainer):
    weights = []
    for batch, accumulated in ((8, 1), (4, 2), (1, 8)):
        trainer = make_trainer(
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            steps_per_generation=accumulated,
            learning_rate=1e-3,
        )
        trainer.train()
        weights.append(copied(trainer.model.policy_parameters()))
        assert column(trainer, "episodes") == [8, 16]
    for other in weights[1:]:
        for one, another in zip(weights[0], other, strict=True):
            assert torch.allclose(one, another, atol=1e-5)


def test_the_loss_is_a_mean_over_the_tokens_of_the_step(make_trainer):
    trainer = make_trainer(standardize_advantages=False, vf_coef=0.0, num_iterations=1)
    batches = []
    plain = trainer.begin_rollout

    def noting(number):
        found = plain(number)
        batches.extend(found or [])
        return found

    trainer.loader.begin = trainer.begin_rollout = noting
    trainer.train()
    # At ratio 1 a token costs minus its advantage; in one minibatch lie two of the four batches.
    first = [batches[index] for index in _order(trainer, rollout=0)[:2]]
    advantages = torch.cat([one["advantages"][one["mask"]] for one in first])
    assert column(trainer, "loss")[0] == pytest.approx(-float(advantages.mean()), abs=1e-6)


def _order(trainer, rollout: int) -> list[int]:
    import numpy as np

    generator = np.random.default_rng([trainer.args.seed, rollout, 0])
    return generator.permutation(4).tolist()


def test_warming_up_leaves_the_policy_and_its_optimizer_alone(make_trainer):
    trainer = make_trainer(critic_warmup=1, critic_learning_rate=0.05, weight_decay=0.1)
    before = copied(trainer.model.policy_parameters())
    critic = copied(trainer.model.critic_parameters())
    trainer.train()
    assert are_equal(before, copied(trainer.model.policy_parameters()))
    assert not are_equal(critic, copied(trainer.model.critic_parameters()))
    assert not any(
        weight in trainer.optimizer.state for weight in trainer.model.policy_parameters()
    )
    assert column(trainer, "grad_norm_policy") == [0.0] * 4
    assert min(column(trainer, "grad_norm_critic")) > 0

    longer = make_trainer(critic_warmup=1, max_steps=8)
    longer.train()
    assert not are_equal(before, copied(longer.model.policy_parameters()))


def test_the_critic_has_its_own_learning_rate(make_trainer):
    trainer = make_trainer(critic_learning_rate=0.0)
    critic = copied(trainer.model.critic_parameters())
    trainer.train()
    assert are_equal(critic, copied(trainer.model.critic_parameters()))


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_the_optimizer_has_policy_and_critic_and_each_weight_once(critic, make_trainer):
    trainer = make_trainer(critic=critic, critic_learning_rate=0.05)
    trainer.model.requires_grad_(False)  # as a careless switch of adapters leaves it
    groups = trainer.create_optimizer().param_groups
    held = [(id(weight), group["lr"]) for group in groups for weight in group["params"]]
    policy = [(id(weight), 1e-2) for weight in trainer.model.policy_parameters()]
    theirs = [(id(weight), 0.05) for weight in trainer.model.critic_parameters()]
    assert sorted(held) == sorted(policy + theirs)
    assert all(weight.requires_grad for group in groups for weight in group["params"])


def test_a_rollout_is_left_once_the_policy_has_moved_too_far(make_trainer):
    patient = make_trainer(max_steps=8, num_iterations=4)
    patient.train()
    hasty = make_trainer(max_steps=8, num_iterations=4, target_kl=1e-9)
    hasty.train()
    assert len(column(patient, "score")) == 1
    assert len(column(hasty, "score")) == 4  # two steps an iteration, one iteration a rollout


def test_the_epochs_over_the_prompts_give_the_number_of_rollouts(make_trainer):
    trainer = make_trainer(max_steps=-1, num_train_epochs=2.0)
    trainer.train()
    # 10 prompts twice are 20, in rollouts of 8: three, of 4 steps each.
    assert column(trainer, "episodes") == [8, 16, 24]
    assert trainer.state.global_step == trainer.state.max_steps == 12


def test_epochs_whose_rollouts_are_left_early_end_with_the_last_rollout(make_trainer):
    trainer = make_trainer(max_steps=-1, num_train_epochs=2.0, target_kl=1e-9)
    trainer.train()
    assert column(trainer, "episodes") == [8, 16, 24]
    assert trainer.state.global_step == 6


def test_an_adaptive_price_of_kl_moves_by_its_formula(make_trainer):
    trainer = make_trainer(kl_controller="adaptive", kl_target=1e9, kl_horizon=80, max_steps=12)
    trainer.train()
    # Far below the target: the error is cut at -0.2, so each 8 of 80 take off 2%.
    assert column(trainer, "kl_coef") == pytest.approx([0.05, 0.05 * 0.98, 0.05 * 0.98**2])


def test_kl_in_the_loss_holds_the_policy(make_trainer):
    kls = {}
    for coef in (0.0, 10.0):
        trainer = make_trainer(
            kl_placement="loss", kl_estimator="k2", kl_coef=coef, max_steps=20, learning_rate=2e-3
        )
        trainer.train()
        kls[coef] = sum(column(trainer, "kl_loss")[-8:])  # k2 of two rollouts, never negative
    assert kls[10.0] < 0.5 * kls[0.0]


def test_full_fine_tuning_keeps_its_reference(make_trainer):
    trainer = make_trainer(peft=None, learning_rate=1e-3, max_steps=8)
    reference = copied(trainer.model.separate_reference.parameters())
    trainer.train()
    assert are_equal(reference, copied(trainer.model.separate_reference.parameters()))
    assert column(trainer, "first_ratio_error") == [0.0, 0.0]
    assert column(trainer, "kl")[1] != 0.0


def test_several_completions_of_a_prompt_stand_in_one_rollout(make_trainer):
    seen = []

    def noting(prompts, completion_ids, tag, **_):
        seen.append((tag, [prompt[-1]["content"] for prompt in prompts]))
        return [float(len(set(ids))) for ids in completion_ids]

    make_trainer(rewards=noting, num_generations=4).train()
    tags, contents = seen[0]
    assert len(tags) == 8
    assert sorted(tags.count(tag) for tag in set(tags)) == [4, 4]
    assert contents == [f"question {tag}?" for tag in tags]


def test_plain_text_prompts_and_token_scores(make_trainer):
    rows = [{"prompt": f"Question {index}:"} for index in range(8)]
    kinds = set()

    def by_token(completions, completion_ids, **_):
        kinds.update(type(one) for one in completions)
        return [[float(index % 7) / 10 for index in ids] for ids in completion_ids]

    trainer = make_trainer(rewards=[variety, by_token], dataset=rows)
    trainer.train()
    assert kinds == {str}
    assert math.isfinite(column(trainer, "score/by_token")[0])


def test_a_model_with_its_adapter_is_taken_as_it_is(make_trainer, tiny_model):
    from peft import get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), lora())
    trainer = make_trainer(model=model, peft=None)
    trainer.train()
    assert isinstance(trainer.model.policy, PeftModel)
    assert column(trainer, "first_ratio_error") == [0.0]


def test_an_adapter_of_another_name_is_refused(make_trainer, tiny_model):
    from peft import get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = get_peft_model(base, lora(), adapter_name="mine")
    with pytest.raises(ConfigError, match=r"is called mine; .* be called default"):
        make_trainer(model=model, peft=None)


def test_a_reward_function_gets_and_notes_what_trl_lets_it(make_trainer, tmp_path):
    steps = []

    def noting(completion_ids, trainer_state, log_metric, log_extra, **_):
        steps.append(trainer_state.global_step)
        log_metric("longest", max(len(ids) for ids in completion_ids))
        log_extra("first", [f"token {ids[0]}" for ids in completion_ids])
        log_extra("mixed", [1, *["two"] * (len(completion_ids) - 1)])
        log_extra("score", ["mine"] * len(completion_ids))  # a column that there is
        return variety(None, None, completion_ids)

    trainer = make_trainer(rewards=noting, max_steps=8, log_completions=True)
    trainer.train()
    assert steps == [0, 4]
    assert column(trainer, "longest") == [8.0, 8.0]
    (table, _) = (pandas.read_parquet(path) for path in sorted(tmp_path.rglob("*.parquet")))
    assert table["first"].str.fullmatch(r"token \d+").all()
    assert table["score"].dtype == float
    assert set(table["mixed"]) == {"1", "two"}

    def short(completion_ids, log_extra, **_):
        log_extra("first", [1])
        return variety(None, None, completion_ids)

    with pytest.raises(StageError, match=r"log_extra\('first'\) was given 1 values for 8"):
        make_trainer(rewards=short).train()


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_no_forward_pass_is_done_twice(critic, make_trainer):
    """4 micro-batches: each read once by policy and reference, and learnt from twice."""
    trainer = make_trainer(critic=critic, rollout_copy="always")
    roles = []
    plain = trainer.model.forward

    def noting(transcripts, role="policy", **options):
        roles.append((role, torch.is_grad_enabled()))
        return plain(transcripts, role, **options)

    trainer.model.forward = noting
    trainer.train()
    counted = {each: roles.count(each) for each in set(roles)}
    assert counted == {("policy", False): 4, ("reference", False): 4, ("policy", True): 8}


def test_advantages_are_standardised_over_the_rollout(make_trainer):
    trainer = make_trainer()
    (rollout,) = noted_rollouts(trainer)
    mask = rollout.mask
    assert float(masked_mean(rollout.advantages, mask)) == pytest.approx(0.0, abs=1e-6)
    assert float(masked_mean(rollout.advantages**2, mask)) == pytest.approx(1.0, abs=1e-4)
    # Gamma 1: what a token may expect is what comes after it, by the rewards of the tokens.
    assert float(rollout.rewards.sum()) == pytest.approx(
        float(rollout.scores.sum())
        - trainer.kl.coef * float(((rollout.logps - rollout.ref_logps) * mask).sum()),
        rel=1e-4,
    )
    assert torch.allclose(standardize(rollout.advantages, mask), rollout.advantages, atol=1e-4)


@pytest.mark.parametrize("normalization", ["none", "running"])
def test_held_out_prompts_are_measured_alike_each_time(normalization, make_trainer):
    options = {"trainer_options": {"eval_dataset": prompts(5)}, "learning_rate": 0.0}
    options |= {"reward_normalization": normalization}
    trainer = make_trainer(eval_strategy="steps", eval_steps=4, max_steps=8, **options)
    trainer.train()
    scores = column(trainer, "eval_score")
    assert len(scores) == 2
    assert scores[0] == scores[1]  # nothing was learnt, so nothing else may differ
    assert column(trainer, "eval_num_prompts") == [5, 5]
    assert column(trainer, "eval_kl") == [0.0, 0.0]


def test_processes_measure_in_as_many_forward_passes(make_trainer, monkeypatch):
    """Five prompts on two processes in pairs are 3 and 2; sharded weights need both as often."""
    trainer = make_trainer(max_steps=4)
    trainer.train()
    calls, found = [], []
    trainer.model.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[1]))
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    monkeypatch.setattr(trainer, "reduce", lambda numbers: numbers)
    for process in (0, 1):
        monkeypatch.setattr(type(trainer.args), "process_index", process)
        found.append(evaluate_prompts(trainer, prompts(5)))
        calls.append("end")
    assert calls == [*(["policy", "reference"] * 2), "end"] * 2
    assert [each["eval_num_prompts"] for each in found] == [3, 2]


def test_an_evaluation_changes_nothing_in_the_training(make_trainer):
    options = {"trainer_options": {"eval_dataset": prompts(5)}}
    weights = []
    for strategy in ("no", "steps"):
        trainer = make_trainer(
            eval_strategy=strategy, eval_steps=1, reward_normalization="running", **options
        )
        trainer.train()
        weights.append(copied(trainer.model.parameters()))
    assert are_equal(*weights)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps_per_generation": 3}, "multiple of --gradient_accumulation_steps 2"),
        ({"num_generations": 3}, "num_generations 3"),
        ({"save_strategy": "epoch"}, "PPO goes by optimizer steps"),
        ({"kl_placement": "loss"}, "k1"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused(make_trainer, settings, words):
    with pytest.raises(ConfigError, match=words):
        make_trainer(**settings)
