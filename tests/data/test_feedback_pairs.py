"""Judgements as training pairs: a store and the file exported from it say the same."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.formats import preference_pairs, recognise
from rlhf.data.sources import LoadedDataset, load_rows
from rlhf.errors import DataError
from rlhf.feedback.exports import export_file
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Judgement
from tests.feedback.makers import comparison, judgement, row, write_jsonl


def by(rater: int, item: str, **values: Any) -> Judgement:
    return judgement(item, f"sim-{rater}", simulated=True, **values)


def fill_store(location: Path) -> None:
    """Votes, a tie, a skip, a revision, equal votes and equal texts, in no order of the items."""
    items: list[Comparison] = [comparison(f"i{index}", "yes", "no") for index in range(6)]
    items.append(comparison("i6", "same", "same"))
    said: list[Judgement] = []
    for index, votes in enumerate([(-2, -1, 1), (3, 2, 1), (0, -1, -1), (1, -1), (2, 2), (1, 1)]):
        for number, verdict in enumerate(votes):
            said.append(by(number, f"i{index}", id=f"i{index}-{number}", verdict=verdict))
    said.append(by(2, "i5", skip="unclear"))
    said.append(by(0, "i6", verdict=2))
    said.append(by(1, "i4", verdict=-3, supersedes="i4-1"))
    with Store.open(location, create=True) as store:
        store.create_campaign("c", overlap=4)
        store.add_comparisons("c", items)
        for number in range(3):
            store.add_annotator(Annotator(name=f"sim-{number}", simulated=True))
        store.record(reversed(said))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    location = tmp_path / "feedback.db"
    fill_store(location)
    return location


def exported(store: Path, name: str) -> Path:
    path = store.parent / name
    with Store.open(store) as opened:
        export_file(opened, "c", path, format_name="judgements")
    return path


def without_origin(loaded: LoadedDataset) -> dict:
    origin = {"kind", "store", "files"}
    return {key: value for key, value in loaded.provenance.items() if key not in origin}


@pytest.mark.parametrize("name", ["j.jsonl", "j.jsonl.gz", "j.json"])
def test_a_store_and_its_exported_file_give_the_same_pairs(store: Path, name: str):
    direct = load_rows(f"feedback:{store}#c")
    read = load_rows(str(exported(store, name)))
    assert list(read.rows) == list(direct.rows)
    assert len(read.rows) == 4  # i0, i1, i2, i5: votes on the others are equal, or their texts
    assert without_origin(read) == without_origin(direct)
    assert read.losses.as_dict() == direct.losses.as_dict()
    assert read.simulated
    assert read.provenance["num_annotators"] == read.provenance["num_simulated_annotators"] == 3
    places = [pair.place for pair in preference_pairs(read)]
    assert places[0] == f"{store.parent / name} item i0"


def test_the_log_says_that_judgements_were_summed_up(store: Path):
    said = "judgements summed up as preference (plain text, explicit prompt)"
    assert str(recognise(load_rows(str(exported(store, "j.jsonl"))))) == said
    assert str(recognise(load_rows(f"feedback:{store}#c"))) == said


def test_a_ratings_folder_stands_for_the_judgements_in_it(store: Path):
    folder = store.parent / "ratings"
    folder.mkdir()
    with Store.open(store) as opened:
        export_file(opened, "c", folder / "judgements.jsonl", format_name="judgements")
    (folder / "manifest.json").write_text("{}")
    assert load_rows(str(folder)).kind == "judgements"


def test_a_file_from_elsewhere_needs_neither_ids_nor_items(tmp_path: Path):
    rows = [
        row(annotator="a", verdict=-1),
        row(annotator="b", verdict=2, completions=["no", "yes"], campaign=...),
        row(annotator="c", verdict=3, prompt="another"),
    ]
    loaded = load_rows(str(write_jsonl(tmp_path / "j.jsonl", *rows)))
    assert sorted((row["prompt"], row["chosen"]) for row in loaded.rows) == [
        ("another", "no"),
        ("question", "yes"),
    ]
    assert not loaded.simulated
    assert loaded.provenance["num_labels"] == 3


def test_the_input_is_the_file_itself(store: Path):
    import hashlib

    path = exported(store, "j.jsonl.gz")
    entry = load_rows(str(path)).as_input()
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(gzip.decompress(path.read_bytes()).splitlines()) > entry["rows"] == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(campaign="other", annotator="b")], r"several campaigns \(c, other\)"),
        ([row(), row(verdict=7, annotator="b")], r"j.jsonl:2: .*7"),
        ([row(verdict=0)], r"j.jsonl: no labelled pair among 1 judgements"),
        ([row(), {"prompt": "p", "chosen": "a", "rejected": "b"}], r"j.jsonl:2: no judgement"),
    ],
)
def test_judgements_that_cannot_be_used_are_named(tmp_path: Path, rows: list, message: str):
    path = tmp_path / "j.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    with pytest.raises(DataError, match=message):
        load_rows(str(path))


def test_rows_say_who_said_what_without_their_names(store: Path):
    row = load_rows(f"feedback:{store}#c").rows[0]
    assert (row["item"], row["p_chosen"], row["weight"], row["group"]) == ("i0", 3 / 5, 1.0, None)
    assert sorted(vote["prefers"] for vote in row["votes"]) == ["chosen", "chosen", "rejected"]
    assert {vote["rater"] for vote in row["votes"]} == {f"simulated-{n}" for n in (1, 2, 3)}
    assert row["chosen_shown_first"] == 1.0  # all saw the first completion first
    assert row["criteria"] is None


def test_ties_are_kept_on_demand(store: Path):
    from rlhf.data.feedback_pairs import Labelling

    kept = load_rows(f"feedback:{store}#c", labelling=Labelling(keep_ties=True))
    tied = [row for row in kept.rows if row["p_chosen"] == 0.5]
    assert [row["item"] for row in tied] == ["i3", "i4"]
    assert kept.losses.noted["pairs with equal votes, kept as ties"] == 2
    dropped = load_rows(f"feedback:{store}#c")
    assert len(dropped.rows) == len(kept.rows) - 2
    assert dropped.losses.noted["pairs with equal votes"] == 2
    again = load_rows(str(exported(store, "j.jsonl")), labelling=Labelling(keep_ties=True))
    assert list(again.rows) == list(kept.rows)


def test_reliability_of_raters_feeds_the_labels(tmp_path: Path):
    from rlhf.data.feedback_pairs import Labelling

    location = tmp_path / "f.db"
    truth = [1 if index % 3 else -1 for index in range(40)]
    with Store.open(location, create=True) as opened:
        opened.create_campaign("c", overlap=3)
        opened.add_comparisons("c", [comparison(f"i{n:02}", "yes", "no") for n in range(40)])
        for number in range(3):
            opened.add_annotator(Annotator(name=f"sim-{number}", simulated=True))
        # two who are right, one who always says the first completion
        opened.record(
            by(rater, f"i{n:02}", verdict=-1 if rater == 2 else sign)
            for n, sign in enumerate(truth)
            for rater in range(3)
        )
    votes = load_rows(f"feedback:{location}#c")
    model = load_rows(f"feedback:{location}#c", labelling=Labelling(method="dawid_skene"))
    assert {row["p_chosen"] for row in votes.rows} == {3 / 5, 4 / 5}
    assert min(row["p_chosen"] for row in model.rows) > 0.9
    assert (votes.provenance["label_method"], model.provenance["label_method"]) == (
        "votes",
        "dawid_skene",
    )
    reliability = model.provenance["rater_reliability"]
    assert reliability["simulated-1"]["value"] > 0.9 > 0.6 > reliability["simulated-3"]["value"]


def test_ratings_alone_make_pairs_with_criteria(tmp_path: Path):
    rows = [
        row(
            verdict=..., annotator=rater, prompt=f"q{n}", ratings={"help": [5, low], "true": [3, 3]}
        )
        for n in range(3)
        for rater, low in (("a", 1), ("b", 2))
    ]
    read = load_rows(str(write_jsonl(tmp_path / "rated.jsonl", *rows)))
    assert len(read.rows) == 3
    assert read.rows[0]["criteria"] == pytest.approx({"help": 3 / 4, "true": 2 / 4})
    assert (read.rows[0]["chosen"], read.rows[0]["p_chosen"]) == ("yes", 3 / 4)
    assert preference_pairs(read)[0].criteria == {"help": 3 / 4, "true": 0.5}
    assert read.provenance["noise_ceiling"] == 1.0  # two raters who agree, by the leading criterion


def test_a_model_of_raters_labels_ratings_too_and_is_recorded(tmp_path: Path):
    from rlhf.data.feedback_pairs import Labelling

    rows = [
        row(
            verdict=...,
            annotator=rater,
            prompt=f"q{n}",
            ratings={"help": (1, 5) if right == bool(n % 2) else (5, 1)},
        )
        for n in range(30)
        for rater, right in (("a", True), ("b", True), ("c", False))
    ]
    path = str(write_jsonl(tmp_path / "rated.jsonl", *rows))
    votes, model = load_rows(path), load_rows(path, labelling=Labelling(method="dawid_skene"))
    assert {each["p_chosen"] for each in votes.rows} == {3 / 5}
    assert min(each["criteria"]["help"] for each in model.rows) > 0.95
    assert model.provenance["label_method"] == "dawid_skene"
    (by_help,) = model.provenance["rater_reliability_by_criterion"].values()
    assert sorted(found["value"] < 0.2 for found in by_help.values()) == [False, False, True]
