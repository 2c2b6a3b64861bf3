"""KL, repetition and variety with numbers derived by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.errors import DataError
from rlhf.evaluation.drift import distinct, kl_estimate, repetition, shape_of


def test_kl_is_the_mean_gap_with_its_standard_error() -> None:
    # Gaps 1, 2, 3: mean 2, standard deviation 1, error 1 / sqrt(3).
    estimate, error = kl_estimate([-1, -2, -3], [-2, -4, -6])
    assert estimate.value == 2
    assert error == pytest.approx(1 / math.sqrt(3))
    assert estimate.n == 3


def test_kl_of_a_policy_to_itself_is_zero() -> None:
    estimate, error = kl_estimate([-5.5, -7.25], [-5.5, -7.25])
    assert (estimate.value, error) == (0, 0)


def test_kl_refuses_unmatched_rows() -> None:
    with pytest.raises(DataError, match="2 log-probabilities against 1"):
        kl_estimate([1, 2], [1])


def test_repetition_counts_three_grams_seen_before() -> None:
    # a b c a b c: abc bca cab abc; one of four repeats.
    assert repetition("a b c A b c") == 0.25
    assert repetition("one two") == 0
    assert repetition("") == 0


def test_distinct_counts_bigrams_over_all_texts() -> None:
    # ab, bc and ab: two different of three.
    assert distinct(["a b c", "a b"]) == pytest.approx(2 / 3)
    assert distinct(["", "alone"]) == 0


@given(st.text(alphabet="ab \n", max_size=60))
def test_shares_stay_in_the_unit_interval(text: str) -> None:
    assert 0 <= repetition(text) < 1
    assert 0 <= distinct([text]) <= 1


def test_shape_counts_empty_completions_and_ends() -> None:
    shape = shape_of(["two words", " "], [3, 1], [True, False], ["p", "q"])
    assert shape["mean_tokens"] == 2
    assert shape["mean_words"] == 1
    assert shape["ended_rate"] == 0.5
    assert shape["num_empty"] == 1
    assert shape["n"] == 2


def test_completions_of_one_prompt_are_not_independent() -> None:
    """Ten prompts of ten equal completions tell as much as ten completions, not a hundred."""
    ended = [index < 50 for index in range(100)]  # the first five prompts always, the rest never
    tokens = [10 if end else 30 for end in ended]
    prompts = [index // 10 for index in range(100)]
    clustered = shape_of(["a"] * 100, tokens, ended, prompts)
    apart = shape_of(["a"] * 100, tokens, ended, list(range(100)))
    assert clustered["ended_rate"] == apart["ended_rate"] == 0.5
    # Standard errors: 0.5 / sqrt(10) = 0.158 over prompts, 0.05 over completions.
    low, high = clustered["ended_rate_ci"]
    assert high - low == pytest.approx(2 * 1.96 * 0.158, abs=0.1)
    low, high = apart["ended_rate_ci"]
    assert high - low == pytest.approx(2 * 1.96 * 0.05, abs=0.01)
    low, high = clustered["mean_tokens_ci"]
    assert high - low == pytest.approx(2 * 1.96 * 10 / math.sqrt(10), abs=2)


def test_when_every_completion_ends_prompts_are_counted() -> None:
    # Wilson's lower bound for 4 of 4, not 8 of 8: 4 / (4 + 1.96^2).
    shape = shape_of(["a"] * 8, [3] * 8, [True] * 8, [0, 0, 1, 1, 2, 2, 3, 3])
    assert shape["ended_rate_ci"] == pytest.approx([4 / (4 + 1.96**2), 1.0], abs=1e-3)
