"""Intervals: numbers derived by hand, coverage by simulation, and refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.errors import DataError
from rlhf.evaluation.statistics import (
    bootstrap_statistic,
    clustered_bootstrap,
    mean_estimate,
    standard_error,
    wilson,
)


def test_wilson_of_eight_in_ten_is_the_textbook_interval() -> None:
    # z = 1.96: centre (0.8 + 0.19208) / 1.38415 = 0.7167, half 0.3137 / 1.38415 = 0.2266.
    estimate = wilson(8, 10)
    assert estimate.value == 0.8
    assert estimate.low == pytest.approx(0.4902, abs=1e-4)
    assert estimate.high == pytest.approx(0.9433, abs=1e-4)
    assert estimate.n == 10


def test_wilson_of_none_has_an_exact_zero_and_room_above() -> None:
    # The upper bound at 0 of n is z^2 / (n + z^2) = 3.8415 / 13.8415.
    estimate = wilson(0, 10)
    assert estimate.low == 0.0
    assert estimate.high == pytest.approx(0.27753, abs=1e-4)
    assert wilson(10, 10).high == 1.0


@given(st.integers(1, 500), st.data())
def test_wilson_contains_the_share_and_stays_in_the_unit_interval(n: int, data) -> None:
    successes = data.draw(st.integers(0, n))
    estimate = wilson(successes, n)
    assert 0 <= estimate.low <= successes / n <= estimate.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_an_impossible_share(successes: int, n: int) -> None:
    with pytest.raises(DataError, match="undefined"):
        wilson(successes, n)


def test_mean_estimate_is_students_interval() -> None:
    # Standard deviation 1 of three values, t(0.975, 2) = 4.30265: 4.30265 / sqrt(3) = 2.48414.
    estimate = mean_estimate([1, 2, 3])
    assert estimate.value == 2
    assert estimate.high - estimate.value == pytest.approx(2.48414, abs=1e-4)
    assert estimate.low == pytest.approx(-0.48414, abs=1e-4)
    assert standard_error([1, 2, 3]) == pytest.approx(1 / math.sqrt(3))


def test_one_value_has_a_mean_and_no_interval() -> None:
    for estimate in (mean_estimate([4.0]), clustered_bootstrap([4.0])):
        assert estimate.value == 4.0
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)


def test_bootstrap_of_a_fair_coin_has_the_binomial_width() -> None:
    # Half of 100: the mean of a resample is Binomial(100, 0.5) / 100, whose 2.5% and 97.5%
    # quantiles are 0.40 and 0.60.
    estimate = clustered_bootstrap([0, 1] * 50, num_samples=20_000)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.40, abs=0.011)
    assert estimate.high == pytest.approx(0.60, abs=0.011)
    assert estimate.n == 100


def test_clusters_widen_the_interval_of_values_that_go_together() -> None:
    values = np.repeat([0.0, 1.0] * 10, 8)  # 20 prompts with 8 equal pairs each
    clusters = np.repeat(np.arange(20), 8).tolist()
    alone, together = clustered_bootstrap(values), clustered_bootstrap(values, clusters)
    # Eight times the variance: sqrt(8) = 2.83 times the width.
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.15)
    assert together.n == 160


def test_clusters_of_different_size_keep_the_mean_of_all_values() -> None:
    estimate = clustered_bootstrap([1, 1, 1, 0], ["a", "a", "a", "b"])
    # Drawing only a gives 1, only b gives 0, both give 3/4.
    assert (estimate.value, estimate.low, estimate.high) == (0.75, 0.0, 1.0)


def test_bootstrap_is_repeatable_for_a_seed() -> None:
    values = np.random.default_rng(3).normal(size=40)
    assert clustered_bootstrap(values, seed=5) == clustered_bootstrap(values, seed=5)
    assert clustered_bootstrap(values, seed=5) != clustered_bootstrap(values, seed=6)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for study in range(200):
        per_prompt = rng.beta(1.3, 0.7, size=60)  # win chances with mean 0.65, clustered by prompt
        wins = rng.binomial(1, np.repeat(per_prompt, 3))
        prompts = np.repeat(np.arange(60), 3).tolist()
        estimate = clustered_bootstrap(wins, prompts, num_samples=400, seed=study)
        covered += estimate.low <= 0.65 <= estimate.high
    # 95% of 200 is 190; four standard errors (3.1 each) below that is 178.
    assert 178 <= covered <= 200


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_bootstrap_interval_stays_within_the_values(values: list[float]) -> None:
    estimate = clustered_bootstrap(values, num_samples=50)
    slack = 1e-9 * max(1.0, *(abs(value) for value in values))
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack


def test_refuses_nothing_nan_and_a_missing_cluster() -> None:
    with pytest.raises(DataError, match="no values"):
        clustered_bootstrap([])
    with pytest.raises(DataError, match="NaN"):
        mean_estimate([1.0, float("nan")])
    with pytest.raises(DataError, match="2 values but 1 clusters"):
        clustered_bootstrap([1, 2], ["a"])


def test_a_statistic_that_is_a_mean_has_the_mean_s_interval() -> None:
    values = np.random.default_rng(1).normal(size=60)
    clusters = [index // 3 for index in range(60)]
    of_mean = clustered_bootstrap(values, clusters)
    found = bootstrap_statistic(lambda rows: float(values[rows].mean()), clusters, num_samples=2000)
    assert found.value == pytest.approx(of_mean.value)
    assert found.low == pytest.approx(of_mean.low, abs=0.03)
    assert found.high == pytest.approx(of_mean.high, abs=0.03)


def test_rows_of_a_cluster_are_drawn_together_and_undefined_draws_left_out() -> None:
    clusters = ["a", "a", "b", "c"]
    drawn = []

    def statistic(rows: np.ndarray) -> float:
        drawn.append(rows)
        return float("nan") if 2 not in rows else 1.0

    found = bootstrap_statistic(statistic, clusters, num_samples=50)
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 4)
    assert all((rows == 0).sum() == (rows == 1).sum() for rows in drawn)
    alone = bootstrap_statistic(lambda rows: 2.0, ["a", "a"])
    assert alone.value == 2.0
    assert math.isnan(alone.low)
