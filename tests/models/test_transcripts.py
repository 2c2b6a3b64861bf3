"""Prompt and completion in one row, and where each completion token is predicted."""

import random

import pytest

from rlhf.models.transcripts import Transcripts

PROMPTS, COMPLETIONS = [[5, 6, 7], [8]], [[9], [10, 0, 11]]


def test_by_hand():
    found = Transcripts.pack(PROMPTS, COMPLETIONS, 0)
    assert found.ids.tolist() == [[5, 6, 7, 9], [8, 10, 0, 11]]
    assert found.mask.all()
    assert found.starts.tolist() == [3, 1]
    assert found.lengths.tolist() == [1, 3]
    assert found.completion_mask.tolist() == [[True, False, False], [True, True, True]]
    assert found.completion_ids[found.completion_mask].tolist() == [9, 10, 0, 11]
    assert found.predicting[found.completion_mask].tolist() == [2, 0, 1, 2]


def test_padding_stands_on_the_right_and_no_place_is_outside():
    found = Transcripts.pack([[5, 6], [7]], [[8, 9, 10], [11]], 3)
    assert found.ids.tolist() == [[5, 6, 8, 9, 10], [7, 11, 3, 3, 3]]
    assert found.mask.sum(1).tolist() == [5, 2]
    assert found.predicting.min() >= 0
    assert found.predicting.max() < found.ids.shape[1]
    assert found.completion_ids.shape == found.completion_mask.shape == (2, 3)


def test_a_completion_without_tokens_has_no_places():
    found = Transcripts.pack([[5], [6]], [[], [7]], 0)
    assert found.completion_mask.tolist() == [[False], [True]]
    assert found.completion_ids[found.completion_mask].tolist() == [7]


def test_a_prompt_needs_a_token():
    with pytest.raises(AssertionError, match="at least one token"):
        Transcripts.pack([[]], [[1]], 0)


def test_random_rows_come_back():
    generator = random.Random(0)

    def rows() -> list[list[int]]:
        return [generator.choices(range(9), k=generator.randint(1, 6)) for _ in range(4)]

    for _ in range(20):
        prompts, completions = rows(), rows()
        found = Transcripts.pack(prompts, completions, 0)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            start, length = len(prompt), len(completion)
            assert found.ids[row, :start].tolist() == prompt
            assert found.completion_ids[row, :length].tolist() == completion
            expected = list(range(start - 1, start - 1 + length))
            assert found.predicting[row, :length].tolist() == expected
