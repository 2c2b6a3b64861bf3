"""Completions on disk: every one, whole, once; and a table for the trackers."""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from rlhf.errors import StageError
from rlhf.training.ppo.monitoring import CompletionLog, RolloutRecord, send_table
from tests.processes import run_alone
from tests.report.runs import HOSTILE

MESSAGES = [{"role": "user", "content": "hé?"}]


def record_of(text: str = "yes") -> RolloutRecord:
    return RolloutRecord(
        prompts=["plain", MESSAGES],
        completions=[text, HOSTILE],
        num_tokens=[1, 7],
        ended=[True, False],
        scores=torch.tensor([1.5, -2.0]),
        kls=torch.tensor([0.25, 0.5]),
        rewards=torch.tensor([1.0, -2.5]),
        advantages=torch.tensor([0.5, -0.5]),
        source_scores={"reward": torch.tensor([2.5, -1.0]), "brief": torch.tensor([-1.0, -1.0])},
    )


def names(log: CompletionLog) -> list[str]:
    return sorted(path.name for path in log.folder.iterdir())


def test_every_completion_with_all_that_was_measured(tmp_path: Path) -> None:
    path = CompletionLog(tmp_path).write(12, record_of())
    assert path == tmp_path / "completions" / "rollout-000012.parquet"
    rows = pandas.read_parquet(path).to_dict("records")
    assert rows[0] == {
        "rollout": 12,
        "prompt": "plain",
        "completion": "yes",
        "ended": True,
        "num_tokens": 1,
        "score": 1.5,
        "score/reward": 2.5,
        "score/brief": -1.0,
        "kl": 0.25,
        "reward": 1.0,
        "advantage": 0.5,
    }
    assert json.loads(rows[1]["prompt"]) == MESSAGES
    assert rows[1]["completion"] == HOSTILE


def test_a_rollout_made_again_stands_there_once(tmp_path: Path) -> None:
    log = CompletionLog(tmp_path)
    log.write(1, record_of("first"))
    log.write(2, record_of("lost by the crash"))
    resumed = CompletionLog(tmp_path)
    resumed.keep_before(2)
    assert names(log) == ["rollout-000001.parquet"]
    resumed.write(2, record_of("made again"))
    resumed.write(2, record_of("made again"))
    whole = pandas.read_parquet(tmp_path / "completions")
    assert whole["completion"].tolist() == ["first", HOSTILE, "made again", HOSTILE]


def test_ranks_have_parts_of_their_own(tmp_path: Path) -> None:
    for rank in (0, 1):
        CompletionLog(tmp_path, rank=rank).write(3, record_of(f"rank {rank}"))
    log = CompletionLog(tmp_path)
    assert names(log) == ["rollout-000003-rank-1.parquet", "rollout-000003.parquet"]
    log.keep_before(3)
    assert names(log) == []


def test_a_write_that_fails_leaves_the_old_part_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CompletionLog(tmp_path)
    path = log.write(1, record_of("old"))

    def full(self: Any, staged: Path, **_: Any) -> None:
        Path(staged).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pandas.DataFrame, "to_parquet", full)
    with pytest.raises(StageError, match="No space left on device"):
        log.write(1, record_of("new"))
    assert names(log) == ["rollout-000001.parquet"]
    assert pandas.read_parquet(path)["completion"][0] == "old"


def test_half_a_character_does_not_stop_a_run(tmp_path: Path) -> None:
    record = record_of("half \ud83d")
    path = CompletionLog(tmp_path).write(1, record)
    assert pandas.read_parquet(path)["completion"][0] == "half ?"


def test_the_table_for_a_tracker_has_some_rows_and_the_step(tmp_path: Path) -> None:
    frame = CompletionLog(tmp_path).table(record_of(), step=40, limit=1)
    assert list(frame.columns)[:3] == ["step", "prompt", "completion"]
    assert "rollout" not in frame.columns
    assert frame["step"].tolist() == [40]


def send_all(name: str, folder: Path) -> None:
    for key in [key for key in os.environ if key.startswith("WANDB")]:
        del os.environ[key]
    for module in [each for each in sys.modules if each.partition(".")[0] == "trackio"]:
        del sys.modules[module]  # it reads where to write when it is imported
    frame = pandas.DataFrame({"step": [40], "completion": ["a completion to be found"]})
    send_table([name, "tensorboard"], frame)  # no run is open: nobody is sent anything
    tracker: Any = importlib.import_module(name)
    options = {"mode": "offline", "dir": folder} if name == "wandb" else {}
    run = tracker.init(project="p", **options)
    send_table([name, "tensorboard"], frame)
    run.finish()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "written"),
    [("wandb", "wandb/offline-run-*/files/media/table/*.json"), ("trackio", "*.db")],
)
def test_a_real_tracker_writes_the_table(tmp_path: Path, name: str, written: str) -> None:
    apart = {"HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path)}
    ended = run_alone(tmp_path / "said", send_all, name, tmp_path, **apart)
    assert ended.exit_code == 0, ended.stderr
    assert len(list(tmp_path.glob(written))) == 1
    # SQLite may still hold its last rows in a file beside the database.
    found = b"".join(path.read_bytes() for path in tmp_path.glob(f"{written}*"))
    assert found.count(b"a completion to be found") == 1
