"""One rollout as its monitoring reads it: a number a completion or a token, no padding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rlhf.records import PromptContent, content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """N completions of this rank with what was measured of them; M is the sum of their tokens.

    Per completion [N]: `num_tokens`, `ended`, `scores` (as the policy is trained on them),
    `source_scores` (raw, by source), `kls` (nats: the summed log-ratio to the reference),
    `rewards` (summed over its tokens) and `advantages` (their mean over its tokens). Per token
    [M], completions one after the other: `logps` by the trainer, `sampler_logps` by the engine,
    `values`, `returns` and `entropies`; the last three are empty or None where nothing has them.
    `noted_metrics` and `noted_columns` [N] are what reward functions added.
    """

    prompts: Sequence[PromptContent]
    completions: Sequence[str]
    num_tokens: Sequence[int]
    ended: Sequence[bool]
    scores: Tensor
    kls: Tensor
    rewards: Tensor | None = None
    advantages: Tensor | None = None
    source_scores: Mapping[str, Tensor] = field(default_factory=dict)
    logps: Tensor | None = None
    sampler_logps: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None
    entropies: Tensor | None = None
    noted_metrics: Mapping[str, float] = field(default_factory=dict)
    noted_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(self.prompts), len(self.completions), len(self.num_tokens), len(self.ended)}
        columns = [self.scores, self.kls, self.rewards, self.advantages]
        columns += list(self.source_scores.values())
        sizes |= {len(each) for each in columns if each is not None}
        assert sizes == {len(self.scores)}, f"columns of {sorted(sizes)} completions"
        tokens = [self.logps, self.sampler_logps, self.values, self.returns, self.entropies]
        lengths = {len(each) for each in tokens if each is not None}
        assert lengths <= {sum(self.num_tokens)}, f"{lengths} of {sum(self.num_tokens)} tokens"

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def groups(self) -> list[int]:
        """[N] which completions are of one prompt: equal numbers."""
        numbers: dict[str, int] = {}
        return [numbers.setdefault(content_hash(one), len(numbers)) for one in self.prompts]
