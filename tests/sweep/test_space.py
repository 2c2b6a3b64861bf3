"""Ranges and choices: what is refused, and which values can be proposed."""

import pytest

from rlhf.errors import ConfigError
from rlhf.sweep.space import Parameter, as_float, grid_points, parameters_of


def one(spec: object, name: str = "beta") -> Parameter:
    [parameter] = parameters_of({name: spec}, "s.yaml: search")
    return parameter


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"low": 2, "high": 1}, "low 2 is above high 1"),
        ({"low": 1, "high": 1}, "nothing to search"),
        ({"low": 0, "high": 1, "log": True}, "starts above 0, not at 0"),
        ({"low": -1e-3, "high": 1, "log": True}, "starts above 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "no step"),
        ({"low": 8, "high": 60, "step": 16}, "do not meet high 60; the last before it is 56"),
        ({"low": 8, "high": 16, "step": 0}, "step 0: must be above 0"),
        ({"low": 8, "high": 16, "step": 32}, "do not meet high 16"),
        ({"low": 0, "high": 1, "log": "yes"}, "log is true or false"),
        ({"low": 0}, "has low and high"),
        ({"low": "a", "high": 1}, "low must be a number, not 'a'"),
        ({"low": True, "high": 2}, "low must be a number"),
        ({"low": 0, "high": float("inf")}, "high must be a number"),
        ({"low": 0, "hihg": 1}, "unknown key 'hihg'; did you mean 'high'"),
        ({"choices": []}, "empty"),
        ({"choices": 3}, "empty list or none"),
        ({"choices": [1, 2], "low": 0}, "choices and a range"),
        ([0.1, 0.1], "stands twice"),
        ([], "empty"),
        (0.1, "neither a range nor choices"),
    ],
)
def test_what_is_no_range_is_refused_in_a_line(spec, message):
    with pytest.raises(ConfigError, match=rf"s.yaml: search: beta.*{message}") as error:
        one(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("output_dir", "does not change what is learnt"),
        ("logging_steps", "does not change what is learnt"),
        ("eval_fraction", "measured on other rows"),
        ("split_seed", "measured on other rows"),
    ],
)
def test_what_would_make_trials_incomparable_is_not_searched(name, message):
    with pytest.raises(ConfigError, match=message):
        one([1, 2], name)


@pytest.mark.parametrize("search", [{}, None, ["beta"]])
def test_a_search_over_nothing_is_refused(search):
    with pytest.raises(ConfigError, match="names no key to search"):
        parameters_of(search, "s.yaml: search")


def test_texts_that_are_numbers_are_numbers():
    rate = one({"low": "1e-5", "high": "1e-3", "log": True})
    assert rate.ends() == [1e-5, 1e-3]
    assert one(["1e-4", "linear", None, True]).ends() == [1e-4, "linear", None, True]


def test_the_grid_is_every_combination_in_the_order_written():
    parameters = parameters_of(
        {
            "lora_r": {"low": 8, "high": 24, "step": 8},
            "beta": {"low": 0.1, "high": 0.3, "step": 0.1},
        },
        "search",
    )
    points = grid_points(parameters)
    assert [point["lora_r"] for point in points] == [8, 8, 8, 16, 16, 16, 24, 24, 24]
    assert [point["beta"] for point in points[:3]] == [0.1, 0.2, 0.3]
    assert all(isinstance(point["lora_r"], int) for point in points)


def test_a_range_without_steps_has_no_grid():
    with pytest.raises(ConfigError, match="sampler grid needs each value"):
        grid_points([one({"low": 0.1, "high": 0.3})])


def test_a_fractional_key_with_whole_ends_is_searched_over_fractions():
    wide = as_float(one({"low": 1, "high": 2}))
    assert wide.ends() == [1.0, 2.0]
    assert wide.distribution.step is None
    assert as_float(one({"low": 2, "high": 6, "step": 2})).distribution.step == 2.0


def test_a_list_is_a_choice_and_comes_back_as_a_list():
    kinds = one([["sigmoid", "sft"], "hinge"], "loss_type")
    proposed = kinds.distribution.choices
    assert [kinds.value_of(each) for each in proposed] == [["sigmoid", "sft"], "hinge"]
    again = Parameter.of_dict("loss_type", kinds.as_dict())
    assert again.ends() == kinds.ends()
    assert again.words == 'one of ["sigmoid", "sft"], hinge'
