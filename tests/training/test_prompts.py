"""Prompts of stages that learn online: any format, with their columns, and what is lost."""

from rlhf.data.sources import load_rows
from rlhf.training.prompts import read_demos, rows_of
from tests.training.conftest import write_rows


def read(path):
    dataset = load_rows(str(path))
    return rows_of(read_demos(dataset), dataset)


def test_a_prompt_keeps_the_other_columns_of_its_row(tmp_path):
    rows = [
        {"prompt": "1+1?", "answer": "2", "level": 1},
        {"prompt": "  ", "answer": "nothing asked"},
        {"prompt": "2+2?", "answer": "4"},
    ]
    assert read(write_rows(tmp_path / "p.jsonl", rows)) == [
        {"prompt": "1+1?", "answer": "2", "level": 1},
        {"prompt": "2+2?", "answer": "4", "level": None},
    ]


def test_what_a_reward_function_is_given_anyhow_is_no_column(tmp_path):
    rows = [{"prompt": "p", "completion": "c", "completion_ids": [1], "completions": ["c"]}]
    assert read(write_rows(tmp_path / "p.jsonl", rows)) == [{"prompt": "p"}]


def test_pairs_give_their_prompts(tmp_path):
    turn = [{"role": "user", "content": "p"}]
    rows = [{"prompt": turn, "chosen": "a", "rejected": "b"}]
    (row,) = read(write_rows(tmp_path / "p.jsonl", rows))
    assert row == {"prompt": turn, "chosen": "a", "rejected": "b"}
