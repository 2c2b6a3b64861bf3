"""The recipe of the DPO stage, from pairs to an adapter or a whole model."""

from pathlib import Path

from rlhf.training.arguments import Settings
from rlhf.training.dpo.rows import read_columns
from rlhf.training.dpo.trainer import make_trainer
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
