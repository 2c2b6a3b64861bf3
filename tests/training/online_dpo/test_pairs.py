"""Pairs of a round, their labels, and which prompts and batches a round is of."""

from collections import Counter
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.training.online_dpo.pairs import best_over_worst, pair_row, soft_label
from rlhf.training.online_dpo.plan import RoundPlan
from rlhf.training.online_dpo.samples import PromptSamples, Sample
from rlhf.training.online_dpo.summary import completion_metrics, warnings_of


def prompt_samples(*scored):
    """A prompt whose completions have these (token, score)."""
    samples = [
        Sample(ids=[token], text=f"t{token}", ended=True, draw=n, score=score)
        for n, (token, score) in enumerate(scored)
    ]
    return PromptSamples(row={"prompt": "Why?"}, prompt_ids=[1], samples=samples)


def test_the_best_stands_over_the_worst():
    found = best_over_worst([prompt_samples((1, 0.5), (2, 2.0), (3, -1.0), (4, 2.0))])
    (pair,) = found.pairs
    assert (pair.best.draw, pair.worst.draw, pair.gap) == (1, 2, 3.0)


def test_ties_and_equal_tokens_are_counted_apart():
    found = best_over_worst(
        [prompt_samples((1, 1.0), (2, 1.0)), prompt_samples((3, 1.0), (3, 2.0))]
    )
    assert (found.pairs, found.num_ties, found.num_identical) == ([], 1, 1)


def test_a_gap_of_ln_3_is_three_to_one():
    assert soft_label(log(3), 1.0) == pytest.approx(0.75)
    assert soft_label(log(9), 0.5) == pytest.approx(0.75)
    assert 0.5 < soft_label(1e9, 1.0) < 1


def test_a_line_says_where_the_pair_comes_from():
    (pair,) = best_over_worst([prompt_samples((1, 0.0), (2, log(3)))]).pairs
    row = pair_row(pair, common={"seed": 7}, soft_scale=1.0)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Why?", "t2", "t1")
    assert row["margin"] == pytest.approx(log(3))
    assert row["p_chosen"] == pytest.approx(0.75)
    assert (row["chosen_draw"], row["chosen_token_ids"], row["seed"]) == (1, [2], 7)
    assert "p_chosen" not in pair_row(pair, common={}, soft_scale=None)


def plan(**settings):
    plain = {"num_rounds": 3, "num_prompts": 10, "size": 4, "num_passes": 1, "batch_size": 1}
    return RoundPlan(**plain | {"num_accumulated": 1, "num_processes": 1, "seed": 0} | settings)


def test_every_prompt_comes_once_before_any_comes_again():
    found = [place for number in range(5) for place in plan(num_rounds=5).prompts_of(number)]
    assert sorted(found[:10]) == sorted(found[10:]) == list(range(10))
    assert found[:10] != found[10:]


def test_steps_of_a_round():
    assert plan(size=7, batch_size=2, num_accumulated=2).num_steps == 2  # 4 batches
    assert plan(size=7, batch_size=2, num_accumulated=2, num_passes=2).num_steps == 4
    assert plan(size=7, batch_size=2, num_processes=2, num_accumulated=2).num_steps == 1


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.data())
def test_a_pass_has_every_pair_and_every_process_as_many_batches(size, batch, ranks, passes, data):
    made = plan(num_prompts=20, size=size, batch_size=batch, num_processes=ranks, num_passes=passes)
    pairs = data.draw(st.integers(1, size))
    parts = [made.batches_of(0, pairs, rank) for rank in range(ranks)]
    assert {len(each) for each in parts} == {made.num_batches * passes}
    sizes = [len(one) for each in parts for one in each]
    assert min(sizes) >= 1
    assert max(sizes) <= batch
    seen = Counter(place for each in parts for one in each for place in one)
    assert set(seen) == set(range(pairs))
    assert sum(seen.values()) == passes * (pairs + made.num_repeated(pairs))
    assert max(seen.values()) - min(seen.values()) <= passes
    mean = made.mean_batch(pairs)
    assert set(sizes) == {sum(sizes) // len(sizes)} if mean is None else mean > 1


def record(number, **metrics):
    plain = {"num_prompts": 4, "num_pairs": 4, "num_ties": 0, "num_identical": 0}
    plain |= {"num_repeated": 0, "completion_length": 10.0, "empty_rate": 0.0, "score_se": 0.1}
    plain |= {"simulated": False}
    return {"warnings": [], "metrics": plain | {"round": number, "step": number} | metrics}


@pytest.mark.parametrize(
    ("changed", "causes"),
    [
        ({"score": 2.0}, []),
        ({"score": 1.0}, ["score_not_rising"]),
        ({"score": 2.0, "completion_length": 14.9}, []),
        ({"score": 2.0, "completion_length": 15.1}, ["length_drift"]),
        ({"score": 2.0, "completion_length": 6.6}, ["length_drift"]),
        ({"score": 2.0, "num_pairs": 0, "num_ties": 4}, ["all_ties"]),
        ({"score": 2.0, "num_pairs": 1, "num_ties": 3, "num_repeated": 3}, ["few_pairs"]),
        ({"score": 2.0, "empty_rate": 0.2}, ["empty_completions"]),
    ],
)
def test_what_goes_wrong_is_said(changed, causes):
    found = warnings_of([record(1, score=1.0), record(2, **changed)])
    assert [each["cause"] for each in found] == causes
    assert all(each["step"] == 2 for each in found)


def test_numbers_of_a_round():
    samples = [
        Sample(ids=[1, 2, 3], text="a b", ended=True, draw=0),
        Sample(ids=[1], text=" ", ended=False, draw=1),
    ]
    found = completion_metrics(samples, [1.0, 3.0])
    assert found["completion_length"] == 2.0
    assert (found["ended_rate"], found["empty_rate"]) == (0.5, 0.5)
    assert (found["kl"], found["kl_se"]) == (2.0, pytest.approx(1.0))
