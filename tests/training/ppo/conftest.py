"""A PPOTrainer on a tiny model, put together as a researcher would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.training.ppo.config import PPOConfig
from rlhf.training.ppo.rollout import Rollout
from rlhf.training.ppo.trainer import PPOTrainer

BASIC: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "max_steps": 4,
    "max_completion_length": 8,
    "learning_rate": 1e-2,
    "save_strategy": "no",
    "log_completions": False,
}
"""A rollout is 8 completions, learnt from in 4 steps of 4."""


def prompts(number: int = 10) -> Dataset:
    rows = [
        {"prompt": [{"role": "user", "content": f"question {index}?"}], "tag": index}
        for index in range(number)
    ]
    return Dataset.from_list(rows)


def variety(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float]:
    """Rewards completions of many different tokens; no two random ones are quite alike."""
    return [len(set(ids)) / 10 + ids[0] / 1000 for ids in completion_ids]


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options)


@pytest.fixture
def make_trainer(tiny_model: Path, tmp_path: Path) -> Callable[..., PPOTrainer]:
    """`make_trainer(**settings)`; `kind`, `rewards`, `dataset`, `dtype`, `peft` and the trainer's
    own arguments beside PPOConfig's."""

    def make(
        kind: type[PPOTrainer] = PPOTrainer,
        rewards: Any = variety,
        dataset: Any = None,
        dtype: torch.dtype = torch.float32,
        peft: Any = "lora",
        model: Any = None,
        trainer_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> PPOTrainer:
        torch.manual_seed(0)  # of the LoRA weights
        arguments = PPOConfig(**({"output_dir": str(tmp_path / "ppo")} | BASIC | settings))
        return kind(
            model or AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype),
            reward_funcs=rewards,
            args=arguments,
            train_dataset=prompts() if dataset is None else dataset,
            processing_class=AutoTokenizer.from_pretrained(tiny_model),
            peft_config=lora() if peft == "lora" else peft,
            **(trainer_options or {}),
        )

    return make


def column(trainer: PPOTrainer, name: str) -> list[float]:
    """The values of a metric in the log."""
    return [row[name] for row in trainer.state.log_history if name in row]


def copied(weights: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in weights]


def are_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def noted_rollouts(trainer: PPOTrainer) -> list[Rollout]:
    """The rollouts of a whole training, filled."""
    rollouts: list[Rollout] = []
    plain = trainer.fill

    def noting(rollout: Rollout) -> None:
        plain(rollout)
        rollouts.append(rollout)

    trainer.fill = noting  # type: ignore[method-assign]
    trainer.train()
    return rollouts
