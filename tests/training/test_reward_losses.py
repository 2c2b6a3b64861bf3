"""The losses of a reward model, against numbers worked out by hand and the laws they must obey."""

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nan, tensor

from rlhf.training.reward.losses import (
    centring_loss,
    pair_losses,
    preference_loss,
    row_losses,
    weighted_mean,
)

DELTAS = st.floats(-15, 15)
SHARES = st.floats(0, 1)
MARGINS = st.floats(0, 5)


def loss_of(delta: float, p: float, margin: float = 0.0) -> float:
    return pair_losses(tensor(delta, dtype=torch.double), tensor(p), tensor(margin)).item()


def test_a_lead_of_ln_3_costs_ln_4_3():
    assert loss_of(log(3), 1) == pytest.approx(log(4 / 3))  # three to one
    assert loss_of(-log(3), 1) == pytest.approx(log(4))
    # three quarters sure of three to one: 3/4 ln(4/3) + 1/4 ln 4, the entropy of 3/4
    assert loss_of(log(3), 0.75) == pytest.approx(0.75 * log(4 / 3) + 0.25 * log(4))


def test_a_margin_asks_the_better_side_to_lead_by_it():
    assert loss_of(log(3), 1, margin=log(3)) == pytest.approx(log(2))
    assert loss_of(0, 1, margin=log(3)) == pytest.approx(log(4))
    assert loss_of(0, 0.5, margin=log(3)) == pytest.approx(log(4))


@pytest.mark.parametrize(("p", "margin", "best"), [(0.75, 0, log(3)), (0.5, 0, 0), (0.5, 2.0, 0)])
def test_where_the_loss_is_least(p: float, margin: float, best: float):
    delta = tensor(best, dtype=torch.double, requires_grad=True)
    pair_losses(delta, tensor(p), tensor(margin)).backward()
    assert delta.grad.item() == pytest.approx(0, abs=1e-7)
    assert loss_of(best, p, margin) < min(
        loss_of(best - 0.1, p, margin), loss_of(best + 0.1, p, margin)
    )


@given(DELTAS, SHARES, MARGINS)
def test_chosen_and_rejected_may_change_places(delta: float, p: float, margin: float):
    swapped = pair_losses(
        tensor(-delta).double(), 1 - tensor(p).double(), tensor(margin).double()
    ).item()
    own = pair_losses(tensor(delta).double(), tensor(p).double(), tensor(margin).double()).item()
    assert own == pytest.approx(swapped)
    assert own >= 0


def test_hard_labels_are_trl_loss():
    delta, margin = torch.randn(9), torch.rand(9)
    ours = preference_loss(delta, torch.ones(9), margin, torch.ones(9), total=9)
    theirs = -torch.nn.functional.logsigmoid(delta - margin).mean()
    assert torch.equal(ours, theirs) or torch.allclose(ours, theirs, rtol=1e-6, atol=0)


@given(st.lists(st.tuples(DELTAS, SHARES, st.floats(0.1, 3)), min_size=1, max_size=8), DELTAS)
def test_a_row_of_weight_0_might_as_well_not_be_there(rows, absent: float):
    delta, p, weight = (tensor(column) for column in zip(*rows, strict=True))
    margin = torch.zeros(len(rows))
    without = preference_loss(delta, p, margin, weight)
    beside = [torch.cat([one, tensor([extra])]) for one, extra in
              ((delta, absent), (p, 0.3), (margin, 1.0), (weight, 0.0))]  # fmt: skip
    assert preference_loss(*beside).item() == pytest.approx(without.item(), rel=1e-5, abs=1e-6)


def test_a_weight_counts_alone_in_its_batch_when_the_pairs_are_counted():
    losses, weight = tensor([2.0]), tensor([3.0])
    assert weighted_mean(losses, weight).item() == 2.0
    assert weighted_mean(losses, weight, total=1).item() == 6.0
    assert weighted_mean(losses, tensor([0.0])).item() == 0.0


def test_a_missing_label_costs_nothing_and_moves_nothing():
    delta = tensor([[log(3), 5.0], [0.0, 0.0]], requires_grad=True)
    p_chosen = tensor([[1.0, nan], [nan, nan]])
    losses = row_losses(delta, p_chosen, torch.zeros(2))
    assert losses.tolist() == pytest.approx([log(4 / 3), 0.0])
    losses.sum().backward()
    assert delta.grad[0, 0].item() == pytest.approx(-0.25)  # s(ln 3) - 1
    assert delta.grad.flatten()[1:].tolist() == [0.0, 0.0, 0.0]


def test_a_row_is_the_mean_of_the_criteria_it_has():
    delta = tensor([[log(3), 0.0]])
    both = row_losses(delta, tensor([[1.0, 0.5]]), torch.zeros(1)).item()
    assert both == pytest.approx((log(4 / 3) + log(2)) / 2)


def test_centring_draws_sums_towards_0():
    ones = torch.ones(2)
    assert centring_loss(tensor([1.0, 2.0]), tensor([1.0, -2.0]), ones, 2).item() == 2.0
    heads = centring_loss(tensor([[1.0, 3.0]]), tensor([[1.0, 1.0]]), torch.ones(1), 1)
    assert heads.item() == (4 + 16) / 2
