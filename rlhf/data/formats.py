"""Recognises the format of a data set and turns its rows into pairs, demonstrations or prompts.

Formats: TRL's preference (prompt explicit or implicit), unpaired preference, prompt-completion,
prompt-only and messages, each plain or conversational; and HH transcripts. Source: TRL's
"Dataset formats" guide; Bai et al., arXiv 2204.05862, for the transcripts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TypeVar

from rlhf.config import nearest_hint
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
from rlhf.data.losses import DataLosses
from rlhf.data.sources import LoadedDataset, Row
from rlhf.errors import DataError, printable
from rlhf.feedback.transcripts import is_transcript, parse_transcript
from rlhf.records import Message, PromptContent

_Read = TypeVar("_Read")

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
    `p_chosen` is how sure it is that chosen is the better one (0.5 is a tie; None: the row does
    not say), `weight` (0 or more) what the pair counts in a loss, `group` the prompt whose
    ranking it is of, `criteria` p_chosen by criterion, `votes` what each rater said of it, and
    `chosen_shown_first` the share of the votes at which chosen stood first on the screen.
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
    weight: float | None = None
    group: str | None = None
    criteria: dict[str, float] | None = None
    votes: tuple[Row, ...] = ()
    chosen_shown_first: float | None = None
    item: str | None = None
    simulated: bool = False


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
    if {"chosen", "rejected"} <= columns:
        first = _first_row(dataset, "chosen")
        explicit = "prompt" in columns
        if not explicit and is_transcript(first.get("chosen")):
            return Format(kind="HH transcripts", explicit_prompt=False, conversational=True)
        found = _format("preference", first, "chosen", explicit)
        return replace(found, summed_up=dataset.kind in ("judgements", "feedback"))
    first = _first_row(dataset, "completion" if "completion" in columns else "prompt")
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
    return printable(
        f"{dataset.name}{which}: {len(dataset.rows)} rows, {recognise(dataset, wanted)}{marked}; "
        f"{dataset.losses.summary()}"
    )


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
        label = "true" if labels.pop() else "false"
        raise DataError(
            f"{dataset.name}: all {len(dataset.rows)} rows are labelled {label}, so nothing says "
            "what is better than what; give pairs of chosen and rejected"
        )


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


def _first_row(dataset: LoadedDataset, column: str) -> Row:
    """The first row that has something in `column`: a broken row does not name the format."""
    filled = (row for row in dataset.rows if row.get(column) and _is_content(row[column]))
    return next(filled, dataset.rows[0])


def _is_content(value: object) -> bool:
    return isinstance(value, (str, list))


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
        margin=number_in(place, "margin", row, 0),
        judgement_ids=ids_in(place, "judgement_ids", row),
        weight=number_in(place, "weight", row, 0),
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
    ended = flag_in(place, "ended" if "ended" in row else "chosen_ended", row)
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
