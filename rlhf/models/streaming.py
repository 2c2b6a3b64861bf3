"""One completion, token by token as it is sampled: for a terminal or a page to show."""

import queue
import threading
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria

from rlhf.models.loading import compact_head


def stream_ids(
    model: Any,
    prompt_ids: Sequence[int],
    *,
    end_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[int]:
    """The token ids of one completion as they come, the end token included where one ends it.

    They are draws from the policy's own distribution at `temperature` (0 is greedy), equal for
    equal seeds. Whoever stops to read stops the sampling. It runs in a thread of its own; what
    is raised there is raised here.
    """
    from transformers import GenerationConfig

    own = copy(model.get_base_model() if hasattr(model, "get_base_model") else model)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end_ids),
        pad_token_id=pad_id,
        do_sample=False,
        use_cache=True,
    )
    # What this config leaves open is taken from the model's, which may hold penalties; the weights
    # are those of `model`, which others may be sampling from at the same time.
    own.generation_config = config
    noise = LogitsProcessorList([GumbelNoise(temperature, seed)] if temperature > 0 else [])
    pipe = _Pipe()

    def run() -> None:
        try:
            ids = torch.tensor([list(prompt_ids)], device=own.device)
            with torch.inference_mode(), compact_head(own):
                own.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    logits_processor=noise,
                    stopping_criteria=[pipe.stopping],
                    streamer=pipe,
                )
        except BaseException as error:  # the reader's, not this thread's
            pipe.fail(error)
        finally:
            pipe.end()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield from pipe
    finally:
        pipe.stopping.set()
        thread.join()


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Noise that turns the largest logit into a draw from softmax(logits / temperature).

    argmax(logits / temperature + g) with g = -ln(-ln u), u uniform, is such a draw (Gumbel 1954).
    So the draws have a generator of their own, and several conversations can run at once.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self.temperature = temperature
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[B, V] logits with noise added, in fp32."""
        exponential = torch.empty(scores.shape, dtype=torch.float32)
        exponential.exponential_(generator=self.generator)
        return scores.float() / self.temperature - exponential.log().to(scores.device)


class _Stopping(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation once its reader has gone."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def set(self) -> None:
        self._stopped.set()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        done = self._stopped.is_set()
        return torch.full((input_ids.shape[0],), done, device=input_ids.device, dtype=torch.bool)


class _Pipe:
    """What transformers calls a streamer: takes ids in one thread, and gives them in another."""

    def __init__(self) -> None:
        self.stopping = _Stopping()
        self._ids: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._is_prompt = True

    def put(self, ids: torch.Tensor) -> None:
        if self._is_prompt:  # which transformers hands over first
            self._is_prompt = False
            return
        for each in ids.flatten().tolist():
            self._ids.put(int(each))

    def end(self) -> None:
        self._ids.put(None)

    def fail(self, error: BaseException) -> None:
        self._ids.put(error)

    def __iter__(self) -> Iterator[int]:
        while (found := self._ids.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
