"""Turns the rows of a data set into pairs, demonstrations, labelled completions or prompts.

Which format they are in is told by `rlhf.data.recognition`, what they become is declared in
`rlhf.data.examples`; both are to be had from here as well.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TypeVar

from rlhf.data.cells import (
    criteria_in,
    flag_in,
    ids_in,
    label_in,
    messages_in,
    name_in,
    number_in,
    probability_in,
    text_in,
    votes_in,
)
from rlhf.data.examples import Demo, Pair, Unpaired
from rlhf.data.losses import DataLosses
from rlhf.data.recognition import Format, data_line, recognise
from rlhf.data.sources import LoadedDataset, Row
from rlhf.data.unpairing import taken_apart
from rlhf.errors import DataError
from rlhf.feedback.transcripts import parse_transcript
from rlhf.records import Message, PromptContent

__all__ = [
    "Demo",
    "Format",
    "Pair",
    "Unpaired",
    "data_line",
    "demonstrations",
    "is_empty",
    "pairs_with_rows",
    "placed_prompts",
    "preference_pairs",
    "prompt_content",
    "recognise",
    "refuse_one_label",
    "unpaired_completions",
]

MOST = 10**6
"""Of a row's weight and margin: beside a larger one fp32 would lose every other row."""

_Read = TypeVar("_Read")


def preference_pairs(dataset: LoadedDataset) -> list[Pair]:
    """The pairs of a preference data set or of HH transcripts; drops and errors as below."""
    return [pair for pair, _ in pairs_with_rows(dataset)]


def pairs_with_rows(dataset: LoadedDataset) -> list[tuple[Pair, Row]]:
    """The pairs of a preference data set or of HH transcripts, each with the row it is of.

    Drops (and counts) pairs of identical completions, pairs without a prompt and rows that do
    not hold what their columns promise; DataError for another format or when no pair remains.
    """
    found = recognise(dataset, "pairs")
    if found.kind == "unpaired preference":
        refuse_one_label(dataset)
    if found.kind not in ("preference", "HH transcripts"):
        raise DataError(
            f"{dataset.name}: {found} rows, but pairs of chosen and rejected are needed; give "
            "preference data or feedback:STORE#CAMPAIGN"
            f"{', or train on these with rlhf kto' * (found.kind == 'unpaired preference')}"
        )
    read = _transcript_pair if found.kind == "HH transcripts" else _preference_pair
    pairs = [
        (pair, row)
        for pair, row in _read(dataset, lambda place, row: (read(place, row, found), row))
        if _is_usable_pair(pair, row, dataset.losses, found)
    ]
    _refuse_nothing(pairs, dataset)
    return pairs


def refuse_one_label(dataset: LoadedDataset) -> None:
    """DataError when unpaired rows are all of one label: nothing tells better from worse."""
    labels = {label_in(place, row) for place, row in _placed(dataset)}
    if len(labels) == 1:
        advice = "give pairs of chosen and rejected"
        raise _one_label(dataset.name, len(dataset.rows), labels.pop(), advice)


def _one_label(name: str, num_rows: int, label: bool, advice: str) -> DataError:
    word = "true" if label else "false"
    return DataError(
        f"{name}: all {num_rows} rows are labelled {word}, so nothing says what is better than "
        f"what; {advice}"
    )


def unpaired_completions(dataset: LoadedDataset) -> list[Unpaired]:
    """Completions with a label each: unpaired rows as they are, pairs taken apart.

    Drops (and counts) rows without a prompt and rows that do not hold what their columns
    promise; DataError for another format, when no row remains, and when all have one label.
    """
    found = recognise(dataset, "unpaired")
    if found.kind in ("preference", "HH transcripts"):
        rows = taken_apart(preference_pairs(dataset), dataset.losses)
    elif found.kind == "unpaired preference":
        read = _read(dataset, lambda place, row: _unpaired(place, row, dataset.losses))
        rows = [row for row in read if row is not None]
    else:
        raise DataError(
            f"{dataset.name}: {found} rows, but completions with a label are needed (prompt, "
            "completion, label), or pairs of chosen and rejected; give such data or "
            "feedback:STORE#CAMPAIGN"
        )
    _refuse_nothing(rows, dataset)
    labels = {row.label for row in rows}
    if len(labels) == 1:
        raise _one_label(dataset.name, len(rows), labels.pop(), "give completions of both labels")
    return rows


def demonstrations(dataset: LoadedDataset) -> list[Demo]:
    """What to imitate: prompt-completion rows, conversations, the chosen side of pairs, or the
    completions of unpaired rows labelled true.

    Drops (and counts) rows without a prompt, with an empty completion, or that do not hold
    what their columns promise; errors as `preference_pairs`.
    """
    found, losses = recognise(dataset, "demonstrations"), dataset.losses
    read = _read(dataset, lambda place, row: _demonstration(place, row, found, losses))
    demos = [demo for demo in read if demo is not None]
    _refuse_nothing(demos, dataset)
    return demos


def placed_prompts(dataset: LoadedDataset) -> list[tuple[str, PromptContent]]:
    """The same prompts, each with the place of its row."""
    found = recognise(dataset, "prompts")
    prompts: list[tuple[str, PromptContent]] = []
    for place, prompt in _read(dataset, lambda place, row: (place, _prompt_of(place, row, found))):
        if is_empty(prompt):
            dataset.losses.drop("empty prompt", place)
        else:
            prompts.append((place, prompt))
    _refuse_nothing(prompts, dataset)
    return prompts


def is_empty(prompt: PromptContent) -> bool:
    """Whether a prompt asks nothing: blank text, no turns, or a blank last turn."""
    if isinstance(prompt, str):
        return not prompt.strip()
    return not prompt or not prompt[-1]["content"].strip()


def _placed(dataset: LoadedDataset) -> Iterator[tuple[str, Row]]:
    return zip(dataset.places, dataset.rows, strict=True)


def _read(dataset: LoadedDataset, read: Callable[[str, Row], _Read]) -> Iterator[_Read]:
    """What `read(place, row)` makes of each row; a row that it refuses is dropped and counted."""
    for place, row in _placed(dataset):
        try:
            yield read(place, row)
        except DataError as error:
            reason = str(error).removeprefix(f"{place}: ").partition("; ")[0]
            dataset.losses.drop(reason, place)


def _refuse_nothing(rows: Sequence[object], dataset: LoadedDataset) -> None:
    if not rows:
        losses = dataset.losses
        first = f"; first: {losses.first_places()}" if losses.num_lost else ""
        raise DataError(f"{dataset.name}: no usable row: {losses.summary()}{first}; mend the data")


def _is_usable_pair(pair: Pair, row: Row, losses: DataLosses, found: Format) -> bool:
    if pair.rejected_prompt is not None or _parts_early(row, found):
        losses.note("pairs whose prompts differ", place=pair.place)
    elif pair.chosen == pair.rejected and pair.chosen_ended == pair.rejected_ended:
        losses.drop("identical chosen and rejected", pair.place)
        return False
    # Plain text with an implicit prompt may share nothing: two whole texts are a pair as well.
    if is_empty(pair.prompt) and (found.explicit_prompt or found.conversational):
        losses.drop("empty prompt", pair.place)
        return False
    return True


def _parts_early(row: Row, found: Format) -> bool:
    """Whether two transcripts differ before their last turn as they are written: where a speaker
    has two turns running, these are joined, and the difference ends up in the completion.
    """
    if found.kind != "HH transcripts":
        return False
    before = [row[side].rpartition("\n\nAssistant:")[0] for side in ("chosen", "rejected")]
    return bool(before[0] != before[1])


def _preference_pair(place: str, row: Row, found: Format) -> Pair:
    if found.explicit_prompt:
        prompt = prompt_content(place, "prompt", row)
        chosen_prompt, chosen = _split_completion(place, "chosen", row, prompt)
        rejected_prompt, rejected = _split_completion(place, "rejected", row, prompt)
    elif found.conversational:
        chosen_prompt, chosen = _split_last(place, "chosen", messages_in(place, "chosen", row))
        rejected_prompt, rejected = _split_last(
            place, "rejected", messages_in(place, "rejected", row)
        )
    else:
        texts = text_in(place, "chosen", row), text_in(place, "rejected", row)
        shared = _shared_text(*texts)
        chosen_prompt = rejected_prompt = shared
        chosen, rejected = (text[len(shared) :] for text in texts)
    return _pair(place, row, chosen_prompt, chosen, rejected_prompt, rejected)


def _transcript_pair(place: str, row: Row, found: Format) -> Pair:
    sides = []
    for column in ("chosen", "rejected"):
        turns = parse_transcript(place, column, text_in(place, column, row))
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
        chosen_ended=flag_in(place, "chosen_ended", row),
        rejected_ended=flag_in(place, "rejected_ended", row),
        rejected_prompt=rejected_prompt if rejected_prompt != prompt else None,
        p_chosen=probability_in(place, "p_chosen", row),
        margin=number_in(place, "margin", row, 0, MOST),
        judgement_ids=ids_in(place, "judgement_ids", row),
        weight=number_in(place, "weight", row, 0, MOST),
        group=name_in(place, "group", row),
        criteria=criteria_in(place, row),
        votes=votes_in(place, row),
        chosen_shown_first=number_in(place, "chosen_shown_first", row, 0, 1),
        item=name_in(place, "item", row),
        simulated=row.get("simulated") is True,
    )


def _demonstration(place: str, row: Row, found: Format, losses: DataLosses) -> Demo | None:
    if found.kind == "unpaired preference" and not label_in(place, row):
        losses.note("unpaired rows labelled false, not imitated")
        return None
    messages: tuple[Message, ...] | None = None
    if found.kind in ("prompt-completion", "unpaired preference"):
        prompt = prompt_content(place, "prompt", row)
        prompt, completion = _split_completion(place, "completion", row, prompt)
    elif found.kind == "messages":
        turns = messages_in(place, "messages", row)
        prompt, completion = _split_last(place, "messages", turns)
        messages = tuple(turns)
    else:
        read = _transcript_pair if found.kind == "HH transcripts" else _preference_pair
        pair = read(place, row, found)
        prompt, completion = pair.prompt, pair.chosen
        if pair.rejected_prompt is not None:
            losses.note("pairs whose prompts differ: the chosen one's is taken", place=place)
        elif pair.chosen == pair.rejected:
            losses.note("pairs of identical completions, imitated all the same", place=place)
    ended = flag_in(place, "ended" if "ended" in row else "chosen_ended", row)
    for reason, applies in (
        ("empty prompt", is_empty(prompt)),
        ("empty completion", not completion.strip()),
    ):
        if applies:
            losses.drop(reason, place)
            return None
    return Demo(prompt=prompt, completion=completion, place=place, ended=ended, messages=messages)


def _unpaired(place: str, row: Row, losses: DataLosses) -> Unpaired | None:
    prompt, completion = _split_completion(
        place, "completion", row, prompt_content(place, "prompt", row)
    )
    if is_empty(prompt):
        losses.drop("empty prompt", place)
        return None
    return Unpaired(
        prompt=prompt,
        completion=completion,
        label=label_in(place, row),
        place=place,
        ended=flag_in(place, "ended", row),
        weight=number_in(place, "weight", row, 0, MOST),
        judgement_ids=ids_in(place, "judgement_ids", row),
        item=name_in(place, "item", row),
        simulated=row.get("simulated") is True,
    )


def _prompt_of(place: str, row: Row, found: Format) -> PromptContent:
    if found.kind == "messages":
        turns = messages_in(place, "messages", row)
        return turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    if "prompt" in row:
        return prompt_content(place, "prompt", row)
    read = _transcript_pair if found.kind == "HH transcripts" else _preference_pair
    return read(place, row, found).prompt


def prompt_content(place: str, column: str, row: Row) -> PromptContent:
    """The prompt in `row[column]`, text or messages; DataError at `place` when it is neither."""
    value = row.get(column)
    return (
        text_in(place, column, row) if isinstance(value, str) else messages_in(place, column, row)
    )


def _split_completion(
    place: str, column: str, row: Row, prompt: PromptContent
) -> tuple[PromptContent, str]:
    """Prompt and completion text; a completion of several turns leaves all but its last behind."""
    if isinstance(row.get(column), str):
        return prompt, text_in(place, column, row)
    turns = messages_in(place, column, row)
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
