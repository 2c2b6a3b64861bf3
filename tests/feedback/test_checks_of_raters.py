"""Gold items, retests, qualification, consent, pauses, leads' decisions and adjudication."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import ConsentNeeded, JudgementError, Store, display_order
from rlhf.records import Annotator, Judgement
from tests.feedback.makers import NOON, answer, comparison, fill, judgement


def fill_with_checks(
    store: Store, num_items: int, *, num_gold: int = 0, num_qualify: int = 0, **settings: Any
) -> None:
    """Campaign `c` with raters ann and bob, lead lea, and items i*, g* and q*, expected A."""
    raters = settings.pop("raters", ("ann", "bob"))
    overlap = settings.pop("overlap", 1)
    fill(store, num_items, raters=raters, overlap=overlap, settings=settings)
    store.add_annotator(Annotator(name="lea", role="lead"))
    for letter, purpose, number in (("g", "gold", num_gold), ("q", "qualification", num_qualify)):
        items = [comparison(f"{letter}{index}") for index in range(number)]
        gold = {one.item: {"verdict": -1} for one in items}
        store.add_comparisons("c", items, purpose=purpose, gold=gold)  # type: ignore[arg-type]


def rate_all(store: Store, rater: str, **values: Any) -> list[Judgement]:
    said = []
    while lease := store.next_assignment("c", rater):
        said.append(answer(store, lease, **values))
    return said


def test_gold_items_come_to_every_rater_once_among_the_others(store: Store) -> None:
    fill_with_checks(store, 40, num_gold=5, gold_share=0.3, overlap=2)
    for rater in ("ann", "bob"):
        said = rate_all(store, rater, verdict=-2)
        purposes = Counter(one.purpose for one in said)
        assert purposes == {"rate": 40, "gold": 5}
        assert said[-1].purpose == "rate"  # nothing checks a rater who has no more to rate
        items = [one.item for one in said]
        assert len(set(items)) == len(items)
        assert items != sorted(items, key=lambda item: item[0])  # they are mixed in
    progress = store.progress("c")
    assert (progress.num_items, progress.num_complete, progress.num_judgements) == (40, 40, 80)
    assert set(store.purposes("c").values()) == {"rate", "gold"}
    assert store.gold("c") == {f"g{index}": {"verdict": -1} for index in range(5)}
    assert len(store.judgements("c", purposes=["gold"])) == 10
    assert len(store.judgements("c", purposes=["rate", "gold"])) == 90
    assert store.problems() == []


def test_shares_of_gold_and_retests_are_near_what_is_asked(sqlite_store: Store) -> None:
    fill_with_checks(sqlite_store, 300, num_gold=100, gold_share=0.15, retest_share=0.1)
    purposes = Counter(one.purpose for one in rate_all(sqlite_store, "ann"))
    total = sum(purposes.values())
    # n is about 400, so four standard deviations are 0.07 and 0.06
    assert purposes["gold"] / total == pytest.approx(0.15, abs=0.07)
    assert purposes["retest"] / total == pytest.approx(0.10, abs=0.06)
    assert purposes["rate"] == 300
    assert sqlite_store.problems() == []


def test_what_is_drawn_follows_from_the_seed(sqlite_store: Store, tmp_path: Any) -> None:
    orders = []
    for number in range(2):
        with Store.open(tmp_path / f"{number}.db", create=True) as store:
            fill_with_checks(store, 30, num_gold=8, gold_share=0.3, retest_share=0.2)
            orders.append([(one.item, one.shown_order) for one in rate_all(store, "ann")])
    assert orders[0] == orders[1]


def test_retest_is_an_own_item_of_long_ago_shown_anew(store: Store) -> None:
    fill_with_checks(store, 60, retest_share=0.4)
    said = rate_all(store, "ann")
    place = {one.item: index for index, one in enumerate(said) if one.purpose == "rate"}
    retests = [(index, one) for index, one in enumerate(said) if one.purpose == "retest"]
    assert len(retests) > 10
    for index, one in retests:
        assert index - place[one.item] > 5
        assert one.shown_order == display_order(0, one.item, "ann", 2, "retest")
    assert len({one.item for _, one in retests}) == len(retests)  # each at most once
    turned = [one.shown_order != said[place[one.item]].shown_order for _, one in retests]
    assert True in turned
    assert False in turned
    progress = store.own_progress("c", "ann")
    assert (progress.num_judged, progress.num_left) == (len(said), 0)
    assert store.num_raters("c", retests[0][1].item) == 1
    assert store.problems() == []


def test_skipped_and_taken_back_items_are_not_retested(sqlite_store: Store) -> None:
    fill_with_checks(sqlite_store, 30, retest_share=0.5)
    while lease := sqlite_store.next_assignment("c", "ann"):
        assert lease.purpose == "rate"
        answer(sqlite_store, lease, skip="no")


def test_an_expired_check_is_given_again(store: Store) -> None:
    fill_with_checks(store, 1, num_qualify=1)
    first = store.next_assignment("c", "ann", now=NOON)
    assert first is not None
    assert first.purpose == "qualification"
    late = NOON + timedelta(days=1)
    again = store.next_assignment("c", "ann", now=late)
    assert again is not None
    assert again.id == first.id
    assert answer(store, again, now=late).purpose == "qualification"


def test_qualification_comes_first_and_shuts_out_who_fails(store: Store) -> None:
    fill_with_checks(store, 3, num_qualify=4, qualify_share=0.75, overlap=2)
    for verdict in (-1, -3, 1, 1):  # two of four as expected
        lease = store.next_assignment("c", "ann")
        assert lease is not None
        assert lease.purpose == "qualification"
        assert store.standing_of("c", "ann") == "open"
        answer(store, lease, verdict=verdict)
    assert store.standing_of("c", "ann") == "unqualified"
    assert store.next_assignment("c", "ann") is None
    for verdict in (-1, -2, -3, 1):  # three of four are enough
        lease = store.next_assignment("c", "bob")
        assert lease is not None
        answer(store, lease, verdict=verdict)
    rated = rate_all(store, "bob")
    assert [one.item for one in rated] == ["i0", "i1", "i2"]
    assert store.progress("c").num_judgements == 3
    store.decide_on_rater("c", "ann", weight=0.5, reason="knows the field", decided_by="lea")
    assert store.standing_of("c", "ann") == "open"
    assert len(rate_all(store, "ann")) == 3
    assert store.problems() == []


def test_failed_qualification_cannot_be_mended_by_undoing(store: Store) -> None:
    fill_with_checks(store, 1, num_qualify=2, qualify_share=1.0)
    first = store.next_assignment("c", "ann")
    assert first is not None
    wrong = answer(store, first, verdict=1)
    undone = replace(wrong, id="u", supersedes=wrong.id, skip=UNDONE, verdict=None)
    store.revise(undone, idempotency_key="u")  # before the end a slip is mended
    right = replace(wrong, id="r", supersedes="u", verdict=-1)
    assert store.revise(right, idempotency_key="r").purpose == "qualification"
    last = store.next_assignment("c", "ann")
    assert last is not None
    failed = answer(store, last, verdict=3)
    for values in ({"verdict": -1}, {"verdict": None, "skip": UNDONE}):
        late = replace(failed, id="late", supersedes=failed.id, **values)  # type: ignore[arg-type]
        with pytest.raises(JudgementError, match="the qualification round is over"):
            store.revise(late, idempotency_key="late")
    assert store.standing_of("c", "ann") == "unqualified"


def test_qualification_without_a_share_asks_for_nothing(store: Store) -> None:
    fill_with_checks(store, 1, num_qualify=1)
    assert [one.purpose for one in rate_all(store, "ann", verdict=3)] == ["qualification", "rate"]


def test_item_becomes_gold_and_an_ordinary_one_again(store: Store) -> None:
    fill_with_checks(store, 3, gold_share=0.5)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    first = answer(store, lease)
    store.set_gold("c", "i0", {"verdict": 1})
    assert store.purposes("c") == {"i0": "gold", "i1": "rate", "i2": "rate"}
    assert store.progress("c").num_items == 2
    assert "i0" not in {one.item for one in rate_all(store, "ann")}  # they have judged it
    store.set_gold("c", "i0", None)
    assert store.gold("c") == {}
    assert store.progress("c").num_complete == 3
    assert store.judgements("c")[0] == first
    for item, expected, message in (("i0", {"verdict": 9}, "not within"), ("x", {}, "no item 'x'")):
        with pytest.raises((DataError, ConfigError), match=message):
            store.set_gold("c", item, expected)
    assert store.problems() == []


@pytest.mark.parametrize(
    ("purpose", "gold", "message"),
    [
        ("gold", {}, "needs its expected answer"),
        ("rate", {"n": {"verdict": 1}}, "to be rated, yet with an expected answer"),
        ("gold", {"n": {"ranking": [1, 2, 3]}}, "3 ranks for 2"),
        ("retest", {}, "items are of purpose rate, gold, qualification"),
    ],
)
def test_items_whose_purpose_cannot_be(
    sqlite_store: Store, purpose: Any, gold: dict[str, Any], message: str
) -> None:
    fill_with_checks(sqlite_store, 1)
    with pytest.raises(DataError, match=message):
        sqlite_store.add_comparisons("c", [comparison("n")], purpose=purpose, gold=gold)
    assert [one.item for one in sqlite_store.comparisons("c")] == ["i0"]


def test_a_judgement_has_its_leases_purpose_whatever_it_claims(store: Store) -> None:
    fill_with_checks(store, 1, num_qualify=1)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    said = judgement("q0", shown_order=lease.shown_order, purpose="rate", verdict=1)
    stored = store.submit(said, assignment_id=lease.id, idempotency_key="k")
    assert stored == replace(said, purpose="qualification")
    assert store.submit(said, assignment_id=lease.id, idempotency_key="k") == stored
    assert store.judgements("c") == [stored]


def test_consent_is_asked_for_before_the_first_item(store: Store) -> None:
    fill_with_checks(store, 1, consent="We keep it.")
    assert not store.has_agreed("c", "ann")
    assert store.standing_of("c", "ann") == "consent"
    with pytest.raises(ConsentNeeded, match="asks for your consent"):
        store.next_assignment("c", "ann")
    with pytest.raises(DataError, match="has changed meanwhile"):
        store.agree("c", "ann", "We keep")
    store.agree("c", "ann", "We keep it.")
    store.agree("c", "ann", "We keep it.")
    assert store.has_agreed("c", "ann")
    assert not store.has_agreed("c", "bob")
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    store.change_settings("c", {"consent": "We sell it."})
    assert not store.has_agreed("c", "ann")
    answer(store, lease)  # begun under the text that they agreed to
    with pytest.raises(ConsentNeeded):
        store.next_assignment("c", "ann")
    store.change_settings("c", {})
    assert store.has_agreed("c", "bob")
    assert store.problems() == []


def test_paused_campaign_gives_nothing_and_takes_what_was_begun(store: Store) -> None:
    fill_with_checks(store, 2)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    store.change_settings("c", {"paused": True})
    assert store.standing_of("c", "ann") == "paused"
    assert store.next_assignment("c", "ann") is None
    answer(store, lease)
    store.change_settings("c", {"paused": False})
    following = store.next_assignment("c", "ann")
    assert following is not None
    assert following.comparison.item == "i1"


def test_settings_that_ask_for_nonsense_are_refused(sqlite_store: Store) -> None:
    with pytest.raises(ConfigError, match="campaign 'c': gold_share 2"):
        sqlite_store.create_campaign("c", settings={"gold_share": 2})
    sqlite_store.create_campaign("c")
    with pytest.raises(ConfigError, match="campaign 'c': rationale 'often'"):
        sqlite_store.change_settings("c", {"rationale": "often"})


RUBRIC = {"criteria": [{"name": "help", "title": "Helpful", "low": 1, "high": 5}]}


@pytest.mark.parametrize(
    ("task", "settings", "values", "message"),
    [
        ("pairwise", {"rationale": "required"}, {"verdict": 1}, "asks for a reason"),
        ("pairwise", {"both_bad": False}, {"verdict": 0, "both_bad": True}, "does not ask"),
        ("pairwise", {}, {"verdict": 1, "flags": (("x",), ())}, "flag 'x' is not one"),
        ("ratings", RUBRIC, {"ratings": {"help": (3.0, None)}}, "not rated for every completion"),
        ("ratings", RUBRIC, {"ratings": {"help": (3.0, 6.0)}}, "not within 1..5"),
        ("flags", {"flags": ["unsafe"]}, {"flags": (("rude",), ())}, "flag 'rude' is not one"),
    ],
)
def test_answers_in_the_app_are_held_to_the_protocol(
    store: Store, task: Any, settings: Any, values: Any, message: str
) -> None:
    fill(store, 2, task=task, settings=settings)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    with pytest.raises(JudgementError, match=message):
        answer(store, lease, **values)
    assert store.judgements("c") == []
    skipped = answer(store, lease, skip="no")
    with pytest.raises(JudgementError, match=message):
        store.revise(judgement("i0", supersedes=skipped.id, **values), idempotency_key="k")
    store.record([judgement("i1", **values)])  # made elsewhere, by other rules
    assert store.problems() == []


def test_mixed_kinds_and_unnamed_rubrics_are_not_held_to_a_protocol(store: Store) -> None:
    fill(store, 1, task="pairwise", settings={"kinds": ["pairwise", "flags"]})
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    answer(store, lease, flags=(("anything",), ()))
    store.create_campaign("imported", task="ratings")
    store.add_comparisons("imported", [comparison("i")])
    lease = store.next_assignment("imported", "ann")
    assert lease is not None
    answer(store, lease, campaign="imported", ratings={"any": (1.0, 2.0)})


def decide(store: Store, weight: float, **values: Any) -> None:
    store.decide_on_rater("c", "ann", weight=weight, reason="r", decided_by="lea", **values)


def test_decisions_are_kept_and_the_last_one_holds(store: Store) -> None:
    fill_with_checks(store, 2)
    assert store.rater_weights("c") == {}
    for number, weight in enumerate((0.25, 0.0, 1.0)):
        decide(store, weight, now=NOON + timedelta(seconds=number))
    assert store.rater_weights("c") == {"ann": 1.0}
    [current] = store.rater_decisions("c")
    assert (current.weight, current.decided_by, current.reason) == (1.0, "lea", "r")
    assert current.created_at == NOON + timedelta(seconds=2)
    weights = [one.weight for one in store.rater_decisions("c", current_only=False)]
    assert weights == [0.25, 0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decided_by": "bob"}, "'bob' is no lead"),
        ({"weight": 1.5}, "give 0 .excluded. to 1"),
        ({"weight": float("nan")}, "give 0 .excluded. to 1"),
        ({"reason": " "}, "needs a reason"),
        ({"weight": 1.0, "reopen": True}, "only the items of an excluded rater"),
        ({"annotator": "zoe"}, "no annotator 'zoe'"),
    ],
)
def test_decisions_that_cannot_be(sqlite_store: Store, values: Any, message: str) -> None:
    fill_with_checks(sqlite_store, 1)
    said = {"weight": 0.0, "reason": "r", "decided_by": "lea", "annotator": "ann", **values}
    with pytest.raises((DataError, ConfigError), match=message):
        sqlite_store.decide_on_rater("c", said.pop("annotator"), **said)
    assert sqlite_store.rater_decisions("c", current_only=False) == []


def test_excluded_rater_gets_nothing_and_their_judgements_stay(store: Store) -> None:
    fill_with_checks(store, 3)
    for _ in range(2):
        lease = store.next_assignment("c", "ann")
        assert lease is not None
        answer(store, lease)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    decide(store, 0.0)
    assert store.standing_of("c", "ann") == "excluded"
    assert store.next_assignment("c", "ann") is None
    with pytest.raises(JudgementError, match="is closed"):
        answer(store, lease)
    assert store.progress("c").num_complete == 2
    assert [one.item for one in rate_all(store, "bob")] == ["i2"]
    decide(store, 1.0)
    assert store.standing_of("c", "ann") == "open"
    assert store.problems() == []


def test_reopened_items_go_to_others_until_it_is_taken_back(store: Store) -> None:
    fill_with_checks(store, 4)
    for _ in range(3):
        lease = store.next_assignment("c", "ann")
        assert lease is not None
        answer(store, lease)
    decide(store, 0.0, reopen=True)
    assert store.num_raters("c", "i0") == 0
    assert store.progress("c").num_complete == 0
    assert store.problems() == []
    lease = store.next_assignment("c", "bob")
    assert lease is not None
    assert lease.comparison.item == "i0"
    answer(store, lease)
    decide(store, 0.5)
    assert [store.num_raters("c", f"i{index}") for index in range(4)] == [2, 1, 1, 0]
    assert [one.item for one in rate_all(store, "bob")] == ["i3"]
    assert store.problems() == []  # i0 has one rater more than wanted, for a recorded reason
    decide(store, 0.0, reopen=True)
    decide(store, 0.0)  # excluded still, the items closed again
    assert store.progress("c").num_complete == 4
    assert store.problems() == []


def test_adjudication_is_a_leads_own_judgement_that_fills_no_place(store: Store) -> None:
    fill_with_checks(store, 2)
    said = judgement("i0", "lea", verdict=-3)
    stored = store.adjudicate(said, reason="see the guideline", idempotency_key="k", now=NOON)
    assert stored == replace(said, purpose="adjudication")
    assert store.adjudicate(said, reason="again", idempotency_key="k") == stored
    [settled] = store.adjudications("c")
    assert (settled.item, settled.judgement_id, settled.decided_by) == ("i0", said.id, "lea")
    assert (settled.reason, settled.created_at) == ("see the guideline", NOON)
    assert store.num_raters("c", "i0") == 0
    assert store.progress("c").num_judgements == 0
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    assert lease.comparison.item == "i0"
    later = judgement("i0", "lea", verdict=2)
    stored = store.adjudicate(later, reason="on reflection", idempotency_key="k2")
    assert stored.supersedes == said.id
    assert store.adjudicate(later, reason="retried", idempotency_key="k2") == stored
    assert [one.judgement_id for one in store.adjudications("c")] == [later.id]
    assert store.judgements("c", purposes=["adjudication"]) == [stored]
    store.withdraw_adjudication("c", "i0", decided_by="lea", reason="no")
    assert store.adjudications("c") == []
    history = store.adjudications("c", current_only=False)
    assert [one.judgement_id for one in history] == [said.id, later.id, None]
    with pytest.raises(DataError, match="no adjudication to withdraw"):
        store.withdraw_adjudication("c", "i0", decided_by="lea", reason="no")
    assert store.problems() == []


def test_adjudications_that_cannot_be(sqlite_store: Store) -> None:
    fill_with_checks(sqlite_store, 1)
    for said, message in (
        (judgement("i0", "ann"), "'ann' is no lead"),
        (judgement("i0", "lea", skip="no"), "cannot be a skip"),
        (judgement("i9", "lea"), "no item 'i9'"),
        (judgement("i0", "lea", verdict=5), "not within -3..3"),
    ):
        with pytest.raises(DataError, match=message):
            sqlite_store.adjudicate(said, reason="r", idempotency_key="k")
    stored = sqlite_store.adjudicate(judgement("i0", "lea"), reason="r", idempotency_key="k")
    changed = replace(stored, id="x", supersedes=stored.id, verdict=3)
    with pytest.raises(JudgementError, match="adjudicate it anew"):
        sqlite_store.revise(changed, idempotency_key="x")


def test_purposes_come_back_through_record(store: Store, tmp_path: Any) -> None:
    fill_with_checks(store, 12, num_gold=2, num_qualify=2, gold_share=0.3, retest_share=0.3)
    rate_all(store, "ann")
    store.adjudicate(judgement("i0", "lea"), reason="r", idempotency_key="k")
    said = store.judgements("c", current_only=False)
    assert {one.purpose for one in said} == {
        *("rate", "gold", "qualification"),
        *("retest", "adjudication"),
    }
    with Store.open(tmp_path / "copy.db", create=True) as copy:
        fill_with_checks(copy, 12, num_gold=2, num_qualify=2)
        assert copy.record(said) == len(said)
        assert copy.record(said) == 0
        assert copy.judgements("c", current_only=False) == said
        assert [one.judgement_id for one in copy.adjudications("c")] == [said[-1].id]
        assert copy.progress("c") == store.progress("c")
        assert copy.problems() == []


def test_a_revision_keeps_its_purpose(sqlite_store: Store) -> None:
    fill_with_checks(sqlite_store, 1, num_gold=1)
    gold = judgement("g0", purpose="gold")
    sqlite_store.record([gold])
    with pytest.raises(JudgementError, match="supersedes one of purpose gold"):
        sqlite_store.record([judgement("g0", supersedes=gold.id)])
    revised = sqlite_store.revise(
        judgement("g0", supersedes=gold.id, verdict=3), idempotency_key="k"
    )
    assert revised.purpose == "gold"
    assert sqlite_store.num_raters("c", "g0") == 0


def test_log_of_assignments(store: Store) -> None:
    fill_with_checks(store, 2, num_qualify=1)
    first = store.next_assignment("c", "ann", now=NOON)
    assert first is not None
    answer(store, first, now=NOON + timedelta(seconds=9))
    second = store.next_assignment("c", "ann", now=NOON + timedelta(seconds=10))
    assert second is not None
    rows = store.assignment_log("c")
    assert [(row.item, row.purpose, row.outcome) for row in rows] == [
        ("q0", "qualification", "judged"),
        ("i0", "rate", None),
    ]
    assert rows[0].closed_at == NOON + timedelta(seconds=9)
    assert rows[1].expires_at == second.expires_at


def test_guidelines_with_their_dates(store: Store) -> None:
    fill(store, 1, guideline="first")
    store.revise_guideline("c", "second")
    listed = store.guidelines("c")
    assert [(version, words) for version, words, _ in listed] == [(1, "first"), (2, "second")]
    assert listed[0][2] <= listed[1][2]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rater_decisions SET weight = 1",
        "UPDATE rater_decisions SET reason = 'other', erased_at = 'x'",
        "UPDATE rater_decisions SET reason = ''",
        "DELETE FROM rater_decisions",
        "UPDATE adjudications SET judgement_id = NULL",
        "UPDATE adjudications SET judgement_id = NULL, reason = '', erased_at = 'x'",
        "DELETE FROM adjudications",
        "UPDATE consents SET text = 'other'",
        "DELETE FROM consents",
        "UPDATE judgements SET purpose = 'gold'",
        "UPDATE judgements SET purpose = 'gold', rationale = '', erased_at = 'x'",
    ],
)
def test_the_database_refuses_changes_of_what_was_decided(store: Store, statement: str) -> None:
    fill_with_checks(store, 1, consent="yes?")
    decide(store, 0.5)
    store.agree("c", "ann", "yes?")
    store.adjudicate(judgement("i0", "lea", rationale="why"), reason="r", idempotency_key="k")
    with (
        pytest.raises((DBAPIError, DataError), match="append-only"),
        store._database.writing() as connection,
    ):
        connection.execute(text(statement))
    assert store.problems() == []
