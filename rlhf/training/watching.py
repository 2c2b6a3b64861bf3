"""Watching a run for what goes wrong: remembered metrics, and warnings that are given once."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

SMOOTHED = 3
"""Values averaged before a level is compared with another: one alone is noise."""


class History:
    """The last `length` values of each of the `kept` metrics, and each one's level at first and
    at best.
    """

    def __init__(self, kept: Sequence[str], length: int) -> None:
        self.kept = tuple(kept)
        self.length = length
        self.num_looks = 0
        self.values: dict[str, list[float]] = {key: [] for key in self.kept}
        self.first: dict[str, float] = {}
        self.highest: dict[str, float] = {}

    def append(self, metrics: Mapping[str, float]) -> None:
        """Take in one look's metrics; one that is missing, or no number, has no place."""
        self.num_looks += 1
        for key in self.kept:
            value = metrics.get(key)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            column = self.values[key]
            column.append(float(value))
            del column[: -self.length]
            if len(column) >= SMOOTHED:
                level = fmean(column[-SMOOTHED:])
                self.first.setdefault(key, level)
                self.highest[key] = max(level, self.highest.get(key, level))

    def last(self, key: str, count: int) -> list[float]:
        """The last `count` values of a metric, oldest first; empty while there are fewer."""
        column = self.values[key]
        return column[-count:] if len(column) >= count else []

    def level(self, key: str) -> float | None:
        """The mean of the last few values of a metric; None while there are fewer."""
        column = self.last(key, SMOOTHED)
        return fmean(column) if column else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_looks": self.num_looks,
            "values": {key: list(column) for key, column in self.values.items()},
            "first": dict(self.first),
            "highest": dict(self.highest),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_looks = int(state["num_looks"])
        self.values = {key: list(state["values"].get(key, [])) for key in self.kept}
        self.first, self.highest = dict(state["first"]), dict(state["highest"])


class Warnings:
    """What has been said of a run: each cause once, and again only after it was gone in between."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self._active: set[str] = set()

    def take(self, found: Mapping[str, str | None], **where: Any) -> list[str]:
        """The words that are new of {cause: its words, or None where it is not there}.

        Kept in `said` with `where` it was.
        """
        present = {name: words for name, words in found.items() if words}
        new = {name: words for name, words in present.items() if name not in self._active}
        self._active = set(present)
        self.said += [{"cause": name, **where, "words": words} for name, words in new.items()]
        return list(new.values())

    def state_dict(self) -> dict[str, Any]:
        return {"said": [dict(each) for each in self.said], "active": sorted(self._active)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.said = [dict(each) for each in state["said"]]
        self._active = set(state["active"])
