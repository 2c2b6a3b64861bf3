"""Scores of a rollout from all sources, shaped as ScoreOptions say."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.errors import DataError, printable
from rlhf.models.scores import Scores
from rlhf.training.ppo.normalisation import RunningMoments
from rlhf.training.rewards.calls import RawScores, call_function, refuse_not_finite
from rlhf.training.rewards.episodes import Episodes, ScoredEpisodes
from rlhf.training.rewards.options import ScoreOptions
from rlhf.training.rewards.shaping import (
    clipped,
    distance_from_mean,
    ensemble_score,
    normalized,
    penalties,
    weighted_sum,
)

if TYPE_CHECKING:
    from rlhf.training.rewards.sources import RewardSource

Reduce = Callable[[Tensor], Tensor]
Moments = dict[str, RunningMoments]


class RewardSources:
    """All sources of rewards of a run, with what their shaping remembers.

    `sources` in the order of the settings; `num_constant` counts the rollouts in a row whose
    rewards were one and the same number on all ranks.
    """

    def __init__(self, sources: "Sequence[RewardSource]", options: ScoreOptions) -> None:
        self.sources = list(sources)
        self.options = options
        self.num_constant = 0
        self._moments = {source.name: RunningMoments() for source in sources}
        self._first: Moments | None = None  # as they were at the first call

    @property
    def names(self) -> list[str]:
        """The sources' names, each once."""
        return [source.name for source in self.sources]

    @property
    def simulated(self) -> bool:
        """Whether any reward model was fitted to simulated labels."""
        return any(source.simulated for source in self.sources)

    def inputs(self) -> dict[str, dict[str, Any]]:
        """Reward models as entries of a manifest's `inputs`, and so of a run's description:
        `reward NAME` of each.

        Functions stand in the provenance alone: a run that one of them stopped goes on when it
        has been mended.
        """
        return {
            f"reward {source.name}": {
                "path": source.origin,
                "sha256": source.sha256,
                "simulated": source.simulated,
            }
            for source in self.sources
            if source.folder is not None
        }

    def provenance(self) -> list[dict[str, Any]]:
        """For a manifest's provenance: each source with its weight, and the verdict (an override
        and its reason in it) and hash of its gate, or why it has none.
        """
        return [source.as_dict() for source in self.sources]

    def score(
        self,
        episodes: Episodes,
        shared: Mapping[str, Scores] | None = None,
        *,
        reduce: Reduce | None = None,
        update: bool = True,
    ) -> ScoredEpisodes:
        """The scores of a rollout's completions, in their order.

        `shared` has the raw Scores of every source that `is_shared`, by its name. `reduce` sums a
        CPU tensor (float64) over ranks, so that running statistics are those of all; every rank
        must then call. `update=False` (held-out prompts) leaves the statistics as they are, and
        normalises by those of the first call: by later ones a policy that has learnt nothing would
        score otherwise each time, and no two evaluations could be compared.

        Token-level scores are weighted and nothing else: neither normalised nor clipped, since
        their scale is that of a token. StageError when a source breaks its contract (see
        rlhf.training.rewards.calls), DataError for a completion that no source applies to.
        """
        before = self._num_cut()
        raw = {each.name: self._raw(each, episodes, shared or {}) for each in self.sources}
        by_source = {name: each.scores for name, each in raw.items()}
        _refuse_unscored(by_source, episodes)
        if update and self.options.reward_normalization == "running":
            self._learn_moments(raw, reduce)
        if self._first is None:
            self._first = _loaded({name: each.state_dict() for name, each in self._moments.items()})
        moments = self._moments if update else self._first
        rewards = clipped(self._whole_scores(raw, moments), self.options.reward_clip)
        token_scores = self._token_scores(raw, episodes)
        warnings = self._cut_warnings(before)
        if update:
            totals = rewards if token_scores is None else rewards + token_scores.sum(1)
            warnings += self._watch_constant(totals, reduce)
        taken_off = penalties(
            torch.tensor(list(episodes.ended), dtype=torch.bool),
            episodes.lengths,
            missing_eos_penalty=self.options.missing_eos_penalty,
            length_penalty=self.options.length_penalty,
        )
        return ScoredEpisodes(
            scores=rewards - taken_off,
            token_scores=token_scores,
            by_source=by_source,
            warnings=warnings,
        )

    def state_dict(self) -> dict[str, Any]:
        """Running statistics, as JSON can hold them."""
        return {
            "num_constant": self.num_constant,
            "moments": {name: each.state_dict() for name, each in self._moments.items()},
            "first": {name: each.state_dict() for name, each in (self._first or {}).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of the same sources; DataError for one of others."""
        if set(state["moments"]) != set(self._moments):
            there, here = sorted(state["moments"]), sorted(self._moments)
            raise DataError(
                f"the checkpoint has statistics of the reward sources {there}, the run has {here}; "
                "give the same sources, or --restart"
            )
        self.num_constant = int(state["num_constant"])
        self._moments = _loaded(state["moments"])
        self._first = _loaded(state["first"]) or None

    def _raw(
        self, source: "RewardSource", episodes: Episodes, shared: Mapping[str, Scores]
    ) -> RawScores:
        if source.function is not None:
            return call_function(source.name, source.function, episodes)
        if source.model is not None:
            scores = source.model.all_scores(
                episodes.prompts,
                episodes.completions,
                list(episodes.ended),
                completion_ids=episodes.completion_ids,
            )
        else:
            assert source.name in shared, f"no shared scores of {source.name!r}"
            scores = shared[source.name]
        score = ensemble_score(scores, self.options.ensemble_penalty).float().cpu()
        assert len(score) == len(episodes), f"{len(score)} scores of {len(episodes)} completions"
        refuse_not_finite(source.name, score.tolist())
        return RawScores(score)

    def _whole_scores(self, raw: Mapping[str, RawScores], moments: Moments) -> Tensor:
        """[B] the weighted sum of the normalised scores of whole completions; 0 where none is."""
        whole = [each for each in self.sources if raw[each.name].tokens is None]
        if not whole:
            return torch.zeros_like(next(iter(raw.values())).scores)
        normal = [self._normal(each, raw[each.name].scores, moments) for each in whole]
        scores = torch.stack(normal)
        return weighted_sum(scores, [each.weight for each in whole]).nan_to_num(0.0)

    def _normal(self, source: "RewardSource", scores: Tensor, moments: Moments) -> Tensor:
        """[B] at mean 0 and deviation 1; the reference knows nothing of functions."""
        kind, spec = self.options.reward_normalization, source.spec
        if kind == "running":
            return moments[source.name].standardize(scores)
        if kind == "reference" and spec is not None:
            assert spec.score_mean is not None
            assert spec.score_std is not None
            return normalized(scores, spec.score_mean, spec.score_std)
        return scores

    def _learn_moments(self, raw: Mapping[str, RawScores], reduce: Reduce | None) -> None:
        """Every source on every rank, or the ranks would wait for one another: what a function
        gives may look different on each.
        """
        for source in self.sources:
            found = raw[source.name]
            applies = ~found.scores.isnan() & (found.tokens is None)
            self._moments[source.name].update(found.scores, applies, reduce=reduce)

    def _token_scores(self, raw: Mapping[str, RawScores], episodes: Episodes) -> Tensor | None:
        """[B, T] the weighted sum of those that score tokens."""
        parts = [
            each.weight * tokens
            for each in self.sources
            if (tokens := raw[each.name].tokens) is not None
        ]
        return torch.stack(parts).sum(0) if parts else None

    def _watch_constant(self, totals: Tensor, reduce: Reduce | None) -> list[str]:
        """A warning when the rewards of all ranks are one number; counts such rollouts."""
        together = reduce or (lambda x: x)
        sums = torch.stack([torch.tensor(float(len(totals))).double(), totals.double().sum()])
        count, total = together(sums).unbind()
        distance = together(distance_from_mean(totals, count, total))
        if count < 2 or distance > 0:
            self.num_constant = 0
            return []
        self.num_constant += 1
        value = float(total / count)
        return [f"all {int(count)} rewards are the same number ({value:g}): nothing to learn from"]

    def _num_cut(self) -> dict[str, int]:
        return {s.name: s.model.num_cut for s in self.sources if s.model is not None}

    def _cut_warnings(self, before: Mapping[str, int]) -> list[str]:
        return [
            f"{count - before[name]} transcripts are longer than the context of {name!r}: it did "
            "not see their beginning"
            for name, count in self._num_cut().items()
            if count > before[name]
        ]


def _loaded(state: Mapping[str, Mapping[str, float]]) -> Moments:
    """Running moments that go on from their `state_dict`s."""
    found = {name: RunningMoments() for name in state}
    for name, moments in found.items():
        moments.load_state_dict(state[name])
    return found


def _refuse_unscored(by_source: Mapping[str, Tensor], episodes: Episodes) -> None:
    """DataError for completions to which no source applies."""
    nowhere = torch.stack(list(by_source.values())).isnan().all(0)  # [B]
    if not nowhere.any():
        return
    first = int(nowhere.nonzero()[0])
    prompt = episodes.prompts[first]
    text = printable(prompt if isinstance(prompt, str) else prompt[-1]["content"])[:80]
    raise DataError(
        f"no source of rewards ({', '.join(by_source)}) applies to {int(nowhere.sum())} of "
        f"{len(episodes)} completions, the first to {text!r}: each returned None; return a number, "
        "or leave such prompts out"
    )
