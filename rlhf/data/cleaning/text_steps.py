"""What may be wrong with the characters of a text, each mended by a step with a name.

All of them are conservative: what can carry meaning somewhere (joiners in Persian or an emoji,
marks of direction, a tab, the indentation of code) stays.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Literal

Kind = Literal["turn", "completion", "prompt"]
"""A turn of a conversation, a completion in plain text, or a prompt in plain text."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufff9-\ufffb\ufeff]")
_NONCHARACTER = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")
# Between Latin letters these are remains of copying; Thai and Khmer break their words by them.
_ZERO_WIDTH = re.compile(r"(?:(?<=[\x00-\x7f])|\A)[\u200b\u2060]+(?=[\x00-\x7f]|\Z)")
_BLANK_START = re.compile(r"\A(?:[^\S\n]*\n)+")


def line_ends(text: str, kind: Kind) -> str:
    r"""Every line ends in \n: \r\n, \r and U+0085 become it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n")


def control_characters(text: str, kind: Kind) -> str:
    """Control characters, byte order marks and noncharacters are removed; tabs stay."""
    return _NONCHARACTER.sub("", _CONTROL.sub("", text))


def zero_width(text: str, kind: Kind) -> str:
    """Zero-width spaces and word joiners between ASCII characters, or at an end, are removed."""
    return _ZERO_WIDTH.sub("", text)


def unicode_nfc(text: str, kind: Kind) -> str:
    """Composed characters, as the web writes them (Unicode's normal form C)."""
    return unicodedata.normalize("NFC", text)


def outer_blanks(text: str, kind: Kind) -> str:
    """No blanks after a turn or completion, no blank lines before a turn.

    What stands before a completion in plain text, and around a prompt in plain text, is part
    of how the two join; the indentation of a turn's first line of several is kept, too.
    """
    if kind == "prompt":
        return text
    text = text.rstrip()
    if kind == "completion":
        return text
    text = _BLANK_START.sub("", text)
    return text if "\n" in text else text.lstrip()


TEXT_STEPS: dict[str, Callable[[str, Kind], str]] = {
    step.__name__: step
    for step in (line_ends, control_characters, zero_width, unicode_nfc, outer_blanks)
}


def normalise_text(text: str, kind: Kind) -> Iterator[tuple[str, str, str]]:
    """(step, before, after) of each step that changes something, until none does.

    They are repeated since one step can make room for another: composing characters may make
    an ASCII one.
    """
    changed = True
    while changed:
        changed = False
        for name, step in TEXT_STEPS.items():
            after = step(text, kind)
            if after != text:
                yield name, text, after
                text, changed = after, True
