"""What the rows' columns make of labels: hard, soft, tied, by criteria, weighted, turned round."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlhf.data.formats import Pair
from rlhf.data.losses import DataLosses
from rlhf.errors import ConfigError, DataError
from rlhf.training.arguments import parse_criteria
from rlhf.training.options import RewardArguments
from rlhf.training.preferences.labels import (
    LabelPlan,
    label_columns,
    labelled_pairs,
    plan_labels,
    refuse_no_labels,
    towards_chosen,
)
from rlhf.training.reward.recipe import label_metrics
from rlhf.training.reward.rows import RewardRows

PLAIN = Pair(prompt="p", chosen="a", rejected="b", place="d:1")


def pairs_of(*values: float | None) -> list[Pair]:
    return [replace(PLAIN, p_chosen=p) for p in values]


def columns(pairs: list[Pair], **options) -> tuple[list[dict], DataLosses]:
    losses = DataLosses()
    plan = plan_labels(RewardArguments(**options), pairs, "d")
    refuse_no_labels(pairs, plan, "d")
    return label_columns(labelled_pairs(pairs, plan, losses), plan), losses


def labels(pairs: list[Pair], **options) -> list:
    return [row.get("p_chosen") for row in columns(pairs, **options)[0]]


def test_soft_labels_where_rows_carry_them():
    assert labels(pairs_of(0.8, 0.5, None)) == [[0.8], [0.5], [1.0]]
    assert labels(pairs_of(None, None)) == [None, None]  # TRL's own loss
    assert labels(pairs_of(0.8, 0.5, 0.9), labels="hard") == [None, None]  # the tie is dropped
    assert labels(pairs_of(0.8, 0.5), labels="hard", ties="keep") == [[1.0], [0.5]]
    assert labels(pairs_of(0.8, 0.5), ties="drop") == [[0.8]]
    _, losses = columns(pairs_of(0.8, 0.5, 0.5), ties="drop")
    assert losses.noted["ties (p_chosen 0.5), left out"] == 2
    assert losses.num_lost == 0


def test_a_pair_whose_labels_favour_rejected_is_turned_round():
    votes = ({"prefers": "rejected"}, {"prefers": "tie"})
    pair = replace(
        PLAIN, p_chosen=0.25, votes=votes, chosen_shown_first=0.9, chosen_ended=False, margin=2.0
    )
    turned = towards_chosen(replace(pair, criteria={"x": 0.4}))
    assert (turned.chosen, turned.rejected, turned.p_chosen) == ("b", "a", 0.75)
    assert (turned.chosen_ended, turned.rejected_ended) == (None, False)
    assert [vote["prefers"] for vote in turned.votes] == ["chosen", "tie"]
    assert turned.criteria == {"x": 0.6}
    assert turned.chosen_shown_first == pytest.approx(0.1)
    assert columns([pair])[1].noted["pairs turned round: p_chosen below 0.5"] == 1


def test_weights_have_mean_1_and_0_is_left_out():
    pairs = [replace(PLAIN, weight=weight) for weight in (1.0, 3.0, 0.0)]
    rows, losses = columns(pairs)
    assert [row["weight"] for row in rows] == [0.5, 1.5]
    assert losses.noted["pairs of weight 0, left out"] == 1
    assert "weight" not in columns([replace(PLAIN, weight=3.0)] * 2)[0][0]  # nothing differs
    with pytest.raises(DataError, match="d: all pairs have weight 0"):
        columns([replace(PLAIN, weight=0.0)])


def test_margins_are_scaled_and_ties_have_none():
    pairs = [replace(PLAIN, p_chosen=0.9, margin=2.0), replace(PLAIN, p_chosen=0.5, margin=1.0)]
    rows, _ = columns(pairs, use_margin=True, margin_scale=0.5)
    assert [row["margin"] for row in rows] == [1.0, 0.0]
    assert "margin" not in columns(pairs)[0][0]


def test_criteria_are_heads_and_a_missing_one_has_no_label():
    pairs = [
        replace(PLAIN, criteria={"help": 0.8, "true": 0.6}),
        replace(PLAIN, criteria={"help": 0.9}),
        replace(PLAIN, criteria={"other": 0.9}),
    ]
    losses = DataLosses()
    plan = plan_labels(RewardArguments(criteria="help=3,true=1"), pairs, "d")
    made = labelled_pairs(pairs, plan, losses)
    assert [pair.p_chosen for pair in made] == pytest.approx([(3 * 0.8 + 0.6) / 4, 0.9])
    assert [row["p_chosen"] for row in label_columns(made, plan)] == [[0.8, 0.6], [0.9, None]]
    assert losses.noted["pairs without a label by any declared criterion"] == 1
    assert plan.words().endswith("score = 3 x help, 1 x true")


def test_a_criterion_of_negative_weight_speaks_for_the_side_with_less_of_it():
    pair = replace(PLAIN, criteria={"long": 0.9})
    made = labelled_pairs(
        [pair], plan := plan_labels(RewardArguments(criteria="long=-1"), [pair], "d"), DataLosses()
    )
    assert (made[0].chosen, made[0].p_chosen) == ("b", pytest.approx(0.9))
    assert label_columns(made, plan)[0]["p_chosen"] == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        (pairs_of(0.5, 0.5), {}, "d: all 2 pairs are ties .* rate more"),
        (pairs_of(None), {"labels": "soft"}, "d: no row carries p_chosen; add the column"),
        (pairs_of(0.9), {"criteria": "x=1"}, r"better by 'x' \(criteria in the rows: none\)"),
        (
            [replace(PLAIN, criteria={"helpful": 0.5, "true": 0.9})],
            {"criteria": "helpfull=1"},
            "by 'helpfull'; did you mean 'helpful'",
        ),
        (
            [replace(PLAIN, criteria={"helpful": 0.5, "true": 0.9})],
            {"criteria": "true=1,helpful=1"},
            "no row says which completion is better by 'helpful'",
        ),
    ],
)
def test_labels_that_tell_nothing_are_refused(pairs, options, message):
    with pytest.raises(DataError, match=message):
        columns(pairs, **options)


def test_criteria_are_parsed():
    assert parse_criteria("help=0.65, true = 0.8") == {"help": 0.65, "true": 0.8}
    assert parse_criteria(None) == {}


@pytest.mark.parametrize("text", ["help", "help=x", "=1", "a=1,a=2", "a=inf", "a=1,"])
def test_criteria_that_say_nothing_are_refused(text: str):
    with pytest.raises(ConfigError, match="is not NAME=WEIGHT"):
        parse_criteria(text)


def test_weights_of_0_alone_are_refused():
    with pytest.raises(ConfigError, match="every score would be 0"):
        parse_criteria("a=0,b=0")


def test_a_ceiling_of_one_criterion_is_not_that_of_several():
    data = SimpleNamespace(
        provenance={"label_method": "votes", "noise_ceiling": 0.9, "noise_ceiling_ci": [0.8, 0.95]}
    )
    inputs = SimpleNamespace(train=data, heldout=None)

    def ceiling(**heads: float) -> float | None:
        plan = LabelPlan(heads=heads, by_criteria=True)
        rows = RewardRows(plan=plan, train=[], train_pairs=[], heldout=[], heldout_pairs=[])
        return label_metrics(rows, inputs)["noise_ceiling"]

    assert ceiling(help=1.0) == 0.9
    assert ceiling(help=0.7, true=0.3) is None


def test_weights_whose_sum_overflows_still_count():
    """Their mean would be infinite, and each pair's share of it nothing."""
    rows, _ = columns([replace(PLAIN, weight=1e308), replace(PLAIN, weight=1.5e308)])
    assert [row["weight"] for row in rows] == pytest.approx([0.8, 1.2])


def test_a_tie_by_several_criteria_is_one_in_spite_of_rounding():
    weights = {"a": 0.1, "b": 0.2, "c": 0.3}
    pair = replace(PLAIN, criteria={"a": 0.5 + 3e-10, "b": 0.5, "c": 0.5})
    plan = plan_labels(RewardArguments(criteria="a=0.1,b=0.2,c=0.3"), [pair], "d")
    assert plan.heads == weights
    assert [one.p_chosen for one in labelled_pairs([pair], plan, DataLosses())] == [0.5]


def test_a_weight_of_a_criterion_has_a_limit():
    """1e300 times a score is no number that fp32 holds: found out after the training."""
    with pytest.raises(ConfigError, match="weights from -1e\\+06 to 1e\\+06"):
        parse_criteria("a=1e300,b=1")
