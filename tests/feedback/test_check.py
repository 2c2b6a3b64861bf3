"""`Store.problems` finds what no program of ours would write."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import answer, comparison, fill, judgement

GUARDS = tuple(
    f"{table}_no_{change}"
    for table in ("judgements", "rater_decisions", "adjudications", "consents")
    for change in ("replace", "update", "delete")
)


@pytest.fixture
def judged_path(sqlite_store: Store, store_path: Path) -> Path:
    """A store with leases, skips, revisions and simulated raters in which all is well."""
    fill(sqlite_store, 4, raters=["ann", "bob"])
    sqlite_store.add_annotator(Annotator(name="robot", simulated=True))
    for rater in ("ann", "bob", "ann"):
        lease = sqlite_store.next_assignment("c", rater)
        assert lease is not None
        answer(sqlite_store, lease, verdict=1)
    last = sqlite_store.judgements(annotator="bob")[0]
    sqlite_store.revise(
        judgement("i1", "bob", id="revised", verdict=2, supersedes=last.id), idempotency_key="r"
    )
    sqlite_store.record([judgement("i3", "robot", simulated=True, id="simulated")])
    assert sqlite_store.problems() == []
    sqlite_store.close()
    return store_path


BROKEN = {
    "value out of range": (
        "PRAGMA ignore_check_constraints=ON; "
        "UPDATE judgements SET verdict = 7 WHERE id = 'revised'",
        "verdict 7 is not within -3..3",
    ),
    "content": (
        "UPDATE judgements SET verdict = -3 WHERE id = 'revised'",
        "judgement revised: its content has been changed",
    ),
    "comparison gone": (
        "DELETE FROM comparison_members WHERE comparison_id = 4; "
        "DELETE FROM comparisons WHERE id = 4",
        "refers to a row of comparisons that is not there",
    ),
    "rater of the superseded": (
        "UPDATE judgements SET annotator_id = 1 WHERE id = 'revised'",
        "which is another rater's",
    ),
    "item of the superseded": (
        "UPDATE judgements SET comparison_id = 1 WHERE id = 'revised'",
        "which is of another item",
    ),
    "circle": (
        "UPDATE judgements SET supersedes = 'revised' WHERE seq = 2",
        "which came later (a circle)",
    ),
    "simulated as a person": (
        "UPDATE judgements SET simulated = 0 WHERE id = 'simulated'",
        "simulated is False, and its annotator is not of that kind",
    ),
    "overlap": (
        "UPDATE assignments SET comparison_id = 1; UPDATE judgements SET comparison_id = 1 "
        "WHERE annotator_id < 3",
        "given to 2 raters, more than the overlap 1",
    ),
    "duplicate": (
        "UPDATE judgements SET comparison_id = 1 WHERE annotator_id = 1; "
        "UPDATE comparisons SET num_raters = 0 WHERE id = 3",
        "judged 2 times by 'ann' (duplicate)",
    ),
    "open lease": (
        "UPDATE assignments SET closed_at = NULL, outcome = NULL WHERE annotator_id = 2",
        "open, though its rater has judged the item",
    ),
    "count": ("UPDATE comparisons SET num_raters = 5 WHERE id = 4", "counted 5 raters"),
    "task": ("UPDATE campaigns SET task = 'ranking'", "says pairwise where the campaign takes"),
    "completion": ("UPDATE completions SET text = 'forged'", "its content has been changed"),
    "prompt": ("UPDATE prompts SET content = '\"forged\"'", "its content has been changed"),
    "members": (
        "DELETE FROM comparison_members WHERE position = 1",
        "1 completions, not 2",
    ),
    "no members": ("DELETE FROM comparison_members WHERE comparison_id = 4", "no completions"),
}


CHECKED_BROKEN = {
    "purpose of a judgement": (
        "UPDATE judgements SET purpose = 'fun' WHERE id = 'qualified'",
        "a purpose that there is not",
    ),
    "purpose of a lease": (
        "UPDATE assignments SET purpose = 'gold' WHERE purpose = 'qualification'",
        "judgement qualified: of another purpose than its assignment (gold)",
    ),
    "purpose of the content": (
        "UPDATE judgements SET purpose = 'gold' WHERE id = 'qualified'",
        "judgement qualified: its content has been changed",
    ),
    "purpose of the superseded": (
        "UPDATE judgements SET purpose = 'gold' WHERE id = 'first'",
        "supersedes first, which is of purpose gold, not rate",
    ),
    "retest of nothing": (
        "UPDATE judgements SET purpose = 'retest' WHERE id = 'only'; "
        "UPDATE assignments SET purpose = 'retest' WHERE id = "
        "(SELECT assignment_id FROM judgements WHERE id = 'only')",
        "judgement only: a retest of what its rater has not judged before",
    ),
    "purpose of an item": (
        "UPDATE comparisons SET purpose = 'retest' WHERE item = 'i0'",
        "item 'i0': of purpose 'retest', which items do not have",
    ),
    "gold without an answer": (
        "UPDATE comparisons SET gold = NULL WHERE item = 'g0'",
        "item 'g0': of purpose gold, with the expected answer None",
    ),
    "expected answer of an ordinary item": (
        "UPDATE comparisons SET gold = '{\"verdict\":1}' WHERE item = 'i0'",
        "item 'i0': of purpose rate, with the expected answer",
    ),
    "expected answer that cannot be": (
        "UPDATE comparisons SET gold = '{\"verdict\":7}' WHERE item = 'g0'",
        "item 'g0': the expected answer: verdict 7",
    ),
    "expected answer that is none": (
        "UPDATE comparisons SET gold = '[7]' WHERE item = 'g0'",
        "item 'g0': the expected answer: give at least one",
    ),
    "count of gold judgements": (
        "UPDATE comparisons SET num_raters = 1 WHERE item = 'q0'",
        "item 'q0': counted 1 raters, and there are 0",
    ),
    "count of reopened items": (
        "UPDATE comparisons SET num_raters = 1 WHERE item = 'i1'",
        "item 'i1': counted 1 raters, and there are 0",
    ),
    "gold twice": (
        "INSERT INTO judgements SELECT 99, 'again', comparison_id, annotator_id, NULL, 'again', "
        "content_hash, NULL, simulated, verdict, both_bad, ranking, ratings, rewrite, rewrite_of, "
        "skip, flags, rationale, seconds, created_at, shown_order, guideline_version, given, "
        "erased_at, purpose FROM judgements WHERE id = 'qualified'",
        "judged 2 times as qualification by 'ann' (duplicate)",
    ),
    "role": ("UPDATE annotators SET role = 'boss' WHERE name = 'ann'", "of role 'boss'"),
    "robot with a password": (
        "UPDATE annotators SET simulated = 1 WHERE name = 'lea'",
        "annotator 'lea': simulated, and yet can sign in",
    ),
    "password of the erased": (
        "UPDATE annotators SET password_hash = 'x' WHERE erased_at IS NOT NULL",
        "erased, and yet a password is there",
    ),
    "personal data of the erased": (
        "UPDATE annotators SET personal = '{}' WHERE erased_at IS NOT NULL",
        "erased, and yet personal data is there",
    ),
    "identity of the erased": (
        "UPDATE identities SET annotator_id = "
        "(SELECT id FROM annotators WHERE erased_at IS NOT NULL)",
        "erased, and yet an identity is there",
    ),
    "session of the erased": (
        "UPDATE sessions SET annotator_id = (SELECT id FROM annotators WHERE erased_at NOT NULL)",
        "erased, and yet a session is there",
    ),
    "invite of the erased": (
        "UPDATE invites SET annotator_id = (SELECT id FROM annotators WHERE erased_at NOT NULL)",
        "erased, and yet an invite is there",
    ),
    "words of the erased": (
        "UPDATE judgements SET rationale = 'mine' WHERE erased_at IS NOT NULL",
        "erased, and yet words is there",
    ),
    "reason about the erased": (
        "UPDATE rater_decisions SET reason = 'they said' WHERE erased_at IS NOT NULL",
        "erased, and yet a reason is there",
    ),
    "invite used by nobody": (
        "UPDATE invites SET used_at = created_at",
        "used by nobody, or used and withdrawn",
    ),
    "weight": (
        "PRAGMA ignore_check_constraints=ON; UPDATE rater_decisions SET weight = 3 WHERE id = 1",
        "decision 1: weight 3.0",
    ),
    "reopened at full weight": (
        "UPDATE rater_decisions SET weight = 1 WHERE reopen",
        "reopen True cannot be",
    ),
    "decision without a reason": (
        "UPDATE rater_decisions SET reason = '' WHERE id = 1",
        "decision 1: without a reason",
    ),
    "consent": (
        "UPDATE consents SET text = 'All your data is ours.'",
        "consent of annotator 1: its text has been changed",
    ),
    "adjudication of another item": (
        "UPDATE adjudications SET comparison_id = 3",
        "judgement settled is of another item",
    ),
    "adjudication by another": (
        "UPDATE adjudications SET decided_by = 1",
        "judgement settled is another's",
    ),
    "adjudication by an ordinary judgement": (
        "UPDATE adjudications SET judgement_id = 'only'",
        "judgement only is of purpose rate",
    ),
    "adjudication in force by nobody": (
        "DELETE FROM adjudications",
        "judgement settled: of purpose adjudication, and nobody put it in force",
    ),
    "adjudication of what is not there": (
        "UPDATE adjudications SET judgement_id = 'none'",
        "adjudications row 1: refers to a row of judgements that is not there",
    ),
}


@pytest.fixture
def checked_path(sqlite_store: Store, store_path: Path) -> Path:
    """A store with checks of raters, decisions, adjudications and accounts; all is well."""
    store = sqlite_store
    consent = {"consent": "We keep what you say.", "qualify_share": 0.5}
    fill(store, 3, raters=["ann", "bob", "eve"], settings=consent)
    store.add_annotator(Annotator(name="lea", role="lead"))
    store.add_comparisons("c", [comparison("g0")], purpose="gold", gold={"g0": {"verdict": 1}})
    store.add_comparisons("c", [comparison("q0")], purpose="qualification")
    for rater, ids in (("ann", ("qualified", "first", "only")), ("bob", ("q", "o"))):
        store.agree("c", rater, consent["consent"])  # type: ignore[arg-type]
        for identity in ids:
            lease = store.next_assignment("c", rater)
            assert lease is not None
            answer(store, lease, id=identity)
        if rater == "ann":
            revised = judgement("i0", id="revised", verdict=2, supersedes="first")
            store.revise(revised, idempotency_key="r")
            store.decide_on_rater("c", rater, weight=0.5, reason="why", decided_by="lea")
            store.decide_on_rater("c", rater, weight=0, reason="why", decided_by="lea", reopen=True)
    said = judgement("i1", "lea", id="settled", verdict=3)
    store.adjudicate(said, reason="because", idempotency_key="s")
    store.record([judgement("i2", "eve", rationale="words")])
    store.decide_on_rater("c", "eve", weight=0.5, reason="Eve said so", decided_by="lea")
    store.erase_annotator("eve")
    store.set_password_hash("lea", "argon2...")
    store.link_identity("lea", "https://id", "1")
    store.open_session("lea", lifetime_s=10**6)
    store.create_invite()
    assert store.problems() == []
    store.close()
    return store_path


@pytest.mark.parametrize("name", CHECKED_BROKEN)
def test_each_broken_check_of_raters_is_found(checked_path: Path, name: str) -> None:
    break_and_find(checked_path, *CHECKED_BROKEN[name])


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_invariant_is_found(judged_path: Path, name: str) -> None:
    break_and_find(judged_path, *BROKEN[name])


def break_and_find(judged_path: Path, statements: str, message: str) -> None:
    """Change a store behind its guards; the check finds it, in one line."""
    with closing(sqlite3.connect(judged_path)) as connection:
        triggers = dict(
            connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        )
        for trigger in triggers:
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.executescript(statements)
        for definition in triggers.values():
            connection.execute(definition)
        connection.commit()
    with Store.open(judged_path) as store:
        problems = store.problems()
    assert any(message in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize("guard", GUARDS)
def test_missing_guard_is_found(judged_path: Path, guard: str) -> None:
    with closing(sqlite3.connect(judged_path)) as connection:
        connection.execute(f"DROP TRIGGER {guard}")
    with Store.open(judged_path) as store:
        assert [guard in problem for problem in store.problems()] == [True]


def test_missing_guard_is_found_on_postgresql(postgres_url: str) -> None:
    from sqlalchemy import text

    with Store.open(postgres_url, create=True) as store:
        assert store.problems() == []
        with store._database.writing() as connection:
            for table in ("judgements", "rater_decisions", "adjudications", "consents"):
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        assert len(store.problems()) == 2 + 3 * 3
