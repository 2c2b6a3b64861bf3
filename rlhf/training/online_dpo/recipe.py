"""The recipe of online DPO, from prompts to an adapter or a whole model."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rlhf.records import content_hash
from rlhf.training.arguments import Settings
from rlhf.training.dpo.watch import warnings_of
from rlhf.training.monitoring import log_rows
from rlhf.training.online_dpo.files import clear_rounds
from rlhf.training.online_dpo.heldout import measure
from rlhf.training.online_dpo.judges import make_judge
from rlhf.training.online_dpo.labelling import JudgeLabeller, Labeller, RewardLabeller
from rlhf.training.online_dpo.plan import plan_rounds
from rlhf.training.online_dpo.rounds import Rounds
from rlhf.training.online_dpo.summary import run_summary
from rlhf.training.online_dpo.trainer import make_trainer, watched
from rlhf.training.prompts import read_columns
from rlhf.training.rewards.sources import load_sources
from rlhf.training.saving import replacing_files
from rlhf.training.stage import (
    Inputs,
    claim_output,
    description_of,
    finish,
    is_main,
    load_inputs,
    load_renderer,
    manifest_of,
    run_trainer,
    wait_for_everyone,
)

__all__ = ["read_columns", "train_online_dpo"]


def train_online_dpo(settings: Settings) -> None:
    """Tune a policy by DPO in rounds on pairs of its own completions; leaves an adapter (LoRA) or
    a whole model in `output_dir`, and each round's pairs in `round-NN`.

    The reference is the starting model throughout. Errors as the pieces below: ConfigError,
    DataError, GateError (a reward model without a passed gate), StageError.
    """
    # 1. Find who labels, and hold reward models to their gate; read the prompts; plan the rounds.
    labeller = load_labeller(settings)
    inputs = load_inputs(settings)
    if isinstance(labeller, RewardLabeller):
        inputs.further = labeller.sources.inputs()
    renderer = load_renderer(settings)
    train_rows, eval_rows = read_columns(settings, renderer, inputs)
    plan = plan_rounds(settings.stage, settings.training, len(train_rows))

    # 2. Take the output folder: continue an interrupted run of the same settings and data.
    claim = claim_output(settings, inputs)
    if claim.finished:
        return
    run = run_hash(settings, inputs, labeller)
    if claim.checkpoint is None and is_main(settings):
        kept = None if settings.stage.restart else run
        clear_rounds(Path(settings.training.output_dir), kept=kept)
    wait_for_everyone(settings)

    with manifest_of(settings, inputs) as manifest:
        manifest.provenance["labels"] = labeller.provenance()

        # 3. Sample, label and learn, as many rounds as the settings say.
        simulated = inputs.simulated
        rounds = Rounds(
            settings, renderer, plan, train_rows, labeller, run=run, simulated=simulated
        )
        trainer = make_trainer(settings, renderer, plan, rounds)
        if is_main(settings):
            print(rounds.engine.describe(), file=sys.stderr)
        manifest.metrics |= run_trainer(trainer, claim, settings)
        manifest.metrics |= {"num_train": len(train_rows), "num_eval": len(eval_rows)}
        manifest.metrics |= run_summary(rounds.records())
        say_warnings(manifest.metrics["warnings"], settings)
        manifest.metrics["warnings"] += warnings_of(log_rows(trainer.state), watched(settings))

        # 4. Measure policy and reference on the prompts held out, if any.
        manifest.metrics |= measure(rounds, eval_rows)

        # 5. Save the adapter, or the whole model, with its tokenizer.
        folder = Path(settings.training.output_dir)
        with replacing_files(folder, is_main=is_main(settings)) as staging:
            trainer.save_model(str(staging))
        rounds.engine.close()
        finish(trainer, settings)


def load_labeller(settings: Settings) -> Labeller:
    """The judge or the sources of rewards that the settings name; errors as `load_sources`."""
    stage: Any = settings.stage
    judge = make_judge(stage)
    if judge is not None:
        return JudgeLabeller(judge)
    sources = load_sources(
        stage,
        SimpleNamespace(reward_weights=stage.reward_weights, device=settings.training.device),
        shared=False,
        dtype=settings.model.dtype,
    )
    return RewardLabeller(sources, summing(settings))


def summing(settings: Settings) -> Any:
    """What sums a CPU tensor over processes; None for one process."""
    if settings.training.world_size == 1:
        return None

    def summed(values: Tensor) -> Tensor:
        from accelerate.utils import reduce

        total: Tensor = reduce(values.to(settings.training.device), reduction="sum")
        return total.to(values.device, torch.float64)

    return summed


def run_hash(settings: Settings, inputs: Inputs, labeller: Labeller) -> str:
    """What two runs must share for one to take over a round that the other has labelled: all
    that decides the result, and who labels.
    """
    described = description_of(settings, inputs)
    named = ("name", "weight", "sha256")
    who = [{key: each.get(key) for key in named} for each in labeller.provenance()]
    return content_hash([described, who])


def say_warnings(warnings: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Print what the run came to; the labeller's own words were said when they arose."""
    for each in warnings:
        if is_main(settings) and each["cause"] != "labelling":
            print(f"warning: {each['words']}", file=sys.stderr)
