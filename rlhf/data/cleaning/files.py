"""A cleaning from a data set to a file: the rows, the log of every change, and a manifest."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf.data.cleaning.changes import Change
from rlhf.data.cleaning.cleaner import CleaningSteps, clean_rows
from rlhf.data.sources import LoadedDataset, Row, load_rows, refuse_overwriting
from rlhf.errors import ConfigError, DataError
from rlhf.manifest import (
    code_version,
    file_sha256,
    jsonable,
    make_folder,
    write_json,
    write_text,
)

LOG_SUFFIX = ".changes.jsonl"
MANIFEST_SUFFIX = ".manifest.json"


def clean_to_file(
    dataset_name: str,
    output: Path,
    log: Path | None = None,
    steps: CleaningSteps | None = None,
    *,
    split: str = "train",
    dataset_config: str | None = None,
) -> dict[str, Any]:
    """Clean a data set into `output` (JSONL) and return the manifest written beside it.

    Beside it stand OUTPUT.manifest.json and the log, by default OUTPUT.changes.jsonl. Each file
    is replaced in one step, the manifest last. ConfigError when a file to write is the input or
    lies among it, DataError as the reader.
    """
    steps = steps or CleaningSteps()
    log = log or output.with_name(output.name + LOG_SUFFIX)
    manifest_path = output.with_name(output.name + MANIFEST_SUFFIX)
    _refuse_bad_paths(dataset_name, output, log, manifest_path)
    dataset = load_rows(dataset_name, split=split, dataset_config=dataset_config)
    cleaned = clean_rows(dataset, steps)
    changes = [*_summing_up(dataset), *cleaned.changes]
    lines = [_line(place, row) for place, row in zip(cleaned.places, cleaned.rows, strict=True)]
    changes += [change for _, change in lines if change is not None]
    for folder in (output.parent, log.parent):
        make_folder(folder)
    manifest_path.unlink(missing_ok=True)  # of what is being replaced
    write_text(log, "".join(_log_line(change) for change in changes))
    write_text(output, "".join(line for line, _ in lines))
    manifest = _manifest(dataset, output, log, steps, changes, len(lines))
    write_json(manifest_path, manifest)
    return manifest


def _manifest(
    dataset: LoadedDataset,
    output: Path,
    log: Path,
    steps: CleaningSteps,
    changes: Sequence[Change],
    num_rows: int,
) -> dict[str, Any]:
    removed = [one for one in changes if one.after is None]
    return {
        "stage": "clean",
        "inputs": {"data": dataset.as_input()},
        "provenance": {"data": dataset.provenance},
        "outputs": {output.name: file_sha256(output), log.name: file_sha256(log)},
        "config": {"dataset_name": dataset.name, **asdict(steps)},
        "metrics": {
            "num_rows_in": len(dataset.rows),
            "num_rows_out": num_rows,
            "num_removed": len(removed),
            "changes": dict(Counter(one.step for one in changes)),
            "removed": dict(
                Counter(
                    one.reason.partition(" at ")[0]
                    for one in removed
                    if one.step == "drop_unusable" and one.reason
                )
            ),
        },
        "simulated": dataset.simulated,
        "code_version": code_version(),
    }


def _summing_up(dataset: LoadedDataset) -> list[Change]:
    """Judgements come as the pairs that they decide: that, too, is a change of the input."""
    if dataset.kind not in ("judgements", "feedback"):
        return []
    num_labels = dataset.provenance.get("num_labels")
    before = f"judgements, {num_labels} of them behind a label; {dataset.losses.summary()}"
    after = f"{len(dataset.rows)} preference rows"
    return [Change(place=dataset.name, step="sum_up_judgements", before=before, after=after)]


def _line(place: str, row: Row) -> tuple[str, Change | None]:
    """A row as a line of JSON, and what had to change for JSON to hold it (NaN, a date)."""
    try:
        return _encoded(row), None
    except (ValueError, TypeError):
        pass
    except RecursionError:
        raise DataError(f"{place}: nested too deep to be stored; flatten or remove it") from None
    stored = jsonable(row)
    columns = [column for column in row if _differs(row[column], stored[str(column)])]
    before = {column: repr(row[column])[:100] for column in columns}
    after = {column: repr(stored[str(column)])[:100] for column in columns}
    change = Change(place=place, step="store", before=str(before), after=str(after))
    return _encoded(stored), change


def _encoded(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, in a column that is no text of ours
        text = json.dumps(row, allow_nan=False)
    return text + "\n"


def _differs(before: Any, after: Any) -> bool:
    try:
        json.dumps(before, allow_nan=False)
    except (ValueError, TypeError):
        return True
    return bool(before != after)


def _log_line(change: Change) -> str:
    text = json.dumps(change.as_dict(), ensure_ascii=False)
    return text.encode(errors="replace").decode() + "\n"


def _refuse_bad_paths(name: str, *written: Path) -> None:
    """ConfigError when something written is no file of its own, or would lie in the input."""
    output = written[0]
    if not output.name.endswith(".jsonl"):
        raise ConfigError(f"--output_file {output}: must end in .jsonl")
    refuse_overwriting([name], *written)
