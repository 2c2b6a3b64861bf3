"""Stages that share their pairs' prompts log what they log without, step by step."""

import re

import pytest

from tests.training.conftest import read_json, write_rows

NOT_OF_THE_LOSS = re.compile(r"runtime|per_second|learning_rate|step|epoch|num_tokens")


@pytest.fixture
def long_prompts(tmp_path):
    """16 pairs whose prompts are longer than their completions, all of different lengths."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {number}? " + "and why? " * number}],
            "chosen": "yes. " * (1 + number % 3),
            "rejected": f"no {number}, not",
            "rejected_ended": False,
        }
        for number in range(4, 20)
    ]
    return write_rows(tmp_path / "pairs.jsonl", rows)


def logged(folder) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if not NOT_OF_THE_LOSS.search(key)}
        for row in read_json(folder / "log.json")
    ]


@pytest.mark.parametrize("extra", [("--use_peft",), ()])
@pytest.mark.parametrize("verb", ["reward", "dpo"])
def test_every_logged_number_is_the_plain_one(verb, extra, run_stage, long_prompts, capsys):
    options = ("--learning_rate", "1e-2", "--eval_fraction", "0.25", *extra)
    plain = run_stage(verb, long_prompts, *options, "--share_prefixes", "never", out="plain")
    assert "shared their prompt" not in capsys.readouterr().err
    shared = run_stage(verb, long_prompts, *options, out="shared")
    said = capsys.readouterr().err
    count, share = re.search(r"prompt in (\d+) of \d+ batches: (\d+)%", said).groups()
    assert int(count) > 0
    assert int(share) < 90
    ours, theirs = logged(shared), logged(plain)
    assert len(ours) == len(theirs) >= 3
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-5, rel=1e-4)
    losses = [row["loss"] for row in theirs if "loss" in row]
    assert abs(losses[-1] - losses[0]) > 1e-3  # it moves, so a slip would show
