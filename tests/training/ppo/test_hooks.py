"""What a researcher overrides of PPOTrainer: rollout, score, advantages."""

import torch

from rlhf.models.rollouts.engine import Sampled
from rlhf.training.ppo.trainer import PPOTrainer
from tests.training.ppo.conftest import (
    column,
    prompts,
)


class Parrot(PPOTrainer):
    """Says the same three tokens to every prompt."""

    def rollout(self, rows):
        prompt_ids = [self.renderer.prompt_ids(row["prompt"]) for row in rows]
        end = self.renderer.turn_end_id
        return self.make_rollout(rows, prompt_ids, [Sampled([40, 41, end], True, []) for _ in rows])


class Lengths(PPOTrainer):
    """Scores a completion by its length."""

    def score(self, rollout):
        rollout.scores = rollout.lengths.float()


class LeaveOneOut(PPOTrainer):
    """REINFORCE with the mean of the others as the baseline, no critic."""

    def advantages(self, rollout):
        n, scores = len(rollout), rollout.scores
        baseline = (scores.sum() - scores) / (n - 1)
        gain = (scores - baseline)[:, None] * rollout.mask
        return gain, torch.zeros_like(gain)


def test_another_rollout(make_trainer):
    trainer = make_trainer(Parrot)
    trainer.train()
    assert column(trainer, "completion_length") == [3.0]
    assert column(trainer, "ended_rate") == [1.0]


def test_another_score(make_trainer):
    trainer = make_trainer(Lengths)
    trainer.train()
    assert column(trainer, "score") == column(trainer, "completion_length")
    assert "score/variety" not in trainer.state.log_history[0]


def test_other_advantages(make_trainer):
    trainer = make_trainer(LeaveOneOut, max_steps=4)
    trainer.train()
    assert column(trainer, "value_mean") == [0.0]
    assert column(trainer, "grad_norm_policy")[0] > 0


def test_held_out_prompts_are_scored_by_the_hook_too(make_trainer):
    options = {"trainer_options": {"eval_dataset": prompts(5)}}
    trainer = make_trainer(kind=Lengths, eval_strategy="steps", eval_steps=2, **options)
    trainer.train()
    assert column(trainer, "eval_score") == column(trainer, "eval_completion_length")
