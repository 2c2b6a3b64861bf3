"""What the tokenised rows say: BOS twice, no end token, tokens of a template in the text."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from rlhf.data.columns import Columns
from rlhf.data.doctor.findings import Tally
from rlhf.data.doctor.texts import Row, completions_of, texts_of
from rlhf.data.formats import Demo, Pair
from rlhf.data.tokenization import Renderer

# Marks of well-known templates: one of them in a text means that some template was applied.
_FOREIGN_MARKS = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>", "<|endoftext|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>"),
)
_ASKED = re.compile(r"(?:\A|\n\n)Human:")
_SPEAKER = re.compile(r"(?:^|\s)(?:Human|Assistant)s?:\s")
_MIN_MARK = 4  # `<s>` is a strike-through as well


def find_in_tokens(
    rows: Sequence[Row],
    columns: Columns,
    renderer: Renderer,
    cut: Collection[str],
    context: int | None,
    tally: Tally,
) -> None:
    """Count rows by what is odd about the ids that a trainer gets.

    `cut` are the places of rows that were cut, which have rightly lost their end; `context`
    is how many tokens the model can read, None when unknown.
    """
    bos, end = renderer.tokenizer.bos_token_id, renderer.turn_end_id
    for row, ids in zip(rows, columns, strict=True):
        whole = list(_transcripts(ids))
        if bos is not None and any(one[:2] == [bos, bos] for one in whole):
            tally.add("double_bos", row.place, texts_of(row)[0])
        if row.place not in cut and _lacks_end(row, ids, end):
            tally.add("missing_end", row.place, *_end_of(completions_of(row)[-1][0]))
        if context is not None and any(len(one) > context for one in whole):
            longest = max(len(one) for one in whole)
            tally.add("past_context", row.place, f"{longest} tokens; the context is {context}")


def find_in_texts(rows: Sequence[Row], tokenizer: Any, tally: Tally) -> None:
    """Count rows by what their texts say of templates and ends."""
    marks = _marks(tokenizer)
    for row in rows:
        texts, completions = texts_of(row), completions_of(row)
        found = next((m for text in texts if (m := marks.search(text))), None)
        if found is not None:
            tally.add("template_tokens", row.place, found.string, found.start())
        transcript = next((text for text in texts if _holds_transcript(text)), None)
        if transcript is not None:
            tally.add("unparsed_transcript", row.place, transcript)
        elif (
            stray := next((m for text in texts if (m := _SPEAKER.search(text))), None)
        ) is not None:
            tally.add("stray_speakers", row.place, stray.string, stray.start())
        ends = [ended for _, ended in completions]
        if None in ends and not (isinstance(row, Demo) and row.messages is not None):
            tally.add("unknown_end", row.place, *_end_of(completions[-1][0]))
        if False in ends:
            tally.add("cut_completions", row.place, *_end_of(completions[ends.index(False)][0]))
        if isinstance(row, Pair) and not all(text.strip() for text, _ in completions):
            side = "chosen" if not row.chosen.strip() else "rejected"
            tally.add("empty_answers", row.place, f"{side} is empty; prompt: {texts[0]}")


def _holds_transcript(text: str) -> bool:
    asked = _ASKED.search(text)
    return asked is not None and text.find("\n\nAssistant:", asked.end()) >= 0


def _end_of(text: str) -> tuple[str, int]:
    """The text, and its end as the place to show."""
    return text, len(text)


def _transcripts(ids: dict[str, Any]) -> Iterator[list[int]]:
    """The whole rows of ids that a model reads, from the columns of any trainer."""
    if "input_ids" in ids:
        yield ids["input_ids"]
    elif "completion_ids" in ids:
        yield ids["prompt_ids"] + ids["completion_ids"]
    elif "chosen_ids" in ids:
        prompt = ids.get("prompt_ids", [])
        yield prompt + ids["chosen_ids"]
        yield prompt + ids["rejected_ids"]


def _lacks_end(row: Row, ids: dict[str, Any], end: int) -> bool:
    ends = [ended for _, ended in completions_of(row)]
    return any(
        ended is not False and (not one or one[-1] != end)
        for ended, one in zip(ends, _transcripts(ids), strict=True)
    )


def _marks(tokenizer: Any) -> re.Pattern[str]:
    special = [
        str(token) for token in tokenizer.added_tokens_decoder.values() if token.special
    ] + list(tokenizer.all_special_tokens)
    marks = {mark for mark in special if len(mark) >= _MIN_MARK} | set(_FOREIGN_MARKS)
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))
