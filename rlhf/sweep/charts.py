"""The charts of a sweep, in the report's style: what came out when, of which values, and why."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rlhf.report.charts import MARKS, Rows, finished, step_axis, thinned

_HEIGHT = 220
_ROW_HEIGHT = 38
_PADDING = 20
THE_BEST = "the best"
_STATES = (THE_BEST, "complete", "pruned", "failed")
_COLOURS = dict(zip(_STATES, (MARKS[1], MARKS[0], MARKS[4], MARKS[3]), strict=True))
_SHAPES = dict(zip(_STATES, ("square", "circle", "diamond", "cross"), strict=True))


def history_chart(rows: Rows, metric: str) -> dict[str, Any]:
    """Each trial's value by its number, and the best so far as steps.

    `rows` have `number`, `value`, `state`, `best` (null before the first) and `settings` in words.
    """
    x = alt.X(
        "number:Q", title="trial", axis=step_axis([row["number"] for row in rows]), scale=_snug()
    )
    values = [dict(row) for row in rows]
    line = (
        alt.Chart(alt.Data(values=[row for row in values if row["best"] is not None]))
        .mark_line(interpolate="step-after", strokeWidth=2, opacity=0.6, color=MARKS[4])
        .encode(x=x, y=_value_axis("best:Q", metric))
    )
    dots = _dots(values).encode(x=x, y=_value_axis("value:Q", metric))
    return finished(alt.layer(line, dots), height=_HEIGHT)


def parameter_chart(rows: Rows, metric: str, *, log: bool, choice: bool) -> dict[str, Any]:
    """The metric against one parameter's `x`; `choice`: it is one of a few, side by side."""
    values = [dict(row) for row in rows]
    x: alt.X
    if choice:
        x = alt.X("x:N", title=None, axis=alt.Axis(labelAngle=0), sort=_in_order(rows))
    else:
        scale = alt.Scale(type="log", nice=False, padding=_PADDING) if log else _snug()
        ticks = log_ticks([row["x"] for row in rows]) if log else None
        axis = alt.Axis(format=".0~e", values=ticks) if ticks else alt.Axis(tickCount=5)
        x = alt.X("x:Q", title=None, scale=scale, axis=axis)
    return finished(_dots(values).encode(x=x, y=_value_axis("value:Q", metric)), height=_HEIGHT)


def importance_chart(rows: Rows) -> dict[str, Any]:
    """Bars of shares with the range over resamplings: `label`, `value`, `low`, `high`."""
    told = [
        alt.Tooltip("label:N", title=" "),
        alt.Tooltip("value:Q", title="share", format=".0%"),
        alt.Tooltip("low:Q", title="resampled, from", format=".0%"),
        alt.Tooltip("high:Q", title="to", format=".0%"),
    ]
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=220)), tooltip=told
    )
    bars = base.mark_bar(color=MARKS[0], height=16).encode(
        x=alt.X(
            "value:Q",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format="%", tickCount=5),
            title=None,
        )
    )
    whiskers = base.mark_rule(strokeWidth=2, color="currentColor").encode(x="low:Q", x2="high:Q")
    return finished(alt.layer(bars, whiskers), height=_ROW_HEIGHT * len(rows))


def course_chart(trials: Rows, metric: str, best: int | None) -> dict[str, Any] | None:
    """What the pruner saw: each trial's metric over its steps; None where none was seen twice.

    `trials` have `number`, `state` and `on_the_way` ([step, value] each).
    """
    points: list[dict[str, Any]] = [
        {
            "trial": f"{row['number']:03d}",
            "step": step,
            "value": value,
            "kind": THE_BEST if row["number"] == best else row["state"],
        }
        for row in trials
        for step, value in thinned(row["on_the_way"], 60)
    ]
    if max((len(row["on_the_way"]) for row in trials), default=0) < 2:
        return None
    kinds = [state for state in _STATES if any(point["kind"] == state for point in points)]
    scale = alt.Scale(domain=kinds, range=[_COLOURS[kind] for kind in kinds])
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=2, opacity=0.8, point=alt.OverlayMarkDef(size=24))
        .encode(
            x=alt.X(
                "step:Q",
                title="step",
                axis=step_axis([point["step"] for point in points]),
                scale=alt.Scale(nice=False),
            ),
            y=_value_axis("value:Q", metric),
            detail="trial:N",
            color=alt.Color("kind:N", scale=scale, legend=_legend(kinds)),
            tooltip=[
                alt.Tooltip("trial:N", title="trial"),
                alt.Tooltip("step:Q", title="step"),
                alt.Tooltip("value:Q", title=metric, format=".4~g"),
            ],
        )
    )
    return finished(chart, height=_HEIGHT)


def _dots(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
    states = [state for state in _STATES if any(row["state"] == state for row in values)]
    colours = alt.Scale(domain=states, range=[_COLOURS[state] for state in states])
    shapes = alt.Scale(domain=states, range=[_SHAPES[state] for state in states])
    return (
        alt.Chart(alt.Data(values=list(values)))
        .mark_point(filled=True, size=80, opacity=0.85)
        .encode(
            color=alt.Color("state:N", scale=colours, legend=_legend(states)),
            shape=alt.Shape("state:N", scale=shapes, legend=_legend(states)),
            tooltip=[
                alt.Tooltip("number:Q", title="trial"),
                alt.Tooltip("value:Q", title="value", format=".4~g"),
                alt.Tooltip("state:N", title="end"),
                alt.Tooltip("settings:N", title="of"),
            ],
        )
    )


def _legend(names: Sequence[str]) -> alt.Legend | None:
    """All names in a row over the chart; none for a single one."""
    return alt.Legend(orient="top", title=None, columns=4) if len(names) > 1 else None


def log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten that lie among `values`; over three decades the powers."""
    low, high = min(values), max(values)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    heads = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [float(f"{head}e{exponent}") for exponent in exponents for head in heads]
    return [tick for tick in ticks if low <= tick <= high]


def _value_axis(shorthand: str, metric: str) -> alt.Y:
    return alt.Y(
        shorthand,
        title=metric,
        scale=alt.Scale(zero=False, nice=True, padding=10),
        axis=alt.Axis(tickCount=5),
    )


def _snug() -> alt.Scale:
    return alt.Scale(zero=False, nice=False, padding=_PADDING)


def _in_order(rows: Rows) -> list[Any]:
    seen = dict.fromkeys(row["x"] for row in rows)
    return sorted(seen, key=lambda x: (isinstance(x, str), x if isinstance(x, str) else float(x)))
