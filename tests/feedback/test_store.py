"""The store's promises, on SQLite and on PostgreSQL."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.store import JudgementError, Store
from rlhf.records import Annotator, Comparison, Completion, Prompt
from tests.feedback.makers import NOON, answer, comparison, fill, judgement

HOSTILE = [
    "",
    "\0",
    "a\0b\ue000c\ue0001",
    "שלום \u202egnirts\u202c",
    "'; DROP TABLE judgements; --",
    "<think>2 < 3 && ${evil}</think>\r\n\t\x1b[31m",
    "😀" * 25_000,  # 100 kB
]


def test_campaign_is_made_once_and_other_settings_are_refused(store: Store) -> None:
    made = store.create_campaign("c", overlap=3, guideline="be kind", seed=7)
    assert store.create_campaign("c", overlap=3, guideline="be kind", seed=7) == made
    assert (made.overlap, made.guideline, made.guideline_version) == (3, "be kind", 1)
    with pytest.raises(ConfigError, match="exists with overlap 3, not 2"):
        store.create_campaign("c", overlap=2, guideline="be kind", seed=7)
    assert [campaign.name for campaign in store.campaigns()] == ["c"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "pairwize"}, "did you mean 'pairwise'"),
        ({"overlap": 0}, "at least 1 rater"),
        ({"lease_s": 0}, "lasts some seconds"),
        ({"lease_s": float("nan")}, "lasts some seconds"),
    ],
)
def test_campaign_settings_that_cannot_be(
    sqlite_store: Store, settings: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sqlite_store.create_campaign("c", **settings)
    assert sqlite_store.campaigns() == []


def test_unknown_campaign_names_the_nearest(sqlite_store: Store) -> None:
    sqlite_store.create_campaign("everyday")
    with pytest.raises(ConfigError, match=r"no campaign 'everdy'.*did you mean 'everyday'"):
        sqlite_store.campaign("everdy")


def test_guideline_versions_are_kept(store: Store) -> None:
    fill(store, 2, guideline="first")
    lease = store.next_assignment("c", "ann")
    assert store.revise_guideline("c", "second").guideline_version == 2
    assert lease is not None
    answer(store, lease, guideline_version=lease.guideline_version)
    later = store.next_assignment("c", "ann")
    assert later is not None
    assert (lease.guideline_version, later.guideline_version) == (1, 2)
    assert [store.guideline("c", version) for version in (1, 2, 3)] == ["first", "second", ""]
    assert store.judgements("c")[0].guideline_version == 1


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_come_back_as_they_were(store: Store, hostile: str) -> None:
    item = Comparison(
        prompt=Prompt(content=[{"role": "user", "content": hostile}]),
        completions=(
            Completion(text=hostile, source=hostile, ended=False, seed=2**62),
            Completion(text="x"),
        ),
        item=f"item {hostile}",
    )
    store.create_campaign("c")
    store.add_comparisons("c", [item])
    store.add_annotator(Annotator(name=f"n{hostile}"))
    said = judgement(
        item.item,
        f"n{hostile}",
        ratings={hostile: (1.5, None)},
        verdict=-3,
        both_bad=True,
        ranking=(1, 1),
        rewrite=hostile,
        rewrite_of=1,
        skip=hostile,
        flags=((hostile,), ()),
        rationale=hostile,
        shown_order=(1, 0),
        guideline_version=1,
    )
    assert store.record([said]) == 1
    assert store.comparisons("c") == [item]
    assert store.judgements("c") == [said]
    assert store.problems() == []


@pytest.mark.parametrize("field", ["rationale", "rewrite", "skip", "annotator", "id"])
def test_half_a_character_is_refused_in_one_line(sqlite_store: Store, field: str) -> None:
    fill(sqlite_store, 1)
    with pytest.raises(DataError) as caught:
        sqlite_store.record([judgement(verdict=1, **{field: "\ud800"})])
    assert "\n" not in str(caught.value)
    assert sqlite_store.judgements() == []


@pytest.mark.parametrize(
    "broken",
    [
        comparison("i", "\ud800", "b"),
        comparison("i", "a", "b", prompt="\udfff"),
        comparison("i", "only one"),
        comparison("", "a", "b"),
        Comparison(prompt=Prompt(content="p"), completions=(), item="i"),
    ],
)
def test_comparison_that_cannot_be_shown_is_refused(
    sqlite_store: Store, broken: Comparison
) -> None:
    sqlite_store.create_campaign("c")
    with pytest.raises(DataError):
        sqlite_store.add_comparisons("c", [comparison("fine"), broken])
    assert sqlite_store.comparisons("c") == []


def test_adding_comparisons_again_changes_nothing(store: Store) -> None:
    items = [comparison(f"i{index}", "same", "texts", prompt="p") for index in (2, 0, 1)]
    store.create_campaign("c")
    assert store.add_comparisons("c", items) == 3
    assert store.add_comparisons("c", [*items, comparison("i9")]) == 1
    assert [one.item for one in store.comparisons("c")] == ["i2", "i0", "i1", "i9"]
    with pytest.raises(DataError, match="other completions"):
        store.add_comparisons("c", [comparison("i2", "other", "texts", prompt="p")])


def test_a_person_cannot_become_a_simulated_rater(store: Store) -> None:
    store.add_annotator(Annotator(name="ann"))
    with pytest.raises(DataError, match="'ann' is a person in the store, not simulated"):
        store.add_annotator(Annotator(name="ann", simulated=True))
    assert store.annotators() == [Annotator(name="ann")]


def test_simulated_mark_on_a_judgement_must_be_the_annotators(sqlite_store: Store) -> None:
    fill(sqlite_store, 1)
    with pytest.raises(JudgementError, match="simulated is True"):
        sqlite_store.record([judgement(simulated=True)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verdict": 4}, "not within -3..3"),
        ({"verdict": None}, "give at least one"),
        ({"both_bad": True, "rewrite": "x"}, "both_bad without a verdict"),
        ({"ranking": (1,)}, "1 ranks for 2"),
        ({"ranking": (0, 1)}, "begin at 1"),
        ({"ratings": {"h": (1.0,)}}, "1 values for 2"),
        ({"ratings": {"h": (1.0, float("inf"))}}, "not a finite number"),
        ({"ratings": {}}, "name no criterion"),
        ({"rewrite_of": 0, "verdict": 1}, "without a rewrite"),
        ({"rewrite": "x", "rewrite_of": 2}, "no index into 2"),
        ({"flags": ((),)}, "1 lists for 2"),
        ({"seconds": -1.0}, "no duration"),
        ({"seconds": float("nan")}, "no duration"),
        ({"shown_order": (0, 0)}, "no order of 2"),
        ({"shown_order": ()}, "no order of 2"),
        ({"ranking": (1, 2)}, "the campaign asks for verdict, and there is only ranking"),
    ],
)
def test_values_that_cannot_be_are_refused(sqlite_store: Store, values: dict, message: str) -> None:
    fill(sqlite_store, 1)
    with pytest.raises(JudgementError, match=message):
        sqlite_store.record([judgement(**values)])
    assert sqlite_store.judgements() == []


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("pairwise", {"verdict": 0, "both_bad": True}),
        ("ranking", {"ranking": (2, 2)}),
        ("ratings", {"ratings": {"helpful": (5, None)}}),
        ("rewrite", {"rewrite": " a\n", "rewrite_of": None}),
        ("flags", {"flags": (("toxic", "cut"), ())}),
        ("ranking", {"skip": "I know nothing of this"}),
    ],
)
def test_every_task_type_is_kept_in_the_one_table(store: Store, task: str, values: dict) -> None:
    fill(store, 1, task=task)
    lease = store.next_assignment("c", "ann")
    assert lease is not None
    said = answer(store, lease, **values)
    assert store.judgements("c") == [said]
    for name, value in values.items():
        assert getattr(said, name) == value


def test_record_is_idempotent_and_all_or_nothing(store: Store) -> None:
    fill(store, 3)
    first = judgement("i0")
    assert store.record([first]) == 1
    assert store.record([first]) == 0
    with pytest.raises(JudgementError, match="says something else") as caught:
        store.record([judgement("i1"), replace(first, verdict=-1)])
    assert caught.value.judgement_id == first.id
    assert store.judgements() == [first]


def test_atomic_block_is_undone_whole(store: Store) -> None:
    fill(store, 1)

    def write_and_fail() -> None:
        with store.atomically():
            store.record([judgement()])
            store.create_campaign("other")
            assert len(store.judgements()) == 1
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert store.judgements() == []
    assert [campaign.name for campaign in store.campaigns()] == ["c"]


def test_revision_supersedes_and_both_are_kept(store: Store) -> None:
    fill(store, 1)
    first = judgement("i0", verdict=1)
    second = judgement("i0", verdict=-2, supersedes=first.id)
    store.record([first])
    assert store.revise(second, idempotency_key="undo") == second
    assert store.revise(replace(second, seconds=9.0), idempotency_key="undo") == second
    assert store.judgements("c") == [second]
    assert store.judgements("c", current_only=False) == [first, second]
    assert store.progress("c").num_judgements == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supersedes": None}, "supersedes nothing"),
        ({"supersedes": "nobody"}, "not in the store"),
        ({"annotator": "bob"}, "another rater's or item's"),
        ({"item": "i1"}, "another rater's or item's"),
        ({"item": "i7"}, "no item 'i7'"),
    ],
)
def test_revision_of_what_is_not_ones_own_is_refused(
    sqlite_store: Store, change: dict, message: str
) -> None:
    fill(sqlite_store, 2, raters=["ann", "bob"])
    first = judgement("i0")
    sqlite_store.record([first])
    with pytest.raises(JudgementError, match=message):
        sqlite_store.revise(
            judgement(**{"supersedes": first.id, "item": "i0", "verdict": 2, **change}),
            idempotency_key="k",
        )
    assert sqlite_store.judgements(current_only=False) == [first]


def test_one_judgement_is_superseded_once(sqlite_store: Store) -> None:
    fill(sqlite_store, 1)
    first = judgement("i0")
    sqlite_store.record([first, judgement("i0", verdict=2, supersedes=first.id)])
    with pytest.raises(JudgementError, match="superseded already"):
        sqlite_store.revise(
            judgement("i0", verdict=3, supersedes=first.id), idempotency_key="other tab"
        )


def test_circle_of_supersedes_is_refused(sqlite_store: Store) -> None:
    fill(sqlite_store, 1)
    circle = [judgement("i0", id="a", supersedes="b"), judgement("i0", id="b", supersedes="a")]
    with pytest.raises(JudgementError, match="circle"):
        sqlite_store.record(circle)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE judgements SET verdict = 3",
        "UPDATE judgements SET rationale = 'better'",
        "UPDATE judgements SET rationale = 'better', erased_at = 'x'",
        "UPDATE judgements SET verdict = 3, rationale = '', erased_at = 'x'",
        "UPDATE judgements SET rewrite = '', erased_at = 'x'",  # there was none to blank
        "DELETE FROM judgements",
        "UPDATE completions SET text = 'other'",
        "DELETE FROM comparison_members",
        "UPDATE prompts SET content = '\"other\"'",
    ],
)
def test_the_database_itself_refuses_changes(store: Store, statement: str) -> None:
    fill(store, 1)
    said = judgement("i0", rationale="why")
    store.record([said])
    with (
        pytest.raises((DBAPIError, DataError), match=r"append-only|never changed"),
        store._database.writing() as connection,
    ):
        connection.execute(text(statement))
    assert store.judgements() == [said]


def test_sqlite_refuses_replacing_a_judgement(sqlite_store: Store) -> None:
    fill(sqlite_store, 1)
    said = judgement("i0")
    sqlite_store.record([said])
    with (
        pytest.raises((DBAPIError, DataError), match="append-only"),
        sqlite_store._database.writing() as connection,
    ):
        connection.execute(text("INSERT OR REPLACE INTO judgements SELECT * FROM judgements"))
    assert sqlite_store.judgements() == [said]


def test_erasure_blanks_words_and_name_and_keeps_verdicts(store: Store) -> None:
    fill(store, 2, raters=["ann", "bob"])
    store.record(
        [
            judgement("i0", "ann", verdict=-2, rationale="I, Ann", rewrite="my words"),
            judgement("i1", "ann", skip="my mother is ill"),
            judgement("i0", "bob", rationale="bob's"),
        ],
        given={},
    )
    pseudonym = store.erase_annotator("ann")
    kept = {(one.item, one.annotator): one for one in store.judgements()}
    assert pseudonym.startswith("erased-")
    assert kept["i0", pseudonym].verdict == -2
    assert (kept["i0", pseudonym].rationale, kept["i0", pseudonym].rewrite) == ("", "")
    assert kept["i1", pseudonym].skip == ""
    assert kept["i0", "bob"].rationale == "bob's"
    assert "ann" not in {annotator.name for annotator in store.annotators()}
    assert store.problems() == []


def test_progress_counts_by_hand(store: Store) -> None:
    fill(store, 3, raters=["ann", "bob"], overlap=2)
    store.add_annotator(Annotator(name="robot", simulated=True))
    first = judgement("i0", "ann")
    store.record(
        [
            first,
            judgement("i0", "ann", verdict=-1, supersedes=first.id),
            judgement("i0", "bob"),
            judgement("i1", "robot", simulated=True),
            judgement("i2", "bob", skip="unclear"),
        ]
    )
    progress = store.progress("c")
    assert (progress.num_items, progress.num_complete, progress.num_wanted) == (3, 1, 6)
    assert (progress.num_judgements, progress.num_skipped) == (3, 1)
    assert (progress.num_annotators, progress.num_simulated) == (3, 1)


def test_a_store_can_be_opened_again(location: str) -> None:
    with Store.open(location, create=True) as store:
        fill(store, 2)
        store.record([judgement("i0", created_at=NOON + timedelta(microseconds=1))])
        before = store.judgements()
    with Store.open(location) as again:
        assert again.judgements() == before
        assert again.judgements(annotator="nobody") == []
        assert again.judgements("c", annotator="ann") == before


def test_store_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs" / "new" / "feedback.db", create=True) as store:
        assert store.campaigns() == []


def test_one_item_is_found_by_its_name(store):
    store.create_campaign("c")
    store.create_campaign("other")
    first, second = comparison("i1"), comparison("i2", "x", "y")
    store.add_comparisons("c", [first, second])
    store.add_comparisons("other", [comparison("i3")])
    assert store.comparison("c", "i2") == second
    with pytest.raises(ConfigError, match="'c' has no item 'i3'"):
        store.comparison("c", "i3")
