"""The settings that stages share, beside TRL's own, and defaults that suit the machine."""

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlhf.config import parse_config
from rlhf.errors import ConfigError
from rlhf.manifest import jsonable
from rlhf.training.quiet import silence_known_noise
from rlhf.training.trackers import require_trackers

_CONFIG_CLASSES = {"sft": "SFTConfig", "reward": "RewardConfig", "dpo": "DPOConfig"}


@dataclass
class StageArguments:
    """What a training stage takes beside TRL's config of the trainer and TRL's ModelConfig."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "What to train on: a file (.jsonl, .jsonl.gz, .json, .parquet), a folder, a "
            "hub id, or feedback:STORE#CAMPAIGN."
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration name of a hub data set."}
    )
    dataset_train_split: str = field(
        default="train", metadata={"help": "Split to train on, of a hub data set or a folder."}
    )
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split of --eval_dataset_name to measure on."}
    )
    eval_dataset_name: str | None = field(
        default=None,
        metadata={"help": "What to measure on, as --dataset_name; overrides --eval_fraction."},
    )
    eval_fraction: float = field(
        default=0.0,
        metadata={"help": "Share of prompts held out by their hash, from 0 to below 1."},
    )
    split_seed: int = field(
        default=0,
        metadata={"help": "Which prompts are held out; the same number holds out the same ones."},
    )
    max_loss: float = field(
        default=0.05,
        metadata={"help": "Share of rows that may be dropped or cut; above it, exit code 5."},
    )
    chat_template_file: str | None = field(
        default=None,
        metadata={"help": "Jinja file that replaces the tokenizer's chat template."},
    )
    use_margin: bool = field(
        default=False,
        metadata={"help": "Reward: take the margin column into the loss, as TRL does."},
    )
    share_prefixes: Literal["auto", "never"] = field(
        default="auto",
        metadata={
            "help": "Reward and DPO: compute the prompt that chosen and rejected share once, "
            "in the batches where that pays."
        },
    )
    accelerate_config: str | None = field(
        default=None,
        metadata={
            "help": "Launch under accelerate with one of TRL's configs (multi_gpu, fsdp2, zero3 "
            "...) or the path of an accelerate YAML."
        },
    )
    restart: bool = field(
        default=False,
        metadata={"help": "Start over in --output_dir, whatever an earlier run left there."},
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was set for one training stage."""

    verb: str
    stage: StageArguments
    training: Any  # SFTConfig, RewardConfig or DPOConfig
    model: Any  # ModelConfig

    def as_dict(self) -> dict[str, Any]:
        """All settings, flat, as JSON can hold them."""
        values = self.training.to_dict() | asdict(self.model) | asdict(self.stage)
        return dict(jsonable(values))


def parse_settings(verb: str, argv: list[str], *, example: str) -> Settings:
    """The settings of `rlhf VERB ARGV`; ConfigError on anything unknown, missing or mistyped."""
    import trl

    silence_known_noise()
    config_class = getattr(trl, _CONFIG_CLASSES[verb])
    stage, training, model = parse_config(
        verb,
        (StageArguments, config_class, trl.ModelConfig),
        argv,
        example=example,
        defaults=stage_defaults(verb),
    )
    for key, value in (
        ("dataset_name", stage.dataset_name),
        ("model_name_or_path", model.model_name_or_path),
    ):
        if not value:
            raise ConfigError(f"--{key} is needed; for example: {example}")
    require_trackers(training.report_to)
    if not 0 <= stage.eval_fraction < 1:
        raise ConfigError(f"--eval_fraction {stage.eval_fraction}: must be at least 0 and below 1")
    return Settings(verb, stage, training, model)


def stage_defaults(verb: str) -> dict[str, Any]:
    """Defaults where TRL's do not suit: this machine's device, our folders, our checkpoints."""
    import torch

    defaults: dict[str, Any] = {
        "output_dir": f"runs/{verb}",
        "report_to": "none",
        "save_total_limit": 2,
        # A NaN hidden behind the average of the steps before it could not be stopped at.
        "logging_nan_inf_filter": False,
        # Every weight that is trained is used by every loss here; looking for others costs time.
        "ddp_find_unused_parameters": False,
    }
    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU") == "true":
        defaults |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    if verb == "reward":
        defaults |= {"lora_task_type": "SEQ_CLS", "eval_fraction": 0.1}
    return defaults
