"""Small data sets, and runs of a stage through the real command line, in this process."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from rlhf.cli import main

QUICK = ["--max_steps", "3", "--logging_steps", "1", "--per_device_train_batch_size", "2"]


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models are fastest on one thread, and sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_rows(path: Path, rows: Iterable[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """24 pairs: the chosen completion says yes, the rejected one no and was cut."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {number}?"}],
            "chosen": f"yes {number}.",
            "rejected": f"no {number}, not",
            "rejected_ended": False,
        }
        for number in range(24)
    ]
    return write_rows(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    """24 demonstrations."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {number}?"}],
            "completion": f"answer {number}.",
        }
        for number in range(24)
    ]
    return write_rows(tmp_path / "demos.jsonl", rows)


@pytest.fixture
def run_stage(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`run_stage(verb, data, *options, out=NAME)` runs the stage and gives its folder."""

    def run(verb: str, data: Path, *options: str, out: str = "out", expect: int = 0) -> Path:
        folder = tmp_path / out
        words = [verb, "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
        # --debug: an error that nobody expected shows where it came from
        code = main([*words, "--output_dir", str(folder), *QUICK, *options, "--debug"])
        assert code == expect
        return folder

    return run


def read_json(path: Path):
    return json.loads(path.read_text())


def metrics_of(folder: Path) -> dict:
    return read_json(folder / "manifest.json")["metrics"]
