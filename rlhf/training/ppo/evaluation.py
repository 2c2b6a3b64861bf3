"""Held-out prompts: what the policy writes to them, by the same sources of rewards."""

from itertools import compress
from typing import Any

from rlhf.models.generation import batch_seed
from rlhf.training.ppo.monitoring import eval_metrics
from rlhf.training.ppo.scoring import read_rollout, record_of

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
    # Where weights are sharded a forward pass is one of all processes, so each has as many rows:
    # one that has a row less answers its first a second time, for nothing.
    repeated = [dict(mine[0]) for _ in range(-(-len(rows) // args.world_size) - len(mine))]
    answered = mine + repeated
    trainer.engine.sync()
    seed = batch_seed(args.seed, EVAL_SEED + args.process_index)
    size = args.rollout_size
    parts, counted = [], []
    for start in range(0, len(answered), size):
        chosen = answered[start : start + size]
        prompt_ids = [trainer.renderer.prompt_ids(row["prompt"]) for row in chosen]
        sampled = trainer.engine.sample(prompt_ids, seed=batch_seed(seed, start))
        rollout = trainer.make_rollout(chosen, prompt_ids, sampled)
        rollout.is_held_out = True
        read_rollout(trainer.model, rollout, trainer.shared, args.temperature)
        trainer.score(rollout)
        parts.append(record_of(rollout))
        counted += [not any(row is one for one in repeated) for row in rollout.rows]
    metrics = eval_metrics(joined(parts, counted), reduce=trainer.reduce)
    return {key.replace("eval_", f"{prefix}_", 1): value for key, value in metrics.items()}


def joined(records: list[Any], counted: list[bool]) -> Any:
    """One record of several, as far as evaluations read them, of the completions that count."""
    import torch

    from rlhf.training.ppo.monitoring import RolloutRecord

    def listed(name: str) -> list[Any]:
        return list(compress((each for one in records for each in getattr(one, name)), counted))

    def stacked(name: str) -> torch.Tensor:
        return torch.cat([getattr(one, name) for one in records])[torch.tensor(counted)]

    return RolloutRecord(
        prompts=listed("prompts"),
        completions=listed("completions"),
        num_tokens=listed("num_tokens"),
        ended=listed("ended"),
        scores=stacked("scores"),
        kls=stacked("kls"),
    )
