"""Which prompts a round is of and how many optimizer steps it takes: known before it is sampled.

So one schedule of the learning rate spans all rounds, whatever number of pairs each of them gives.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from rlhf.errors import DataError
from rlhf.models.generation import batch_seed
from rlhf.training.ppo.sampler import PromptSampler
from rlhf.training.preferences.batches import even_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """The rounds of a run: `size` of `num_prompts` prompts each, counted from 0 here.

    A process has `num_batches` micro-batches a pass over a round's pairs and goes over them
    `num_passes` times; `num_accumulated` of them make an optimizer step.
    """

    num_rounds: int
    num_prompts: int
    size: int
    num_passes: int
    batch_size: int
    num_accumulated: int
    num_processes: int
    seed: int

    @property
    def num_batches(self) -> int:
        """Micro-batches of a process in one pass, as if every prompt gave a pair."""
        return ceil(self.size / (self.batch_size * self.num_processes))

    @property
    def num_steps(self) -> int:
        """Optimizer steps of a round."""
        return ceil(self.num_batches * self.num_passes / self.num_accumulated)

    def prompts_of(self, number: int) -> list[int]:
        """The places of the prompts of round `number`.

        Every prompt comes once before any comes again; the order follows from the seed.
        """
        sampler = PromptSampler(self.num_prompts, self.seed)
        epoch, position = divmod(number * self.size, self.num_prompts)
        sampler.load_state_dict({"epoch": epoch, "position": position})
        return sampler.take(self.size)

    def seed_of(self, number: int) -> int:
        """What a round's samples are drawn with; -1 for the held-out prompts."""
        return batch_seed(self.seed, number)

    def batches_of(self, number: int, num_pairs: int, process_index: int) -> list[list[int]]:
        """One process's micro-batches of round `number`: places of its `num_pairs` pairs.

        Each pass has another order, drawn from (seed, round, pass), in parts as long as each
        other. Where there are fewer pairs than micro-batches (prompts were ties), pairs from the
        beginning fill the rest.
        """
        assert num_pairs > 0, "a round without pairs has no micro-batches"
        found: list[list[int]] = []
        total = self.num_batches * self.num_processes
        for each in range(self.num_passes):
            seed = batch_seed(self.seed, number) + each
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(num_pairs, generator=generator).tolist()
            filled = (order * ceil(total / num_pairs))[: max(total, num_pairs)]
            found += even_parts(filled, total)[process_index :: self.num_processes]
        return found

    def mean_batch(self, num_pairs: int) -> float | None:
        """Mean pairs of a micro-batch where their sizes differ: a loss divided by it counts every
        pair the same. None where all are of one size.
        """
        total = self.num_batches * self.num_processes
        return num_pairs / total if num_pairs > total and num_pairs % total else None

    def num_repeated(self, num_pairs: int) -> int:
        """Pairs that one pass sees twice, so that every micro-batch has one."""
        total = self.num_batches * self.num_processes
        return max(0, total - num_pairs) if num_pairs else 0


def plan_rounds(stage: Any, training: Any, num_prompts: int) -> RoundPlan:
    """The plan for so many prompts.

    DataError when there are fewer than rounds, than one round takes, or than processes.
    """
    size = stage.prompts_per_round or ceil(num_prompts / stage.num_rounds)
    if num_prompts < stage.num_rounds:
        raise DataError(
            f"{stage.dataset_name}: {num_prompts} prompts for {stage.num_rounds} rounds; give "
            "more prompts, or lower --num_rounds"
        )
    if size > num_prompts:
        raise DataError(
            f"{stage.dataset_name}: {num_prompts} prompts, and --prompts_per_round is {size}; "
            "give more prompts, or lower it"
        )
    if size < training.world_size:
        raise DataError(
            f"{stage.dataset_name}: {size} prompts a round for {training.world_size} processes; "
            "lower --num_rounds or raise --prompts_per_round"
        )
    return RoundPlan(
        num_rounds=stage.num_rounds,
        num_prompts=num_prompts,
        size=size,
        num_passes=int(training.num_train_epochs),
        batch_size=training.per_device_train_batch_size,
        num_accumulated=training.gradient_accumulation_steps,
        num_processes=training.world_size,
        seed=training.seed,
    )
