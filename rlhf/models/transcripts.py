"""Prompt and completion in one row: what every role of PPO reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Transcripts:
    """B prompts with their completions, padded on the right.

    `ids` and `mask` (True on real tokens) are [B, L]; `starts` and `lengths` [B] say where in its
    row a completion begins and how many tokens it has.
    """

    ids: Tensor
    mask: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def pack(
        cls,
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        pad_id: int,
        device: torch.device | str | None = None,
    ) -> "Transcripts":
        """Transcripts of token ids; every prompt has at least one token."""
        pairs = list(zip(prompt_ids, completion_ids, strict=True))
        assert all(len(prompt) > 0 for prompt, _ in pairs), "a prompt needs at least one token"
        length = max(len(prompt) + len(completion) for prompt, completion in pairs)
        ids = torch.full((len(pairs), length), pad_id, dtype=torch.long)
        mask = torch.zeros((len(pairs), length), dtype=torch.bool)
        for index, (prompt, completion) in enumerate(pairs):
            row = torch.tensor([*prompt, *completion])
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        starts = torch.tensor([len(prompt) for prompt, _ in pairs])
        lengths = torch.tensor([len(completion) for _, completion in pairs])
        return cls(*(each.to(device) for each in (ids, mask, starts, lengths)))

    @property
    def completion_mask(self) -> Tensor:
        """[B, T], True on the completion's tokens; T is the longest completion's length."""
        longest = int(self.lengths.max())
        return torch.arange(longest, device=self.ids.device)[None] < self.lengths[:, None]

    @property
    def completion_ids(self) -> Tensor:
        """[B, T] the completions' tokens, padding after them."""
        return self.ids.gather(1, self._places())

    @property
    def predicting(self) -> Tensor:
        """[B, T] the place in the row whose state predicts each completion token: one before it.

        The value of a token is read there too: before it was chosen.
        """
        return self._places() - 1

    def _places(self) -> Tensor:
        """[B, T] where in its row each completion token stands; some place for padding."""
        offsets = torch.arange(int(self.lengths.max()), device=self.ids.device)[None]
        return (self.starts[:, None] + offsets).clamp(max=self.ids.shape[1] - 1)
