"""`rlhf sample`: completions of prompts by one model."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlhf.data.losses import MAX_LOSS, require_max_loss
from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from rlhf.training.sampling import SamplingSettings

SUMMARY = "sample completions of prompts from a model"
EXAMPLE = (
    "rlhf sample --model_name_or_path smollm2-135m-instruct-q4 "
    "--dataset_name configs/quickstart/heldout_prompts.jsonl --num_completions 2 "
    "--output completions.jsonl"
)


@dataclass(kw_only=True)
class SampleConfig:
    """What `rlhf sample` takes."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "named model (see rlhf pull --help), hub id or folder"}
    )
    model_revision: str | None = field(default=None, metadata={"help": "branch, tag or commit"})
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "prompts: a file, a folder, a hub id or feedback:STORE#NAME"},
    )
    output: str | None = field(default=None, metadata={"help": "JSONL file to write"})
    output_dir: str | None = field(
        default=None, metadata={"help": "instead: folder for completions.jsonl and manifest.json"}
    )
    num_completions: int = field(default=1, metadata={"help": "completions of each prompt"})
    max_new_tokens: int = field(default=64, metadata={"help": "longest completion, in tokens"})
    temperature: float = field(default=1.0, metadata={"help": "0 is greedy"})
    batch_size: int = field(default=32, metadata={"help": "completions decoded together"})
    seed: int = field(default=0, metadata={"help": "equal seeds give equal completions"})
    rendering: Literal["chat", "plain"] = field(
        default="chat",
        metadata={
            "help": "messages by the chat template, or as a plain Human/Assistant transcript"
        },
    )
    max_loss: float = field(
        default=MAX_LOSS,
        metadata={
            "help": "share of prompts that may be left out, as they cannot be rendered or leave no "
            "room for max_new_tokens; above it, exit code 5"
        },
    )
    dtype: str = field(
        default="float32", metadata={"help": "float32, bfloat16, float16, or auto (as stored)"}
    )
    attn_implementation: str | None = field(default=None, metadata={"help": "default: sdpa"})
    load_in_4bit: bool = field(default=False, metadata={"help": "quantise the weights (nf4)"})
    load_in_8bit: bool = field(default=False, metadata={"help": "quantise the weights to 8 bits"})


def main(argv: Sequence[str]) -> None:
    """Sample, write the file or the stage's folder, and say in one line what came out."""
    config = parse(argv)
    from rlhf.training.sampling import sample_stage, sample_to_file

    settings = sampling_settings(config)
    names = config.model_name_or_path, config.dataset_name
    if config.output_dir is not None:
        where = Path(config.output_dir)
        metrics = sample_stage(*names, where, settings, asdict(config), **_load_options(config))
    else:
        where = Path(config.output)
        metrics = sample_to_file(*names, where, settings, **_load_options(config))
    low, high = metrics["ended_rate_ci"]
    interval = f" [{low:.0%}, {high:.0%}]" if low == low else ""  # NaN: of one prompt there is none
    print(
        f"{where}: {metrics['num_completions']} completions of {metrics['num_prompts']} prompts, "
        f"{metrics['mean_tokens']:.1f} tokens on average, {metrics['ended_rate']:.0%}"
        f"{interval} ended by themselves, {metrics['tokens_per_second']:.0f} tokens/s",
        file=sys.stderr,
    )


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked; runs nothing."""
    from rlhf.config import parse_config

    (config,) = parse_config("sample", [SampleConfig], argv, example=EXAMPLE, summary=SUMMARY)
    for name in ("model_name_or_path", "dataset_name"):
        if getattr(config, name) is None:
            raise ConfigError(f"--{name} is missing; for example: {EXAMPLE}")
    if (config.output is None) == (config.output_dir is None):
        raise ConfigError("give one of --output FILE.jsonl and --output_dir DIR")
    require_max_loss(config.max_loss)
    return config


def sampling_settings(config: SampleConfig) -> "SamplingSettings":
    """How to sample, as the stage wants it."""
    from rlhf.training.sampling import SamplingSettings

    return SamplingSettings(
        num_completions=config.num_completions,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        batch_size=config.batch_size,
        seed=config.seed,
        rendering=config.rendering,
        max_loss=config.max_loss,
    )


def _load_options(config: SampleConfig) -> dict[str, Any]:
    from trl import ModelConfig, get_quantization_config

    quantised = ModelConfig(
        dtype=config.dtype, load_in_4bit=config.load_in_4bit, load_in_8bit=config.load_in_8bit
    )
    return {
        "dtype": config.dtype,
        "revision": config.model_revision,
        "attn_implementation": config.attn_implementation,
        "quantization_config": get_quantization_config(quantised),
    }
