"""Agreement and the noise ceiling, by hand and by simulation."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.feedback.agreement import (
    majority_accuracy,
    noise_ceiling,
    noise_ceiling_estimate,
    percent_agreement,
    rater_accuracy,
    signs_by_pair,
)
from tests.feedback.makers import judgement


def test_percent_agreement_by_hand() -> None:
    # three raters: 1 of 3 pairs agree; two who agree: 1 of 1; one alone: no pair
    found = percent_agreement([[1, 1, -1], [-1, -1], [1]])
    assert (found.num_agreeing, found.num_rater_pairs, found.num_items) == (2, 4, 2)
    assert found.value == 0.5
    assert found.low is not None
    assert found.high is not None
    assert 1 / 3 <= found.low <= 0.5 <= found.high <= 1


def test_ties_agree_with_ties_alone_and_can_be_left_out() -> None:
    items = [[0, 0], [0, 1], [1, 1], [1, -1]]
    assert percent_agreement(items).value == 2 / 4
    assert percent_agreement(items, decisive_only=True).value == 1 / 2


def test_agreement_of_nobody_is_unknown() -> None:
    found = percent_agreement([[1], []])
    assert (found.value, found.low, found.high, found.num_rater_pairs) == (None, None, None, 0)
    assert percent_agreement([]).value is None
    assert noise_ceiling_estimate([[1], [-1]]) is None


@pytest.mark.parametrize(
    ("p", "accuracy"),
    [(1.0, 1.0), (0.82, 0.9), (0.68, 0.8), (0.726, 0.8362), (0.5, None), (0.3, None)],
)
def test_rater_accuracy_by_hand(p: float, accuracy: float | None) -> None:
    # accuracy .9: both right .81, both wrong .01, together .82; InstructGPT's .726 gives .836
    assert rater_accuracy(p) == pytest.approx(accuracy, abs=1e-4)


def test_impossible_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="no probability"):
        rater_accuracy(1.2)


@given(st.floats(0.501, 1.0))
def test_accuracy_and_agreement_are_inverse(p: float) -> None:
    accuracy = rater_accuracy(p)
    assert accuracy is not None
    assert accuracy**2 + (1 - accuracy) ** 2 == pytest.approx(p)


def test_majority_accuracy_by_hand() -> None:
    # three of accuracy .8: .8^3 + 3 * .8^2 * .2 = .512 + .384
    assert majority_accuracy(0.8, 3) == pytest.approx(0.896)
    assert majority_accuracy(0.8, 1) == pytest.approx(0.8)
    # two: both right .64, split .32 counts half
    assert majority_accuracy(0.8, 2) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="at least one vote"):
        majority_accuracy(0.8, 0)


def test_noise_ceiling_by_hand() -> None:
    assert noise_ceiling(0.68, 3) == pytest.approx(0.896)
    assert noise_ceiling(0.68, [1, 3, 0]) == pytest.approx((0.8 + 0.896) / 2)
    assert noise_ceiling(0.5, 3) is None
    assert noise_ceiling(None, 3) is None
    assert noise_ceiling(0.68, []) is None


def test_ceiling_estimate_finds_how_right_majorities_are() -> None:
    chance = random.Random(0)
    items = [[1 if chance.random() < 0.8 else -1 for _ in range(3)] for _ in range(3000)]
    right = sum(sum(signs) > 0 for signs in items) / len(items)  # the truth is 1 everywhere
    estimate = noise_ceiling_estimate(items)
    assert estimate is not None
    assert estimate.low < 0.896 < estimate.high
    assert estimate.value == pytest.approx(right, abs=0.02)
    assert estimate.n == 3000


def test_interval_that_reaches_chance_ends_at_one_half() -> None:
    estimate = noise_ceiling_estimate([[1, 1], [1, 1], [1, -1]])
    assert estimate is not None
    assert estimate.low == 0.5


def test_signs_take_each_raters_last_verdict() -> None:
    said = [
        judgement("i", "ann", verdict=-3),
        judgement("i", "ann", verdict=2),
        judgement("i", "bob", verdict=0),
        judgement("k", "bob", skip="?"),
        judgement("m", "bob", ranking=(1, 2, 1), shown_order=(0, 1, 2)),
    ]
    assert signs_by_pair(said) == {
        ("i", 0, 1): [1, 0],
        ("m", 0, 1): [-1],
        ("m", 0, 2): [0],
        ("m", 1, 2): [1],
    }
