"""The texts of a row as the checks read them."""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

from rlhf.data.doctor.findings import Tally
from rlhf.data.doctor.private import find_private
from rlhf.data.formats import Demo, Pair, Unpaired
from rlhf.records import Message, PromptContent

Row = Pair | Demo | Unpaired


def turns_of(row: Row) -> list[Message] | None:
    """The turns that come before the completion (all of them for a conversation to imitate)."""
    if isinstance(row, Demo) and row.messages is not None:
        return list(row.messages)
    return None if isinstance(row.prompt, str) else row.prompt


def prompt_text(prompt: PromptContent) -> str:
    """A prompt in one text, its turns one below the other."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(turn["content"] for turn in prompt)


def completions_of(row: Row) -> tuple[tuple[str, bool | None], ...]:
    """Each completion of a row with whether it ended by itself (None: unknown)."""
    if isinstance(row, Pair):
        return (row.chosen, row.chosen_ended), (row.rejected, row.rejected_ended)
    kept = row.completion or isinstance(row, Unpaired)  # an empty one is labelled like any other
    return ((row.completion, row.ended),) if kept else ()


def prompts_of_row(row: Row) -> list[str]:
    """The prompt's text; of a pair whose prompts differ both."""
    prompts = [prompt_text(row.prompt)]
    if isinstance(row, Pair) and row.rejected_prompt is not None:
        prompts.append(prompt_text(row.rejected_prompt))
    return prompts


def texts_of(row: Row) -> list[str]:
    """Every text of a row: prompts and completions."""
    return [*prompts_of_row(row), *(text for text, _ in completions_of(row))]


def normalised(text: str) -> str:
    """A text as duplicates are compared: NFKC, case folded, each run of blanks one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def key_of(*texts: str) -> bytes:
    """A short key that normalised texts share when they are the same."""
    digest = blake2b(digest_size=16)
    for text in texts:
        digest.update(normalised(text).encode(errors="replace") + b"\x00")
    return digest.digest()


def find_private_rows(rows: Sequence[Row], tally: Tally) -> None:
    """Count rows that hold private data, once for each kind of it."""
    for row in rows:
        found: dict[str, tuple[str, int]] = {}
        for text in texts_of(row):
            for one in find_private(text):
                found.setdefault(one.kind, (text, one.start))
        for kind, (text, start) in found.items():
            tally.add(f"private_{kind}", row.place, text, start)
