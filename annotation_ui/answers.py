"""Answers as they stood on screen, and as the store keeps them: the one place where sides turn.

A page speaks of the completions in the order in which they were shown; a judgement's values stand
in the comparison's own order. `shown_order[i]` is the index of the completion shown i-th, so that
`values[shown_order[i]] = on_screen[i]`. Both directions are pure and undo each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from rlhf.errors import DataError
from rlhf.records import Judgement


class Answer(TypedDict, total=False):
    """What was chosen, in screen order; only what was asked is there.

    `choice` is -3 (A, shown first) to 3 (B); `ranks` has a rank per shown completion, 1 the best;
    `rewrite_of` is the place on screen of what was rewritten, None for a text from nothing.
    """

    choice: int | None
    both_bad: bool
    ranks: list[int]
    ratings: dict[str, list[float | None]]
    rewrite: str
    rewrite_of: int | None
    flags: list[list[str]]


def values_of(answer: Answer, shown_order: Sequence[int]) -> dict[str, Any]:
    """The value fields of a Judgement, in the comparison's order of completions.

    DataError, in words for a rater, when a list has not one value for each completion shown.
    """
    count = len(shown_order)
    values: dict[str, Any] = {}
    if answer.get("choice") is not None:
        values["verdict"] = verdict_of(_within_scale(answer["choice"]), shown_order)
        values["both_bad"] = bool(answer.get("both_bad"))
    if answer.get("ranks") is not None:
        values["ranking"] = _to_store(_checked("ranks", answer["ranks"], count), shown_order)
    if answer.get("ratings") is not None:
        values["ratings"] = {
            name: _to_store(_checked(name, row, count), shown_order)
            for name, row in answer["ratings"].items()
        }
    if answer.get("rewrite") is not None:
        values["rewrite"] = answer["rewrite"]
        values["rewrite_of"] = _shown_at(answer.get("rewrite_of"), shown_order)
    if answer.get("flags") is not None:
        rows = [tuple(dict.fromkeys(names)) for names in _checked("flags", answer["flags"], count)]
        values["flags"] = _to_store(rows, shown_order)
    return values


def answer_of(judgement: Judgement) -> Answer:
    """What a judgement says, as it stood on screen; the inverse of `values_of`."""
    order = judgement.shown_order
    answer = Answer()
    if judgement.verdict is not None:
        answer["choice"] = verdict_of(judgement.verdict, order)  # a mirror is its own inverse
        answer["both_bad"] = judgement.both_bad
    if judgement.ranking is not None:
        answer["ranks"] = _to_screen(judgement.ranking, order)
    if judgement.ratings is not None:
        answer["ratings"] = {
            name: _to_screen(row, order) for name, row in judgement.ratings.items()
        }
    if judgement.rewrite is not None:
        of = judgement.rewrite_of
        answer["rewrite"] = judgement.rewrite
        answer["rewrite_of"] = None if of is None else order.index(of)
    if judgement.flags is not None:
        answer["flags"] = [list(names) for names in _to_screen(judgement.flags, order)]
    return answer


def verdict_of(choice: int, shown_order: Sequence[int]) -> int:
    """The verdict for the store, where negative means `completions[0]`, on whichever side."""
    if len(shown_order) != 2:
        raise DataError("a choice between two was sent, and there are not two completions")
    return choice if tuple(shown_order) == (0, 1) else -choice


def _within_scale(choice: int | None) -> int:
    if choice is None or not -3 <= choice <= 3:
        raise DataError("no choice between the two was sent; choose one of those shown")
    return choice


def _checked(name: str, row: Sequence[Any], count: int) -> Sequence[Any]:
    if len(row) != count:
        raise DataError(f"{name}: {len(row)} values for {count} completions; answer for each")
    return row


def _to_store(on_screen: Sequence[Any], shown_order: Sequence[int]) -> tuple[Any, ...]:
    places = {index: place for place, index in enumerate(shown_order)}
    return tuple(on_screen[places[index]] for index in range(len(shown_order)))


def _to_screen(values: Sequence[Any], shown_order: Sequence[int]) -> list[Any]:
    return [values[index] for index in shown_order]


def _shown_at(place: int | None, shown_order: Sequence[int]) -> int | None:
    if place is None:
        return None
    if not 0 <= place < len(shown_order):
        raise DataError("a rewrite of a completion that was not shown; choose one that is")
    return shown_order[place]


def is_same(sent: Mapping[str, Any], stored: Judgement) -> bool:
    """Whether what was sent, in screen order, is what the stored judgement says."""
    try:
        values = values_of(Answer(**sent), stored.shown_order)  # type: ignore[typeddict-item]
    except DataError:
        return False
    names = ("verdict", "ranking", "ratings", "rewrite", "flags")
    return all(values.get(name) == getattr(stored, name) for name in names) and (
        values.get("both_bad", False) == stored.both_bad
    )
