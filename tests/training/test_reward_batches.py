"""Batches of pairs: what stands together, in which order, and what the rows say beside ids."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.training.reward.batches import GroupedBatches, PairCollator, pack_sizes

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
        assert len(drawn) == len(batches) == 4  # 4 + 1 of c, and 3 + 1, 2 + 1 of the others
        for group in ("a", "b"):
            holding = [b for b in drawn if any(GROUPS[row] == group for row in b)]
            assert len(holding) == 1
        at = [index for index, b in enumerate(drawn) if any(GROUPS[row] == "c" for row in b)]
        assert len(at) == 2
        assert at[1] == at[0] + 1  # too large for one: neighbours
    assert (batches.num_groups, batches.num_split, batches.largest_group) == (3, 1, 5)


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
)
@settings(max_examples=50)
def test_every_process_gets_as_many_batches_and_every_row_is_there(groups, size, processes):
    ranks = [
        list(GroupedBatches(groups, size, seed=0, process_index=rank, num_processes=processes))
        for rank in range(processes)
    ]
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
