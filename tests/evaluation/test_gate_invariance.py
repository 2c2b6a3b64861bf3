"""Probes of padding, batch and reload, with models that keep the promise and that break it."""

import numpy as np
import pytest

from rlhf.evaluation.gate.invariance import choose_probes, padding_check, reload_check
from tests.evaluation.gate_rows import pairs_of, row


class Honest:
    """Scores a completion by its length, whatever stands beside it."""

    def score(self, prompts, completions, ended=None, *, batch_size=16):
        return [float(len(text)) for text in completions]


class SeesPadding(Honest):
    """Adds a little for each character by which its batch's longest is longer."""

    def score(self, prompts, completions, ended=None, *, batch_size=16):
        scores = []
        for start in range(0, len(completions), batch_size):
            batch = [len(text) for text in completions[start : start + batch_size]]
            scores += [length + 0.5 * (max(batch) - length) for length in batch]
        return scores


class Broken(Honest):
    def score(self, prompts, completions, ended=None, *, batch_size=16):
        return [float("nan")] * len(completions)


def pairs():
    rows = [
        row(0.0, f"p{n}", chosen="x" * n, chosen_score=float(n), rejected="y", rejected_score=1.0)
        for n in range(1, 10)
    ]
    return pairs_of(rows)


def test_probes_run_from_the_shortest_to_the_longest():
    probes = choose_probes(pairs(), 4)
    lengths = [len(text) for text in probes.completions]
    assert len(probes) == 4
    assert (lengths[0], lengths[-1]) == (1, 9)
    assert probes.recorded.tolist() == [float(length) for length in lengths]
    assert len(choose_probes(pairs(), 100)) == 18


@pytest.mark.parametrize(("model", "passed"), [(Honest(), True), (SeesPadding(), False)])
def test_a_score_that_moves_with_its_batch_is_caught(model, passed):
    probes = choose_probes(pairs(), 6)
    alone = probes.scored(model, batch_size=1)
    check = padding_check(alone, model, probes, 0.1)
    assert check.passed is passed
    # the shortest of the probes is 8 shorter than the longest: 4 points, in spreads
    assert check.value == pytest.approx(0.0 if passed else 4 / probes.spread)


def test_what_is_loaded_must_score_as_recorded():
    probes = choose_probes(pairs(), 6)
    alone = probes.scored(Honest(), batch_size=1)
    assert reload_check(alone, probes, 0.1, "float32").value == 0.0
    shifted = reload_check(alone + 3.0, probes, 0.1, "float32")
    assert shifted.value == pytest.approx(3.0 / probes.spread)
    assert shifted.passed is False


def test_a_score_that_is_not_finite_fails():
    probes = choose_probes(pairs(), 6)
    alone = probes.scored(Broken(), batch_size=1)
    check = padding_check(alone, Broken(), probes, 0.1)
    assert (check.passed, check.value) == (False, None)
    assert "NaN" in check.words


def test_without_a_scale_or_endings_nothing_is_measured():
    flat = pairs_of([row(0.0, "a"), row(0.0, "b")])
    probes = choose_probes(flat, 2)
    zero = np.zeros(len(probes))
    assert reload_check(zero, probes, 0.1, "float32").passed is None
    old = row(1.0, "a")
    del old["chosen_ended"]
    assert reload_check(zero, choose_probes(pairs_of([old]), 2), 0.1, "float32").passed is None
