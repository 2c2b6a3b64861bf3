"""From what a caller gives to what PPOTrainer works with: models, sources, engine, optimizer."""

from collections.abc import Callable, Iterable
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, set_seed

from rlhf.config import nearest_hint
from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, DataError
from rlhf.models.actor_critic import POLICY_ADAPTER, ActorCritic
from rlhf.models.actor_critic_building import without_dropout
from rlhf.models.generation import context_length, end_token_ids
from rlhf.models.rollouts.engine import RolloutEngine, Sampling, make_engine
from rlhf.models.rollouts.vllm_engine import VllmOptions
from rlhf.training.options import OnlineArguments
from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.config_checks import refuse_impossible_ppo, refuse_uneven_rollouts
from rlhf.training.ppo.kl import AdaptiveKL, FixedKL
from rlhf.training.rewards.checks import source_weights
from rlhf.training.rewards.functions import function_sha256
from rlhf.training.rewards.scoring import RewardSources
from rlhf.training.rewards.sources import (
    RewardSource,
    load_sources,
    numbered,
    refuse_twice,
)


def own_arguments(arguments: PPOConfig, train_dataset: Any) -> PPOConfig:
    """A copy of the settings with what this trainer has to have; ConfigError for the impossible."""
    refuse_impossible(arguments)
    if train_dataset is None or len(train_dataset) == 0:
        raise ConfigError("train_dataset: no prompts to sample from; give rows with a prompt")
    if "prompt" not in train_dataset[0]:
        columns = list(train_dataset[0])
        hint = nearest_hint("prompt", columns)
        raise DataError(f"train_dataset: no column 'prompt'{hint} (it has: {', '.join(columns)})")
    own = copy(arguments)
    own.remove_unused_columns = False
    own.ignore_data_skip = True  # the loader knows where it stands
    if own.ddp_find_unused_parameters is None:
        own.ddp_find_unused_parameters = False  # one backward pass has every trained weight
    return own


def refuse_impossible(arguments: PPOConfig) -> None:
    """ConfigError for values out of their range, or that exclude each other."""
    refuse_impossible_ppo(arguments)
    refuse_uneven_rollouts(arguments)
    if arguments.rollout_size % arguments.num_generations:
        raise ConfigError(
            f"--num_generations {arguments.num_generations}: must divide a process's rollout of "
            f"{arguments.rollout_size} completions (--per_device_train_batch_size times "
            "--steps_per_generation)"
        )


def as_sources(reward_funcs: Any, arguments: PPOConfig) -> RewardSources:
    """RewardSources of functions and of folders with reward models (which need a passed gate).

    Names and errors are those of `load_sources`: the second source of a name gets -2, and the same
    function or folder twice is refused.
    """
    if isinstance(reward_funcs, RewardSources):
        return reward_funcs
    given = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
    weights = source_weights(len(given), arguments.reward_weights)
    refuse_twice([_identity(one) for one in given])
    sources = [
        of_function(one, weight) if callable(one) else of_folder(one, arguments, weight)
        for one, weight in zip(given, weights, strict=True)
    ]
    names = numbered([source.name for source in sources])
    named = [replace(each, name=name) for each, name in zip(sources, names, strict=True)]
    return RewardSources(named, arguments)


def _identity(source: Any) -> str:
    """What tells two sources apart: the folder, or which function it is, whatever it is called."""
    if not callable(source):
        return str(Path(source).resolve())
    return f"{getattr(source, '__name__', type(source).__name__)} ({id(source):x})"


def of_function(function: Callable[..., Any], weight: float) -> RewardSource:
    """A reward function as a source."""
    name = getattr(function, "__name__", type(function).__name__)
    sha256 = function_sha256(function, name)
    return RewardSource(name=name, weight=weight, sha256=sha256, function=function, origin=name)


def of_folder(folder: str | Path, arguments: PPOConfig, weight: float) -> RewardSource:
    """A reward model of the reward stage as a source whose adapters come onto the policy's base."""
    stage = OnlineArguments(reward_model_name_or_path=[str(folder)])
    alone = copy(arguments)
    alone.reward_weights = [weight]
    return load_sources(stage, alone, shared=True).sources[0]


def shared_specs(sources: RewardSources, model: ActorCritic) -> dict[str, tuple[str, Any]]:
    """Of each source that the base itself scores by: its name among the model's, and its spec."""
    names = list(model.rewards)
    shared = [source for source in sources.sources if source.is_shared]
    if len(names) < len(shared):
        raise ConfigError(
            f"{shared[len(names)].origin}: the model given has no adapter of this reward model; "
            "give the base model and peft_config, or the reward model loaded by itself"
        )
    return {source.name: (names[at], source.spec) for at, source in enumerate(shared)}


def as_actor_critic(
    model: Any, arguments: PPOConfig, sources: RewardSources, peft_config: Any, tokenizer: Any
) -> ActorCritic:
    """`model` with a critic and the shared reward models' adapters; an ActorCritic as it is."""
    if isinstance(model, ActorCritic):
        found = model
    else:
        set_seed(arguments.seed)  # of the new adapters' weights
        folders = [source.folder for source in sources.sources if source.is_shared]
        if hasattr(model, "peft_config"):
            found = _around_adapter(model, arguments, folders)
        else:
            found = ActorCritic.build(
                model,
                lora_config=peft_config,
                reward_dir=folders,
                critic=arguments.critic,
                critic_init=arguments.critic_init,
                separate_reference=deepcopy(model) if peft_config is None else None,
                tokenizer=tokenizer,
            )
    without_dropout(found)
    if arguments.activation_checkpointing:
        found.gradient_checkpointing_enable(arguments.activation_checkpointing_kwargs)
        # The Trainer would do it too, and not know of the adapters.
        arguments.activation_checkpointing = arguments.gradient_checkpointing = False
    return found


def _around_adapter(policy: Any, arguments: PPOConfig, folders: list[Any]) -> ActorCritic:
    if folders or arguments.critic != "head" or arguments.critic_init == "reward":
        raise ConfigError(
            "a model that has its adapter already can have no further ones for reward or critic; "
            "give its base and peft_config"
        )
    if POLICY_ADAPTER not in policy.peft_config:
        raise ConfigError(
            f"model: its adapter is called {', '.join(policy.peft_config)}; the one to train has "
            f"to be called {POLICY_ADAPTER}, as get_peft_model names it"
        )
    head = nn.Linear(policy.config.get_text_config().hidden_size, 1, device=policy.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return ActorCritic(policy, head)


def make_rollout_engine(
    model: ActorCritic, renderer: Renderer, arguments: PPOConfig
) -> RolloutEngine:
    """What samples, by the settings."""
    base: Any = model.policy.get_base_model() if model.uses_lora else model.policy
    sampling = Sampling(
        max_new_tokens=arguments.max_completion_length,
        pad_id=renderer.tokenizer.pad_token_id,
        end_ids=tuple(end_token_ids(base, renderer.tokenizer, renderer)),
        temperature=arguments.temperature,
        batch_size=arguments.rollout_batch_size,
    )
    return make_engine(
        model.policy,
        sampling,
        copy=arguments.rollout_copy,
        vllm=vllm_options(base, arguments) if arguments.use_vllm else None,
    )


def vllm_options(base: Any, arguments: PPOConfig) -> VllmOptions:
    """What vLLM has to know of the base that it loads for itself."""
    return VllmOptions(
        base=str(base.name_or_path),
        dtype=str(base.dtype).removeprefix("torch."),
        gpu_memory_utilization=arguments.vllm_gpu_memory_utilization,
        context=context_length(base),
    )


def kl_controller(arguments: PPOConfig) -> FixedKL:
    """What sets the price of KL."""
    if arguments.kl_controller == "fixed":
        return FixedKL(arguments.kl_coef)
    target, horizon = arguments.kl_target, arguments.kl_horizon
    return AdaptiveKL(arguments.kl_coef, target=target, horizon=horizon)


def require_room(
    renderer: Renderer, arguments: PPOConfig, model: ActorCritic, datasets: Iterable[Any]
) -> None:
    """DataError for a prompt that leaves no room for a completion in the model's context."""
    context = context_length(model)
    limit = arguments.max_completion_length
    for rows in datasets:
        for number, row in enumerate(rows if rows is not None else [], 1):
            length = len(renderer.prompt_ids(row["prompt"]))
            if length == 0:
                raise DataError(f"row {number}: the prompt is empty; drop it or write one")
            if context is not None and length + limit > context:
                raise DataError(
                    f"row {number}: a prompt of {length} tokens leaves no room for "
                    f"--max_completion_length {limit} in the model's context of {context}; drop "
                    "it, or lower the limit"
                )


def make_optimizer(trainer: Any, model: Any) -> torch.optim.Optimizer:
    """transformers' optimizer with the policy's weights first, then the critic's; of each those
    that decay and those that do not.
    """
    arguments = trainer.args
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    decaying = set(trainer.get_decay_parameter_names(model))
    names = {id(weight): name for name, weight in model.named_parameters()}
    critic_rate = arguments.critic_learning_rate
    parts = (
        (trainer.model.policy_parameters(), arguments.learning_rate),
        (
            trainer.model.critic_parameters(),
            arguments.learning_rate if critic_rate is None else critic_rate,
        ),
    )
    groups = []
    for weights, rate in parts:
        for decays in (True, False):
            chosen = [weight for weight in weights if (names[id(weight)] in decaying) == decays]
            decay = arguments.weight_decay if decays else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "lr": rate})
    made: torch.optim.Optimizer = kind([group for group in groups if group["params"]], **options)
    return made
