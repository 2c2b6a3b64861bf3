"""Judgements in and out as JSON: nothing is changed on the way, and nothing half done."""

import gzip
import json
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.exports import export_file
from rlhf.feedback.files import read_rows, write_rows
from rlhf.feedback.imports import import_file
from rlhf.feedback.interchange import KNOWN_KEYS
from rlhf.feedback.quality import rating_metrics
from rlhf.feedback.rules import TASKS
from rlhf.feedback.store import Store
from rlhf.records import Purpose
from tests.feedback.makers import fill, judgement, row, write_jsonl

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.none() | st.integers(-9, 9) | st.floats(-1e6, 1e6)
moments = st.datetimes(
    datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, None])
) | st.datetimes(
    datetime(1970, 1, 2),
    datetime(2100, 1, 1),
    timezones=st.just(timezone(timedelta(hours=-3, minutes=-30))),
)


@st.composite
def rows_of_all_kinds(draw: st.DrawFn) -> dict[str, Any]:
    """Any line that the format allows, from few raters and texts, so that they meet."""
    count = draw(st.integers(1, 4))
    words = st.sampled_from(["", "yes", "no", "\0", "née"])
    made: dict[str, Any] = {
        "campaign": draw(st.sampled_from(["c", "d"])),
        "prompt": draw(st.sampled_from(["p", [{"role": "user", "content": "q", "name": "x"}]])),
        "completions": draw(st.lists(words, min_size=count, max_size=count)),
        "annotator": draw(st.sampled_from(["ann", "bob"])),
        "simulated": False,
        "seconds": draw(st.integers(0, 99) | st.floats(0, 1e6)),
        "created_at": draw(moments).isoformat(),
        "shown_order": draw(st.permutations(range(count))),
    }

    def each(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(values, min_size=count, max_size=count))

    kinds = ["ranking", "ratings", "rewrite", "skip", *(["verdict"] if count == 2 else [])]
    for kind in draw(st.sets(st.sampled_from(kinds), min_size=1)):
        made[kind] = {
            "verdict": lambda: draw(st.integers(-3, 3)),
            "ranking": lambda: each(st.integers(1, count)),
            "ratings": lambda: {draw(texts): each(numbers)},
            "rewrite": lambda: draw(texts),
            "skip": lambda: draw(texts),
        }[kind]()
    if "rewrite" in made:
        made["rewrite_of"] = draw(st.none() | st.integers(0, count - 1))
    if "verdict" in made and draw(st.booleans()):
        made["both_bad"] = draw(st.booleans())
    optional = {
        "item": lambda: None,
        "flags": lambda: each(st.lists(texts, max_size=2)),
        "sources": lambda: each(st.none() | texts),
        "ended": lambda: each(st.none() | st.booleans()),
        "rationale": lambda: draw(texts),
        "guideline_version": lambda: draw(st.integers(1, 3)),
        "purpose": lambda: draw(st.sampled_from(get_args(Purpose))),
        "unheard-of": lambda: draw(texts),
    }
    for key in draw(st.sets(st.sampled_from(sorted(optional)))):
        made[key] = optional[key]()
    if "item" in made:
        made["item"] = f"{made['prompt']!a}{made['completions']!a}{draw(st.integers(0, 1))}"
    return made


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(rows_of_all_kinds(), min_size=1, max_size=6), data=st.data())
def test_import_then_export_gives_the_same_judgements_back(
    tmp_path_factory: pytest.TempPathFactory,
    empty_store: Path,
    rows: list[dict[str, Any]],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    rows = list({json.dumps(each, sort_keys=True): each for each in rows}.values())
    for number, each in enumerate(rows):
        if data.draw(st.booleans()):
            each["id"] = f"id {number}"
    suffix = data.draw(st.sampled_from([".jsonl", ".jsonl.gz", ".json"]))
    write_rows(folder / f"in{suffix}", rows)
    with Store.open(shutil.copy(empty_store, folder / "a.db")) as store:
        assert import_file(store, folder / f"in{suffix}").num_new == len(rows)
        assert import_file(store, folder / f"in{suffix}").num_new == 0
        assert store.problems() == []
        exported = export_all(store, folder, suffix)
    assert_holds_all(exported, rows)
    write_rows(folder / "again.jsonl", exported)
    with Store.open(shutil.copy(empty_store, folder / "b.db")) as other:
        import_file(other, folder / "again.jsonl")
        # campaigns come back in the order in which their rows were written
        assert sorted(map(canonical, export_all(other, folder, suffix))) == sorted(
            map(canonical, exported)
        )


def export_all(store: Store, folder: Path, suffix: str) -> list[dict[str, Any]]:
    exported = []
    for campaign in store.campaigns():
        path = folder / f"out{suffix}"
        export_file(store, campaign.name, path, format_name="judgements")
        exported += [each for _, each in read_rows(path)]
    return exported


def canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def assert_holds_all(exported: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Each imported row is in the export, word for word; the export may say more (id, item)."""
    left = list(exported)
    for each in rows:
        said = {key: value for key, value in each.items() if value is not None}
        match = next(one for one in left if all(one.get(key) == said[key] for key in said))
        left.remove(match)
    assert left == []


def test_swapped_completions_are_the_same_item_with_the_verdict_turned(
    sqlite_store: Store, tmp_path: Path
) -> None:
    path = write_jsonl(
        tmp_path / "f.jsonl",
        row(annotator="ann", verdict=-2, shown_order=[0, 1], ranking=[1, 2]),
        row(
            annotator="bob",
            completions=["no", "yes"],
            verdict=3,
            shown_order=[0, 1],
            ranking=[2, 1],
            ratings={"h": [1, 5]},
            flags=[["bad"], []],
            rewrite="well",
            rewrite_of=0,
        ),
    )
    import_file(sqlite_store, path)
    (item,) = sqlite_store.comparisons("c")
    assert [one.text for one in item.completions] == ["yes", "no"]
    ann, bob = sqlite_store.judgements("c")
    assert (ann.verdict, bob.verdict) == (-2, -3)
    assert ann.ranking == bob.ranking == (1, 2)
    assert bob.shown_order == (1, 0)  # "no" was shown first
    assert bob.ratings == {"h": (5, 1)}
    assert bob.flags == ((), ("bad",))
    assert bob.rewrite_of == 1
    assert sqlite_store.problems() == []


def test_items_of_the_same_texts_stay_apart_when_named(sqlite_store: Store, tmp_path: Path) -> None:
    rows = [row(item="first"), row(item="second"), row(), row(annotator="bob")]
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", *rows))
    assert len(sqlite_store.comparisons("c")) == 3
    by_item = [one.item for one in sqlite_store.judgements("c")]
    assert by_item[:2] == ["first", "second"]
    assert by_item[2] == by_item[3]


def test_row_without_item_finds_the_named_item_with_its_texts(
    sqlite_store: Store, tmp_path: Path
) -> None:
    fill(sqlite_store, 2)
    path = write_jsonl(tmp_path / "f.jsonl", row(prompt="question i1"))
    import_file(sqlite_store, path)
    assert [one.item for one in sqlite_store.judgements()] == ["i1"]


def test_later_rows_fill_what_earlier_ones_do_not_know(sqlite_store: Store, tmp_path: Path) -> None:
    later = row(annotator="bob", completions=["no", "yes"], ended=[False, True])
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", row(), later))
    (item,) = sqlite_store.comparisons("c")
    assert [(one.text, one.ended) for one in item.completions] == [("yes", True), ("no", False)]


def test_superseding_rows_come_in_any_order(sqlite_store: Store, tmp_path: Path) -> None:
    rows = [
        row(id="third", supersedes="second", verdict=3),
        row(id="first", verdict=1),
        row(id="second", supersedes="first", verdict=2),
    ]
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", *rows))
    assert [one.id for one in sqlite_store.judgements("c")] == ["third"]
    assert len(sqlite_store.judgements("c", current_only=False)) == 3
    assert sqlite_store.problems() == []


def test_campaign_option_moves_the_rows_and_says_so(sqlite_store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", row(campaign="theirs"), row(campaign=..., verdict=2))
    report = import_file(sqlite_store, path, campaign="ours")
    assert [campaign.name for campaign in sqlite_store.campaigns()] == ["ours"]
    assert dict(report.renamed) == {"theirs": 1}


BAD_LINES = {
    "no prompt": (row(prompt=...), "no 'prompt'"),
    "no simulated": (row(simulated=...), "no 'simulated'"),
    "no campaign": (row(campaign=...), "no 'campaign'"),
    "prompt number": (row(prompt=7), "prompt holds 7"),
    "prompt empty": (row(prompt=[]), "prompt holds []"),
    "message": (row(prompt=[{"role": "user"}]), "is no message"),
    "no completions": (row(completions=[], shown_order=[]), "no completions"),
    "completion null": (row(completions=["a", None]), "completions holds None"),
    "annotator empty": (row(annotator=""), "empty id or annotator"),
    "simulated text": (row(simulated="no"), "simulated holds 'no'"),
    "seconds": (row(seconds=-1), "no duration"),
    "created_at": (row(created_at="yesterday"), "no ISO 8601 time"),
    "order": (row(shown_order=[0]), "no order of 2 completions"),
    "verdict range": (row(verdict=4), "not within -3..3"),
    "verdict half": (row(verdict=1.5), "verdict holds 1.5"),
    "verdict bool": (row(verdict=True), "verdict holds True"),
    "nothing said": (row(verdict=...), "give at least one"),
    "verdict of three": (
        row(completions=["a", "b", "c"], shown_order=[0, 1, 2]),
        "a verdict compares 2 completions, and the item has 3",
    ),
    "ranking": (row(ranking=[1]), "1 ranks for 2"),
    "ratings": (row(ratings={"h": [1]}), "1 values for 2"),
    "ended": (row(ended=[True]), "ended has 1 values for 2"),
    "flags": (row(flags=[["a"]]), "1 lists for 2"),
    "surrogate": ('{"prompt": "\\ud800"}', "no 'completions'"),
    "surrogate text": (json.dumps(row(completions=["a", "\ud800"])), "half a character"),
    "list": ([1], "a list where an object is wanted"),
    "broken": ('{"prompt": ', "not valid JSON"),
    "nan": (json.dumps(row()).replace("2.5", "NaN"), "NaN is no JSON number"),
    "infinite": (json.dumps(row(extra=0)).replace(": 0}", ": 1e999}"), "too large a number"),
    "infinite prompt": (
        '{"prompt": [{"role": "user", "content": "q", "weight": -1e999}]}',
        "too large a number",
    ),
    "infinity": (json.dumps(row(extra=[float("inf")])), "Infinity is no JSON number"),
    "campaign list": (row(campaign=["c"]), "campaign holds ['c'] where text"),
    "key twice": ('{"prompt": "a", "prompt": "b"}', "'prompt' stands twice"),
    "deep": ("[" * 100_000, "not usable JSON"),
    "supersedes nobody": (row(supersedes="ghost"), "which is not in the store"),
    "other rater": (row(supersedes="good", annotator="bob"), "another rater's"),
    "same id": (row(id="good", verdict=-3), "for another judgement"),
    "same id, seconds": (row(id="good", campaign="new", seconds=9), "for another judgement"),
    "same item": (row(item="one", completions=["x", "y"]), "another item name"),
    "simulated rater": (row(annotator="ann", simulated=True), "'ann' is a person"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_broken_line_is_named_and_nothing_is_imported(
    sqlite_store: Store, tmp_path: Path, name: str
) -> None:
    line, message = BAD_LINES[name]
    fill(sqlite_store, 1)
    sqlite_store.record([judgement("i0")])
    before = sqlite_store.judgements(), sqlite_store.campaigns(), sqlite_store.annotators()
    good = row(campaign="new", id="good", item="one")
    if isinstance(line, dict) and line.get("campaign") == "c":
        line = {**line, "campaign": "new"}
    path = write_jsonl(tmp_path / "f.jsonl", good, "", line)
    with pytest.raises(DataError) as caught:
        import_file(sqlite_store, path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    after = sqlite_store.judgements(), sqlite_store.campaigns(), sqlite_store.annotators()
    assert after == before


def test_rows_of_another_kind_than_the_campaign_asks_for(
    sqlite_store: Store, tmp_path: Path
) -> None:
    fill(sqlite_store, 1)
    path = write_jsonl(tmp_path / "f.jsonl", row(verdict=..., ranking=[1, 2]))
    with pytest.raises(DataError, match=r"f.jsonl:1: .*asks for verdict.*only ranking"):
        import_file(sqlite_store, path)


def test_a_campaign_of_mixed_kinds_can_be_widened(sqlite_store: Store, tmp_path: Path) -> None:
    ranked = row(verdict=..., ranking=[1, 2])
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", row(), ranked))
    assert sqlite_store.campaign("c").kinds == ("pairwise", "ranking")
    import_file(sqlite_store, write_jsonl(tmp_path / "g.jsonl", row(verdict=..., rewrite="x")))
    assert sqlite_store.campaign("c").kinds == ("pairwise", "ranking", "rewrite")
    assert sqlite_store.problems() == []


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("empty.jsonl", b"", DataError, "no judgements in it"),
        ("blank.jsonl", b"\n \n", DataError, "no judgements in it"),
        ("none.json", b"[]", DataError, "no judgements in it"),
        ("object.json", b"{}", DataError, "holds one list"),
        ("latin.jsonl", "né".encode("latin-1"), DataError, "latin.jsonl:1: not UTF-8"),
        ("bad.jsonl.gz", b"not gzip", DataError, "damaged gzip"),
        ("cut.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:-9], DataError, "damaged gzip"),
        ("table.csv", b"a,b\n", ConfigError, "not one of .jsonl"),
    ],
)
def test_file_that_cannot_be_read(
    sqlite_store: Store, tmp_path: Path, name: str, content: bytes, error: type, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        import_file(sqlite_store, tmp_path / name)
    assert sqlite_store.campaigns() == []


def test_byte_order_mark_and_windows_line_ends_are_no_matter(
    sqlite_store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r\n")
    assert import_file(sqlite_store, path).num_new == 1


@pytest.mark.parametrize(
    "other",
    [
        {"seconds": 3},
        {"shown_order": [1, 0]},
        {"created_at": "2026-01-02T12:00:01+00:00"},
        {"guideline_version": 2},
        {"verdict": 2},
    ],
)
def test_an_id_that_is_there_with_other_content_is_refused_by_line(
    sqlite_store: Store, tmp_path: Path, other: dict[str, Any]
) -> None:
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", row(id="one")))
    again = write_jsonl(tmp_path / "g.jsonl", row(id="one", created_at="2026-01-02T13:00:00+01:00"))
    assert import_file(sqlite_store, again).num_new == 0  # the same moment in other words
    path = write_jsonl(tmp_path / "h.jsonl", row(annotator="bob"), row(id="one", **other))
    before = sqlite_store.judgements()
    with pytest.raises(DataError, match=f"h.jsonl:2: .*something else.*{next(iter(other))}"):
        import_file(sqlite_store, path)
    assert sqlite_store.judgements() == before


def test_a_campaign_that_is_no_text_is_refused_though_another_is_given(
    sqlite_store: Store, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", row(campaign=["c"]))
    with pytest.raises(DataError, match=r"f\.jsonl:1: campaign holds"):
        import_file(sqlite_store, path, campaign="ours")


def test_what_was_taken_back_stays_in_the_history_alone(
    sqlite_store: Store, tmp_path: Path
) -> None:
    rows = [
        row(id="first", verdict=3),
        row(id="second", supersedes="first", verdict=..., skip="undone"),
        row(id="third", annotator="bob", verdict=..., skip="hard"),
    ]
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", *rows))
    assert [one.id for one in sqlite_store.judgements("c")] == ["third"]
    progress = sqlite_store.progress("c")
    assert (progress.num_judgements, progress.num_skipped, progress.num_annotators) == (0, 1, 0)
    metrics = rating_metrics(sqlite_store, "c")
    assert (metrics["num_skipped"], metrics["percent_agreement"]["n"]) == (1, 0)
    path = tmp_path / "out.jsonl"
    assert export_file(sqlite_store, "c", path, format_name="judgements")["num_rows"] == 3


def test_the_documented_rows_are_what_the_import_takes(sqlite_store: Store, tmp_path: Path) -> None:
    document = Path(__file__).parents[2] / "docs" / "interchange.md"
    text = document.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("{")]
    report = import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", *lines))
    assert report.num_new == len(lines) >= 7
    assert not report.unknown_keys
    tasks = {campaign.task for campaign in sqlite_store.campaigns()}
    assert tasks == set(TASKS)
    for key in KNOWN_KEYS:
        assert f"`{key}`" in text, key
