"""The report's charts as Vega-Lite specifications: plain JSON, drawn in the reader's browser.

Colours of text, axes and grid come from the page's style sheet, so that one drawing serves
light, dark and print; only the marks carry colours of their own, readable on both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

Rows = Sequence[Mapping[str, Any]]

MARKS = ("#4f7df3", "#e07a3f", "#2a9d8f", "#b565c9", "#8a8f98")
_ROW_HEIGHT = 34
_LABELLED_ROW_HEIGHT = 46
_CURVE_HEIGHT = 170
MAX_POINTS = 400
"""Of a curve: more than a screen shows, and few enough that long runs keep the page small."""

CURVES: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "sft": (
        ("Loss", ("loss", "eval_loss")),
        ("Token accuracy", ("mean_token_accuracy", "eval_mean_token_accuracy")),
    ),
    "reward": (
        ("Loss", ("loss", "eval_loss")),
        ("Accuracy", ("accuracy", "eval_accuracy")),
        ("Margin of the chosen score", ("margin", "eval_margin")),
    ),
    "dpo": (
        ("Loss", ("loss", "eval_loss")),
        ("Accuracy of the implicit reward", ("rewards/accuracies", "eval_rewards/accuracies")),
        ("Margin of the implicit reward", ("rewards/margins", "eval_rewards/margins")),
        ("Log-probability of a completion", ("logps/chosen", "logps/rejected")),
    ),
}
"""Of each stage's training log: a chart's title and the keys drawn in it."""


def interval_chart(rows: Rows, *, reference: float | None = None) -> dict[str, Any]:
    """Dots with their 95% intervals on the whole of 0 to 100%, one row a line.

    `rows` have `label`, `value`, `low`, `high` (null when unknown), `n` and `kind`;
    `reference` is a dashed rule, chance for instance.
    """
    values = [{**row, "text": f"{row['label']}: {row['value']:.0%}"} for row in rows]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    colour = alt.Color("kind:N", scale=_palette(kinds), legend=None)
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("label:N", sort=None, axis=None), tooltip=_interval_tooltip()
    )
    axis = alt.Axis(format="%", tickCount=5)
    bars = base.mark_rule(strokeWidth=3, opacity=0.55).encode(
        x=alt.X("low:Q", scale=alt.Scale(domain=[0, 1]), title=None, axis=axis),
        x2="high:Q",
        color=colour,
    )
    dots = base.mark_point(filled=True, size=110, opacity=1).encode(x="value:Q", color=colour)
    # The label stands over its row, not beside it: on a phone the row needs the whole width.
    labels = base.mark_text(align="left", baseline="bottom", dy=-8, fontSize=13).encode(
        x=alt.XDatum(0), text="text:N"
    )
    layers = [bars, dots, labels]
    if reference is not None:
        layers.insert(0, _rule(reference))
    return _spec(alt.layer(*layers), height=_LABELLED_ROW_HEIGHT * len(rows))


def bar_chart(rows: Rows, *, share: bool = False) -> dict[str, Any]:
    """Bars from zero with 95% intervals; `rows` as for `interval_chart`."""
    scale = alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=True, nice=True)
    axis = alt.Axis(format="%" if share else "d", tickCount=5)
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(
        y=alt.Y("label:N", sort=None, title=None), tooltip=_interval_tooltip("%" if share else "")
    )
    bars = base.mark_bar(color=MARKS[0], height=16).encode(
        x=alt.X("value:Q", scale=scale, axis=axis, title=None)
    )
    whiskers = base.mark_rule(strokeWidth=2, color="currentColor").encode(x="low:Q", x2="high:Q")
    return _spec(alt.layer(bars, whiskers), height=_ROW_HEIGHT * len(rows))


def curve_chart(log: Rows, keys: Sequence[str]) -> dict[str, Any] | None:
    """A training log's `keys` over steps; None when the log has none of them."""
    points = [
        {"step": row["step"], "value": row[key], "series": key}
        for key in keys
        for row in thinned([row for row in log if isinstance(row.get(key), (int, float))])
    ]
    if not points:
        return None
    present = list(dict.fromkeys(point["series"] for point in points))
    shares = "accurac" in keys[0]
    scale = alt.Scale(domain=[0, 1]) if shares else alt.Scale(zero=False, nice=True)
    axis = alt.Axis(format="%", tickCount=5) if shares else alt.Axis(tickCount=5)
    colour = alt.Color("series:N", scale=_palette(present), legend=_legend(present))
    whole = alt.Axis(format="d", tickMinStep=1, tickCount=6)
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=28))
        .encode(
            x=alt.X("step:Q", title="step", axis=whole, scale=alt.Scale(nice=False)),
            y=alt.Y("value:Q", title=None, scale=scale, axis=axis),
            color=colour,
            tooltip=["series:N", "step:Q", alt.Tooltip("value:Q", format=".4~g")],
        )
    )
    return _spec(chart, height=_CURVE_HEIGHT)


def thinned(rows: Rows, limit: int = MAX_POINTS) -> Rows:
    """At most `limit` rows, evenly spaced, the first and the last among them."""
    if len(rows) <= limit:
        return rows
    return [rows[round(index * (len(rows) - 1) / (limit - 1))] for index in range(limit)]


def reliability_chart(rows: Rows) -> dict[str, Any]:
    """What the reward model said against what the labels said, with intervals and the diagonal.

    `rows` have `said`, `value`, `low`, `high`, `n`; confidence lies in 0.5 to 1.
    """
    ends = alt.Data(values=[{"said": 0.5, "value": 0.5}, {"said": 1.0, "value": 1.0}])
    x = alt.X(
        "said:Q",
        scale=alt.Scale(domain=[0.5, 1]),
        title="the reward model's confidence",
        axis=alt.Axis(format="%", tickCount=5),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title="share that agrees with the label")
    diagonal = alt.Chart(ends).mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=MARKS[4])
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(
        x=x, tooltip=[alt.Tooltip("said:Q", format=".0%"), *_interval_tooltip()[1:]]
    )
    bars = base.mark_rule(strokeWidth=3, opacity=0.55, color=MARKS[0]).encode(
        y=alt.Y("low:Q", scale=alt.Scale(domain=[0, 1])), y2="high:Q"
    )
    dots = base.mark_point(filled=True, size=90, opacity=1, color=MARKS[0]).encode(
        y=y.axis(format="%", tickCount=5)
    )
    return _spec(alt.layer(diagonal.encode(x=x, y=y), bars, dots), height=260)


def _interval_tooltip(unit: str = "%") -> list[alt.Tooltip]:
    number = ".0%" if unit == "%" else ".1f"
    fields = [alt.Tooltip("label:N", title=" ")]
    for name, title in (("value", "value"), ("low", "95% from"), ("high", "95% to")):
        fields.append(alt.Tooltip(f"{name}:Q", title=title, format=number))
    return [*fields, alt.Tooltip("n:Q", title="n")]


def _rule(position: float) -> alt.Chart:
    rule = alt.Chart(alt.Data(values=[{"at": position}])).mark_rule(
        strokeDash=[5, 4], strokeWidth=1.5, color=MARKS[4]
    )
    return rule.encode(x="at:Q")


def _palette(names: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[MARKS[i % len(MARKS)] for i in range(len(names))])


def _legend(names: Sequence[str]) -> alt.Legend | None:
    if len(names) < 2:
        return None
    return alt.Legend(orient="top", title=None, labelLimit=260, columns=2)


def _spec(chart: alt.Chart | alt.LayerChart, *, height: float) -> dict[str, Any]:
    """The chart as wide as its place on the page, on no background of its own."""
    sized = chart.properties(width="container", height=height, background="transparent")
    styled = sized.configure(font="system-ui, sans-serif").configure_view(stroke=None)
    styled = styled.configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
    styled = styled.configure_legend(labelFontSize=12, symbolStrokeWidth=3)
    return styled.to_dict()
