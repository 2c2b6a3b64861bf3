"""Losses are counted, shown, and refused above the limit."""

import pytest

from rlhf.data.losses import DataLosses
from rlhf.errors import GateError


def losses_of(num_rows: int, num_lost: int) -> DataLosses:
    losses = DataLosses(num_rows=num_rows)
    for number in range(num_lost):
        losses.drop("empty prompt", f"f.jsonl:{number + 1}")
    return losses


def test_at_the_limit_is_allowed_and_above_is_not():
    losses_of(100, 5).refuse_above(0.05)
    with pytest.raises(
        GateError, match=r"6 of 100 rows lost \(6.0%\).*f.jsonl:1.*--max_loss 0.06"
    ) as caught:
        losses_of(100, 6).refuse_above(0.05)
    assert caught.value.exit_code == 5


def test_the_limit_it_names_would_be_enough():
    with pytest.raises(GateError, match=r"--max_loss 0.334 ") as caught:
        losses_of(3, 1).refuse_above(0.0)
    assert caught.value
    losses_of(3, 1).refuse_above(0.334)


def test_notes_are_shown_but_lose_nothing():
    losses = losses_of(10, 0)
    losses.note("pairs with equal votes", 4)
    losses.refuse_above(0.0)
    assert losses.summary() == "0 of 10 rows lost (0.0%): 4 noted: pairs with equal votes"


def test_only_a_few_examples_are_kept():
    assert losses_of(100, 50).as_dict()["examples"] == {
        "empty prompt": ["f.jsonl:1", "f.jsonl:2", "f.jsonl:3"]
    }


def test_a_reason_that_quotes_a_row_stays_one_printable_line():
    losses = DataLosses(num_rows=1)
    losses.drop("\x1b[31mred\n\ud800 must be a number", "f.jsonl:1")
    assert dict(losses.dropped) == {"\ufffd[31mred \ufffd must be a number": 1}
    assert losses.summary().isprintable()
    losses.summary().encode()


def test_rows_that_are_each_wrong_in_their_own_way_do_not_fill_the_screen():
    losses = DataLosses(num_rows=500)
    for number in range(500):
        losses.drop(f"criterion {number} is none", f"f.jsonl:{number}")
    assert losses.summary().endswith("and 488 more reasons")
    assert losses.first_places().endswith("and 488 more reasons")
    assert losses.num_lost == 500
