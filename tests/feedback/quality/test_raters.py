"""Every number of a rater's line, by hand."""

from datetime import timedelta
from typing import Any

import pytest

from rlhf.feedback.evidence import Evidence
from rlhf.feedback.quality.checks import share_as_expected, share_repeated
from rlhf.feedback.quality.estimates import beta_estimate, ratio_estimate
from rlhf.feedback.quality.raters import agreement_with_others, length_bias, side_bias, summaries
from rlhf.records import Judgement
from tests.feedback.makers import NOON, comparison, judgement


def test_beta_interval_is_jeffreys() -> None:
    from statsmodels.stats.proportion import proportion_confint

    found = beta_estimate(8, 10)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(
        proportion_confint(8, 10, method="jeffreys"), abs=1e-6
    )
    assert (found.value, found.n) == (0.8, 10)


def test_beta_interval_reaches_the_ends_and_none_of_nothing() -> None:
    # Beta(1/2, 5/2 ...): one half and more of the mass lies near an end that cannot be excluded
    nobody, all_ = beta_estimate(0, 5), beta_estimate(5, 5)
    assert nobody is not None
    assert all_ is not None
    assert (nobody.low, all_.high) == (0, 1)
    assert nobody.high == pytest.approx(1 - all_.low)
    assert 0.3 < nobody.high < 0.5
    assert beta_estimate(0, 0) is None


def test_ratio_of_equal_items_has_no_spread() -> None:
    found = ratio_estimate([(1, 2)] * 5 + [(0, 0)])
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 10)
    assert ratio_estimate([(0, 0)]) is None


@pytest.mark.parametrize(
    ("values", "expected", "share"),
    [
        ({"verdict": 3}, {"verdict": 1}, 1.0),  # the sign counts
        ({"verdict": -1}, {"verdict": 1}, 0.0),
        ({"verdict": 0}, {"verdict": 0}, 1.0),
        ({"skip": "?"}, {"verdict": 1}, None),
        ({"ranking": (1, 2, 3)}, {"ranking": [1, 3, 2]}, 2 / 3),  # two of three pairs
        ({"ratings": {"help": (4, 2), "harm": (1, 1)}}, {"ratings": {"help": [4, 3]}}, 1 / 2),
        ({"ratings": {"help": (4, 2)}}, {"ratings": {"harm": [1, 1]}}, None),
        ({"flags": (("unsafe",), ())}, {"flags": [["unsafe"], []]}, 1.0),
        ({"flags": ((), ())}, {"flags": [["unsafe"], []]}, 1 / 2),
        ({"ratings": {"help": (4, 2)}}, {"ratings": {"help": [5, 2]}, "tolerance": 1}, 1.0),
        ({"verdict": 1, "flags": ((), ())}, {"verdict": 1, "flags": [["x"], []]}, 3 / 4),
    ],
)
def test_share_as_expected_by_hand(
    values: dict[str, Any], expected: dict[str, Any], share: float | None
) -> None:
    count = 3 if "ranking" in values else 2
    said = judgement("i", shown_order=tuple(range(count)), **values)
    assert share_as_expected(said, expected) == (share if share is None else pytest.approx(share))


def test_repeating_oneself_is_about_the_sign() -> None:
    first = judgement("i", verdict=1)
    assert share_repeated(first, judgement("i", verdict=3)) == 1
    assert share_repeated(first, judgement("i", verdict=0)) == 0
    assert share_repeated(first, judgement("i", skip="?")) is None


def test_side_bias_counts_what_was_shown_first() -> None:
    said = [
        judgement("a", verdict=-1),  # the first completion, shown first: 1
        judgement("b", verdict=-1, shown_order=(1, 0)),  # shown second: 0
        judgement("c", verdict=2, shown_order=(1, 0)),  # the second, shown first: 1
        judgement("d", verdict=0),  # no side
        judgement("e", skip="?"),
        # shown 2 0 1; best 0, then 2, then 1: 2 before 0 lost, 2 before 1 won, 0 before 1 won
        judgement("f", ranking=(1, 3, 2), shown_order=(2, 0, 1)),
    ]
    found = side_bias(said)
    assert found is not None
    assert found.value == pytest.approx((1 + 0 + 1 + 2 / 3) / 4)
    assert found.n == 4


def test_length_bias_counts_the_longer() -> None:
    items = {
        one.item: one
        for one in (comparison("a", "x", "longer"), comparison("b", "longest", "y"),
                    comparison("c", "so", "os"))
    }  # fmt: skip
    said = [judgement("a", verdict=1), judgement("b", verdict=3), judgement("c", verdict=1)]
    found = length_bias(said, items)
    assert found is not None
    assert (found.value, found.n) == (0.5, 2)  # equal lengths have no longer one


def test_agreement_with_those_who_count() -> None:
    said = [
        *(judgement("i", rater, verdict=v) for rater, v in (("a", 1), ("b", 2), ("out", -1))),
        *(judgement("k", rater, verdict=v) for rater, v in (("a", 1), ("b", -1), ("out", 1))),
    ]
    found = agreement_with_others(
        Evidence(comparisons=[], judgements=said, weights={"out": 0.0})
    )  # fmt: skip
    shares = {name: (one.value, one.n) for name, one in found.items() if one}
    assert shares == {"a": (0.5, 2), "b": (0.5, 2), "out": (0.25, 4)}


def line(said: list[Judgement], **evidence: Any) -> Any:
    items = [comparison(name) for name in dict.fromkeys(one.item for one in said)]
    lines = summaries(
        Evidence(comparisons=items, judgements=said, **evidence), too_fast_s=3.0
    )  # fmt: skip
    return {one.name: one for one in lines}["ann"]


def test_a_whole_line_by_hand() -> None:
    """Gold: one met, one missed, one skipped, which is no answer."""
    late = NOON + timedelta(hours=2)
    said = [
        judgement("i0", "ann", verdict=1, seconds=2.0),
        judgement("i1", "ann", verdict=-1, seconds=4.0),
        judgement("i2", "ann", skip="?", seconds=99.0),
        judgement("i0", "ann", verdict=3, purpose="retest", seconds=6.0, created_at=late),
        judgement("i1", "ann", verdict=2, purpose="retest", seconds=8.0),
        judgement("g0", "ann", verdict=1, purpose="gold", seconds=0.0),
        judgement("g1", "ann", verdict=1, purpose="qualification", seconds=1.0),
        judgement("g2", "ann", skip="?", purpose="gold", seconds=1.0),
        judgement("i0", "ann", verdict=1, purpose="adjudication", seconds=1.0),
        judgement("i0", "bob", verdict=1),
    ]
    gold = {"g0": {"verdict": 2}, "g1": {"verdict": -2}, "g2": {"verdict": 1}}
    found = line(said, gold=gold, weights={"ann": 0.5})
    assert (found.num_judged, found.num_skipped, found.num_gold) == (2, 1, 3)
    assert (found.gold_accuracy.value, found.gold_accuracy.n) == (0.5, 2)
    assert (found.self_consistency.value, found.self_consistency.n) == (0.5, 2)
    assert (found.agreement.value, found.agreement.n) == (1.0, 1)
    assert found.median_seconds == 4.0  # of 2 4 6 8 1
    assert found.too_fast_share == 2 / 5
    assert (found.weight, found.last_at, found.simulated) == (0.5, late, False)
    assert found.side_bias.n == 2
    assert found.reliability.n == 4  # i0, i1, g0, g1


def test_a_line_of_nothing_has_nothing() -> None:
    found = line([judgement("i", "ann", skip="?", simulated=True, seconds=0.0)])
    assert found.simulated
    for name in ("gold_accuracy", "self_consistency", "agreement", "reliability", "side_bias",
                 "length_bias", "median_seconds", "too_fast_share"):  # fmt: skip
        assert getattr(found, name) is None
