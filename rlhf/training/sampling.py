"""The sample stage: a file of completions, each with who wrote it and how it ended."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.data.doctor import findings_as_dicts
from rlhf.data.doctor.prompts import PromptReading, read_prompts
from rlhf.data.doctor.reporting import write_findings
from rlhf.data.formats import recognise
from rlhf.data.losses import MAX_LOSS
from rlhf.data.sources import load_rows
from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError
from rlhf.evaluation.drift import shape_of
from rlhf.manifest import file_sha256, invalidate, make_folder, recorded_stage, write_text
from rlhf.models.generation import Generated, generate
from rlhf.models.loading import context_tokens, load_policy, load_tokenizer
from rlhf.models.registry import model_identity, model_source
from rlhf.records import PromptContent, content_hash

COMPLETIONS_NAME = "completions.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How to sample; see rlhf.models.generation.generate for the meaning of each.

    `max_loss` is the share of prompts that may be left out since they cannot be sampled from.
    """

    num_completions: int
    max_new_tokens: int
    temperature: float
    batch_size: int
    seed: int
    rendering: str = "chat"
    max_loss: float = MAX_LOSS


def sample_to_file(
    model_name: str,
    dataset_name: str,
    output: Path,
    settings: SamplingSettings,
    **load_options: Any,
) -> dict[str, Any]:
    """Write a row a prompt to `output`, in one step at the end, and return the metrics.

    `load_options` go to load_policy. A run that is killed leaves `output` as it was; the same
    command then gives the same completions again.
    """
    make_folder(output.parent)
    if output.is_dir():
        raise ConfigError(f"{output}: a folder; give the file to write, or use --output_dir")
    revision = load_options.get("revision")
    reading = read_for_sampling(model_name, dataset_name, settings, revision)
    reading.report(settings.max_loss)
    return _write_samples(model_name, reading, output, settings, load_options)


def sample_stage(
    model_name: str,
    dataset_name: str,
    output_dir: Path,
    settings: SamplingSettings,
    config: Mapping[str, Any],
    **load_options: Any,
) -> dict[str, Any]:
    """The same as a stage: completions.jsonl, doctor.json and manifest.json in `output_dir`.

    The metrics come back. A stage that refuses its data leaves the folder as it was.
    """
    began, revision = time.monotonic(), load_options.get("revision")
    reading = read_for_sampling(model_name, dataset_name, settings, revision)
    reading.report(settings.max_loss)
    dataset = reading.dataset
    with recorded_stage("sample", output_dir, config, began=began) as manifest:
        model = model_identity(model_name, revision)
        output = output_dir / COMPLETIONS_NAME
        metrics = _write_samples(
            model_name, reading, output, settings, load_options, replaces=output_dir
        )
        manifest.inputs = {"prompts": dataset.as_input(), "model": model}
        manifest.simulated = dataset.simulated or model["simulated"]
        manifest.provenance = {
            "model": metrics.pop("source"),
            "data": dataset.provenance | {"format": str(recognise(dataset, "prompts"))},
            "losses": dataset.losses.as_dict(),
            "doctor": findings_as_dicts(reading.findings),
        }
        manifest.outputs = {COMPLETIONS_NAME: file_sha256(output)}
        manifest.metrics = metrics
    return metrics


def read_for_sampling(
    model_name: str, dataset_name: str, settings: SamplingSettings, revision: str | None = None
) -> PromptReading:
    """The prompts that the model can complete, read without its weights; the doctor reads them so.

    Those that cannot be rendered or leave no room in its context for `max_new_tokens` are lost.
    """
    dataset = load_rows(dataset_name)
    renderer = Renderer(load_tokenizer(model_name, revision=revision), settings.rendering)
    context = context_tokens(model_name, revision)
    return read_prompts(dataset, renderer, settings.max_new_tokens, context)


def sample_rows(
    prompts: Sequence[PromptContent], generated: Sequence[Sequence[Generated]], source: str
) -> list[dict[str, Any]]:
    """The rows of a completions file, as the contract for `rlhf sample` names their columns."""
    return [
        {
            "prompt": prompt,
            "completions": [completion.text for completion in completions],
            "source": [source] * len(completions),
            "ended": [completion.ended for completion in completions],
            "seed": [completion.seed for completion in completions],
        }
        for prompt, completions in zip(prompts, generated, strict=True)
    ]


def _write_samples(
    model_name: str,
    reading: PromptReading,
    output: Path,
    settings: SamplingSettings,
    load_options: Mapping[str, Any],
    *,
    replaces: Path | None = None,
) -> dict[str, Any]:
    """Sample and write; the metrics. `replaces` is a stage folder whose manifest then lapses,
    and which takes the findings beside the completions.
    """
    model = load_policy(model_name, **load_options)
    source = model_source(model_name, revision=load_options.get("revision"))
    began = time.monotonic()
    generated = generate(
        model,
        reading.renderer.tokenizer,
        reading.prompts,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        batch_size=settings.batch_size,
        num_completions=settings.num_completions,
        rendering=settings.rendering,
    )
    seconds = time.monotonic() - began
    if replaces is not None:
        invalidate(replaces)
        write_findings(replaces, reading.findings)
    rows = sample_rows(reading.prompts, generated, source)
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return {"source": source, **_metrics(reading.prompts, generated, seconds)}


def _metrics(
    prompts: Sequence[PromptContent], generated: Sequence[Sequence[Generated]], seconds: float
) -> dict[str, Any]:
    completions = [completion for row in generated for completion in row]
    lengths = [len(completion.token_ids) for completion in completions]
    shape = shape_of(
        [completion.text for completion in completions],
        lengths,
        [completion.ended for completion in completions],
        [content_hash(prompt) for prompt, row in zip(prompts, generated, strict=True) for _ in row],
    )
    return {
        "num_prompts": len(generated),
        "num_completions": len(completions),
        **shape,
        "tokens_per_second": round(sum(lengths) / max(seconds, 1e-9), 1),
    }
