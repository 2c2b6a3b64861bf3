"""HH transcripts: "\\n\\nHuman: ...\\n\\nAssistant: ..." text, parsed into messages."""

import re

from rlhf.errors import DataError
from rlhf.records import Message

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: object) -> bool:
    """Whether a text is a transcript: it opens with one speaker and names the assistant."""
    return isinstance(value, str) and bool(_SPEAKER.match(value)) and "\n\nAssistant:" in value


def parse_transcript(place: str, column: str, text: str) -> list[Message]:
    """The turns of a transcript, stripped of surrounding blanks; a speaker's twice is one turn.

    DataError at `place` when the text does not open with a speaker.
    """
    before, *rest = _SPEAKER.split(text)
    if before.strip() or not rest:
        raise DataError(
            f"{place}: {column} does not open with a Human or Assistant turn as the first row "
            "does; mend or remove that row"
        )
    turns: list[Message] = []
    for speaker, content in zip(rest[::2], rest[1::2], strict=True):
        role = _ROLES[speaker]
        if turns and turns[-1]["role"] == role:  # templates want turns that alternate
            turns[-1]["content"] += "\n\n" + content.strip()
        else:
            turns.append({"role": role, "content": content.strip()})
    return turns
