"""A store whose file was damaged: refused in one line or read as it is, and never written to."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.errors import DataError
from rlhf.feedback.imports import import_file
from rlhf.feedback.store import Store
from tests.feedback.makers import fill, judgement, row, write_jsonl

NUM_COPIES = 120


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of every kind of row: leases, skips, revisions, rankings, imported words."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "feedback.db"
    with Store.open(path, create=True) as store:
        fill(store, 30, raters=("ann", "bob"), guideline="Prefer the better one.")
        store.next_assignment("c", "bob")
        first = judgement("i1", verdict=2, rationale="because")
        store.record([first, judgement("i1", supersedes=first.id, skip="undone")])
        store.record([judgement(f"i{number}", verdict=-1) for number in range(2, 20)])
        rows = [
            row(campaign="mixed", prompt=[{"role": "user", "content": f"q {number}"}], extra=[1])
            for number in range(20)
        ]
        rows += [row(campaign="mixed", verdict=..., ranking=[2, 1], ratings={"h": [1, None]})]
        import_file(store, write_jsonl(folder / "rows.jsonl", *rows))
    return path


def damaged(whole: Path, path: Path, seed: int) -> bytes:
    """A copy with a few bytes changed, at places and to values that the seed draws."""
    chance = random.Random(seed)
    content = bytearray(whole.read_bytes())
    for _ in range(chance.choice((1, 3, 10, 40))):
        place = chance.randrange(len(content))
        if chance.random() < 0.3:
            place = chance.randrange(200)  # the file's header and the roots of its schema
        content[place] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
    path.write_bytes(content)
    return bytes(content)


def drop_guards(connection: sqlite3.Connection) -> None:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for (name,) in found.fetchall():
        connection.execute(f"DROP TRIGGER {name}")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["feedback", *words])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("batch", range(4))
def test_no_damage_is_a_surprise(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", row(annotator="new", prompt="question i3"))
    path, out = tmp_path / "feedback.db", str(tmp_path / "out.jsonl")
    codes = set()
    for seed in range(batch, NUM_COPIES, 4):
        content = damaged(whole, path, seed)
        for words in (
            ["check"],
            ["export", "--campaign", "c", "--output", out],
            ["export", "--campaign", "mixed", "--output", out, "--format", "preference"],
            ["import", str(rows), "--campaign", "c"],
        ):
            path.write_bytes(content)
            code, printed = run(capsys, *words, "--store", str(path))
            codes.add(code)
            assert code in (0, 2, 3), (seed, words, printed)
            assert "Traceback" not in printed, (seed, words)
            assert printed.count("\n") == (code != 0), (seed, words, printed)
            assert code == 0 or str(path) in printed or "campaign" in printed, (seed, printed)
            if words[0] != "import":
                assert path.read_bytes() == content, (seed, words)
            for neighbour in path.parent.glob("feedback.db-*"):
                neighbour.unlink()
    assert {0, 3} <= codes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE prompts SET content = '{\"a\"'", "a row cannot be read"),
        ('UPDATE prompts SET content = \'[{"role": "user"}]\'', "a row cannot be read"),
        ("UPDATE judgements SET shown_order = '7'", "a row cannot be read"),
        ("UPDATE judgements SET created_at = 'noon'", "a row cannot be read"),
        ("UPDATE judgements SET verdict = 'much'", "a row cannot be read"),
        ("UPDATE completions SET text = CAST(x'ff' AS TEXT)", "damaged store"),
        ("UPDATE campaigns SET settings = '[]'", "a row cannot be read"),
        ("DELETE FROM comparison_members", "its item is gone"),
    ],
)
def test_rows_that_nobody_wrote_are_named(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    path = Path(shutil.copy(whole, tmp_path / "feedback.db"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = on")
        drop_guards(connection)
        connection.execute(change)
        connection.commit()
    words = ["--campaign", "c", "--output", str(tmp_path / "out.jsonl"), "--store", str(path)]
    code, printed = run(capsys, "export", *words)
    assert code == 3
    assert message in printed or "CHECK constraint" in printed
    assert printed.startswith(f"rlhf feedback: {path}: ")
    assert printed.count("\n") == 1
    assert main(["feedback", "check", "--store", str(path)]) == 3


def test_check_says_which_rows_it_could_not_read(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path / "feedback.db"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE comparisons SET num_raters = 9 WHERE item = 'i3'")
        drop_guards(connection)
        connection.execute("UPDATE judgements SET shown_order = '[]' WHERE verdict = 2")
        connection.commit()
    with Store.open(path) as store:
        found = "\n".join(store.problems())
        with pytest.raises(DataError, match="damaged store"):
            store.judgements("c", current_only=False)
    assert "cannot be read" in found
    assert "counted 9 raters" in found  # the rest is looked at all the same


def test_a_store_whose_tables_are_gone_is_not_made_anew(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path / "feedback.db"))
    content = bytearray(path.read_bytes())
    content[100:108] = bytes([13, 0, 0, 0, 0, 16, 0, 0])  # the schema's page: a leaf of no rows
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        Store.open(path, create=True)
    assert path.read_bytes() == bytes(content)


def test_a_name_that_cannot_be_written_is_not_called_damage(whole: Path) -> None:
    with Store.open(whole) as store, pytest.raises(DataError, match="half a character"):
        store.campaign("\ud800")
