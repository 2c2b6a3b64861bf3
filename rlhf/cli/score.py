"""`rlhf score`: a reward model's scores beside a data set's rows, and how often it is right."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError

SUMMARY = "score pairs or completions by a reward model; accuracy with its interval"
EXAMPLE = (
    "rlhf score --model_name_or_path runs/reward --dataset_name HELDOUT.jsonl "
    "--output scored.jsonl --json score.json"
)


@dataclass(kw_only=True)
class ScoreConfig:
    """What `rlhf score` takes."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "reward model: a stage's folder or a hub id"}
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "pairs of chosen and rejected, or prompts with completions (as rlhf sample "
            "writes them): a file, a folder, a hub id or feedback:STORE#CAMPAIGN"
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "configuration name of a hub data set"}
    )
    dataset_split: str = field(
        default="test", metadata={"help": "split of a hub data set or a folder"}
    )
    output: str | None = field(
        default=None, metadata={"help": "JSONL file to write: the rows with their scores"}
    )
    json: str | None = field(
        default=None, metadata={"help": "JSON file to write: accuracy, its interval, n, losses"}
    )
    batch_size: int = field(default=16, metadata={"help": "transcripts scored together"})
    dtype: str = field(
        default="float32", metadata={"help": "float32, bfloat16, float16, or auto (as stored)"}
    )


def main(argv: Sequence[str]) -> None:
    """Score, write the files, and say in one line what came out."""
    config = parse(argv)
    from rlhf.data.formats import data_line
    from rlhf.data.sources import load_rows
    from rlhf.evaluation.scored_data import scored_dataset
    from rlhf.manifest import make_folder, write_json, write_text
    from rlhf.models.registry import model_identity
    from rlhf.models.scoring import RewardModel
    from rlhf.training.quiet import silence_known_noise

    silence_known_noise()
    dataset = load_rows(
        config.dataset_name, split=config.dataset_split, dataset_config=config.dataset_config
    )
    model = RewardModel.load(config.model_name_or_path, dtype=config.dtype)
    scored = scored_dataset(dataset, model, batch_size=config.batch_size)
    identity = model_identity(config.model_name_or_path)
    summary = scored.summary | {"model": identity, "dtype": config.dtype}
    summary["simulated"] = bool(dataset.simulated or identity["simulated"])
    print(data_line(dataset, "pairs" if "accuracy" in summary else "prompts"), file=sys.stderr)
    for path in (config.output, config.json):
        if path is not None:
            make_folder(Path(path).parent)
    if config.output is not None:
        write_text(Path(config.output), scored.lines())
    if config.json is not None:
        write_json(Path(config.json), summary)
    print(closing_line(summary, config.output or config.dataset_name))


def parse(argv: Sequence[str]) -> Any:
    """The settings of `argv`, checked; runs nothing."""
    from rlhf.config import parse_config

    (config,) = parse_config("score", [ScoreConfig], argv, example=EXAMPLE, summary=SUMMARY)
    for name in ("model_name_or_path", "dataset_name"):
        if getattr(config, name) is None:
            raise ConfigError(f"--{name} is missing; for example: {EXAMPLE}")
    if config.output is None and config.json is None:
        raise ConfigError(f"give --output FILE.jsonl, --json FILE.json or both: {EXAMPLE}")
    if config.batch_size < 1:
        raise ConfigError(f"--batch_size {config.batch_size}: must be 1 or more")
    from rlhf.data.sources import refuse_overwriting

    written = [Path(path) for path in (config.output, config.json) if path is not None]
    model = Path(config.model_name_or_path)
    of_model = [str(path) for path in model.iterdir()] if model.is_dir() else []
    refuse_overwriting([config.dataset_name, *of_model], *written)
    return config


def closing_line(summary: Mapping[str, Any], name: str) -> str:
    """What came of it, in one line: rows, accuracy with its interval, and what was cut."""
    if "accuracy" in summary:
        parts = [f"{summary['num_scored']} pairs scored", _accuracy_text(summary)]
        if summary["num_ties"]:
            parts.append(f"{summary['num_ties']} ties, in no accuracy")
    else:
        mean = summary["mean_score"]
        interval = _interval(mean["low"], mean["high"], "{:.2f}")
        parts = [f"{summary['n']} completions scored, mean {mean['value']:.2f}{interval}"]
    if summary["num_cut"]:
        parts.append(
            f"{summary['num_cut']} transcripts lost their beginning, being longer than the model's "
            "context"
        )
    if summary["simulated"]:
        parts.append("SIMULATED labels are behind the data or the model")
    return f"{name}: {'; '.join(parts)}"


def _accuracy_text(summary: Mapping[str, Any]) -> str:
    if summary["accuracy"] is None:
        return "no accuracy, since every pair is a tie"
    low, high = summary["accuracy_ci"]
    longer = summary["longer_accuracy"]
    return (
        f"accuracy {summary['accuracy']:.1%}{_interval(low, high, '{:.1%}')} of "
        f"{summary['n']} pairs of {summary['num_prompts']} prompts; picking the longer "
        f"{longer['value']:.1%}{_interval(longer['low'], longer['high'], '{:.1%}')}"
    )


def _interval(low: float, high: float, form: str) -> str:
    """` [55%, 73%]`, or that there is none: one prompt says nothing of the spread."""
    if low != low:
        return " (no interval: one prompt)"
    return f" [{form.format(low)}, {form.format(high)}]"
