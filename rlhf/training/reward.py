"""A reward model: one score for each completion, fitted so that the chosen one scores higher."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, set_seed
from trl import RewardTrainer, get_peft_config

from rlhf.data.columns import Columns, refuse_no_rows, reward_columns
from rlhf.data.formats import Pair, preference_pairs
from rlhf.data.progress import progress
from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError
from rlhf.manifest import jsonable, write_text
from rlhf.models.adapters import is_adapter
from rlhf.models.loading import HEAD_NAME, best_device, prepare_for_tokenizer, reward_head
from rlhf.models.registry import resolve_model
from rlhf.models.scoring import RewardModel
from rlhf.models.trl_compat import without_new_head_warning
from rlhf.records import content_hash
from rlhf.training.arguments import Settings
from rlhf.training.base import loading_options
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.reward_metrics import calibration_error, longer_accuracy, pair_accuracy
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
    read_sides,
    report_inputs,
    run_trainer,
    trainer_arguments,
)

HELDOUT_NAME = "heldout.jsonl"


class GuardedRewardTrainer(FiniteLoss, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer that stops at a NaN."""


def train_reward(settings: Settings) -> None:
    """Fit a reward model to pairs; leaves it in `output_dir` with its held-out predictions.

    Errors as the pieces below: ConfigError, DataError, GateError, StageError.
    """
    # 1. Read the pairs, hold some prompts out, tokenise, and count what is lost.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    train_rows, eval_rows, eval_pairs = read_columns(settings, renderer, inputs)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        # 3. Train base and head: loss = -log sigmoid(score of chosen - score of rejected).
        trainer = make_trainer(settings, renderer, train_rows, eval_rows)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows)}

        # 4. Score the held-out pairs. Every rank does: a sharded model needs all of them.
        scores, num_cut = score_pairs(trainer, renderer, eval_rows, is_main(settings))
        manifest.metrics |= heldout_metrics(eval_pairs, scores) | {"num_cut": num_cut}
        labels = (inputs.heldout or inputs.train).provenance
        for key in ("noise_ceiling", "noise_ceiling_ci"):
            manifest.metrics[key] = labels.get(key)

        # 5. Save adapter and head, or the whole model, with what it said of the held-out pairs.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
            if is_main(settings):
                write_text(staging / HELDOUT_NAME, heldout_lines(eval_pairs, scores))
        finish(trainer, settings)


def read_columns(
    settings: Settings, renderer: Renderer, inputs: Inputs
) -> tuple[Columns, Columns, list[Pair]]:
    """Tokenised rows to train on, to measure on, and the pairs of the latter.

    --max_length bounds training only: a held-out pair is scored whole, however long.
    """
    train_pairs, eval_pairs = read_sides(settings, inputs, preference_pairs)
    max_length, losses = settings.training.max_length, inputs.train.losses
    train_rows, kept = reward_columns(train_pairs, renderer, max_length, losses)
    refuse_no_rows(train_rows, inputs.train.name, losses)
    eval_losses = (inputs.heldout or inputs.train).losses
    eval_rows, eval_pairs = reward_columns(eval_pairs, renderer, None, eval_losses)
    report_inputs(inputs, settings, "pairs")
    if settings.stage.use_margin:
        for row, pair in zip(train_rows, kept, strict=True):
            row["margin"] = float(pair.margin or 0.0)
    return train_rows, eval_rows, eval_pairs


def make_trainer(
    settings: Settings, renderer: Renderer, train_rows: Columns, eval_rows: Columns
) -> GuardedRewardTrainer:
    """TRL's trainer on our tokenised columns; its head is always trained, and in fp32."""
    arguments = trainer_arguments(settings)
    arguments.max_length = None  # what is too long has been counted and dropped already
    lora = get_peft_config(settings.model)
    if lora is not None:
        lora.task_type = "SEQ_CLS"
        lora.modules_to_save = sorted({*(lora.modules_to_save or []), HEAD_NAME})
    trainer = GuardedRewardTrainer(
        model=load_scorer(settings, renderer.tokenizer),
        args=arguments,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        processing_class=renderer.tokenizer,
        peft_config=lora,
        callbacks=callbacks(settings),
    )
    reward_head(trainer.model).float()  # on a quantised base TRL casts all that is trained to bf16
    return trainer


def load_scorer(settings: Settings, tokenizer: Any) -> Any:
    """The base as a sequence classifier with one output: a fresh head drawn by the seed.

    The head is fp32 whatever the base is: in bf16 close scores become equal.
    """
    name = settings.model.model_name_or_path
    location = resolve_model(name)
    if is_adapter(location):
        raise ConfigError(f"{name}: holds an adapter; give a whole model, such as an sft stage's")
    options = loading_options(settings)
    device = best_device() if options.pop("device") == "auto" else "cpu"
    if options["quantization_config"] is not None:
        options["device_map"] = {"": device}
    set_seed(settings.training.seed)
    with without_new_head_warning():
        model = AutoModelForSequenceClassification.from_pretrained(
            location,
            num_labels=1,
            dtype=settings.model.dtype,
            revision=settings.model.model_revision,
            **options,
        )
    prepare_for_tokenizer(model, tokenizer)
    head = reward_head(model).float()
    head.register_forward_pre_hook(to_float)
    return model if "device_map" in options else model.to(device)


def to_float(head: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Forward pre-hook: the base's hidden states [B, T, H] in the head's fp32."""
    return (hidden[0].float(), *hidden[1:])


def score_pairs(
    trainer: Any, renderer: Renderer, rows: Columns, is_main: bool = True
) -> tuple[np.ndarray, int]:
    """Scores [N, 2] of the chosen and the rejected transcript of each row, and how many of the
    transcripts were longer than the model's context and lost their beginning.
    """
    if not rows:
        return np.zeros((0, 2)), 0
    scorer = RewardModel(trainer.model.eval(), renderer.tokenizer)
    texts = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
    batch_size = trainer.args.per_device_eval_batch_size
    with progress("scoring held-out pairs", len(texts), "transcript") as advance:
        scores = scorer.score_ids(
            texts, batch_size=batch_size, on_progress=advance if is_main else None
        )
    if scorer.num_cut and is_main:
        print(
            f"{scorer.num_cut} of {len(texts)} held-out transcripts were scored without their "
            "beginning: they are longer than the model's context",
            file=sys.stderr,
        )
    return scores.double().numpy().reshape(2, -1).T, scorer.num_cut


def heldout_metrics(pairs: Sequence[Pair], scores: np.ndarray) -> dict[str, Any]:
    """Accuracy with its interval, n, ECE, and what choosing the longer completion would reach."""
    if not len(pairs):
        return {"accuracy": None, "accuracy_ci": None, "n": 0, "ece": None}
    prompts = [content_hash(pair.prompt) for pair in pairs]
    accuracy = pair_accuracy(scores[:, 0], scores[:, 1], prompts)
    longer = longer_accuracy(
        np.array([len(pair.chosen) for pair in pairs]),
        np.array([len(pair.rejected) for pair in pairs]),
        prompts,
    )
    return {
        "accuracy": accuracy.value,
        "accuracy_ci": [accuracy.low, accuracy.high],
        "n": accuracy.n,
        "num_eval_prompts": len(set(prompts)),
        "ece": calibration_error(scores[:, 0], scores[:, 1]),
        "longer_accuracy": longer.as_dict(),
    }


def heldout_lines(pairs: Sequence[Pair], scores: np.ndarray) -> str:
    """heldout.jsonl: a row for each held-out pair with its scores and the labels behind it."""
    rows = [
        {
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen_score": float(chosen),
            "rejected_score": float(rejected),
            "p_chosen": pair.p_chosen,
            "judgement_ids": list(pair.judgement_ids),
        }
        for pair, (chosen, rejected) in zip(pairs, scores, strict=True)
    ]
    return "".join(json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows)
