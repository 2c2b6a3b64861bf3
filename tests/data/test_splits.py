"""Held out by the prompt's hash: stable, disjoint, about the fraction asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.splits import is_held_out
from rlhf.errors import ConfigError

PROMPTS = [f"prompt {index}" for index in range(4000)]


def test_fraction_is_met_within_four_standard_errors():
    held = sum(is_held_out(prompt, 0.25) for prompt in PROMPTS)
    assert abs(held - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_seeds_hold_out_different_prompts():
    both = sum(is_held_out(p, 0.5, seed=0) and is_held_out(p, 0.5, seed=1) for p in PROMPTS)
    assert abs(both - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5


@given(st.text(), st.floats(0, 0.98), st.floats(0, 0.98))
def test_a_larger_fraction_holds_out_the_same_and_more(prompt: str, one: float, other: float):
    small, large = sorted([one, other])
    assert is_held_out(prompt, large) or not is_held_out(prompt, small)


def test_nothing_is_held_out_of_a_zero_fraction():
    assert not any(is_held_out(prompt, 0.0) for prompt in PROMPTS)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0])
def test_an_impossible_fraction_is_refused(fraction: float):
    with pytest.raises(ConfigError, match="eval_fraction"):
        is_held_out("a", fraction)
