"""The charts of a training run: curves with bands, a budget, and the best checkpoint's place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt

from rlhf.report.charts import (
    MARKS,
    Rows,
    finished,
    is_number,
    legend,
    palette,
    step_axis,
    thinned,
)
from rlhf.report.wording import percent

_CURVE_HEIGHT = 190


def points_of(log: Rows, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """The log's `keys` (to their names in the legend) as points with `low` and `high`.

    A key's interval stands in the log under its name with `_ci_low` and `_ci_high`.
    """
    return [
        {
            "step": row["step"],
            "value": row[key],
            "series": name,
            "low": _number(row.get(f"{key}_ci_low")),
            "high": _number(row.get(f"{key}_ci_high")),
        }
        for key, name in keys.items()
        for row in thinned([row for row in log if is_number(row.get(key))])
    ]


def _number(value: object) -> float | None:
    return value if isinstance(value, float | int) and is_number(value) else None


def run_chart(
    points: Sequence[Mapping[str, Any]],
    *,
    unit: str = "",
    whole: bool = False,
    zero: bool = False,
    level: tuple[float, str] | None = None,
    best_step: int | None = None,
) -> dict[str, Any]:
    """Curves over optimizer steps, with 95% bands where points have them.

    `unit` may be %; `whole` puts the axis on 0 to 1, `zero` has it include 0. `level` is a dashed
    line at a value with its name (which may be empty), a budget for instance; `best_step` a
    dotted upright one.
    """
    names = list(dict.fromkeys(point["series"] for point in points))
    scale = alt.Scale(domain=[0, 1]) if whole else alt.Scale(zero=zero, nice=True)
    axis = alt.Axis(format="%", tickCount=5) if unit == "%" else alt.Axis(tickCount=5)
    steps = [point["step"] for point in points]
    x = alt.X("step:Q", title="step", axis=step_axis(steps), scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title=None, scale=scale, axis=axis)
    shown = legend(names)
    if shown is not None:
        shown.symbolOpacity = 1  # not the band's
    colour = alt.Color("series:N", scale=palette(names), legend=shown)
    base = alt.Chart(alt.Data(values=[dict(point) for point in points])).encode(x=x)
    layers: list[alt.Chart] = []
    if any(point["low"] is not None for point in points):
        layers.append(
            base.transform_filter("isValid(datum.low) && isValid(datum.high)")
            .mark_area(opacity=0.18)
            .encode(y=alt.Y("low:Q", title=None, scale=scale), y2="high:Q", color=colour)
        )
    layers += _rules(level, best_step)
    layers.append(
        base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=28)).encode(
            y=y, color=colour, tooltip=_tooltip(unit)
        )
    )
    return finished(alt.layer(*layers), height=_CURVE_HEIGHT)


def curve_caption(title: str, points: Sequence[Mapping[str, Any]], *, share: bool) -> str:
    """The first and the last value of each curve in words."""
    show: Callable[[float], str] = percent if share else (lambda value: f"{value:.3g}")
    told = []
    for name in dict.fromkeys(point["series"] for point in points):
        values = [point["value"] for point in points if point["series"] == name]
        told.append(f"{name} {show(values[0])} to {show(values[-1])}")
    return f"{title} over {points[-1]['step']} steps: {'; '.join(told)}."


def _rules(level: tuple[float, str] | None, best_step: int | None) -> list[alt.Chart]:
    """The dashed line of a level with its name over it, and the dotted one of the best step."""
    made = []
    if level is not None:
        data = alt.Chart(alt.Data(values=[{"at": level[0], "name": level[1]}]))
        made.append(
            data.mark_rule(strokeDash=[6, 4], strokeWidth=1.5, color=MARKS[4]).encode(y="at:Q")
        )
        made.append(
            data.mark_text(align="left", baseline="bottom", dx=4, dy=-3, fontSize=12).encode(
                x=alt.value(0), y="at:Q", text="name:N"
            )
        )
    if best_step is not None:
        data = alt.Chart(alt.Data(values=[{"at": best_step}]))
        made.append(
            data.mark_rule(strokeDash=[2, 3], strokeWidth=1.5, color=MARKS[4]).encode(x="at:Q")
        )
    return made


def _tooltip(unit: str) -> list[Any]:
    form = ".1%" if unit == "%" else ".4~g"
    fields = [alt.Tooltip("value:Q", title="value", format=form)]
    fields += [
        alt.Tooltip(f"{name}:Q", title=title, format=form)
        for name, title in (("low", "95% from"), ("high", "95% to"))
    ]
    return ["series:N", alt.Tooltip("step:Q", title="step"), *fields]
