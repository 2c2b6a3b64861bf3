"""Calibration: bins and errors worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.errors import DataError
from rlhf.evaluation.calibration import ece, folded, reliability_bins

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def test_ece_weighs_each_bins_gap_by_its_size() -> None:
    # Bin 0.9: said 0.95 on average of two, one came: gap 0.45. Bin 0.2: said 0.2, came 0: 0.2.
    assert ece([0.9, 1.0, 0.2, 0.2], [1, 0, 0, 0]) == pytest.approx((2 * 0.45 + 2 * 0.2) / 4)


def test_a_model_that_is_right_as_often_as_it_says_has_no_error() -> None:
    assert ece([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)


def test_soft_outcomes_count_by_their_share() -> None:
    assert ece([0.7, 0.7], [0.6, 0.8]) == pytest.approx(0)


def test_bins_hold_their_lower_edge_and_the_last_also_one() -> None:
    bins = reliability_bins([0.5, 1.0, 0.99], [1, 1, 0], num_bins=2)
    assert [(bin_.low, bin_.high, bin_.observed.n) for bin_ in bins] == [(0.5, 1.0, 3)]
    assert bins[0].mean_probability == pytest.approx(0.83)
    assert bins[0].observed.value == pytest.approx(2 / 3)


def test_folding_turns_a_pair_to_its_likelier_side() -> None:
    said, came = folded([0.2, 0.7], [1, 1])
    assert said.tolist() == [0.8, 0.7]
    assert came.tolist() == [0, 1]


@given(SHARES, st.data())
def test_ece_lies_between_zero_and_one(said: list[float], data) -> None:
    came = data.draw(st.lists(st.floats(0, 1), min_size=len(said), max_size=len(said)))
    assert 0 <= ece(said, came) <= 1
    assert sum(bin_.observed.n for bin_ in reliability_bins(said, came)) == len(said)


@pytest.mark.parametrize(
    ("said", "came", "message"),
    [
        ([], [], "0 probabilities"),
        ([0.5], [1, 0], "1 probabilities and 2 outcomes"),
        ([1.2], [1], "probability lies outside"),
        ([float("nan")], [1], "probability lies outside"),
        ([0.5], [2], "outcome lies outside"),
    ],
)
def test_refuses_what_are_no_shares(said: list[float], came: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ece(said, came)
