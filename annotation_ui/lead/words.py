"""A judgement as a lead reads it: completions numbered in the store's order.

Raters see letters, dealt anew to each of them; numbers keep the two apart, so that "A is longer"
in a rater's reason is never read as our first completion.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from annotation_ui.words import describe
from rlhf.feedback.protocols import SEVEN_POINTS, Choice, Protocol
from rlhf.feedback.rules import is_taken_back
from rlhf.records import Judgement

NUMBERS = tuple(str(number) for number in range(1, 100))
_LETTERS = {"A": "1", "B": "2"}


def words_of(judgement: Judgement, protocol: Protocol) -> str:
    """What a judgement says in a line; a rewrite's text itself is left out."""
    if is_taken_back(judgement):
        return "Taken back"
    as_stored = replace(judgement, shown_order=tuple(range(len(judgement.shown_order))))
    return describe(as_stored, _numbered(protocol), names=NUMBERS)


def screen_words(shown_order: Sequence[int]) -> str:
    """Which completion stood where: "2 1", first shown (A, left or on top) first."""
    return " ".join(str(index + 1) for index in shown_order)


def values_of(judgement: Judgement) -> dict[str, Any]:
    """The values of a judgement, in the store's order of completions, as JSON."""
    names = "verdict both_bad ranking ratings rewrite rewrite_of skip flags rationale"
    return {name: getattr(judgement, name) for name in names.split()}


def _numbered(protocol: Protocol) -> Protocol:
    """The protocol with a scale of all seven points in which "A" and "B" read "1" and "2"."""
    own = {point.value: point for point in protocol.scale}
    points = (own.get(point.value, point) for point in SEVEN_POINTS)
    return replace(protocol, scale=tuple(_number(point) for point in points))


def _number(point: Choice) -> Choice:
    if point.value == 0:
        return point
    label = re.sub(r"\b[AB]\b", lambda match: _LETTERS[match[0]], point.label)
    if label == point.label:  # words of a campaign's own that name neither
        label = f"{label} ({1 if point.value < 0 else 2} ahead)"
    return replace(point, label=label)
