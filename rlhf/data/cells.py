"""What stands in one cell of a row, checked: DataError says where when it is of another kind."""

from math import inf, isfinite
from typing import Any

from rlhf.errors import DataError
from rlhf.records import Message

Row = dict[str, Any]
TIE = 0.5
_EQUAL = 1e-9
_VOTE = ("id", "rater", "prefers", "strength")


def messages_in(place: str, column: str, row: Row) -> list[Message]:
    """The turns in a column."""
    value = row.get(column)
    if not isinstance(value, (list, tuple)) or not all(_is_message(turn) for turn in value):
        expected = "text or a list of {role, content} turns"
        raise DataError(f"{place}: {column} must be {expected}; mend or remove that row")
    for turn in value:
        _refuse_half_characters(place, column, turn["role"] + turn["content"])
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]


def _is_message(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
    )


def text_in(place: str, column: str, row: Row) -> str:
    """The text in a column."""
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{place}: {column} must be text; mend or remove that row")
    _refuse_half_characters(place, column, value)
    return value


def ids_in(place: str, column: str, row: Row) -> tuple[str, ...]:
    """The ids in a column, which may be missing or empty."""
    value = row.get(column)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise DataError(f"{place}: {column} must be a list of texts; mend or remove that row")
    _refuse_half_characters(place, column, "".join(value))
    return tuple(value)


def flag_in(place: str, column: str, row: Row) -> bool | None:
    """True, false or None in a column."""
    value = row.get(column)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{place}: {column} must be true or false; mend or remove that row")
    return value


def number_in(
    place: str, column: str, row: Row, low: float = -inf, high: float = inf
) -> float | None:
    """The finite number in a column, between `low` and `high`; None when there is none."""
    value = row.get(column)
    if value is None:
        return None
    within = f" from {low} to {high}" if high < inf else f", at least {low}" if low > -inf else ""
    problem = f"{place}: {column} must be a finite number{within}; mend or remove that row"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(problem)
    try:
        number = float(value)
    except OverflowError:  # JSON knows whole numbers of any length
        raise DataError(problem) from None
    if not isfinite(number) or not low <= number <= high:
        raise DataError(problem)
    return number


def probability_in(place: str, column: str, row: Row) -> float | None:
    """The number from 0 to 1 in a column; what rounding left beside 0.5 is 0.5."""
    value = number_in(place, column, row, 0, 1)
    return None if value is None else without_rounding(value)


def without_rounding(p: float) -> float:
    """The probability itself; 0.5 where only rounding tells the two apart, so that a tie is a tie
    wherever it is counted.
    """
    return TIE if abs(p - TIE) < _EQUAL else p


def name_in(place: str, column: str, row: Row) -> str | None:
    """The text in a column that names something; numbers are taken as their digits."""
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{place}: {column} must be text; mend or remove that row")
    _refuse_half_characters(place, column, value or "")
    return value


def criteria_in(place: str, row: Row) -> dict[str, float] | None:
    """{criterion: p_chosen by it}, without the criteria that the row leaves open (null)."""
    value = row.get("criteria")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(
            f"{place}: criteria must be {{criterion: p_chosen by it}}; mend or remove that row"
        )
    _refuse_half_characters(place, "criteria", "".join(map(str, value)))
    read = {str(name): probability_in(place, name, value) for name in value}
    return {name: number for name, number in read.items() if number is not None}


def votes_in(place: str, row: Row) -> tuple[Row, ...]:
    """What each rater said of a pair; none when the row does not say."""
    value = row.get("votes")
    if value is None:
        return ()
    sides = ("chosen", "rejected", "tie")
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(vote, dict)
        and vote.get("prefers") in sides
        and not any(isinstance(vote.get(key), (list, dict)) for key in _VOTE)
        for vote in value
    ):
        raise DataError(
            f"{place}: votes must be a list of {{id, rater, prefers, strength}}, prefers one of "
            f"{', '.join(sides)}; mend or remove that row"
        )
    for vote in value:
        _refuse_half_characters(place, "votes", "".join(str(vote.get(key)) for key in _VOTE))
    return tuple({key: vote[key] for key in _VOTE if key in vote} for vote in value)


def label_in(place: str, row: Row) -> bool:
    """The label of an unpaired row: whether its completion is a good one. 1 and 0 will do; -1 as
    another "bad" would be true to Python.
    """
    if not isinstance(row.get("label"), (bool, int)) or row["label"] not in (0, 1):
        raise DataError(f"{place}: label must be true or false; mend or remove that row")
    return bool(row["label"])


def _refuse_half_characters(place: str, column: str, text: str) -> None:
    """JSON can hold a lone surrogate, which is no character: no tokenizer or file takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = f"{column} holds half a character (a lone surrogate)"
        raise DataError(f"{place}: {problem}; mend or remove that row") from None
