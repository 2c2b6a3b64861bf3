"""What a round leaves on disk: OUTPUT/round-NN with completions, pairs and a record, in that order.

The record comes last and names the others' hashes, so a folder with a true record is a whole round.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.errors import DataError
from rlhf.manifest import file_sha256, json_lines, make_folder, write_json, write_text

PAIRS_NAME = "pairs.jsonl"
COMPLETIONS_NAME = "completions.jsonl"
RECORD_NAME = "round.json"


def round_folder(output: Path, number: int) -> Path:
    """The folder of round `number`, which counts from 0; its name counts from 1."""
    return output / f"round-{number + 1:02d}"


def write_round(
    folder: Path,
    pairs: Sequence[Mapping[str, Any]],
    completions: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
) -> None:
    """Write a round; one that was there before is withdrawn first."""
    make_folder(folder)
    (folder / RECORD_NAME).unlink(missing_ok=True)
    write_text(folder / COMPLETIONS_NAME, json_lines(completions))
    write_text(folder / PAIRS_NAME, json_lines(pairs))
    hashes = {name: file_sha256(folder / name) for name in (PAIRS_NAME, COMPLETIONS_NAME)}
    write_json(folder / RECORD_NAME, dict(record) | {"files": hashes})


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a whole round whose pairs are as they were written; None for anything else."""
    try:
        record = json.loads((folder / RECORD_NAME).read_text("utf-8"))
        whole = record["files"][PAIRS_NAME] == file_sha256(folder / PAIRS_NAME)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if whole else None


def require_record(folder: Path) -> dict[str, Any]:
    """The record of a round that a checkpoint has learnt from; DataError when it is not whole."""
    record = read_record(folder)
    if record is None:
        raise DataError(
            f"{folder}: its {PAIRS_NAME} or {RECORD_NAME} is gone or changed, and the checkpoint "
            "stands within this round; put it back, or begin anew with --restart"
        )
    return record


def read_pairs(folder: Path) -> list[dict[str, Any]]:
    """The lines of a round's pairs."""
    text = (folder / PAIRS_NAME).read_text("utf-8")
    # Not splitlines(): a completion may hold other line ends than ours, which JSON leaves alone.
    return [json.loads(line) for line in text.split("\n") if line]


def clear_rounds(output: Path, *, kept: str | None) -> None:
    """Remove the rounds of earlier runs; whole ones of the run whose hash is `kept` stay."""
    for folder in output.glob("round-*"):
        if not (folder.is_dir() and folder.name.removeprefix("round-").isdigit()):
            continue
        record = read_record(folder)
        if kept is None or record is None or record["run"] != kept:
            shutil.rmtree(folder, ignore_errors=True)
