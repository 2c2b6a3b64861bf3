"""The completions of a run's first and last rollout, as the PPO stage left them in Parquet."""

import json
import re
from pathlib import Path
from typing import Any

from rlhf.records import content_hash
from rlhf.report.wording import prompt_text

FOLDER_NAME = "completions"
NUM_SAMPLES = 6
"""Completions of a rollout that the page shows: enough to see a change, few enough to be read."""
MAX_CHARACTERS = 4000
"""Of one completion on the page; the rest is in its Parquet part."""
_PART = re.compile(r"rollout-(\d{6,})(-rank-\d+)?\.parquet$")

Row = dict[str, Any]


def read_rollouts(stage: Path) -> tuple[dict[int, list[Row]], list[str]]:
    """(the first and the last rollout's rows by number, what could not be read in words).

    The parts of all ranks belong together; a part that is damaged is named and left out.
    """
    parts: dict[int, list[Path]] = {}
    for path in sorted((stage / FOLDER_NAME).glob("rollout-*.parquet")):
        if match := _PART.match(path.name):
            parts.setdefault(int(match.group(1)), []).append(path)
    found: dict[int, list[Row]] = {}
    gaps = []
    for number in sorted({min(parts), max(parts)} if parts else ()):
        rows: list[Row] = []
        for path in parts[number]:
            try:
                rows += _rows(path)
            except Exception as error:  # pyarrow's own errors are many, and a page goes on
                gaps.append(f"{path.parent.name}/{path.name} is damaged ({_first_line(error)})")
        if rows:
            found[number] = rows
    return found, gaps


def _rows(path: Path) -> list[Row]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [row for row in rows if isinstance(row.get("completion"), str)]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]


def sample_rows(rollouts: dict[int, list[Row]]) -> list[dict[str, Any]]:
    """Samples of the first rollout against the last: prompts that both have first, then others.

    The prompt's hash decides which, so that nobody has picked the flattering ones. Each has
    `sides`, the first rollout's and the last's; None where a rollout has no more.
    """
    if len(rollouts) < 2:
        return []
    columns = [_by_prompt(rows) for _, rows in sorted(rollouts.items())]
    shared = [key for key in columns[0] if key in columns[1]]
    orders = [shared + [key for key in column if key not in shared] for column in columns]
    samples = []
    for index in range(min(NUM_SAMPLES, max(map(len, orders)))):
        sides = [
            _side(column[order[index]]) if index < len(order) else None
            for column, order in zip(columns, orders, strict=True)
        ]
        samples.append({"sides": sides, "same": index < len(shared)})
    return samples


def _by_prompt(rows: list[Row]) -> dict[str, Row]:
    """A row of each prompt, in the order of the prompts' hashes."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(content_hash(row.get("prompt")), row)
    return dict(sorted(first.items()))


def _side(row: Row) -> dict[str, Any]:
    text = row["completion"]
    return {
        "prompt": prompt_text(_prompt(row.get("prompt"))),
        "text": text[:MAX_CHARACTERS],
        "is_cut": len(text) > MAX_CHARACTERS,
        "tokens": row.get("num_tokens"),
        "ended": row.get("ended"),
        "score": row.get("score"),
    }


def _prompt(stored: object) -> object:
    """A prompt as it was, of the one column that holds text and messages alike."""
    if not isinstance(stored, str) or not stored.startswith("["):
        return stored
    try:
        messages = json.loads(stored)
    except (ValueError, RecursionError):
        return stored
    is_whole = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    return messages if messages and is_whole else stored
