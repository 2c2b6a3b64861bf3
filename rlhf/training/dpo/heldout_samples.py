"""What the policy writes to held-out prompts, measured at each evaluation: the KL to its reference,
how long its completions are, and how many it ends.

Log-probabilities of held-out pairs say nothing of that: they are of completions that the policy
might never write.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean, stdev
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from rlhf.data.columns import Columns
from rlhf.data.tokenization import Renderer
from rlhf.models.adapters import using_adapter
from rlhf.models.generation import batch_seed, end_token_ids
from rlhf.models.rollouts.engine import Sampled, Sampling
from rlhf.models.rollouts.policy_engine import PolicyEngine
from rlhf.training.arguments import Settings
from rlhf.training.dpo.reference import REF_ADAPTER
from rlhf.training.stage import is_main

REFERENCE_SEED = 2**31
"""Beyond any step: the reference's own completions are drawn once for all of them."""


class HeldoutSamples:
    """Samples `prompts` (token ids) anew at each evaluation, from the policy and its reference."""

    def __init__(self, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        assert prompts, "nothing to sample"
        self.prompts = list(prompts)
        self.sampling = sampling
        self._reference_lengths: list[int] | None = None
        self._is_timed = False

    @torch.no_grad()
    def metrics(self, trainer: Any, prefix: str = "eval") -> dict[str, float]:
        """`eval_kl` (nats a completion) with its standard error `eval_kl_se`, the mean length in
        tokens with its own, the share that ended by itself, and the reference's mean length.

        The KL is the mean over completions y of the policy of log policy(y) - log reference(y),
        at temperature 1: unbiased for KL(policy || reference) of whole completions, as long as the
        limit lets them be. Draws follow from the run's seed and its step alone: torch's generators
        are not touched. Every process takes a part of the prompts; all return the same.
        """
        began = time.monotonic()
        first, last = _part(len(self.prompts), trainer.args.process_index, trainer.args.world_size)
        mine = self.prompts[first:last]
        if self._reference_lengths is None or trainer.args.sync_ref_model:  # it moves
            with _as_reference(trainer) as reference:
                written = self._sample(trainer, reference, mine, REFERENCE_SEED, first)
            self._reference_lengths = _gathered(trainer, [len(one.token_ids) for one in written])
        sampled = self._sample(trainer, trainer.model, mine, trainer.state.global_step, first)
        ratios = _gathered(trainer, log_ratios(trainer, mine, sampled, self.sampling))
        lengths = _gathered(trainer, [len(one.token_ids) for one in sampled])
        ended = _gathered(trainer, [float(one.ended) for one in sampled])
        self._say_cost(trainer, time.monotonic() - began)
        return {
            f"{prefix}_kl": fmean(ratios),
            f"{prefix}_kl_se": _standard_error(ratios),
            f"{prefix}_completion_length": fmean(lengths),
            f"{prefix}_completion_length_se": _standard_error(lengths),
            f"{prefix}_ended_rate": fmean(ended),
            f"{prefix}_ref_completion_length": fmean(self._reference_lengths),
        }

    def _sample(
        self, trainer: Any, model: Any, prompts: list[list[int]], number: int, first_row: int
    ) -> list[Sampled]:
        if not prompts:
            return []
        seed = batch_seed(trainer.args.seed, number)
        return PolicyEngine(model, self.sampling).sample(prompts, seed=seed, first_row=first_row)

    def _say_cost(self, trainer: Any, seconds: float) -> None:
        if not self._is_timed and trainer.args.process_index == 0:
            limit = self.sampling.max_new_tokens
            print(
                f"sampling {len(self.prompts)} held-out prompts (up to {limit} tokens each) took "
                f"{seconds:.1f} s, about a half of it at each later evaluation; --num_kl_prompts "
                "0 leaves it out",
                file=sys.stderr,
            )
        self._is_timed = True


class SampledEvaluation:
    """Mixin before a Trainer: its evaluations carry what `heldout_samples` measures, if any."""

    heldout_samples: HeldoutSamples | None = None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, with these metrics among its own."""
        output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
        if self.heldout_samples is not None:
            prefix = kwargs.get("metric_key_prefix", "eval")
            output.metrics.update(self.heldout_samples.metrics(self, prefix))
        return output


def heldout_samples(
    settings: Settings, renderer: Renderer, model: Any, eval_rows: Columns
) -> HeldoutSamples | None:
    """What the settings ask to sample: the first prompts held out that differ; None for none."""
    num_prompts = settings.stage.num_kl_prompts
    if not num_prompts or not eval_rows:
        return None
    limit = settings.stage.kl_max_completion_length
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    distinct = dict.fromkeys(tuple(row["prompt_ids"]) for row in eval_rows)
    prompts = [list(ids) for ids in distinct if context is None or len(ids) + limit <= context]
    if not prompts:
        if is_main(settings):
            print(
                f"--num_kl_prompts: no held-out prompt leaves room for {limit} tokens in the "
                f"context of {context}; lower --kl_max_completion_length",
                file=sys.stderr,
            )
        return None
    tokenizer = renderer.tokenizer
    sampling = Sampling(
        max_new_tokens=limit,
        pad_id=tokenizer.pad_token_id,
        end_ids=tuple(end_token_ids(_unwrapped(model), tokenizer, renderer)),
        batch_size=settings.training.per_device_eval_batch_size,
    )
    return HeldoutSamples(prompts[:num_prompts], sampling)


def log_ratios(
    trainer: Any, prompts: Sequence[list[int]], sampled: Sequence[Sampled], sampling: Sampling
) -> list[float]:
    """log policy(y | x) - log reference(y | x) of each completion, in nats.

    Both by the same pass on the same batch, so that equal models give exactly 0.
    """
    found: list[float] = []
    size = sampling.batch_size or len(prompts)
    for start in range(0, len(prompts), size):
        rows = slice(start, start + size)
        ids, completion_ids = prompts[rows], [one.token_ids for one in sampled[rows]]
        batch = _batch(ids, completion_ids, sampling.pad_id, trainer.args.device)
        with trainer.compute_loss_context_manager():
            policy = sequence_logps(trainer.model, batch)  # [B]
            with _as_reference(trainer) as reference:
                found += (policy - sequence_logps(reference, batch)).tolist()
    return found


def sequence_logps(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Summed log-probabilities [B] of the labelled tokens, by TRL's head that keeps no logits."""
    training = model.training
    model.eval()
    logps: Tensor = model(**batch, use_cache=False, fused_lm_head=True).log_probs  # [B, T - 1]
    model.train(training)
    return logps.float().sum(1)


def _batch(
    prompts: Sequence[list[int]], completions: Sequence[list[int]], pad_id: int, device: Any
) -> dict[str, Tensor]:
    """Rows [B, T] padded on the right; labels -100 where a token is not of the completion."""
    rows = [[*prompt, *ids] for prompt, ids in zip(prompts, completions, strict=True)]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
        labels[index, len(prompt) : len(row)] = ids[index, len(prompt) : len(row)]
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "labels": labels.to(device),
    }


@contextmanager
def _as_reference(trainer: Any) -> Iterator[Any]:
    """The model to ask for the reference: a second one, or the policy's own without its adapter."""
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    model = trainer.model
    with using_adapter(model, REF_ADAPTER if REF_ADAPTER in model.peft_config else None):
        yield model


def _gathered(trainer: Any, values: list[Any]) -> list[Any]:
    """The values of all processes, in the order of the prompts."""
    return gather_object(values) if trainer.args.world_size > 1 else values


def _part(count: int, index: int, num_parts: int) -> tuple[int, int]:
    return count * index // num_parts, count * (index + 1) // num_parts


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
