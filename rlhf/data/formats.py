"""Recognises the format of a data set and turns its rows into pairs, demonstrations or prompts.

Formats: TRL's preference (prompt explicit or implicit), unpaired preference, prompt-completion,
prompt-only and messages, each plain or conversational; and HH transcripts. Source: TRL's
"Dataset formats" guide; Bai et al., arXiv 2204.05862, for the transcripts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import inf, isfinite
from typing import Any

from rlhf.config import nearest_hint
from rlhf.data.losses import DataLosses
from rlhf.data.sources import LoadedDataset, Row
from rlhf.errors import DataError
from rlhf.feedback.transcripts import is_transcript, parse_transcript
from rlhf.records import Message, PromptContent

_WANTED: dict[str, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "demonstrations": ("prompt", "completion"),
    "prompts": ("prompt",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What rows look like: `kind`, whether the prompt has its own column, text or messages.

    `summed_up` when the rows are what judgements decided.
    """

    kind: str
    explicit_prompt: bool
    conversational: bool
    summed_up: bool = False

    def __str__(self) -> str:
        if self.kind == "HH transcripts":
            return self.kind
        details = ["conversational" if self.conversational else "plain text"]
        if self.kind == "preference":
            details.append("explicit prompt" if self.explicit_prompt else "implicit prompt")
        origin = "judgements summed up as " if self.summed_up else ""
        return f"{origin}{self.kind} ({', '.join(details)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A chosen and a rejected completion, and where the row stands.

    `rejected_prompt` is set only where the two transcripts part before their last turn.
    """

    prompt: PromptContent
    chosen: str
    rejected: str
    place: str
    chosen_ended: bool | None = None
    rejected_ended: bool | None = None
    rejected_prompt: PromptContent | None = None
    p_chosen: float | None = None
    margin: float | None = None
    judgement_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """A prompt and the completion to imitate; `messages` when every assistant turn counts."""

    prompt: PromptContent
    completion: str
    place: str
    ended: bool | None = None
    messages: tuple[Message, ...] | None = None


def recognise(dataset: LoadedDataset, wanted: str = "pairs") -> Format:
    """The format of `dataset`; DataError naming the missing column and the nearest there is.

    `wanted` ("pairs", "demonstrations" or "prompts") only shapes that message.
    """
    columns = set(dataset.columns)
    first = dataset.rows[0]
    if {"chosen", "rejected"} <= columns:
        explicit = "prompt" in columns
        if not explicit and is_transcript(first.get("chosen")):
            return Format(kind="HH transcripts", explicit_prompt=False, conversational=True)
        found = _format("preference", first, "chosen", explicit)
        return replace(found, summed_up=dataset.kind in ("judgements", "feedback"))
    if {"prompt", "completion", "label"} <= columns:
        return _format("unpaired preference", first, "completion", True)
    if {"prompt", "completion"} <= columns:
        return _format("prompt-completion", first, "completion", True)
    if "messages" in columns:
        return Format(kind="messages", explicit_prompt=False, conversational=True)
    if "prompt" in columns and wanted == "prompts":
        return _format("prompt-only", first, "prompt", True)
    raise _unrecognised(dataset, wanted)


def data_line(dataset: LoadedDataset, wanted: str) -> str:
    """One line for the log: rows, format, whether labels are simulated, and what was lost."""
    marked = ", SIMULATED labels" if dataset.simulated else ""
    files = dataset.provenance.get("files") or {}
    which = f" ({', '.join(files)})" if len(files) > 1 else ""
    return (
        f"{dataset.name}{which}: {len(dataset.rows)} rows, {recognise(dataset, wanted)}{marked}; "
        f"{dataset.losses.summary()}"
    )


def preference_pairs(dataset: LoadedDataset) -> list[Pair]:
    """The pairs of a preference data set or of HH transcripts.

    Drops (and counts) pairs of identical completions and pairs without a prompt; DataError for
    another format, a row that does not hold what its columns promise, or when no pair remains.
    """
    found = recognise(dataset, "pairs")
    if found.kind not in ("preference", "HH transcripts"):
        raise DataError(
            f"{dataset.name}: {found} rows, but pairs of chosen and rejected are needed; give "
            "preference data or feedback:STORE#CAMPAIGN"
        )
    read = _transcript_pair if found.kind == "HH transcripts" else _preference_pair
    pairs = [
        pair
        for place, row in _placed(dataset)
        if _is_usable_pair(pair := read(place, row, found), dataset.losses, found)
    ]
    _refuse_nothing(pairs, dataset)
    return pairs


def demonstrations(dataset: LoadedDataset) -> list[Demo]:
    """What to imitate: prompt-completion rows, conversations, the chosen side of pairs, or the
    completions of unpaired rows labelled true.

    Drops (and counts) rows without a prompt or with an empty completion; errors as
    `preference_pairs`.
    """
    found = recognise(dataset, "demonstrations")
    demos = [
        demo
        for place, row in _placed(dataset)
        if (demo := _demonstration(place, row, found, dataset.losses)) is not None
    ]
    _refuse_nothing(demos, dataset)
    return demos


def prompts_of(dataset: LoadedDataset) -> list[PromptContent]:
    """The prompt of each row, of any format; empty ones are dropped and counted."""
    found = recognise(dataset, "prompts")
    prompts: list[PromptContent] = []
    for place, row in _placed(dataset):
        prompt = _prompt_of(place, row, found)
        if is_empty(prompt):
            dataset.losses.drop("empty prompt", place)
        else:
            prompts.append(prompt)
    _refuse_nothing(prompts, dataset)
    return prompts


def is_empty(prompt: PromptContent) -> bool:
    """Whether a prompt asks nothing: blank text, no turns, or a blank last turn."""
    if isinstance(prompt, str):
        return not prompt.strip()
    return not prompt or not prompt[-1]["content"].strip()


def _format(kind: str, first: Row, column: str, explicit: bool) -> Format:
    values = [first.get("prompt"), first.get(column)]
    conversational = any(isinstance(value, list) for value in values)
    return Format(kind=kind, explicit_prompt=explicit, conversational=conversational)


def _unrecognised(dataset: LoadedDataset, wanted: str) -> DataError:
    columns = dataset.columns
    if {"completions", "annotator"} <= set(columns):
        return DataError(
            f"{dataset.name}: these are judgements, but not in the interchange format; give them "
            "as .jsonl, or rlhf feedback import them and give feedback:STORE#CAMPAIGN"
        )
    missing = next(column for column in _WANTED[wanted] if column not in columns)
    hint = nearest_hint(missing, columns)
    there = ", ".join(columns) or "none"
    return DataError(f"{dataset.name}: no column {missing!r}{hint or '; add it'} (it has: {there})")


def _placed(dataset: LoadedDataset) -> Iterator[tuple[str, Row]]:
    return zip(dataset.places, dataset.rows, strict=True)


def _refuse_nothing(rows: Sequence[object], dataset: LoadedDataset) -> None:
    if not rows:
        raise DataError(f"{dataset.name}: no usable row: {dataset.losses.summary()}; mend the data")


def _is_usable_pair(pair: Pair, losses: DataLosses, found: Format) -> bool:
    if pair.rejected_prompt is not None:
        losses.note("pairs whose prompts differ")
    elif pair.chosen == pair.rejected and pair.chosen_ended == pair.rejected_ended:
        losses.drop("identical chosen and rejected", pair.place)
        return False
    # Plain text with an implicit prompt may share nothing: two whole texts are a pair as well.
    if is_empty(pair.prompt) and (found.explicit_prompt or found.conversational):
        losses.drop("empty prompt", pair.place)
        return False
    return True


def _preference_pair(place: str, row: Row, found: Format) -> Pair:
    if found.explicit_prompt:
        prompt = prompt_content(place, "prompt", row)
        chosen_prompt, chosen = _split_completion(place, "chosen", row, prompt)
        rejected_prompt, rejected = _split_completion(place, "rejected", row, prompt)
    elif found.conversational:
        chosen_prompt, chosen = _split_last(place, "chosen", _messages(place, "chosen", row))
        rejected_prompt, rejected = _split_last(
            place, "rejected", _messages(place, "rejected", row)
        )
    else:
        texts = _text(place, "chosen", row), _text(place, "rejected", row)
        shared = _shared_text(*texts)
        chosen_prompt = rejected_prompt = shared
        chosen, rejected = (text[len(shared) :] for text in texts)
    return _pair(place, row, chosen_prompt, chosen, rejected_prompt, rejected)


def _transcript_pair(place: str, row: Row, found: Format) -> Pair:
    sides = []
    for column in ("chosen", "rejected"):
        turns = parse_transcript(place, column, _text(place, column, row))
        sides.append(_split_last(place, column, turns))
    (chosen_prompt, chosen), (rejected_prompt, rejected) = sides
    return _pair(place, row, chosen_prompt, chosen, rejected_prompt, rejected)


def _pair(
    place: str,
    row: Row,
    prompt: PromptContent,
    chosen: str,
    rejected_prompt: PromptContent,
    rejected: str,
) -> Pair:
    return Pair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        place=place,
        chosen_ended=_flag(place, "chosen_ended", row),
        rejected_ended=_flag(place, "rejected_ended", row),
        rejected_prompt=rejected_prompt if rejected_prompt != prompt else None,
        p_chosen=_number(place, "p_chosen", row, 0, 1),
        margin=_number(place, "margin", row),
        judgement_ids=tuple(row.get("judgement_ids") or ()),
    )


def _demonstration(place: str, row: Row, found: Format, losses: DataLosses) -> Demo | None:
    if found.kind == "unpaired preference" and not _label(place, row):
        losses.note("unpaired rows labelled false, not imitated")
        return None
    messages: tuple[Message, ...] | None = None
    if found.kind in ("prompt-completion", "unpaired preference"):
        prompt = prompt_content(place, "prompt", row)
        prompt, completion = _split_completion(place, "completion", row, prompt)
    elif found.kind == "messages":
        turns = _messages(place, "messages", row)
        prompt, completion = _split_last(place, "messages", turns)
        messages = tuple(turns)
    else:
        read = _transcript_pair if found.kind == "HH transcripts" else _preference_pair
        pair = read(place, row, found)
        prompt, completion = pair.prompt, pair.chosen
    ended = _flag(place, "ended" if "ended" in row else "chosen_ended", row)
    for reason, applies in (
        ("empty prompt", is_empty(prompt)),
        ("empty completion", not completion.strip()),
    ):
        if applies:
            losses.drop(reason, place)
            return None
    return Demo(prompt=prompt, completion=completion, place=place, ended=ended, messages=messages)


def _prompt_of(place: str, row: Row, found: Format) -> PromptContent:
    if found.kind == "messages":
        turns = _messages(place, "messages", row)
        return turns[:-1] if turns[-1]["role"] == "assistant" else turns
    if "prompt" in row:
        return prompt_content(place, "prompt", row)
    read = _transcript_pair if found.kind == "HH transcripts" else _preference_pair
    return read(place, row, found).prompt


def prompt_content(place: str, column: str, row: Row) -> PromptContent:
    """The prompt in `row[column]`, text or messages; DataError at `place` when it is neither."""
    value = row.get(column)
    return value if isinstance(value, str) else _messages(place, column, row)


def _split_completion(
    place: str, column: str, row: Row, prompt: PromptContent
) -> tuple[PromptContent, str]:
    """Prompt and completion text; a completion of several turns leaves all but its last behind."""
    if isinstance(row.get(column), str):
        return prompt, row[column]
    turns = _messages(place, column, row)
    if not turns or turns[-1]["role"] != "assistant":
        raise DataError(f"{place}: {column} must end with an assistant's turn; mend that row")
    if len(turns) == 1:
        return prompt, turns[-1]["content"]
    asked: list[Message] = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    )
    return asked + turns[:-1], turns[-1]["content"]


def _split_last(place: str, column: str, turns: list[Message]) -> tuple[list[Message], str]:
    if not turns or turns[-1]["role"] != "assistant":
        raise DataError(f"{place}: {column} must end with an assistant's turn; mend that row")
    return turns[:-1], turns[-1]["content"]


def _shared_text(chosen: str, rejected: str) -> str:
    """The common beginning of two texts, cut back to a word boundary as TRL cuts it."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared = chosen[: sum(1 for _ in pairs)]
    return shared[:-1] if shared.endswith(" ") else shared


def _messages(place: str, column: str, row: Row) -> list[Message]:
    value = row.get(column)
    if not isinstance(value, (list, tuple)) or not all(_is_message(turn) for turn in value):
        expected = "text or a list of {role, content} turns"
        raise DataError(f"{place}: {column} must be {expected}; mend or remove that row")
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]


def _is_message(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
    )


def _text(place: str, column: str, row: Row) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{place}: {column} must be text; mend or remove that row")
    return value


def _flag(place: str, column: str, row: Row) -> bool | None:
    value = row.get(column)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{place}: {column} must be true or false; mend or remove that row")
    return value


def _number(
    place: str, column: str, row: Row, low: float = -inf, high: float = inf
) -> float | None:
    """The finite number in a column, between `low` and `high`; None when there is none."""
    value = row.get(column)
    if value is None:
        return None
    within = f" from {low} to {high}" if high < inf else ""
    problem = f"{place}: {column} must be a finite number{within}; mend or remove that row"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(problem)
    try:
        number = float(value)
    except OverflowError:  # JSON knows whole numbers of any length
        raise DataError(problem) from None
    if not isfinite(number) or not low <= number <= high:
        raise DataError(problem)
    return number


def _label(place: str, row: Row) -> bool:
    if not isinstance(row.get("label"), (bool, int)):
        raise DataError(f"{place}: label must be true or false; mend or remove that row")
    return bool(row["label"])
