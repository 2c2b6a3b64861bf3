"""The rows of a KTO stage: read, split, tokenised, weighed, and counted where lost."""

from collections.abc import Sequence

from rlhf.data.columns import Columns, refuse_no_rows
from rlhf.data.doctor import Side
from rlhf.data.formats import Unpaired, unpaired_completions
from rlhf.data.losses import DataLosses
from rlhf.data.tokenization import Renderer
from rlhf.data.unpaired_columns import add_mismatched, several_prompts, unpaired_columns
from rlhf.errors import DataError
from rlhf.training.arguments import Settings
from rlhf.training.stage import Inputs, read_sides, report_inputs


def read_columns(settings: Settings, renderer: Renderer, inputs: Inputs) -> tuple[Columns, Columns]:
    """Tokenised rows to train on and to measure on; GateError when too much is lost.

    Each has `prompt_ids`, `completion_ids`, `label`, `KL_completion_ids` (see `add_mismatched`),
    `place`, and `weight` where rows differ in theirs. DataError when nothing is left, or nothing
    tells good from bad.
    """
    train, heldout = read_sides(settings, inputs, unpaired_completions)
    losses = (inputs.train.losses, (inputs.heldout or inputs.train).losses)
    sides = [
        _side(settings, renderer, rows, lost)
        for rows, lost in zip((train, heldout), losses, strict=True)
    ]
    refuse_no_rows(sides[0].columns, inputs.train.name, inputs.train.losses)
    report_inputs(inputs, settings, "unpaired", renderer, *sides)
    _refuse_one_sided(sides[0].columns, inputs.train.name, settings.training.loss_type)
    for side in sides:
        add_mismatched(side.columns)
    return sides[0].columns, sides[1].columns


def _side(
    settings: Settings, renderer: Renderer, rows: Sequence[Unpaired], losses: DataLosses
) -> Side:
    """The rows that have a weight, and their tokens."""
    weighed = [row for row in rows if row.weight != 0]
    if settings.stage.row_weights == "never":
        weighed = list(rows)
    elif len(weighed) < len(rows):
        losses.note("rows of weight 0, left out", len(rows) - len(weighed))
    columns, kept = unpaired_columns(weighed, renderer, settings.training.max_length, losses)
    weights = row_weights(kept) if settings.stage.row_weights == "auto" else None
    for index, (column, row) in enumerate(zip(columns, kept, strict=True)):
        column["place"] = row.place
        if weights is not None:
            column["weight"] = weights[index]
    return Side(kept, columns)


def row_weights(rows: Sequence[Unpaired]) -> list[float] | None:
    """What each row counts, 1 in the mean, so that the learning rate means the same; None where
    all count alike. A row that does not say counts 1 before that.
    """
    weights = [1.0 if row.weight is None else row.weight for row in rows]
    if len(set(weights)) < 2:
        return None
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights]


def _refuse_one_sided(columns: Columns, name: str, loss_type: str) -> None:
    labels = {column["label"] for column in columns}
    if len(labels) == 1:
        word = "true" if labels.pop() else "false"
        raise DataError(
            f"{name}: all {len(columns)} rows left to train on are labelled {word}, so nothing "
            "says what is better than what; mend the data, or change --split_seed"
        )
    if loss_type == "kto" and not several_prompts(columns):
        raise DataError(
            f"{name}: all {len(columns)} rows have one prompt, and the loss kto estimates its KL "
            "from completions of other prompts; take --loss_type apo_zero_unpaired, or rlhf dpo"
        )
