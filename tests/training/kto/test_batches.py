"""The mismatched pairs of a batch: TRL's where prompts differ, never one prompt's own."""

import random
from typing import Any

import torch
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from rlhf.training.kto.batches import MismatchingCollator, foreign_rows


def row(prompt: int, completion: int, **columns: Any) -> dict[str, Any]:
    return {
        "prompt_ids": [prompt] * (1 + prompt % 3),
        "completion_ids": [completion] * (1 + completion % 2),
        "KL_completion_ids": [99],
        "label": completion % 2 == 0,
        **columns,
    }


def test_rows_of_different_prompts_are_rotated_by_one_as_trl_does():
    rows = [row(prompt, 10 + prompt) for prompt in (1, 2, 3, 4)]
    assert foreign_rows(rows) == [3, 0, 1, 2]
    completions = [one["completion_ids"] for one in rows]
    rotated = [completions[-1], *completions[:-1]]
    prepared = [one | {"KL_completion_ids": ids} for one, ids in zip(rows, rotated, strict=True)]
    theirs = DataCollatorForUnpairedPreference(pad_token_id=0)(prepared)
    ours = MismatchingCollator(pad_token_id=0)(rows)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_two_completions_of_one_prompt_are_no_mismatched_pair():
    assert foreign_rows([row(p, 0) for p in (1, 1, 2, 2)]) == [2, 3, 0, 1]
    assert foreign_rows([row(p, 0) for p in (1, 1, 1, 2)]) == [3, None, None, 2]
    assert foreign_rows([row(1, 0)]) == [None]


def test_whatever_the_batch_each_prompt_meets_a_foreign_completion():
    drawn = random.Random(0)
    for _ in range(200):
        rows = [row(drawn.randrange(4), index) for index in range(drawn.randrange(1, 7))]
        others = foreign_rows(rows)
        taken = [other for other in others if other is not None]
        assert len(set(taken)) == len(taken)  # none twice
        for one, other in zip(rows, others, strict=True):
            assert other is None or rows[other]["prompt_ids"] != one["prompt_ids"]


def test_what_no_rotation_gives_comes_from_the_row_itself():
    batch = MismatchingCollator(pad_token_id=0)([row(1, 10), row(1, 12)])
    assert batch["KL_input_ids"].tolist() == [[1, 1, 99], [1, 1, 99]]
    fixed = MismatchingCollator(pad_token_id=0, fixed=True)([row(1, 10), row(2, 12)])
    assert (fixed["KL_input_ids"] == 99).sum() == 2


def test_weights_and_places_travel_along():
    rows = [row(1, 10, weight=0.5, row=7), row(2, 12, weight=2.0, row=3)]
    batch = MismatchingCollator(pad_token_id=0)(rows)
    assert batch["weight"].tolist() == [0.5, 2.0]
    assert batch["row"].tolist() == [7, 3]
    assert rows[0]["KL_completion_ids"] == [99]  # the data set's row is as it was
