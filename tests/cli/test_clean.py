"""`rlhf clean` from the outside; the steps themselves are tested in tests/data."""

import json
from pathlib import Path

import pytest

from rlhf.cli import main

PAIR = {"prompt": "Is bread good?", "chosen": "Yes.\r\n", "rejected": "Ask anna@example.org"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + json.dumps(PAIR) + "\n")
    return path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_it_says_what_it_changed_and_where_it_is(source, tmp_path, capsys):
    out, log = tmp_path / "out.jsonl", tmp_path / "log.jsonl"
    words = ["clean", "--dataset_name", str(source), "--output_file", str(out)]
    assert main([*words, "--log_file", str(log)]) == 0
    said = capsys.readouterr()
    assert "1 of 2 rows" in said.out
    assert "deduplicate: 1" in said.err
    assert rows(out) == [PAIR | {"chosen": "Yes."}]
    assert {one["step"] for one in rows(log)} == {"line_ends", "outer_blanks", "deduplicate"}
    assert all({"place", "step", "before", "after"} <= one.keys() for one in rows(log))


def test_switches_reach_their_steps(source, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["clean", "--dataset_name", str(source), "--output_file", str(out)]
    words += ["--no_normalise", "--no-deduplicate", "--mask_private"]
    assert main(words) == 0
    assert rows(out) == [PAIR | {"rejected": "Ask [EMAIL]"}] * 2
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest["config"]["normalise"] is False


def test_judgements_become_preference_rows(tmp_path):
    judgement = {"prompt": "p", "completions": ["good ", "bad"], "shown_order": [0, 1]}
    judgement |= {"simulated": True, "seconds": 3.0, "created_at": "2026-01-01T00:00:00Z"}
    judgement |= {"verdict": -2, "annotator": "a"}
    source, out = tmp_path / "judgements.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(judgement) + "\n")
    assert main(["clean", "--dataset_name", str(source), "--output_file", str(out)]) == 0
    [row] = rows(out)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("p", "good", "bad")
    assert row["simulated"] is True
    steps = [one["step"] for one in rows(tmp_path / "out.jsonl.changes.jsonl")]
    assert steps == ["sum_up_judgements", "outer_blanks"]
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["simulated"] is True


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--output_file", "IN"], 2, "never overwritten"),
        (["--output_file", "OUT", "--near_threshold", "2"], 2, "at most 1"),
        (["--output_file", "OUT", "--near_threshold", "x"], 2, "near_threshold"),
        (["--output_file", "OUT", "--nea_threshold", "1"], 2, "did you mean 'near_threshold'"),
        (["--output_file", "OUT", "--dataset_name", "nowhere.jsonl"], 2, "no such file"),
        ([], 2, "--output_file"),
    ],
)
def test_what_is_wrong_is_one_line(words, code, message, source, tmp_path, capsys):
    names = {"IN": str(source), "OUT": str(tmp_path / "out.jsonl")}
    words = ["clean", "--dataset_name", str(source), *(names.get(word, word) for word in words)]
    assert main(words) == code
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_output_and_its_companions_are_no_data_of_their_folder(source, tmp_path):
    from rlhf.data.sources import load_rows

    folder = tmp_path / "clean"
    words = ["clean", "--dataset_name", str(source), "--output_file", str(folder / "out.jsonl")]
    assert main(words) == 0
    assert len(load_rows(str(folder)).rows) == 1
