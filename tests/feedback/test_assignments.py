"""Leases: exact overlap whatever raters do, and no lost or doubled work."""

import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.store import JudgementError, Store, display_order
from tests.feedback.makers import NOON, answer, fill, judgement


def test_rater_gets_each_item_once_in_order(store: Store) -> None:
    fill(store, 3)
    seen = []
    while lease := store.next_assignment("c", "ann"):
        seen.append((lease.comparison.item, lease.num_done, lease.num_left))
        answer(store, lease)
    assert seen == [("i0", 0, 3), ("i1", 1, 2), ("i2", 2, 1)]
    assert store.problems() == []


def test_open_lease_is_given_again_and_extended(store: Store) -> None:
    fill(store, 2, lease_s=60)
    first = store.next_assignment("c", "ann", now=NOON)
    again = store.next_assignment("c", "ann", now=NOON + timedelta(seconds=50))
    assert first is not None
    assert again is not None
    assert again == replace(first, expires_at=NOON + timedelta(seconds=110))


def test_overlap_counts_open_leases(store: Store) -> None:
    fill(store, 1, raters=["a", "b", "d"], overlap=2)
    assert store.next_assignment("c", "a", now=NOON)
    assert store.next_assignment("c", "b", now=NOON)
    assert store.next_assignment("c", "d", now=NOON) is None


def test_expired_lease_goes_back_to_others(store: Store) -> None:
    fill(store, 1, raters=["a", "b"], lease_s=60)
    lost = store.next_assignment("c", "a", now=NOON)
    assert lost is not None
    assert store.next_assignment("c", "b", now=NOON + timedelta(seconds=59)) is None
    late = NOON + timedelta(seconds=61)
    taken = store.next_assignment("c", "b", now=late)
    assert taken is not None
    with pytest.raises(JudgementError, match="ran out and another rater has taken it"):
        answer(store, lost, now=late)
    assert not store.renew(lost.id, "a", now=late)
    answer(store, taken, now=late)
    assert store.next_assignment("c", "a", now=late) is None
    assert [one.annotator for one in store.judgements("c")] == ["b"]
    assert store.problems() == []


def test_slow_thinker_keeps_their_work_while_nobody_took_the_place(store: Store) -> None:
    fill(store, 1, raters=["a", "b"], lease_s=60)
    lease = store.next_assignment("c", "a", now=NOON)
    assert lease is not None
    late = NOON + timedelta(hours=5)
    said = answer(store, lease, now=late)
    assert store.judgements("c") == [said]
    assert store.next_assignment("c", "b", now=late) is None


def test_renewed_lease_does_not_expire(store: Store) -> None:
    fill(store, 1, raters=["a", "b"], lease_s=60)
    lease = store.next_assignment("c", "a", now=NOON)
    assert lease is not None
    assert store.renew(lease.id, "a", now=NOON + timedelta(seconds=50))
    assert store.next_assignment("c", "b", now=NOON + timedelta(seconds=100)) is None
    with pytest.raises(DataError, match="'b' has no assignment"):
        store.renew(lease.id, "b", now=NOON)


def test_skipped_item_is_not_given_again_and_leaves_its_place_free(store: Store) -> None:
    fill(store, 1, raters=["a", "b"])
    lease = store.next_assignment("c", "a")
    assert lease is not None
    skipped = answer(store, lease, skip="I am no cook")
    assert store.next_assignment("c", "a") is None
    other = store.next_assignment("c", "b")
    assert other is not None
    answer(store, other)
    assert store.progress("c").num_complete == 1
    with pytest.raises(JudgementError, match="judged by others since"):
        store.revise(judgement("i0", "a", verdict=1, supersedes=skipped.id), idempotency_key="u")


def test_undone_skip_counts_and_undone_verdict_does_not(store: Store) -> None:
    fill(store, 1, raters=["a", "b"])
    lease = store.next_assignment("c", "a")
    assert lease is not None
    skip = answer(store, lease, skip="hm")
    verdict = judgement("i0", "a", verdict=2, supersedes=skip.id)
    store.revise(verdict, idempotency_key="1")
    assert store.next_assignment("c", "b") is None
    store.revise(
        judgement("i0", "a", skip="no, really", supersedes=verdict.id), idempotency_key="2"
    )
    assert store.next_assignment("c", "b") is not None


def test_retry_changes_nothing_and_returns_what_was_stored(store: Store) -> None:
    fill(store, 2)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    said = judgement("i0", shown_order=lease.shown_order, verdict=2)
    stored = store.submit(said, assignment_id=lease.id, idempotency_key="k")
    retried = replace(said, id="another", seconds=99.0, created_at=NOON + timedelta(seconds=9))
    assert store.submit(retried, assignment_id=lease.id, idempotency_key="k") == stored
    with pytest.raises(JudgementError, match="was used for another judgement"):
        store.submit(replace(said, verdict=-2), assignment_id=lease.id, idempotency_key="k")
    assert store.judgements() == [stored]


def test_closed_foreign_and_forged_leases_change_nothing(store: Store) -> None:
    fill(store, 3, raters=["ann", "bob"])
    anns = store.next_assignment("c", "ann")
    bobs = store.next_assignment("c", "bob")
    assert anns is not None
    assert bobs is not None
    answer(store, anns)
    before = store.judgements()
    attempts = {
        "is closed": (anns.id, judgement("i0", shown_order=anns.shown_order)),
        "has no assignment": (bobs.id, judgement("i1", "ann", shown_order=bobs.shown_order)),
        "has no assignment 'forged'": ("forged", judgement("i1")),
        "is for item 'i1', not 'i2'": (
            bobs.id,
            judgement("i2", "bob", shown_order=bobs.shown_order),
        ),
        "was shown as": (bobs.id, judgement("i1", "bob", shown_order=bobs.shown_order[::-1])),
        "not within -3..3": (
            bobs.id,
            judgement("i1", "bob", shown_order=bobs.shown_order, verdict=9),
        ),
    }
    for message, (lease_id, said) in attempts.items():
        with pytest.raises(DataError, match=message):
            store.submit(said, assignment_id=lease_id, idempotency_key=said.id)
    assert store.judgements() == before
    answer(store, bobs)
    assert store.problems() == []


def test_unknown_rater_or_campaign(sqlite_store: Store) -> None:
    fill(sqlite_store, 1)
    with pytest.raises(ConfigError, match="no annotator 'zoe'"):
        sqlite_store.next_assignment("c", "zoe")
    with pytest.raises(ConfigError, match="no campaign 'd'"):
        sqlite_store.next_assignment("d", "ann")


def test_sides_are_even_stable_and_logged(sqlite_store: Store) -> None:
    orders = [display_order(0, f"i{index}", "ann", 2) for index in range(400)]
    assert orders == [display_order(0, f"i{index}", "ann", 2) for index in range(400)]
    assert 160 <= orders.count((0, 1)) <= 240  # four standard deviations around 200
    fill(sqlite_store, 20, seed=5)
    while lease := sqlite_store.next_assignment("c", "ann"):
        answer(sqlite_store, lease)
    for said in sqlite_store.judgements("c"):
        assert said.shown_order == display_order(5, said.item, "ann", 2)


def test_recorded_judgement_closes_the_raters_lease(store: Store) -> None:
    fill(store, 2)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    store.record([judgement("i0")])
    assert store.problems() == []
    following = store.next_assignment("c", "ann")
    assert following is not None
    assert following.comparison.item == "i1"


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    num_items=st.integers(1, 6),
    overlap=st.integers(1, 3),
    num_raters=st.integers(1, 6),
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["answer", "leave", "skip", "late", "twice"])),
        max_size=40,
    ),
)
def test_overlap_is_never_exceeded_and_finally_met(
    tmp_path_factory: pytest.TempPathFactory,
    empty_store: Path,
    num_items: int,
    overlap: int,
    num_raters: int,
    moves: list[tuple[int, str]],
) -> None:
    path = shutil.copy(empty_store, tmp_path_factory.mktemp("assign") / "feedback.db")
    raters = [f"r{index}" for index in range(num_raters)]
    with Store.open(path) as store:
        fill(store, num_items, raters=raters, overlap=overlap, lease_s=60)
        now = NOON
        for index, move in moves:
            now = act(store, raters[index % num_raters], move, now)
            check_overlap(store, overlap)
        skipped = Counter(one.item for one in store.judgements("c") if one.skip is not None)
        now += timedelta(seconds=61)  # every lease that was left has run out
        for rater in raters * num_items:
            now = act(store, rater, "answer", now)
        voices = check_overlap(store, overlap)
        for position in range(num_items):
            item = f"i{position}"
            assert voices[item] == min(overlap, num_raters - skipped[item])
        assert store.problems() == []


def act(store: Store, rater: str, move: str, now: datetime) -> datetime:
    """Do one thing as a rater; the time afterwards."""
    lease = store.next_assignment("c", rater, now=now)
    if lease is None or move == "leave":
        return now + timedelta(seconds=20)
    said = judgement(
        lease.comparison.item,
        rater,
        shown_order=lease.shown_order,
        **({"skip": "no"} if move == "skip" else {"verdict": 1}),
    )
    if move == "late":
        now += timedelta(seconds=61)
    for _ in range(2 if move == "twice" else 1):
        store.submit(said, assignment_id=lease.id, idempotency_key=said.id, now=now)
    return now + timedelta(seconds=1)


def check_overlap(store: Store, overlap: int) -> Counter[str]:
    """How many raters judged each item, each at most once and never too many."""
    judged = store.judgements("c")
    pairs = Counter((one.item, one.annotator) for one in judged)
    assert set(pairs.values()) <= {1}
    voices = Counter(one.item for one in judged if one.skip is None)
    assert all(number <= overlap for number in voices.values())
    return voices


def test_threads_reach_exact_overlap(store: Store) -> None:
    raters = [f"r{index}" for index in range(6)]
    fill(store, 12, raters=raters, overlap=3)
    failures: list[BaseException] = []

    def work(rater: str) -> None:
        try:
            while lease := store.next_assignment("c", rater):
                answer(store, lease)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(rater,)) for rater in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    # a rater may have left while others held leases that all were then answered
    assert set(check_overlap(store, 3).values()) == {3}
    assert store.problems() == []


_RATER_PROCESS = """
import sys
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import answer
with Store.open(sys.argv[1], create=True) as store:
    store.add_annotator(Annotator(name=sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()
    while lease := store.next_assignment("c", sys.argv[2]):
        answer(store, lease)
"""


def test_processes_reach_exact_overlap(location: str) -> None:
    with Store.open(location, create=True) as store:
        fill(store, 15, overlap=2)
        workers = start_processes(_RATER_PROCESS, *((location, f"p{index}") for index in range(3)))
        finish_processes(workers)
        assert set(check_overlap(store, 2).values()) == {2}
        assert store.problems() == []


_OPENING_PROCESS = """
import sys
from rlhf.feedback.store import Store
print("ready", flush=True)
sys.stdin.readline()
with Store.open(sys.argv[1], create=True) as store:
    store.create_campaign("c")
"""


def test_processes_make_a_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    finish_processes(start_processes(_OPENING_PROCESS, *([(str(path),)] * 3)))
    with Store.open(path) as store:
        assert [campaign.name for campaign in store.campaigns()] == ["c"]
        assert store.problems() == []


def start_processes(program: str, *arguments: tuple[str, ...]) -> list[subprocess.Popen[str]]:
    """Start a process for each tuple of arguments and let them go at the same moment."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for words in arguments
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers


def finish_processes(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
