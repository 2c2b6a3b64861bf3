"""The rows of a DPO stage: read, split, tokenised, and counted where lost."""

from rlhf.data.columns import Columns, dpo_columns, refuse_no_rows
from rlhf.data.doctor import Side
from rlhf.data.formats import preference_pairs
from rlhf.data.tokenization import Renderer
from rlhf.training.arguments import Settings
from rlhf.training.stage import Inputs, read_sides, report_inputs


def read_columns(settings: Settings, renderer: Renderer, inputs: Inputs) -> tuple[Columns, Columns]:
    """Tokenised rows to train on and to measure on; GateError when too much is lost."""
    sides = read_sides(settings, inputs, preference_pairs)
    datasets = (inputs.train, inputs.heldout or inputs.train)
    (train_rows, train_pairs), (eval_rows, eval_pairs) = (
        dpo_columns(pairs, renderer, settings.training.max_length, dataset.losses)
        for pairs, dataset in zip(sides, datasets, strict=True)
    )
    refuse_no_rows(train_rows, inputs.train.name, inputs.train.losses)
    left = Side(train_pairs, train_rows), Side(eval_pairs, eval_rows)
    report_inputs(inputs, settings, "pairs", renderer, *left)
    return train_rows, eval_rows
