"""Every source that --dataset_name names, and every way in which one can be broken."""

import gzip
import hashlib
import json
import time
from pathlib import Path

import pytest

from rlhf.data.sources import load_rows, refuse_overwriting
from rlhf.errors import ConfigError, DataError

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(LINES)
    return path


def test_jsonl_with_hash_and_places(jsonl: Path):
    loaded = load_rows(str(jsonl))
    assert list(loaded.rows) == ROWS
    assert loaded.places[1] == f"{jsonl}:2"
    assert loaded.sha256 == hashlib.sha256(LINES.encode()).hexdigest()
    assert loaded.as_input() == {"path": str(jsonl), "sha256": loaded.sha256, "rows": 3}
    assert loaded.losses.num_rows == 3
    assert not loaded.simulated


def test_gzip_json_list_and_parquet_hold_the_same_rows(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "rows.json").write_text(json.dumps(ROWS, indent=1))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    for name in ("rows.jsonl.gz", "rows.json", "rows.parquet"):
        assert list(load_rows(str(tmp_path / name)).rows) == ROWS


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + LINES.replace("\n", "\n\n"), encoding="utf-8")
    loaded = load_rows(str(path))
    assert list(loaded.rows) == ROWS
    assert loaded.places[1] == f"{path}:3"


def test_a_json_file_may_hold_lines_and_names_the_broken_one(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(LINES)
    assert list(load_rows(str(path)).rows) == ROWS
    path.write_text(LINES + '{"prompt": ' + "9" * 5000 + "}\n")
    with pytest.raises(DataError, match=r"rows.json:4: not valid JSON"):
        load_rows(str(path))


def put(folder: Path, *names: str) -> None:
    """A row that says which file it is of, in each."""
    for name in names:
        (folder / name).write_text(json.dumps({"prompt": name}) + "\n")


def names_read(folder: Path, split: str = "train") -> list[str]:
    loaded = load_rows(str(folder), split=split)
    assert loaded.provenance["files"].keys() == {row["prompt"] for row in loaded.rows}
    return [row["prompt"] for row in loaded.rows]


def test_folder_takes_every_file_of_the_split_as_a_whole_word(tmp_path: Path):
    put(tmp_path, "b-train.jsonl", "a_TRAIN-00.jsonl", "constraints.jsonl", "test.jsonl")
    assert names_read(tmp_path) == ["a_TRAIN-00.jsonl", "b-train.jsonl"]
    assert names_read(tmp_path, "test") == ["test.jsonl"]
    with pytest.raises(ConfigError, match=r"no file of the split 'other'; it has .*b-train.jsonl"):
        load_rows(str(tmp_path), split="other")


def test_folder_without_splits_is_read_whole_but_for_what_our_stages_note(tmp_path: Path):
    put(tmp_path, "b.jsonl", "constraints.jsonl")
    notes = ("manifest", "reads", "run", "log", "summary", "b.jsonl.manifest")
    for name in notes:
        (tmp_path / f"{name}.json").write_text('{"stage": "sample"}')
    assert names_read(tmp_path) == ["b.jsonl", "constraints.jsonl"]


def test_folder_where_nothing_fits_says_what_is_there(tmp_path: Path):
    put(tmp_path, "manifest.json", "notes.txt")
    with pytest.raises(DataError, match=r"holds no data files .* but manifest.json, notes.txt"):
        load_rows(str(tmp_path))


def test_folder_of_a_saved_data_set(tmp_path: Path):
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert list(load_rows(str(tmp_path / "saved")).rows) == ROWS
    with pytest.raises(ConfigError, match="no split 'test'; it has train"):
        load_rows(str(tmp_path / "saved"), split="test")


def test_rows_marked_simulated_mark_the_data_set(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "simulated": True}) + "\n" + LINES)
    assert load_rows(str(path)).simulated


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', r"rows.jsonl:2: not valid JSON"),
        ('{"prompt": "a"}\n[1]\n', r"rows.jsonl:2: a list where an object is wanted"),
        ('{"prompt": "a", "margin": ' + "9" * 5000 + "}", r"rows.jsonl:1: not usable JSON"),
        ('{"prompt": ' + "[" * 200_000 + "]" * 200_000 + "}", r"rows.jsonl:1: not usable JSON"),
        ('{"prompt": "a", "margin": NaN}', r"rows.jsonl:1: .*NaN is no JSON number"),
        ("", "holds no rows"),
        ("\n \n", "holds no rows"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_rows(str(path))


def test_broken_bytes_are_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: not UTF-8"):
        load_rows(str(path))
    cut = tmp_path / "rows.jsonl.gz"
    cut.write_bytes(gzip.compress(LINES.encode() * 50)[:-9])
    with pytest.raises(DataError, match="damaged gzip"):
        load_rows(str(cut))
    fake = tmp_path / "rows.parquet"
    fake.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a readable Parquet"):
        load_rows(str(fake))
    listed = tmp_path / "rows.json"
    listed.write_text('[{"prompt": "a"},\n {"prompt" "b"}]')
    with pytest.raises(DataError, match=r"rows.json: not valid JSON .*line 2"):
        load_rows(str(listed))


def test_missing_files_are_usage_errors_that_name_the_nearest(jsonl: Path):
    with pytest.raises(ConfigError, match=r"did you mean 'rows.jsonl'"):
        load_rows(str(jsonl.parent / "rowz.jsonl"))
    with pytest.raises(ConfigError, match="no such file or folder"):
        load_rows("/nowhere/at/all")
    with pytest.raises(ConfigError, match="nor to be had from the hub"):
        load_rows("nobody/no-such-data-set")


def test_other_file_types_and_empty_folders_are_refused(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("prompt\na\n")
    with pytest.raises(ConfigError, match=r"give one of .jsonl"):
        load_rows(str(tmp_path / "rows.csv"))
    with pytest.raises(DataError, match="holds no data files"):
        load_rows(str(tmp_path))


@pytest.mark.parametrize("name", ["feedback:store.db", "feedback:#c", "feedback:store.db#"])
def test_feedback_needs_store_and_campaign(name: str):
    with pytest.raises(ConfigError, match="feedback:STORE#CAMPAIGN"):
        load_rows(name)


def test_a_key_that_stands_twice_among_many_is_found_at_once(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    keys = [f'"k{number}": 1' for number in range(50_000)]
    path.write_text("{" + ", ".join([*keys, '"k49999": 2']) + "}\n")
    began = time.perf_counter()
    with pytest.raises(DataError, match="'k49999' stands twice"):
        load_rows(str(path))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("source", "written", "message"),
    [
        ("a#b.jsonl", ["a#b.jsonl"], "never overwritten"),
        ("feedback:store.db#c", ["store.db"], "never overwritten"),
        ("feedback:sqlite:///store.db#c", ["store.db"], "never overwritten"),
        ("feedback:sqlite:///{folder}/store.db#c", ["store.db"], "never overwritten"),
        ("feedback:od#d.db#c", ["od#d.db"], "never overwritten"),
        ("data", ["data/more/out.jsonl"], "lies in the input folder"),
        ("a#b.jsonl", ["x.json", "data/../x.json"], "two of these are one file"),
        ("a#b.jsonl", ["data"], "a folder"),
    ],
)
def test_nothing_that_is_read_is_written_over(source, written, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "more").mkdir(parents=True)
    for name in ("a#b.jsonl", "store.db", "od#d.db"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(ConfigError, match=message):
        refuse_overwriting([source.format(folder=tmp_path)], *map(Path, written))


def test_what_is_read_elsewhere_hinders_no_writing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = ["owner/name", "feedback:postgresql://host/db#c", "gone.jsonl", None]
    refuse_overwriting(sources, Path("db"), Path("owner/name/x.json"))
