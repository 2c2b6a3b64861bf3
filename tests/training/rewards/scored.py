"""Sources, episodes and scores small enough for pencil and paper."""

import torch

from rlhf.models.reward_spec import RewardSpec
from rlhf.models.scores import Scores
from rlhf.training.rewards.episodes import Episodes
from rlhf.training.rewards.options import ScoreOptions
from rlhf.training.rewards.scoring import RewardSources
from rlhf.training.rewards.sources import RewardSource

PROMPT = [{"role": "user", "content": "Bread?"}]


FREE = {"missing_eos_penalty": 0.0}


def episodes(*lengths, ended=None, prompts=None, **columns):
    """Completions of so many tokens to one question."""
    return Episodes(
        prompts=prompts or [PROMPT] * len(lengths),
        completions=["x" * length for length in lengths],
        completion_ids=[list(range(length)) for length in lengths],
        ended=ended or [True] * len(lengths),
        columns=columns,
    )


def function_source(values, name="f", weight=1.0):
    def function(**kwargs):
        return values(**kwargs) if callable(values) else values

    return RewardSource(name=name, weight=weight, sha256="0", function=function)


def shared_source(name="reward", weight=1.0, **spec):
    return RewardSource(name=name, weight=weight, sha256="0", spec=RewardSpec(**spec))


def rewards(*sources, **options):
    return RewardSources(sources, ScoreOptions(**(FREE | options)))


def scores_of(*members, weights=(1.0,)):
    """Scores of members, each a list of B scalars."""
    return Scores(torch.tensor(members)[..., None], weights)
