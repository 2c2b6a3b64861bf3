"""The prompts of a stage that learns online: which can be completed, each with its columns."""

from collections.abc import Sequence
from typing import Any

from rlhf.data.columns import refuse_no_rows
from rlhf.data.doctor import Side
from rlhf.data.doctor.prompts import prompt_fits
from rlhf.data.formats import Demo, placed_prompts
from rlhf.data.losses import COMPLETION_ADVICE
from rlhf.data.sources import LoadedDataset
from rlhf.data.tokenization import Renderer
from rlhf.models.loading import context_tokens
from rlhf.training.arguments import Settings
from rlhf.training.options import OnlineDPOArguments
from rlhf.training.stage import Inputs, read_sides, report_inputs

PromptRow = dict[str, Any]
"""`prompt` (text or messages) and every other column of its row, for reward functions."""

_NOT_HANDED_ON = {"prompt", "prompts", "completion", "completions", "completion_ids"}


def read_columns(
    settings: Settings, renderer: Renderer, inputs: Inputs
) -> tuple[list[PromptRow], list[PromptRow]]:
    """Rows to learn from and to measure on, each prompt with room for `max_completion_length`.

    Any format with prompts will do. Prompts without that room in the model's context, or that
    cannot be rendered, are dropped and counted; GateError when too many are, DataError when none
    is left.
    """
    sides = read_sides(settings, inputs, read_demos)
    datasets = (inputs.train, inputs.heldout or inputs.train)
    train, heldout = (
        _fitting(rows, settings, renderer, dataset)
        for rows, dataset in zip(sides, datasets, strict=True)
    )
    refuse_no_rows(train, inputs.train.name, inputs.train.losses, COMPLETION_ADVICE)
    report_inputs(inputs, settings, "prompts", renderer, Side(train), Side(heldout))
    return rows_of(train, inputs.train), rows_of(heldout, datasets[1])


def read_demos(dataset: LoadedDataset) -> list[Demo]:
    """The prompts of a data set, with the places of their rows."""
    return [
        Demo(prompt=prompt, completion="", place=place) for place, prompt in placed_prompts(dataset)
    ]


def rows_of(prompts: Sequence[Demo], dataset: LoadedDataset) -> list[PromptRow]:
    """Each prompt with the other columns of its row; a column that a row lacks is None."""
    columns = [name for name in dataset.columns if name not in _NOT_HANDED_ON]
    by_place = dict(zip(dataset.places, dataset.rows, strict=True))
    return [
        {name: by_place[each.place].get(name) for name in columns} | {"prompt": each.prompt}
        for each in prompts
    ]


def _fitting(
    rows: Sequence[Demo], settings: Settings, renderer: Renderer, dataset: LoadedDataset
) -> list[Demo]:
    model, limit = settings.model, completion_limit(settings)
    context = context_tokens(model.model_name_or_path, model.model_revision)
    if isinstance(settings.stage, OnlineDPOArguments) and settings.training.max_length:
        context = min(context or settings.training.max_length, settings.training.max_length)
    return [row for row in rows if prompt_fits(row, renderer, limit, context, dataset.losses)]


def completion_limit(settings: Settings) -> int:
    """Tokens of a completion; TRL's config of DPO samples nothing, so there the stage says it."""
    sampling: Any = settings.training
    if isinstance(settings.stage, OnlineDPOArguments):
        sampling = settings.stage
    return int(sampling.max_completion_length)
