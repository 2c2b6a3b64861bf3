"""One rollout: what the policy wrote, what was made of it, and its micro-batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlhf.models.rollouts.engine import Sampled
from rlhf.models.scores import Scores
from rlhf.models.transcripts import Transcripts
from rlhf.records import PromptContent

MicroBatch = dict[str, Any]
"""`transcripts` (Transcripts of B rows), `mask` [B, T] and the tensors of LEARNT_FROM [B, T]."""

LEARNT_FROM = ("logps", "ref_logps", "values", "advantages", "returns")
"""What the loss reads of a rollout beside its tokens."""


@dataclass(slots=True)
class Noted:
    """What reward functions gave to TRL's `log_metric` and `log_extra`: the values of each metric,
    and columns of the table of completions. Each process has those of its own completions.
    """

    metrics: dict[str, list[float]] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def metric(self, name: str, value: float) -> None:
        """Keep a number, which is averaged over the calls of a rollout."""
        self.metrics.setdefault(name, []).append(float(value))

    def column(self, column: str, values: Sequence[Any]) -> None:
        """Keep a value for each completion."""
        self.columns[column] = list(values)


@dataclass(slots=True, kw_only=True)
class Rollout:
    """N completions of one process, in the order of their micro-batches (by length).

    Tensors over tokens are [N, T], T the longest completion; padding is 0. `sampled_logps` are the
    engine's own, None where it has none. Filled in one after the other: `logps`, `ref_logps`,
    `values` (nats; value before each token), `entropies` and `shared` by the forward passes,
    `scores`, `token_scores` and `source_scores` by `score()`, `rewards`, `advantages` and
    `returns` by `advantages()`. One that `is_held_out` is measured and not learnt from.
    """

    number: int
    rows: list[dict[str, Any]]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list[str]
    ended: Tensor
    sampled_logps: Tensor | None
    micro_batch_size: int
    pad_id: int
    device: torch.device
    is_held_out: bool = False
    batches: list[Transcripts] = field(default_factory=list)

    logps: Tensor | None = None
    ref_logps: Tensor | None = None
    values: Tensor | None = None
    entropies: Tensor | None = None
    shared: dict[str, Scores] = field(default_factory=dict)

    scores: Tensor | None = None
    token_scores: Tensor | None = None
    source_scores: dict[str, Tensor] = field(default_factory=dict)
    noted: Noted = field(default_factory=lambda: Noted())

    rewards: Tensor | None = None
    advantages: Tensor | None = None
    returns: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.batches:
            self.batches = [self._packed(chosen) for chosen in self.slices()]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prompts(self) -> list[PromptContent]:
        """What each completion answers."""
        return [row["prompt"] for row in self.rows]

    @property
    def lengths(self) -> Tensor:
        """[N] tokens of each completion."""
        return torch.tensor([len(ids) for ids in self.completion_ids], device=self.device)

    @property
    def mask(self) -> Tensor:
        """[N, T], True on the tokens of completions."""
        lengths = self.lengths
        longest = max(int(lengths.max()), 1)
        return torch.arange(longest, device=self.device)[None] < lengths[:, None]

    @property
    def num_tokens(self) -> int:
        """Tokens of all completions."""
        return sum(len(ids) for ids in self.completion_ids)

    def slices(self) -> Iterator[slice]:
        """The rows of each micro-batch."""
        for start in range(0, len(self.rows), self.micro_batch_size):
            yield slice(start, start + self.micro_batch_size)

    def gathered(self, parts: Sequence[Tensor]) -> Tensor:
        """[N, T] of what each micro-batch gave, [B, T_m]."""
        whole = parts[0].new_zeros((len(self), self.mask.shape[1]))
        for chosen, part in zip(self.slices(), parts, strict=True):
            whole[chosen, : part.shape[1]] = part
        return whole

    def micro_batches(self) -> list[MicroBatch]:
        """What is learnt from: the very transcripts that the old log-probabilities are of."""
        found = []
        for chosen, transcripts in zip(self.slices(), self.batches, strict=True):
            mask = transcripts.completion_mask
            batch: MicroBatch = {"transcripts": transcripts, "mask": mask}
            for name in LEARNT_FROM:
                tensor = getattr(self, name)
                assert tensor is not None, f"{name} of the rollout is missing"
                batch[name] = tensor[chosen, : mask.shape[1]].contiguous()
            found.append(batch)
        return found

    def _packed(self, chosen: slice) -> Transcripts:
        return Transcripts.pack(
            self.prompt_ids[chosen], self.completion_ids[chosen], self.pad_id, self.device
        )


def pack_rollout(
    rows: Sequence[dict[str, Any]],
    prompt_ids: Sequence[Sequence[int]],
    sampled: Sequence[Sampled],
    *,
    number: int,
    micro_batch_size: int,
    tokenizer: Any,
    device: torch.device,
) -> Rollout:
    """The rollout of these completions, one to each row, in the order of its micro-batches.

    Texts are without the end token and other special ones.
    """
    order = by_length(prompt_ids, [one.token_ids for one in sampled])
    chosen = [sampled[index] for index in order]
    return Rollout(
        number=number,
        rows=[rows[index] for index in order],
        prompt_ids=[list(prompt_ids[index]) for index in order],
        completion_ids=[list(one.token_ids) for one in chosen],
        completions=[tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in chosen],
        ended=torch.tensor([one.ended for one in chosen]),
        sampled_logps=padded_logps(chosen, device),
        micro_batch_size=micro_batch_size,
        pad_id=tokenizer.pad_token_id,
        device=device,
    )


def by_length(
    prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
) -> list[int]:
    """The order of rows in micro-batches: the longest transcripts first, so that padding is least
    and a batch too large for the memory is met at once.
    """
    return sorted(
        range(len(prompt_ids)),
        key=lambda row: (-len(prompt_ids[row]) - len(completion_ids[row]), row),
    )


def padded_logps(sampled: Sequence[Sampled], device: torch.device) -> Tensor | None:
    """[N, T] the engine's log-probabilities, 0 at padding; None when it gave none of some."""
    if any(len(one.logps) != len(one.token_ids) for one in sampled):
        return None
    logps = torch.zeros((len(sampled), max(len(one.token_ids) for one in sampled)))
    for index, one in enumerate(sampled):
        logps[index, : len(one.logps)] = torch.tensor(one.logps)
    return logps.to(device)
