"""Plackett-Luce: the loss by hand, rankings out of pairs, and runs of the stage."""

from itertools import permutations
from math import exp, log

import pytest
import torch

from rlhf.data.losses import DataLosses
from rlhf.training.dpo.rankings import (
    CONTRADICTORY,
    OPEN,
    RankingCollator,
    order_of,
    ranking_losses,
    ranking_metrics,
    ranking_rows,
)
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.dpo.conftest import batch_of

LUCE = ("--ranking_loss", "plackett_luce")
WORDS = ("best", "good", "poor", "worst")


def ranking_pairs(order: str, group: str = "g", **columns) -> list[dict]:
    """The pairs of `a>b=c`: letters are completions, best first, = is a tie."""
    levels = [level.split("=") for level in order.split(">")]
    place = {name: index for index, level in enumerate(levels) for name in level}
    names = sorted(place, key=lambda name: place[name])
    return [
        {
            "prompt": f"question {group}", "chosen": f"answer {one}", "rejected": f"answer {other}",
            "group": group, "p_chosen": 0.5 if place[one] == place[other] else 0.9, **columns,
        }
        for index, one in enumerate(names) for other in names[index + 1 :]
    ]  # fmt: skip


def cost(rewards: list[float], levels: list[int]) -> float:
    values = torch.tensor(rewards, dtype=torch.double)
    zeros = torch.zeros(len(rewards), dtype=torch.long)
    return ranking_losses(values, zeros, torch.tensor(levels)).item()


def test_an_order_of_three_by_hand():
    # weights 4, 2, 1: drawn first with 4/7, then second with 2/3
    rewards = [log(4), log(2), 0.0]
    assert cost(rewards, [0, 1, 2]) == pytest.approx(log(7 / 4) + log(3 / 2))
    assert cost(rewards, [2, 1, 0]) == pytest.approx(log(7) + log(6 / 2))
    assert cost([0.0] * 4, [0, 1, 2, 3]) == pytest.approx(log(24))  # each order alike
    # the probabilities of all orders sum to one
    orders = [exp(-cost(rewards, list(order))) for order in permutations(range(3))]
    assert sum(orders) == pytest.approx(1)


def test_two_completions_are_dpo():
    for gap in (-3.0, 0.0, log(3)):
        assert cost([gap, 0.0], [0, 1]) == pytest.approx(log(1 + exp(-gap)))


def test_ties_by_efron():
    # weights 4 and 2 tied above 1: (4 + 2 + 1), then half of the tied is left: (2 + 1 + 1)
    by_hand = log(7) + log(4) - log(4) - log(2)
    assert cost([log(4), log(2), 0.0], [0, 0, 1]) == pytest.approx(by_hand)
    assert cost([log(2), 0.0, log(4)], [0, 1, 0]) == pytest.approx(by_hand)
    # a tie at the end: 4 of 7, then 3, then half of 3
    assert cost([log(4), log(2), 0.0], [0, 1, 1]) == pytest.approx(
        log(7 / 4) + log(3) + log(1.5) - log(2)
    )
    x = torch.tensor([0.7, 0.7], dtype=torch.double, requires_grad=True)
    zeros = torch.zeros(2, dtype=torch.long)
    loss = ranking_losses(x, zeros, zeros).sum()
    loss.backward()
    assert loss.item() == pytest.approx(log(2))
    assert x.grad.tolist() == pytest.approx([0, 0])  # tied is least at equal rewards
    assert cost([1.0, 0.0], [0, 0]) > log(2)


def test_a_batch_is_its_rankings_whatever_their_order():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        rewards = torch.randn(7, generator=generator)
        ranking = torch.tensor([0, 0, 0, 1, 1, 1, 1])
        level = torch.tensor([0, 1, 1, 0, 0, 1, 2])
        shuffled = torch.randperm(7, generator=generator)
        one = ranking_losses(rewards, ranking, level)
        other = ranking_losses(rewards[shuffled], ranking[shuffled], level[shuffled])
        assert torch.allclose(one, other)
        assert torch.allclose(ranking_losses(rewards + 3, ranking, level), one)  # differences only
        assert one[1].item() == pytest.approx(cost(rewards[3:].tolist(), [0, 0, 1, 2]), abs=1e-5)


@pytest.mark.parametrize(
    ("better", "tied", "order"),
    [
        ([(0, 1), (1, 2), (0, 2)], [], [[0], [1], [2]]),
        ([(2, 0), (0, 1)], [], [[2], [0], [1]]),  # a chain is enough
        ([(0, 1)], [(1, 2)], [[0], [1, 2]]),
        ([(0, 2), (1, 2)], [(0, 1)], [[0, 1], [2]]),
        ([(0, 1), (0, 2)], [], OPEN),
        ([(0, 1), (1, 2), (2, 0)], [], CONTRADICTORY),
        ([(0, 1)], [(0, 2), (1, 2)], CONTRADICTORY),
    ],
)
def test_orders_that_pairs_determine(better, tied, order):
    assert order_of(3, better, tied) == order


def test_every_order_is_found_again_from_its_pairs():
    for order in permutations(range(4)):
        place = {thing: index for index, thing in enumerate(order)}
        better = [(a, b) for a in order for b in order if place[a] < place[b]]
        assert order_of(4, better, []) == [[thing] for thing in order]


def tokenised(rows: list[dict]):
    from rlhf.data.formats import Pair

    pairs = [Pair(**row, place=f"d:{index + 1}") for index, row in enumerate(rows)]
    ids = {f"answer {name}": [10 + index, 2] for index, name in enumerate("abcdef")}
    columns = [
        {"prompt_ids": [1], "chosen_ids": ids[pair.chosen], "rejected_ids": ids[pair.rejected]}
        for pair in pairs
    ]
    return columns, pairs


def test_rankings_out_of_pairs():
    pair = {"prompt": "q", "chosen": "answer e", "rejected": "answer f"}
    rows = [*ranking_pairs("b>a=c", weight=3.0), pair, *ranking_pairs("d>e", "h", weight=0.5), pair]
    losses = DataLosses()
    first, single, two, again = ranking_rows(*tokenised(rows), losses)
    assert (again["place"], len(again["completion_ids"])) == ("d:6", 2)  # no ranking with "d:4"
    assert first["completion_ids"] == [[11, 2], [10, 2], [12, 2]]
    assert (first["levels"], first["place"]) == ([0, 1, 1], "d:1")
    assert (first["chosen_ids"], first["rejected_ids"]) == ([11, 2], [12, 2])
    assert (single["completion_ids"], single["levels"]) == ([[14, 2], [15, 2]], [0, 1])
    assert (single["place"], two["place"]) == ("d:4", "d:5")
    weights = [row["weight"] * 5.5 / 4 for row in (first, single, two, again)]
    assert weights == pytest.approx([3, 1, 0.5, 1])
    assert [row["row"] for row in (first, single, two)] == [0, 1, 2]
    assert not losses.noted
    assert "weight" not in ranking_rows(*tokenised(ranking_pairs("a>b")), losses)[0]


def test_what_gives_no_order_stays_pairs_and_is_counted():
    circle = [*ranking_pairs("a>b"), *ranking_pairs("b>c"), *ranking_pairs("c>a")]
    fork = [*ranking_pairs("a>b", "h"), *ranking_pairs("a>c", "h")]
    losses = DataLosses()
    rows = ranking_rows(*tokenised([*circle, *fork]), losses)
    assert [len(row["completion_ids"]) for row in rows] == [2] * 5
    assert losses.noted == {CONTRADICTORY: 1, OPEN: 1}
    assert losses.examples == {CONTRADICTORY: ["d:1"], OPEN: ["d:4"]}


def test_batches_hold_whole_rankings_with_partners_half_a_batch_apart():
    rows = ranking_rows(*tokenised([*ranking_pairs("a>b>c>d"), *ranking_pairs("e>f", "h")]),
                        DataLosses())  # fmt: skip
    batch = RankingCollator(pad_token_id=0)([row | {"prompt_ids": [1, 7]} for row in rows])
    assert batch["ranking"].tolist() == [0, 0, 1, 0, 0, 1]
    assert batch["level"].tolist() == [0, 1, 0, 2, 3, 1]
    assert batch["input_ids"].tolist()[3] == [1, 7, 12, 2]
    assert batch["completion_mask"].tolist()[3] == [0, 0, 1, 1]
    assert batch["row"].tolist() == [0, 1]
    odd = RankingCollator(0)(ranking_rows(*tokenised(ranking_pairs("a>b>c")), DataLosses()))
    assert sorted(odd["level"].tolist()) == [0, 1, 2]


def test_metrics_by_hand():
    rewards, logps = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([-1.0, -2.0, -3.0, -4.0])
    found = ranking_metrics(rewards, logps, torch.zeros(4, dtype=torch.long),
                            torch.tensor([0, 1, 2, 2]))  # fmt: skip
    means = {name: (total / count).item() for name, (total, count) in found.items()}
    assert means == pytest.approx({
        "rewards/chosen": 3, "rewards/rejected": 1, "rewards/margins": 2,
        "logps/chosen": -1, "logps/rejected": -3.5, "rewards/accuracies": 4 / 5,
    })  # fmt: skip


def test_rankings_of_two_are_dpo_in_training_too(trainer_for, pairs):
    """The same loss, gradients and metrics from either path, on the same rows."""

    def step(*options: str):
        trainer = trainer_for(pairs, *options)
        loss = trainer.compute_loss(trainer.model, batch_of(trainer, [0, 4, 9]))
        loss.backward()
        grads = [w.grad for w in trainer.model.parameters() if w.grad is not None]
        return loss, grads, {k: v[0] for k, v in trainer._metrics["train"].items()}

    loss, grads, metrics = step(*LUCE)
    plain_loss, plain_grads, plain_metrics = step()
    assert loss.item() == pytest.approx(plain_loss.item(), abs=1e-6)
    assert len(grads) == len(plain_grads) > 0
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(grads, plain_grads, strict=True))
    assert set(metrics) <= set(plain_metrics)
    assert metrics == pytest.approx({name: plain_metrics[name] for name in metrics}, abs=1e-5)


def test_a_policy_learns_whole_rankings(run_stage, tmp_path, capsys):
    rows = [pair for index in range(6) for pair in ranking_pairs("a>b=c>d", f"g{index}")]
    rows += ranking_pairs("a>b", "two") + ranking_pairs("a>b", "h") + ranking_pairs("a>c", "h")
    data = write_rows(tmp_path / "ranked.jsonl", rows)
    options = (*LUCE, "--use_peft", "--learning_rate", "1e-2", "--max_steps", "12",
               "--eval_fraction", "0.3")  # fmt: skip
    folder = run_stage("dpo", data, *options)
    log_rows = [row for row in read_json(folder / "log.json") if "loss" in row]
    assert log_rows[-1]["rewards/accuracies"] == 1
    assert log_rows[-1]["loss"] < log_rows[0]["loss"] / 2
    assert log_rows[-1]["num_tokens"] > log_rows[0]["num_tokens"] > 0
    metrics = metrics_of(folder)
    assert metrics["num_train"] + metrics["num_eval"] == 6 + 1 + 2
    assert metrics["eval_rewards/accuracies"] == 1
    said = capsys.readouterr().err
    assert f"1 noted: {OPEN}" in said
    assert f"{metrics['num_train']} rankings of 2 to 4 completions (Plackett-Luce)" in said
