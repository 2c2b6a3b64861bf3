"""Transcripts taken apart into messages, in TRL's conversational formats."""

from typing import Any

from rlhf.data.sources import Row
from rlhf.errors import DataError
from rlhf.feedback.transcripts import is_transcript, parse_transcript
from rlhf.records import Message

_COMPLETIONS = ("chosen", "rejected", "completion")


def extracted(place: str, row: Row) -> Row:
    """The row with its transcript as messages; the same row when it holds none that can be read.

    Two whole transcripts become the turns that they share (`prompt`) and those after them; a
    prompt that is a transcript becomes messages, and what answers it an assistant's turn.
    """
    try:
        if "prompt" in row:
            return _with_prompt(place, row)
        if is_transcript(row.get("chosen")) and is_transcript(row.get("rejected")):
            return _from_pair(place, row)
    except DataError:
        pass  # the reader says what is wrong with it, and drops it
    return row


def _from_pair(place: str, row: Row) -> Row:
    chosen, rejected = (parse_transcript(place, side, row[side]) for side in ("chosen", "rejected"))
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        return row
    num_shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if one != other:
            break
        num_shared += 1
    return {
        "prompt": chosen[:num_shared],
        **row,
        "chosen": chosen[num_shared:],
        "rejected": rejected[num_shared:],
    }


def _with_prompt(place: str, row: Row) -> Row:
    if not is_transcript(row["prompt"]):
        return row
    turns = parse_transcript(place, "prompt", row["prompt"])
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns = turns[:-1]  # the opening of the completion
    answers: dict[str, Any] = {
        column: [_said(row[column])] for column in _COMPLETIONS if isinstance(row.get(column), str)
    }
    return {**row, "prompt": turns, **answers}


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text.strip()}
