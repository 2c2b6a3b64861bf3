"""Rows of judgements as records, where they hold what this program writes."""

import math
from datetime import UTC
from types import NoneType

from sqlalchemy import RowMapping

from rlhf.feedback.rules import PURPOSES
from rlhf.records import Judgement


def record_of(row: RowMapping) -> Judgement:
    """A row of judgements (joined with its names) as the record that the rest knows.

    Raises one of `database.UNREADABLE` for a row that this program cannot have written.
    """
    ratings = row["ratings"]
    _check_types(row)
    return Judgement(
        id=row["id"],
        campaign=row["campaign"],
        item=row["item"],
        annotator=row["annotator"],
        simulated=row["simulated"],
        seconds=row["seconds"],
        created_at=row["created_at"].astimezone(UTC),
        shown_order=tuple(row["shown_order"]),
        verdict=row["verdict"],
        both_bad=row["both_bad"],
        ranking=None if row["ranking"] is None else tuple(row["ranking"]),
        ratings=None if ratings is None else {key: tuple(ratings[key]) for key in ratings},
        rewrite=row["rewrite"],
        rewrite_of=row["rewrite_of"],
        skip=row["skip"],
        flags=None if row["flags"] is None else tuple(map(tuple, row["flags"])),
        rationale=row["rationale"],
        guideline_version=row["guideline_version"],
        supersedes=row["supersedes"],
        purpose=row["purpose"],
    )


_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "item": (str,),
    "annotator": (str,),
    "seconds": (float, int),
    "shown_order": (list,),
    "verdict": (int, NoneType),
    "ranking": (list, NoneType),
    "ratings": (dict, NoneType),
    "rewrite": (str, NoneType),
    "rewrite_of": (int, NoneType),
    "skip": (str, NoneType),
    "flags": (list, NoneType),
    "rationale": (str, NoneType),
    "guideline_version": (int, NoneType),
    "supersedes": (str, NoneType),
}


def _check_types(row: RowMapping) -> None:
    """SQLite keeps whatever bytes a damaged file holds, whatever the column is declared as."""
    for name, types in _TYPES.items():
        if not isinstance(row[name], types):
            raise TypeError(f"judgement {row['id']!a}: {name} is a {type(row[name]).__name__}")
    if row["purpose"] not in PURPOSES:
        raise ValueError(f"judgement {row['id']!a}: a purpose that there is not")
    if not math.isfinite(row["seconds"]):
        raise ValueError(f"judgement {row['id']!a}: seconds is no number")
    numbers = [*row["shown_order"], *(row["ranking"] or ())]
    if not all(isinstance(number, int) for number in numbers) or len(row["shown_order"]) == 0:
        raise TypeError(f"judgement {row['id']!a}: an order or ranking of no numbers")
