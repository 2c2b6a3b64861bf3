"""Decoding with the log-probability of every token that was chosen, and nothing else kept.

A loop of our own: transformers' generate gives log-probabilities only together with all scores
(tokens times vocabulary), and goes on computing rows that have ended.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rlhf.errors import ConfigError
from rlhf.models.generation import attends_to_everything, left_padded
from rlhf.models.loading import compact_head
from rlhf.models.rollouts.engine import Sampled, Sampling

_BLOCK = 256
"""Entries of the vocabulary that are summed before they are searched."""


def decode(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seed: int,
    first_row: int = 0,
) -> list[Sampled]:
    """A completion for each row of `prompt_ids` from `model`, a causal language model.

    Every draw belongs to (seed, row, token), rows counted from `first_row`, so completions do not
    depend on the batch size, on other rows, or on the state of torch's generators, but for the
    last bits of sums in batches of another shape. Neither that state nor `model`'s train mode
    changes.
    """
    assert all(len(row) > 0 for row in prompt_ids), "a prompt needs at least one token"
    generator = torch.Generator().manual_seed(seed % 2**63)
    shape = (first_row + len(prompt_ids), sampling.max_new_tokens)
    draws = torch.rand(shape, generator=generator, dtype=torch.float64)[first_row:]
    results: list[Sampled | None] = [None] * len(prompt_ids)
    with evaluating(model), torch.inference_mode(), compact_head(model):
        for rows in _batches(prompt_ids, sampling.batch_size):
            batch = _Batch(model, [list(prompt_ids[row]) for row in rows], sampling)
            for row, sampled in zip(rows, batch.run(draws[rows]), strict=True):
                results[row] = sampled
    return [sampled for sampled in results if sampled is not None]


def _require_attention(model: Any, cache: Any) -> None:
    """ConfigError unless every layer has filled `cache` with keys and values.

    Others (state-space models, linear attention) need a decoding loop of their own kind: in this
    one they would answer something else, without an error.
    """
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    linear = any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)
    if linear or cache.get_seq_length() == 0:
        raise ConfigError(
            f"rollouts: {type(model).__name__} keeps other things than keys and values of its "
            "tokens; train a transformer, or sample by use_vllm"
        )


def _batches(prompt_ids: Sequence[Sequence[int]], batch_size: int | None) -> list[list[int]]:
    """Rows that are decoded together: of like length, equal prompts side by side."""
    order = sorted(range(len(prompt_ids)), key=lambda row: (len(prompt_ids[row]), prompt_ids[row]))
    size = batch_size or max(1, len(order))
    return [order[start : start + size] for start in range(0, len(order), size)]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Eval mode within (dropout would make it another policy); each module's own mode after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Batch:
    """Rows that are decoded together, from reading their prompts to the last token."""

    def __init__(self, model: Any, prompt_ids: list[list[int]], sampling: Sampling) -> None:
        self.model = model
        self.sampling = sampling
        self.device = model.device
        self.shares = attends_to_everything(model.config)
        unique = list(dict.fromkeys(map(tuple, prompt_ids))) if self.shares else prompt_ids
        place = {tuple(prompt): index for index, prompt in enumerate(unique)}
        owners = [place[tuple(row)] for row in prompt_ids] if self.shares else range(len(unique))
        self.owners = torch.tensor(list(owners), device=self.device)  # [B] each row's prompt
        self.ids, self.mask = left_padded(unique, sampling.pad_id, self.device)  # [U, P]
        ends = [] if sampling.ignore_end else list(sampling.end_ids)
        self.ends = torch.tensor(ends, dtype=torch.long, device=self.device)

    def run(self, draws: Tensor) -> list[Sampled]:
        """The completions of all rows; `draws` [B, T] in [0, 1) decide every token."""
        num_rows, limit = draws.shape
        tokens = torch.full((num_rows, limit), -1, device=self.device)
        logps = torch.zeros((num_rows, limit), dtype=torch.float32, device=self.device)
        draws = draws.to(self.device, torch.float32 if self.device.type == "mps" else None)
        rows = torch.arange(num_rows, device=self.device)  # of the rows that are still computed
        going = torch.ones_like(rows, dtype=torch.bool)  # whether each of them has not ended
        logits = self._read_prompts(limit)
        for step in range(limit):
            chosen, logp = choose(logits, draws[rows, step], self.sampling.temperature)
            tokens[rows[going], step], logps[rows[going], step] = chosen[going], logp[going]
            going &= ~torch.isin(chosen, self.ends)
            num_going = int(going.sum())
            if num_going == 0 or step == limit - 1:
                break
            if self.shares and 2 * num_going <= len(rows):
                rows, chosen = rows[going], chosen[going]
                self._keep(going)
                going = torch.ones_like(rows, dtype=torch.bool)
            logits = self._step(chosen)
        return self._results(tokens, logps)

    def _read_prompts(self, limit: int) -> Tensor:
        """Fill the cache from each distinct prompt once; the logits [B, V] of the first tokens."""
        from transformers import DynamicCache

        self.cache = DynamicCache(config=self.model.config)
        logits = self._forward(self.ids, (self.mask.cumsum(1) - 1).clamp(min=0))  # [U, V]
        _require_attention(self.model, self.cache)
        if len(self.owners) > len(self.ids):
            self.cache.batch_select_indices(self.owners)
            self.mask, logits = self.mask[self.owners], logits[self.owners]
        self.positions = self.mask.sum(1)  # [B] of the next token
        return logits

    def _step(self, tokens: Tensor) -> Tensor:
        """The logits [B, V] after one more token [B] in each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        logits = self._forward(tokens[:, None], self.positions[:, None])
        self.positions = self.positions + 1
        return logits

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].to(torch.float32, copy=True)

    def _keep(self, kept: Tensor) -> None:
        """Go on with the rows where `kept` [B] is True."""
        self.cache.batch_select_indices(kept)
        self.mask, self.positions = self.mask[kept], self.positions[kept]

    def _results(self, tokens: Tensor, logps: Tensor) -> list[Sampled]:
        ends = set(self.ends.tolist())
        results = []
        for ids, row_logps in zip(tokens.tolist(), logps.tolist(), strict=True):
            length = ids.index(-1) if -1 in ids else len(ids)
            ended = ids[length - 1] in ends
            results.append(Sampled(ids[:length], ended, row_logps[:length]))
        return results


def choose(logits: Tensor, draws: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A token [B] of each row of `logits` [B, V] (fp32, overwritten) and its log-probability [B].

    `draws` [B] in [0, 1) say how much of the probability lies before the token: found in running
    sums over blocks, then within one, where torch.multinomial draws a number for every entry of
    the vocabulary, which takes longer than a layer. Sums over blocks are in the dtype of `draws`.
    Log-probabilities are in nats at `temperature`; 0 is greedy, with those at temperature 1.
    """
    scaled = logits.div_(temperature) if temperature not in (0.0, 1.0) else logits
    scaled -= scaled.amax(1, keepdim=True)
    weights = _in_blocks(scaled)  # [B, N, _BLOCK] proportional to probabilities
    running = weights.sum(2).cumsum(1, dtype=draws.dtype)  # [B, N]
    if temperature > 0:
        chosen = _search(weights, running, draws[:, None] * running[:, -1:])
        chosen = chosen.clamp(max=scaled.shape[1] - 1)  # where all is NaN; the canary says so
    else:
        chosen = scaled.argmax(1, keepdim=True)
    logps = scaled.gather(1, chosen).to(draws.dtype) - running[:, -1:].log()
    return chosen[:, 0], logps[:, 0].float()


def _in_blocks(scaled: Tensor) -> Tensor:
    """exp of `scaled` [B, V] as [B, N, _BLOCK], filled up with zeros."""
    num_rows, num_entries = scaled.shape
    num_blocks = -(-num_entries // _BLOCK)
    flat = scaled.new_zeros(num_rows, num_blocks * _BLOCK)
    torch.exp(scaled, out=flat[:, :num_entries])
    return flat.view(num_rows, num_blocks, _BLOCK)


def _search(weights: Tensor, running: Tensor, target: Tensor) -> Tensor:
    """The first entry [B, 1] where the running sum is above `target` [B, 1].

    `running` [B, N] are the sums at the ends of the blocks of `weights` [B, N, _BLOCK]. Entries
    of weight 0 are never found: where rounding puts the target past the last, that one is it.
    """
    end = torch.finfo(running.dtype).eps
    target = torch.minimum(target, running[:, -1:] * (1 - end))
    block = torch.searchsorted(running, target, right=True).clamp(max=running.shape[1] - 1)
    inside = weights.gather(1, block[..., None].expand(-1, -1, _BLOCK))[:, 0]  # [B, _BLOCK]
    sums = inside.cumsum(1, dtype=running.dtype)
    before = running.gather(1, block) - sums[:, -1:]
    rest = torch.minimum((target - before).clamp(min=0), sums[:, -1:] * (1 - end))
    place = torch.searchsorted(sums, rest, right=True).clamp(max=_BLOCK - 1)
    return block * _BLOCK + place
