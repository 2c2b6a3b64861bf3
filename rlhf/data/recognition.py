"""Tells the format of a data set by its columns.

Formats: TRL's preference (prompt explicit or implicit), unpaired preference, prompt-completion,
prompt-only and messages, each plain or conversational; and HH transcripts. Source: TRL's
"Dataset formats" guide; Bai et al., arXiv 2204.05862, for the transcripts.
"""

from dataclasses import dataclass, replace

from rlhf.config import nearest_hint
from rlhf.data.sources import LoadedDataset, Row
from rlhf.errors import DataError, printable
from rlhf.feedback.transcripts import is_transcript

_WANTED: dict[str, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "demonstrations": ("prompt", "completion"),
    "prompts": ("prompt",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What rows look like: `kind`, whether the prompt has its own column, text or messages.

    `summed_up` when the rows are what judgements decided.
    """

    kind: str
    explicit_prompt: bool
    conversational: bool
    summed_up: bool = False

    def __str__(self) -> str:
        if self.kind == "HH transcripts":
            return self.kind
        details = ["conversational" if self.conversational else "plain text"]
        if self.kind == "preference":
            details.append("explicit prompt" if self.explicit_prompt else "implicit prompt")
        origin = "judgements summed up as " if self.summed_up else ""
        return f"{origin}{self.kind} ({', '.join(details)})"


def recognise(dataset: LoadedDataset, wanted: str = "pairs") -> Format:
    """The format of `dataset`; DataError naming the missing column and the nearest there is.

    `wanted` ("pairs", "unpaired", "demonstrations" or "prompts") only shapes that message.
    """
    found = _recognised(dataset, wanted)
    return replace(found, summed_up=dataset.kind in ("judgements", "feedback"))


def data_line(dataset: LoadedDataset, wanted: str) -> str:
    """One line for the log: rows, format, whether labels are simulated, and what was lost."""
    marked = ", SIMULATED labels" if dataset.simulated else ""
    files = dataset.provenance.get("files") or {}
    which = f" ({', '.join(files)})" if len(files) > 1 else ""
    return printable(
        f"{dataset.name}{which}: {len(dataset.rows)} rows, {recognise(dataset, wanted)}{marked}; "
        f"{dataset.losses.summary()}"
    )


def _recognised(dataset: LoadedDataset, wanted: str) -> Format:
    columns = set(dataset.columns)
    if {"chosen", "rejected"} <= columns:
        first = _first_row(dataset, "chosen")
        explicit = "prompt" in columns
        if not explicit and is_transcript(first.get("chosen")):
            return Format(kind="HH transcripts", explicit_prompt=False, conversational=True)
        return _format("preference", first, "chosen", explicit)
    first = _first_row(dataset, "completion" if "completion" in columns else "prompt")
    if {"prompt", "completion", "label"} <= columns:
        return _format("unpaired preference", first, "completion", True)
    if {"prompt", "completion"} <= columns:
        return _format("prompt-completion", first, "completion", True)
    if "messages" in columns:
        return Format(kind="messages", explicit_prompt=False, conversational=True)
    if "prompt" in columns and wanted == "prompts":
        return _format("prompt-only", first, "prompt", True)
    raise _unrecognised(dataset, wanted)


def _format(kind: str, first: Row, column: str, explicit: bool) -> Format:
    values = [first.get("prompt"), first.get(column)]
    conversational = any(isinstance(value, list) for value in values)
    return Format(kind=kind, explicit_prompt=explicit, conversational=conversational)


def _unrecognised(dataset: LoadedDataset, wanted: str) -> DataError:
    columns = dataset.columns
    if {"completions", "annotator"} <= set(columns):
        return DataError(
            f"{dataset.name}: these are judgements, but not in the interchange format; give them "
            "as .jsonl, or rlhf feedback import them and give feedback:STORE#CAMPAIGN"
        )
    missing = next(column for column in _WANTED[wanted] if column not in columns)
    hint = nearest_hint(missing, columns)
    there = ", ".join(columns) or "none"
    return DataError(f"{dataset.name}: no column {missing!r}{hint or '; add it'} (it has: {there})")


def _first_row(dataset: LoadedDataset, column: str) -> Row:
    """The first row that has something in `column`: a broken row does not name the format."""
    filled = (row for row in dataset.rows if row.get(column) and _is_content(row[column]))
    return next(filled, dataset.rows[0])


def _is_content(value: object) -> bool:
    return isinstance(value, (str, list))
