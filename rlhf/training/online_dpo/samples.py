"""What the policy writes in a round: several completions of each prompt, and their worth."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rlhf.data.progress import progress
from rlhf.data.tokenization import Renderer
from rlhf.models.rollouts.engine import RolloutEngine
from rlhf.records import PromptContent
from rlhf.training.prompts import PromptRow

_AT_ONCE = 4
"""Batches of the engine between two moves of the bar."""


@dataclass(slots=True, kw_only=True)
class Sample:
    """One completion: `text` without special tokens, `ids` as sampled (the end token included
    where it `ended`), `draw` its place among the round's draws.

    Labelling fills `score`, and `scores` by source (None: the source does not apply).
    """

    ids: list[int]
    text: str
    ended: bool
    draw: int
    score: float = 0.0
    scores: dict[str, float | None] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PromptSamples:
    """The completions of one prompt; `row` is the prompt with the other columns of its row."""

    row: PromptRow
    prompt_ids: list[int]
    samples: list[Sample]

    @property
    def prompt(self) -> PromptContent:
        """Text or messages, as the data set gave it."""
        content: PromptContent = self.row["prompt"]
        return content


def sample_prompts(
    engine: RolloutEngine,
    renderer: Renderer,
    rows: Sequence[PromptRow],
    *,
    num_generations: int,
    seed: int,
    first_prompt: int = 0,
    batch_size: int | None = None,
    task: str = "sampling",
) -> list[PromptSamples]:
    """`num_generations` completions of each prompt by the engine's weights of now.

    Every draw belongs to (seed, prompt, completion, token), prompts counted from `first_prompt`:
    other processes may sample the other prompts. `task` stands before the bar.
    """
    found = [
        PromptSamples(row=row, prompt_ids=renderer.prompt_ids(row["prompt"]), samples=[])
        for row in rows
    ]
    asked = [one for one in found for _ in range(num_generations)]
    size = _AT_ONCE * batch_size if batch_size else max(1, len(asked))
    first_row = first_prompt * num_generations
    with progress(task, len(asked), "completion") as advance:
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            ids = [one.prompt_ids for one in part]
            drawn = engine.sample(ids, seed=seed, first_row=first_row + start)
            for place, (one, sampled) in enumerate(zip(part, drawn, strict=True), start):
                text = renderer.tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
                sample = Sample(
                    ids=sampled.token_ids, text=text, ended=sampled.ended, draw=first_row + place
                )
                one.samples.append(sample)
            advance(start + len(part), len(asked))
    return found


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Within the block random, NumPy and torch draw from `seed`; after it they are as before.

    What labels may draw numbers, and a run that is continued after it does not do so again.
    """
    kept: tuple[Any, Any] = (random.getstate(), np.random.get_state())
    devices = range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
