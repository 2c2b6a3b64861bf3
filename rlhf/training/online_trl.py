"""RLOO and GRPO: TRL's trainers on our prompts, rewards, gate, checkpoints and manifest."""

import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer, RLOOTrainer, get_peft_config

from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, DataError
from rlhf.models.adapters import is_adapter
from rlhf.models.generation import end_token_ids
from rlhf.models.registry import resolve_model
from rlhf.models.trl_compat import KeptRollouts
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.monitoring import FiniteLoss, log_rows
from rlhf.training.prompts import PromptRow, read_columns
from rlhf.training.rewards.episodes import Episodes, ScoredEpisodes
from rlhf.training.rewards.scoring import RewardSources
from rlhf.training.rewards.sources import load_sources
from rlhf.training.rollout_log import RolloutRecord, completion_metrics, last_rollouts
from rlhf.training.saving import replacing_files
from rlhf.training.stage import (
    callbacks,
    claim_output,
    finish,
    is_main,
    load_inputs,
    load_renderer,
    manifest_of,
    measured,
    run_trainer,
    trainer_arguments,
)

_STATE_NAME = "rollout_{}.pt"
_NOTED = ("score", "score_ci_low", "score_ci_high", "ended_rate", "repetition")


class GuardedRLOOTrainer(KeptRollouts, FiniteLoss, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOOTrainer that stops at a NaN and can be continued."""


class GuardedGRPOTrainer(KeptRollouts, FiniteLoss, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer that stops at a NaN and can be continued."""


_TRAINERS = {"rloo": GuardedRLOOTrainer, "grpo": GuardedGRPOTrainer}


def train_online(settings: Settings) -> None:
    """Tune a policy by RLOO or GRPO; leaves an adapter (LoRA) or a whole model in `output_dir`.

    The reference is the starting model: with LoRA the same weights with the adapter off. Errors
    as the pieces below.
    """
    # 1. Find the sources of rewards and hold reward models to their gate; read the prompts.
    refuse_other_reference(settings)
    sources = load_sources(
        settings.stage, settings.training, shared=False, dtype=settings.model.dtype
    )
    inputs = load_inputs(settings)
    inputs.further = sources.inputs()
    renderer = load_renderer(settings)
    train_rows, eval_rows = read_columns(settings, renderer, inputs)
    refuse_few_prompts(settings, len(train_rows))
    refuse_two_kinds(settings, [*train_rows, *eval_rows])

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        manifest.provenance["rewards"] = sources.provenance()
        # 3. Sample, score and learn; measure on the prompts held out, if any.
        trainer = make_trainer(settings, renderer, sources, train_rows, eval_rows)
        if claim.checkpoint:
            load_rollout(trainer, sources, claim.checkpoint)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows), "num_eval": len(eval_rows)}
        manifest.metrics |= last_rollouts(rollouts_of(trainer.state)) | measured(trainer, settings)

        # 4. Save the adapter, or the whole model, with its tokenizer.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        finish(trainer, settings)


def refuse_other_reference(settings: Settings) -> None:
    """ConfigError where TRL would load another reference than what the policy starts from."""
    model = settings.model
    if model.use_peft or settings.training.beta == 0:
        return
    if is_adapter(resolve_model(model.model_name_or_path)):
        raise ConfigError(
            f"{model.model_name_or_path}: an adapter, which training of all weights merges, and "
            "its reference would be without it; add --use_peft, or rlhf export it first"
        )


def refuse_few_prompts(settings: Settings, num_prompts: int) -> None:
    """DataError when the prompts do not fill one rollout: TRL would train on nothing."""
    training = settings.training
    needed = training.generation_batch_size // training.num_generations
    if num_prompts < needed:
        raise DataError(
            f"{settings.stage.dataset_name}: {num_prompts} prompts, and a rollout takes {needed}; "
            "give more, raise --num_generations, or lower --per_device_train_batch_size or "
            "--steps_per_generation"
        )


def refuse_two_kinds(settings: Settings, rows: Sequence[PromptRow]) -> None:
    """DataError for texts and messages in one data set, which TRL cannot hold in one column."""
    num_texts = sum(isinstance(row["prompt"], str) for row in rows)
    if 0 < num_texts < len(rows):
        raise DataError(
            f"{settings.stage.dataset_name}: {num_texts} prompts are text and "
            f"{len(rows) - num_texts} are messages, and {settings.verb} takes one kind; write the "
            "texts as messages, or use rlhf ppo"
        )


def make_trainer(
    settings: Settings,
    renderer: Renderer,
    sources: RewardSources,
    train_rows: Sequence[PromptRow],
    eval_rows: Sequence[PromptRow],
) -> Any:
    """TRL's trainer with one reward function: all sources, weighted and shaped."""
    model = load_base(settings)
    tokenizer = renderer.tokenizer
    model.generation_config.eos_token_id = end_token_ids(model, tokenizer, renderer)
    arguments = trainer_arguments(settings)
    arguments.reward_weights = None  # the sources weigh themselves
    reward = ComposedReward(sources, [*train_rows, *eval_rows])
    trainer: Any = _TRAINERS[settings.verb](
        model=model,
        reward_funcs=[reward],
        args=arguments,
        train_dataset=_dataset(train_rows, 0),
        eval_dataset=_dataset(eval_rows, len(train_rows)) if eval_rows else None,
        processing_class=tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=[RolloutKeeper(sources), *callbacks(settings)],
    )
    trainer.renderer = renderer
    reward.trainer = trainer
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, RolloutKeeper):
            callback.trainer = trainer
    return trainer


def _dataset(rows: Sequence[PromptRow], first: int) -> Dataset:
    """Prompts, each with its number: the columns of a row may be of kinds that Arrow cannot mix."""
    return Dataset.from_list(
        [{"prompt": row["prompt"], "row": first + index} for index, row in enumerate(rows)]
    )


class ComposedReward:
    """A TRL reward function that is all our sources together."""

    __name__ = "score"

    def __init__(self, sources: RewardSources, rows: Sequence[PromptRow]) -> None:
        self.sources = sources
        self.rows = rows
        self.trainer: Any = None
        self._said: Sequence[str] = ()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        row: Sequence[int],
        **extras: Any,
    ) -> list[float]:
        """The total score of each completion; token-level scores are summed."""
        rows = [self.rows[index] for index in row]
        columns = {name: [each[name] for each in rows] for name in rows[0] if name != "prompt"}
        texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
        ends = set(self.trainer.eos_token_ids)
        episodes = Episodes(
            prompts=[each["prompt"] for each in rows],
            completions=texts,
            completion_ids=completion_ids,
            ended=[bool(ids) and ids[-1] in ends for ids in completion_ids],
            columns=columns,
            extras=extras,
        )
        training = self.trainer.model.training
        scored = self.sources.score(episodes, reduce=self._summed, update=training)
        self._note(episodes, scored, extras["log_metric"])
        return [float(each) for each in scored.totals]

    def _note(self, episodes: Episodes, scored: ScoredEpisodes, log_metric: Any) -> None:
        """Log what TRL does not: the score's interval, each source, ending and repetition."""
        record = RolloutRecord(
            prompts=episodes.prompts,
            completions=episodes.completions,
            num_tokens=[len(ids) for ids in episodes.completion_ids],
            ended=episodes.ended,
            scores=scored.totals,
            kls=torch.zeros_like(scored.totals),  # TRL measures it
        )
        found = completion_metrics(record, reduce=self._summed)
        for name in _NOTED:
            if isfinite(found[name]):  # of a single prompt there is no interval
                log_metric(name, found[name])
        for name, values in scored.by_source.items():
            if not values.isnan().all():
                log_metric(f"score/{name}", float(values.nanmean()))
        for warning in scored.warnings:
            if warning not in self._said and self.trainer.is_world_process_zero():
                print(f"warning: {warning}", file=sys.stderr)
        self._said = scored.warnings  # said again once it has stopped and begun anew

    def _summed(self, x: Tensor) -> Tensor:
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return x
        total: Tensor = accelerator.reduce(x.to(accelerator.device), reduction="sum")
        return total.cpu()


class RolloutKeeper(TrainerCallback):  # type: ignore[misc]
    """Puts the rollout, and the running statistics of rewards, into each checkpoint.

    It stands before the CheckpointKeeper, who then marks the checkpoint as whole.
    """

    def __init__(self, sources: RewardSources) -> None:
        self.sources = sources
        self.trainer: Any = None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        kept = {"rollout": self.trainer.rollout_state(), "rewards": self.sources.state_dict()}
        torch.save(kept, folder / _STATE_NAME.format(args.process_index))


def load_rollout(trainer: Any, sources: RewardSources, checkpoint: Path) -> None:
    """Go on within the rollout that a checkpoint holds; DataError when it is not there."""
    path = checkpoint / _STATE_NAME.format(trainer.args.process_index)
    if not path.is_file():
        raise DataError(f"{checkpoint}: lacks {path.name}; put it back, or add --restart")
    device = trainer.args.device
    # Of several processes on CPUs the device is "cpu:0", which torch.load does not know.
    place = "cpu" if device.type == "cpu" else device
    kept = torch.load(path, map_location=place, weights_only=True)
    trainer.load_rollout_state(kept["rollout"])
    sources.load_state_dict(kept["rewards"])


def rollouts_of(state: TrainerState) -> list[dict[str, float]]:
    """The rows of TRL's log that have rewards, by our names; `kl` in nats a completion.

    TRL logs the KL of a token; a completion's is that times the tokens of a completion.
    """
    return [_report_of(row) for row in log_rows(state) if "reward" in row]


def _report_of(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of TRL's log by our names."""
    found = {
        name: row[name] for name in (*_NOTED, "reward", "entropy") if row.get(name) is not None
    }
    length = found["completion_length"] = row["completions/mean_length"]
    if row.get("kl") is not None:
        found["kl"] = row["kl"] * length
    return found
