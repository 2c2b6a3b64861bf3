"""TRL's DPOTrainer on our rows, and what it is made with."""

from datasets import Dataset
from trl import get_peft_config

from rlhf.data.columns import Columns
from rlhf.data.tokenization import Renderer
from rlhf.models.trl_compat import TokenizedDPOTrainer
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.stage import callbacks, trainer_arguments


class GuardedDPOTrainer(FiniteLoss, TokenizedDPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer on our tokenised rows, that stops at a NaN."""


def make_trainer(
    settings: Settings, renderer: Renderer, train_rows: Columns, eval_rows: Columns
) -> GuardedDPOTrainer:
    """TRL's trainer on our tokenised columns."""
    full = not settings.model.use_peft
    return GuardedDPOTrainer(
        model=load_base(settings),
        # Left alone, TRL would load the reference by the name in the config, in another dtype.
        ref_model=load_base(settings) if full and needs_reference(settings) else None,
        args=trainer_arguments(settings),
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        processing_class=renderer.tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=callbacks(settings),
    )


def needs_reference(settings: Settings) -> bool:
    """Whether a second model must stand in memory while all weights are trained."""
    return not settings.training.precompute_ref_log_probs
