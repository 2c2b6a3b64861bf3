"""Length, side, overfitting and an ensemble's spread."""

import numpy as np
import pytest

from rlhf.evaluation.gate.biases import (
    gap_correlation,
    length_baseline_check,
    length_correlation_check,
    longer_rejected_check,
    side_accuracy_check,
    side_label_check,
)
from rlhf.evaluation.gate.overfitting import (
    early_stopping_of,
    overfitting_check,
    separation_check,
)
from rlhf.evaluation.gate.spread import auroc, spread_check
from tests.evaluation.gate_rows import pairs_of, right_and_wrong, row

LONGER = {"num_chosen_tokens": 20, "num_rejected_tokens": 10}
SHORTER = {"num_chosen_tokens": 10, "num_rejected_tokens": 20}


def test_the_gain_is_over_the_better_rule_of_length():
    rows = right_and_wrong(3, 1, **LONGER) + right_and_wrong(4, 4, **SHORTER)
    check = length_baseline_check(pairs_of(rows), 0.0)
    # picking the shorter is right on 8 of 12, the model on 7 of 12
    assert check.details["better_rule"] == "shorter"
    assert check.details["pick_the_longer"]["value"] == pytest.approx(4 / 12)
    assert check.value == pytest.approx(-1 / 12)
    assert check.passed is False


def test_the_correlation_of_gaps_does_not_depend_on_the_order_within_pairs():
    scores, lengths = np.array([1.0, 2.0]), np.array([2.0, 1.0])
    assert gap_correlation(scores, lengths) == pytest.approx(4 / 5)  # (2 + 2) / sqrt(5 * 5)
    assert gap_correlation(np.array([1.0, -2.0]), np.array([2.0, -1.0])) == pytest.approx(4 / 5)
    assert np.isnan(gap_correlation(scores, np.zeros(2)))


def test_a_score_that_is_length_fails_either_way():
    rows = [
        row(sign * gap, f"p{gap}", num_chosen_tokens=10 + gap, num_rejected_tokens=10)
        for gap in range(1, 9)
        for sign in (1,)
    ]
    assert length_correlation_check(pairs_of(rows), 0.6, seed=0).value == pytest.approx(1.0)
    turned = [each | {"chosen_score": -each["chosen_score"]} for each in rows]
    check = length_correlation_check(pairs_of(turned), 0.6, seed=0)
    assert check.value == pytest.approx(-1.0)
    assert check.passed is False


def test_where_the_longer_is_rejected_is_an_accuracy_of_its_own():
    rows = right_and_wrong(10, 0, **LONGER) + right_and_wrong(2, 18, **SHORTER)
    check = longer_rejected_check(pairs_of(rows), 0.5, min_pairs=10)
    assert (check.value, check.n, check.passed) == (0.1, 20, False)
    assert check.details["longer_chosen"]["value"] == 1.0
    few = longer_rejected_check(pairs_of(right_and_wrong(1, 1, **SHORTER)), 0.5, min_pairs=10)
    assert few.passed is None


def test_labels_that_favour_the_first_side_are_found():
    rows = right_and_wrong(8, 0, chosen_shown_first=1.0)
    rows += right_and_wrong(2, 2, chosen_shown_first=0.0)
    check = side_label_check(pairs_of(rows), 0.1, min_pairs=10)
    assert check.value == pytest.approx(8 / 12 - 0.5)
    assert check.passed is False
    gap = side_accuracy_check(pairs_of(rows), 0.3, min_pairs=4)
    assert gap.details["favoured_side"] == "first"
    assert gap.value == pytest.approx(1.0 - 0.5)
    assert gap.passed is False


def test_labels_all_of_one_side_are_labels_of_one_class():
    check = side_label_check(pairs_of(right_and_wrong(9, 3, chosen_shown_first=1.0)), 0.1, 10)
    assert (check.value, check.passed) == (0.5, False)
    assert "one class" in check.words
    nothing = side_label_check(pairs_of(right_and_wrong(9, 3)), 0.1, 10)
    assert nothing.passed is None
    assert side_accuracy_check(pairs_of(right_and_wrong(9, 3)), 0.1, 10).passed is None


def test_overfitting_is_training_accuracy_above_held_out():
    early = early_stopping_of({"early_stopping_patience": 3}, {})
    train, heldout = pairs_of(right_and_wrong(19, 1)), pairs_of(right_and_wrong(12, 8))
    check = overfitting_check(train, heldout, early, 0.3, seed=0)
    assert check.value == pytest.approx(0.95 - 0.6)
    assert check.low < 0.35 < check.high
    assert check.passed is False
    assert check.details["early_stopping"] is True
    assert early_stopping_of({}, {})["early_stopping"] is False
    assert overfitting_check(None, heldout, early, 0.3, seed=0).passed is None


def test_early_stopping_is_told_as_the_reward_stage_records_it():
    config = {"early_stopping_patience": 2}
    ended = early_stopping_of(config, {"num_steps": 8, "best_step": 4, "stopped_early": True})
    assert (ended["stopped_early_at"], ended["best_step"]) == (8, 4)
    assert ended["words"] == "early stopping ended it at step 8, the best checkpoint is of step 4"
    whole = early_stopping_of(config, {"num_steps": 9, "best_step": 9, "stopped_early": False})
    assert whole["stopped_early_at"] is None
    assert "did not end it" in whole["words"]


def test_a_checkpoint_chosen_on_the_held_out_pairs_is_said_to_flatter_them():
    train, heldout = pairs_of(right_and_wrong(19, 1)), pairs_of(right_and_wrong(12, 8))
    said = [
        overfitting_check(train, heldout, early_stopping_of(config, {}), 0.3, seed=0).words
        for config in ({"early_stopping_patience": 2}, {})
    ]
    assert ["chosen on these very held-out pairs" in words for words in said] == [True, False]


def test_held_out_prompts_that_are_trained_on_fail():
    assert separation_check(0, 40, 0.02).passed is True
    check = separation_check(2, 40, 0.02)
    assert (check.passed, check.value) == (False, 0.05)
    assert "2 of 40 held-out pairs" in check.words
    assert separation_check(None, 40, 0.02).passed is None


def test_a_spread_below_the_threshold_is_not_said_to_predict():
    # 200 pairs, the mistakes' spread a little larger: surely above 0.5, and below 0.9
    rng = np.random.default_rng(0)
    rows = []
    for index in range(200):
        gap, width = (-1.0, 1.6) if index % 2 else (1.0, 1.0)
        half = width * rng.random()
        rows.append(row(gap, f"p{index}", chosen_member_scores=[gap - half, gap + half],
                        rejected_member_scores=[0.0, 0.0]))  # fmt: skip
    found = spread_check(pairs_of(rows), 0.6, seed=0)
    assert (found.passed, found.details["predicts"]) == (True, True)
    asked_more = spread_check(pairs_of(rows), 0.9, seed=0)
    assert asked_more.low > 0.5
    assert (asked_more.passed, asked_more.details["predicts"]) == (False, False)
    assert "does not predict error" in asked_more.words


def test_auroc_by_hand():
    # mistakes at 3 and 2 against 1, 2: wins 1 + 1 + 1 + 1/2 of 4
    values, mistakes = np.array([3.0, 2.0, 1.0, 2.0]), np.array([True, True, False, False])
    assert auroc(values, mistakes) == pytest.approx(3.5 / 4)
    assert auroc(values, ~mistakes) == pytest.approx(0.5 / 4)
    assert np.isnan(auroc(values, np.zeros(4, dtype=bool)))


def ensemble(gaps: list[tuple[float, float]]) -> list[dict]:
    return [
        row(
            sum(each) / 2,
            f"p{index}",
            chosen_member_scores=list(each),
            rejected_member_scores=[0.0, 0.0],
        )
        for index, each in enumerate(gaps)
    ]


def test_the_spread_of_members_against_mistakes():
    sure_and_right, torn_and_wrong = (1.0, 1.1), (2.0, -3.0)
    check = spread_check(pairs_of(ensemble([sure_and_right] * 12 + [torn_and_wrong] * 6)), 0.6, 0)
    assert (check.value, check.passed) == (1.0, True)
    assert check.details["predicts"] is True
    turned = spread_check(pairs_of(ensemble([(3.0, 0.0)] * 12 + [(-1.0, -1.1)] * 6)), 0.6, 0)
    assert (turned.value, turned.passed) == (0.0, False)
    assert "does not predict" in turned.words


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (right_and_wrong(2, 2), "one member"),
        (ensemble([(1.0, 2.0)] * 3), "no mistakes"),
        (ensemble([(-1.0, -2.0)] * 3), "nothing but mistakes"),
    ],
)
def test_no_spread_to_judge_is_said(rows, reason):
    check = spread_check(pairs_of(rows), 0.6, 0)
    assert check.passed is None
    assert reason in check.words
