"""What a training stage takes beside TRL's config of the trainer and TRL's ModelConfig."""

from dataclasses import dataclass, field
from typing import Literal

from rlhf.data.losses import MAX_LOSS
from rlhf.training.rewards.options import ScoreOptions


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
class PreferenceArguments(StageArguments):
    """What a stage takes that learns from pairs, beside what every stage takes."""

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
    early_stopping_patience: int = field(
        default=0,
        metadata={
            "help": "Stop after so many evaluations without a better held-out loss, and "
            "keep the best checkpoint; 0 trains to the end."
        },
    )


@dataclass
class RewardArguments(PreferenceArguments):
    """What the reward stage takes beside what every stage on pairs takes."""

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
