"""TRL's DPOTrainer on our rows, with labels of every kind, and what it is made with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import get_peft_config

from rlhf.data.columns import Columns
from rlhf.data.tokenization import Renderer
from rlhf.models.trl_compat import (
    DPOCollator,
    TokenizedDPOTrainer,
    count_tokens,
    note_batch_metric,
)
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.dpo.heldout_samples import SampledEvaluation, heldout_samples
from rlhf.training.dpo.losses import (
    Objective,
    PairLogps,
    pair_logps,
    preference_loss,
    wpo_weights,
)
from rlhf.training.dpo.rankings import (
    RANKING_KEYS,
    RankingCollator,
    ranking_losses,
    ranking_metrics,
)
from rlhf.training.dpo.reference import (
    MovedReference,
    attach_reference,
    is_precomputed,
    reference_model,
)
from rlhf.training.dpo.watch import WatchCallback, watched
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.preferences.batches import LABEL_COLUMNS, label_tensors
from rlhf.training.preferences.grouping import GroupedTraining, RowOrigins, lengths_of
from rlhf.training.preferences.stopping import early_stopping, keep_best
from rlhf.training.stage import callbacks, trainer_arguments

REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's names of the reference's log-probs, where they were computed before."""


@dataclass
class DPOPairCollator(DPOCollator):  # type: ignore[misc]
    """TRL's collator of DPO pairs, with the `LABEL_COLUMNS` of the rows beside its tensors."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples`, chosen rows first."""
        return label_tensors(examples) | super().torch_call(examples)


class Recorder:
    """Stands before a model: the model's forward, whose last output is kept in `output`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.output: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.output = self.model(*args, **kwargs)
        return self.output


class GuardedDPOTrainer(  # type: ignore[misc]
    SampledEvaluation, FiniteLoss, GroupedTraining, TokenizedDPOTrainer
):
    """TRL's DPOTrainer on our tokenised rows, that stops at a NaN and knows more kinds of labels.

    Rows with nothing but ids have TRL's own loss. Rows with labels (see `LABEL_COLUMNS`), and
    batches of unequal size, have that of `losses`, from the same one forward pass; the metrics
    stay TRL's, but for the accuracy, which is of decided pairs.
    """

    def __init__(self, *args: Any, rows: RowOrigins | None = None, **kwargs: Any) -> None:
        tokenizer, arguments = kwargs["processing_class"], kwargs["args"]
        multiple = arguments.pad_to_multiple_of
        collator = DPOPairCollator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=multiple)
        kwargs.setdefault("data_collator", collator)
        super().__init__(*args, **kwargs)
        self.rows = rows or RowOrigins()
        self.row_places = self.rows.places

    @property
    def objective(self) -> Objective:
        """The losses that are trained by, as `losses` reads them."""
        return Objective(
            loss_types=tuple(self.loss_types),
            loss_weights=tuple(self.loss_weights),
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            f_divergence_type=self.f_divergence_type,
            f_alpha_divergence_coef=self.f_alpha_divergence_coef,
            discopop_tau=self.args.discopop_tau,
        )

    def reference_logps(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The reference's log-probs [P] of the chosen and of the rejected completions of a batch.

        From its columns where they were computed before, else by a pass of the reference.
        """
        if REFERENCE_COLUMNS[0] in inputs:
            return inputs[REFERENCE_COLUMNS[0]], inputs[REFERENCE_COLUMNS[1]]
        own = (*LABEL_COLUMNS, *RANKING_KEYS)
        batch = {name: value for name, value in inputs.items() if name not in own}
        model = self.model if self.ref_model is None else self.ref_model
        chosen, rejected = self.compute_ref_log_probs(model, batch)
        return chosen, rejected

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch, and its metrics noted for the log."""
        if RANKING_KEYS[0] in inputs:
            return self._ranking_loss(model, inputs)
        labels = {name: inputs[name] for name in LABEL_COLUMNS if name in inputs}
        labels.pop("row", None)
        batch = {name: value for name, value in inputs.items() if name not in LABEL_COLUMNS}
        uneven = self.mean_batch if self.model.training else None
        if not labels and uneven is None and not self._is_beyond_trl():
            return super().compute_loss(model, batch, return_outputs=return_outputs)
        reference = dict(zip(REFERENCE_COLUMNS, self.reference_logps(batch), strict=True))
        recorder = Recorder(model)
        with self._reference_given():
            super().compute_loss(recorder, batch | reference)
        loss = self._own_loss(recorder.output, batch | reference, labels, uneven)
        return (loss, recorder.output) if return_outputs else loss

    def _is_beyond_trl(self) -> bool:
        """WPO's weights of a hinge loss: TRL's own fails in the backward pass, since it multiplies
        in place what relu keeps.
        """
        return bool(self.use_weighting) and "hinge" in self.loss_types

    @contextmanager
    def _reference_given(self) -> Iterator[None]:
        """Within the block TRL reads the reference's log-probs from the batch."""
        before, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            yield
        finally:
            self.precompute_ref_logps = before

    def _own_loss(
        self,
        output: Any,
        batch: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        num_pairs: float | None,
    ) -> Tensor:
        """The loss of labelled pairs from the policy's forward; their sum over `num_pairs`."""
        mask = batch["completion_mask"][:, 1:]  # [2P, T]
        token_logps = output.log_probs[:, -mask.shape[1] :]  # [2P, T]
        pairs = pair_logps(
            token_logps, mask, *(batch[name] for name in REFERENCE_COLUMNS), self.ld_alpha
        )
        p_chosen = labels["p_chosen"][:, 0] if "p_chosen" in labels else None
        if p_chosen is not None:
            self._note_accuracy(pairs, p_chosen)
        confidence = None
        if self.use_weighting:
            sums = output.log_sum_sq_probs[:, -mask.shape[1] :]
            confidence = wpo_weights(token_logps, sums, mask)
        loss = preference_loss(
            self.objective,
            pairs,
            p_chosen=p_chosen,
            margin=labels.get("margin"),
            weight=labels.get("weight"),
            confidence=confidence,
            total=num_pairs,
        )
        return self._balanced(loss, output)

    def _balanced(self, loss: Tensor, output: Any) -> Tensor:
        """With TRL's share of the loss by which a mixture balances its experts, if it is one."""
        if not self.aux_loss_enabled:
            return loss
        balance: Tensor = self.router_aux_loss_coef * output.aux_loss
        return loss + balance

    def _ranking_loss(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The mean over rankings of what `ranking_losses` says of each, by its weight."""
        ids, mask = inputs["input_ids"], inputs["completion_mask"]  # [N, L]
        output = model(
            input_ids=ids,
            attention_mask=inputs["attention_mask"],
            labels=ids.masked_fill(mask == 0, -100),
            use_cache=False,
            fused_lm_head=True,
            **({"output_router_logits": True} if self.aux_loss_enabled else {}),
        )
        logps = output.log_probs[:, 1 - ids.shape[1] :].sum(1)  # [N]
        rewards = self.beta * (logps - torch.cat(self.reference_logps(inputs)))  # [N]
        places = inputs["ranking"], inputs["level"]
        found = ranking_metrics(rewards.detach(), logps.detach(), *places)
        for name, sums in found.items():
            total, count = self.accelerator.gather(sums[None]).sum(0).tolist()
            note_batch_metric(self, name, total / count if count else None, instead=False)
        count_tokens(self, inputs["attention_mask"])
        losses = ranking_losses(rewards, *places)  # [R]
        loss = (losses * inputs.get("weight", 1.0)).mean()
        return self._balanced(loss, output)

    def _note_accuracy(self, pairs: PairLogps, p_chosen: Tensor) -> None:
        """Log how often the decided pairs come out right, in the place of TRL's, of all pairs."""
        gap = (pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected)  # [P]
        favours = p_chosen - 0.5
        right = (gap.detach() * favours > 0).sum()  # of a tie the product is 0
        counts = torch.stack([right, (favours != 0).sum()])[None]  # [1, 2]
        num_right, num_decided = self.accelerator.gather(counts).sum(0).tolist()
        value = num_right / num_decided if num_decided else None
        note_batch_metric(self, "rewards/accuracies", value, instead=True)


def make_trainer(
    settings: Settings, renderer: Renderer, train_rows: Columns, eval_rows: Columns
) -> GuardedDPOTrainer:
    """TRL's trainer on our tokenised columns."""
    collator = {}
    if settings.stage.ranking_loss == "plackett_luce":
        collator["data_collator"] = RankingCollator(renderer.tokenizer.pad_token_id)
    moved = [MovedReference()] if settings.training.sync_ref_model else []
    trainer = GuardedDPOTrainer(
        model=load_base(settings),
        **collator,
        ref_model=reference_model(settings, is_precomputed=is_precomputed(train_rows)),
        args=dpo_arguments(settings),
        train_dataset=dataset_of(train_rows),
        eval_dataset=dataset_of(eval_rows) if eval_rows else None,
        processing_class=renderer.tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=[
            *moved,
            *callbacks(settings),
            *early_stopping(settings.stage),
            WatchCallback(watched(settings)),
        ],
        rows=RowOrigins(
            places=[row["place"] for row in train_rows],
            groups=[row["group"] for row in train_rows],
            lengths=lengths_of(train_rows, settings),
        ),
    )
    for callback in moved:
        callback.trainer = trainer
    if not is_precomputed(train_rows) or settings.stage.num_kl_prompts:
        attach_reference(trainer.model, settings)
    trainer.heldout_samples = heldout_samples(settings, renderer, trainer.model, eval_rows)
    return trainer


def dpo_arguments(settings: Settings) -> Any:
    """TRL's config as the trainer gets it: our columns are kept, and evaluations fit the saves."""
    arguments = trainer_arguments(settings)
    arguments.remove_unused_columns = False  # transformers knows nothing of the labels' columns
    # TRL is to load no second model; that the policy has an adapter to switch off it sees itself.
    arguments.precompute_ref_log_probs &= not settings.model.use_peft
    keep_best(arguments, settings.stage.early_stopping_patience)
    return arguments


def dataset_of(rows: Columns) -> Dataset:
    """The rows as the trainer reads them, without what only we say of them."""
    own = ("place", "group")
    return Dataset.from_list([{k: v for k, v in row.items() if k not in own} for row in rows])
