"""Reward models on the policy's own base, and runs that go on in another way of training."""

from pathlib import Path

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.rollouts.engine import Sampled
from rlhf.models.scoring import RewardModel
from rlhf.training.options import OnlineArguments
from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.trainer import PPOTrainer
from rlhf.training.rewards.sources import load_sources
from tests.training.gated_reward import gated_reward
from tests.training.ppo.conftest import (
    BASIC,
    are_equal,
    column,
    copied,
    noted_rollouts,
    prompts,
    variety,
)

ANSWERS = ["Pasta with tomatoes is quick.", "Wrap it in a cloth", "please answer", "dry box."]


class Scripted(PPOTrainer):
    """Says one of four sentences, so that its text and its tokens are one thing."""

    def rollout(self, rows):
        prompt_ids = [self.renderer.prompt_ids(row["prompt"]) for row in rows]
        sampled = []
        for row in rows:
            ended = row["tag"] % 2 == 0
            ids = self.renderer.completion_ids(ANSWERS[row["tag"] % 4], ended)
            sampled.append(Sampled(ids, ended, []))
        return self.make_rollout(rows, prompt_ids, sampled)


@pytest.mark.parametrize("num_members", [1, 2])
def test_the_shared_base_scores_as_the_reward_model_does(
    num_members, make_trainer, tiny_model, tmp_path
):
    heads = (("helpful", 0.5), ("correct", 2.0))
    folder = gated_reward(tmp_path, tiny_model, num_members=num_members, heads=heads)
    trainer = make_trainer(
        Scripted,
        rewards=[str(folder), variety],
        dataset=prompts(8),
        ensemble_penalty=0.5,
        missing_eos_penalty=0.0,
        reward_weights=[2.0, 1.0],
    )
    rollout = noted_rollouts(trainer)[0]
    model = RewardModel.load(folder)
    scores = model.all_scores(rollout.prompts, rollout.completions, rollout.ended.tolist())
    assert rollout.shared["reward"].raw.shape == (num_members, 8, 2)
    assert torch.allclose(rollout.shared["reward"].raw, scores.raw, atol=1e-4)
    pessimistic = scores.mean - 0.5 * scores.spread
    assert torch.allclose(rollout.source_scores["reward"], pessimistic, atol=1e-4)
    both = 2.0 * pessimistic + rollout.source_scores["variety"]
    assert torch.allclose(rollout.scores, both, atol=1e-4)
    assert column(trainer, "first_ratio_error") == [0.0]


def test_an_ensemble_loaded_by_itself_scores_as_on_the_shared_base(
    make_trainer, tiny_model, tmp_path
):
    """Mean less half a deviation of three members, either way."""
    folder = str(gated_reward(tmp_path, tiny_model, num_members=3))
    options = {"ensemble_penalty": 0.5, "missing_eos_penalty": 0.0}
    found = {}
    for separate in (False, True):
        stage = OnlineArguments(reward_model_name_or_path=[folder], separate_reward_model=separate)
        training = PPOConfig(**BASIC, output_dir=str(tmp_path / "ppo"), **options)
        sources = load_sources(stage, training, shared=True)
        assert sources.sources[0].is_shared is not separate
        trainer = make_trainer(Scripted, rewards=sources, dataset=prompts(8), **options)
        assert bool(trainer.model.rewards) is not separate
        rollout = noted_rollouts(trainer)[0]
        found[separate] = dict(zip(rollout.completions, rollout.scores.tolist(), strict=True))
        assert trainer.sources.names == ["reward"]
    assert found[True] == pytest.approx(found[False], abs=1e-4)
    plain = make_trainer(Scripted, rewards=[folder], dataset=prompts(8), missing_eos_penalty=0.0)
    means = noted_rollouts(plain)[0].scores
    assert float(means.sum()) > sum(found[True].values()) + 1e-2  # the members do disagree


def test_an_adapter_critic_begins_as_the_reward_model(make_trainer, tiny_model, tmp_path):
    folder = gated_reward(tmp_path, tiny_model)
    trainer = make_trainer(Scripted, rewards=str(folder), critic="adapter", dataset=prompts(8))
    rollout = noted_rollouts(trainer)[0]
    # A value is read before its token: that of a token is the score of what precedes it.
    batch = rollout.batches[0]
    shortened = type(batch)(
        ids=batch.ids, mask=batch.mask, starts=batch.starts, lengths=batch.lengths - 1
    )
    fresh = make_trainer(Scripted, rewards=str(folder), critic="adapter", dataset=prompts(8))
    with torch.no_grad():
        raw = fresh.model.eval()(shortened, "reward")[0, :, 0]
    rows = torch.arange(len(raw))
    assert torch.allclose(rollout.values[rows, batch.lengths - 1], raw, atol=1e-5)


def test_two_sources_of_one_name_are_numbered_and_one_twice_is_refused(make_trainer):
    def other(completions, **_):
        return [0.0 for _ in completions]

    other.__name__ = "variety"
    trainer = make_trainer(rewards=[variety, other], dataset=prompts(8))
    assert trainer.sources.names == ["variety", "variety-2"]
    with pytest.raises(ConfigError, match="named twice as a source of rewards"):
        make_trainer(rewards=[variety, variety])


@pytest.mark.parametrize(
    "options",
    [
        {"peft": None, "learning_rate": 1e-3},
        {"rollout_copy": "never", "entropy_coef": 0.01, "activation_checkpointing": True},
        {"target_kl": 0.01, "num_iterations": 4, "critic_warmup": 1, "bf16_base": True},
    ],
    ids=["full", "checkpointing", "left early"],
)
def test_continued_equals_unbroken(options, make_trainer, tmp_path):
    options = dict(options)
    if options.pop("bf16_base", False):
        options["dtype"] = torch.bfloat16
    saving = {"save_strategy": "steps", "save_steps": 3, "max_steps": 7, **options}
    whole = make_trainer(output_dir=str(tmp_path / "whole"), **saving)
    whole.train()
    again = make_trainer(output_dir=str(tmp_path / "again"), **saving)
    checkpoint: Path = tmp_path / "whole" / "checkpoint-3"
    again.train(resume_from_checkpoint=str(checkpoint))
    assert are_equal(copied(whole.model.parameters()), copied(again.model.parameters()))
    for name in ("loss", "score", "kl", "clip_fraction", "epoch"):
        assert column(whole, name) == column(again, name)
    assert whole.progress.episodes == again.progress.episodes
