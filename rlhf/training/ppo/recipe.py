"""The recipe of the ppo stage, from prompts to a folder with a policy and the critic beside it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import get_peft_config

from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, StageError
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.monitoring import log_rows
from rlhf.training.ppo.monitoring import (
    TIMING_PREFIXES,
    BestWithinBudget,
    CompletionLog,
    best_checkpoint,
    run_summary,
)
from rlhf.training.ppo.state import CRITIC_NAME
from rlhf.training.ppo.trainer import PPOTrainer
from rlhf.training.prompts import PromptRow, read_columns
from rlhf.training.rewards.scoring import RewardSources
from rlhf.training.rewards.sources import load_sources
from rlhf.training.rollout_log import last_rollouts
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

__all__ = ["read_columns", "train_ppo"]


def train_ppo(settings: Settings) -> None:
    """Tune a policy by PPO; leaves an adapter (LoRA) or a whole model in `output_dir`.

    What is kept is the checkpoint with the best held-out score within the KL budget, where
    prompts are held out and measured, else the last. Errors as the pieces below: ConfigError,
    DataError, GateError (a reward model without a passed gate), StageError.
    """
    # 1. Read the prompts, find the sources of rewards, and count what is lost.
    inputs = load_inputs(settings)
    renderer = load_renderer(settings)
    sources = load_sources(
        settings.stage, settings.training, shared=True, dtype=settings.model.dtype
    )
    inputs.further = sources.inputs()
    train_rows, eval_rows = read_columns(settings, renderer, inputs)
    refuse_nothing_to_measure(settings, eval_rows)

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return

    with manifest_of(settings, inputs) as manifest:
        manifest.provenance["rewards"] = sources.provenance()

        # 3. Roll out, score and learn, as often as the settings say.
        trainer = make_trainer(settings, renderer, sources, train_rows, eval_rows)
        if claim.checkpoint is None and is_main(settings):
            CompletionLog(settings.training.output_dir).keep_before(0)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows), "num_eval": len(eval_rows)}
        manifest.metrics |= run_metrics(trainer) | run_summary(trainer.watch, trainer.state)

        # 4. Go back to the best checkpoint, and measure on the held-out prompts.
        take_best(trainer, settings)
        manifest.metrics |= measured(trainer, settings)

        # 5. Save the policy with its tokenizer, and the critic in a folder of its own.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        trainer.engine.close()
        finish(trainer, settings)


def make_trainer(
    settings: Settings,
    renderer: Renderer,
    sources: RewardSources,
    train_rows: Sequence[PromptRow],
    eval_rows: Sequence[PromptRow],
) -> PPOTrainer:
    """The trainer on prompts that have been read; it says how it samples."""
    budget = settings.training.kl_budget
    trainer = PPOTrainer(
        model=load_base(settings),
        reward_funcs=sources,
        args=trainer_arguments(settings),
        train_dataset=list(train_rows),
        eval_dataset=list(eval_rows) or None,
        processing_class=renderer.tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=[*callbacks(settings), BestWithinBudget(budget)],
        renderer=renderer,
    )
    if is_main(settings):
        print(trainer.engine.describe(), file=sys.stderr)
    return trainer


def refuse_nothing_to_measure(settings: Settings, eval_rows: Sequence[PromptRow]) -> None:
    """ConfigError when held-out prompts are to be measured on, and there are none."""
    if str(settings.training.eval_strategy.value) != "no" and not eval_rows:
        raise ConfigError(
            "--eval_strategy steps: no prompt is held out; give --eval_fraction above 0 or "
            "--eval_dataset_name"
        )
    num_processes = settings.training.world_size
    if 0 < len(eval_rows) < num_processes:
        raise ConfigError(
            f"--eval_fraction: {len(eval_rows)} prompts are held out for {num_processes} "
            "processes; hold out more"
        )


def take_best(trainer: PPOTrainer, settings: Settings) -> None:
    """Put the best checkpoint's policy and critic back, if there is one and it is not the last.

    StageError when it is gone.
    """
    state = trainer.state
    if not state.best_global_step and is_main(settings):
        say_none_within_budget(settings)
    if not state.best_global_step or state.best_global_step == state.global_step:
        return
    best = best_checkpoint(state, settings.training.output_dir)
    if best is None:
        raise StageError(
            f"{settings.training.output_dir}: checkpoint-{state.best_global_step} is gone, and the "
            "last one would stand in for the best without a word; train again with --restart"
        )
    trainer.model.load_policy(best)
    trainer.model.load_critic(best / CRITIC_NAME)


def say_none_within_budget(settings: Settings) -> None:
    """Say that the policy that is kept went beyond its budget, where held-out prompts tell."""
    training = settings.training
    looks = "no" not in (str(training.eval_strategy.value), str(training.save_strategy.value))
    if training.kl_budget is not None and looks:
        print(
            f"warning: no checkpoint was within the KL budget of {training.kl_budget:g} nats, so "
            "the last one is kept; lower --learning_rate, or raise --kl_coef or --kl_budget",
            file=sys.stderr,
        )


def run_metrics(trainer: PPOTrainer) -> dict[str, Any]:
    """What the run came to: its last rollouts, how many there were, and where the time went."""
    rows = log_rows(trainer.state)
    rollouts = [row for row in rows if "score" in row]
    phases = {
        key.replace("/", "_"): round(sum(row.get(key, 0.0) for row in rows), 1)
        for key in dict.fromkeys(key for row in rows for key in row)
        if key.startswith(TIMING_PREFIXES[0])
    }
    found = {
        "num_rollouts": trainer.loader.number + 1,
        "num_episodes": trainer.progress.episodes,
        "kl_coef": trainer.kl.coef,
        **phases,
    }
    if rollouts:
        found["score_first"] = rollouts[0]["score"]
    return found | last_rollouts(rollouts)
