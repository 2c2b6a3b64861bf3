"""What goes into scoring and what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlhf.records import PromptContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """B completions of a rollout, in the order in which their scores come back.

    `prompts[i]` is the prompt of completion i as the data set gave it (text or messages; of
    several completions to one prompt it stands several times). `completions` are texts without
    special tokens, `completion_ids` the sampled tokens without padding, the end token included
    where it was sampled. `ended` says which stopped by themselves. `columns` are the other columns
    of the data set, a value for each completion; `extras` go to every reward function as they are
    (TRL's `trainer_state`, `log_metric`, `log_extra`).
    """

    prompts: Sequence[PromptContent]
    completions: Sequence[str]
    completion_ids: Sequence[Sequence[int]]
    ended: Sequence[bool]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(self.completions), len(self.completion_ids), len(self.ended)}
        sizes |= {len(values) for values in self.columns.values()}
        assert sizes == {len(self.prompts)}, "an episode has one of each"

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> Tensor:
        """[B] tokens of each completion, fp32."""
        return torch.tensor([float(len(ids)) for ids in self.completion_ids])

    @property
    def conversational(self) -> list[str | list[dict[str, str]]]:
        """The completions as TRL hands them to a reward function: one assistant message where the
        prompt is messages, text where it is text.
        """
        return [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(self.prompts, self.completions, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredEpisodes:
    """The scores of B completions, fp32 on the CPU.

    `scores` [B] is what the last token is rewarded with: the weighted, clipped sum of all sources
    that score a whole completion, less the penalties. `token_scores` [B, T] is the weighted sum
    of those that score each token (T is the longest completion's length, 0 at padding); None where
    no source does. `by_source` has each source's own raw score [B] (token-level ones summed; NaN
    where it does not apply). `warnings` are for people, a sentence each.
    """

    scores: Tensor
    token_scores: Tensor | None
    by_source: dict[str, Tensor]
    warnings: list[str] = field(default_factory=list)

    @property
    def totals(self) -> Tensor:
        """[B] everything that a completion is rewarded with: its score and its tokens' scores."""
        return self.scores if self.token_scores is None else self.scores + self.token_scores.sum(1)
