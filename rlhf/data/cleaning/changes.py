"""The log of a cleaning: what was where before, and after."""

import json
from dataclasses import dataclass
from typing import Any

_CONTEXT = 20
_MAX_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: at which place (and column), by which step, and what it did.

    `after` is None for a row that was removed, and `reason` then says why. Of long texts only
    the changed part is kept, with a little around it.
    """

    place: str
    step: str
    before: str | None
    after: str | None
    column: str | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"place": self.place, "step": self.step}
        values |= {"before": self.before, "after": self.after}
        extra = {"column": self.column, "reason": self.reason}
        return values | {key: value for key, value in extra.items() if value is not None}


def changed_part(before: str, after: str) -> tuple[str, str]:
    """The part in which two texts differ, with up to 20 characters on either side."""
    start = _num_shared(before, after)
    end = _num_shared(before[start:][::-1], after[start:][::-1])
    left = max(0, start - _CONTEXT)
    parts = []
    for text in (before, after):
        stop = min(len(text), len(text) - end + _CONTEXT)
        part = text[left:stop]
        parts.append(f"{'…' * (left > 0)}{shortened(part)}{'…' * (stop < len(text))}")
    return parts[0], parts[1]


def shortened(text: str) -> str:
    """A text of at most 200 characters, with its middle left out if need be."""
    if len(text) <= _MAX_SHOWN:
        return text
    half = _MAX_SHOWN // 2
    return f"{text[:half]} [… {len(text) - 2 * half} characters …] {text[-half:]}"


def row_text(row: dict[str, Any]) -> str:
    """A row for the log: its texts, shortened."""
    shown = {key: row[key] for key in _TEXT_COLUMNS if key in row}
    return shortened(json.dumps(shown or row, ensure_ascii=False, default=str))


_TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion", "messages")


def _num_shared(a: str, b: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # a bisection: slices compare much faster than characters
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
