"""How far raters lie apart on an item, by hand."""

from typing import Any

import pytest

from rlhf.feedback.evidence import Evidence
from rlhf.feedback.quality.disagreements import disagreements_in
from tests.feedback.makers import comparison, judgement


def spread(*values: dict[str, Any], count: int = 2) -> float | None:
    item = comparison("i", *"abcdefghi"[:count])
    order = tuple(range(count))
    said = [judgement("i", f"r{k}", shown_order=order, **one) for k, one in enumerate(values)]
    found = disagreements_in(Evidence(comparisons=[item], judgements=said))
    return found[0].spread if found else None


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([1, -1], 1.0),
        ([3, -3], 1.0),  # the sign counts
        ([1, 3], None),
        ([0, 1], 1 / 4),
        ([1, 1, -1], 8 / 9),  # mean 1/3: (2 * 4/9 + 16/9) / 3
        ([1], None),
    ],
)
def test_spread_of_verdicts(verdicts: list[int], expected: float | None) -> None:
    found = spread(*({"verdict": one} for one in verdicts))
    assert found == (None if expected is None else pytest.approx(expected))


def test_spread_of_other_tasks() -> None:
    # of three pairs of a ranking one is turned round
    rankings = [{"ranking": (1, 2, 3)}, {"ranking": (1, 3, 2)}]
    assert spread(*rankings, count=3) == pytest.approx(1 / 3)
    # ratings 1 5 and 3 5 of range 1..5: variance 1 of at most 4, and 0
    assert spread({"ratings": {"h": (1, 5)}}, {"ratings": {"h": (3, 5)}}) == pytest.approx(1 / 8)
    # a flag on which two differ is not watered down by the completions without any
    assert spread({"flags": (("unsafe",), ())}, {"flags": ((), ())}) == 1.0


def test_worst_first_and_what_is_left_out() -> None:
    items = [comparison(name) for name in ("agree", "mild", "wide", "far", "out")]
    said = {
        "agree": {"a": 1, "b": 2},
        "mild": {"a": 0, "b": 1},
        "wide": {"a": 1, "b": -1},
        "far": {"a": 3, "b": -3},
        "out": {"a": 1, "x": -1},
    }
    judgements = [
        judgement(item, rater, verdict=v, simulated=rater == "b")
        for item, by_rater in said.items()
        for rater, v in by_rater.items()
    ]
    lead = judgement("far", "lead", verdict=1, purpose="adjudication")
    gold = [judgement("agree", "c", verdict=-3, purpose="gold")]
    found = disagreements_in(
        Evidence(
            comparisons=items,
            judgements=[*judgements, lead, *gold],
            weights={"x": 0.0},
            adjudications={"far": lead.id},
        )
    )
    assert [(one.item, one.adjudicated) for one in found] == [
        ("far", True), ("wide", False), ("mild", False)
    ]  # fmt: skip
    assert (found[0].num_raters, found[0].num_simulated) == (2, 1)
    assert len(found[0].judgement_ids) == 2
