"""The order of micro-batches and prompts: whole, another each time, and the same after a resume."""

import itertools
from collections import Counter

import pytest
import torch

from rlhf.models.transcripts import Transcripts
from rlhf.training.ppo.loader import RolloutLoader
from rlhf.training.ppo.sampler import PromptSampler, part_of


def micro_batch(number: int) -> dict:
    transcripts = Transcripts.pack([[1, 2]], [[number, 3]], pad_id=0)
    return {"transcripts": transcripts, "mask": transcripts.completion_mask}


def number_of(batch: dict) -> int:
    return int(batch["transcripts"].completion_ids[0, 0])


class Source:
    """Rollouts of 6 micro-batches, numbered 100 * rollout + place; notes when it is asked."""

    def __init__(self, num_rollouts: int = 99) -> None:
        self.num_rollouts = num_rollouts
        self.begun: list[int] = []

    def begin(self, number: int) -> list[dict] | None:
        if number >= self.num_rollouts:
            return None
        self.begun.append(number)
        return [micro_batch(100 * number + place) for place in range(6)]

    def loader(self, *, leaves=lambda: False, num_iterations: int = 3, seed: int = 0):
        return RolloutLoader(self.begin, num_iterations=num_iterations, seed=seed, leaves=leaves)


def test_each_iteration_goes_over_the_whole_rollout_in_another_order():
    source = Source()
    numbers = [number_of(batch) for batch in itertools.islice(source.loader(), 36)]
    passes = [tuple(numbers[start : start + 6]) for start in range(0, 36, 6)]
    assert [sorted(one) for one in passes[:3]] == [[0, 1, 2, 3, 4, 5]] * 3
    assert [sorted(one) for one in passes[3:]] == [[100, 101, 102, 103, 104, 105]] * 3
    orders = {tuple(number % 100 for number in one) for one in passes}
    assert len(orders) > 3  # six draws of 720 orders


def test_a_rollout_begins_only_when_its_first_micro_batch_is_asked_for():
    source = Source()
    loader = source.loader()
    assert source.begun == []
    list(itertools.islice(loader, 18))
    assert source.begun == [0]
    next(loader)
    assert source.begun == [0, 1]


def test_it_ends_with_the_last_rollout():
    assert len(list(Source(num_rollouts=2).loader())) == 36


def test_a_rollout_is_left_only_between_iterations():
    source = Source(num_rollouts=3)
    numbers = [number_of(batch) for batch in source.loader(leaves=lambda: True)]
    assert [number // 100 for number in numbers] == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize("taken", range(1, 25))
def test_restored_anywhere_it_goes_on_alike(taken):
    source = Source(num_rollouts=2)
    loader = source.loader(seed=7)
    list(itertools.islice(loader, taken))
    state = loader.state_dict()
    rest = [number_of(batch) for batch in loader]
    other = source.loader(seed=7)
    other.load_state_dict(state, torch.device("cpu"))
    assert [number_of(batch) for batch in other] == rest
    assert len(rest) == 36 - taken


def test_an_epoch_has_every_prompt_once_and_leaves_its_rest_to_the_next():
    sampler = PromptSampler(10, seed=0)
    rollouts = [sampler.take(4) for _ in range(5)]  # 20 prompts: two epochs
    flat = [index for rollout in rollouts for index in rollout]
    assert Counter(flat) == dict.fromkeys(range(10), 2)
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert sampler.epochs == 2.0


def test_a_sampler_goes_on_from_its_two_numbers():
    sampler, other = PromptSampler(7, seed=3), PromptSampler(7, seed=3)
    sampler.take(17)
    other.load_state_dict(sampler.state_dict())
    assert other.take(9) == sampler.take(9)


def test_more_prompts_than_there_are_come_from_several_epochs():
    assert Counter(PromptSampler(3, seed=0).take(9)) == {0: 3, 1: 3, 2: 3}


def test_processes_take_neighbouring_equal_parts_of_one_row():
    whole = PromptSampler(10, seed=1).take(8)
    assert part_of(whole, 0, 2) + part_of(whole, 1, 2) == whole
    assert len(part_of(whole, 1, 2)) == 4
