"""Calls a reward function, and holds what it returns to what it should.

The signature is TRL's ("Using a custom reward function"): keywords `prompts`, `completions`,
`completion_ids` and every other column of the data set; a list of a number or None (does not
apply) for each completion. Beyond TRL, a list of numbers for each completion scores its tokens.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from rlhf.errors import RlhfError, StageError, printable
from rlhf.training.rewards.episodes import Episodes

_MAX_SHOWN = 80  # characters of a prompt
_AGAIN = "mend it, and run the same command again: it goes on from the last checkpoint"


@dataclass(frozen=True, slots=True)
class RawScores:
    """What one source said: `scores` [B] (NaN: does not apply), and `tokens` [B, T] where it
    scored tokens (0 at padding and where it does not apply; then `scores` are their sums).
    """

    scores: Tensor
    tokens: Tensor | None = None


def call_function(name: str, function: Callable[..., Any], episodes: Episodes) -> RawScores:
    """The values of a reward function, fp32 on the CPU. What it does to its arguments stays there.

    StageError naming the function when it raises, and when it returns another number of values,
    something other than numbers, NaN or infinity, or token scores that do not fit the tokens.
    """
    try:
        returned = function(
            prompts=deepcopy(list(episodes.prompts)),
            completions=episodes.conversational,
            completion_ids=[list(ids) for ids in episodes.completion_ids],
            **_columns(episodes),
        )
        if inspect.isawaitable(returned):  # TRL takes async functions too
            returned = _finished(returned)
    except RlhfError:
        raise
    except (Exception, SystemExit) as error:
        raise _raised(name, error, episodes) from error
    return checked_values(name, returned, episodes)


def checked_values(name: str, returned: Any, episodes: Episodes) -> RawScores:
    """`returned` as scores; errors as `call_function`."""
    if hasattr(returned, "tolist"):  # a tensor or an array
        returned = returned.tolist()
    if isinstance(returned, str) or not isinstance(returned, Sequence):
        raise _wrong(name, f"returned {type(returned).__name__}, not a list of numbers")
    if len(returned) != len(episodes):
        number = f"returned {len(returned)} values for {len(episodes)} completions"
        raise _wrong(name, number)
    values = [each.tolist() if hasattr(each, "tolist") else each for each in returned]
    if any(isinstance(each, Sequence) and not isinstance(each, str) for each in values):
        return _token_scores(name, values, episodes)
    scores = torch.tensor([nan if each is None else _number(name, each) for each in values])
    given = zip(scores.tolist(), values, strict=True)  # as fp32, which ends at 3.4e38
    refuse_not_finite(name, [score for score, each in given if each is not None])
    return RawScores(scores)


def refuse_not_finite(name: str, values: Sequence[float]) -> None:
    """StageError naming the source, and how many of its values are NaN or infinite."""
    count = sum(not isfinite(value) for value in values)
    if count:
        raise _wrong(name, f"gave NaN or infinity for {count} of {len(values)} scores")


def _token_scores(name: str, values: list[Any], episodes: Episodes) -> RawScores:
    """[B, T] of a list for each completion, one number a token; None scores nothing."""
    lengths = [len(ids) for ids in episodes.completion_ids]
    tokens = torch.zeros(len(values), max(lengths, default=0))
    scores = torch.full((len(values),), nan)
    for index, (row, length) in enumerate(zip(values, lengths, strict=True)):
        if row is None:
            continue
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != length:
            size = len(row) if isinstance(row, Sequence) else repr(row)
            raise _wrong(
                name,
                f"scores tokens, but gave {size} for the {length} tokens of completion {index}",
            )
        tokens[index, :length] = torch.tensor([_number(name, each) for each in row])
        refuse_not_finite(name, tokens[index, :length].tolist())
        scores[index] = tokens[index].sum()
    return RawScores(scores, tokens)


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        shown = printable(repr(value))[:_MAX_SHOWN]
        raise _wrong(name, f"returned {shown}, which is no number") from None


def _columns(episodes: Episodes) -> dict[str, Any]:
    own = {"ended": list(episodes.ended)}
    taken = ("prompt", "prompts", "completions", "completion_ids")
    kept = {name: values for name, values in episodes.columns.items() if name not in taken}
    columns = {name: deepcopy(list(values)) for name, values in kept.items()}
    return columns | dict(episodes.extras) | own


def _finished(awaitable: Any) -> Any:
    """What `awaitable` gives, by an event loop in a thread of its own: a notebook's runs in this
    one already, and a second is refused there.
    """

    async def awaited() -> Any:
        return await awaitable

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(awaited())).result()


def _wrong(name: str, what: str) -> StageError:
    return StageError(f"the reward source {name!r} {what}; {_AGAIN}")


def _raised(name: str, error: BaseException, episodes: Episodes) -> StageError:
    reason = printable(str(error))[:160]
    first = episodes.prompts[0] if len(episodes) else ""
    text = first if isinstance(first, str) else first[-1]["content"]
    return StageError(
        f"the reward function {name!r} raised {type(error).__name__}: {reason} (first prompt: "
        f"{printable(text)[:_MAX_SHOWN]!r}); {_AGAIN}"
    )
