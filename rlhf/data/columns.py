"""The tokenised columns that trainers read, and what does not fit into `max_length`.

TRL cuts or drops what is too long without a word; here each such row is counted first, and
nothing is left for TRL to lose.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, Literal, TypeVar

from rlhf.data.formats import Demo, Pair, Unpaired
from rlhf.data.losses import ROW_ADVICE, DataLosses
from rlhf.data.progress import with_progress
from rlhf.data.tokenization import Renderer
from rlhf.errors import DataError

IGNORED = -100
"""The label of a token that no loss is taken on."""

_CUT = {"keep_start": "end of a completion cut", "keep_end": "beginning of the prompt cut"}

Columns = list[dict[str, Any]]
_Row = TypeVar("_Row", Pair, Demo, Unpaired)
_Ids = TypeVar("_Ids")


def dpo_columns(
    pairs: Iterable[Pair],
    renderer: Renderer,
    max_length: int | None,
    losses: DataLosses,
    truncation: Literal["keep_start", "keep_end"] | None = None,
) -> tuple[Columns, list[Pair]]:
    """Rows of `prompt_ids`, `chosen_ids`, `rejected_ids`, and the pairs that they are of.

    A pair with a side over `max_length` tokens, prompt included, is dropped; with a `truncation`
    it is cut as `cut_pair` does and counted. A pair of which nothing different is left, or no
    prompt, is dropped too.
    """
    kept: list[Pair] = []
    rows: Columns = []
    for pair in with_progress("tokenising", pairs):
        if (ids := rendered(pair_ids, pair, renderer, losses)) is None:
            continue
        prompt, chosen, rejected = ids
        length = len(prompt) + max(len(chosen), len(rejected))
        too_long, limit = False, f"--max_length {max_length}"
        if max_length is not None and length > max_length:
            too_long = True
            if truncation is not None:
                prompt, chosen, rejected = cut_pair(ids, max_length, truncation)
        if not ids[0]:
            losses.drop("no prompt tokens to condition on", pair.place)
        elif not ids[1] or not ids[2]:
            losses.drop("completion without tokens", pair.place)
        elif ids[1] == ids[2]:
            losses.drop("identical tokens in chosen and rejected", pair.place)
        elif too_long and truncation is None:
            losses.drop(f"over {limit}", pair.place)
        elif not chosen or not rejected:
            losses.drop(f"prompt fills {limit}", pair.place)
        elif not prompt:
            losses.drop(f"completion fills {limit}", pair.place)
        elif chosen == rejected:
            losses.drop(f"identical once cut to {limit}", pair.place)
        else:
            if too_long and truncation is not None:
                losses.shorten(f"over {limit}, {_CUT[truncation]}", pair.place)
            kept.append(pair)
            rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return rows, kept


def cut_pair(
    ids: tuple[list[int], list[int], list[int]], max_length: int, side: str
) -> tuple[list[int], list[int], list[int]]:
    """(prompt, chosen, rejected) of which neither side is over `max_length` tokens with its prompt.

    "keep_start" cuts the ends of completions, which lose their end token; "keep_end" the beginning
    of the prompt, by as much as the longer side needs, so that both still have one prompt. TRL
    would cut each side by itself, and the two would answer different prompts.
    """
    prompt, chosen, rejected = ids
    if side == "keep_end":
        surplus = len(prompt) + max(len(chosen), len(rejected)) - max_length
        return prompt[max(surplus, 0) :], chosen, rejected
    room = max(max_length - len(prompt), 0)
    return prompt, chosen[:room], rejected[:room]


def reward_columns(
    pairs: Iterable[Pair], renderer: Renderer, max_length: int | None, losses: DataLosses
) -> tuple[Columns, list[Pair]]:
    """Rows of `chosen_ids`, `rejected_ids` (whole transcripts), and the pairs they are of.

    A pair with a side over `max_length` tokens is dropped: a score of half an answer is a
    score of another answer.
    """
    kept: list[Pair] = []
    rows: Columns = []
    for pair in with_progress("tokenising", pairs):
        if (ids := rendered(transcripts, pair, renderer, losses)) is None:
            continue
        chosen, rejected = ids
        if max_length is not None and max(len(chosen), len(rejected)) > max_length:
            losses.drop(f"over --max_length {max_length}", pair.place)
        elif chosen == rejected:
            losses.drop("identical tokens in chosen and rejected", pair.place)
        elif not chosen or not rejected:
            losses.drop("transcript without tokens", pair.place)
        else:
            kept.append(pair)
            rows.append({"chosen_ids": chosen, "rejected_ids": rejected})
    return rows, kept


def sft_columns(
    demos: Iterable[Demo],
    renderer: Renderer,
    max_length: int | None,
    losses: DataLosses,
    *,
    completion_only: bool = True,
) -> tuple[Columns, list[Demo]]:
    """Rows of `input_ids` and `labels` (prompt tokens ignored), and the demos they are of.

    What goes over `max_length` tokens is cut; a row whose completion is cut away whole is
    dropped. With `completion_only` False every token is a label.
    """
    kept: list[Demo] = []
    rows: Columns = []
    for demo in with_progress("tokenising", demos):
        if (found := rendered(demo_ids, demo, renderer, losses)) is None:
            continue
        ids, mask = found
        if max_length is not None and not any(mask[:max_length]):
            losses.drop(f"prompt fills --max_length {max_length}", demo.place)
            continue
        if max_length is not None and len(ids) > max_length:
            losses.shorten(f"over --max_length {max_length}", demo.place)
            ids, mask = ids[:max_length], mask[:max_length]
        labels = [
            token_id if keep or not completion_only else IGNORED
            for token_id, keep in zip(ids, mask, strict=True)
        ]
        kept.append(demo)
        rows.append({"input_ids": ids, "labels": labels})
    return rows, kept


def refuse_no_rows(
    rows: Sequence[object], name: str, losses: DataLosses, advice: str = ROW_ADVICE
) -> None:
    """Raise DataError when tokenising left no row; `advice` is how a longer row gets its room."""
    if not rows:
        lacks_room = any("--max_length" in why or "no room" in why for why in losses.dropped)
        what = advice if lacks_room else "mend the data"
        raise DataError(f"{name}: no usable row: {losses.summary()}; {what}")


def pair_ids(pair: Pair, renderer: Renderer) -> tuple[list[int], list[int], list[int]]:
    """Prompt, chosen and rejected ids of a pair.

    Where the two prompts differ, the prompt is what the two transcripts share and each
    completion is the rest of its transcript, as TRL takes an implicit prompt.
    """
    if pair.rejected_prompt is None:
        return (
            renderer.prompt_ids(pair.prompt),
            renderer.completion_ids(pair.chosen, pair.chosen_ended),
            renderer.completion_ids(pair.rejected, pair.rejected_ended),
        )
    chosen, rejected = transcripts(pair, renderer)
    same = takewhile(lambda ids: ids[0] == ids[1], zip(chosen, rejected, strict=False))
    shared = sum(1 for _ in same)
    return chosen[:shared], chosen[shared:], rejected[shared:]


def transcripts(pair: Pair, renderer: Renderer) -> tuple[list[int], list[int]]:
    """The ids of the chosen and of the rejected transcript, each with its own prompt."""
    rejected_prompt = pair.prompt if pair.rejected_prompt is None else pair.rejected_prompt
    return (
        renderer.transcript_ids(pair.prompt, pair.chosen, pair.chosen_ended),
        renderer.transcript_ids(rejected_prompt, pair.rejected, pair.rejected_ended),
    )


def demo_ids(demo: Demo, renderer: Renderer) -> tuple[list[int], list[int]]:
    """Ids [T] and completion mask [T] of a demonstration."""
    if demo.messages is not None:
        return renderer.conversation_ids(demo.messages)
    prompt = renderer.prompt_ids(demo.prompt)
    completion = renderer.completion_ids(demo.completion, demo.ended)
    return prompt + completion, [0] * len(prompt) + [1] * len(completion)


def rendered(
    render: Callable[[_Row, Renderer], _Ids], row: _Row, renderer: Renderer, losses: DataLosses
) -> _Ids | None:
    """The ids of a row; None (dropped and counted) when its turns cannot be rendered."""
    try:
        return render(row, renderer)
    except DataError as error:
        losses.drop(str(error).removeprefix(f"{row.place}: ").partition("; ")[0], row.place)
    return None
