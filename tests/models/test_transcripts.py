"""Prompt and completion in one row, and where each completion token is predicted."""

import pytest
import torch

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
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        prompts, completions = (
            [
                torch.randint(9, (int(torch.randint(1, 6, (), generator=generator)),)).tolist()
                for _ in range(4)
            ]
            for _ in range(2)
        )
        found = Transcripts.pack(prompts, completions, 0)
        for row in range(4):
            start, length = int(found.starts[row]), int(found.lengths[row])
            assert found.ids[row, :start].tolist() == prompts[row]
            assert found.completion_ids[row, :length].tolist() == completions[row]
            assert found.predicting[row, :length].tolist() == list(
                range(start - 1, start - 1 + length)
            )
