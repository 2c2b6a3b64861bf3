"""The reports of a campaign in a store, on both engines, and the two commands."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.errors import ConfigError, DataError
from rlhf.feedback.aggregation import aggregate_evidence
from rlhf.feedback.evidence import read_evidence
from rlhf.feedback.quality import (
    agreement_over_time,
    agreement_report,
    disagreements,
    forecast,
    rater_table,
    reliability_report,
    throughput,
)
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import NOON, comparison, fill, judgement

VERDICTS = {  # by item, of ann, bob and the simulated rater
    "i0": (2, 1, 1),
    "i1": (-1, -3, 1),
    "i2": (1, -1, -1),
    "i3": (0, 0, 2),
}


def rated(store: Store, **settings: object) -> None:
    """Four items by ann, bob and a simulated rater, one a day."""
    fill(store, 4, raters=("ann", "bob"), overlap=3, **settings)
    store.add_annotator(Annotator(name="robot", simulated=True))
    store.add_annotator(Annotator(name="lead", role="lead"))
    store.record(
        judgement(item, rater, verdict=verdict, simulated=rater == "robot",
                  created_at=NOON + day * timedelta(days=1))
        for day, (item, verdicts) in enumerate(VERDICTS.items())
        for rater, verdict in zip(("ann", "bob", "robot"), verdicts, strict=True)
    )  # fmt: skip


def test_agreement_by_hand(store: Store) -> None:
    rated(store)
    report = agreement_report(store, "c")
    assert (report["num_items"], report["num_judgements"], report["num_annotators"]) == (4, 12, 3)
    assert (report["simulated"], report["num_simulated_annotators"]) == (True, 1)
    # equal signs: i0 3 of 3, i1 1, i2 1, i3 1 of 3
    assert report["percent_agreement"] == pytest.approx(6 / 12)
    low, high = report["percent_agreement_ci"]
    assert 1 / 3 <= low < 0.5 < high <= 1
    # each unit's 3 values make 3 coincidences: 6 differ of 12 pairs; -: 4, 0: 2, +: 6 of 12 values
    # by chance 2 (4*2 + 4*6 + 2*6) of 12 * 11: 1 - (1/2) / (88/132) = 1/4
    assert report["krippendorff_alpha"]["nominal"]["value"] == pytest.approx(1 / 4)
    assert set(report["krippendorff_alpha"]) == {"nominal", "ordinal", "interval"}
    pair = report["pairs"][0]
    # ann + - + 0, bob + - - 0: 3 of 4 equal; by chance (2*1 + 1*2 + 1*1) / 16: (3/4 - 5/16) / 11/16
    assert (pair["a"], pair["b"], pair["n"]) == ("ann", "bob", 4)
    assert pair["kappa"] == pytest.approx((3 / 4 - 5 / 16) / (11 / 16))
    # differences squared 1 4 4 0, mean 9/4; means 1/2 and -3/4, mean squares 6/4 and 11/4:
    # by chance 17/4 + 2 * 3/8 = 5
    assert pair["weighted_kappa"] == pytest.approx(1 - 9 / 20)


def test_excluded_rater_is_left_out_of_agreement_and_stays_in_the_table(store: Store) -> None:
    rated(store)
    store.decide_on_rater("c", "robot", weight=0.0, reason="a robot", decided_by="lead")
    report = agreement_report(store, "c")
    assert (report["num_annotators"], report["num_excluded_annotators"]) == (2, 1)
    assert report["percent_agreement"] == 3 / 4
    table = {one.name: one for one in rater_table(store, "c")}
    assert list(table) == ["ann", "bob", "robot"]
    assert (table["robot"].weight, table["ann"].weight) == (0.0, 1.0)
    assert (table["robot"].simulated, table["ann"].simulated) == (True, False)
    assert table["robot"].reliability is not None
    assert [one.num_raters for one in disagreements(store, "c")] == [2]


def test_adjudication_decides_the_label_until_it_is_withdrawn(store: Store) -> None:
    rated(store)
    before, _ = aggregate_evidence(read_evidence(store, "c"))
    store.adjudicate(
        judgement("i0", "lead", verdict=-2, purpose="adjudication"),
        reason="both were wrong",
        idempotency_key="k",
    )
    pairs, report = aggregate_evidence(read_evidence(store, "c"))
    assert (pairs[0].chosen.text, pairs[0].p_chosen) == ("yes", pytest.approx(0.98))
    assert report.num_adjudicated == 1
    assert {one.item: one.adjudicated for one in disagreements(store, "c")} == {
        "i1": False, "i2": False, "i3": False
    }  # fmt: skip
    store.withdraw_adjudication("c", "i0", decided_by="lead", reason="no")
    assert aggregate_evidence(read_evidence(store, "c"))[0] == before


def test_gold_items_are_checks_and_no_labels(store: Store) -> None:
    rated(store)
    store.add_comparisons(
        "c", [comparison("g")], purpose="gold", gold={"g": {"verdict": 1}}
    )  # fmt: skip
    store.record(
        judgement("g", rater, verdict=verdict, purpose="gold")
        for rater, verdict in (("ann", 3), ("bob", -1))
    )
    table = {one.name: one for one in rater_table(store, "c")}
    shares = {name: one.gold_accuracy.value for name, one in table.items() if one.gold_accuracy}
    assert shares == {"ann": 1.0, "bob": 0.0}
    pairs, report = aggregate_evidence(read_evidence(store, "c"))
    assert "g" not in {pair.item for pair in pairs}
    assert report.num_checks == 2
    assert agreement_report(store, "c")["num_judgements"] == 12


def test_work_over_days_with_its_gaps(sqlite_store: Store) -> None:
    rated(sqlite_store)
    now = NOON + timedelta(days=5)
    buckets = throughput(sqlite_store, "c", now)
    assert len(buckets) == 5 * 24 + 1
    assert [count for _, count in buckets if count] == [3, 3, 3, 3]
    assert buckets[0][0] == NOON
    found = forecast(sqlite_store, "c", now)
    assert (found.num_left, found.reason) == (0, "every place is filled")
    over_time = agreement_over_time(sqlite_store, "c")
    assert [one and one.value for _, one in over_time] == [1.0, *[pytest.approx(1 / 3)] * 3]


def test_nothing_judged_and_nothing_there(sqlite_store: Store) -> None:
    fill(sqlite_store, 2)
    for report in (agreement_report, reliability_report):
        with pytest.raises(DataError, match="collect ratings first"):
            report(sqlite_store, "c")
        with pytest.raises(ConfigError, match="other"):
            report(sqlite_store, "other")
    assert rater_table(sqlite_store, "c") == []
    assert throughput(sqlite_store, "c") == []
    assert agreement_over_time(sqlite_store, "c") == []
    assert disagreements(sqlite_store, "c") == []


def test_one_rater_has_nobody_to_agree_with(sqlite_store: Store) -> None:
    fill(sqlite_store, 2)
    sqlite_store.record([judgement("i0", verdict=1), judgement("i1", verdict=-1)])
    report = agreement_report(sqlite_store, "c")
    assert report["percent_agreement"] is None
    assert report["krippendorff_alpha"]["nominal"]["value"] is None
    assert (report["pairs"], "one rater" in report["note"]) == ([], True)
    found = reliability_report(sqlite_store, "c")
    assert [one["value"] for one in found["raters"]] == [None]
    assert "one rater" in found["note"]


def test_each_criterion_has_numbers_of_its_own(sqlite_store: Store) -> None:
    fill(sqlite_store, 2, task="ratings", raters=("ann", "bob"))
    ratings = {"ann": {"help": (5, 1), "harm": (1, 2)}, "bob": {"help": (5, 1), "harm": (2, 1)}}
    sqlite_store.record(
        judgement(item, rater, ratings=said) for item in ("i0", "i1") for rater, said in
        ratings.items()
    )  # fmt: skip
    report = agreement_report(sqlite_store, "c")
    assert list(report["measures"]) == ["ratings:harm", "ratings:help"]
    assert report["measures"]["ratings:help"]["krippendorff_alpha"]["interval"]["value"] == 1
    assert report["measures"]["ratings:harm"]["krippendorff_alpha"]["interval"]["value"] < 0
    with pytest.raises(DataError, match="no comparison and no flag"):
        reliability_report(sqlite_store, "c")


def test_reliability_says_which_model_and_why(store: Store) -> None:
    rated(store)
    report = reliability_report(store, "c")
    assert [one["name"] for one in report["raters"]] == ["ann", "bob", "robot"]
    assert [one["n"] for one in report["raters"]] == [3, 3, 4]  # ties tell nothing
    assert report["simulated"] is True
    assert report["labels"]["method"] == "dawid_skene"
    assert "share no completions" in report["labels"]["why"]
    assert report["connectivity"]["num_components"] == 4


@pytest.mark.parametrize("command", ["agreement", "reliability"])
def test_commands_print_a_table_and_write_json(
    command: str, sqlite_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rated(sqlite_store)
    target = tmp_path / "made" / "out.json"
    words = ["feedback", command, "--store", sqlite_store.location, "--campaign", "c"]
    assert main([*words, "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "3 raters, 1 SIMULATED" in printed
    assert "ann" in printed
    assert json.loads(target.read_text())["num_annotators"] == 3


@pytest.mark.parametrize("command", ["agreement", "reliability"])
def test_commands_fail_in_one_line(
    command: str, sqlite_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(sqlite_store, 1)
    words = ["feedback", command, "--campaign", "c", "--store"]
    assert main([*words, sqlite_store.location]) == 3
    assert main([*words, str(tmp_path / "none.db")]) == 2
    other = ["feedback", command, "--campaign", "d", "--store", sqlite_store.location]
    assert main(other) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 3
