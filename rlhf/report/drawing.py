"""A chart with its title and its numbers in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.report.wording import percent

Figure = dict[str, Any]


def row_of(label: str, numbers: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """One line of a chart: an estimate under a label."""
    picked = {key: numbers.get(key) for key in ("value", "low", "high", "n")}
    return {"label": label, "kind": kind, **picked}


def figure(
    title: str,
    spec: dict[str, Any],
    rows: Sequence[Mapping[str, Any]],
    simulated: bool,
    share: bool = True,
) -> Figure:
    """A figure of `rows` (see `row_of`), shares or numbers, with its caption."""
    words = []
    for row in rows:
        show = percent if share else (lambda value: f"{value:.0f}")
        text = f"{row['label']}: {show(row['value'])}"
        if row["low"] is not None and row["high"] is not None:
            text += f" ({show(row['low'])} to {show(row['high'])})"
        words.append(text)
    caption = "; ".join(words) + "."
    return {"title": title, "spec": spec, "caption": caption, "simulated": simulated}


def reward_accuracy(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The reward stage's accuracy in the shape of an estimate."""
    low, high = metrics.get("accuracy_ci") or (None, None)
    return {"value": metrics["accuracy"], "low": low, "high": high, "n": metrics.get("n")}
