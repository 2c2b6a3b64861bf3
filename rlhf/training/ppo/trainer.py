"""PPO on transformers' Trainer: rollouts when they are due, then steps on their micro-batches."""

import sys
from collections.abc import Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from rlhf.data.tokenization import Renderer
from rlhf.models.generation import batch_seed
from rlhf.models.rollouts.canary import LogpCanary
from rlhf.models.rollouts.engine import Sampled
from rlhf.models.trl_compat import OwnCheckpoints
from rlhf.training.monitoring import FiniteLoss
from rlhf.training.ppo.advantages import generalized_advantages
from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.construction import (
    as_actor_critic,
    as_sources,
    kl_controller,
    make_optimizer,
    make_rollout_engine,
    own_arguments,
    require_room,
    shared_specs,
)
from rlhf.training.ppo.evaluation import evaluate_prompts
from rlhf.training.ppo.kl import kl_estimate
from rlhf.training.ppo.loader import RolloutLoader
from rlhf.training.ppo.monitoring import PhaseClock, Watch
from rlhf.training.ppo.normalisation import standardize
from rlhf.training.ppo.objective import gradient_norm, step_loss
from rlhf.training.ppo.progress import Ending, Progress
from rlhf.training.ppo.ranks import OverRanks
from rlhf.training.ppo.rollout import MicroBatch, Rollout, pack_rollout
from rlhf.training.ppo.sampler import PromptSampler, part_of
from rlhf.training.ppo.scoring import read_rollout, score_rollout
from rlhf.training.ppo.state import CRITIC_NAME, read_state, restore, state_of, write_state
from rlhf.training.ppo.token_rewards import token_rewards

MAX_CONSTANT = 5
"""Rollouts in a row whose rewards were all the same number, after which a run ends."""


class PPOTrainer(OwnCheckpoints, FiniteLoss, OverRanks, Trainer):  # type: ignore[misc]
    """Proximal policy optimisation of a language model by what its completions are rewarded with.

        trainer = PPOTrainer(model, reward_funcs=[my_reward], args=PPOConfig(...),
                             train_dataset=prompts, processing_class=tokenizer, peft_config=lora)
        trainer.train()

    `model` is an ActorCritic, a causal language model or a PeftModel. `reward_funcs` are
    functions with TRL's signature, folders of reward models, or RewardSources. Data sets have a
    `prompt` column (text or messages); their other columns go to the reward functions. Override
    `rollout`, `score` or `advantages` for another way to sample, to score or to assign credit.
    """

    loss_is_scaled_for_ga = True
    optimizer: Any
    control: Any

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: PPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        peft_config: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        """ConfigError for settings that cannot be, DataError for prompts without room."""
        arguments = own_arguments(args or PPOConfig(output_dir="runs/ppo"), train_dataset)
        self.sources = as_sources(reward_funcs, arguments)
        super().__init__(
            model=as_actor_critic(model, arguments, self.sources, peft_config, processing_class),
            args=arguments,
            data_collator=list,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=list(callbacks or []),
        )
        self.renderer = renderer or Renderer(processing_class)
        require_room(self.renderer, arguments, self.model, [train_dataset, eval_dataset])
        self.shared = shared_specs(self.sources, self.model)
        self.engine = make_rollout_engine(self.model, self.renderer, arguments)
        order_seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        self.sampler = PromptSampler(len(train_dataset), order_seed)
        self.kl = kl_controller(arguments)
        self.clock = PhaseClock(synchronize=_synchronize(arguments.device))
        self.watch = Watch(arguments)
        self.progress = Progress()
        self.rollout_number = -1
        self._loader_state: dict[str, Any] | None = None
        self.loader = self.get_train_dataloader()
        self.step_tokens: Tensor | float = 1.0
        self.add_callback(Ending(self))

    # The hooks

    def rollout(self, rows: list[dict[str, Any]]) -> Rollout:
        """Completions of `rows`, one each; a row stands as often as its prompt is to be answered.

        Sampled by the engine, seeded by the run's seed and the rollout's number.
        """
        prompt_ids = [self.renderer.prompt_ids(row["prompt"]) for row in rows]
        return self.make_rollout(rows, prompt_ids, self.sample(prompt_ids))

    def score(self, rollout: Rollout) -> None:
        """Fill in the rollout's `scores` [N], and `token_scores` [N, T] or None; also of held-out
        prompts (`is_held_out`), each process then by itself.
        """
        options = {"reduce": self.reduce, "update": not rollout.is_held_out, "state": self.state}
        self.say(score_rollout(rollout, self.sources, **options))

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Advantages and returns [N, T] of a scored rollout: token rewards, then GAE."""
        options, mask = self.args, rollout.mask
        assert rollout.scores is not None
        assert rollout.values is not None
        assert rollout.logps is not None
        assert rollout.ref_logps is not None
        kl = kl_estimate(rollout.logps, rollout.ref_logps, options.kl_estimator)  # [N, T]
        price = self.kl.coef if options.kl_placement == "reward" else 0.0
        rollout.rewards = token_rewards(rollout.scores, kl, mask, price, rollout.token_scores)
        advantages, returns = generalized_advantages(
            rollout.rewards, rollout.values, mask, gamma=options.gamma, lam=options.lam
        )
        if options.standardize_advantages:
            advantages = standardize(advantages, mask, reduce=self.reduce)
        return advantages, returns

    def sample(self, prompt_ids: list[list[int]]) -> list[Sampled]:
        """A completion of each prompt from the engine; another call of a rollout draws the same."""
        seed = batch_seed(self.args.seed, self.rollout_number)
        first_row = len(prompt_ids) * self.args.process_index
        return self.engine.sample(prompt_ids, seed=seed, first_row=first_row)

    def make_rollout(
        self,
        rows: Sequence[dict[str, Any]],
        prompt_ids: Sequence[Sequence[int]],
        sampled: Sequence[Sampled],
    ) -> Rollout:
        """The rollout of these completions, put into the order of its micro-batches."""
        return pack_rollout(
            rows,
            prompt_ids,
            sampled,
            number=self.rollout_number,
            micro_batch_size=self.args.per_device_train_batch_size,
            tokenizer=self.processing_class,
            device=self.args.device,
        )

    # From prompts to micro-batches

    def begin_rollout(self, number: int) -> list[MicroBatch] | None:
        """Sample, read and score rollout `number`; None when there is to be no further one."""
        self.end_rollout()
        if self.watch.stop_reason or (
            self.num_rollouts is not None and number >= self.num_rollouts
        ):
            return None
        self.rollout_number = number
        with self.clock.phase("rollout"):
            self.engine.sync()
            rollout = self.rollout(self.draw_rows())
        self.clock.count("rollout", rollout.num_tokens)
        with self.clock.phase("score", tokens=rollout.num_tokens):
            self.fill(rollout)
        self.progress.note_rollout(self, rollout)
        return rollout.micro_batches()

    def draw_rows(self) -> list[dict[str, Any]]:
        """This process's rows of the next rollout, each as often as it is to be answered."""
        copies, world = self.args.num_generations, self.args.world_size
        indices = self.sampler.take(self.args.rollout_size * world // copies)
        mine = part_of(indices, self.args.process_index, world)
        return [dict(self.train_dataset[index]) for index in mine for _ in range(copies)]

    def fill(self, rollout: Rollout) -> None:
        """Everything that the loss reads of a rollout, each forward pass done once.

        StageError when the engine that sampled it is not the policy that will learn from it.
        """
        read_rollout(self.model, rollout, self.shared, self.args.temperature)
        if rollout.sampled_logps is not None:
            canary = LogpCanary(self.args.logp_tolerance, engine=self.engine.name)
            canary.check(rollout.sampled_logps, rollout.logps, rollout.mask, rollout.ref_logps)
        self.score(rollout)
        rollout.advantages, rollout.returns = self.advantages(rollout)

    def end_rollout(self) -> None:
        """Look at the rollout that has been learnt from; what is wrong is said in words."""
        metrics = self.progress.take_rollout(self)
        if not metrics:
            return
        was_stopping = self.watch.stop_reason is not None
        self.say(self.watch.look(metrics, step=self.state.global_step))
        if self.sources.num_constant >= MAX_CONSTANT and self.watch.stop_reason is None:
            self.watch.stop_reason = (
                f"all rewards of {self.sources.num_constant} rollouts in a row were the same number"
            )
        if self.watch.stop_reason and not was_stopping:
            self.say([f"the run ends here: {self.watch.stop_reason}"])

    @property
    def is_warming_up(self) -> bool:
        """Whether only the critic learns from the rollout at hand."""
        return bool(self.loader.number < self.args.critic_warmup)

    @property
    def num_rollouts(self) -> int | None:
        """How many rollouts the epochs give; None where `max_steps` decides."""
        if self.args.max_steps > 0:
            return None
        prompts = self.args.rollout_size * self.args.world_size / self.args.num_generations
        count: int = ceil(self.args.num_train_epochs * len(self.train_dataset) / prompts)
        return count

    def leaves_rollout(self) -> bool:
        """Whether the policy has moved too far from the one that sampled to go on with it."""
        target = self.args.target_kl
        return target is not None and self.progress.approx_kl > target

    # What transformers' Trainer asks for

    def get_train_dataloader(self) -> Any:
        """Not prepared by accelerate, whose loaders fetch a batch ahead."""
        self.loader = RolloutLoader(
            self.begin_rollout,
            num_iterations=self.args.num_iterations,
            seed=self.args.seed,
            leaves=self.leaves_rollout,
        )
        if self._loader_state is not None:
            self.loader.load_state_dict(self._loader_state, self.args.device)
            self._loader_state = None
        return self.loader

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple[Any, ...]:
        """One long epoch of as many steps as `max_steps` or the epochs over the prompts give."""
        rollouts = self.num_rollouts
        steps = args.max_steps if rollouts is None else rollouts * args.steps_per_rollout
        batch = self.get_total_train_batch_size(args)
        samples = steps * batch
        accumulated = steps * args.gradient_accumulation_steps
        return 1, steps, len(self.train_dataset), samples, batch, accumulated, steps

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: Any
    ) -> tuple[list[Any], Any]:
        """A minibatch, and the completion tokens in it over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            self._end_early()
            return [], None
        self.step_tokens = self.reduce(torch.stack([each["mask"].sum() for each in batches]).sum())
        return batches, self.step_tokens

    def training_step(
        self, model: Any, inputs: MicroBatch, num_items_in_batch: Any = None
    ) -> Tensor:
        """The gradients of one micro-batch; while the critic warms up the policy gets none."""
        tokens = int(inputs["mask"].sum())
        with self.clock.phase("train", tokens=tokens):
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.is_warming_up:
            for weight in self.model.policy_parameters():
                weight.grad = None
        if self.accelerator.sync_gradients:
            self._end_step()
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: MicroBatch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a micro-batch: sums over its tokens, divided by those of the whole step."""
        options = self.args
        has_bonus = options.entropy_coef != 0 and not self.is_warming_up
        outputs = model(
            inputs["transcripts"],
            "policy",
            temperature=options.temperature,
            with_entropy=has_bonus,
            entropy_grad=has_bonus,
        )
        loss, stats = step_loss(
            outputs,
            inputs,
            options,
            total=self.step_tokens if num_items_in_batch is None else num_items_in_batch,
            kl_coef=self.kl.coef,
            critic_only=self.is_warming_up,
        )
        self.progress.step.add(stats)
        # DDP takes the mean of the processes' gradients, and this is a part of their sum.
        loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> Any:
        """Policy and critic in groups of their own, since each may have its learning rate."""
        if self.optimizer is None:
            self.model.keep_trainable()
            self.optimizer = make_optimizer(self, model or self.model)
        return self.optimizer

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Sample each held-out prompt once, always by the same draws, and score it."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        metrics = evaluate_prompts(self, rows, metric_key_prefix)
        if self.is_in_train:  # what is measured afterwards is of the best step, not of the last
            self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what rollouts and updates since the last row have measured."""
        if "loss" in logs:
            logs |= self.progress.take_log(self) | self.clock.metrics()
        self.state.epoch = self.sampler.epochs
        super().log({key: each for key, each in logs.items() if _is_finite(each)}, start_time)

    # Checkpoints

    def save_weights(self, folder: Path) -> None:
        """The policy as a plain adapter (or model) at the root of `folder`, the critic in it."""
        main = self.is_world_process_zero()
        self.model.save_policy(folder, is_main=main)
        self.model.save_critic(folder / CRITIC_NAME, is_main=main)
        if main:
            self.processing_class.save_pretrained(folder)

    def save_state(self, folder: Path) -> None:
        """Where this process stands, down to the rollout at hand."""
        write_state(folder, self.args.process_index, state_of(self))

    def load_checkpoint(self, folder: Path) -> None:
        """Go on from a checkpoint; DataError naming what it lacks."""
        state = read_state(folder, self.args.process_index)
        self.model.load_policy(folder)
        self.model.load_critic(folder / CRITIC_NAME)
        self.model.keep_trainable()
        self._loader_state = state["loader"]
        self.loader.load_state_dict(state["loader"], self.args.device)  # FSDP has made it already
        self.rollout_number = self.loader.number
        restore(self, state)

    def say(self, warnings: Sequence[str]) -> None:
        """Warnings for people, once for all processes."""
        if self.is_world_process_zero():
            for words in warnings:
                print(f"rollout {self.rollout_number + 1}: {words}", file=sys.stderr)

    def _end_step(self) -> None:
        """Keep what the step measured, its gradients' norms before they are clipped too."""
        means = self.progress.end_step(self.step_tokens, is_first=self._is_first_step())
        means["grad_norm_policy"] = gradient_norm(self.model.policy_parameters())
        means["grad_norm_critic"] = gradient_norm(self.model.critic_parameters())
        self.progress.keep_step(means, self)

    def _is_first_step(self) -> bool:
        return bool(self.loader.position == self.args.gradient_accumulation_steps)

    def _end_early(self) -> None:
        """There is no further rollout: log and save what there is, unless that is done."""
        self.control.should_training_stop = True
        self.control.should_log = True
        if self.args.save_strategy != "no":
            saved = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self.control.should_save = not saved.is_dir()


def _synchronize(device: torch.device) -> Any:
    return torch.cuda.synchronize if device.type == "cuda" else None


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)
