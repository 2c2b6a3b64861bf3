"""`Store.problems` finds what no program of ours would write."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import answer, fill, judgement

GUARDS = ("judgements_no_replace", "judgements_no_update", "judgements_no_delete")


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


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_invariant_is_found(judged_path: Path, name: str) -> None:
    statements, message = BROKEN[name]
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
            connection.execute(text("ALTER TABLE judgements DISABLE TRIGGER ALL"))
        assert len(store.problems()) == 2
