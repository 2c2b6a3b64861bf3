"""Votes into labels, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.feedback.aggregation import (
    aggregate,
    demonstrations,
    smoothed_share,
    votes_of,
)
from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import Store
from tests.feedback.makers import comparison, fill, judgement


@pytest.mark.parametrize(
    ("verdicts", "chosen", "p_chosen", "margin"),
    [
        ([1], "no", 2 / 3, 1.0),
        ([-3, -2, -1], "yes", 4 / 5, 2.0),
        ([-3, 1, 1], "no", 3 / 5, 0.0),  # two weak votes outvote a strong one: margin is floored
        ([2, 0], "no", (1.5 + 1) / 4, 1.0),  # a tie is half a vote for each
        ([-1, 2, 3], "no", 3 / 5, 4 / 3),
    ],
)
def test_labels_by_hand(verdicts: list[int], chosen: str, p_chosen: float, margin: float) -> None:
    said = [judgement("i", f"r{i}", verdict=one) for i, one in enumerate(verdicts)]
    (pair,), report = aggregate([comparison("i")], said)
    assert pair.chosen.text == chosen
    assert {pair.chosen.text, pair.rejected.text} == {"yes", "no"}
    assert pair.p_chosen == pytest.approx(p_chosen)
    assert pair.margin == pytest.approx(margin)
    assert list(pair.judgement_ids) == [one.id for one in said]
    assert (report.num_pairs, report.num_votes) == (1, len(verdicts))


@pytest.mark.parametrize("verdicts", [[1, -1], [0], [0, 0, 0], [3, -1]])
def test_equal_votes_make_no_pair_and_are_counted(verdicts: list[int]) -> None:
    said = [judgement("i", f"r{i}", verdict=one) for i, one in enumerate(verdicts)]
    pairs, report = aggregate([comparison("i")], said)
    assert pairs == []
    assert report.num_equal_votes == 1


def test_everything_left_out_is_counted() -> None:
    items = [comparison("i"), comparison("same", "x", "x"), comparison("unjudged")]
    said = [
        judgement("i", "ann", verdict=-1),
        judgement("i", "ann", verdict=2),  # again: the last counts
        judgement("i", "bob", skip="?"),
        judgement("i", "eve", rewrite="mine"),
        judgement("same", "ann"),
        judgement("i", "robot", verdict=1, simulated=True),
    ]
    (pair,), report = aggregate(items, said)
    assert pair.simulated
    assert pair.chosen.text == "no"
    assert report.as_dict() == {
        "num_judgements": 6,
        "num_skipped": 1,
        "num_without_preference": 1,
        "num_repeated": 1,
        "num_votes": 3,
        "num_pairs": 1,
        "num_equal_votes": 0,
        "num_identical": 1,
        "num_simulated": 1,
        "num_checks": 0,
        "num_excluded": 0,
        "num_adjudicated": 0,
    }


def test_ranking_expands_into_its_pairs() -> None:
    item = comparison("i", "a", "b", "d")
    said = judgement("i", ranking=(2, 1, 2), shown_order=(0, 1, 2))
    assert [(one.first, one.second, one.sign) for one in votes_of(said)] == [
        (0, 1, 1),
        (0, 2, 0),
        (1, 2, -1),
    ]
    pairs, report = aggregate([item], [said])
    assert [(one.item, one.chosen.text, one.rejected.text) for one in pairs] == [
        ("i#0-1", "b", "a"),
        ("i#1-2", "b", "d"),
    ]
    assert report.num_equal_votes == 1


def test_demonstrations_are_what_raters_wrote() -> None:
    said = [judgement("i", rewrite="mine"), judgement("i", rewrite=""), judgement("i", verdict=1)]
    assert [one.completion for one, _ in demonstrations([comparison("i")], said)] == ["mine"]


def test_labels_of_a_campaign_use_what_stands(sqlite_store: Store) -> None:
    fill(sqlite_store, 2)
    first = judgement("i0", verdict=-3)
    sqlite_store.record([first, judgement("i0", verdict=1, supersedes=first.id)])
    (pair,), report = aggregate(sqlite_store.comparisons("c"), sqlite_store.judgements("c"))
    assert pair.chosen.text == "no"
    assert report.num_judgements == 1


def test_what_was_taken_back_counts_nowhere() -> None:
    said = [judgement("i", "ann", verdict=2), judgement("i", "bob", skip=UNDONE)]
    (pair,), report = aggregate([comparison("i")], [*said, judgement("i", "eve", skip="hard")])
    assert pair.judgement_ids == (said[0].id,)
    assert (report.num_judgements, report.num_skipped) == (2, 1)


@given(num_votes=st.integers(1, 50), data=st.data())
def test_smoothed_share_of_a_majority_is_a_probability_above_half(
    num_votes: int, data: st.DataObject
) -> None:
    num_for = data.draw(st.integers(num_votes // 2 + 1, num_votes))
    assert 0.5 < smoothed_share(num_for, num_votes) < 1
    assert smoothed_share(num_for, num_votes) + smoothed_share(
        num_votes - num_for, num_votes
    ) == pytest.approx(1)
