"""Prompts, reward functions and judges in files, and runs of the stage through the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.cli import main
from tests.training.conftest import one_thread, write_rows

__all__ = ["one_thread"]

QUICK = [
    *("--use_peft", "--learning_rate", "1e-2", "--max_completion_length", "6"),
    *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1"),
    *("--logging_steps", "1", "--num_rounds", "2", "--num_generations", "3", "--max_loss", "1"),
]

FUNCTIONS = """
import json, os, pathlib, random, signal

HERE = pathlib.Path(__file__)

def vowels(completions, **kwargs):
    texts = [c if isinstance(c, str) else c[0]['content'] for c in completions]
    return [float(sum(t.count(v) for v in 'aeiou')) for t in texts]

def low(completion_ids, **kwargs):
    return [sum(i < 150 for i in ids) / len(ids) for ids in completion_ids]

def flat(prompts, **kwargs):
    return [1.0 for _ in prompts]

def noisy(completion_ids, **kwargs):
    return [random.random() for _ in completion_ids]

def columns(prompts, answer, ended, trainer_state, log_metric, log_extra, **kwargs):
    log_metric('asked', len(prompts))
    log_extra('answer', answer)
    with HERE.with_name('seen.jsonl').open('a') as out:
        out.writelines(json.dumps([p, a, e]) + '\\n' for p, a, e in zip(prompts, answer, ended))
    return [float(i) for i in range(len(prompts))]

def judge(prompts, completions):
    return [0 if len(a) >= len(b) else 1 for a, b in completions]

def biased(prompts, completions):
    return [0 for _ in completions]

def silent(prompts, completions):
    return [None for _ in completions]

def few(prompts, completions):
    return [0]
"""


def lines(path: Path) -> list[dict]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """12 prompts, each with the answer that is wanted."""
    rows = [
        {"prompt": [{"role": "user", "content": f"question {number}?"}], "answer": f"{number}"}
        for number in range(12)
    ]
    return write_rows(tmp_path / "prompts.jsonl", rows)


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A file with reward functions and judges."""
    path = tmp_path / "labels.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def words(tiny_model: Path, prompts: Path) -> list[str]:
    """The command line of a quick run, without who labels and where it writes."""
    start = ["online_dpo", "--model_name_or_path", str(tiny_model)]
    return [*start, "--dataset_name", str(prompts), *QUICK]


@pytest.fixture
def run(words: list[str], tmp_path: Path) -> Callable[..., Path]:
    """`run(*options, out=NAME, expect=CODE)` runs the stage and gives its folder."""

    def run_it(*options: str, out: str = "out", expect: int = 0) -> Path:
        folder = tmp_path / out
        code = main([*words, "--output_dir", str(folder), *options, "--debug"])
        assert code == expect
        return folder

    return run_it
