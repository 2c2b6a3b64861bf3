"""What an export writes, by hand, and that it writes all or nothing."""

import json
from pathlib import Path

import pytest

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.exports import export_file, frozen_rows, manifest_path
from rlhf.feedback.files import read_rows, write_rows
from rlhf.feedback.imports import import_file
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import fill, judgement, row, write_jsonl


def test_preference_export_by_hand(sqlite_store: Store, tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "q"}]
    shared = {"prompt": prompt, "item": "one", "ended": [True, False]}
    rows = [
        row(**shared, id="j1", annotator="ann@example.org", verdict=2),
        row(**shared, id="j2", annotator="bob", verdict=3),
        row(**shared, id="j3", annotator="eve", verdict=-1),
    ]
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", *rows))
    path = tmp_path / "deep" / "pairs.jsonl"
    export_file(sqlite_store, "c", path, format_name="preference")
    ((_, pair),) = read_rows(path)
    assert pair == {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "no"}],
        "rejected": [{"role": "assistant", "content": "yes"}],
        "p_chosen": pytest.approx(3 / 5),  # (2 + 1) / (3 + 2)
        "margin": pytest.approx(4 / 3),  # (2 + 3 - 1) / 3
        "chosen_ended": False,
        "rejected_ended": True,
        "chosen_source": None,
        "rejected_source": None,
        "item": "one",
        "judgement_ids": ["j1", "j2", "j3"],
        "raters": ["rater-1", "rater-2", "rater-3"],
        "simulated": False,
    }
    manifest = json.loads(manifest_path(path).read_text())
    assert manifest["num_judgements"] == 3
    assert manifest["simulated"] is False
    assert "example.org" not in path.read_text() + manifest_path(path).read_text()


def test_simulated_labels_are_marked_in_every_export(sqlite_store: Store, tmp_path: Path) -> None:
    made = row(annotator="robot", simulated=True, rewrite="better")
    import_file(sqlite_store, write_jsonl(tmp_path / "f.jsonl", made, row(item="human")))
    for name in ("judgements", "preference", "demonstrations"):
        path = tmp_path / f"{name}.jsonl"
        assert export_file(sqlite_store, "c", path, format_name=name)["simulated"] is True
        assert next(each for _, each in read_rows(path))["simulated"] is True


def test_demonstrations_from_rewrites(sqlite_store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", row(verdict=..., rewrite="mine", rewrite_of=1, id="j"))
    import_file(sqlite_store, path)
    out = tmp_path / "demonstrations.json"
    export_file(sqlite_store, "c", out, format_name="demonstrations")
    assert [each for _, each in read_rows(out)] == [
        {
            "prompt": "question",
            "completion": "mine",
            "judgement_ids": ["j"],
            "raters": ["rater-1"],
            "simulated": False,
        }
    ]


def test_export_of_nothing_writes_nothing_and_keeps_the_old_file(
    sqlite_store: Store, tmp_path: Path
) -> None:
    fill(sqlite_store, 1)
    path = tmp_path / "pairs.jsonl"
    path.write_text("old")
    for name in ("judgements", "preference", "demonstrations"):
        with pytest.raises(DataError, match="nothing to export"):
            export_file(sqlite_store, "c", path, format_name=name)
    assert path.read_text() == "old"
    with pytest.raises(ConfigError, match="no campaign 'd'"):
        export_file(sqlite_store, "d", path, format_name="judgements")


def test_export_that_fails_half_way_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.jsonl"
    write_rows(path, [{"a": 1}])

    def full(self: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="No space left") as caught:
        write_rows(path, [{"a": 2}])
    assert getattr(caught.value, "exit_code", None) == 4
    assert path.read_text() == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_frozen_rows_are_what_labels_are_made_of(sqlite_store: Store) -> None:
    fill(sqlite_store, 2, raters=("ann", "bob", "eve"))
    sqlite_store.add_annotator(Annotator(name="lea", role="lead"))
    sqlite_store.record([judgement("i0", name) for name in ("ann", "bob", "eve")])
    sqlite_store.record([judgement("i1", "ann", purpose="retest")])
    sqlite_store.decide_on_rater("c", "eve", weight=0, reason="r", decided_by="lea")
    for item in ("i0", "i1"):
        said = judgement(item, "lea", verdict=-1, purpose="adjudication")
        sqlite_store.adjudicate(said, reason="r", idempotency_key=item)
    sqlite_store.withdraw_adjudication("c", "i1", decided_by="lea", reason="no")
    rows = [
        (one["item"], one["annotator"], one.get("purpose"))
        for one in frozen_rows(sqlite_store, "c")
    ]
    assert rows == [
        ("i0", "ann", None),
        ("i0", "bob", None),
        ("i0", "lea", "adjudication"),
        ("i1", "ann", "retest"),
    ]
