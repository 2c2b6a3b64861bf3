"""TRL's fused LM head on a CPU, by tiles that fit the processor's caches.

TRL's kernel for devices without Triton makes 32,768 scores of a token at a time, reads them from
memory for every sum it takes, and multiplies the gradients in fp32. `chunked_head` computes the
same values, and the gradients of a frozen head in the same pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rlhf.models.chunked_head import token_scores
from rlhf.models.trl_compat import HeadOutputs, completion_positions_only, head_computed_by
from rlhf.models.vocabulary_tiles import Head, ScoreShape

KNOWN_OUTPUTS = {"log_probs", "entropy", "mean_logits", "is_top1"}
"""What TRL can ask for and is computed here; WPO's log sum of squares is left to TRL."""


def fused_token_scores(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    temperature: float,
    _chunk_size: int,
    softcap: float | None,
    scale: float,
    outputs: tuple[str, ...],
) -> HeadOutputs | None:
    """What `head_computed_by` asks for; None where TRL's kernel must compute.

    That is on other devices, under autocast, where states and head differ in dtype, and where
    an output is wanted that is not known here. Entropies carry no gradient: the trainers on
    rows of data (SFT, DPO, KTO) only log them.
    """
    taken = (
        hidden.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and hidden.dtype == weight.dtype
        and type(weight) in (Tensor, torch.nn.Parameter)
        and set(outputs) <= KNOWN_OUTPUTS
        and len(hidden) > 0
    )
    if not taken:
        return None
    logps, entropies, means, tops = token_scores(
        Head(weight, bias, ScoreShape(temperature, softcap, scale)),
        hidden,
        token_ids,
        with_entropy="entropy" in outputs,
        with_mean="mean_logits" in outputs,
        with_top="is_top1" in outputs,
    )
    return logps, entropies, None, means, tops


@contextmanager
def fast_head() -> Iterator[None]:
    """Within the block TRL's fused LM head scores completion positions only, by tiles."""
    with completion_positions_only(), head_computed_by(fused_token_scores):
        yield
