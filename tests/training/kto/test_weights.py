"""Desirable against undesirable: the rarer label is raised until they are balanced."""

from dataclasses import replace

import pytest

from rlhf.training.kto.weights import LabelBalance, balance
from rlhf.training.options import KTOArguments


class Given:
    """What TRL's config says of the two factors."""

    def __init__(self, desirable: float = 1.0, undesirable: float = 1.0) -> None:
        self.desirable_weight, self.undesirable_weight = desirable, undesirable


@pytest.mark.parametrize(
    ("desirable", "undesirable", "factors", "ratio"),
    [
        (10, 10, (1, 1), 1),
        (13, 10, (1, 1), 1.3),  # within 1:1 and 4:3 already
        (10, 100, (10, 1), 1),  # the paper's example: lambda_D from 10 to 13.3
        (80, 20, (1, 3), 4 / 3),
    ],
)
def test_the_rarer_label_is_raised_to_the_nearer_end_of_the_range(
    desirable, undesirable, factors, ratio
):
    made = balance(desirable, undesirable, KTOArguments(), Given())
    assert (made.desirable_weight, made.undesirable_weight) == pytest.approx(factors)
    assert made.ratio == pytest.approx(ratio)
    assert made.is_balanced


def test_what_is_given_stands_and_is_called_unbalanced_where_it_is():
    made = balance(10, 100, KTOArguments(), Given(desirable=2))
    assert (made.desirable_weight, made.undesirable_weight) == (2, 1)
    assert made.words().endswith("give one of them")
    assert "stand 0.20 : 1 in the loss, outside 1:1 to 4:3" in made.words()
    never = balance(10, 100, KTOArguments(balance_labels="never"), Given())
    assert never.ratio == pytest.approx(0.1)


def test_both_ends_of_the_range_belong_to_it():
    made = LabelBalance(desirable=4, undesirable=3)
    assert made.is_balanced
    assert replace(made, undesirable=4).is_balanced
    assert not replace(made, desirable=4.1).is_balanced
    assert not replace(made, undesirable=4.1).is_balanced
