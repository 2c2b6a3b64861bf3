"""How a person's name is written."""

import unicodedata

MAX_NAME_CHARS = 64


def as_name(name: str) -> str:
    """A name as it is kept: spaces around it gone, letters composed alike."""
    return unicodedata.normalize("NFC", name).strip()


def problem_with_name(name: str) -> str | None:
    """Why a new account cannot have this name, as a sentence for a person; None when it can."""
    if not name:
        return "A name is needed."
    if len(name) > MAX_NAME_CHARS:
        return f"The name may have at most {MAX_NAME_CHARS} characters."
    if not name.isprintable():
        return "The name holds a character that cannot be read."
    return None
