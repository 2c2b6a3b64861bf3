"""Completions with a label each: read as they are, made of pairs, and made of judgements."""

import random
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.formats import demonstrations, preference_pairs, unpaired_completions
from rlhf.data.labelling import Labelling
from rlhf.data.losses import DataLosses
from rlhf.data.sources import LoadedDataset, load_rows
from rlhf.data.unpaired_columns import add_mismatched
from rlhf.data.unpairing import taken_apart
from rlhf.errors import DataError
from rlhf.feedback.exports import export_file
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.data.test_formats import USER, dataset, said
from tests.feedback.makers import comparison, judgement

GOOD = {"prompt": "p", "completion": "a", "label": True}
BAD = {"prompt": "p", "completion": "b", "label": False}
SCALE = {"criteria": [{"name": "helpful", "title": "Helpful"}]}  # from 1 to 5
UNPAIRED = Labelling(rows="unpaired")


def labels(data: LoadedDataset) -> dict[str, tuple[bool, float | None]]:
    return {one.completion: (one.label, one.weight) for one in unpaired_completions(data)}


def test_unpaired_rows_are_read_with_their_columns():
    first = GOOD | {"ended": False, "weight": 0.5, "judgement_ids": ["j1"], "simulated": True}
    one, other = unpaired_completions(dataset(first, BAD))
    assert (one.prompt, one.completion, one.label, one.ended) == ("p", "a", True, False)
    assert (one.weight, one.judgement_ids, one.simulated) == (0.5, ("j1",), True)
    assert (other.label, other.ended, other.weight, other.place) == (False, None, None, "d.jsonl:2")


def test_conversational_rows_and_rows_that_hold_too_little():
    row = {"prompt": [USER], "completion": [said("a")], "label": True}
    broken = {"label": "yes"}, {"label": -1}, {"prompt": " "}, {"weight": -1}, {"completion": 3}
    data = dataset(row, BAD, *(GOOD | each for each in broken))
    [one, _] = unpaired_completions(data)
    assert (one.prompt, one.completion) == ([USER], "a")
    assert data.losses.dropped == {
        "label must be true or false": 2,  # -1 would be true to Python
        "empty prompt": 1,
        "weight must be a finite number from 0 to 1000000": 1,
        "completion must be text or a list of {role, content} turns": 1,
    }


@pytest.mark.parametrize(("label", "word"), [(True, "true"), (False, "false")])
def test_one_label_only_is_refused(label: bool, word: str):
    with pytest.raises(DataError, match=f"all 2 rows are labelled {word}, so nothing says what"):
        unpaired_completions(dataset(GOOD | {"label": label}, BAD | {"label": label}))


def test_rows_of_another_format_are_one_line():
    with pytest.raises(DataError, match="completions with a label are needed"):
        unpaired_completions(dataset({"prompt": "p", "completion": "a"}))
    with pytest.raises(DataError, match=r"no column 'completion'.*it has: prompt, completio, lab"):
        unpaired_completions(dataset({"prompt": "p", "completio": "a", "label": True}))
    with pytest.raises(DataError, match="or train on these with rlhf kto"):
        preference_pairs(dataset(GOOD, BAD))


def test_pairs_are_taken_apart_and_counted():
    same = {"prompt": "p", "chosen": "x", "rejected": "x"}
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "rejected_ended": False}
    data = dataset(pair, same)
    data.losses.num_rows = 2
    one, other = unpaired_completions(data)
    assert (one.completion, one.label, one.ended, one.weight) == ("a", True, None, None)
    assert (other.completion, other.label, other.ended) == ("b", False, False)
    assert (one.place, other.place) == ("d.jsonl:1 chosen", "d.jsonl:1 rejected")
    assert data.losses.noted == {"pairs taken apart: chosen true, rejected false": 1}
    assert data.losses.num_rows == 3  # the pair that was dropped, and two completions


def test_each_completion_keeps_the_prompt_of_its_own_transcript():
    bye = {"role": "user", "content": "bye"}
    row = {"chosen": [USER, said("a")], "rejected": [bye, said("b")]}
    assert [one.prompt for one in unpaired_completions(dataset(row))] == [[USER], [bye]]


def test_a_soft_pair_counts_by_how_sure_it_is_whichever_way_it_points():
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "p_chosen": 0.75, "weight": 0.5}
    turned = {"prompt": "q", "chosen": "c", "rejected": "d", "p_chosen": 0.25}
    tie = {"prompt": "r", "chosen": "e", "rejected": "f", "p_chosen": 0.5}
    data = dataset(pair, turned, tie)
    assert labels(data) == {
        "a": (True, 0.375),  # 0.75 of a rater who counts half
        "b": (False, 0.375),
        "c": (False, 0.75),
        "d": (True, 0.75),
    }
    assert data.losses.noted["completions that win half of their pairs, left out"] == 2


def test_a_ranking_taken_apart_labels_each_completion_once():
    def pair(chosen: str, rejected: str) -> dict[str, Any]:
        return {"prompt": "p", "chosen": chosen, "rejected": rejected, "group": "p"}

    # a > b > c: a wins both of its pairs, b one of two, c none
    data = dataset(pair("a", "b"), pair("a", "c"), pair("b", "c"))
    assert labels(data) == {"a": (True, 1.0), "c": (False, 1.0)}
    assert data.losses.noted["completions that win half of their pairs, left out"] == 1


def test_a_pair_says_the_same_either_way_round():
    drawn = random.Random(0)
    for _ in range(100):
        pairs, turned = [], []
        for _ in range(drawn.randrange(1, 6)):
            one, other = drawn.sample("abcd", 2)
            p_chosen, weight = (
                drawn.choice([0.1, 0.3, 0.5, 0.8, 1.0]),
                drawn.choice([0.0, 0.5, 1.0]),
            )
            row = {"prompt": "p", "chosen": one, "rejected": other, "weight": weight}
            pairs.append(row | {"p_chosen": p_chosen})
            swapped = row | {"chosen": other, "rejected": one, "p_chosen": 1 - p_chosen}
            turned.append(swapped)
        said, again = (
            {
                one.completion: (one.label, pytest.approx(one.weight))
                for one in taken_apart(preference_pairs(dataset(*rows)), DataLosses())
            }
            for rows in (pairs, turned)
        )
        assert said == again


def rated(location: Path, ratings: dict[str, list[tuple[float, ...]]], **settings: Any) -> Path:
    """Campaign `c`: for each item what raters r0, r1, ... gave its completions."""
    with Store.open(location, create=True) as store:
        store.create_campaign("c", task="ratings", settings=settings, overlap=4)
        store.add_comparisons(
            "c", [comparison(item, *"abc"[: len(given[0])]) for item, given in ratings.items()]
        )
        for number in range(max(map(len, ratings.values()))):
            store.add_annotator(Annotator(name=f"r{number}", simulated=number == 0))
        store.record(
            judgement(
                item,
                f"r{number}",
                ratings={"helpful": values},
                shown_order=tuple(range(len(values))),
                simulated=number == 0,
            )
            for item, given in ratings.items()
            for number, values in enumerate(given)
        )
    return location


def test_ratings_become_labels_about_the_middle_of_their_scale(tmp_path: Path):
    # three raters of 1 to 5, whose middle is 3; a: mean 4, all above; b: mean 3; c: mean 2
    given = [(5.0, 3.0, 1.0), (4.0, 3.0, 1.0), (3.0, 3.0, 4.0)]
    store = rated(tmp_path / "f.db", {"i0": given}, **SCALE)
    data = load_rows(f"feedback:{store}#c", labelling=UNPAIRED)
    rows = {row["completion"]: row for row in data.rows}
    assert {text: row["label"] for text, row in rows.items()} == {"a": True, "c": False}
    # of three raters two and a half agree that a is good (one is on the middle): 3.5 / 5
    assert rows["a"]["p_label"] == rows["a"]["weight"] == pytest.approx(0.7)
    assert rows["c"]["weight"] == pytest.approx(0.6)  # two of three: 3 / 5
    assert data.losses.noted["completions on the middle, left out"] == 1
    assert data.simulated
    assert rows["a"]["raters"] == ["simulated-1", "rater-2", "rater-3"]
    assert data.places[0] == "c item i0 completion 1"
    assert data.provenance["labelled_by"] == "ratings"
    assert data.provenance["rating_threshold"] == 3
    assert data.provenance["num_labels"] == 3
    assert data.provenance["num_simulated_annotators"] == 1
    assert [one.label for one in unpaired_completions(data)] == [True, False]


def test_a_threshold_moves_what_is_good(tmp_path: Path):
    store = rated(tmp_path / "f.db", {"i0": [(5.0, 4.0)]}, **SCALE)
    with pytest.raises(DataError, match="all 2 rows are labelled true"):
        unpaired_completions(load_rows(f"feedback:{store}#c", labelling=UNPAIRED))
    asked = Labelling(rows="unpaired", rating_threshold=4.5)
    data = load_rows(f"feedback:{store}#c", labelling=asked)
    assert {text: label for text, (label, _) in labels(data).items()} == {"a": True, "b": False}
    assert data.provenance["rating_threshold"] == 4.5


def test_ratings_on_an_unknown_scale_need_a_threshold(tmp_path: Path):
    store = rated(tmp_path / "f.db", {"i0": [(9.0, 2.0)]})
    with pytest.raises(DataError, match="what scale its ratings are on; add --rating_threshold"):
        load_rows(f"feedback:{store}#c", labelling=UNPAIRED)
    data = load_rows(
        f"feedback:{store}#c", labelling=Labelling(rows="unpaired", rating_threshold=5)
    )
    assert [row["label"] for row in data.rows] == [True, False]
    assert data.provenance["rating_criterion"] == "helpful"


def test_a_store_and_its_exported_judgements_give_the_same_labels(tmp_path: Path):
    store = rated(tmp_path / "f.db", {"i0": [(5.0, 1.0), (4.0, 4.0)]}, **SCALE)
    with Store.open(store) as opened:
        export_file(opened, "c", tmp_path / "j.jsonl", format_name="judgements")
    asked = Labelling(rows="unpaired", rating_threshold=3)  # a file does not tell the scale
    direct = load_rows(f"feedback:{store}#c", labelling=asked)
    read = load_rows(str(tmp_path / "j.jsonl"), labelling=asked)
    assert list(read.rows) == list(direct.rows)
    assert read.kind == "judgements"
    assert read.provenance["label_ids_sha256"] == direct.provenance["label_ids_sha256"]


def verdicts(location: Path) -> Path:
    with Store.open(location, create=True) as store:
        store.create_campaign("c", overlap=3)
        store.add_comparisons("c", [comparison(f"i{n}", f"yes {n}", f"no {n}") for n in range(3)])
        store.add_annotator(Annotator(name="ann"))
        store.record(
            [
                judgement("i0", "ann", verdict=-2),
                judgement("i1", "ann", verdict=0),
                judgement("i2", "ann", verdict=1, both_bad=True),
            ]
        )
    return location


def test_verdicts_train_too_and_the_log_says_so(tmp_path: Path):
    data = load_rows(f"feedback:{verdicts(tmp_path / 'f.db')}#c", labelling=UNPAIRED)
    found = labels(data)
    assert {text: label for text, (label, _) in found.items()} == {
        "yes 0": True,
        "no 0": False,
        "yes 2": False,
        "no 2": False,
    }
    assert found["yes 0"][1] == pytest.approx(2 / 3)  # one vote of one
    noted = data.losses.noted
    assert noted["pairs with equal votes, left out"] == 1
    assert noted["pairs that most raters call both bad: both labelled false"] == 1
    by_pair = "completions labelled by the verdict on their pair: chosen true, rejected false"
    assert noted[by_pair] == 4


def flagged(location: Path) -> Path:
    with Store.open(location, create=True) as store:
        settings = {"flags": ["unsafe"]}
        store.create_campaign("c", task="flags", settings=settings, overlap=3)
        store.add_comparisons("c", [comparison("i0", "yes", "no")])
        for name in ("ann", "bob"):
            store.add_annotator(Annotator(name=name))
            store.record([judgement("i0", name, flags=((), ("unsafe",)))])
    return location


def test_the_manifest_names_the_model_that_was_used(tmp_path: Path):
    asked = Labelling(rows="unpaired", method="dawid_skene")
    store = rated(tmp_path / "f.db", {"i0": [(5.0, 1.0)]}, **SCALE)
    means = load_rows(f"feedback:{store}#c", labelling=asked)
    assert means.provenance["label_method"] == "votes"  # a mean rating has no model of raters
    flags = load_rows(f"feedback:{flagged(tmp_path / 'g.db')}#c", labelling=asked)
    assert flags.provenance["label_method"] == "dawid_skene"


def test_flags_are_thumbs(tmp_path: Path):
    data = load_rows(f"feedback:{flagged(tmp_path / 'f.db')}#c", labelling=UNPAIRED)
    assert data.provenance["label_method"] == "votes"
    assert labels(data) == {"yes": (True, 0.75), "no": (False, 0.75)}  # two of two: 3 / 4
    assert data.provenance["labelled_by"] == "flags"


def rewritten(location: Path) -> Path:
    """Campaign `c`: a rewrites the first completion of i0, writes anew for i1; b says who wins."""
    with Store.open(location, create=True) as store:
        settings = {"kinds": ["rewrite", "pairwise"]}
        store.create_campaign("c", task="rewrite", settings=settings, overlap=3)
        store.add_comparisons("c", [comparison("i0", "yes", "no"), comparison("i1", "on", "off")])
        for name in ("a", "b"):
            store.add_annotator(Annotator(name=name, simulated=name == "a"))
        store.record(
            [
                judgement("i0", "a", rewrite="better", rewrite_of=0, simulated=True),
                judgement("i1", "a", rewrite="new", simulated=True),
                judgement("i0", "b", verdict=-2),
            ]
        )
    return location


def imitated(location: Path, rows: Any) -> list[tuple[Any, str]]:
    data = load_rows(f"feedback:{location}#c", labelling=Labelling(rows=rows))
    return [(demo.prompt, demo.completion) for demo in demonstrations(data)]


def test_rewrites_are_imitated_alone_or_beside_the_chosen(tmp_path: Path):
    store = rewritten(tmp_path / "f.db")
    written = [("question i0", "better"), ("question i1", "new")]
    assert imitated(store, "rewrites") == written
    assert sorted(imitated(store, "all")) == sorted([*written, ("question i0", "yes")])
    data = load_rows(f"feedback:{store}#c", labelling=Labelling(rows="rewrites"))
    assert data.simulated
    assert data.provenance["num_rewrites"] == 2
    assert data.provenance["num_simulated_annotators"] == 1
    assert data.rows[0]["raters"] == ["simulated-1"]
    assert str(data.places[0]) == "c item i0#rewrite-1"


def test_a_campaign_without_rewrites_is_one_line(tmp_path: Path):
    store = verdicts(tmp_path / "f.db")
    with pytest.raises(DataError, match=r"#c: no rewrites among 3 judgements; ask raters"):
        load_rows(f"feedback:{store}#c", labelling=Labelling(rows="rewrites"))
    location = tmp_path / "only.db"
    with Store.open(location, create=True) as opened:
        opened.create_campaign("c", task="rewrite")
        opened.add_comparisons("c", [comparison("i0")])
        opened.add_annotator(Annotator(name="a"))
        opened.record([judgement("i0", "a", rewrite="w")])
    with pytest.raises(DataError, match="rewrites only, and they are for rlhf sft --imitate"):
        load_rows(f"feedback:{location}#c", labelling=UNPAIRED)


def test_a_rewrite_is_better_than_what_it_rewrites_where_asked(tmp_path: Path):
    location = f"feedback:{rewritten(tmp_path / 'f.db')}#c"
    assert [row["chosen"] for row in load_rows(location).rows] == ["yes"]
    data = load_rows(location, labelling=Labelling(rewrite_pairs=True))
    first, second = preference_pairs(data)
    assert (first.chosen, first.rejected) == ("yes", "no")
    assert (second.chosen, second.rejected, second.prompt) == ("better", "yes", "question i0")
    assert second.p_chosen == pytest.approx(2 / 3)  # one rater's word, as one vote of one
    assert second.simulated
    assert not first.simulated
    assert second.votes[0]["rater"] == "simulated-1"
    assert data.losses.noted["pairs of a rewrite and what it rewrites"] == 1
    assert data.losses.noted["rewrites of no completion, or equal to it: no pair"] == 1
    assert data.provenance["num_rewrite_pairs"] == 1
    assert data.provenance["num_labels"] == 2


def columns(*prompts: int) -> list[dict[str, Any]]:
    return [
        {"prompt_ids": [prompt], "completion_ids": [index]} for index, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize(
    ("prompts", "others"),
    [
        ((1, 2, 3), [1, 2, 0]),
        ((1, 1, 2, 2), [2, 2, 0, 0]),
        ((1, 2, 2, 1), [1, 3, 3, 1]),  # the ring closes over two rows of one prompt
        ((1, 1, 1, 2, 1), [3, 3, 3, 4, 3]),
        ((7, 7), [1, 0]),  # one prompt only: there is no foreign one
    ],
)
def test_the_mismatched_completion_is_that_of_the_next_row_with_another_prompt(prompts, others):
    rows = columns(*prompts)
    add_mismatched(rows)
    assert [row["KL_completion_ids"] for row in rows] == [[other] for other in others]
