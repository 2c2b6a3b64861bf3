"""What a rater is shown and what is written: without HTTP, on a real store."""

from dataclasses import replace

import pytest

from annotation_ui.rate import (
    UNDONE,
    Desk,
    Desks,
    Submission,
    keep_lease,
    next_showing,
    submit,
    undo,
)
from annotation_ui.view import NUM_HISTORY, NUM_SEARCHED, differences, history, view
from annotation_ui.words import describe
from rlhf.errors import ConfigError, DataError
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, Prompt
from tests.annotation_ui.conftest import CAMPAIGN, comparison, make_store


def make_desk(folder, comparisons, **campaign) -> Desk:
    return Desk(make_store(folder, comparisons, **campaign), CAMPAIGN)


@pytest.fixture
def desk(tmp_path):
    desk = make_desk(tmp_path, [comparison(number) for number in range(12)])
    yield desk
    desk.store.close()


@pytest.fixture
def desk_of(tmp_path):
    """Makes a desk of any task: `desk_of(task, num_completions, **settings)`."""
    made = []

    def make(task, num_completions=3, num_items=4, overlap=1, **settings):
        items = [
            Comparison(
                prompt=Prompt(content=f"Question {number}?"),
                completions=tuple(
                    Completion(text=f"text {letter} of {number}")
                    for letter in "abcdefghi"[:num_completions]
                ),
                item=f"item-{number}",
            )
            for number in range(num_items)
        ]
        desk = make_desk(tmp_path, items, task=task, overlap=overlap, settings=settings)
        made.append(desk)
        return desk

    yield make
    for desk in made:
        desk.store.close()


ANSWERS = ("choice", "both_bad", "ranks", "ratings", "rewrite", "rewrite_of", "flags")


def seen(desk, **values) -> Submission:
    """What a page that shows the next item would send."""
    showing = next_showing(desk, "ada")
    base = Submission(
        ticket=showing.ticket, item=showing.comparison.item, shown_order=showing.shown_order
    )
    answer = {name: values.pop(name) for name in ANSWERS if name in values}
    return replace(base, **{"answer": answer or {"choice": 0}, "seconds": 1.5, **values})


def rate(desk, **values) -> Judgement:
    return submit(desk, "ada", seen(desk, **values))


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
    second_thought = replace(submission, answer={"choice": -2}, seconds=9)
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
        ({"choice": None}, "nothing was chosen"),
        ({"ranks": [1, 2]}, "not on this campaign's scale"),
        ({"choice": 1, "flags": [["unsafe"], []]}, "not one of this campaign's"),
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
    with pytest.raises(DataError, match="another order"):
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
    said = {"choice": -3, "both_bad": True, "rationale": "why"}
    assert again["item"]["previous"] == said
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
    rate(desk, skip="too hard")
    rate(desk)
    empty = view(desk, "ada")["empty"]
    assert empty["title"] == "You have done your part"
    assert "You have judged 2 and skipped 1" in empty["text"]
    assert "3 items wait for other raters" in empty["text"]
    assert "2 different raters" in empty["text"]
    desk.store.close()


def test_pairs_that_others_have_open_are_said_to_be(tmp_path):
    desk = make_desk(tmp_path, [comparison(0)])
    desk.store.add_annotator(Annotator(name="eve"))
    assert next_showing(desk, "eve") is not None
    empty = view(desk, "ada")["empty"]
    assert empty["title"] == "Nothing for you right now"
    assert "1 item waits" in empty["text"]
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


# ---- every kind of answer --------------------------------------------------------------------

CRITERIA = [
    {"name": "helpfulness", "title": "Helpfulness"},
    {"name": "tone", "title": "Tone", "low": 0, "high": 2},
]
KINDS = {
    "ratings": (
        {"ratings": {"helpfulness": [5.0, 1.0, 3.0], "tone": [0.0, 2.0, 1.0]}},
        {"criteria": CRITERIA},
    ),
    "ranking": ({"ranks": [2, 1, 2]}, {}),
    "rewrite": ({"rewrite": "a better one", "rewrite_of": 1}, {}),
    "flags": ({"flags": [["unsafe"], [], []]}, {"flags": ["unsafe", "private"]}),
}
WORDS = {
    "ratings": "Helpfulness 5/1/3, Tone 0/2/1",
    "ranking": "B > A = C",
    "rewrite": "Rewrote B, 3 words",
    "flags": "A: Unsafe or harmful",
}


@pytest.mark.parametrize("task", KINDS)
def test_an_answer_of_any_kind_comes_back_as_it_was_given(desk_of, task):
    answer, settings = KINDS[task]
    desk = desk_of(task, **settings)
    stored = rate(desk, **answer, rationale="why")
    shown = view(desk, "ada")
    assert shown["history"][0]["words"] == WORDS[task]
    assert shown["form"]["task"] == task
    undo(desk, "ada", stored.id)
    previous = view(desk, "ada")["item"]["previous"]
    assert previous == {**answer, "rationale": "why"}
    again = rate(desk, **answer)
    assert (again.item, again.shown_order) == (stored.item, stored.shown_order)


def test_flags_stand_beside_another_task_by_completion(desk_of):
    desk = desk_of("ranking", flags=["unsafe", "off_topic"])
    stored = rate(desk, ranks=[1, 2, 3], flags=[["off_topic"], [], []])
    assert stored.flags[stored.shown_order[0]] == ("off_topic",)
    assert describe(stored, desk.protocol()) == "A > B > C; A: Off topic"
    unmarked = rate(desk, ranks=[1, 1, 1], flags=[[], [], []])
    assert unmarked.flags == ((), (), ())
    assert describe(unmarked, desk.protocol()) == "A = B = C"


@pytest.mark.parametrize(
    ("task", "answer", "message"),
    [
        ("ranking", {"ranks": [1, 2]}, "2 values for 3"),
        ("ranking", {"ranks": [0, 1, 2]}, "ranks begin at 1"),
        ("ranking", {"flags": [[], [], []]}, "asks for ranking"),
        (
            "ratings",
            {"ratings": {"helpfulness": [6.0, 1.0, 1.0], "tone": [0.0, 0.0, 0.0]}},
            "within 1..5",
        ),
        ("ratings", {"ratings": {"helpfulness": [5.0, 1.0, 1.0]}}, "Tone: not rated"),
        ("ratings", {"ratings": {"wit": [1.0, 1.0, 1.0]}}, "not one of this campaign's"),
        ("flags", {"flags": [["rude"], [], []]}, "not one of this campaign's"),
        ("rewrite", {"rewrite": "x", "rewrite_of": 5}, "not shown"),
        ("rewrite", {"rewrite": " \n"}, "is empty"),
    ],
)
def test_an_answer_that_does_not_fit_its_task_is_refused(desk_of, task, answer, message):
    desk = desk_of(task, **KINDS[task][1])
    with pytest.raises(DataError, match=message):
        rate(desk, **answer)
    assert desk.store.judgements(CAMPAIGN) == []


def test_a_needed_reason_is_needed(desk_of):
    desk = desk_of("pairwise", 2, rationale="required")
    with pytest.raises(DataError, match="write one"):
        rate(desk, choice=1, rationale="  ")
    assert rate(desk, choice=1, rationale="shorter").rationale == "shorter"
    assert rate(desk, skip="too hard").skip == "too hard"


# ---- what the page is told -------------------------------------------------------------------


def test_the_form_says_what_is_asked(desk_of):
    desk = desk_of("ratings", criteria=CRITERIA, flags=["private"], rationale="off", title="Tone")
    shown = view(desk, "ada")
    assert shown["title"] == "Tone"
    form = shown["form"]
    assert form["heading"] == "Rate each completion"
    assert form["criteria"][1] == {
        "name": "tone", "title": "Tone", "question": "", "low": 0, "high": 2, "anchors": {},
    }  # fmt: skip
    assert form["flags"] == [{"name": "private", "label": "Private data"}]
    assert (form["rationale"], form["both_bad"]) == ("off", True)


def test_nothing_tells_a_gold_item_from_another(desk):
    desk.store.set_gold(CAMPAIGN, "item-0", {"verdict": 2})
    shown = view(desk, "ada")["item"]
    plain = {"ticket", "item", "shown_order", "turns", "completions", "previous"}
    assert set(shown) == plain
    assert all(set(one) == {"raw", "html", "diff", "ended"} for one in shown["completions"])


def test_differences_of_more_than_two_are_against_the_one_that_is_asked(desk_of):
    desk = desk_of("ranking")
    shown = view(desk, "ada")["item"]
    assert [one["diff"] for one in shown["completions"]] == [None] * 3
    texts = [one["raw"] for one in shown["completions"]]
    for base in range(3):
        found = differences(desk, "ada", shown["ticket"], base)
        assert ["".join(text for text, _ in one) for one in found] == texts
        marked = [[text for text, changed in one if changed] for one in found]
        letters = [text.split()[1] for text in texts]
        assert marked == [[] if at == base else [letters[at]] for at in range(3)]
    with pytest.raises(DataError, match="no completion 3"):
        differences(desk, "ada", shown["ticket"], 3)
    with pytest.raises(DataError, match="not before you"):
        differences(desk, "ada", "lease forged", 0)


def test_a_lone_completion_has_no_differences(desk_of):
    shown = view(desk_of("ratings", 1, criteria=CRITERIA), "ada")["item"]
    assert [one["diff"] for one in shown["completions"]] == [None]


def test_the_guideline_says_its_version_and_the_one_last_judged_under(desk):
    assert (view(desk, "ada")["guideline_version"], view(desk, "ada")["guideline_seen"]) == (
        1,
        None,
    )
    rate(desk)
    desk.store.revise_guideline(CAMPAIGN, "A new rule.")
    rate(desk)  # still leased under the first version, or already under the second
    rate(desk)
    shown = view(desk, "ada")
    assert (shown["guideline_version"], shown["guideline_seen"]) == (2, 2)


def test_all_of_ones_judgements_can_be_searched(desk):
    rate(desk, choice=-3, rationale="cites a Source")
    rate(desk, choice=3)
    rate(desk, skip="too hard")
    assert [one["words"] for one in history(desk, "ada")["history"]][::2] == [
        "Skipped: too hard",
        "A is much better",
    ]
    found = history(desk, "ada", "SOURCE much")
    assert [one["words"] for one in found["history"]] == ["A is much better"]
    assert found["note"] == "1 of your 3 judgements"
    assert history(desk, "ada", "question 1?")["history"][0]["prompt"] == "Question 1?"
    assert history(desk, "ada", "nowhere said")["history"] == []


def test_the_list_of_all_ends_at_fifty_and_says_so(desk_of):
    desk = desk_of("pairwise", 2, num_items=NUM_SEARCHED + 2)
    for _ in range(NUM_SEARCHED + 2):
        rate(desk)
    found = history(desk, "ada")
    assert len(found["history"]) == NUM_SEARCHED
    assert found["note"] == "The last 50 of 52; search for others."


# ---- when there is nothing to judge ----------------------------------------------------------


def test_consent_comes_before_the_first_item(desk_of):
    desk = desk_of("pairwise", 2, consent="We keep your answers.")
    shown = view(desk, "ada")
    assert shown["item"] is None
    assert shown["empty"]["title"] == "Before you begin"
    assert shown["empty"]["link"] == ["/consent?campaign=everyday", "Read it"]
    desk.store.agree(CAMPAIGN, "ada", "We keep your answers.")
    assert view(desk, "ada")["item"] is not None


def pause(desk, on=True):
    campaign = desk.store.campaign(CAMPAIGN)
    desk.store.change_settings(CAMPAIGN, {**campaign.settings, "paused": on})


def test_a_pause_stops_the_next_item_and_is_said(desk):
    first = rate(desk)
    waiting = seen(desk, choice=1)
    pause(desk)
    assert view(desk, "ada")["empty"]["title"] == "Paused"
    undo(desk, "ada", first.id)
    assert view(desk, "ada")["empty"]["title"] == "Paused"
    with pytest.raises(DataError, match="paused"):
        submit(desk, "ada", waiting)
    pause(desk, on=False)
    assert view(desk, "ada")["item"]["item"] == first.item


def test_an_excluded_rater_is_told(desk):
    desk.store.add_annotator(Annotator(name="grace", role="lead"))
    desk.store.decide_on_rater(CAMPAIGN, "ada", weight=0, reason="test", decided_by="grace")
    empty = view(desk, "ada")["empty"]
    assert "ended your work" in empty["text"]
    assert empty["link"] == ["/campaigns", "All campaigns"]


def test_who_does_not_qualify_is_told(tmp_path):
    desk = make_desk(tmp_path, [comparison(1)], settings={"qualify_share": 1.0})
    desk.store.add_comparisons(
        CAMPAIGN, [comparison(9)], purpose="qualification", gold={"item-9": {"verdict": 3}}
    )
    shown = view(desk, "ada")["item"]
    wrong = -3 if shown["shown_order"] == [0, 1] else 3
    rate(desk, choice=wrong)
    assert "differ from what this campaign expects" in view(desk, "ada")["empty"]["text"]
    assert view(desk, "ada")["item"] is None
    desk.store.close()


def test_an_empty_campaign_says_so(tmp_path):
    desk = make_desk(tmp_path, [])
    assert view(desk, "ada")["empty"]["title"] == "Nothing here yet"
    desk.store.close()


# ---- desks and leases ------------------------------------------------------------------------


def test_desks_are_made_once_and_only_for_what_is_there(desk):
    desks = Desks(desk.store)
    assert desks.desk(CAMPAIGN) is desks.desk(CAMPAIGN)
    assert desks.desk(None).campaign == CAMPAIGN  # the only one
    with pytest.raises(ConfigError, match="every"):
        desks.desk("everydy")
    desk.store.create_campaign("second")
    with pytest.raises(ConfigError, match="home page"):
        desks.desk(None)


def test_a_lease_is_kept_while_somebody_works_and_lost_to_another(desk_of):
    desk = desk_of("pairwise", 2, num_items=1)
    ticket = next_showing(desk, "ada").ticket
    assert keep_lease(desk, "ada", ticket)
    with pytest.raises((DataError, ConfigError)):
        keep_lease(desk, "ada", "lease forged")
    judged = rate(desk)
    assert not keep_lease(desk, "ada", ticket)
    assert keep_lease(desk, "ada", f"redo {judged.id}")  # no lease, and none to lose
