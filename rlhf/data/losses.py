"""What a data set lost on its way to the trainer: counted, shown, and refused above a limit."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from rlhf.errors import ConfigError, GateError, printable

_NUM_EXAMPLES = 3
_MAX_REASONS = 12  # in one line: rows may each be wrong in a way of their own
MAX_PLACES = 10_000
"""So many places are listed for each reason; the counts go on beyond it."""

MAX_LOSS = 0.05
"""Share of rows that a stage run alone may drop or cut, unless told otherwise."""

ROW_ADVICE, PROMPT_ADVICE = "raise --max_length", "lower --max_new_tokens"
COMPLETION_ADVICE = "lower --max_completion_length"
"""What makes room for a row to train on, for a prompt's completion, for one that is learnt from."""


def require_max_loss(max_loss: float) -> None:
    """ConfigError when `--max_loss` is no share."""
    if not 0 <= max_loss <= 1:
        raise ConfigError(f"--max_loss {max_loss}: must be a share of the rows, from 0 to 1")


@dataclass(slots=True)
class DataLosses:
    """Rows dropped or cut, by reason, with the places where each happened.

    `noted` counts what a reader should know of but what is no loss (tied votes, say). `places`
    lists up to `max_places` for each reason, in the order of the rows.
    """

    num_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    max_places: int = MAX_PLACES

    def drop(self, reason: str, place: str) -> None:
        """Count a row that no trainer will see, for a reason that may quote it."""
        reason = printable(reason)
        self.dropped[reason] += 1
        self._remember(reason, place)

    def shorten(self, reason: str, place: str) -> None:
        """Count a row of which the trainer sees only a part."""
        reason = printable(reason)
        self.cut[reason] += 1
        self._remember(reason, place)

    def note(self, what: str, count: int = 1, place: str | None = None) -> None:
        """Count something worth knowing that loses nothing."""
        self.noted[what] += count
        if place is not None:
            self._remember(what, place)

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
        parts = _first(parts)
        head = f"{self.num_lost} of {self.num_rows} rows lost ({self.share:.1%})"
        return ": ".join([head, "; ".join(parts)]) if parts else head

    @property
    def examples(self) -> dict[str, list[str]]:
        """The first few places of each reason, as a log or a manifest shows them."""
        return {reason: places[:_NUM_EXAMPLES] for reason, places in self.places.items()}

    def first_places(self) -> str:
        """`d.jsonl:3: empty prompt; d.jsonl:9: ...`: where each reason to lose came up first."""
        lost = {*self.dropped, *self.cut}
        found = [f"{at[0]}: {why}" for why, at in self.places.items() if why in lost]
        return "; ".join(_first(found))

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

    def refuse_above(self, max_loss: float, advice: str = ROW_ADVICE) -> None:
        """Raise GateError (exit 5) when more than the share `max_loss` of the rows is lost.

        `advice` is how a longer row gets its room.
        """
        if self.share <= max_loss:
            return
        enough = ceil(self.share * 1000) / 1000
        raise GateError(
            f"{self.summary()}; first: {self.first_places()}; rlhf doctor shows all of them: mend "
            f"the data (rlhf clean), {advice}, or accept it with --max_loss {enough:g} "
            f"(now {max_loss:g})"
        )

    def _remember(self, reason: str, place: str) -> None:
        known = self.places.setdefault(reason, [])
        if len(known) < self.max_places:
            known.append(place)


def _first(parts: list[str]) -> list[str]:
    """The first of the reasons, and how many more there are."""
    num_more = len(parts) - _MAX_REASONS
    return parts if num_more <= 0 else [*parts[:_MAX_REASONS], f"and {num_more} more reasons"]
