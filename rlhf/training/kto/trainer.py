"""TRL's KTOTrainer on our rows, and what it is made with."""

from typing import Any

from datasets import Dataset
from trl import get_peft_config

from rlhf.data.columns import Columns
from rlhf.data.tokenization import Renderer
from rlhf.models.trl_compat import TokenizedKTOTrainer
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.kto.batches import MismatchingCollator
from rlhf.training.kto.weights import LabelBalance, balance
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.preferences.stopping import early_stopping, keep_best
from rlhf.training.stage import callbacks, trainer_arguments

_OURS = ("weight", "row")


class GuardedKTOTrainer(FiniteLoss, TokenizedKTOTrainer):  # type: ignore[misc]
    """TRL's KTOTrainer on our tokenised rows: each may have a weight, and a NaN stops it."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss, each row's multiplied by its `weight` [B], where the batch has one.

        TRL takes the mean of (factor of its label) x (loss) over the rows; the factor may be a
        number for each row, in the order of the rows.
        """
        batch = {key: value for key, value in inputs.items() if key not in _OURS}
        factors = self.desirable_weight, self.undesirable_weight
        if "weight" in inputs:
            labels = inputs["label"].bool()
            self.desirable_weight = factors[0] * inputs["weight"][labels]
            self.undesirable_weight = factors[1] * inputs["weight"][~labels]
        try:
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)
        finally:
            self.desirable_weight, self.undesirable_weight = factors


def make_trainer(
    settings: Settings, renderer: Renderer, train_rows: Columns, eval_rows: Columns
) -> GuardedKTOTrainer:
    """TRL's trainer on our tokenised columns.

    The reference is the starting model: the same weights with the adapter off, or a second copy
    when all weights are trained.
    """
    arguments = kto_arguments(settings, label_balance(settings, train_rows))
    sampling, arguments.train_sampling_strategy = arguments.train_sampling_strategy, "sequential"
    needs_copy = not settings.model.use_peft and not arguments.precompute_ref_log_probs
    trainer = GuardedKTOTrainer(
        model=load_base(settings),
        # Left alone, TRL would load the reference by the name in the config, in another dtype.
        ref_model=load_base(settings) if needs_copy else None,
        args=arguments,
        data_collator=MismatchingCollator(
            pad_token_id=renderer.tokenizer.pad_token_id,
            pad_to_multiple_of=arguments.pad_to_multiple_of,
            mismatches=arguments.loss_type == "kto",
            fixed=arguments.precompute_ref_log_probs,
        ),
        train_dataset=Dataset.from_list(_numbered(train_rows)),
        eval_dataset=Dataset.from_list(_numbered(eval_rows)) if eval_rows else None,
        processing_class=renderer.tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=[*callbacks(settings), *early_stopping(settings.stage)],
    )
    # TRL asks for one fixed order since its mismatched pairs are made of neighbours in it; ours
    # are made of whatever rows a batch holds.
    trainer.args.train_sampling_strategy = sampling
    trainer.row_places = [row["place"] for row in train_rows]
    return trainer


def kto_arguments(settings: Settings, weights: LabelBalance) -> Any:
    """TRL's config as the trainer gets it: our columns are kept, the labels are balanced."""
    arguments = trainer_arguments(settings)
    arguments.max_length = None  # what is too long has been counted and dropped already
    arguments.remove_unused_columns = False  # transformers knows nothing of rows' weights
    arguments.desirable_weight = weights.desirable_weight
    arguments.undesirable_weight = weights.undesirable_weight
    keep_best(arguments, settings.stage.early_stopping_patience)
    return arguments


def label_balance(settings: Settings, rows: Columns) -> LabelBalance:
    """What the rows of each label weigh, and the factors of their losses."""
    weigh = {
        label: float(sum(row.get("weight", 1.0) for row in rows if row["label"] is label))
        for label in (True, False)
    }
    return balance(weigh[True], weigh[False], settings.stage, settings.training)


def _numbered(rows: Columns) -> Columns:
    """The rows as the trainer reads them: places are for people and stay here."""
    return [
        {key: value for key, value in row.items() if key != "place"} | {"row": index}
        for index, row in enumerate(rows)
    ]
