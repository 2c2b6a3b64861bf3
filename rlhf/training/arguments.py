"""The settings that stages share, beside TRL's own, and defaults that suit the machine."""

import os
import pydoc
from dataclasses import asdict, dataclass, field
from math import inf, nan
from typing import Any, Literal

from rlhf.config import parse_config
from rlhf.data.losses import MAX_LOSS, require_max_loss
from rlhf.errors import ConfigError
from rlhf.manifest import jsonable
from rlhf.training.ppo.config_checks import refuse_impossible_online
from rlhf.training.quiet import silence_known_noise
from rlhf.training.rewards.options import ScoreOptions
from rlhf.training.trackers import require_trackers

_CONFIG_CLASSES = {
    "sft": "trl.SFTConfig",
    "reward": "trl.RewardConfig",
    "dpo": "trl.DPOConfig",
    "ppo": "rlhf.training.ppo.config.PPOConfig",
    "rloo": "trl.RLOOConfig",
    "grpo": "trl.GRPOConfig",
}
ONLINE = ("ppo", "rloo", "grpo")
"""Stages whose policy writes what it learns from."""


MAX_WEIGHT = 1e6
"""Of a criterion in the scalar: the sum of a few heads stays a number that fp32 holds."""


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
        default=MAX_LOSS,
        metadata={"help": "Share of rows that may be dropped or cut; above it, exit code 5."},
    )
    chat_template_file: str | None = field(
        default=None,
        metadata={"help": "Jinja file that replaces the tokenizer's chat template."},
    )
    label_method: Literal["votes", "dawid_skene", "crowd_bt", "auto"] = field(
        default="votes",
        metadata={
            "help": "How judgements become labels: shares of votes, or a model of how reliable "
            "each rater is; auto picks the model that the comparisons allow."
        },
    )
    rendering: Literal["chat", "plain"] = field(
        default="chat",
        metadata={
            "help": "Render messages by the chat template, or as plain text with the "
            "roles written out."
        },
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


@dataclass
class RewardArguments(StageArguments):
    """What the reward stage takes beside what every stage takes."""

    use_margin: bool = field(
        default=False,
        metadata={
            "help": "Take the margin column into the loss: whichever side is better must lead by "
            "that much. Of rows without p_chosen it is TRL's loss."
        },
    )
    margin_scale: float = field(
        default=1.0,
        metadata={"help": "What the margin column is multiplied by, with --use_margin."},
    )
    labels: Literal["auto", "hard", "soft"] = field(
        default="auto",
        metadata={
            "help": "Soft labels learn from p_chosen, hard ones take chosen as certain; "
            "auto is soft where rows carry p_chosen."
        },
    )
    ties: Literal["auto", "drop", "keep"] = field(
        default="auto",
        metadata={
            "help": "Pairs with p_chosen 0.5; auto keeps them with soft labels and drops "
            "them with hard ones."
        },
    )
    criteria: str | None = field(
        default=None,
        metadata={
            "help": "A head for each criterion with its weight in the score, such as "
            "helpfulness=0.65,correctness=0.8; rows say p_chosen by it in their criteria column."
        },
    )
    num_members: int = field(
        default=1,
        metadata={
            "help": "Adapters and heads trained side by side on one base; their spread "
            "says how unsure the score is. 1 is no ensemble."
        },
    )
    member_bagging: bool = field(
        default=False,
        metadata={
            "help": "Each member sees its own draw of the pairs (weights from Poisson(1)) "
            "beside its own fresh weights."
        },
    )
    early_stopping_patience: int = field(
        default=0,
        metadata={
            "help": "Stop after so many evaluations without a better held-out loss, and "
            "keep the best checkpoint; 0 trains to the end."
        },
    )


@dataclass
class OnlineArguments(StageArguments):
    """What a stage takes whose policy writes completions that are scored as it learns."""

    reward_model_name_or_path: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of the reward stage; each is a source of rewards."},
    )
    reward_funcs: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Further sources of rewards, with TRL's signature: package.module.function, "
            "FILE.py:function, or a name in trl.rewards."
        },
    )
    separate_reward_model: bool = field(
        default=False,
        metadata={
            "help": "Load each reward model whole beside the policy, whatever base it has; "
            "otherwise PPO puts its adapters onto the policy's own base, which must be theirs."
        },
    )
    gate_dir: list[str] = field(
        default_factory=list,
        metadata={
            "help": "The passed gate of each reward model; the folder `gate` beside it unless "
            "given."
        },
    )


@dataclass
class TrlOnlineArguments(ScoreOptions, OnlineArguments):
    """The same beside TRL's RLOOConfig or GRPOConfig, which shape no scores."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was set for one training stage."""

    verb: str
    stage: StageArguments
    training: Any  # SFTConfig, RewardConfig, DPOConfig, PPOConfig ...
    model: Any  # ModelConfig

    def as_dict(self) -> dict[str, Any]:
        """All settings, flat, as JSON can hold them."""
        values = self.training.to_dict() | asdict(self.model) | asdict(self.stage)
        return dict(jsonable(values))


_STAGE_CLASSES = {
    "reward": RewardArguments,
    "ppo": OnlineArguments,
    "rloo": TrlOnlineArguments,
    "grpo": TrlOnlineArguments,
}


def parse_settings(
    verb: str, argv: list[str], *, example: str, summary: str | None = None
) -> Settings:
    """The settings of `rlhf VERB ARGV`; ConfigError on anything unknown, missing or mistyped."""
    import trl

    silence_known_noise()
    config_class = pydoc.locate(_CONFIG_CLASSES[verb])
    stage_class = _STAGE_CLASSES.get(verb, StageArguments)
    stage, training, model = parse_config(
        verb,
        (stage_class, config_class, trl.ModelConfig),
        argv,
        example=example,
        summary=summary,
        defaults=stage_defaults(verb),
    )
    for key, value in (
        ("dataset_name", stage.dataset_name),
        ("model_name_or_path", model.model_name_or_path),
    ):
        if not value:
            raise ConfigError(f"--{key} is needed; for example: {example}")
    require_trackers(training.report_to)
    if isinstance(stage, RewardArguments):
        refuse_impossible(stage, training, model)
    if isinstance(stage, OnlineArguments):
        refuse_impossible_online(verb, stage, training, model)
    if not 0 <= stage.eval_fraction < 1:
        raise ConfigError(f"--eval_fraction {stage.eval_fraction}: must be at least 0 and below 1")
    refuse_nothing_to_measure(stage, training)
    refuse_impossible_numbers(training, model)
    require_max_loss(stage.max_loss)
    return Settings(verb, stage, training, model)


def refuse_impossible_numbers(training: Any, model: Any) -> None:
    """ConfigError for what torch, NumPy or PEFT would refuse when the output is claimed already."""
    for name in ("seed", "data_seed"):
        value = getattr(training, name)
        if value is not None and not 0 <= value < 2**32:
            raise ConfigError(f"--{name} {value}: must be from 0 to {2**32 - 1}")
    if model.use_peft and model.lora_r < 1:
        raise ConfigError(f"--lora_r {model.lora_r}: must be at least 1")
    if not 0 <= model.lora_dropout <= 1:
        raise ConfigError(f"--lora_dropout {model.lora_dropout}: must be from 0 to 1")


def refuse_nothing_to_measure(stage: StageArguments, training: Any) -> None:
    """ConfigError when the model is to be measured on the way, and nothing is held out."""
    strategy = str(training.eval_strategy.value)
    if strategy != "no" and not (stage.eval_fraction or stage.eval_dataset_name):
        raise ConfigError(
            f"--eval_strategy {strategy}: no prompt is held out; give --eval_fraction above 0 or "
            "--eval_dataset_name"
        )


def refuse_impossible(stage: RewardArguments, training: Any, model: Any) -> None:
    """ConfigError for a value out of its range, or for settings that exclude each other."""
    for name, low in (("num_members", 1), ("early_stopping_patience", 0), ("margin_scale", 0)):
        value = getattr(stage, name)
        if not low <= value < inf:
            raise ConfigError(f"--{name} {value}: must be at least {low} and finite")
    if stage.num_members > 1 and not model.use_peft:
        raise ConfigError(
            f"--num_members {stage.num_members}: members are adapters on one base; add --use_peft"
        )
    if stage.member_bagging and stage.num_members == 1:
        raise ConfigError("--member_bagging: needs --num_members of at least 2")
    if stage.early_stopping_patience and str(training.save_strategy.value) == "no":
        raise ConfigError(
            "--early_stopping_patience: keeps the best checkpoint, so it needs --save_strategy "
            "steps or epoch"
        )
    parse_criteria(stage.criteria)


def parse_criteria(text: str | None) -> dict[str, float]:
    """{criterion: its weight in the scalar} of `a=0.65,b=0.8`; nothing for None.

    ConfigError for a part without a number, a name that stands twice, or weights that are all 0.
    """
    weights: dict[str, float] = {}
    for part in (text or "").split(",") if text else []:
        name, _, number = (each.strip() for each in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = nan
        if not name or not abs(weight) <= MAX_WEIGHT or name in weights:
            raise ConfigError(
                f"--criteria {text}: {part.strip()!r} is not NAME=WEIGHT, each name once, "
                f"weights from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}; for example "
                "helpfulness=0.65,correctness=0.8"
            )
        weights[name] = weight
    if weights and not any(weights.values()):
        raise ConfigError(f"--criteria {text}: all weights are 0, so every score would be 0")
    return weights


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
