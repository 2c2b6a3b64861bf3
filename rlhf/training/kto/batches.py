"""The tensors of a batch of labelled completions, and the mismatched pairs beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhf.models.trl_compat import UnpairedCollator


@dataclass
class MismatchingCollator(UnpairedCollator):  # type: ignore[misc]
    """TRL's collator, with the mismatched pairs of KTO's KL made in the batch itself.

    KTO's reference point is the KL of policy and reference, estimated from the batch's own
    completions after prompts that are not theirs (Ethayarajh et al. 2024, arXiv 2402.01306).
    TRL rotates completions by one row when it prepares the data, hence in one order for all
    epochs, and whatever prompt the neighbour is of: two completions of one prompt would count as
    mismatched. Here the batch is rotated by the fewest rows that give every prompt a foreign
    completion; where no rotation does, the rows left over take that in their `KL_completion_ids`.

    With `fixed` all rows take that one, as reference log-probabilities computed beforehand need
    it; without `mismatches` there are none. Adds `weight` [B] and `row` [B], each where the rows
    have that column.
    """

    mismatches: bool = True
    fixed: bool = False

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples`."""
        rows = [dict(example) for example in examples]
        if not self.mismatches:
            for row in rows:
                row.pop("KL_completion_ids", None)
        elif not self.fixed:
            for row, other in zip(rows, foreign_rows(examples), strict=True):
                if other is not None:
                    row["KL_completion_ids"] = examples[other]["completion_ids"]
        batch: dict[str, Any] = super().torch_call(rows)
        if "weight" in rows[0]:
            weights = [row["weight"] for row in rows]
            batch["weight"] = torch.tensor(weights, dtype=torch.float)
        if "row" in rows[0]:
            batch["row"] = torch.tensor([row["row"] for row in rows])
        return batch


def foreign_rows(examples: Sequence[dict[str, Any]]) -> list[int | None]:
    """For each row of a batch the row whose completion follows its prompt instead of its own.

    Every completion is taken once where some rotation of the batch gives each prompt one of
    another prompt; else None where the best rotation leaves a row with its own prompt's.
    """
    prompts = [example["prompt_ids"] for example in examples]
    count = len(prompts)

    def rotated(by: int) -> list[int | None]:
        others = [(index - by) % count for index in range(count)]
        return [
            other if prompts[other] != prompts[index] else None
            for index, other in enumerate(others)
        ]

    # min takes the first of equals: TRL's rotation by one where the prompts all differ
    return min((rotated(by) for by in range(1, count)), key=_num_open, default=[None])


def _num_open(rows: list[int | None]) -> int:
    return sum(row is None for row in rows)
