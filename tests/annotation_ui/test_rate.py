"""What a rater is shown and what is written: without HTTP, on a real store."""

from dataclasses import replace

import pytest

from annotation_ui.rate import (
    NUM_HISTORY,
    UNDONE,
    Submission,
    describe,
    next_showing,
    submit,
    undo,
    view,
)
from annotation_ui.scale import SCALE, choice_of, verdict_of
from rlhf.errors import DataError
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, Prompt
from tests.annotation_ui.conftest import CAMPAIGN, comparison, make_desk


@pytest.fixture
def desk(tmp_path):
    desk = make_desk(tmp_path, [comparison(number) for number in range(12)])
    yield desk
    desk.store.close()


def seen(desk, **values) -> Submission:
    """What a page that shows the next item would send."""
    showing = next_showing(desk, "ada")
    base = Submission(
        ticket=showing.ticket, item=showing.comparison.item, shown_order=showing.shown_order
    )
    return replace(base, **{"choice": 0, "seconds": 1.5, **values})


def rate(desk, **values) -> Judgement:
    return submit(desk, "ada", seen(desk, **values))


def test_the_scale_runs_from_a_to_b_with_the_tie_in_the_middle():
    assert [choice for choice, _, _ in SCALE] == [-3, -2, -1, 0, 1, 2, 3]
    assert [words for _, words, _ in SCALE][::3] == [
        "A is much better",
        "About the same",
        "B is much better",
    ]


def test_a_choice_means_the_completion_that_was_on_that_side():
    assert verdict_of(-3, (0, 1)) == -3  # A was completions[0], and it is much better
    assert verdict_of(-3, (1, 0)) == 3  # A was completions[1]
    assert choice_of(verdict_of(2, (1, 0)), (1, 0)) == 2


def test_sides_are_logged_and_both_orders_come_up(desk):
    orders = set()
    for _ in range(12):
        shown = view(desk, "ada")["item"]
        stored = rate(desk, choice=-1)
        orders.add(stored.shown_order)
        assert list(stored.shown_order) == shown["shown_order"]
        texts = [c.text for c in desk.comparison(stored.item).completions]
        assert shown["completions"][0]["raw"] == texts[stored.shown_order[0]]
        # "A is slightly better": the sign points at the completion that stood left
        assert stored.verdict == (-1 if stored.shown_order[0] == 0 else 1)
    assert orders == {(0, 1), (1, 0)}


def test_a_judgement_holds_everything_that_was_said(desk):
    stored = rate(desk, choice=3, both_bad=True, rationale="  because \n", seconds=7.25)
    (row,) = desk.store.judgements(CAMPAIGN)
    assert row == stored
    assert (row.annotator, row.simulated, row.both_bad) == ("ada", False, True)
    assert (row.rationale, row.seconds, row.guideline_version) == ("because", 7.25, 1)
    assert abs(row.verdict) == 3


def test_a_retry_writes_nothing_and_returns_what_is_stored(desk):
    submission = seen(desk, choice=2)
    first = submit(desk, "ada", submission)
    assert submit(desk, "ada", submission) == first
    second_thought = replace(submission, choice=-2, seconds=9)
    assert submit(desk, "ada", second_thought) == first
    assert desk.store.judgements(CAMPAIGN, current_only=False) == [first]


def test_a_skip_keeps_its_reason_and_nothing_else(desk):
    stored = rate(desk, choice=None, skip=" too hard ", both_bad=True, rationale="note")
    assert (stored.skip, stored.verdict, stored.both_bad) == ("too hard", None, False)
    assert stored.rationale == "note"


def test_a_skip_cannot_pose_as_an_undo(desk):
    assert rate(desk, choice=None, skip=UNDONE).skip != UNDONE
    assert view(desk, "ada")["progress"]["done"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"choice": None}, "no choice"),
        ({"choice": 4}, "no choice"),
        ({"choice": None, "skip": "  "}, "needs a reason"),
        ({"item": "item-11"}, "not before you"),
        ({"item": "no such item"}, "not before you"),
        ({"ticket": "lease forged", "item": "item-5"}, "not before you"),
    ],
)
def test_impossible_submissions_are_refused(desk, values, message):
    with pytest.raises(DataError, match=message):
        rate(desk, **values)
    assert desk.store.judgements(CAMPAIGN) == []


def test_sides_that_were_not_on_screen_are_refused(desk):
    submission = seen(desk)
    flipped = replace(submission, shown_order=submission.shown_order[::-1])
    with pytest.raises(DataError, match="other sides"):
        submit(desk, "ada", flipped)


def test_another_raters_lease_cannot_be_used(desk):
    desk.store.add_annotator(Annotator(name="eve"))
    submission = seen(desk)
    with pytest.raises(DataError, match="not before you"):
        submit(desk, "eve", submission)
    assert desk.store.judgements(CAMPAIGN) == []


@pytest.mark.parametrize(
    ("claimed", "stored"), [(float("nan"), 0), (float("inf"), 0), (-5, 0), (1e9, 86400), (2, 2)]
)
def test_claimed_seconds_are_kept_plausible(desk, claimed, stored):
    assert rate(desk, seconds=claimed).seconds == stored


def test_undo_appends_a_row_and_brings_the_pair_back_on_the_same_sides(desk):
    first = rate(desk, choice=-3, both_bad=True, rationale="why", seconds=4)
    waiting = next_showing(desk, "ada").comparison.item
    undone = undo(desk, "ada", first.id)
    assert (undone.supersedes, undone.skip, undone.verdict) == (first.id, UNDONE, None)
    again = view(desk, "ada")
    assert again["item"]["item"] == first.item
    assert again["item"]["shown_order"] == list(first.shown_order)
    assert again["item"]["previous"] == {"choice": -3, "both_bad": True, "rationale": "why"}
    assert again["progress"] == {"done": 0, "total": 12}
    second = rate(desk, choice=2, seconds=3)
    assert (second.item, second.supersedes, second.seconds) == (first.item, undone.id, 7)
    assert desk.store.judgements(CAMPAIGN) == [second]
    assert len(desk.store.judgements(CAMPAIGN, current_only=False)) == 3
    assert next_showing(desk, "ada").comparison.item == waiting


def test_several_undone_pairs_come_back_latest_first(desk):
    rated = [rate(desk) for _ in range(3)]
    for judgement in reversed(rated):
        undo(desk, "ada", judgement.id)
    assert [rate(desk).item for _ in range(3)] == [judgement.item for judgement in rated]
    assert view(desk, "ada")["progress"] == {"done": 3, "total": 12}


def test_undo_twice_changes_nothing(desk):
    first = rate(desk)
    assert undo(desk, "ada", first.id) == undo(desk, "ada", first.id)
    assert len(desk.store.judgements(CAMPAIGN, current_only=False)) == 2


def test_nobody_undoes_what_is_not_theirs_or_no_longer_stands(desk):
    first = rate(desk)
    desk.store.add_annotator(Annotator(name="eve"))
    with pytest.raises(DataError, match="not yours"):
        undo(desk, "eve", first.id)
    with pytest.raises(DataError, match="not yours"):
        undo(desk, "ada", "no such judgement")
    undone = undo(desk, "ada", first.id)
    with pytest.raises(DataError, match="not yours"):
        undo(desk, "ada", undone.id)


def test_a_pair_taken_back_and_judged_by_others_since_does_not_block(desk):
    first = rate(desk)
    undo(desk, "ada", first.id)
    desk.store.add_annotator(Annotator(name="bob"))
    other = Judgement(
        **{
            **{name: getattr(first, name) for name in Judgement.__dataclass_fields__},
            "id": "bobs",
            "annotator": "bob",
        }
    )
    desk.store.record([other])
    assert next_showing(desk, "ada").comparison.item != first.item
    (closed,) = desk.store.judgements(CAMPAIGN, annotator="ada")
    assert closed.skip == "taken back, and judged by others since"
    assert view(desk, "ada")["item"] is not None


def test_the_end_says_that_all_is_done(tmp_path):
    desk = make_desk(tmp_path, [comparison(1)])
    rate(desk)
    end = view(desk, "ada")
    assert end["item"] is None
    assert end["empty"]["title"] == "All done"
    assert end["progress"] == {"done": 1, "total": 1}
    undo(desk, "ada", end["history"][0]["id"])
    assert view(desk, "ada")["item"]["item"] == "item-1"
    desk.store.close()


def test_a_rater_without_work_is_told_why(tmp_path):
    desk = make_desk(tmp_path, [comparison(1)])
    desk.store.add_annotator(Annotator(name="bob"))
    desk.store.next_assignment(CAMPAIGN, "bob")
    assert view(desk, "ada")["empty"]["title"] == "Nothing for you right now"
    desk.store.close()


def test_history_is_short_newest_first_and_in_words(desk):
    for choice in (-3, 0, 1, 2, 3, -1, -2, 0):
        rate(desk, choice=choice)
    history = view(desk, "ada")["history"]
    assert len(history) == 6
    assert history[0]["words"] == "About the same"
    assert history[1]["words"] == "A is better"
    assert history[0]["prompt"].startswith("Question")


def test_describe_names_what_was_on_screen(desk):
    flagged = rate(desk, choice=1, both_bad=True)
    assert describe(flagged) == "B is slightly better, both bad"
    assert describe(rate(desk, choice=None, skip="why not")) == "Skipped: why not"


def test_a_conversation_is_shown_turn_by_turn(tmp_path):
    turns = [
        {"role": "system", "content": "Be <b>brief</b>."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "tool", "content": "{}"},
        {"role": "user", "content": "Why?"},
    ]
    completions = (Completion(text="a", ended=False), Completion(text=""))
    item = Comparison(prompt=Prompt(content=turns), completions=completions, item="talk")
    desk = make_desk(tmp_path, [item])
    shown = view(desk, "ada")["item"]
    labels = [turn["label"] for turn in shown["turns"]]
    assert labels == ["Instructions to the model", "User", "Model", "tool", "User"]
    assert "<b>" not in shown["turns"][0]["html"]
    ended = {completion["raw"]: completion["ended"] for completion in shown["completions"]}
    assert ended == {"a": False, "": None}
    desk.store.close()


def test_the_guideline_shown_is_the_version_that_is_recorded(desk):
    before = seen(desk)
    desk.store.revise_guideline(CAMPAIGN, "A new rule.")
    shown = view(desk, "ada")
    stored = submit(desk, "ada", before)
    text = desk.store.guideline(CAMPAIGN, stored.guideline_version)
    assert ("new rule" in shown["guideline"]) == ("new rule" in text)
    rate(desk)
    assert "new rule" in view(desk, "ada")["guideline"]


def test_the_end_of_ones_own_part_says_what_is_waited_for(tmp_path):
    desk = make_desk(tmp_path, [comparison(number) for number in range(3)], overlap=2)
    rate(desk)
    rate(desk, choice=None, skip="too hard")
    rate(desk)
    empty = view(desk, "ada")["empty"]
    assert empty["title"] == "You have done your part"
    assert "You have judged 2 and skipped 1" in empty["text"]
    assert "3 pairs wait for other raters" in empty["text"]
    assert "2 different raters" in empty["text"]
    desk.store.close()


def test_pairs_that_others_have_open_are_said_to_be(tmp_path):
    desk = make_desk(tmp_path, [comparison(0)])
    desk.store.add_annotator(Annotator(name="eve"))
    assert next_showing(desk, "eve") is not None
    empty = view(desk, "ada")["empty"]
    assert empty["title"] == "Nothing for you right now"
    assert "1 pair waits" in empty["text"]
    desk.store.close()


def test_a_request_reads_no_more_when_more_has_been_judged(desk, monkeypatch):
    read = []
    judgements = Store.judgements

    def counted(*args, **values):
        found = judgements(*args, **values)
        read.append(len(found))
        return found

    monkeypatch.setattr(Store, "judgements", counted)
    for _ in range(11):
        rate(desk)
        view(desk, "ada")
    assert view(desk, "ada")["progress"] == {"done": 11, "total": 12}
    assert max(read) == NUM_HISTORY


def test_progress_counts_what_was_taken_back_among_what_is_left(desk):
    rate(desk)
    second = rate(desk)
    undo(desk, "ada", second.id)
    shown = view(desk, "ada")
    assert shown["progress"] == {"done": 1, "total": 12}
    assert shown["item"]["item"] == second.item
    assert desk.store.progress(CAMPAIGN).num_skipped == 0
    assert UNDONE not in [row.skip for row in desk.store.judgements(CAMPAIGN)]
