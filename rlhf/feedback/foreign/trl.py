"""TRL's data formats and HH transcripts, as judgements by one rater or as unrated comparisons.

Source: TRL's "Dataset formats" guide; Bai et al. 2022 (arXiv:2204.05862) for the transcripts.
"""

from collections.abc import Sequence
from typing import Any

from rlhf.errors import DataError
from rlhf.feedback.foreign.reading import ForeignOptions, Row, Rows
from rlhf.feedback.transcripts import is_transcript, parse_transcript
from rlhf.records import PromptContent, content_hash

Messages = list[dict[str, str]]


def preference(where: str, row: Row, options: ForeignOptions) -> Rows:
    """A pair of which one was chosen, its prompt in a column or the beginning of both."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise DataError(f"{where}: chosen and rejected are text and messages; make them one kind")
    prompt = row.get("prompt")
    if isinstance(chosen, str):
        prompt, texts = _texts(prompt, chosen, rejected)
    else:
        prompt, texts = _turns(prompt, _messages(chosen), _messages(rejected), where)
    return Rows(rows=[_pair(where, row, prompt, texts, options)])


def are_transcripts(row: Row) -> bool:
    """Whether a row is a pair of HH transcripts."""
    return is_transcript(row.get("chosen")) and is_transcript(row.get("rejected"))


def transcripts(where: str, row: Row, options: ForeignOptions) -> Rows:
    """A pair of HH transcripts: the turns that they share are the prompt."""
    chosen = _messages(parse_transcript(where, "chosen", row["chosen"]))
    rejected = _messages(parse_transcript(where, "rejected", row["rejected"]))
    prompt, texts = _turns(None, chosen, rejected, where)
    return Rows(rows=[_pair(where, row, prompt, texts, options)])


def unpaired(where: str, row: Row, options: ForeignOptions) -> Rows:
    """A completion with a label, true for a good one: a rating of 1 or 0 of `good`."""
    if not isinstance(row["label"], bool):
        raise DataError(f"{where}: label {row['label']!a} is neither true nor false")
    prompt = row["prompt"]
    made: Row = {"prompt": prompt, "completions": [_text(row["completion"])]}
    made |= _column(row, "ended") | _column(row, "source", "sources")
    said = {"ratings": {"good": [int(row["label"])]}}
    return Rows(rows=[_judged(where, made, said, options)])


def ranking(where: str, row: Row, options: ForeignOptions) -> Rows:
    """A prompt with its completions, and their ranks (1 best) or scores (the highest best)."""
    texts = [_text(one.get("text") if "role" not in one else [one]) if isinstance(one, dict)
             else _text(one) for one in row["completions"]]  # fmt: skip
    made: Row = {"prompt": row["prompt"], "completions": texts}
    for key, name in (("source", "sources"), ("ended", "ended"), ("seed", "seeds")):
        if isinstance(row.get(key), list):
            made[name] = row[key]
    if isinstance(row.get("item"), str):
        made["item"] = row["item"]
    if options.unrated:
        return Rows(rows=[made])
    return Rows(rows=[_judged(where, made, {"ranking": _ranks(row, where)}, options)])


def _ranks(row: Row, where: str) -> list[int]:
    for key in ("ranking", "ranks"):
        if row.get(key) is not None:
            return list(row[key])
    scores = row.get("scores")
    if scores is None:
        raise DataError(
            f"{where}: no ranking (or ranks, or scores); give --unrated for the comparisons alone"
        )
    return [1 + sum(other > score for other in scores) for score in scores]


def _pair(
    where: str, row: Row, prompt: PromptContent, texts: tuple[str, str], options: ForeignOptions
) -> Row:
    """A row of ours; which of the two comes first is drawn by their texts.

    The file does not say how they were shown, and the chosen one must not be known by its place.
    """
    first = int(content_hash([prompt, sorted(texts)])[:8], 16) % 2
    order = (first, 1 - first)
    made: Row = {"prompt": prompt, "completions": [texts[index] for index in order]}
    for key, name in (("ended", "ended"), ("source", "sources"), ("model", "sources")):
        pair = [row.get(f"chosen_{key}"), row.get(f"rejected_{key}")]
        if any(value is not None for value in pair):
            made[name] = [pair[index] for index in order]
    strength = _strength(row.get("margin"))
    return _judged(where, made, {"verdict": -strength if order[0] == 0 else strength}, options)


def _judged(where: str, made: Row, said: Row, options: ForeignOptions) -> Row:
    if options.unrated:
        return made
    rater = {"annotator": options.named(None, where), "simulated": options.simulated}
    return made | rater | said


def _strength(margin: Any) -> int:
    """How strong a preference is, 1 to 3: its margin where that can be one of ours, else 1."""
    if isinstance(margin, int | float) and not isinstance(margin, bool) and 0 < margin <= 3:
        return max(1, round(margin))
    return 1


def _texts(
    prompt: PromptContent | None, chosen: str, rejected: str
) -> tuple[PromptContent, tuple[str, str]]:
    """Prompt and completions of texts; without a prompt it is the words that both begin with."""
    if prompt is None:
        pairs = zip(chosen, rejected, strict=False)
        length = next(
            (place for place, (one, other) in enumerate(pairs) if one != other),
            min(len(chosen), len(rejected)),
        )
        # back to the end of a word: the blank before a completion is the completion's
        shared = chosen[: chosen.rfind(" ", 0, length) + 1].rstrip(" ")
    else:
        stands = isinstance(prompt, str) and all(t.startswith(prompt) for t in (chosen, rejected))
        shared = prompt if isinstance(prompt, str) and stands else ""
    texts = chosen[len(shared) :], rejected[len(shared) :]
    return shared if prompt is None else prompt, texts


def _turns(
    prompt: PromptContent | None, chosen: Messages, rejected: Messages, where: str
) -> tuple[PromptContent, tuple[str, str]]:
    """Prompt and completions of messages; a prompt that stands in them as well is not repeated."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    # a completion is at least the last turn, though both say the same
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    if shared == 0 and prompt is None:
        raise DataError(f"{where}: chosen and rejected share no turn that could be the prompt")
    given = chosen[:shared] if prompt is None or shared else prompt
    if isinstance(prompt, list) and shared and not _holds(chosen[:shared], prompt):
        given = [*_messages(prompt), *chosen[:shared]]
    return given, (_after(chosen[shared:]), _after(rejected[shared:]))  # type: ignore[return-value]


def _holds(turns: Messages, prompt: Sequence[Any]) -> bool:
    return _messages(prompt) == turns[: len(prompt)]


def _after(turns: Messages) -> str:
    """The completion in the turns after the prompt: several are kept as a transcript."""
    if len(turns) == 1 and turns[0]["role"] == "assistant":
        return turns[0]["content"]
    speakers = {"assistant": "Assistant", "user": "Human"}
    parts = [f"{speakers.get(one['role'], one['role'])}: {one['content']}" for one in turns]
    return "\n\n".join(parts)


def _messages(turns: Sequence[Any]) -> Messages:
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return _after(_messages(completion))


def _column(row: Row, key: str, name: str | None = None) -> Row:
    return {} if row.get(key) is None else {name or key: [row[key]]}
