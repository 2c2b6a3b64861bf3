"""Whether an answer is as expected, by hand."""

from typing import Any

import pytest

from rlhf.errors import DataError
from rlhf.feedback.gold import check_expected, meets
from tests.feedback.makers import comparison, judgement


@pytest.mark.parametrize(
    ("expected", "said", "met"),
    [
        ({"verdict": 2}, {"verdict": 1}, True),  # the side counts, not how far
        ({"verdict": 2}, {"verdict": -3}, False),
        ({"verdict": 2}, {"verdict": 0}, False),
        ({"verdict": 0}, {"verdict": 0}, True),
        ({"verdict": 2}, {"skip": "no idea"}, False),
        ({"ranking": [1, 2, 3]}, {"ranking": (1, 3, 9)}, True),  # the same order
        ({"ranking": [1, 2, 2]}, {"ranking": (1, 2, 3)}, False),
        ({"ratings": {"h": [5, None, 1]}}, {"ratings": {"h": (5, 2, 1)}}, True),
        ({"ratings": {"h": [5, None, 1]}}, {"ratings": {"h": (4, 2, 1)}}, False),
        ({"ratings": {"h": [5, 3, 1]}, "tolerance": 1}, {"ratings": {"h": (4, 3, 2)}}, True),
        ({"ratings": {"h": [5, 3, 1]}}, {"ratings": {"c": (5, 3, 1)}}, False),
        ({"flags": [["unsafe", "cut"], [], []]}, {"flags": (("cut", "unsafe"), (), ())}, True),
        ({"flags": [["unsafe"], [], []]}, {"flags": ((), (), ())}, False),
        ({"flags": [[], [], []]}, {"ranking": (1, 1, 1)}, True),  # nothing was ticked
        ({"verdict": 1, "flags": [[], []]}, {"verdict": 1, "flags": (("cut",), ())}, False),
    ],
)
def test_meets(expected: dict[str, Any], said: dict[str, Any], met: bool) -> None:
    assert meets(judgement(**said), expected) is met


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({}, "give at least one of verdict"),
        ({"tolerance": 1}, "give at least one of verdict"),
        ({"verdict": 4}, "not within -3..3"),
        ({"verdict": "A"}, "not what a rater gives"),
        ({"verdict": True}, "not what a rater gives"),
        ({"verdict": 1.5}, "not what a rater gives"),
        ({"flags": "ab"}, "not what a rater gives"),
        ({"ranking": [1]}, "1 ranks for 2 completions"),
        ({"ratings": {"h": [1]}}, "1 values for 2 completions"),
        ({"flags": [[]]}, "1 lists for 2 completions"),
        ({"verdict": 1, "verdikt": 2}, "cannot hold 'verdikt'"),
        ({"ratings": {"h": [1, 2]}, "tolerance": -1}, "no number of points"),
        ({"ratings": {"h": [1, 2]}, "tolerance": float("inf")}, "no number of points"),
    ],
)
def test_an_answer_that_nobody_can_give_is_refused(expected: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_expected(expected, comparison("i0"))
