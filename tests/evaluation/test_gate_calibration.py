"""Temperature and ECE, on logits whose truth is known."""

import math

import numpy as np
import pytest

from rlhf.evaluation.gate.calibration import (
    calibration_check,
    fit_temperature,
    gap_ece,
    half_by_prompt,
    mean_loss,
    temperature_check,
)
from tests.evaluation.gate_rows import pairs_of, row


def test_the_temperature_of_scaled_logits_is_the_scale():
    p = np.array([0.1, 0.3, 0.6, 0.9])
    logits = np.log(p / (1 - p))
    assert fit_temperature(2.5 * logits, p) == pytest.approx(2.5, rel=1e-4)
    assert fit_temperature(0.4 * logits, p) == pytest.approx(0.4, rel=1e-4)


def test_a_gap_right_three_times_in_four_is_worth_ln_3():
    # sigmoid(ln 3) = 3/4, so a gap of 2 that is right 3 times in 4 wants T = 2 / ln 3
    gaps, right = np.full(4, 2.0), np.array([1.0, 1.0, 1.0, 0.0])
    assert fit_temperature(gaps, right) == pytest.approx(2 / math.log(3), rel=1e-4)


def test_no_temperature_is_best_where_every_pair_is_right():
    assert math.isnan(fit_temperature(np.array([1.0, 2.0]), np.ones(2)))
    assert math.isnan(fit_temperature(np.zeros(2), np.ones(2)))


def test_scores_worse_than_none_fail_and_do_not_go_unmeasured():
    # right by 1 twice, wrong by 9 once: every larger temperature loses less
    assert fit_temperature(np.array([1.0, 1.0, -9.0]), np.ones(3)) == math.inf
    rows = [row(-9.0 if index % 3 == 0 else 1.0, f"p{index}") for index in range(90)]
    check = temperature_check(pairs_of(rows), 4.0, seed=0)
    assert (check.passed, check.value) == (False, None)
    assert "no end" in check.words
    assert temperature_check(pairs_of(rows), None, seed=0).passed is None


def test_the_loss_is_the_soft_label_s():
    # a gap of ln 3 says 3/4; against p = 3/4 the loss is the entropy of (3/4, 1/4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert mean_loss(np.array([math.log(3)]), np.array([0.75])) == pytest.approx(entropy)


def test_ece_of_gaps_is_taken_from_the_favoured_side():
    # says 3/4 for chosen, then 3/4 against it: right once and wrong once, so 1/2 came of 3/4
    assert gap_ece(np.array([math.log(3), -math.log(3)]), np.ones(2)) == pytest.approx(0.25)
    assert gap_ece(np.array([math.log(3)]), np.array([0.75])) == pytest.approx(0.0, abs=1e-12)


def test_calibration_says_what_chance_alone_would_give():
    rows = [row(math.log(3), f"p{index}", p_chosen=0.75) for index in range(12)]
    check = calibration_check(pairs_of(rows), 0.1, seed=0)
    assert check.value == pytest.approx(0.0, abs=1e-9)
    assert check.passed is True
    assert 0.02 < check.details["expected_if_calibrated"] < 0.2
    assert check.details["against"] == "soft labels"
    assert check.details["ece_hard"] == pytest.approx(0.25)
    (bin_,) = check.details["bins"]
    assert (bin_["observed"]["n"], bin_["mean_probability"]) == (12, pytest.approx(0.75))


def test_the_halves_keep_a_prompt_s_pairs_together():
    pairs = pairs_of([row(1.0, f"p{index // 3}") for index in range(60)])
    fitted = half_by_prompt(pairs)
    assert 0 < fitted.sum() < 60
    for index in range(0, 60, 3):
        assert len(set(fitted[index : index + 3].tolist())) == 1


def test_the_temperature_is_measured_on_the_other_half():
    # says e.g. 0.95 where 3/4 came: T = 3 makes ln 3 of it, on pairs it was not fitted on too
    rows = [row(3 * math.log(3), f"p{index}", p_chosen=0.75) for index in range(40)]
    check = temperature_check(pairs_of(rows), 2.0, seed=0)
    assert check.value == pytest.approx(3.0, rel=1e-3)
    assert check.passed is False
    assert check.details["before"]["ece"] == pytest.approx(27 / 28 - 0.75)
    assert check.details["after"]["ece"] == pytest.approx(0.0, abs=1e-3)
    assert check.n + check.details["n"] == 40
    alone = temperature_check(pairs_of(rows[:1]), 2.0, seed=0)
    assert alone.passed is None
