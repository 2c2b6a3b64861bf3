"""Direct preference optimisation of a policy on pairs, against the model that it starts from."""

from pathlib import Path

from datasets import Dataset
from trl import get_peft_config

from rlhf.data.columns import Columns, dpo_columns, refuse_no_rows
from rlhf.data.doctor import Side
from rlhf.data.formats import preference_pairs
from rlhf.data.tokenization import Renderer
from rlhf.models.trl_compat import TokenizedDPOTrainer
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.saving import replacing_files
from rlhf.training.stage import (
    Inputs,
    callbacks,
    claim_output,
    finish,
    is_main,
    load_inputs,
    load_renderer,
    manifest_of,
    measured,
    read_sides,
    report_inputs,
    run_trainer,
    trainer_arguments,
)


class GuardedDPOTrainer(FiniteLoss, TokenizedDPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer on our tokenised rows, that stops at a NaN."""


def train_dpo(settings: Settings) -> None:
    """Tune a policy on pairs; leaves an adapter (LoRA) or a whole model in `output_dir`.

    The reference is the starting model: the same weights with the adapter off, or a second
    copy when all weights are trained. Errors as the pieces below.
    """
    # 1. Read the pairs, hold some out, tokenise, and count what is lost.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    train_rows, eval_rows = read_columns(settings, renderer, inputs)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        # 3. Train; measure on the held-out pairs, if any.
        trainer = make_trainer(settings, renderer, train_rows, eval_rows)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows), "num_eval": len(eval_rows)}
        manifest.metrics |= measured(trainer)

        # 4. Save the adapter, or the whole model, with its tokenizer.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        finish(trainer, settings)


def read_columns(settings: Settings, renderer: Renderer, inputs: Inputs) -> tuple[Columns, Columns]:
    """Tokenised rows to train on and to measure on; GateError when too much is lost."""
    sides = read_sides(settings, inputs, preference_pairs)
    datasets = (inputs.train, inputs.heldout or inputs.train)
    (train_rows, train_pairs), (eval_rows, eval_pairs) = (
        dpo_columns(pairs, renderer, settings.training.max_length, dataset.losses)
        for pairs, dataset in zip(sides, datasets, strict=True)
    )
    refuse_no_rows(train_rows, inputs.train.name, inputs.train.losses)
    left = Side(train_pairs, train_rows), Side(eval_pairs, eval_rows)
    report_inputs(inputs, settings, "pairs", renderer, *left)
    return train_rows, eval_rows


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
