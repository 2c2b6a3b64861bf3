"""Rankings learnt from as whole orders, by the model of Plackett and Luce.

A ranking is put together from its pairs (rows that share a `group`) rather than read from a store:
pairs are what every source has, and in them the judgements of several raters are summed up already.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor

from rlhf.data.columns import Columns
from rlhf.data.formats import Pair
from rlhf.data.losses import DataLosses
from rlhf.training.preferences.labels import is_tie, with_mean_1

RANKING_KEYS = ("ranking", "level")
"""Of a batch's completions: which ranking of the batch each is of, and its place in it from 0."""

CONTRADICTORY = "rankings whose pairs contradict each other, learnt from as pairs"
OPEN = "rankings whose pairs leave the order open, learnt from as pairs"


def ranking_losses(rewards: Tensor, ranking: Tensor, level: Tensor) -> Tensor:
    """The negative log-likelihood [R] of each ranking of a batch, in nats.

    `rewards` [N] are beta * (log policy - log reference) of the completions of R rankings,
    `ranking` [N] says which each is of, from 0, and `level` [N] its place there, 0 the best.

    Plackett (1975) and Luce (1959): the best is drawn from all with probability softmax(reward),
    the next from those left, and so on, so an order costs the sum over its places k of

        log sum_{j from k on} e^{r_j} - r_k

    With r = beta * log-ratio the partition functions of DPO cancel in each place, as they do of
    pairs (Rafailov et al. 2023, arXiv 2305.18290, appendix A.3). Of two completions it is
    -log s(r_1 - r_2): DPO itself.

    Completions on one level are tied: which came first is not known. By Efron (1977) each of d
    tied ones leaves a d-th of their common weight behind: the l-th draw, from l = 0, costs

        log( sum_{worse} e^r + (1 - l / d) sum_{tied} e^r )

    It treats the tied alike, needs no sum over their d! orders, and where they are few among many
    comes close to it. Two tied completions alone cost l(x) + l(-x) - log 2: least at equal
    rewards, and there log 2 as a tied pair is.
    """
    number = int(ranking.max()) + 1
    losses = [
        _cost_of_order(rewards[ranking == index], level[ranking == index])
        for index in range(number)
    ]
    return torch.stack(losses)


def _cost_of_order(rewards: Tensor, level: Tensor) -> Tensor:
    cost = rewards.new_zeros(())
    for place in level.unique(sorted=True).tolist():
        tied, worse = rewards[level == place], rewards[level > place]
        if len(tied) == len(rewards[level >= place]) == 1:
            break  # the last one is drawn with certainty
        for index in range(len(tied)):
            left = tied + log(1 - index / len(tied))
            cost = cost + torch.cat([left, worse]).logsumexp(0)
        cost = cost - tied.sum()
    return cost


@dataclass
class RankingCollator:
    """Batches of rankings: every completion of a ranking with its prompt, in one batch.

    Beside `input_ids`, `attention_mask` and `completion_mask` [N, L] of the N completions:
    `RANKING_KEYS` [N], and `row` and `weight` [R] of the R rankings, where rows have them.
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of `examples`; rows i and i + N/2 are of one ranking as far as that goes, so
        that they can share their prompt.
        """
        placed = [
            (index, completion, level)
            for index, example in enumerate(examples)
            for completion, level in zip(example["completion_ids"], example["levels"], strict=True)
        ]
        ordered = _halves(placed)
        ids = [examples[index]["prompt_ids"] + completion for index, completion, _ in ordered]
        masks = [
            [0] * len(examples[index]["prompt_ids"]) + [1] * len(completion)
            for index, completion, _ in ordered
        ]
        batch = {}
        for name in ("row", "weight"):
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch | {
            "input_ids": _padded(ids, self.pad_token_id),
            "attention_mask": _padded([[1] * len(row) for row in ids], 0),
            "completion_mask": _padded(masks, 0),
            "ranking": torch.tensor([index for index, _, _ in ordered]),
            "level": torch.tensor([level for _, _, level in ordered]),
        }


def ranking_metrics(
    rewards: Tensor, logps: Tensor, ranking: Tensor, level: Tensor
) -> dict[str, Tensor]:
    """TRL's metrics of pairs, of the best and the worst of each ranking: sums and counts [2].

    Accuracy is of the pairs in it that are decided. All arguments are [N], without gradient.
    """
    sums: dict[str, list[Tensor]] = {}
    for index in range(int(ranking.max()) + 1):
        here = ranking == index
        reward, logp, place = rewards[here], logps[here], level[here]
        best, worst = place == place.min(), place == place.max()
        right = (reward[:, None] > reward[None]) & (place[:, None] < place[None])
        decided = (place[:, None] < place[None]).sum()
        one = torch.ones_like(decided)
        found = {
            "rewards/chosen": (reward[best].mean(), one),
            "rewards/rejected": (reward[worst].mean(), one),
            "rewards/margins": (reward[best].mean() - reward[worst].mean(), one),
            "logps/chosen": (logp[best].mean(), one),
            "logps/rejected": (logp[worst].mean(), one),
            "rewards/accuracies": (right.sum(), decided),
        }
        for name, (total, count) in found.items():
            sums.setdefault(name, []).append(torch.stack([total.float(), count.float()]))
    return {name: torch.stack(each).sum(0) for name, each in sums.items()}


def ranking_rows(rows: Columns, pairs: Sequence[Pair], losses: DataLosses) -> Columns:
    """One row for each ranking, from the tokenised rows of its pairs; the first pair's place.

    A row has `prompt_ids`, `completion_ids` best first, their `levels`, and the best and the worst
    as `chosen_ids` and `rejected_ids`; `weight` is the mean of its pairs', 1 in the mean over all.
    A pair that is of no ranking is one of two. Where the pairs of a group contradict each other,
    or leave the order open, each stays a ranking of two; noted.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        alone = pair.group is None or pair.rejected_prompt is not None
        key = ("row", index) if alone else ("group", pair.group, *row["prompt_ids"])
        groups.setdefault(key, []).append(index)
    made: Columns = []
    for members in groups.values():
        made += _rankings_of([(rows[index], pairs[index]) for index in members], losses)
    weights = [row.pop("weight") for row in made]
    if len(set(weights)) > 1:
        for row, weight in zip(made, with_mean_1(weights), strict=True):
            row["weight"] = weight
    return [row | {"row": index} for index, row in enumerate(made)]


def _rankings_of(group: Sequence[tuple[Mapping[str, Any], Pair]], losses: DataLosses) -> Columns:
    """The one ranking of a group of pairs, or one of two completions for each pair."""
    completions: dict[tuple[int, ...], int] = {}
    better, tied = [], []
    for row, pair in group:
        one, other = (
            completions.setdefault(tuple(row[side]), len(completions))
            for side in ("chosen_ids", "rejected_ids")
        )
        (tied if is_tie(pair) else better).append((one, other))
    order = order_of(len(completions), better, tied)
    if isinstance(order, str):
        losses.note(order, place=group[0][1].place)
        return [ranking for each in group for ranking in _rankings_of([each], losses)]
    ids = [list(completion) for completion in completions]
    weights = [1.0 if pair.weight is None else pair.weight for _, pair in group]
    ranked = [(ids[index], place) for place, level in enumerate(order) for index in level]
    return [
        {
            "prompt_ids": group[0][0]["prompt_ids"],
            "chosen_ids": ranked[0][0],
            "rejected_ids": ranked[-1][0],
            "completion_ids": [completion for completion, _ in ranked],
            "levels": [level for _, level in ranked],
            "weight": sum(weights) / len(weights),
            "place": group[0][1].place,
            "group": None,
        }
    ]


def order_of(
    number: int, better: Iterable[tuple[int, int]], tied: Iterable[tuple[int, int]]
) -> list[list[int]] | str:
    """The one order of things 0 to `number` - 1 that pairs (better, worse) and ties allow, best
    first, tied ones together; `CONTRADICTORY` or `OPEN` where there is none, or more than one.
    """
    level_of = list(range(number))  # the smallest thing that each is tied with, through others too
    for one, other in tied:
        low, high = sorted((level_of[one], level_of[other]))
        level_of = [low if level == high else level for level in level_of]
    beaten_by: dict[int, set[int]] = {level: set() for level in level_of}
    for one, other in better:
        beaten_by[level_of[other]].add(level_of[one])
    order: list[list[int]] = []
    while beaten_by:
        unbeaten = [level for level, others in beaten_by.items() if not others]
        if len(unbeaten) != 1:
            return OPEN if unbeaten else CONTRADICTORY
        best = unbeaten[0]
        order.append([index for index in range(number) if level_of[index] == best])
        del beaten_by[best]
        for others in beaten_by.values():
            others.discard(best)
    return order


def _halves(placed: Sequence[tuple[int, list[int], int]]) -> list[tuple[int, list[int], int]]:
    """The completions with two of the same ranking half a batch apart, as far as that goes."""
    by_ranking: dict[int, list[tuple[int, list[int], int]]] = {}
    for one in placed:
        by_ranking.setdefault(one[0], []).append(one)
    first, second, single = [], [], []
    for members in by_ranking.values():
        half = len(members) // 2
        first += members[:half]
        second += members[half : 2 * half]
        single += members[2 * half :]
    middle = (len(single) + 1) // 2
    return [*first, *single[:middle], *second, *single[middle:]]


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """[N, L], padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
