"""HH transcripts: "\\n\\nHuman: ...\\n\\nAssistant: ..." text, parsed into messages."""

import re
from collections.abc import Sequence

from rlhf.errors import DataError
from rlhf.records import Message

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}


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


def transcript_text(turns: Sequence[Message]) -> str:
    """The transcript of `turns`, which `parse_transcript` turns back into them.

    Back come stripped turns that alternate and do not themselves hold a speaker's mark.
    DataError for a role that transcripts have no speaker for.
    """
    return "".join(f"{_opening(turn['role'])}{turn['content']}" for turn in turns)


def assistant_opening() -> str:
    """What stands before an assistant's turn in a transcript."""
    return _opening("assistant")


def _opening(role: str) -> str:
    if role not in _SPEAKERS:
        raise DataError(
            f"a turn by {role!r}: transcripts know {' and '.join(_SPEAKERS)} only; render by the "
            "chat template (--rendering chat), or take such turns out"
        )
    return f"\n\n{_SPEAKERS[role]}: "
