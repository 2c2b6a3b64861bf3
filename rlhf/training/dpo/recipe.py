"""The recipe of the DPO stage, from pairs to an adapter or a whole model."""

import sys
from collections.abc import Sized
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError
from rlhf.training.arguments import Settings
from rlhf.training.dpo.facts import label_facts
from rlhf.training.dpo.reference import (
    Reference,
    reference_inputs,
    reference_of,
    release_reference,
)
from rlhf.training.dpo.reference_logps import add_reference_logps, cached_reference_logps
from rlhf.training.dpo.rows import read_columns
from rlhf.training.dpo.trainer import GuardedDPOTrainer, make_trainer
from rlhf.training.dpo.watch import warnings_of, watched
from rlhf.training.monitoring import log_rows
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


def train_dpo(settings: Settings) -> None:
    """Tune a policy on pairs; leaves an adapter (LoRA) or a whole model in `output_dir`.

    What is kept is the checkpoint with the lowest held-out loss where --early_stopping_patience
    asks for it, else the last. Errors as the pieces below: ConfigError, DataError, GateError,
    StageError.
    """
    # 1. Read the pairs, hold some out, tokenise, and count what is lost; find the reference.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    reference = reference_of(settings)
    inputs.further = reference_inputs(reference)
    train_rows, eval_rows = read_columns(settings, renderer, inputs)
    refuse_nothing_to_stop_by(settings, eval_rows)
    refuse_nothing_to_sample(settings, eval_rows, reference)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        # 3. The reference's log-probabilities beforehand, if asked for: computed once, then kept.
        if is_main(settings):
            print(reference.words(), file=sys.stderr)
        train_rows, eval_rows = cached_reference_logps(settings, train_rows, eval_rows)
        trainer = make_trainer(settings, renderer, train_rows, eval_rows)
        add_reference_logps(trainer, settings)

        # 4. Train; go back to the best checkpoint, if asked for; measure on the held-out pairs.
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows), "num_eval": len(eval_rows)}
        manifest.metrics |= label_facts(train_rows, inputs.train.provenance)
        manifest.provenance["reference"] = reference.words().removeprefix("reference: ")
        manifest.provenance["prompt_sharing"] = getattr(trainer, "prompt_sharing", None)
        manifest.metrics |= stopping_metrics(trainer, settings)
        manifest.metrics |= measured(trainer, settings)
        manifest.metrics["warnings"] = warnings_of(log_rows(trainer.state), watched(settings))

        # 5. Save the adapter, or the whole model, with its tokenizer.
        release_reference(trainer)
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        finish(trainer, settings)


def refuse_nothing_to_sample(settings: Settings, heldout: Sized, reference: Reference) -> None:
    """ConfigError when held-out prompts are to be sampled, and none is held out or nothing is
    there to compare with.
    """
    if not settings.stage.num_kl_prompts:
        return
    if not heldout:
        raise ConfigError(
            "--num_kl_prompts: no pair is held out; give --eval_fraction above 0 or another "
            "--eval_dataset_name"
        )
    if settings.training.precompute_ref_log_probs and reference.kind == "model":
        raise ConfigError(
            f"--num_kl_prompts: reads what is sampled by the reference {reference.name}, which "
            "--precompute_ref_log_probs leaves out of memory; leave one of them out"
        )


def stopping_metrics(trainer: GuardedDPOTrainer, settings: Settings) -> dict[str, Any]:
    """For the manifest: which step was the best, where asked for; StageError when it is gone."""
    if not settings.stage.early_stopping_patience:
        return {}
    return stopping_summary(trainer.state, settings.training.output_dir)
