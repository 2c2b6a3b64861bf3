"""Soft labels, and what weights, adjudications, gold and purposes do to labels."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.errors import ConfigError
from rlhf.feedback.aggregation import aggregate
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.soft_labels import ADJUDICATED_P, METHODS, SoftLabels, fit_flags, labels_of
from rlhf.records import Comparison, Judgement
from tests.feedback.makers import comparison, judgement

VERDICTS = st.dictionaries(
    st.tuples(st.sampled_from(["i0", "i1", "i2"]), st.sampled_from("abcd")),
    st.integers(-3, 3),
    min_size=1,
)
ITEMS = [comparison(name) for name in ("i0", "i1", "i2")]


def soft_labels(
    items: list[Comparison], answers: list[Judgement], *, method: Any = "auto", **known: Any
) -> SoftLabels:
    """The labels of these answers; `known` are evidence's weights, adjudications and gold."""
    return labels_of(Evidence(comparisons=items, judgements=answers, **known), method=method)


def said(**verdicts: dict[str, int]) -> list[Judgement]:
    """Verdicts by item and rater."""
    return [
        judgement(item, rater, verdict=verdict)
        for item, by_rater in verdicts.items()
        for rater, verdict in by_rater.items()
    ]


def of(verdicts: dict[tuple[str, str], int]) -> list[Judgement]:
    return [judgement(item, rater, verdict=one) for (item, rater), one in verdicts.items()]


def test_votes_by_hand_with_weights() -> None:
    # for no: ann 1 and eve 1/2; for yes: bob 1. (1.5 + 1) / (2.5 + 2) = 5/9
    answers = said(i0={"ann": 2, "bob": -1, "eve": 1})
    found = soft_labels(ITEMS, answers, weights={"eve": 0.5}, method="votes")
    assert found.p_second == pytest.approx({("i0", 0, 1): 5 / 9})
    (pair,), _ = aggregate(ITEMS, answers, weights={"eve": 0.5})
    assert pair.chosen.text == "no"
    assert pair.p_chosen == pytest.approx(5 / 9)
    assert pair.margin == pytest.approx((2 - 1 + 0.5) / 2.5)


def test_weight_nought_removes_a_rater() -> None:
    answers = said(i0={"ann": 2, "bob": -1}, i1={"bob": 3})
    (pair,), report = aggregate(ITEMS, answers, weights={"bob": 0.0})
    assert (pair.item, pair.p_chosen) == ("i0", pytest.approx(2 / 3))
    assert pair.judgement_ids == (answers[0].id,)
    assert (report.num_excluded, report.num_votes) == (2, 1)


@pytest.mark.parametrize("method", ["votes", "dawid_skene"])
def test_adjudicated_item_takes_the_adjudicators_word(method: Any) -> None:
    answers = said(i0={"ann": 2, "bob": 1})
    verdict = judgement("i0", "lead", verdict=-3, purpose="adjudication")
    (pair,), report = aggregate(
        ITEMS, [*answers, verdict], adjudications={"i0": verdict.id}, method=method
    )
    assert pair.chosen.text == "yes"
    assert pair.p_chosen == pytest.approx(ADJUDICATED_P)
    assert (pair.margin, pair.judgement_ids) == (3.0, (verdict.id,))
    assert (report.num_adjudicated, report.num_votes) == (1, 1)


def test_withdrawn_or_vanished_adjudication_changes_nothing() -> None:
    answers = said(i0={"ann": 2, "bob": 1})
    verdict = judgement("i0", "lead", verdict=-3, purpose="adjudication")
    plain, _ = aggregate(ITEMS, answers)
    assert aggregate(ITEMS, [*answers, verdict])[0] == plain
    assert aggregate(ITEMS, answers, adjudications={"i0": "gone"})[0] == plain


@pytest.mark.parametrize("values", [{"verdict": 0}, {"skip": "broken item"}])
def test_adjudicated_tie_or_skip_makes_no_pair(values: dict[str, Any]) -> None:
    verdict = judgement("i0", "lead", purpose="adjudication", **values)
    answers = [*said(i0={"ann": 2}), verdict]
    assert aggregate(ITEMS, answers, adjudications={"i0": verdict.id})[0] == []


@pytest.mark.parametrize("purpose", ["gold", "qualification", "retest"])
def test_checks_of_raters_make_no_label(purpose: Any) -> None:
    answers = [
        *said(i0={"ann": 2}),
        judgement("i1", "ann", verdict=1, purpose=purpose),
        judgement("i0", "ann", verdict=-2, purpose=purpose),
    ]
    (pair,), report = aggregate(ITEMS, answers)
    assert (pair.item, pair.chosen.text, report.num_checks) == ("i0", "no", 2)


def test_gold_answers_tell_whom_to_believe() -> None:
    gold = {f"g{k}": {"verdict": 1} for k in range(10)}
    answers = said(i0={"good": -1, "bad": 1})
    for k in range(10):
        answers.append(judgement(f"g{k}", "good", verdict=2, purpose="gold"))
        answers.append(judgement(f"g{k}", "bad", verdict=2 if k < 4 else -2, purpose="gold"))
    items = [*ITEMS, *(comparison(name) for name in gold)]
    found = soft_labels(items, answers, gold=gold, method="dawid_skene")
    assert list(found.p_second) == [("i0", 0, 1)]
    assert found.p_second["i0", 0, 1] < 0.2
    good = found.reliability["good"]
    assert good is not None
    assert good.n == 11


def test_ties_neither_move_a_label_nor_cost_reliability() -> None:
    answers = said(i0={"a": 1, "b": 1}, i1={"a": 1, "b": 1}, i2={"a": -1, "b": -1})
    tied = [*answers, *said(i0={"c": 0}, i1={"c": 0})]
    plain = soft_labels(ITEMS, answers, method="dawid_skene")
    found = soft_labels(ITEMS, tied, method="dawid_skene")
    assert found.p_second == pytest.approx(plain.p_second)
    assert found.reliability == plain.reliability


def test_auto_takes_the_graph_only_where_it_has_circles() -> None:
    disjoint = soft_labels(ITEMS, said(i0={"a": 1}), method="auto")
    assert disjoint.method == "dawid_skene"
    assert "share no completions" in disjoint.why
    three = comparison("r", "x", "y", "z")
    ranked = [judgement("r", rater, ranking=(1, 2, 3), shown_order=(0, 1, 2)) for rater in "abc"]
    circle = soft_labels([three], ranked, method="auto")
    assert circle.method == "crowd_bt"
    assert circle.p_second["r", 0, 2] < circle.p_second["r", 0, 1] < 0.5
    with pytest.raises(ConfigError, match="share no completions"):
        soft_labels(ITEMS, said(i0={"a": 1}), method="crowd_bt")


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'votes'"):
        soft_labels(ITEMS, [], method="vote")  # type: ignore[arg-type]


def test_items_that_share_texts_hang_together() -> None:
    texts = {"p": ("x", "y"), "q": ("y", "z"), "r": ("z", "x")}
    items = [comparison(name, *pair, prompt="one") for name, pair in texts.items()]
    apart = [comparison(name, *pair) for name, pair in texts.items()]  # a prompt each
    answers = said(p={"a": 1, "b": 1}, q={"a": -1}, r={"b": 1})
    assert soft_labels(items, answers).method == "crowd_bt"
    assert soft_labels(apart, answers).method == "dawid_skene"


@settings(deadline=None)  # the first call imports libraries
@given(VERDICTS, st.sets(st.sampled_from(["i0", "i1", "i2"])))
def test_swapping_the_completions_of_items_swaps_their_labels_alone(
    verdicts: dict[tuple[str, str], int], swapped: set[str]
) -> None:
    turned = [
        replace(one, verdict=-(one.verdict or 0)) if one.item in swapped else one
        for one in of(verdicts)
    ]
    for method in ("votes", "dawid_skene"):
        plain = soft_labels(ITEMS, of(verdicts), method=method)  # type: ignore[arg-type]
        found = soft_labels(swap(ITEMS, swapped), turned, method=method)  # type: ignore[arg-type]
        assert found.p_second == pytest.approx(
            {key: 1 - p if key[0] in swapped else p for key, p in plain.p_second.items()}, abs=1e-5
        )


@settings(deadline=None)  # the first call imports libraries
@given(VERDICTS)
def test_labels_of_every_method_are_probabilities(verdicts: dict[tuple[str, str], int]) -> None:
    for method in METHODS:
        if method == "crowd_bt":
            continue
        pairs, report = aggregate(ITEMS, of(verdicts), method=method)
        assert all(0.5 < pair.p_chosen < 1 and 0 <= pair.margin <= 3 for pair in pairs)
        assert report.num_pairs + report.num_equal_votes == len({item for item, _ in verdicts})


def test_flags_have_raters_of_their_own() -> None:
    items = [comparison(f"f{k}") for k in range(20)]
    answers = [
        judgement(item.item, rater, flags=(("unsafe",) if k % 4 == wrong else (), ()))
        for k, item in enumerate(items)
        for rater, wrong in (("a", 0), ("b", 0), ("c", 0), ("odd", 1))
    ]
    found = fit_flags(Evidence(comparisons=items, judgements=answers))["unsafe"]
    assert found.p_yes["f0", 0] > 0.95  # three of four say so
    assert found.p_yes["f1", 0] < 0.1  # only odd says so
    assert found.prior == pytest.approx((5 + 1) / (40 + 2), abs=0.01)  # 5 of 40 completions
    reliable = {name: one.value for name, one in found.reliability.items() if one}
    # odd: right on 20 unflagged second ones and on 10 of 20 first ones: (30 + 4) / (40 + 6)
    assert reliable["odd"] == pytest.approx(34 / 46, abs=0.01)
    assert reliable["a"] > 0.95


def swap(items: list[Comparison], names: set[str]) -> list[Comparison]:
    return [
        replace(one, completions=one.completions[::-1]) if one.item in names else one
        for one in items
    ]
