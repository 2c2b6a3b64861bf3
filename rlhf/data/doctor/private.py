"""Private data in texts: e-mail addresses, phone numbers, payment card and account numbers.

Found by their form alone, and only where a check confirms it: cards by Luhn's checksum
(ISO/IEC 7812-1), accounts (IBAN) by the remainder modulo 97 (ISO 7064). Names and addresses of
people have no form, and are not found.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Private:
    """A piece of private data: its kind, and where it stands in the text."""

    kind: str
    start: int
    end: int


PLACEHOLDERS = {"email": "[EMAIL]", "card": "[CARD]", "iban": "[IBAN]", "phone": "[PHONE]"}
"""What `rlhf clean --mask_private` puts in their stead; the kinds in the order they are found."""

# Each begins where a word does, so that a long run of letters or digits is read once.
_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9_.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,6}"
    r"\.[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_CARD = re.compile(r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){8,14}\d(?![\w-]|\.\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_PHONE = re.compile(
    r"(?<![\w.,+/-])(?:"
    r"\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,6}"  # +44 20 7946 0958
    r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"  # (212) 555-0147
    r"|(?:1[ .-])?\d{3}([ .-])\d{3}\1\d{4}"  # 212-555-0147
    r"|0\d{2,4}[ /-]\d{3,4}(?:[ -]?\d{2,4}){1,2}"  # 0301 234 5678
    r")(?![\w/-]|[.,]\d)"
)


def find_private(text: str) -> list[Private]:
    """The private data in a text, in the order of the text; none overlaps another."""
    found: list[Private] = []  # in the order of the text, so that neighbours are found at once
    for kind, spans in _FINDERS.items():
        for start, end in spans(text):
            at = bisect_left(found, start, key=lambda one: one.start)
            follows = at == 0 or found[at - 1].end <= start
            if follows and (at == len(found) or end <= found[at].start):
                found.insert(at, Private(kind, start, end))
    return found


def masked(text: str) -> str:
    """The text for showing: of each piece of private data only a trace stays."""
    return _replaced(text, lambda one: _trace(one.kind, text[one.start : one.end]))


def without_private(text: str) -> str:
    """The text with a placeholder such as `[EMAIL]` for each piece of private data."""
    return _replaced(text, lambda one: PLACEHOLDERS[one.kind])


def _replaced(text: str, replacement: Callable[[Private], str]) -> str:
    parts, end = [], 0
    for one in find_private(text):
        parts += [text[end : one.start], replacement(one)]
        end = one.end
    return "".join([*parts, text[end:]])


def _trace(kind: str, text: str) -> str:
    """`a***@***.org`, or stars and the last two characters."""
    if kind == "email":
        return f"{text[0]}***@***.{text.rpartition('.')[2]}"
    return "***" + text[-2:]


def _emails(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _cards(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _CARD.finditer(text) if _passes_luhn(match.group()))


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _IBAN.finditer(text) if _passes_mod_97(match.group()))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        if 8 <= sum(map(str.isdigit, match.group())) <= 15:  # E.164: 15 at most
            yield match.span()


_FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "email": _emails,
    "card": _cards,
    "iban": _ibans,
    "phone": _phones,
}


def _passes_luhn(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _passes_mod_97(text: str) -> bool:
    compact = text.replace(" ", "")
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1
