"""The tokenised columns that a trainer of single labelled completions reads."""

from collections.abc import Iterable, Sequence

from rlhf.data.columns import Columns, rendered
from rlhf.data.examples import Unpaired
from rlhf.data.losses import DataLosses
from rlhf.data.progress import with_progress
from rlhf.data.tokenization import Renderer


def unpaired_columns(
    rows: Iterable[Unpaired], renderer: Renderer, max_length: int | None, losses: DataLosses
) -> tuple[Columns, list[Unpaired]]:
    """Rows of `prompt_ids`, `completion_ids` and `label`, and the completions that they are of.

    A row over `max_length` tokens, prompt included, is dropped: a label is of the whole answer.
    So are sides of pairs that come out with the same tokens and opposite labels.
    """
    kept: list[Unpaired] = []
    columns: Columns = []
    for row in with_progress("tokenising", rows):
        if (ids := rendered(unpaired_ids, row, renderer, losses)) is None:
            continue
        prompt, completion = ids
        if not prompt:
            losses.drop("no prompt tokens to condition on", row.place)
        elif not completion:
            losses.drop("completion without tokens", row.place)
        elif max_length is not None and len(prompt) + len(completion) > max_length:
            losses.drop(f"over --max_length {max_length}", row.place)
        else:
            kept.append(row)
            columns.append({"prompt_ids": prompt, "completion_ids": completion, "label": row.label})
    return _without_identical(columns, kept, losses)


def _without_identical(
    columns: Columns, rows: list[Unpaired], losses: DataLosses
) -> tuple[Columns, list[Unpaired]]:
    """Without the sides of pairs that a template renders alike: each label would undo the other."""
    labels: dict[tuple[tuple[int, ...], ...], set[bool]] = {}
    keys = [
        (tuple(column["prompt_ids"]), tuple(column["completion_ids"])) if row.from_pair else ()
        for column, row in zip(columns, rows, strict=True)
    ]
    for key, row in zip(keys, rows, strict=True):
        if key:
            labels.setdefault(key, set()).add(row.label)
    alike = {key for key, found in labels.items() if len(found) > 1}
    for key, row in zip(keys, rows, strict=True):
        if key in alike:
            losses.drop("identical tokens in chosen and rejected", row.place)
    kept = [index for index, key in enumerate(keys) if key not in alike]
    return [columns[index] for index in kept], [rows[index] for index in kept]


def unpaired_ids(row: Unpaired, renderer: Renderer) -> tuple[list[int], list[int]]:
    """Prompt and completion ids of a labelled completion."""
    return renderer.prompt_ids(row.prompt), renderer.completion_ids(row.completion, row.ended)


def add_mismatched(columns: Columns) -> None:
    """Give each row `KL_completion_ids`: the completion of the next row that has another prompt.

    The rows are a ring. Where all have one prompt, it is the next row's completion.
    """
    for column, other in zip(columns, next_of_another_prompt(columns), strict=True):
        column["KL_completion_ids"] = columns[other]["completion_ids"]


def next_of_another_prompt(columns: Columns) -> list[int]:
    """For each row the next one (in a ring) that has another prompt, the next one if none has."""
    count = len(columns)
    found = [(index + 1) % count for index in range(count)]
    if not several_prompts(columns):
        return found
    for index in [*reversed(range(count)), *reversed(range(count))]:  # the second time round closes
        after = (index + 1) % count
        same = columns[index]["prompt_ids"] == columns[after]["prompt_ids"]
        found[index] = found[after] if same else after
    return found


def several_prompts(columns: Sequence[dict[str, list[int]]]) -> bool:
    """Whether the rows have more than one prompt between them."""
    return any(column["prompt_ids"] != columns[0]["prompt_ids"] for column in columns)
