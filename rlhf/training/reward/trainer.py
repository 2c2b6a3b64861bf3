"""TRL's RewardTrainer with soft labels, weights, criteria, grouped batches and an ensemble."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import RewardTrainer

from rlhf.models.reward_ensemble import active_member, keep_trainable, members_of, weights_of
from rlhf.models.reward_spec import DEFAULT_HEAD
from rlhf.models.trl_compat import note_batch_metric
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.preferences.batches import LABEL_COLUMNS, PairCollator
from rlhf.training.preferences.grouping import GroupedTraining, RowOrigins
from rlhf.training.reward.losses import centring_loss, preference_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRows(RowOrigins):
    """What the trainer knows of its rows and heads beside the tokens and labels.

    `heads` as in RewardSpec. `bagging_seed` draws each member's weights.
    """

    heads: Mapping[str, float] = field(default_factory=lambda: {DEFAULT_HEAD: 1.0})
    bagging_seed: int | None = None


class MemberClipping(TrainerCallback):  # type: ignore[misc]
    """Clips each member's gradients by their own norm: clipped together, a member would learn
    less for what the others' gradients are like, and would not be what it is when trained alone.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for member in members_of(kwargs["model"]):
            clip_grad_norm_(weights_of(kwargs["model"], member), self.max_norm)


class GuardedRewardTrainer(FiniteLoss, GroupedTraining, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer that stops at a NaN and knows more kinds of labels.

    Rows with nothing but ids have TRL's own loss. Rows with labels (see `LABEL_COLUMNS`) have
    that of `losses`, and the same metrics beside it. A model with several members trains each
    in its turn on every batch.
    """

    def __init__(self, *args: Any, rows: TrainedRows | None = None, **kwargs: Any) -> None:
        tokenizer = kwargs["processing_class"]
        kwargs.setdefault("data_collator", PairCollator(pad_token_id=tokenizer.pad_token_id))
        super().__init__(*args, **kwargs)
        self.rows = rows or TrainedRows()
        self.row_places = self.rows.places
        self.member = 0
        self.bags: Tensor | None = None  # [K, N] weights of the training rows for each member

    @property
    def members(self) -> list[str]:
        """The adapters that are trained; ["default"] without an ensemble."""
        return members_of(self.model)

    def draw_bags(self) -> None:
        """Draw how often each member sees each row: Poisson(1), the limit of a bootstrap draw.

        Oza and Russell (2001), "Online Bagging and Boosting". Drawn once from seed, member and
        row, so that every epoch and every resumed run has the same bags.
        """
        assert self.rows.bagging_seed is not None
        draws = [
            np.random.default_rng([self.rows.bagging_seed, index]).poisson(
                1.0, size=len(self.train_dataset)
            )
            for index in range(len(self.members))
        ]
        self.bags = torch.tensor(np.stack(draws), dtype=torch.float)

    def clip_each_member(self) -> None:
        """Clip the members one by one; the log's grad_norm stays that of all, before clipping.

        DeepSpeed keeps gradients to itself and clips them together.
        """
        if self.args.max_grad_norm > 0 and not self.is_deepspeed_enabled:
            self.add_callback(MemberClipping(self.args.max_grad_norm))
            self.args.max_grad_norm = 0.0  # transformers' own, of all members together

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The optimizer over every member: loading a checkpoint freezes all but one."""
        keep_trainable(self.model)
        return super().create_optimizer(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The mean loss over the members, each forward and backward by itself.

        Checkpointed activations are computed again in the backward pass, with the member that
        is active then; one backward for all would give wrong gradients without a word.
        """
        losses = []
        for index, name in enumerate(self.members):
            self.member = index
            with active_member(self.model, name):
                losses.append(super().training_step(model, dict(inputs), *args, **kwargs))
        return torch.stack(losses).mean()

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The mean loss over the members, and what the last one gave."""
        losses = []
        for index, name in enumerate(self.members):
            self.member = index
            with active_member(self.model, name):
                loss, *rest = super().prediction_step(model, dict(inputs), *args, **kwargs)
            losses.append(loss)
        return (torch.stack(losses).mean(), *rest)

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one member on one batch, and its metrics noted for the log."""
        labels = {name: inputs.pop(name) for name in LABEL_COLUMNS if name in inputs}
        row = labels.pop("row", None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if self.bags is not None and self.model.training:
            drawn = self.bags[self.member, row.cpu()].to(loss.device)  # [P]
            labels["weight"] = drawn * labels.get("weight", 1.0)
        uneven = self.mean_batch if self.model.training else None
        if labels or uneven:
            loss = self._own_loss(outputs.logits, labels, uneven)
        return (loss, outputs) if return_outputs else loss

    def _own_loss(
        self, scores: Tensor, labels: Mapping[str, Tensor], num_pairs: float | None = None
    ) -> Tensor:
        """The loss of labelled pairs whose heads gave `scores` [2P, H], chosen rows first.

        Summed and divided by `num_pairs`, P unless given.
        """
        chosen, rejected = scores.float().chunk(2)  # [P, H]
        num_pairs = num_pairs or len(chosen)
        ones = chosen.new_ones(len(chosen))
        p_chosen = labels.get("p_chosen", torch.ones_like(chosen))
        weight = labels.get("weight", ones)
        margin = labels.get("margin", torch.zeros_like(ones))
        self._note_accuracy((chosen - rejected).detach(), p_chosen)
        loss = preference_loss(chosen - rejected, p_chosen, margin, weight, total=num_pairs)
        if self.args.center_rewards_coefficient is not None:
            centring = centring_loss(chosen, rejected, weight, total=num_pairs)
            loss = loss + self.args.center_rewards_coefficient * centring
        return loss

    def _note_accuracy(self, delta: Tensor, p_chosen: Tensor) -> None:
        """Log how often the decided pairs come out right: by the score, and by each criterion."""
        heads = delta.new_tensor(list(self.rows.heads.values()))  # [H]
        there = torch.where(p_chosen.isnan(), 0.5, p_chosen) - 0.5  # [P, H], 0: undecided
        columns = {"accuracy": ((delta * heads).sum(1), (there * heads).sum(1))}
        if len(heads) > 1:
            for index, name in enumerate(self.rows.heads):
                columns[f"accuracy_{name}"] = (delta[:, index], there[:, index])
        for name, (gap, favours) in columns.items():
            right = ((gap * favours > 0) & (favours != 0)).sum()
            counts = torch.stack([right, (favours != 0).sum()])[None]  # [1, 2]
            num_right, num_decided = self.accelerator.gather(counts).sum(0).tolist()
            value = num_right / num_decided if num_decided else None
            note_batch_metric(self, name, value, instead=name == "accuracy")
