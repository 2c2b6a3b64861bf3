"""Batches of pairs: what stands together, in which order, and what the rows say beside ids."""

from collections import Counter
from itertools import chain

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.training.preferences.batches import (
    GroupedBatches,
    PairCollator,
    StepsByLength,
    cut_by_length,
    pack_sizes,
    pair_lengths,
)

GROUPS = ["a", "a", "a", None, "b", "b", None, "c", "c", "c", "c", "c"]


def all_rows(batches) -> list[int]:
    return sorted(row for batch in batches for row in batch)


def test_a_ranking_stays_in_one_batch():
    batches = GroupedBatches(GROUPS, 4, seed=1)
    for epoch in range(5):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert all_rows(drawn) == list(range(12))
        assert max(map(len, drawn)) <= 4
        assert len(drawn) == len(batches) == 4  # 2 + 3 of c, and 3 + 1, 2 + 1 of the others
        for group in ("a", "b"):
            holding = [b for b in drawn if any(GROUPS[row] == group for row in b)]
            assert len(holding) == 1
        at = [index for index, b in enumerate(drawn) if any(GROUPS[row] == "c" for row in b)]
        assert len(at) == 2
        assert at[1] == at[0] + 1  # too large for one: neighbours
    assert (batches.num_groups, batches.num_split(), batches.largest_group) == (3, 1, 5)
    assert batches.mean_size == 12 / 4


def test_a_large_ranking_is_spread_evenly_so_that_its_last_pairs_count_no_more():
    # five completions give 10 pairs: 4, 4 and 2 would count the last two pairs twice
    batches = GroupedBatches(["a"] * 10, 4, seed=0)
    assert list(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert len(batches) == 3


def test_a_ranking_stays_in_one_step_of_several_batches():
    # four completions give 6 pairs: with batches of 2 and 4 batches a step no step has room for
    # two rankings, and each spreads over its step's batches as evenly as can be
    groups = [name for name in "abc" for _ in range(6)]
    batches = GroupedBatches(groups, 2, num_accumulated=4, seed=0)
    drawn = list(batches)
    assert [len(batch) for batch in drawn] == [1, 2, 1, 2] * 3
    for start in range(0, 12, 4):
        assert len({groups[row] for batch in drawn[start : start + 4] for row in batch}) == 1
    assert batches.num_split() == 0
    assert batches.mean_size == 18 / 12


def test_a_step_with_too_few_rows_for_its_batches_comes_last():
    groups = ["a", "a", "a", "a", "b", "b", "b", None]  # steps of 4: a, then b and the single one
    batches = GroupedBatches([*groups, "c", "c"], 1, num_accumulated=4, seed=0)
    for epoch in range(4):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert [row for batch in drawn[-2:] for row in batch] == [8, 9]
        assert len(drawn) == len(batches) == 10
        assert batches.num_split() == 0


def test_the_ranks_of_a_step_share_a_ranking():
    groups = [name for name in "ab" for _ in range(6)]
    ranks = [
        list(
            GroupedBatches(
                groups, 2, num_accumulated=2, seed=0, process_index=rank, num_processes=2
            )
        )
        for rank in range(2)
    ]
    for step in range(2):
        held = [
            row for batches in ranks for batch in batches[2 * step : 2 * step + 2] for row in batch
        ]
        assert len(held) == 6
        assert len({groups[row] for row in held}) == 1


def test_the_order_follows_from_seed_and_epoch():
    first, again = (GroupedBatches(GROUPS, 4, seed=3) for _ in range(2))
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)
    assert list(first) != list(GroupedBatches(GROUPS, 4, seed=4))


@given(
    st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 3),
)
@settings(max_examples=50)
def test_every_process_gets_as_many_batches_and_every_row_is_there(
    groups, size, accumulated, processes
):
    ranks = [
        list(
            GroupedBatches(
                groups,
                size,
                num_accumulated=accumulated,
                seed=0,
                process_index=rank,
                num_processes=processes,
            )
        )
        for rank in range(processes)
    ]
    assert all(0 < len(batch) <= size for batches in ranks for batch in batches)
    assert len({len(batches) for batches in ranks}) == 1
    seen = Counter(row for batches in ranks for batch in batches for row in batch)
    assert set(seen) == set(range(len(groups)))


def test_packing_by_hand():
    assert pack_sizes([5, 3, 2, 2, 1], 4) == [[5], [3, 1], [2, 2]]


def test_the_collator_carries_labels():
    rows = [
        {"chosen_ids": [1, 2, 3], "rejected_ids": [4], "row": 7, "p_chosen": [0.8, None]},
        {"chosen_ids": [5], "rejected_ids": [6, 7], "row": 2, "p_chosen": [1.0, 0.5]},
    ]
    batch = PairCollator(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [5, 0, 0], [4, 0, 0], [6, 7, 0]]
    assert batch["row"].tolist() == [7, 2]
    assert batch["p_chosen"][1].tolist() == [1.0, 0.5]
    assert batch["p_chosen"][0, 0].item() == pytest.approx(0.8)
    assert torch.isnan(batch["p_chosen"][0, 1])
    assert "weight" not in batch


def test_a_pair_costs_its_prompt_once():
    rows = [
        {"prompt_ids": [1, 2, 3], "chosen_ids": [7, 8], "rejected_ids": [9]},  # 1 2 3 | 7 8 | 9
        {"prompt_ids": [1], "chosen_ids": [7, 8, 4], "rejected_ids": [7, 8]},  # 1 7 8 | 4 |
        {"chosen_ids": [1, 2, 7], "rejected_ids": [1, 2, 8, 9]},  # 1 2 | 7 | 8 9
    ]
    assert pair_lengths(rows) == [6, 4, 5]


def test_a_step_is_cut_by_length_and_keeps_its_rows():
    lengths = [5, 9, 1, 7, 2, 2, 8, 3]
    drawn = [3, 0, 1, 2, 6, 4, 5, 7]
    # steps of 4: lengths 7 5 9 1, then 8 2 2 3, each from the longest down; ties as drawn
    assert list(StepsByLength(drawn, lengths, 4)) == [1, 3, 0, 2, 6, 7, 4, 5]
    assert list(StepsByLength(drawn[:6], lengths, 4)) == [1, 3, 0, 2, 6, 4]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_every_step_has_the_rows_that_were_drawn(lengths, step_size, seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(lengths), generator=generator).tolist()
    ours = list(StepsByLength(drawn, lengths, step_size))
    for start in range(0, len(drawn), step_size):
        step = ours[start : start + step_size]
        as_drawn = drawn[start : start + step_size]
        if len(step) < step_size:  # its last micro-batch may be smaller, and counts more
            assert step == as_drawn
            continue
        assert sorted(step) == sorted(as_drawn)
        assert [lengths[row] for row in step] == sorted(
            (lengths[row] for row in step), reverse=True
        )


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_prepared_loader_keeps_its_order_by_seed_and_epoch(num_processes):
    lengths = torch.randint(1, 99, (24,), generator=torch.Generator().manual_seed(0)).tolist()

    def steps(is_cut: bool, process: int, epoch: int) -> list[list[int]]:
        loader = torch.utils.data.DataLoader(range(24), batch_size=2, shuffle=True)
        loader = prepare_data_loader(
            loader,
            num_processes=num_processes,
            process_index=process,
            use_seedable_sampler=True,
            data_seed=3,
        )
        if is_cut:
            cut_by_length(loader, lengths, 2 * 2 * num_processes)
        loader.set_epoch(epoch)
        batches = [batch.tolist() for batch in loader]
        return [batches[at] + batches[at + 1] for at in range(0, len(batches), 2)]

    def of_all(is_cut: bool, epoch: int) -> list[list[int]]:
        shares = [steps(is_cut, process, epoch) for process in range(num_processes)]
        return [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]

    assert of_all(True, 0) == of_all(False, 0) != of_all(True, 1)
    assert of_all(True, 1) == of_all(False, 1)
    assert steps(True, 0, 0) == steps(True, 0, 0) != steps(False, 0, 0)


def test_the_rows_of_a_ranking_stand_by_length_within_their_step():
    lengths = [1, 9, 2, 8, 3, 7]
    batches = GroupedBatches(["a"] * 6, 2, num_accumulated=3, seed=0, lengths=lengths)
    assert list(batches) == [[1, 3], [5, 4], [2, 0]]
