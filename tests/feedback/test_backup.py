"""Copies of a store in use."""

import threading
import time
from pathlib import Path

import pytest

from rlhf.errors import ConfigError, StageError
from rlhf.feedback.store import Store
from tests.feedback.makers import answer, fill


def test_copy_holds_all_that_was_acknowledged_before(store_path: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    stop = threading.Event()
    with Store.open(store_path, create=True) as store:
        fill(store, 3000)

        def write() -> None:
            while not stop.is_set() and (lease := store.next_assignment("c", "ann")):
                acknowledged.append(answer(store, lease).id)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(5):
                while len(acknowledged) < 20 * (number + 1):
                    time.sleep(0.002)
                before = list(acknowledged)
                target = tmp_path / "copies" / f"{number}.db"
                store.backup(target)
                with Store.open(target) as copy:
                    assert copy.problems() == []
                    held = [one.id for one in copy.judgements()]
                assert held[: len(before)] == before
        finally:
            stop.set()
            writer.join()
        # the writer went on, and nothing of it was lost
        assert [one.id for one in store.judgements()] == acknowledged
        assert len(acknowledged) > len(held)
        assert store.problems() == []


def test_copy_is_one_file_and_leaves_nothing_else(sqlite_store: Store, tmp_path: Path) -> None:
    fill(sqlite_store, 2)
    target = tmp_path / "copies" / "one.db"
    sqlite_store.backup(target)
    assert [path.name for path in target.parent.iterdir()] == ["one.db"]
    with Store.open(target) as copy:
        assert copy.comparisons("c") == sqlite_store.comparisons("c")
        copy.next_assignment("c", "ann")  # it can be worked with


def test_nothing_is_written_over(sqlite_store: Store, tmp_path: Path) -> None:
    for content in (b"", b"precious"):
        target = tmp_path / "there.db"
        target.write_bytes(content)
        with pytest.raises(ConfigError, match="is there already"):
            sqlite_store.backup(target)
        assert target.read_bytes() == content
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "nowhere.db")
    with pytest.raises(ConfigError, match="is there already"):
        sqlite_store.backup(link)
    with pytest.raises(ConfigError, match="is there already"):
        sqlite_store.backup(sqlite_store.location)


def test_a_copy_that_cannot_be_written_is_told_in_one_line(
    sqlite_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StageError) as caught:
        sqlite_store.backup(tmp_path / "file" / "copy.db")
    assert "\n" not in str(caught.value)


def test_postgresql_has_a_command_of_its_own(postgres_store_url: str, tmp_path: Path) -> None:
    with (
        Store.open(postgres_store_url, create=True) as store,
        pytest.raises(ConfigError, match=r"pg_dump --format=custom --file=\S+ postgresql://"),
    ):
        store.backup(tmp_path / "copy.dump")
    assert list(tmp_path.iterdir()) == []
