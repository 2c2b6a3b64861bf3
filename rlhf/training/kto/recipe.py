"""The recipe of the KTO stage, from labelled completions to an adapter or a whole model."""

import sys
from pathlib import Path
from typing import Any

from rlhf.data.columns import Columns
from rlhf.training.arguments import Settings
from rlhf.training.kto.rows import read_columns
from rlhf.training.kto.trainer import GuardedKTOTrainer, label_balance, make_trainer
from rlhf.training.kto.weights import LabelBalance
from rlhf.training.preferences.stopping import refuse_nothing_to_stop_by, stopping_summary
from rlhf.training.saving import replacing_files
from rlhf.training.stage import (
    claim_output,
    finish,
    is_main,
    load_inputs,
    load_renderer,
    manifest_of,
    measured,
    run_trainer,
)


def train_kto(settings: Settings) -> None:
    """Tune a policy on completions labelled good or not; leaves an adapter (LoRA) or a whole model
    in `output_dir`.

    Errors as the pieces below: ConfigError, DataError, GateError, StageError.
    """
    # 1. Read completions and labels, hold some prompts out, tokenise, and count what is lost.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    train_rows, eval_rows = read_columns(settings, renderer, inputs)
    refuse_nothing_to_stop_by(settings, eval_rows)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        # 3. Say how the labels are balanced, and train; measure on the held-out rows, if any.
        weights = label_balance(settings, train_rows)
        if is_main(settings):
            print(weights.words(), file=sys.stderr)
        trainer = make_trainer(settings, renderer, train_rows, eval_rows)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= label_metrics(train_rows, eval_rows, weights)
        manifest.metrics |= stopping_metrics(trainer, settings)
        manifest.metrics |= measured(trainer, settings)

        # 4. Save the adapter, or the whole model, with its tokenizer.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        finish(trainer, settings)


def label_metrics(train_rows: Columns, eval_rows: Columns, weights: LabelBalance) -> dict[str, Any]:
    """How many rows have each label, and how these are balanced; a warning if they are not."""
    num_desirable = sum(row["label"] for row in train_rows)
    warnings = [] if weights.is_balanced else [
        {"cause": "unbalanced_labels", "step": 0, "words": weights.words()}
    ]  # fmt: skip
    return {
        "num_train": len(train_rows),
        "num_eval": len(eval_rows),
        "num_desirable": num_desirable,
        "num_undesirable": len(train_rows) - num_desirable,
        "desirable_weight": weights.desirable_weight,
        "undesirable_weight": weights.undesirable_weight,
        "label_ratio": weights.ratio,
        "warnings": warnings,
    }


def stopping_metrics(trainer: GuardedKTOTrainer, settings: Settings) -> dict[str, Any]:
    """Whether the run stopped early, and at which best step; nothing without early stopping."""
    if not settings.stage.early_stopping_patience:
        return {}
    return stopping_summary(trainer.state, settings.training.output_dir)
