"""Alpha and kappa: published numbers, by hand, and what must never change them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.feedback.quality.chance_corrected import (
    Level,
    cohen_kappa,
    cohen_kappas,
    krippendorff_alpha,
    weighted_kappa,
)
from rlhf.feedback.quality.measures import Table

LEVELS: list[Level] = ["nominal", "ordinal", "interval"]
NAN = math.nan
KRIPPENDORFF = [  # four observers of twelve units, from "Computing Krippendorff's alpha", 2011
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]
TABLES = st.dictionaries(
    st.integers(0, 7).map(lambda k: (f"i{k}", 0, 1)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(-3, 3).map(float), min_size=2),
    min_size=2,
)


def table(*units: dict[str, float]) -> Table:
    return {(f"i{k}", 0, 1): unit for k, unit in enumerate(units)}


def published() -> Table:
    return table(
        *(
            {str(at): row[k] for at, row in enumerate(KRIPPENDORFF) if not math.isnan(row[k])}
            for k in range(12)
        )
    )


@pytest.mark.parametrize(
    ("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_own_example(level: Level, value: float) -> None:
    found = krippendorff_alpha(published(), level)
    assert found is not None
    assert found.value == pytest.approx(value, abs=5e-4)
    assert found.low < found.value < found.high <= 1
    assert found.n == 11  # the twelfth unit has one value


def test_nominal_alpha_by_hand() -> None:
    # (1,1) (1,1) (-1,-1) (1,-1): of 8 values 5 are 1 and 3 are -1; 2 of 8 coincidences differ;
    # by chance 2 * 5 * 3 of 8 * 7 would: 1 - (2/8) / (30/56) = 1 - 7/15
    units = table(*({"a": a, "b": b} for a, b in [(1, 1), (1, 1), (-1, -1), (1, -1)]))
    found = krippendorff_alpha(units, "nominal")
    assert found is not None
    assert found.value == pytest.approx(8 / 15)


def test_interval_alpha_by_hand() -> None:
    # values 0 0 | 1 3: differences squared 0 and 4, each unit twice: observed 2 * 4 = 8 of 4 values
    # chance: all 12 ordered pairs: 2 * (0 + 1 + 9 + 1 + 9 + 4) = 48 over n - 1 = 3: 16; 1 - 8/16
    found = krippendorff_alpha(table({"a": 0, "b": 0}, {"a": 1, "b": 3}), "interval")
    assert found is not None
    assert found.value == pytest.approx(1 / 2)


def test_ordinal_alpha_by_hand() -> None:
    # values 1 1 | 2 5: places (numbers of values up to the middle of one's own) 1, 1, 2.5, 3.5;
    # observed 2 * 1; chance 2 * (2 * 1.5^2 + 2 * 2.5^2 + 1) / 3 = 12: 1 - 2/12
    found = krippendorff_alpha(table({"a": 1, "b": 1}, {"a": 2, "b": 5}), "ordinal")
    assert found is not None
    assert found.value == pytest.approx(5 / 6)


@pytest.mark.parametrize("level", LEVELS)
def test_draws_of_items_that_are_all_alike_have_the_value_itself(level: Level) -> None:
    # every draw holds the same coincidences, so our formula must give evalica's value each time
    found = krippendorff_alpha(table(*[{"a": -3, "b": 2, "c": -3, "d": 1}] * 9), level)
    assert found is not None
    assert found.low == pytest.approx(found.value)
    assert found.high == pytest.approx(found.value)


def test_units_of_one_item_are_drawn_together() -> None:
    agree = {"a": 1.0, "b": 1.0}
    units: Table = {}
    for k in range(40):
        values = agree if k % 2 else {"a": 1.0, "b": -1.0}
        for at in range(10):
            units[f"i{k}", at, at] = values
    alone = {(f"{unit[0]}-{unit[1]}", 0, 0): values for unit, values in units.items()}
    together, apart = (krippendorff_alpha(each, "nominal") for each in (units, alone))
    assert together is not None
    assert apart is not None
    assert together.value == apart.value
    # ten times as many items: an interval a third (sqrt 10) as wide
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(3.2, abs=0.6)


def test_alpha_is_undefined_without_a_second_value() -> None:
    assert krippendorff_alpha({}, "nominal") is None
    assert krippendorff_alpha(table({"a": 1}, {"b": 2}), "nominal") is None
    assert krippendorff_alpha(table({"a": 1, "b": 1}), "nominal") is None


@settings(deadline=None)  # the first call imports libraries
@given(TABLES)
def test_full_agreement_is_one(units: Table) -> None:
    agreed = {unit: dict.fromkeys(values, min(values.values())) for unit, values in units.items()}
    for level in LEVELS:
        found = krippendorff_alpha(agreed, level)
        if found is not None:
            assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


@settings(deadline=None)  # the first call imports libraries
@given(TABLES)
def test_names_and_sides_change_nothing(units: Table) -> None:
    for level in LEVELS:
        plain = krippendorff_alpha(units, level)
        renamed = {
            u: {f"rater {name}": v for name, v in values.items()} for u, values in units.items()
        }
        turned = {u: {name: -v for name, v in values.items()} for u, values in units.items()}
        if plain is None:
            assert krippendorff_alpha(turned, level) is None
            continue
        for other in (krippendorff_alpha(renamed, level), krippendorff_alpha(turned, level)):
            assert other is not None
            assert (other.value, other.low, other.high, other.n) == pytest.approx(
                (plain.value, plain.low, plain.high, plain.n), abs=1e-9
            )


def test_kappa_by_hand() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: (.7 - .5) / (1 - .5)
    one = [1] * 25 + [0] * 25
    other = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(one, other) == pytest.approx(0.4)


def test_weighted_kappa_counts_the_steps_between_values_that_nobody_gave() -> None:
    # one difference of 2 squared in four: 1. By chance E(a^2) + E(b^2) - 2 E(a) E(b)
    # = 28/4 + 36/4 - 2 * (-1/2) * 0 = 16: 1 - 1/16. By places (-3, 1, 3 as 0, 1, 2) 6/7.
    assert weighted_kappa([-3, 3, 1, -3], [-3, 3, 3, -3]) == pytest.approx(15 / 16)


def test_kappa_is_undefined_where_both_say_one_thing_throughout() -> None:
    assert cohen_kappa([1, 1], [1, 1]) is None
    assert weighted_kappa([1, 1], [1, 1]) is None
    assert cohen_kappa([], []) is None
    assert weighted_kappa([], []) is None
    assert cohen_kappa([1, 1], [0, 0]) == 0.0
    assert weighted_kappa([1, 1], [0, 0]) == 0.0


@settings(deadline=None)  # the first call imports libraries
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2))
def test_kappas_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len({*one, *other}) > 1:
        scale = list(range(-3, 4))
        assert cohen_kappa(one, other) == pytest.approx(
            cohen_kappa_score(one, other, labels=scale)
        )  # fmt: skip
        assert weighted_kappa(one, other) == pytest.approx(
            cohen_kappa_score(one, other, labels=scale, weights="quadratic")
        )


def test_kappas_of_every_pair_with_a_common_unit() -> None:
    values = table({"b": 3, "a": 1}, {"a": -2, "b": -1, "c": -1}, {"c": 0, "d": 0})
    signs = {u: {n: math.copysign(1, v) if v else 0.0 for n, v in vs.items()}
             for u, vs in values.items()}  # fmt: skip
    found = {(one.a, one.b): one for one in cohen_kappas(values, signs)}
    assert {pair: one.n for pair, one in found.items()} == {
        ("a", "b"): 2, ("a", "c"): 1, ("b", "c"): 1, ("c", "d"): 1
    }  # fmt: skip
    assert found["a", "b"].kappa == 1
    # differences squared 4 and 1, mean 2.5; a: mean -1/2, squares 2.5; b: mean 1, squares 5;
    # chance 2.5 + 5 - 2 * (-1/2) * 1 = 8.5
    assert found["a", "b"].weighted == pytest.approx(1 - 2.5 / 8.5)
    assert found["a", "c"].kappa is None
    assert found["a", "c"].agreement == 1
