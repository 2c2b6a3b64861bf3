"""The recipe of the reward stage, from rows to a folder with a model and what it says of rows."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import get_peft_config

from rlhf.data.columns import Columns
from rlhf.data.tokenization import Renderer
from rlhf.evaluation.gate.heldout import HELDOUT_NAME, TRAIN_SAMPLE_NAME
from rlhf.manifest import file_sha256, write_text
from rlhf.models.loading import HEAD_NAME, reward_head
from rlhf.models.reward_checks import require_checkpoint_heads
from rlhf.models.reward_ensemble import add_members, load_members, member_names
from rlhf.models.reward_spec import RewardSpec, base_record, tokenizer_sha256
from rlhf.training.arguments import Settings
from rlhf.training.preferences.grouping import lengths_of, rankings_line
from rlhf.training.preferences.labels import LabelPlan, is_tie
from rlhf.training.preferences.stopping import (
    early_stopping,
    keep_best,
    refuse_nothing_to_stop_by,
    stopping_summary,
)
from rlhf.training.reward.heldout import (
    heldout_metrics,
    num_trained_on,
    pair_lines,
    sampled,
    score_pairs,
    score_statistics,
    train_metrics,
)
from rlhf.training.reward.rows import RewardRows, read_columns
from rlhf.training.reward.scorer import load_scorer
from rlhf.training.reward.trainer import GuardedRewardTrainer, TrainedRows
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
    run_trainer,
    trainer_arguments,
)


def train_reward(settings: Settings) -> None:
    """Fit a reward model to pairs; leaves it in `output_dir` with its held-out predictions.

    Errors as the pieces below: ConfigError, DataError, GateError, StageError.
    """
    # 1. Read the pairs, hold some prompts out, tokenise, and count what is lost.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    rows = read_columns(settings, renderer, inputs)
    refuse_nothing_to_stop_by(settings, rows.heldout)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return
    if claim.checkpoint is not None:
        require_checkpoint_heads(claim.checkpoint, spec_of(settings, rows.plan, renderer))

    with manifest_of(settings, inputs) as manifest:
        # 3. Train base and heads: the loss is that of losses.py (TRL's own for hard labels).
        trained = trained_rows(rows, settings)
        trainer = make_trainer(settings, renderer, rows.train, rows.heldout, trained)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= label_metrics(rows, inputs) | stopping_metrics(trainer, settings)

        # 4. Score the held-out pairs and a sample of the training pairs. Every rank does: a
        # sharded model needs all of them.
        spec = spec_of(settings, rows.plan, renderer)
        main = is_main(settings)
        scored = score_pairs(
            trainer, renderer, spec, rows.heldout, rows.heldout_pairs, is_main=main
        )
        drawn = sampled(rows.train_pairs, len(rows.heldout_pairs))
        sample = score_pairs(
            trainer,
            renderer,
            spec,
            [rows.train[index] for index in drawn],
            [rows.train_pairs[index] for index in drawn],
            what="training",
            is_main=main,
        )
        statistics = score_statistics(scored if scored.pairs else sample)
        manifest.metrics |= heldout_metrics(scored) | train_metrics(sample) | statistics
        seen = num_trained_on(rows.heldout_pairs, rows.train_pairs)
        manifest.metrics["num_eval_trained_on"] = seen

        # 5. Save adapters and heads, or the whole model, with what it said of the pairs.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=main) as staging:
            trainer.save_model(str(staging))
            if main:
                replace(spec, **statistics).write(staging)
                write_text(staging / HELDOUT_NAME, pair_lines(scored, renderer))
                write_text(staging / TRAIN_SAMPLE_NAME, pair_lines(sample, renderer))
                manifest.outputs = {
                    name: file_sha256(staging / name) for name in (HELDOUT_NAME, TRAIN_SAMPLE_NAME)
                }
        finish(trainer, settings)


def make_trainer(
    settings: Settings,
    renderer: Renderer,
    train_rows: Columns,
    eval_rows: Columns,
    trained: TrainedRows | None = None,
) -> GuardedRewardTrainer:
    """TRL's trainer on our tokenised columns; its heads are always trained, and in fp32."""
    trained = trained or TrainedRows()
    arguments = reward_arguments(settings)
    lora = get_peft_config(settings.model)
    if lora is not None:
        lora.task_type = "SEQ_CLS"
        lora.modules_to_save = sorted({*(lora.modules_to_save or []), HEAD_NAME})
    num_heads = len(trained.heads)
    model = load_scorer(settings, renderer.tokenizer, num_heads)
    model.config.num_labels = 1  # TRL refuses more; its loss is not taken where there are more
    trainer = GuardedRewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        processing_class=renderer.tokenizer,
        peft_config=lora,
        callbacks=[*callbacks(settings), *early_stopping(settings.stage)],
        rows=trained,
    )
    model.config.num_labels = num_heads
    if settings.stage.num_members > 1:
        add_members(trainer.model, settings.stage.num_members, seed=settings.training.seed)
        trainer.clip_each_member()
        if arguments.disable_dropout:  # TRL's default; it has done so for the first member
            without_dropout(trainer.model)
    reward_head(trainer.model).float()  # on a quantised base TRL casts all that is trained to bf16
    if trained.bagging_seed is not None:
        trainer.draw_bags()
    return trainer


def reward_arguments(settings: Settings) -> Any:
    """TRL's config as the trainer gets it: our columns are kept, and evaluations fit the saves."""
    arguments, stage = trainer_arguments(settings), settings.stage
    arguments.max_length = None  # what is too long has been counted and dropped already
    arguments.remove_unused_columns = False  # transformers knows nothing of the labels' columns
    if stage.num_members > 1:  # each backward pass reaches one member
        arguments.ddp_find_unused_parameters = True
    keep_best(arguments, stage.early_stopping_patience)
    return arguments


def without_dropout(model: torch.nn.Module) -> None:
    """Let every dropout layer pass everything."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def trained_rows(rows: RewardRows, settings: Settings) -> TrainedRows:
    """What the trainer is told of its rows; how rankings are batched is said in the log."""
    bagging = settings.stage.member_bagging
    trained = TrainedRows(
        places=[pair.place for pair in rows.train_pairs],
        groups=[pair.group for pair in rows.train_pairs],
        lengths=lengths_of(rows.train, settings),
        heads=rows.plan.heads,
        bagging_seed=settings.training.seed if bagging else None,
    )
    if trained.is_grouped and is_main(settings):
        print(rankings_line(trained.groups, settings.training), file=sys.stderr)
    return trained


def spec_of(settings: Settings, plan: LabelPlan, renderer: Renderer) -> RewardSpec:
    """reward.json: what whoever scores with this model must know."""
    return RewardSpec(
        heads=dict(plan.heads),
        members=member_names(settings.stage.num_members),
        rendering=settings.stage.rendering,
        base=base_record(settings.model.model_name_or_path),
        tokenizer_sha256=tokenizer_sha256(renderer.tokenizer),
        max_length=settings.training.max_length,
    )


def label_metrics(rows: RewardRows, inputs: Inputs) -> dict[str, Any]:
    """What the labels are: their kind, who made them how, and how good they can be."""
    heldout = (inputs.heldout or inputs.train).provenance
    if len(rows.plan.heads) > 1:  # the ceiling is of one criterion's votes, the labels are of all
        heldout = {}
    return {
        "num_train": len(rows.train),
        "num_ties": sum(is_tie(pair) for pair in rows.train_pairs),
        "labels": rows.plan.kind,
        "label_method": inputs.train.provenance.get("label_method"),
        "noise_ceiling": heldout.get("noise_ceiling"),
        "noise_ceiling_ci": heldout.get("noise_ceiling_ci"),
    }


def stopping_metrics(trainer: GuardedRewardTrainer, settings: Settings) -> dict[str, Any]:
    """Put the best checkpoint of every member back, and say which it was.

    transformers loads the best of one adapter alone. Nothing without early stopping; StageError
    when that checkpoint is gone.
    """
    if not settings.stage.early_stopping_patience:
        return {}
    metrics = stopping_summary(trainer.state, settings.training.output_dir)
    if trainer.state.best_model_checkpoint and len(trainer.members) > 1:
        load_members(trainer.model, Path(trainer.state.best_model_checkpoint))
    return metrics
