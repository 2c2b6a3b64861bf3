"""Win rates: ties, clusters, the shorter baseline, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.errors import DataError
from rlhf.evaluation.win_rate import outcomes, shorter_wins, win_rate

SCORES = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


def test_ties_count_half_and_the_tolerance_decides() -> None:
    assert outcomes([1.0, 0.0, 0.5], [0.0, 1.0, 0.5]).tolist() == [1, 0, 0.5]
    assert outcomes([1.0], [0.95], tie_tolerance=0.1).tolist() == [0.5]
    assert outcomes([1.0], [0.95], tie_tolerance=0.01).tolist() == [1]


def test_win_rate_is_the_mean_outcome() -> None:
    estimate = win_rate([1, 1, 0, 1], [0, 0, 1, 1])
    assert estimate.value == (1 + 1 + 0 + 0.5) / 4
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 4


@given(SCORES, st.data())
def test_two_policies_share_the_prompts(scores: list[float], data) -> None:
    others = data.draw(st.lists(st.floats(-100, 100), min_size=len(scores), max_size=len(scores)))
    ours, theirs = outcomes(scores, others), outcomes(others, scores)
    assert np.all(ours + theirs == 1)


def test_winning_every_prompt_is_not_certainty() -> None:
    # Wilson's lower bound at n of n is n / (n + z^2) = 10 / 13.8415.
    estimate = win_rate([1.0] * 10, [0.0] * 10)
    assert estimate.value == 1
    assert estimate.low == pytest.approx(0.72247, abs=1e-4)
    assert estimate.high == 1


def test_a_policy_against_itself_is_even_with_width() -> None:
    estimate = win_rate([0.3] * 8, [0.3] * 8)
    assert estimate.value == 0.5
    assert estimate.low < 0.5 < estimate.high


def test_repeated_prompts_are_no_more_evidence() -> None:
    estimate = win_rate([1.0] * 10, [0.0] * 10, clusters=[0, 1] * 5)
    # Two prompts: 2 / (2 + 3.8415), though ten rows.
    assert estimate.low == pytest.approx(0.34238, abs=1e-4)
    assert estimate.n == 10


def test_picking_the_shorter_wins_where_the_shorter_is_better() -> None:
    # Ours is shorter and better; longer and worse; shorter and worse; as long, and better.
    estimate = shorter_wins([3, 9, 3, 5], [5, 5, 5, 5], [1, 0, 0, 1], [0, 1, 1, 0])
    assert estimate.value == (1 + 1 + 0 + 0.5) / 4


def test_refuses_scores_that_do_not_match_or_are_broken() -> None:
    with pytest.raises(DataError, match="2 scores against 1"):
        win_rate([1, 2], [1])
    with pytest.raises(DataError, match="prompt 2 is NaN"):
        win_rate([1, float("nan")], [1, 2])
