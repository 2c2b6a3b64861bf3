"""A judgement in the words of the page, with the completions named as they were on screen."""

from collections.abc import Sequence
from string import ascii_uppercase

from annotation_ui.answers import Answer, answer_of
from rlhf.feedback.protocols import SEVEN_POINTS, Protocol
from rlhf.records import Judgement

LETTERS = (*ascii_uppercase, *(a + b for a in "AB" for b in ascii_uppercase))
"""The names of completions on screen, the same as the page's (see static/rate/parts.js)."""


def describe(
    judgement: Judgement, protocol: Protocol | None = None, *, names: Sequence[str] = LETTERS
) -> str:
    """What a judgement says in one line; the words of the campaign's scale where it has its own.

    `names` are those of the completions, in the order on screen.
    """
    if judgement.skip is not None:
        return f"Skipped: {judgement.skip}"
    answer = answer_of(judgement)
    parts = [_choice(answer, protocol), _ranks(answer, names), _ratings(answer, protocol)]
    parts += [_rewrite(answer, names), _flags(answer, protocol, names)]
    return "; ".join(part for part in parts if part) or "Nothing marked"


def _choice(answer: Answer, protocol: Protocol | None) -> str:
    choice = answer.get("choice")
    if choice is None:
        return ""
    own = {one.value: one.label for one in protocol.scale} if protocol else {}
    words = own.get(choice) or {one.value: one.label for one in SEVEN_POINTS}[choice]
    return f"{words}, both bad" if answer.get("both_bad") else words


def _ranks(answer: Answer, letters: Sequence[str]) -> str:
    """The order from best to worst, for example "B > A = C"."""
    ranks = answer.get("ranks")
    if ranks is None:
        return ""
    tiers: dict[int, list[str]] = {}
    for letter, rank in zip(letters, ranks, strict=False):
        tiers.setdefault(rank, []).append(letter)
    return " > ".join(" = ".join(tiers[rank]) for rank in sorted(tiers))


def _ratings(answer: Answer, protocol: Protocol | None) -> str:
    titles = {one.name: one.title for one in protocol.criteria} if protocol else {}
    rows = (answer.get("ratings") or {}).items()
    return ", ".join(f"{titles.get(name, name)} {_numbers(row)}" for name, row in rows)


def _numbers(row: list[float | None]) -> str:
    return "/".join("-" if value is None else f"{value:g}" for value in row)


def _rewrite(answer: Answer, letters: Sequence[str]) -> str:
    rewrite = answer.get("rewrite")
    if rewrite is None:
        return ""
    count = len(rewrite.split())
    words = "1 word" if count == 1 else f"{count} words"
    of = answer.get("rewrite_of")
    return f"Wrote {words}" if of is None else f"Rewrote {letters[of]}, {words}"


def _flags(answer: Answer, protocol: Protocol | None, letters: Sequence[str]) -> str:
    labels = {one.name: one.label for one in protocol.flags} if protocol else {}
    marked = [
        f"{letter}: {', '.join(labels.get(name, name) for name in names)}"
        for letter, names in zip(letters, answer.get("flags") or [], strict=False)
        if names
    ]
    return "; ".join(marked)
