"""Completions of named models for a campaign, sampled by `rlhf sample` in a process for each.

The server that people rate at has no torch in it: what needs a model is another process.
"""

import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError, RlhfError, StageError, nearest_hint
from rlhf.feedback.files import read_rows, write_rows
from rlhf.feedback.pairing import sample_row

SAMPLE_OPTIONS = (
    *("num_completions", "max_new_tokens", "temperature", "batch_size", "seed", "dtype"),
    *("model_revision", "attn_implementation", "load_in_4bit", "load_in_8bit"),
    *("rendering", "max_loss"),
)
"""What `rlhf sample` takes beside the model, the prompts and the place to write to."""

SAMPLE_KEYS = ("models", "dataset_name", "prompts", *SAMPLE_OPTIONS)

Row = dict[str, Any]


def check_sample(sample: Any, where: str, *, paths: bool) -> None:
    """Raise ConfigError unless `sample` says which models complete which prompts.

    With `paths` false the prompts have to stand there themselves.
    """
    if not isinstance(sample, Mapping):
        raise ConfigError(f"{where}: sample holds no keys; give models and dataset_name")
    for key in sample:
        if key not in SAMPLE_KEYS:
            raise ConfigError(f"{where}: sample.{key}: unknown key{nearest_hint(key, SAMPLE_KEYS)}")
        if key in SAMPLE_OPTIONS and not isinstance(sample[key], str | int | float):
            raise ConfigError(f"{where}: sample.{key} {sample[key]!r}: one value is needed")
    models = sample.get("models")
    if not _texts(models):
        raise ConfigError(f"{where}: sample.models: a list of model names or folders is needed")
    if ("prompts" in sample) == ("dataset_name" in sample):
        raise ConfigError(
            f"{where}: sample: give one of dataset_name (a file) and prompts (a list)"
        )
    prompts = sample.get("prompts", [""])
    if not isinstance(prompts, list) or not prompts or not all(map(_is_prompt, prompts)):
        raise ConfigError(f"{where}: sample.prompts: a list of texts, or of messages, is needed")
    if "dataset_name" in sample and not paths:
        raise ConfigError(
            f"{where}: sample.dataset_name names a file of the server; give the prompts, "
            "as sample.prompts"
        )


def sampled_rows(
    sample: Mapping[str, Any], folder: Path, say: Callable[[str], None] | None = None
) -> list[tuple[str, Row]]:
    """A row for each prompt with the completions of all models, in the order of the models.

    A `dataset_name` that is a path is taken relative to `folder`. `say` is called with every line
    (of a progress bar, too) that the processes print; what it raises ends them. Raises the error
    of `rlhf sample` where it fails.
    """
    by_prompt: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="rlhf-sample-") as scratch:
        prompts = _prompts(sample, folder, Path(scratch))
        for number, model in enumerate(sample["models"]):
            output = Path(scratch) / f"{number}.jsonl"
            _run(_command(sample, _local(model, folder), prompts, output), model, say)
            for where, row in read_rows(output):
                _join(by_prompt, row, where)
    return [(f"sample of prompt {index}", row) for index, row in enumerate(by_prompt.values(), 1)]


def _prompts(sample: Mapping[str, Any], folder: Path, scratch: Path) -> str:
    if "dataset_name" in sample:
        return _local(str(sample["dataset_name"]), folder)
    path = scratch / "prompts.jsonl"
    write_rows(path, ({"prompt": prompt} for prompt in sample["prompts"]))
    return str(path)


def _local(name: str, folder: Path) -> str:
    """A path as seen from `folder`, where there is something; else the name as it stands."""
    return str(folder / name) if (folder / name).exists() else name


def _command(sample: Mapping[str, Any], model: str, prompts: str, output: Path) -> list[str]:
    """The words that start `rlhf sample`; each value stands in the word of its key, so that none
    can be taken for a key."""
    values: dict[str, Any] = {
        "model_name_or_path": model,
        "dataset_name": prompts,
        "output": output,
    }
    values |= {key: sample[key] for key in SAMPLE_OPTIONS if key in sample}
    words = [f"--{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", "rlhf", "sample", *words]


def _run(command: Sequence[str], model: str, say: Callable[[str], None] | None = None) -> None:
    lines: deque[str] = deque(maxlen=100)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:  # universal newlines: a progress bar's "\r" ends one, too
                if not line.strip():
                    continue
                lines.append(line.strip())
                if say is not None:
                    say(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return
    said = next((line for line in reversed(lines) if line.startswith("rlhf ")), None)
    kinds: dict[int, type[RlhfError]] = {2: ConfigError, 3: DataError}
    error = kinds.get(process.returncode, StageError)
    raise error(f"sample.models: {model}: {said or (list(lines) or ['no word why'])[-1]}")


def _join(by_prompt: dict[str, Row], row: Row, where: str) -> None:
    """Put a model's completions of a prompt beside those of the models before it."""
    prompt, completions = sample_row(row, where)
    key = prompt.id
    there = by_prompt.setdefault(key, {"prompt": row["prompt"], "completions": []})
    there["completions"] += [
        {"text": one.text, "source": one.source, "ended": one.ended, "seed": one.seed}
        for one in completions
    ]


def _is_prompt(value: Any) -> bool:
    """Whether a prompt is a text, or messages of texts."""
    return isinstance(value, str) or (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, Mapping) and _texts(list(one.values())) for one in value)
    )


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
