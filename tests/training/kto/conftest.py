"""Completions with labels, and a trainer on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.tokenization import Renderer
from rlhf.models.loading import load_tokenizer
from rlhf.training.arguments import Settings, parse_settings
from rlhf.training.kto.trainer import GuardedKTOTrainer
from tests.training.conftest import write_rows


def labelled(number: int, **columns: Any) -> dict[str, Any]:
    """One of two completions of a question: the even one says no and was cut, the odd one yes."""
    good = bool(number % 2)
    return {
        "prompt": [{"role": "user", "content": f"question {number // 2}?"}],
        "completion": f"yes {number}." if good else f"no {number}, not",
        "label": good,
        "ended": good,
        **columns,
    }


@pytest.fixture
def unpaired(tmp_path: Path) -> Path:
    """24 completions of 12 prompts, half of them good, with weights."""
    rows = [labelled(number, weight=1 + number % 3) for number in range(24)]
    return write_rows(tmp_path / "unpaired.jsonl", rows)


@pytest.fixture
def settings_of(tiny_model: Path, tmp_path: Path) -> Callable[..., Settings]:
    """`settings_of(data, *options)`: those of a KTO run on it."""

    def parse(data: Path | str, *options: str) -> Settings:
        words = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
        words += ["--output_dir", str(tmp_path / "out"), "--per_device_train_batch_size", "4"]
        return parse_settings("kto", [*words, *options], example="")

    return parse


@pytest.fixture
def trainer_of(settings_of: Callable[..., Settings], tiny_model: Path):
    """`trainer_of(data, *options)`: the trainer of such a run, before its first step."""

    def make(data: Path | str, *options: str) -> GuardedKTOTrainer:
        from rlhf.training.kto.rows import read_columns
        from rlhf.training.kto.trainer import make_trainer
        from rlhf.training.stage import load_inputs

        settings = settings_of(data, *options)
        renderer = Renderer(load_tokenizer(tiny_model))
        rows, heldout = read_columns(settings, renderer, load_inputs(settings))
        return make_trainer(settings, renderer, rows, heldout)

    return make
