"""What is read of a rollout before it is learnt from: log-probabilities, values, scores."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhf.errors import StageError
from rlhf.models.scores import Scores
from rlhf.models.transcripts import Transcripts
from rlhf.training.ppo.monitoring import RolloutRecord
from rlhf.training.ppo.rollout import Rollout
from rlhf.training.rewards.episodes import Episodes
from rlhf.training.rewards.scoring import RewardSources

_NO_COLUMNS = ("prompt", "prompts", "completions", "completion_ids")


def read_rollout(
    model: Any, rollout: Rollout, shared: Mapping[str, tuple[str, Any]], temperature: float
) -> None:
    """Fill in `logps`, `entropies`, `values`, `ref_logps` and `shared`: each forward pass once.

    It goes over the micro-batches that are learnt from, by the same `model` and roles, so that on
    one machine the first ratio is exactly 1. `shared` are the sources whose adapters `model`
    carries: its name for each, and its RewardSpec.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = {}
    raw: dict[str, list[Tensor]] = {source: [] for source in shared}
    try:
        with torch.no_grad():
            for transcripts in rollout.batches:
                for name, part in _read(model, transcripts, temperature).items():
                    parts.setdefault(name, []).append(part)
                for source, (name, _) in shared.items():
                    raw[source].append(model(transcripts, "reward", reward=name).float().cpu())
    finally:
        model.train(was_training)
    for name, pieces in parts.items():
        setattr(rollout, name, rollout.gathered(pieces))
    rollout.shared = {
        source: Scores(raw=torch.cat(raw[source], dim=1), weights=list(spec.heads.values()))
        for source, (_, spec) in shared.items()
    }


def _read(model: Any, transcripts: Transcripts, temperature: float) -> dict[str, Tensor]:
    policy = model(transcripts, "policy", temperature=temperature, with_entropy=True)
    reference = model(transcripts, "reference", temperature=temperature)
    found = {"logps": policy.logps, "values": policy.values, "ref_logps": reference.logps}
    if policy.entropies is not None:
        found["entropies"] = policy.entropies
    return {name: tensor.float() for name, tensor in found.items()}


def score_rollout(
    rollout: Rollout,
    sources: RewardSources,
    *,
    reduce: Any = None,
    update: bool = True,
    state: Any = None,
) -> list[str]:
    """Fill in `scores`, `token_scores`, `source_scores` and `noted`; the warnings of the sources.

    `state` is what functions get as TRL's `trainer_state`.
    """
    noted = rollout.noted
    extras = {"trainer_state": state, "log_metric": noted.metric, "log_extra": noted.column}
    episodes = Episodes(
        prompts=rollout.prompts,
        completions=rollout.completions,
        completion_ids=rollout.completion_ids,
        ended=rollout.ended.tolist(),
        columns=columns_of(rollout.rows),
        extras=extras,
    )
    scored = sources.score(episodes, rollout.shared, reduce=reduce, update=update)
    rollout.scores = scored.scores.to(rollout.device)
    if scored.token_scores is not None:
        rollout.token_scores = scored.token_scores.to(rollout.device)
    rollout.source_scores = dict(scored.by_source)
    for name, values in noted.columns.items():
        if len(values) != len(rollout):
            raise StageError(
                f"log_extra({name!r}) was given {len(values)} values for {len(rollout)} "
                "completions; give one for each, and run the same command again"
            )
    return list(scored.warnings)


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Every further column of the data set, a value for each completion (None: it has none)."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_COLUMNS)
    return {name: [row.get(name) for row in rows] for name in names}


def record_of(rollout: Rollout) -> RolloutRecord:
    """The rollout as its monitoring reads it."""
    mask = rollout.mask
    assert rollout.scores is not None
    assert rollout.logps is not None
    assert rollout.ref_logps is not None

    def tokens(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[mask].cpu()

    rewards = None if rollout.rewards is None else rollout.rewards.sum(1).cpu()
    advantages = None
    if rollout.advantages is not None:
        advantages = ((rollout.advantages * mask).sum(1) / mask.sum(1)).cpu()
    return RolloutRecord(
        prompts=rollout.prompts,
        completions=rollout.completions,
        num_tokens=[len(ids) for ids in rollout.completion_ids],
        ended=rollout.ended.tolist(),
        scores=rollout.scores.cpu(),
        kls=((rollout.logps - rollout.ref_logps) * mask).sum(1).cpu(),
        rewards=rewards,
        advantages=advantages,
        source_scores={name: each.cpu() for name, each in rollout.source_scores.items()},
        logps=tokens(rollout.logps),
        sampler_logps=tokens(rollout.sampled_logps),
        values=tokens(rollout.values),
        returns=tokens(rollout.returns),
        entropies=tokens(rollout.entropies),
        noted_metrics={name: sum(each) / len(each) for name, each in rollout.noted.metrics.items()},
        noted_columns=rollout.noted.columns,
    )
