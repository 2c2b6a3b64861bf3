"""Supervised fine-tuning: imitate demonstrations; the result is the base of all that follows."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTTrainer, get_peft_config

from rlhf.data.columns import Columns, refuse_no_rows, sft_columns
from rlhf.data.doctor import Side
from rlhf.data.formats import demonstrations
from rlhf.data.tokenization import Renderer
from rlhf.models.adapters import attach_adapter
from rlhf.models.loading import free_memory, load_policy
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
    wait_for_everyone,
)

ADAPTER_FOLDER = "adapter"


class GuardedSFTTrainer(FiniteLoss, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer that stops at a NaN."""


def train_sft(settings: Settings) -> None:
    """Fine-tune on demonstrations; leaves a whole model and tokenizer in `output_dir`.

    With LoRA the adapter is kept in `output_dir/adapter`, and the model is the base with it
    merged in fp32. Errors as the pieces below: ConfigError, DataError, GateError, StageError.
    """
    # 1. Read the demonstrations, hold some out, tokenise, and count what is lost.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    train_rows, eval_rows = read_columns(settings, renderer, inputs)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        # 3. Train the policy on the completions' tokens.
        trainer = make_trainer(settings, renderer, train_rows, eval_rows)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows), "num_eval": len(eval_rows)}
        manifest.metrics |= measured(trainer, settings)

        # 4. Save: merged in fp32, since the later stages' reference is this model with
        #    adapters off, and a merge in bf16 would lose part of what was learnt.
        save_policy(trainer, settings, renderer.tokenizer)
        finish(trainer, settings)


def read_columns(settings: Settings, renderer: Renderer, inputs: Inputs) -> tuple[Columns, Columns]:
    """Tokenised rows to train on and to measure on; GateError when too much is lost."""
    training = settings.training
    sides = read_sides(settings, inputs, demonstrations)
    datasets = (inputs.train, inputs.heldout or inputs.train)
    (train_rows, train_demos), (eval_rows, eval_demos) = (
        sft_columns(
            demos,
            renderer,
            training.max_length,
            dataset.losses,
            completion_only=training.completion_only_loss is not False,
        )
        for demos, dataset in zip(sides, datasets, strict=True)
    )
    refuse_no_rows(train_rows, inputs.train.name, inputs.train.losses)
    left = Side(train_demos, train_rows), Side(eval_demos, eval_rows)
    report_inputs(inputs, settings, "demonstrations", renderer, *left)
    return train_rows, eval_rows


def make_trainer(
    settings: Settings, renderer: Renderer, train_rows: Columns, eval_rows: Columns
) -> GuardedSFTTrainer:
    """TRL's trainer on our tokenised columns, with LoRA when the settings ask for it."""
    arguments = trainer_arguments(settings)
    arguments.assistant_only_loss = False  # the labels say so already, for every template
    if not arguments.packing and not arguments.shuffle_dataset:
        # Tokenised, labelled and cut already: there is nothing left for TRL to prepare.
        arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    return GuardedSFTTrainer(
        model=load_base(settings),
        args=arguments,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        processing_class=renderer.tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=callbacks(settings),
    )


def save_policy(trainer: GuardedSFTTrainer, settings: Settings, tokenizer: Any) -> None:
    """Write the whole model and tokenizer to `output_dir`, and the adapter below it."""
    folder = Path(settings.training.output_dir)
    if not settings.model.use_peft:
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        return
    with replacing_files(folder / ADAPTER_FOLDER, is_main=is_main(settings)) as staging:
        trainer.save_model(str(staging))
    wait_for_everyone(settings)
    if not is_main(settings):
        return
    trainer.model = trainer.model_wrapped = None  # room for the base in fp32
    free_memory()
    merged = merge_adapter(settings, folder / ADAPTER_FOLDER)
    with replacing_files(folder) as staging:
        merged.save_pretrained(staging)
        tokenizer.save_pretrained(staging)


def merge_adapter(settings: Settings, adapter: Path) -> Any:
    """The base in fp32 with the adapter merged into it, whatever dtype it was trained in."""
    base = load_policy(
        settings.model.model_name_or_path,
        dtype="float32",
        revision=settings.model.model_revision,
        device="cpu",
    )
    return attach_adapter(base, adapter).merge_and_unload()
