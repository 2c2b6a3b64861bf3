"""Numbers from models: a reward model's scores, and a policy's log-probabilities."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.data.tokenization import Renderer
from rlhf.models.generation import context_length, left_padded
from rlhf.models.loading import (
    backbone_of,
    compact_head,
    load_reward_model,
    load_tokenizer,
    reward_head,
)
from rlhf.records import PromptContent


class RewardModel:
    """A reward model ready to score: one raw scalar for each completion.

    The score is the fp32 head's value at the transcript's last token. It depends neither on
    the padding nor on what else is in the batch. `num_cut` counts transcripts that were longer
    than the model's context and lost their beginning.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer)
        self.num_cut = 0

    @classmethod
    def load(
        cls, folder: str | Path, *, dtype: str = "float32", device: str = "auto"
    ) -> "RewardModel":
        """The reward model that a stage left in `folder`; DataError when it has no head."""
        model = load_reward_model(folder, dtype=dtype, device=device)
        return cls(model, load_tokenizer(folder))

    def score(
        self,
        prompts: Sequence[PromptContent],
        completions: Sequence[str],
        ended: Sequence[bool | None] | None = None,
        *,
        batch_size: int = 16,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Scores [B], float32 on the CPU, of each completion to its prompt.

        `ended` says of each whether it stopped by itself; one that the limit cut gets no end
        token. `on_progress(done, total)` counts transcripts.
        """
        flags = [True] * len(prompts) if ended is None else list(ended)
        rows = [
            self.renderer.transcript_ids(prompt, completion, flag)
            for prompt, completion, flag in zip(prompts, completions, flags, strict=True)
        ]
        return self.score_ids(rows, batch_size=batch_size, on_progress=on_progress)

    @torch.inference_mode()
    def score_ids(
        self,
        rows: Sequence[Sequence[int]],
        *,
        batch_size: int = 16,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Scores [B], float32 on the CPU, of token ids: prompt and completion in one row."""
        rows = self._within_context(rows)
        scores = torch.empty(len(rows), dtype=torch.float32)
        done = 0
        for batch in _batches_by_length(rows, batch_size):
            scores[batch] = self._score_batch([rows[index] for index in batch])
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(rows))
        return scores

    def _within_context(self, rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        context = context_length(self.model)
        if context is None:
            return list(rows)
        self.num_cut += sum(len(row) > context for row in rows)
        return [row[-context:] for row in rows]

    def _score_batch(self, rows: list[Sequence[int]]) -> Tensor:
        """Pool by the rows' own lengths: a pad token inside a completion does no harm."""
        device = self.model.device
        ids, mask = right_padded(rows, self.tokenizer.pad_token_id, device)  # [B, L]
        last = torch.tensor([len(row) - 1 for row in rows], device=device)  # [B]
        hidden = backbone_of(self.model)(input_ids=ids, attention_mask=mask, use_cache=False)
        pooled = hidden.last_hidden_state[torch.arange(len(rows), device=device), last]  # [B, H]
        return reward_head(self.model)(pooled.float())[:, 0].float().cpu()  # [B]


@torch.inference_mode()
def sequence_logps(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Log-probability [B] (nats, float32, CPU) of each completion given its prompt.

    The sum over the completion's tokens of log p(token | prompt, tokens before), at temperature
    1, with whatever adapters are active. Logits are made for completion positions only. A
    completion without tokens has log-probability 0.
    """
    pairs = list(zip(prompt_ids, completion_ids, strict=True))
    assert all(len(prompt) > 0 for prompt, _ in pairs), "a prompt needs at least one token"
    rows = [[*prompt, *completion] for prompt, completion in pairs]
    logps = torch.zeros(len(pairs), dtype=torch.float32)
    done = 0
    for batch in _batches_by_length(rows, batch_size):
        lengths = [len(pairs[index][1]) for index in batch]
        logps[batch] = _logps_of_batch(model, [rows[index] for index in batch], lengths)
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(pairs))
    return logps


def _logps_of_batch(model: Any, rows: list[list[int]], lengths: list[int]) -> Tensor:
    """Sums [B] over each row's last `length` tokens.

    Padded on the left, the completions end together, so that `logits_to_keep` cuts the head's
    work to them. The pad id is any id at all: padding is masked.
    """
    num_kept = max(lengths)
    if num_kept == 0:
        return torch.zeros(len(rows))
    ids, mask = left_padded(rows, 0, model.device)  # [B, L]
    positions = (mask.cumsum(1) - 1).clamp(min=0)  # [B, L]
    with compact_head(model):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=num_kept + 1,
        ).logits[:, :-1]  # [B, num_kept, V], each row predicting the token after it
    sums = torch.zeros(len(rows))
    for index, length in enumerate(lengths):
        if length:
            targets = ids[index, -length:]  # [T]
            sums[index] = token_logps(logits[index, -length:], targets).sum()
    return sums


def token_logps(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probabilities [T] of `token_ids` [T] under `logits` [T, V], in float32."""
    logits = logits.float()
    chosen = logits.gather(1, token_ids[:, None])[:, 0]  # [T]
    return chosen - logits.logsumexp(dim=1)


def right_padded(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids [B, L] and mask [B, L] (1 on real tokens), the padding after the tokens."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids.to(device), mask.to(device)


def _batches_by_length(rows: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices in batches of like length, the longest first: what does not fit fails at once."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
