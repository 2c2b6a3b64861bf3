"""The seven-point scale in words, and what a choice on screen means in the store."""

from collections.abc import Sequence

SCALE: tuple[tuple[int, str, str], ...] = (
    (-3, "A is much better", "Much"),
    (-2, "A is better", "Better"),
    (-1, "A is slightly better", "Slightly"),
    (0, "About the same", "Same"),
    (1, "B is slightly better", "Slightly"),
    (2, "B is better", "Better"),
    (3, "B is much better", "Much"),
)
"""From left to right: the choice, its words, and its word where a phone has no room."""

_WORDS = {choice: words for choice, words, _ in SCALE}

SKIP_REASONS = (
    "I do not understand the prompt",
    "It needs knowledge that I do not have",
    "It is harmful or upsetting to read",
    "The text is broken or unreadable",
)


def verdict_of(choice: int, shown_order: Sequence[int]) -> int:
    """The verdict for the store, where negative means `completions[0]`, on whichever side."""
    return choice if tuple(shown_order) == (0, 1) else -choice


def choice_of(verdict: int, shown_order: Sequence[int]) -> int:
    """The choice on screen that a stored verdict was: negative means A, on the left."""
    return verdict_of(verdict, shown_order)  # a mirror is its own inverse


def words_for(choice: int) -> str:
    """What the button says, for example "A is slightly better"."""
    return _WORDS[choice]
