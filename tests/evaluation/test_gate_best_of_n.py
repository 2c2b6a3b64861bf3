"""Best-of-n: the estimator against brute force, and what a hacked reward model looks like."""

from itertools import combinations

import numpy as np
import pytest

from rlhf.errors import DataError
from rlhf.evaluation.gate.best_of_n import (
    Drawn,
    best_of_n,
    best_of_n_checks,
    drawn_from_rows,
    sizes_up_to,
)

LIMITS = {"min_gain": 0.0, "max_length_ratio": 1.5, "max_repetition_rise": 0.05, "seed": 0}


def brute_force(scores, values, n):
    """The mean over all subsets of the mean value of those that score highest in it."""
    found = []
    for subset in combinations(range(len(scores)), n):
        top = max(scores[index] for index in subset)
        found.append(np.mean([values[i] for i in subset if scores[i] == top]))
    return np.mean(found)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_the_estimator_is_the_mean_over_all_subsets(n):
    rng = np.random.default_rng(0)
    scores, values = rng.normal(size=6), rng.normal(size=6)
    assert best_of_n(scores, values, n) == pytest.approx(brute_force(scores, values, n))


def test_best_of_two_of_three_by_hand():
    # subsets {1,2} {1,3} {2,3} pick the second, the third and the third
    assert best_of_n([1, 2, 3], [10, 20, 60], 2) == pytest.approx((20 + 60 + 60) / 3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_equal_scores_are_drawn_at_random(n):
    scores, values = [1.0, 1.0, 1.0, 0.0], [3.0, 6.0, 9.0, 100.0]
    assert best_of_n([1.0] * 3, values[:3], n) == pytest.approx(6.0)
    assert best_of_n(scores, values, n) == pytest.approx(brute_force(scores, values, n))


def test_n_beyond_the_completions_is_refused():
    with pytest.raises(DataError, match="best of 4 among 3"):
        best_of_n([1, 2, 3], [1, 2, 3], 4)
    assert sizes_up_to(4) == [1, 2, 4]
    assert sizes_up_to(6) == [1, 2, 4, 6]


def drawn(value, words=lambda score: 10.0, num_prompts=20, k=4) -> Drawn:
    scores = np.tile(np.arange(k, dtype=float), (num_prompts, 1))
    scores += np.random.default_rng(0).normal(scale=0.1, size=scores.shape)
    return Drawn(
        prompts=[f"p{index}" for index in range(num_prompts)],
        scores=scores,
        values=None if value is None else np.vectorize(value)(scores),
        lengths=np.vectorize(words)(scores).astype(float),
        repetitions=np.zeros_like(scores),
        value_source="people",
        simulated=False,
    )


def checks(of: Drawn | None, **limits):
    return {check.name: check for check in best_of_n_checks(of, **(LIMITS | limits))}


def test_a_score_that_is_worth_something_passes():
    found = checks(drawn(lambda score: 2 * score))
    assert {check.passed for check in found.values()} == {True}
    curves = found["best_of_n_value"].details["curves"]
    assert [point["n"] for point in curves["value"]] == [1, 2, 4]
    assert curves["value"][2]["value"] > curves["value"][0]["value"]
    assert curves["score"][0]["num_prompts"] == 20


def test_a_value_that_falls_while_the_score_rises_fails():
    found = checks(drawn(lambda score: -score))["best_of_n_value"]
    assert found.value < 0
    assert found.passed is False
    assert "falls while the score rises" in found.words


def test_a_value_that_rises_and_then_falls_fails_though_it_ends_above_the_start():
    # By rank worth 0, 3, 6, 4: best of one is worth 13/4, of two (1*3 + 2*6 + 3*4)/6 = 27/6, of
    # four 4: a gain of 3/4 over one that hides the fall of 1/2 since two.
    found = checks(drawn(lambda score: [0, 3, 6, 4][round(min(max(score, 0), 3))]))
    found = found["best_of_n_value"]
    assert found.value == pytest.approx(0.75)
    assert found.details["last_step"]["value"] == pytest.approx(-0.5)
    assert found.details["falls"] is True
    assert found.passed is False


def test_length_and_repetition_that_run_away_fail():
    found = checks(drawn(lambda score: score, words=lambda score: 10 if score < 2.5 else 100))
    # one at random: (3 * 10 + 100) / 4 words, best of 4: 100
    assert found["best_of_n_length"].value == pytest.approx(100 / 32.5)
    assert found["best_of_n_length"].passed is False
    assert found["best_of_n_repetition"].passed is True


def test_without_completions_or_values_it_says_so():
    assert {check.passed for check in checks(None).values()} == {None}
    found = checks(drawn(None))
    assert found["best_of_n_value"].passed is None
    assert "value" in found["best_of_n_value"].words
    assert found["best_of_n_length"].passed is True


def length_score(prompts, texts, ended):
    return [len(text) for text in texts]


def test_rows_become_grids_of_the_fewest_completions():
    rows = [
        ("f:1", {"prompt": "a", "completions": ["x", "xx xx", "y"], "value": [1, 2, 3]}),
        ("f:2", {"prompt": "b", "completions": ["x x x x x x", "z"], "value": [4, 5]}),
    ]
    made = drawn_from_rows(rows, length_score, None, value_source=None, simulated=False)
    assert made.scores.tolist() == [[1, 5], [11, 1]]
    assert made.values.tolist() == [[1, 2], [4, 5]]
    assert made.lengths.tolist() == [[1, 2], [6, 1]]
    assert made.repetitions[1].tolist() == [0.75, 0]  # four trigrams, all alike
    assert made.value_source == "the rows' value column"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": "a", "completions": ["x"]}, "two completions a prompt"),
        ({"prompt": "a"}, "needs prompt and completions"),
        ({"prompt": "a", "completions": ["x", "y"], "value": [1]}, "value must be"),
        ({"prompt": "a", "completions": ["x", "y"], "ended": [True]}, "1 ended flags for 2"),
    ],
)
def test_a_bad_row_is_named(bad, message):
    with pytest.raises(DataError, match=f"f:7: .*{message}"):
        drawn_from_rows([("f:7", bad)], length_score, None, value_source=None, simulated=False)


def test_a_score_that_is_not_finite_is_refused():
    rows = [("f:1", {"prompt": "a", "completions": ["x", "y"]})]
    with pytest.raises(DataError, match="NaN"):
        drawn_from_rows(
            rows, lambda *_: [1.0, float("nan")], None, value_source=None, simulated=False
        )
