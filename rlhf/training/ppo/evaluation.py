"""Held-out prompts: what the policy writes to them, by the same sources of rewards."""

from typing import Any

from rlhf.models.generation import batch_seed
from rlhf.training.ppo.monitoring import eval_metrics
from rlhf.training.ppo.scoring import read_rollout, record_of, score_rollout

EVAL_SEED = 2**31
"""Beyond the number of any rollout, so that no rollout draws as evaluations do."""


def evaluate_prompts(trainer: Any, rows: Any, prefix: str = "eval") -> dict[str, float]:
    """Score, KL to the reference, length and ending over one completion of each row.

    The draws are the same at every call, so that two calls differ by the policy alone. Running
    statistics of the rewards stay as they are. Every process takes every so-many-th row.
    """
    args = trainer.args
    taken = range(args.process_index, len(rows), args.world_size)
    mine = [dict(rows[index]) for index in taken]
    assert mine, "more processes than held-out prompts"
    trainer.engine.sync()
    seed = batch_seed(args.seed, EVAL_SEED + args.process_index)
    size = args.rollout_size
    parts = []
    for start in range(0, len(mine), size):
        chosen = mine[start : start + size]
        prompt_ids = [trainer.renderer.prompt_ids(row["prompt"]) for row in chosen]
        sampled = trainer.engine.sample(prompt_ids, seed=batch_seed(seed, start))
        rollout = trainer.make_rollout(chosen, prompt_ids, sampled)
        read_rollout(trainer.model, rollout, trainer.shared, args.temperature)
        score_rollout(rollout, trainer.sources, update=False)
        parts.append(record_of(rollout))
    metrics = eval_metrics(joined(parts), reduce=trainer.reduce)
    return {key.replace("eval_", f"{prefix}_", 1): value for key, value in metrics.items()}


def joined(records: list[Any]) -> Any:
    """One record of several, as far as evaluations read them."""
    import torch

    from rlhf.training.ppo.monitoring import RolloutRecord

    return RolloutRecord(
        prompts=[each for one in records for each in one.prompts],
        completions=[each for one in records for each in one.completions],
        num_tokens=[each for one in records for each in one.num_tokens],
        ended=[each for one in records for each in one.ended],
        scores=torch.cat([one.scores for one in records]),
        kls=torch.cat([one.kls for one in records]),
    )
