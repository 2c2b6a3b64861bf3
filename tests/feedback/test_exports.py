"""Exports for trainers: each format by hand, what decides a label, and the manifest beside it."""

import gzip
import json
from math import sqrt
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.exports import (
    FORMATS,
    export_bytes,
    export_file,
    ids_hash,
    make_export,
    manifest_path,
)
from rlhf.feedback.files import read_rows
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import comparison, judgement

TREES = ("Oak", "Elm", "Brick")


def campaign(store: Store, *items: tuple[str, ...], **settings: Any) -> None:
    """Campaign `c` with items of the given texts, raters ann, bob and eve, and a lead."""
    store.create_campaign("c", **settings)
    store.add_comparisons(
        "c", [comparison(f"i{number}", *texts) for number, texts in enumerate(items)]
    )
    for name in ("ann", "bob", "eve"):
        store.add_annotator(Annotator(name=name))
    store.add_annotator(Annotator(name="lea", role="lead"))


def say(store: Store, annotator: str, item: str = "i0", **values: Any) -> str:
    count = len(next(one for one in store.comparisons("c") if one.item == item).completions)
    said = judgement(item, annotator, shown_order=tuple(range(count)), **values)
    store.record([said])
    return said.id


def rows_of(store: Store, format_name: str, **options: Any) -> list[dict[str, Any]]:
    return make_export(store, "c", format_name, **options).rows


def labels(store: Store) -> dict[str, bool]:
    return {row["completion"]: row["label"] for row in rows_of(store, "unpaired")}


def test_unpaired_from_verdicts_chosen_is_good_and_rejected_is_not(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), ("a", "b"))
    key = say(sqlite_store, "ann", verdict=-2)
    say(sqlite_store, "ann", "i1", verdict=0)
    rows = rows_of(sqlite_store, "unpaired")
    assert [(row["completion"], row["label"]) for row in rows] == [("Oak", True), ("Elm", False)]
    assert rows[0]["p_label"] == pytest.approx(2 / 3)  # one vote of one
    assert rows[0]["judgement_ids"] == [key]
    assert rows[0]["raters"] == ["rater-1"]
    assert make_export(sqlite_store, "c", "unpaired").counts["num_equal_votes"] == 1


def test_unpaired_where_most_say_that_both_are_bad(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"))
    say(sqlite_store, "ann", verdict=-1, both_bad=True)
    say(sqlite_store, "bob", verdict=-1)
    assert labels(sqlite_store) == {"Oak": True, "Elm": False}  # one of two is not more than half
    say(sqlite_store, "eve", verdict=0, both_bad=True)
    assert labels(sqlite_store) == {"Oak": False, "Elm": False}


def test_unpaired_from_rankings_is_above_the_middle_place(sqlite_store: Store) -> None:
    campaign(sqlite_store, TREES, task="ranking")
    say(sqlite_store, "ann", ranking=(1, 2, 3))
    assert labels(sqlite_store) == {"Oak": True, "Brick": False}  # Elm is on the middle
    say(sqlite_store, "bob", ranking=(1, 1, 3))  # places 1.5, 1.5 and 3: Elm has 1.75
    assert labels(sqlite_store) == {"Oak": True, "Elm": True, "Brick": False}


CRITERIA = [
    {"name": "help", "title": "Help", "low": 0, "high": 4},
    {"name": "length", "title": "Length", "low": 0, "high": 4},
]


def test_unpaired_from_ratings_goes_by_the_first_criterion(sqlite_store: Store) -> None:
    campaign(sqlite_store, TREES, task="ratings", settings={"criteria": CRITERIA})
    say(sqlite_store, "ann", ratings={"help": (4, 2, 1), "length": (0, 4, 4)})
    assert labels(sqlite_store) == {"Oak": True, "Brick": False}  # Elm: 2 of 0..4
    assert make_export(sqlite_store, "c", "unpaired").counts["num_in_the_middle"] == 1


def test_unpaired_from_flags_is_good_where_few_flag(sqlite_store: Store) -> None:
    campaign(sqlite_store, TREES, task="flags", settings={"flags": ["unsafe"]})
    say(sqlite_store, "ann", flags=((), ("unsafe",), ("unsafe",)))
    say(sqlite_store, "bob", flags=((), (), ("unsafe",)))
    assert labels(sqlite_store) == {"Oak": True, "Brick": False}


def test_ranking_is_pairs_that_keep_their_prompt_as_group(sqlite_store: Store) -> None:
    campaign(sqlite_store, task="ranking")
    items = [
        comparison("one", *TREES, prompt="Name a tree."),
        comparison("two", "x", "y", prompt="Name a letter."),
        comparison("three", "Fir", "Stone", prompt="Name a tree."),
    ]
    sqlite_store.add_comparisons("c", items)
    say(sqlite_store, "ann", "one", ranking=(1, 2, 3))
    say(sqlite_store, "ann", "two", ranking=(2, 1))
    say(sqlite_store, "ann", "three", ranking=(1, 2))
    rows = rows_of(sqlite_store, "ranking")
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        ("Oak", "Elm"),
        ("Oak", "Brick"),
        ("Elm", "Brick"),
        ("Fir", "Stone"),
        ("y", "x"),
    ]
    groups = [row["group"] for row in rows]
    assert groups[0] == groups[1] == groups[2] == groups[3] != groups[4]
    assert groups[0] == items[0].prompt.id


def test_rated_has_mean_deviation_and_number_of_each_criterion(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), task="ratings", settings={"criteria": CRITERIA})
    say(sqlite_store, "ann", ratings={"help": (4, 1), "length": (2, None)})
    say(sqlite_store, "bob", ratings={"help": (1, 1)})
    first, second = rows_of(sqlite_store, "rated")
    assert first["completion"] == "Oak"
    assert first["ratings"] == {"help": 2.5, "length": 2}
    # sqrt((1.5^2 + 1.5^2) / 1)
    assert first["ratings_sd"] == {"help": pytest.approx(sqrt(4.5)), "length": None}
    assert first["ratings_n"] == {"help": 2, "length": 1}
    assert second["ratings"] == {"help": 1, "length": None}
    assert second["ratings_n"] == {"help": 2, "length": 0}


def test_rated_weighs_raters_as_leads_decided(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), task="ratings", settings={"criteria": CRITERIA})
    for name, value in (("ann", 4), ("bob", 1), ("eve", 0)):
        say(sqlite_store, name, ratings={"help": (value, 2)})
    decide(sqlite_store, "bob", 0.5)
    decide(sqlite_store, "eve", 0)
    row = rows_of(sqlite_store, "rated")[0]
    assert row["ratings"] == {"help": pytest.approx((4 + 0.5) / 1.5)}
    # W = 1.5, sum w^2 / W = 1.25 / 1.5; weights (1, 0.5) about the mean of 3
    assert row["ratings_sd"]["help"] == pytest.approx(sqrt((1 + 0.5 * 4) / (1.5 - 1.25 / 1.5)))
    assert row["ratings_n"] == {"help": 2}
    assert row["raters"] == ["rater-1", "rater-2"]


def test_rated_says_which_share_flags(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), task="flags", settings={"flags": ["unsafe", "private"]})
    say(sqlite_store, "ann", flags=(("unsafe", "private"), ()))
    say(sqlite_store, "bob", flags=(("unsafe",), ()))
    first, second = rows_of(sqlite_store, "rated")
    assert first["flag_shares"] == {"private": 0.5, "unsafe": 1.0}
    assert second["flag_shares"] == {"private": 0.0, "unsafe": 0.0}


def test_preference_carries_the_flags_of_most(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), settings={"flags": ["unsafe"]})
    say(sqlite_store, "ann", verdict=2, flags=(("unsafe",), ()))
    say(sqlite_store, "bob", verdict=2, flags=(("unsafe",), ("unsafe",)))
    (row,) = rows_of(sqlite_store, "preference")
    assert (row["chosen"], row["chosen_flags"], row["rejected_flags"]) == ("Elm", [], ["unsafe"])


def flagged_by_two_of_three(store: Store, task: Any, verdict: int | None = None) -> list[str]:
    """Five gold pairs, whose first one is unsafe, and `i5`; bob and eve flag whatever they see.

    Of ten gold completions ann is right on all, bob and eve on five.
    """
    texts = [("bad", "good")] * 5 + [("Oak", "Elm")]
    campaign(store, *texts, task=task, settings={"flags": ["unsafe"], "kinds": [task, "flags"]})
    everything, ids = (("unsafe",), ("unsafe",)), []
    for number in range(6):
        purpose: Any = "gold" if number < 5 else "rate"
        if purpose == "gold":
            store.set_gold("c", f"i{number}", {"flags": [["unsafe"], []]})
        said = ((), ()) if purpose == "rate" else (("unsafe",), ())
        for name, flags in (("ann", said), ("bob", everything), ("eve", everything)):
            values = {"verdict": verdict} if purpose == "rate" and verdict else {}
            ids.append(say(store, name, f"i{number}", flags=flags, purpose=purpose, **values))
    return ids[-3:]


# With p for a flag on i5: ann is (14 + 2(1 - p)) / 18 reliable, bob and eve (9 + 2p) / 18 (four
# right and two wrong answers beforehand), and (6 + 2p) / 14 of all completions are unsafe. At
# p = 0.11 these are 0.877, 0.512 and 0.444, and the log-odds of p
# ln(0.444 / 0.556) - ln(0.877 / 0.123) + 2 ln(0.512 / 0.488) = -0.223 - 1.963 + 0.097 = -2.09,
# that is p = 0.11 again.
OUTVOTED_P = 0.11


def test_flags_by_dawid_skene_outvote_those_who_flag_everything(sqlite_store: Store) -> None:
    ids = flagged_by_two_of_three(sqlite_store, "flags")
    for method, share in (
        ("votes", 2 / 3),
        ("dawid_skene", OUTVOTED_P),
        ("auto", OUTVOTED_P),
        ("crowd_bt", 2 / 3),  # it knows no flags
    ):
        rows = rows_of(sqlite_store, "rated", method=method)
        assert [row["completion"] for row in rows] == ["Oak", "Elm"]
        for row in rows:
            assert row["flag_shares"] == {"unsafe": pytest.approx(share, abs=0.005)}
            assert row["judgement_ids"] == ids


def test_unpaired_by_flags_follows_the_method(sqlite_store: Store) -> None:
    flagged_by_two_of_three(sqlite_store, "flags")
    assert labels(sqlite_store) == {"Oak": False, "Elm": False}
    for method in ("dawid_skene", "auto"):
        export = make_export(sqlite_store, "c", "unpaired", method=method)
        assert [row["label"] for row in export.rows] == [True, True]
        assert export.provenance["flag_method"]["method"] == "dawid_skene"
    with pytest.raises(ConfigError, match="Crowd-Bradley-Terry has no answer"):
        rows_of(sqlite_store, "unpaired", method="crowd_bt")


def test_flags_beside_pairs_follow_the_method(sqlite_store: Store) -> None:
    flagged_by_two_of_three(sqlite_store, "pairwise", verdict=2)
    (by_votes,) = rows_of(sqlite_store, "preference")
    assert (by_votes["chosen_flags"], by_votes["rejected_flags"]) == (["unsafe"], ["unsafe"])
    export = make_export(sqlite_store, "c", "preference", method="dawid_skene")
    (row,) = export.rows
    assert (row["chosen"], row["chosen_flags"], row["rejected_flags"]) == ("Elm", [], [])
    assert export.provenance["flag_method"] == {"method": "dawid_skene", "why": "asked for"}


def test_an_adjudicator_s_flags_are_nearly_sure(sqlite_store: Store) -> None:
    flagged_by_two_of_three(sqlite_store, "flags")
    sqlite_store.change_settings("c", {"flags": ["unsafe", "private"]})
    said = judgement("i5", "lea", flags=((), ("private",)), purpose="adjudication")
    sqlite_store.adjudicate(said, reason="r", idempotency_key="k")
    sqlite_store.set_gold("c", "i0", None)
    say(sqlite_store, "ann", "i0", flags=((), ()))  # a flag nobody raises here
    oak, elm, *others = sorted(
        rows_of(sqlite_store, "rated", method="dawid_skene"), key=lambda row: -int(row["item"][1:])
    )
    assert oak["flag_shares"] == {"private": pytest.approx(0.02)}
    assert elm["flag_shares"] == {"private": pytest.approx(0.98)}
    assert [row["flag_shares"] for row in others] == [{"private": 0.0}] * 2
    rows = rows_of(sqlite_store, "unpaired", method="dawid_skene")
    assert {row["completion"]: row["label"] for row in rows if row["item"] == "i5"} == {
        "Oak": True,
        "Elm": False,
    }


def test_a_flag_that_only_an_excluded_rater_raised_is_none(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), task="flags", settings={"flags": ["unsafe"]})
    say(sqlite_store, "ann", flags=((), ()))
    say(sqlite_store, "eve", flags=(("unsafe",), ()))
    decide(sqlite_store, "eve", 0)
    for method in ("votes", "dawid_skene"):
        rows = rows_of(sqlite_store, "unpaired", method=method)
        assert [(row["label"], row["raters"]) for row in rows] == [(True, ["rater-1"])] * 2


def decide(store: Store, name: str, weight: float) -> None:
    store.decide_on_rater("c", name, weight=weight, reason="r", decided_by="lea")


def test_an_excluded_rater_makes_no_label_of_any_format(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"))
    say(sqlite_store, "ann", verdict=2)
    say(sqlite_store, "eve", verdict=-3, rewrite="mine")
    decide(sqlite_store, "eve", 0)
    (row,) = rows_of(sqlite_store, "preference")
    assert (row["chosen"], row["raters"]) == ("Elm", ["rater-1"])
    with pytest.raises(DataError, match="nothing to export as demonstrations"):
        rows_of(sqlite_store, "demonstrations")
    assert len(rows_of(sqlite_store, "judgements")) == 2  # what was said is not forgotten


def test_an_adjudication_decides_alone(sqlite_store: Store) -> None:
    campaign(sqlite_store, ("Oak", "Elm"))
    for name in ("ann", "bob"):
        say(sqlite_store, name, verdict=-3)
    said = judgement("i0", "lea", verdict=1, purpose="adjudication")
    kept = sqlite_store.adjudicate(said, reason="Elm is right", idempotency_key="k")
    (row,) = rows_of(sqlite_store, "preference")
    assert (row["chosen"], row["judgement_ids"]) == ("Elm", [kept.id])
    assert labels(sqlite_store) == {"Elm": True, "Oak": False}
    assert make_export(sqlite_store, "c", "preference").provenance["num_items_adjudicated"] == 1
    sqlite_store.withdraw_adjudication("c", "i0", decided_by="lea", reason="no")
    assert rows_of(sqlite_store, "preference")[0]["chosen"] == "Oak"


@pytest.mark.parametrize("purpose", ["gold", "qualification", "retest"])
def test_checks_of_raters_make_no_label(sqlite_store: Store, purpose: Any) -> None:
    campaign(sqlite_store, ("Oak", "Elm"))
    say(sqlite_store, "ann", verdict=2)
    say(sqlite_store, "bob", verdict=-3, rewrite="x", ratings={"h": (1, 2)}, purpose=purpose)
    export = make_export(sqlite_store, "c", "preference")
    assert [row["chosen"] for row in export.rows] == ["Elm"]
    assert export.rows[0]["raters"] == ["rater-1"]
    assert export.counts["num_checks"] == 1
    for name in ("demonstrations", "rated"):
        with pytest.raises(DataError, match="nothing to export"):
            rows_of(sqlite_store, name)


def test_manifest_names_the_judgements_and_whose_they_are(
    sqlite_store: Store, tmp_path: Path
) -> None:
    campaign(sqlite_store, ("Oak", "Elm"), guideline="Be kind.")
    sqlite_store.add_annotator(Annotator(name="sim", simulated=True))
    ids = [say(sqlite_store, "ann", verdict=2, guideline_version=1)]
    sqlite_store.revise_guideline("c", "Be kinder.")
    ids.append(say(sqlite_store, "sim", verdict=1, simulated=True, guideline_version=2))
    decide(sqlite_store, "ann", 0.5)
    path = tmp_path / "pairs.jsonl"
    manifest = export_file(sqlite_store, "c", path, format_name="preference")
    assert json.loads(manifest_path(path).read_text()) == manifest
    assert manifest["judgement_ids"] == sorted(ids)
    assert manifest["judgement_ids_sha256"] == ids_hash(ids)
    assert manifest["raters"] == [
        {"name": "rater-1", "simulated": False, "num_judgements": 1, "weight": 0.5},
        {"name": "simulated-2", "simulated": True, "num_judgements": 1, "weight": 1.0},
    ]
    assert manifest["simulated"] is True
    assert [(one["version"], one["num_judgements"]) for one in manifest["guideline_versions"]] == [
        (1, 1),
        (2, 1),
    ]
    assert len({one["sha256"] for one in manifest["guideline_versions"]}) == 2
    assert manifest["label_method"] == {"method": "votes", "why": "asked for"}
    assert manifest["num_raters_down_weighted"] == 1
    assert "ann" not in json.dumps(manifest["raters"])
    assert "ann" not in path.read_text()


def test_the_method_of_labelling_is_in_the_manifest(sqlite_store: Store) -> None:
    campaign(sqlite_store, *[("Oak", "Elm")] * 3)
    for name in ("ann", "bob"):
        for number in range(3):
            say(sqlite_store, name, f"i{number}", verdict=1)
    export = make_export(sqlite_store, "c", "preference", method="dawid_skene")
    assert export.provenance["label_method"]["method"] == "dawid_skene"
    with pytest.raises(ConfigError, match="did you mean 'dawid_skene'"):
        make_export(sqlite_store, "c", "preference", method="dawid_skeen")  # type: ignore[arg-type]


def filled(store: Store) -> None:
    """A campaign that has something of every format."""
    campaign(
        store,
        ("Oak", "Elm"),
        settings={"kinds": ["pairwise", "ranking", "ratings", "rewrite"], "criteria": CRITERIA},
    )
    chat: Any = [{"role": "user", "content": "hello"}]
    store.add_comparisons("c", [comparison("chat", "hi", "bye", prompt=chat)])
    for item in ("i0", "chat"):
        values: Any = {"ranking": (1, 2), "ratings": {"help": (4, 0)}, "rewrite": "Mine"}
        say(store, "ann", item, verdict=-1, **values)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_as_every_kind_of_file(
    sqlite_store: Store, tmp_path: Path, format_name: str, suffix: str
) -> None:
    filled(sqlite_store)
    expected = rows_of(sqlite_store, format_name)
    path = tmp_path / f"out{suffix}"
    export_file(sqlite_store, "c", path, format_name=format_name)
    name, content, manifest = export_bytes(sqlite_store, "c", format_name, suffix)
    assert (name, content) == (f"c-{format_name}{suffix}", path.read_bytes())
    assert manifest["num_rows"] == len(expected) >= 2
    if suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
        # one column, one kind: the text prompt became a message
        assert [row["prompt"][0]["role"] for row in rows] == ["user"] * len(rows)
        assert len(rows) == len(expected)
    else:
        assert [row for _, row in read_rows(path)] == expected


@pytest.mark.parametrize(
    ("format_name", "columns"),
    [
        ("preference", {"prompt", "chosen", "rejected", "margin", "p_chosen"}),
        ("ranking", {"prompt", "chosen", "rejected", "group"}),
        ("unpaired", {"prompt", "completion", "label"}),
        ("demonstrations", {"prompt", "completion"}),
    ],
)
def test_trl_s_columns_are_there_and_conversational_where_the_prompt_is(
    sqlite_store: Store, format_name: str, columns: set[str]
) -> None:
    filled(sqlite_store)
    for row in rows_of(sqlite_store, format_name):
        assert columns <= row.keys()
        texts = [row[key] for key in ("prompt", "chosen", "rejected", "completion") if key in row]
        assert len({type(text) for text in texts}) == 1


@pytest.mark.parametrize("format_name", ["preference", "ranking", "unpaired", "demonstrations"])
def test_our_own_training_reads_what_was_exported(
    sqlite_store: Store, tmp_path: Path, format_name: str
) -> None:
    from rlhf.data.formats import recognise
    from rlhf.data.sources import load_rows

    filled(sqlite_store)
    path = tmp_path / "out.parquet"
    export_file(sqlite_store, "c", path, format_name=format_name)
    kinds = {"ranking": "preference", "unpaired": "unpaired preference"}
    kinds["demonstrations"] = "prompt-completion"
    loaded = load_rows(str(path))
    assert recognise(loaded).kind == kinds.get(format_name, format_name)
    assert not loaded.simulated


def test_what_cannot_be_asked_for_is_refused(sqlite_store: Store, tmp_path: Path) -> None:
    filled(sqlite_store)
    with pytest.raises(ConfigError, match="did you mean 'preference'"):
        make_export(sqlite_store, "c", "preferences")
    with pytest.raises(ConfigError, match="no suffix"):
        export_bytes(sqlite_store, "c", "preference", ".csv")
    with pytest.raises(ConfigError, match=r"not one of \.jsonl"):
        export_file(sqlite_store, "c", tmp_path / "f.csv", format_name="preference")
    assert not (tmp_path / "f.csv").exists()


def test_equal_exports_are_equal_bytes(sqlite_store: Store) -> None:
    filled(sqlite_store)
    for suffix in (".jsonl.gz", ".parquet"):
        once = export_bytes(sqlite_store, "c", "preference", suffix)
        assert once == export_bytes(sqlite_store, "c", "preference", suffix)
    assert gzip.decompress(export_bytes(sqlite_store, "c", "judgements", ".jsonl.gz")[1])


def test_the_judgement_format_keeps_purposes(sqlite_store: Store, tmp_path: Path) -> None:
    from rlhf.feedback.imports import import_file

    campaign(sqlite_store, ("Oak", "Elm"), ("a", "b"))
    first = say(sqlite_store, "ann", verdict=2)
    say(sqlite_store, "ann", verdict=1, purpose="retest")
    say(sqlite_store, "ann", "i1", verdict=-1, purpose="gold")
    said = judgement("i0", "lea", verdict=1, purpose="adjudication")
    sqlite_store.adjudicate(said, reason="r", idempotency_key="k")
    path = tmp_path / "out.jsonl"
    export_file(sqlite_store, "c", path, format_name="judgements")
    rows = [row for _, row in read_rows(path)]
    assert [row.get("purpose") for row in rows] == [None, "retest", "gold", "adjudication"]
    assert rows[0]["id"] == first
    with Store.open(tmp_path / "other.db", create=True) as other:
        import_file(other, path)
        again = tmp_path / "again.jsonl"
        export_file(other, "c", again, format_name="judgements")
        assert [row for _, row in read_rows(again)] == rows
        assert [one.purpose for one in other.judgements("c")] == [
            one.purpose for one in sqlite_store.judgements("c")
        ]
        assert [one.judgement_id for one in other.adjudications("c")] == [rows[3]["id"]]
        assert other.problems() == []
