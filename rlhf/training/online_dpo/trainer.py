"""The DPO trainer whose epochs are rounds."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import get_peft_config

from rlhf.data.tokenization import Renderer
from rlhf.models.generation import end_token_ids
from rlhf.models.rollouts.engine import Sampling, make_engine
from rlhf.training.arguments import Settings
from rlhf.training.base import load_base
from rlhf.training.dpo.trainer import GuardedDPOTrainer
from rlhf.training.dpo.watch import WatchCallback, Watched
from rlhf.training.online_dpo.batches import RoundRows, make_loader
from rlhf.training.online_dpo.plan import RoundPlan
from rlhf.training.online_dpo.rounds import Rounds
from rlhf.training.stage import callbacks, trainer_arguments


class OnlineDPOTrainer(GuardedDPOTrainer):
    """The DPO stage's trainer on rows that are made when their round begins.

    An epoch of the Trainer is a round, so checkpoints, schedule and log are those of one run.
    """

    rounds: Rounds
    plan: RoundPlan
    learns = True
    """Whether the round at hand has pairs."""

    def begin_round(self, places: Sequence[str], mean_batch: float | None) -> None:
        """Take note of the pairs to come: where each stands, and the mean size of a micro-batch
        where sizes differ.
        """
        self.row_places = places
        self.learns = bool(places)
        self.mean_batch = mean_batch

    def get_train_dataloader(self) -> Any:
        """The loader of this process; accelerate's own would begin a round before the last step
        of the one before.
        """
        rows = RoundRows(self.plan, self.train_dataset[0])
        return make_loader(rows, self.rounds.begin, self.data_collator, self.args.process_index)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of one micro-batch; of a round without pairs 0 and no gradient, so that the
        optimizer's step changes nothing.
        """
        if self.learns:
            return super().training_step(model, inputs, *args, **kwargs)
        model.train()
        return Tensor([0.0]).to(self.args.device)[0]


class RoundEnds(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint at the end of each round: sampling it again would take the longest."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step % self.num_steps == 0 and args.save_strategy.value == "steps":
            control.should_save = True


def make_trainer(
    settings: Settings, renderer: Renderer, plan: RoundPlan, rounds: Rounds
) -> OnlineDPOTrainer:
    """The trainer and the engine that samples for it."""
    base = load_base(settings)
    full = not settings.model.use_peft
    arguments = trainer_arguments(settings)
    total = plan.num_rounds * plan.num_steps
    arguments.max_steps = min(arguments.max_steps, total) if arguments.max_steps > 0 else total
    arguments.max_length = None  # nothing is longer than what was sampled
    arguments.ignore_data_skip = False  # a continued round begins where it stood
    prompt = renderer.prompt_ids(rounds.prompts[0]["prompt"])
    end = [renderer.turn_end_id]
    placeholder = {"prompt_ids": prompt, "chosen_ids": end, "rejected_ids": end, "row": 0}
    end_ids = end_token_ids(base, renderer.tokenizer, renderer)
    watch = WatchCallback(watched(settings))
    trainer = OnlineDPOTrainer(
        model=base,
        ref_model=load_base(settings) if full else None,
        args=arguments,
        train_dataset=Dataset.from_list([placeholder]),
        processing_class=renderer.tokenizer,
        peft_config=get_peft_config(settings.model),
        callbacks=[RoundEnds(plan.num_steps), *callbacks(settings), watch],
    )
    trainer.plan, trainer.rounds = plan, rounds
    rounds.trainer = trainer
    rounds.sampling = sampling_of(settings, renderer, end_ids)
    copy = rounds.stage.rollout_copy
    rounds.engine = make_engine(trainer.model, rounds.sampling, copy=copy)
    return trainer


def watched(settings: Settings) -> Watched:
    """What the causes that the DPO stage watches for know of the run."""
    training = settings.training
    return Watched(beta=training.beta, loss_types=tuple(training.loss_type))


def sampling_of(settings: Settings, renderer: Renderer, end_ids: list[int]) -> Sampling:
    """How completions are drawn."""
    stage: Any = settings.stage
    return Sampling(
        max_new_tokens=stage.max_completion_length,
        pad_id=renderer.tokenizer.pad_token_id,
        end_ids=tuple(end_ids),
        temperature=stage.temperature,
        batch_size=stage.rollout_batch_size,
    )
