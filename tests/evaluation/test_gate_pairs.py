"""What the gate reads and how it sums pairs up: accuracy, ceiling, strength, lengths, raters."""

import json

import pytest

from rlhf.errors import DataError
from rlhf.evaluation.gate.accuracy import (
    accuracy_check,
    ceiling_check,
    chance_check,
    length_difference_check,
    rater_check,
    strength_check,
)
from rlhf.evaluation.gate.heldout import HELDOUT_NAME, read_scored_pairs
from tests.evaluation.gate_rows import pairs_of, right_and_wrong, row, write_rows


def test_accuracy_counts_equal_scores_half_and_leaves_ties_out():
    rows = [row(1.0, "a"), row(2.0, "b"), row(0.0, "c"), row(-1.0, "d"), row(9, "e", p_chosen=0.5)]
    check = accuracy_check(pairs_of(rows).decided, 0.6)
    assert (check.value, check.n, check.passed) == (0.625, 4, True)
    assert check.low < 0.625 < check.high
    assert accuracy_check(pairs_of(rows).decided, 0.63).passed is False
    assert accuracy_check(pairs_of(rows).decided, None).passed is True


def test_a_label_for_the_rejected_side_turns_the_row():
    cast = [{"id": "j", "rater": "kim", "prefers": "rejected", "strength": 2}]
    turned = pairs_of([row(-1.0, p_chosen=0.2, chosen_shown_first=0.75, votes=cast)])
    assert turned.right.tolist() == [1.0]
    assert turned.p_chosen.tolist() == [0.8]
    assert turned.chosen_shown_first.tolist() == [0.25]
    assert turned.rows[0]["votes"][0]["prefers"] == "chosen"


def test_a_tie_by_rounding_is_a_tie():
    # the weighted mean of criteria that are all at 0.5 may miss it by the last digit
    ties = [row(1.0, "a", p_chosen=0.5000000000000001), row(1.0, "b", p_chosen=0.49999999999999994)]
    assert len(pairs_of([*right_and_wrong(3, 0), *ties]).decided) == 3


def test_better_than_chance_asks_the_whole_interval():
    # 20 of 40: the interval's low end lies below a half; 36 of 40: above it
    assert chance_check(pairs_of(right_and_wrong(22, 18)), 0.5).passed is False
    assert chance_check(pairs_of(right_and_wrong(36, 4)), 0.5).passed is True
    alone = [row(1.0, "one prompt"), row(-1.0, "one prompt")]
    # one prompt gives no interval, and so shows nothing: not by being right on all its pairs
    check = chance_check(pairs_of(alone + [row(1.0, "one prompt")] * 9), 0.5)
    assert (check.passed, check.low) == (False, None)
    assert "nothing is shown" in check.words
    assert chance_check(pairs_of(alone), None).passed is None


def test_the_share_of_the_ceiling_is_the_accuracy_over_it():
    check = ceiling_check(pairs_of(right_and_wrong(6, 4)), 0.8, [0.75, 0.85], 0.7)
    assert check.value == pytest.approx(0.75)
    assert check.details["share_above_chance"] == pytest.approx(1 / 3)  # (0.6 - 0.5) / (0.8 - 0.5)
    assert check.passed is True
    nothing = ceiling_check(pairs_of(right_and_wrong(6, 4)), None, None, 0.7)
    assert nothing.passed is None
    assert "chance" in nothing.words


def test_strength_judges_the_clearest_bin_with_enough_pairs():
    rows = right_and_wrong(6, 6, p_chosen=0.6) + right_and_wrong(9, 3, p_chosen=0.9)
    rows += right_and_wrong(0, 2, p_chosen=0.99)
    check = strength_check(pairs_of(rows), 0.7, min_pairs=10)
    assert check.value == 0.75
    assert [group["n"] for group in check.details["by_p_chosen"]] == [12, 12, 2]
    assert check.passed is True
    unknown = strength_check(pairs_of(right_and_wrong(9, 3)), 0.7, min_pairs=10)
    assert unknown.passed is None


def test_margins_stand_in_where_there_is_no_p_chosen():
    rows = right_and_wrong(2, 10, margin=1.0) + right_and_wrong(11, 1, margin=3.0)
    check = strength_check(pairs_of(rows), 0.6, min_pairs=10)
    assert check.value == pytest.approx(11 / 12)
    assert [group["group"] for group in check.details["by_margin"]] == [
        "margin over 0 up to 1",
        "margin over 2",
    ]


def test_a_bin_of_length_difference_fails_only_when_it_is_shown_to_be_below():
    longer = right_and_wrong(1, 19, num_chosen_tokens=10, num_rejected_tokens=40)
    equal = right_and_wrong(14, 6, num_chosen_tokens=20, num_rejected_tokens=20)
    check = length_difference_check(pairs_of(longer + equal), 0.5, min_pairs=10)
    groups = {group["group"]: group["value"] for group in check.details["groups"]}
    assert groups == {"chosen much shorter": 0.05, "about equal": 0.7}
    assert check.passed is False
    near = right_and_wrong(9, 11, num_chosen_tokens=10, num_rejected_tokens=40)
    assert length_difference_check(pairs_of(near), 0.5, min_pairs=10).passed is True


def test_agreement_with_each_rater_is_with_their_own_votes():
    def cast(kim: str, lee: str) -> list[dict]:
        return [
            {"id": "1", "rater": "kim", "prefers": kim, "strength": 1},
            {"id": "2", "rater": "lee", "prefers": lee, "strength": 1},
        ]

    rows = right_and_wrong(4, 0, votes=cast("chosen", "rejected"))
    rows += right_and_wrong(0, 2, votes=cast("chosen", "tie"))
    check = rater_check(pairs_of(rows), 0.5, min_pairs=2)
    rates = {group["group"]: (group["value"], group["n"]) for group in check.details["groups"]}
    assert rates == {"kim": (pytest.approx(4 / 6), 6), "lee": (0.0, 4)}
    assert "lee" in check.words
    assert rater_check(pairs_of(right_and_wrong(1, 1)), 0.5, 2).passed is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no heldout.jsonl"),
        ("", "no held-out pairs"),
        ("{broken\n", "heldout.jsonl:1"),
        (json.dumps(row(1.0, chosen_score=None)), "chosen_score is None, no finite number"),
        (json.dumps(row(float("nan"))), r"heldout.jsonl:1"),
        (json.dumps(row(1.0, p_chosen=1.5)), "p_chosen is 1.5, out of range"),
        (json.dumps(row(1.0, chosen=3)), "chosen must be text"),
        (json.dumps(row(1.0, num_chosen_tokens="x")), "num_chosen_tokens is 'x', out of range"),
        (json.dumps(row(1.0, p_chosen=0.5)), "all 1 labels are ties"),
    ],
)
def test_unusable_heldout_rows_are_one_line(tmp_path, content, message):
    path = tmp_path / HELDOUT_NAME
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_scored_pairs(path)


def test_lengths_are_tokens_where_all_rows_have_them(tmp_path):
    rows = [row(1.0, chosen="one two", num_chosen_tokens=7, num_rejected_tokens=5)]
    write_rows(tmp_path / HELDOUT_NAME, rows)
    pairs = read_scored_pairs(tmp_path / HELDOUT_NAME)
    assert (pairs.length_unit, pairs.chosen_lengths.tolist()) == ("tokens", [7.0])
    mixed = pairs_of([*rows, row(2.0, chosen="one two")])
    assert (mixed.length_unit, mixed.chosen_lengths.tolist()) == ("words", [2.0, 2.0])
