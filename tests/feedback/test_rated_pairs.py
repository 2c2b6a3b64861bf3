"""Ratings as pairs: what was rated higher by each criterion, with numbers worked out by hand."""

import pytest

from rlhf.feedback.aggregation import aggregate_evidence
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.rated_pairs import criteria_of, rated_pairs
from tests.feedback.makers import comparison, judgement


def rated(rater: str, item: str = "i0", **ratings):
    return judgement(item, rater, id=f"{item}-{rater}", ratings=ratings)


def evidence_of(*judgements, items=None, **options) -> Evidence:
    return Evidence(
        comparisons=items or [comparison("i0", "yes", "no")], judgements=judgements, **options
    )


def test_each_criterion_has_its_share_of_votes():
    evidence = evidence_of(
        rated("a", help=(4, 2), true=(3, 3)),
        rated("b", help=(5, 1), true=(1, 4)),
        rated("c", help=(2, 3)),
    )
    made = rated_pairs(evidence)
    assert made.p_second == {("i0", 0, 1): {"help": 2 / 5, "true": 2.5 / 4}}
    assert criteria_of(evidence.judgements) == ["help", "true"]
    pairs, report = aggregate_evidence(evidence, with_ratings=True)
    assert [(pair.chosen.text, pair.p_chosen) for pair in pairs] == [("yes", 3 / 5)]
    assert pairs[0].criteria == pytest.approx({"help": 3 / 5, "true": 1.5 / 4})
    assert [vote.prefers for vote in pairs[0].votes] == ["chosen", "chosen", "rejected"]
    assert (report.num_votes, report.num_without_preference) == (3, 0)
    assert aggregate_evidence(evidence)[0] == []  # who does not ask for ratings gets none


def test_a_model_of_raters_may_label_each_criterion():
    """Two who agree and one who says the opposite of them in `help`, but not in `true`."""
    items = [comparison(f"i{number}", "yes", "no") for number in range(30)]
    said = []
    for number, item in enumerate(items):
        best = (5, 1) if number % 2 else (1, 5)
        for rater in ("a", "b", "c"):
            of_help = best[::-1] if rater == "c" else best
            said.append(rated(rater, item.item, help=of_help, true=best))
    evidence = evidence_of(*said, items=items)
    votes, model = (rated_pairs(evidence, method=each) for each in ("votes", "dawid_skene"))
    key = ("i1", 0, 1)
    assert votes.p_second[key] == {"help": pytest.approx(2 / 5), "true": pytest.approx(1 / 5)}
    assert votes.reliability == {}
    assert max(model.p_second[key].values()) < 0.05
    told = model.reliability
    assert told["help"]["c"].value < 0.2 < 0.9 < told["true"]["c"].value
    pairs, _ = aggregate_evidence(evidence, method="dawid_skene", with_ratings=True)
    assert min(pair.p_chosen for pair in pairs) > 0.95
    assert rated_pairs(evidence, method="auto").p_second == model.p_second
    assert rated_pairs(evidence, method="crowd_bt").p_second == votes.p_second


def test_weights_adjudications_and_gaps_in_ratings():
    items = [comparison("i0", "yes", "no"), comparison("i1", "a", "b", "c")]
    evidence = evidence_of(
        rated("a", help=(4, 2)),
        rated("b", help=(1, 2)),
        rated("lead", "i1", help=(1, None, 5)),
        items=items,
        weights={"a": 3.0, "b": 0.5},
        adjudications={"i1": "i1-lead"},
    )
    made = rated_pairs(evidence).p_second
    assert made["i0", 0, 1] == {"help": pytest.approx((0.5 + 1) / (3.5 + 2))}
    assert made["i1", 0, 2] == {"help": pytest.approx(0.98)}
    assert set(made) == {("i0", 0, 1), ("i1", 0, 2)}  # b was not rated
    pairs, _ = aggregate_evidence(evidence, with_ratings=True)
    assert [pair.item for pair in pairs] == ["i0", "i1#0-2"]
    assert pairs[0].weight == pytest.approx(1.75)
    assert pairs[1].group == items[1].prompt.id


def test_a_verdict_decides_and_ratings_stand_beside_it():
    both = judgement("i0", "a", verdict=2, ratings={"help": (5, 1)})
    pairs, _ = aggregate_evidence(evidence_of(both), with_ratings=True)
    assert (pairs[0].chosen.text, pairs[0].p_chosen) == ("no", 2 / 3)
    assert pairs[0].criteria == {"help": pytest.approx(1 / 3)}


def test_ties_are_kept_on_demand_and_counted_either_way():
    said = [judgement("i0", "a", verdict=-3), judgement("i0", "b", verdict=1)]
    assert aggregate_evidence(evidence_of(*said))[0] == []
    pairs, report = aggregate_evidence(evidence_of(*said), keep_ties=True)
    assert [(pair.p_chosen, pair.margin) for pair in pairs] == [(0.5, 0.0)]
    assert (report.num_equal_votes, report.num_pairs) == (1, 0)


def test_where_chosen_stood_on_the_screen():
    said = [
        judgement("i0", "a", verdict=-1, shown_order=(0, 1)),
        judgement("i0", "b", verdict=-1, shown_order=(1, 0)),
        judgement("i0", "c", verdict=-1, shown_order=(0, 1)),
    ]
    pairs, _ = aggregate_evidence(evidence_of(*said))
    assert pairs[0].chosen.text == "yes"
    assert pairs[0].chosen_shown_first == pytest.approx(2 / 3)
    assert [vote.strength for vote in pairs[0].votes] == [1.0, 1.0, 1.0]
