"""What a data set lost on its way to the trainer: counted, shown, and refused above a limit."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from rlhf.errors import GateError

_NUM_EXAMPLES = 3


@dataclass(slots=True)
class DataLosses:
    """Rows dropped or cut, by reason, with a few examples of where each happened.

    `noted` counts what a reader should know of but what is no loss (tied votes, say).
    """

    num_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, place: str) -> None:
        """Count a row that no trainer will see."""
        self.dropped[reason] += 1
        self._remember(reason, place)

    def shorten(self, reason: str, place: str) -> None:
        """Count a row of which the trainer sees only a part."""
        self.cut[reason] += 1
        self._remember(reason, place)

    def note(self, what: str, count: int = 1) -> None:
        """Count something worth knowing that loses nothing."""
        self.noted[what] += count

    @property
    def num_lost(self) -> int:
        """Rows dropped plus rows cut."""
        return self.dropped.total() + self.cut.total()

    @property
    def share(self) -> float:
        """The share of all rows that were dropped or cut, 0 to 1."""
        return self.num_lost / self.num_rows if self.num_rows else 0.0

    def summary(self) -> str:
        """One line: `12 of 300 rows lost (4.0%): 10 dropped: identical pair; ...`."""
        parts = [f"{count} dropped: {reason}" for reason, count in self.dropped.most_common()]
        parts += [f"{count} cut: {reason}" for reason, count in self.cut.most_common()]
        parts += [f"{count} noted: {what}" for what, count in self.noted.most_common()]
        head = f"{self.num_lost} of {self.num_rows} rows lost ({self.share:.1%})"
        return ": ".join([head, "; ".join(parts)]) if parts else head

    def as_dict(self) -> dict[str, Any]:
        """The counts for a manifest."""
        return {
            "num_rows": self.num_rows,
            "num_lost": self.num_lost,
            "dropped": dict(self.dropped),
            "cut": dict(self.cut),
            "noted": dict(self.noted),
            "examples": self.examples,
        }

    def refuse_above(self, max_loss: float) -> None:
        """Raise GateError (exit 5) when more than the share `max_loss` of the rows is lost."""
        if self.share <= max_loss:
            return
        places = "; ".join(f"{reason} at {where[0]}" for reason, where in self.examples.items())
        raise GateError(
            f"{self.summary()}; first: {places}; mend the data, raise --max_length, or accept "
            f"it with --max_loss {ceil(self.share * 1000) / 1000:g} (now {max_loss:g})"
        )

    def _remember(self, reason: str, place: str) -> None:
        known = self.examples.setdefault(reason, [])
        if len(known) < _NUM_EXAMPLES:
            known.append(place)
