"""PPO as `rlhf ppo` trains it, in a process of its own, and measured.

    python benchmarks/ppo_ours.py RUN.json RESULT.json

It is put together without the stage around it: no gate is asked, since the reward model that time
is measured with has learnt nothing.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ppo_runs import (
    CLIP,
    GAMMA,
    LAM,
    TEMPERATURE,
    VALUE_CLIP,
    VALUE_COEF,
    Clock,
    Run,
    after,
    dtypes,
    main,
    peak_gb,
)


def train(run: Run) -> dict[str, Any]:
    """Train in this process: phases of each update, peak memory, log, what dtypes it had."""
    with TemporaryDirectory() as folder:
        trainer = make_trainer(run, folder)
        clock = watched(trainer, run)
        clock.begin()
        trainer.train()
        peak = peak_gb()
        if run.adapter is not None:
            Path(run.adapter).mkdir(parents=True, exist_ok=True)
            trainer.model.save_policy(Path(run.adapter))
    log = trainer.state.log_history
    return {
        "updates": clock.updates,
        "peak_gb": peak,
        "scores": [row["score"] for row in log if "score" in row],
        "log": log,
        "policy_dtypes": parameter_dtypes(trainer.model.policy_parameters()),
        "optimizer_dtypes": state_dtypes(trainer),
        "value_dtypes": parameter_dtypes(trainer.model.critic_parameters()),
        "num_tokens": clock.num_tokens,
    }


def make_trainer(run: Run, folder: str) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig

    from rlhf.models.loading import load_policy, load_tokenizer
    from rlhf.training.ppo.trainer import PPOTrainer

    torch.manual_seed(run.seed)  # of the LoRA weights
    arguments = config(run, folder)
    rows = [json.loads(line) for line in Path(run.prompts).read_text().splitlines()]
    trainer: Any = PPOTrainer(
        load_policy(run.policy, dtype=run.dtype, device="cpu"),
        reward_funcs=reward_sources(run, arguments),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(run.policy),
        peft_config=LoraConfig(
            r=run.lora_r,
            lora_alpha=run.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    if run.ignore_eos:
        trainer.engine.sampling = replace(trainer.engine.sampling, ignore_end=True)
    return trainer


def reward_sources(run: Run, arguments: Any) -> Any:
    """The reward model's adapter, which goes onto the policy's base."""
    from rlhf.models.reward_spec import RewardSpec
    from rlhf.training.rewards.scoring import RewardSources
    from rlhf.training.rewards.sources import RewardSource

    source = RewardSource(
        name="reward",
        weight=1.0,
        sha256="",
        folder=Path(run.reward),
        spec=RewardSpec.read(run.reward),
        origin=run.reward,
    )
    return RewardSources([source], arguments)


def config(run: Run, folder: str) -> Any:
    """Our PPOConfig; what is not named here keeps its default."""
    from rlhf.training.ppo.config import PPOConfig

    given: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": run.micro_batch_size,
        "gradient_accumulation_steps": run.num_completions // run.micro_batch_size,
        "num_iterations": run.num_iterations,
        "max_steps": run.num_updates * run.num_iterations,
        "max_completion_length": run.max_new_tokens,
        "missing_eos_penalty": run.missing_eos_penalty,
        "temperature": TEMPERATURE,
        "learning_rate": run.learning_rate,
        "lr_scheduler_type": "constant",
        "kl_coef": run.kl_coef,
        "epsilon": CLIP,
        "epsilon_value": VALUE_CLIP,
        "vf_coef": VALUE_COEF,
        "gamma": GAMMA,
        "lam": LAM,
        "critic": "head",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": run.num_iterations,  # once an update, as TRL does
        "log_completions": False,
        "seed": run.seed,
    }
    return PPOConfig(**given | run.options)


def watched(trainer: Any, run: Run) -> Clock:
    """A clock on the trainer's own hooks, which do what they did."""
    from transformers import TrainerCallback

    clock = Clock()

    def sampled(rollout: Any) -> None:
        clock.sampled()
        clock.count(rollout.num_tokens)

    training_step = trainer.training_step

    def training_step_noted(*args: Any, **rest: Any) -> Any:
        clock.trains()
        return training_step(*args, **rest)

    trainer.rollout = after(trainer.rollout, sampled)
    trainer.training_step = training_step_noted

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _args: Any, state: Any, *_: Any, **_rest: Any) -> None:
            if state.global_step % run.num_iterations == 0:
                clock.end()

    trainer.add_callback(Steps())
    return clock


def parameter_dtypes(parameters: Any) -> dict[str, int]:
    return dtypes(("", one) for one in parameters)


def state_dtypes(trainer: Any) -> dict[str, list[str]]:
    """The dtypes of what AdamW remembers of the policy's weights and of the critic's."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    parts = {
        "policy": trainer.model.policy_parameters(),
        "value_model": trainer.model.critic_parameters(),
    }
    return {
        name: sorted(
            {
                str(optimizer.state[one][key].dtype).removeprefix("torch.")
                for one in weights
                for key in ("exp_avg", "exp_avg_sq")
            }
        )
        for name, weights in parts.items()
    }


if __name__ == "__main__":
    main(train)
