"""Whatever raters and leads do, in whatever order: assignment keeps its promises."""

import random
import shutil
import tempfile
import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import Assignment, JudgementError, Store, display_order
from rlhf.records import Annotator, Judgement
from tests.feedback.makers import NOON, comparison, fill, judgement

NUM_ITEMS, NUM_GOLD, NUM_QUALIFY, LEASE_S = 7, 3, 2, 60
RATERS = [f"r{index}" for index in range(5)]
DECISIONS = [(0.0, True), (0.0, False), (0.5, False), (1.0, False), (1.0, False)]
rater_names = st.sampled_from(RATERS)


class Schedule(RuleBasedStateMachine):
    """Raters who take, answer, skip, undo and leave; leads who exclude and restore them."""

    empty_store: Path

    @initialize(
        overlap=st.integers(1, 3),
        seed=st.integers(0, 10**6),
        share=st.sampled_from([None, None, None, 0.5]),
    )
    def begin(self, overlap: int, seed: int, share: float | None) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store.open(shutil.copy(self.empty_store, self.folder / "feedback.db"))
        self.overlap, self.seed, self.now = overlap, seed, NOON
        self.leases: dict[str, Assignment] = {}
        self.gone: set[str] = set()
        self.reopened: set[str] = set()
        checks = {"gold_share": 0.2, "retest_share": 0.2, "qualify_share": share}
        fill(
            *(self.store, NUM_ITEMS), raters=RATERS, overlap=overlap, lease_s=LEASE_S, seed=seed,
            settings={key: value for key, value in checks.items() if value is not None},
        )  # fmt: skip
        self.store.add_annotator(Annotator(name="lea", role="lead"))
        for letter, purpose, number in (
            ("g", "gold", NUM_GOLD),
            ("q", "qualification", NUM_QUALIFY if share else 0),
        ):
            items = [comparison(f"{letter}{index}") for index in range(number)]
            gold = {one.item: {"verdict": 1} for one in items}
            self.store.add_comparisons("c", items, purpose=purpose, gold=gold)  # type: ignore[arg-type]

    @rule(rater=rater_names)
    def take(self, rater: str) -> None:
        if rater in self.gone:
            return
        lease = self.store.next_assignment("c", rater, now=self.now)
        self.leases.pop(rater, None)
        if lease is not None:
            self.leases[rater] = lease
            assert lease.shown_order == display_order(
                self.seed, lease.comparison.item, rater, 2, lease.purpose
            )

    @rule()
    def take_all(self) -> None:
        for rater in RATERS:
            self.take(rater)

    @rule()
    def answer_all(self) -> None:
        for rater in list(self.leases):
            self.answer_of(rater, skips=False, right=True)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), skips=st.sampled_from([False, False, False, True]), right=st.booleans())
    def answer(self, data: st.DataObject, skips: bool, right: bool) -> None:
        self.answer_of(data.draw(st.sampled_from(sorted(self.leases))), skips=skips, right=right)

    def answer_of(self, rater: str, *, skips: bool, right: bool) -> None:
        lease = self.leases.pop(rater)
        values = {"skip": "no"} if skips else {"verdict": 1 if right else -1}
        said = judgement(lease.comparison.item, rater, shown_order=lease.shown_order, **values)
        before = self.store.judgements("c", current_only=False)
        try:
            for _ in range(2):  # every request is sent twice
                self.store.submit(
                    said, assignment_id=lease.id, idempotency_key=said.id, now=self.now
                )
        except JudgementError as error:
            ran_out = ["another rater has taken it"] if lease.expires_at <= self.now else []
            self.refused(error, "is closed", *ran_out)
            assert self.store.judgements("c", current_only=False) == before

    @rule(seconds=st.sampled_from([5, 30, 61]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(rater=rater_names)
    def leave_for_good(self, rater: str) -> None:
        if len(self.gone) < len(RATERS) - 2:
            self.gone.add(rater)
            self.leases.pop(rater, None)

    @rule(rater=rater_names)
    def undo_last(self, rater: str) -> None:
        mine = self.store.judgements("c", annotator=rater)
        if mine:
            self.revise(mine[-1], verdict=None, skip=UNDONE)

    @rule(rater=rater_names, right=st.booleans())
    def give_anew(self, rater: str, right: bool) -> None:
        for undone in self.store.undone("c", rater):
            self.revise(undone, verdict=1 if right else -1, skip=None)

    def revise(self, before: Judgement, **values: object) -> None:
        key = uuid.uuid4().hex
        revised = replace(before, id=key, supersedes=before.id, **values)  # type: ignore[arg-type]
        try:
            stored = self.store.revise(revised, idempotency_key=key)
            assert stored.purpose == before.purpose
        except JudgementError as error:
            self.refused(error, "by others since", "round is over")

    def refused(self, error: JudgementError, *reasons: str) -> None:
        assert any(reason in str(error) for reason in reasons), error

    @rule(
        rater=rater_names,
        decision=st.sampled_from(DECISIONS),
    )
    def decide(self, rater: str, decision: tuple[float, bool]) -> None:
        weight, reopen = decision
        self.store.decide_on_rater(
            "c", rater, weight=weight, reason="r", decided_by="lea", reopen=reopen, now=self.now
        )
        if reopen:
            self.reopened.add(rater)

    @invariant()
    def nobody_judges_twice_and_overlap_holds(self) -> None:
        if not hasattr(self, "store"):
            return
        said = self.store.judgements("c")
        assert set(Counter((one.item, one.annotator, one.purpose) for one in said).values()) <= {1}
        purposes = self.store.purposes("c")
        for one in said:
            kinds = {"rate", "retest"} if purposes[one.item] == "rate" else {purposes[one.item]}
            assert one.purpose in kinds
        voices = Counter(
            one.item
            for one in said
            if one.purpose == "rate" and one.skip is None and one.annotator not in self.reopened
        )
        assert all(number <= self.overlap for number in voices.values())
        assert self.store.problems() == []

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.finish()
        finally:
            self.store.close()
            shutil.rmtree(self.folder)

    def finish(self) -> None:
        """Those who are still there rate on until nobody gets anything: what is full then?"""
        self.now += timedelta(seconds=LEASE_S + 1)
        there = [rater for rater in RATERS if rater not in self.gone]
        for _ in range(NUM_ITEMS * 3 + NUM_GOLD + NUM_QUALIFY):
            for rater in there:
                lease = self.store.next_assignment("c", rater, now=self.now)
                if lease is not None:
                    said = judgement(lease.comparison.item, rater, shown_order=lease.shown_order)
                    self.store.submit(
                        said, assignment_id=lease.id, idempotency_key=said.id, now=self.now
                    )
        self.nobody_judges_twice_and_overlap_holds()
        seen = {(one.item, one.annotator) for one in self.store.judgements("c", current_only=False)}
        for index in range(NUM_ITEMS):
            item = f"i{index}"
            if self.store.num_raters("c", item) < self.overlap:
                could = [
                    rater
                    for rater in there
                    if self.store.standing_of("c", rater) == "open" and (item, rater) not in seen
                ]
                assert could == []


@pytest.mark.timeout(600)
def test_any_schedule(empty_store: Path) -> None:
    class OnEmptyStore(Schedule):
        pass

    OnEmptyStore.empty_store = empty_store
    run_state_machine_as_test(
        OnEmptyStore,
        settings=settings(
            max_examples=8,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(12))
def test_long_random_schedule(empty_store: Path, seed: int) -> None:
    """The same moves, drawn evenly: far longer schedules than a search for short ones tries."""
    chance = random.Random(seed)
    Schedule.empty_store = empty_store
    run = Schedule()
    run.begin(overlap=1 + seed % 3, seed=seed, share=0.5 if seed % 4 == 3 else None)

    def answer_one() -> None:
        if run.leases:
            rater = chance.choice(sorted(run.leases))
            run.answer_of(rater, skips=chance.random() < 0.2, right=chance.random() < 0.8)

    moves = {
        lambda: run.take(chance.choice(RATERS)): 10,
        answer_one: 8,
        run.take_all: 1,
        lambda: run.wait(chance.choice((5, 30, 61))): 3,
        lambda: run.undo_last(chance.choice(RATERS)): 1,
        lambda: run.give_anew(chance.choice(RATERS), True): 1,
        lambda: run.decide(chance.choice(RATERS), chance.choice(DECISIONS)): 0.5,
        lambda: run.leave_for_good(chance.choice(RATERS)): 0.3,
    }
    try:
        for move in chance.choices(list(moves), list(moves.values()), k=60):
            move()
            run.nobody_judges_twice_and_overlap_holds()
    finally:
        run.teardown()


def test_hundred_raters_get_even_shares(sqlite_store: Store) -> None:
    """Everybody asks in turn, so nobody who comes last goes without."""
    raters = [f"r{index}" for index in range(100)]
    fill(sqlite_store, 100, raters=raters, overlap=3)
    counts: Counter[str] = Counter()
    while True:
        served = 0
        for rater in raters:
            lease = sqlite_store.next_assignment("c", rater, counted=False)
            if lease is not None:
                said = judgement(lease.comparison.item, rater, shown_order=lease.shown_order)
                sqlite_store.submit(said, assignment_id=lease.id, idempotency_key=said.id)
                counts[rater] += 1
                served += 1
        if not served:
            break
    assert set(counts.values()) == {3}
    voices = Counter(one.item for one in sqlite_store.judgements("c"))
    assert set(voices.values()) == {3}
