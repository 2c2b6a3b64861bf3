"""Policy and reference on the prompts held out, when the run is over."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf.models.rollouts.decoding import evaluating
from rlhf.models.rollouts.policy_engine import PolicyEngine
from rlhf.training.online_dpo.labelling import RewardLabeller, episodes_of
from rlhf.training.online_dpo.rounds import Rounds
from rlhf.training.online_dpo.samples import PromptSamples, own_randomness, sample_prompts
from rlhf.training.online_dpo.summary import completion_metrics
from rlhf.training.ppo.rollout import Noted
from rlhf.training.preferences.batches import even_parts
from rlhf.training.prompts import PromptRow

_SEED = -1


def measure(rounds: Rounds, rows: Sequence[PromptRow]) -> dict[str, Any]:
    """One completion of each held-out prompt by the policy (`eval_...`) and by the reference
    (`eval_ref_...`): length, ended, KL in nats, and the score where sources of rewards label.
    """
    if not rows:
        return {}
    plan = rounds.plan
    places = even_parts(range(len(rows)), plan.num_processes)
    index = rounds.settings.training.process_index
    options: dict[str, Any] = {
        "seed": plan.seed_of(_SEED),
        "num_generations": 1,
        "first_prompt": sum(map(len, places[:index])),
        "task": "held-out prompts",
    }
    mine = [rows[place] for place in places[index]]
    rounds.labeller.load_state_dict(rounds.records()[-1]["labeller"])
    rounds.sync()
    written = rounds.sample(mine, **options)
    found = _metrics(rounds, written, rounds.kl_of(written, "KL"), "eval_")
    reference, off = rounds.reference()
    with off, evaluating(reference):
        engine = PolicyEngine(reference, rounds.sampling)
        size = rounds.stage.rollout_batch_size
        before = sample_prompts(engine, rounds.renderer, mine, batch_size=size, **options)
    ref = _metrics(rounds, before, [0.0] * len(before), "eval_ref_")
    return found | {name: ref[name] for name in ref if "kl" not in name}


def _metrics(
    rounds: Rounds, prompts: Sequence[PromptSamples], kls: Sequence[float], prefix: str
) -> dict[str, Any]:
    samples = rounds.gathered([sample for one in prompts for sample in one.samples])
    found = completion_metrics(samples, rounds.gathered(list(kls)))
    if isinstance(rounds.labeller, RewardLabeller):
        scores = rounds.gathered(_scores(rounds, rounds.labeller, prompts))
        found["score"] = float(np.mean(scores))
    return {f"{prefix}{name}": value for name, value in found.items()}


def _scores(
    rounds: Rounds, labeller: RewardLabeller, prompts: Sequence[PromptSamples]
) -> list[float]:
    """The total scores of held-out completions, which teach no statistics."""
    noted = Noted()
    extras = {
        "trainer_state": rounds.trainer.state,
        "log_metric": noted.metric,
        "log_extra": noted.column,
    }
    if not prompts:
        return []
    with own_randomness(rounds.plan.seed_of(_SEED)):
        scored = labeller.sources.score(episodes_of(prompts, extras), update=False)
    return [float(each) for each in scored.totals]
