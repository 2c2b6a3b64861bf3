"""A finding: what was found, how serious it is, how often, and where."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.data.doctor.private import masked
from rlhf.errors import printable

Severity = Literal["loss", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("loss", "warning", "note")
"""A loss is a row dropped or cut, which may refuse the stage; the others never do."""

_MAX_EXAMPLES = 3
_MAX_TEXT = 120
_READ = 2000  # characters around an example that are searched for private data


@dataclass(frozen=True, slots=True)
class Example:
    """Where something was found, and the text there (short, private data masked)."""

    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of thing found in one set of rows.

    `share` is `count` divided by the rows looked at (0 to 1); `data` says which they are.
    `places` lists every place of a loss, up to rlhf.data.losses.MAX_PLACES of each reason.
    """

    name: str
    severity: Severity
    count: int
    share: float
    words: str
    advice: str
    data: str
    examples: tuple[Example, ...] = ()
    places: tuple[str, ...] = ()

    def as_dict(self, *, places: bool = False) -> dict[str, Any]:
        """The finding for a manifest; with its `places` for doctor.json."""
        values: dict[str, Any] = {
            "name": self.name,
            "severity": self.severity,
            "count": self.count,
            "share": self.share,
            "words": self.words,
            "examples": [{"place": one.place, "text": one.text} for one in self.examples],
            "advice": self.advice,
            "data": self.data,
        }
        if places and self.places:
            values |= {"places": list(self.places), "num_places_left_out": self._num_unlisted}
        return values

    @property
    def _num_unlisted(self) -> int:
        return max(0, self.count - len(self.places))

    def line(self) -> str:
        """One short line for the log."""
        where = f"; first at {self.examples[0].place}" if self.examples else ""
        return printable(f"{self.severity}: {self.count} ({self.share:.1%}) {self.words}{where}")


@dataclass(slots=True)
class Tally:
    """Counts the rows of each kind of finding, and keeps the first few as examples."""

    num_rows: int
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def add(self, name: str, place: str, text: str, at: int = 0) -> None:
        """Count a row; call it once for each name and row. What was found begins at text[at]."""
        self.counts[name] = self.counts.get(name, 0) + 1
        known = self.examples.setdefault(name, [])
        if len(known) < _MAX_EXAMPLES:
            known.append(example(place, text, at))


def example(place: str, text: str, at: int = 0) -> Example:
    """An example that may be shown: one short line around text[at], with private data masked."""
    # Masked before it is cut: half a card number would no longer be known for one.
    before = masked(text[max(0, at - _READ) : at])
    after = brief(text[at:], _MAX_TEXT)
    kept = _MAX_TEXT - min(len(after), _MAX_TEXT * 2 // 3)
    gap = " " if text[at : at + 1].isspace() else ""
    line = " ".join(f"{before[-kept:]}{gap}{after}".split())
    short = line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
    return Example(place, short.encode(errors="replace").decode())


def brief(text: str, length: int) -> str:
    """The beginning of a text in one line, with private data masked."""
    return " ".join(masked(text[:_READ]).split())[:length]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Losses first, then warnings, then notes; the more frequent first within each."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -one.count))


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """A line for each finding, the gravest first."""
    return [one.line() for one in by_severity(findings)]


def findings_as_dicts(findings: Sequence[Finding], *, places: bool = False) -> list[dict[str, Any]]:
    """The findings as JSON holds them, the gravest first."""
    return [one.as_dict(places=places) for one in by_severity(findings)]
