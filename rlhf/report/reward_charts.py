"""The charts of the reward model alone: reliability, scores, and best of n."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rlhf.report.charts import MARKS, Rows, finished, interval_tooltip, legend, palette

_HEIGHT = 260
_CURVE_HEIGHT = 170


def reliability_chart(rows: Rows) -> dict[str, Any]:
    """What the reward model said against what the labels said, with intervals and the diagonal.

    `rows` have `said`, `value`, `low`, `high`, `n`, `kind`; confidence lies in 0.5 to 1. Several
    kinds (before and after a temperature) get colours and shapes of their own.
    """
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    ends = alt.Data(values=[{"said": 0.5, "value": 0.5}, {"said": 1.0, "value": 1.0}])
    x = alt.X(
        "said:Q",
        scale=alt.Scale(domain=[0.5, 1]),
        title="the reward model's confidence",
        axis=alt.Axis(format="%", tickCount=5),
    )
    whole = alt.Scale(domain=[0, 1])
    y = alt.Y("value:Q", scale=whole, title="share that agrees with the label")
    diagonal = alt.Chart(ends).mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=MARKS[4])
    colour = alt.Color("kind:N", scale=palette(kinds), legend=legend(kinds))
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(
        x=x, color=colour, tooltip=[alt.Tooltip("said:Q", format=".0%"), *interval_tooltip()[1:]]
    )
    bars = base.mark_rule(strokeWidth=3, opacity=0.55).encode(
        y=alt.Y("low:Q", scale=whole), y2="high:Q"
    )
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(
        y=y.axis(format="%", tickCount=5), shape=alt.Shape("kind:N", sort=kinds, legend=None)
    )
    return finished(alt.layer(diagonal.encode(x=x, y=y), bars, dots), height=_HEIGHT)


def score_chart(bins: Rows) -> dict[str, Any]:
    """How many completions scored what: steps over `start` to `end`, one outline a `side`."""
    sides = list(dict.fromkeys(row["side"] for row in bins))
    x = alt.X("start:Q", bin="binned", title="score", axis=alt.Axis(tickCount=6))
    axis = alt.Axis(format="d", tickCount=4)
    chart = (
        alt.Chart(alt.Data(values=[dict(row) for row in bins]))
        .mark_bar(opacity=0.45, binSpacing=0)
        .encode(
            x=x,
            x2="end:Q",
            y=alt.Y("count:Q", title="completions", stack=None, axis=axis),
            color=alt.Color("side:N", scale=palette(sides), legend=legend(sides)),
            tooltip=[
                "side:N",
                alt.Tooltip("start:Q", title="from", format=".2f"),
                alt.Tooltip("end:Q", title="to", format=".2f"),
                "count:Q",
            ],
        )
    )
    return finished(chart, height=_HEIGHT)


def best_of_chart(rows: Rows, *, share: bool = False) -> dict[str, Any]:
    """A measure of the best of n by the reward model over n: a line with 95% intervals.

    `rows` have `at` (n), `value`, `low`, `high`.
    """
    axis = alt.Axis(format="%", tickCount=5) if share else alt.Axis(tickCount=5)
    sizes = [row["at"] for row in rows]
    x = alt.X(
        "at:Q",
        title="n: completions to choose from",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=sizes, format="d"),
    )
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=axis)
    fields: list[Any] = [alt.Tooltip("at:Q", title="n")]
    fields += [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("value", "low", "high")]
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(x=x, tooltip=fields)
    bars = base.mark_rule(strokeWidth=3, opacity=0.45, color=MARKS[0]).encode(
        y="low:Q", y2="high:Q"
    )
    line = base.mark_line(
        strokeWidth=2, color=MARKS[0], point=alt.OverlayMarkDef(size=50, color=MARKS[0])
    ).encode(y=y)
    return finished(alt.layer(line, bars), height=_CURVE_HEIGHT)


def histogram(values: Mapping[str, Sequence[float]], num_bins: int = 24) -> list[dict[str, Any]]:
    """`values` by side counted in common bins of equal width, empty ones left out."""
    everything = [value for side in values.values() for value in side]
    low, high = min(everything), max(everything)
    width = (high - low) / num_bins or 1.0
    rows = []
    for side, scores in values.items():
        counts = [0] * num_bins
        for score in scores:
            counts[min(int((score - low) / width), num_bins - 1)] += 1
        rows += [
            {"side": side, "start": low + i * width, "end": low + (i + 1) * width, "count": count}
            for i, count in enumerate(counts)
            if count
        ]
    return rows
