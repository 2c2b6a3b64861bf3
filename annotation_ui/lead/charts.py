"""The leads' charts as Vega-Lite specifications: plain JSON, drawn in the browser.

No axis is cut: counts and seconds start at zero, shares span 0 to 100%. What was not measured is
drawn as nothing, never as a line across. Text and grid take their colours from the page's style
sheet, so one drawing serves light and dark; the marks' own colours are readable on both.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rlhf.records import Estimate

Rows = Sequence[Mapping[str, Any]]
Cell = str | int | Mapping[str, str] | None

BLUE, ORANGE, GREY = "#4f7df3", "#e07a3f", "#8a8f98"
_ROW_HEIGHT = 26
_TIME_HEIGHT = 200


def figure(
    key: str,
    title: str,
    *,
    caption: str,
    spec: dict[str, Any] | None = None,
    note: str = "",
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[Cell]] = (),
    simulated: str = "",
) -> dict[str, Any]:
    """A chart as the page takes it; `columns` and `rows` are its numbers for those who read.

    Without a `spec` the `caption` stands in the chart's place and says why there is none.
    `simulated` is what is written on it (see `simulated_words`).
    """
    table = {"columns": list(columns), "rows": [list(row) for row in rows]}
    return {
        "id": key,
        "title": title,
        "caption": caption,
        "note": note,
        "spec": spec,
        "table": table if rows else None,
        "simulated": simulated,
    }


def simulated_words(marks: Iterable[bool]) -> str:
    """The mark for numbers made of these: "" where none is simulated."""
    found = list(marks)
    return "simulated" if found and all(found) else "partly simulated" if any(found) else ""


def time_cell(moment: datetime) -> dict[str, str]:
    """A moment in a table or a sentence: the browser writes it in the reader's own time zone."""
    return {"time": moment.isoformat()}


def percent(value: float) -> str:
    """A share as a reader takes it in: whole percents."""
    return f"{100 * value:.0f}%"


def interval_words(estimate: Estimate) -> str:
    """The number with its 95% interval and count: "86% (71% to 95%, n 20)"."""
    span = f"{percent(estimate.low)} to {percent(estimate.high)}"
    return f"{percent(estimate.value)} ({span}, n {estimate.n:,})"


def bars_over_time(rows: Rows) -> dict[str, Any]:
    """A bar for each span of time, from zero; `rows` have `start`, `end` (ISO) and `num`."""
    import altair as alt

    axis = alt.Axis(tickMinStep=1, tickCount=5, format="d")
    chart = (
        _data(rows)
        .mark_bar(color=BLUE, binSpacing=1)
        .encode(
            x=alt.X("start:T", title=None, axis=_times()),
            x2="end:T",
            y=alt.Y("num:Q", title=None, scale=alt.Scale(zero=True, nice=True), axis=axis),
            y2=alt.Y2Datum(0),
            tooltip=[_time("start", "from"), _time("end", "to"), alt.Tooltip("num:Q", title="n")],
        )
    )
    return _spec(chart, _TIME_HEIGHT)


def band_over_time(rows: Rows) -> dict[str, Any]:
    """A share over time with its 95% band, broken where nothing was measured.

    `rows` have `at` (ISO), `value`, `low`, `high`, `n` and `stretch`: neighbours of one stretch
    are joined. A lone point shows its interval as a whisker.
    """
    import altair as alt

    x = alt.X("at:T", title=None, axis=_times())
    base = _data(rows).encode(x=x, detail="stretch:N")
    y = alt.Y("low:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=_percents())
    band = base.mark_area(opacity=0.22, color=BLUE).encode(y=y, y2="high:Q")
    whiskers = base.mark_rule(strokeWidth=1.5, opacity=0.45, color=BLUE).encode(y=y, y2="high:Q")
    line = base.mark_line(strokeWidth=2, color=BLUE).encode(y="value:Q")
    dots = base.mark_point(filled=True, size=45, opacity=1, color=BLUE).encode(
        y="value:Q", tooltip=[_time("at", "from"), *_interval_tooltip()]
    )
    return _spec(alt.layer(band, whiskers, line, dots), _TIME_HEIGHT)


def progress_over_time(done: Rows, cone: Rows, wanted: int) -> dict[str, Any]:
    """Places filled over time up to the total wanted, and where the pace leads from here.

    `done` has `at` (ISO) and `num`; `cone` has `at`, `slow`, `likely` and `fast` (places).
    """
    import altair as alt

    scale = alt.Scale(domain=[0, wanted], nice=False)
    axis = alt.Axis(tickMinStep=1, tickCount=5, format="d")
    x = alt.X("at:T", title=None, axis=_times())
    line = (
        _data(done)
        .mark_line(strokeWidth=2.5, color=BLUE, interpolate="step-after")
        .encode(x=x, y=alt.Y("num:Q", title=None, scale=scale, axis=axis))
    )
    target = _data([{"num": wanted, "words": f"{wanted:,} wanted"}])
    target = target.encode(y=alt.Y("num:Q", scale=scale))
    rule = target.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=GREY)
    words = target.mark_text(align="left", baseline="top", dx=6, dy=5, fontSize=12)
    layers = [rule, words.encode(x=alt.XValue(0), text="words:N"), line]
    if cone:
        base = _data(cone).encode(x=x)
        layers.insert(0, base.mark_area(opacity=0.2, color=BLUE).encode(y="slow:Q", y2="fast:Q"))
        likely = base.mark_line(strokeDash=[6, 4], strokeWidth=2, color=BLUE)
        layers.append(likely.encode(y="likely:Q"))
    return _spec(alt.layer(*layers), _TIME_HEIGHT)


def dots_with_whiskers(rows: Rows, *, reference: float | None = None) -> dict[str, Any]:
    """Shares with 95% intervals on the whole of 0 to 100%, one row a line.

    `rows` have `label`, `value`, `low`, `high`, `n` and `simulated`; `reference` is a dashed
    rule.
    """
    import altair as alt

    colour = alt.condition("datum.simulated", alt.value(ORANGE), alt.value(BLUE))
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, ticks=False))
    x = alt.X("low:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=_percents())
    base = _data(rows).encode(y=y, color=colour)
    whiskers = base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, size=95, opacity=1).encode(
        x="value:Q", tooltip=[alt.Tooltip("label:N", title=" "), *_interval_tooltip()]
    )
    layers = [whiskers, dots]
    if reference is not None:
        rule = _data([{"at": reference}]).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=GREY)
        layers.insert(0, rule.encode(x=alt.X("at:Q", scale=alt.Scale(domain=[0, 1]))))
    return _spec(alt.layer(*layers), _ROW_HEIGHT * len(rows) + 8)


def bars(rows: Rows) -> dict[str, Any]:
    """Counts as bars from zero, in the order of `rows` (`label`, `num`), each with its number."""
    import altair as alt

    highest = max((row["num"] for row in rows), default=0)
    base = _data(rows).encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=190, ticks=False)),
        x=alt.X(
            "num:Q",
            title=None,
            scale=alt.Scale(domain=[0, max(1, 1.12 * highest)], nice=False),
            axis=alt.Axis(tickMinStep=1, tickCount=5, format="d"),
        ),
    )
    drawn = base.mark_bar(color=BLUE, height=15)
    numbers = base.mark_text(align="left", dx=5, fontSize=12).encode(text="num:Q")
    return _spec(alt.layer(drawn, numbers), _ROW_HEIGHT * len(rows) + 8)


def seconds_over_time(rows: Rows, *, too_fast_s: float) -> dict[str, Any]:
    """How long each answer took, a dot an answer, from zero; below the dashed rule is too fast.

    `rows` have `at` (ISO), `seconds`, `words` and `kind`. Times above the 98th percentile are
    drawn at the top edge, with their true number in the tooltip: one long pause would flatten all.
    """
    import altair as alt

    ordered = sorted(row["seconds"] for row in rows)
    top = max(ordered[int(0.98 * (len(ordered) - 1))], 2 * too_fast_s, 1.0)
    drawn = [{**row, "height": min(row["seconds"], top)} for row in rows]
    scale = alt.Scale(domain=[0, top], nice=True)
    dots = (
        _data(drawn)
        .mark_point(filled=True, size=38, opacity=0.75, color=BLUE)
        .encode(
            x=alt.X("at:T", title=None, axis=_times()),
            y=alt.Y("height:Q", title="seconds", scale=scale, axis=alt.Axis(tickCount=5)),
            tooltip=[
                _time("at", "when"),
                alt.Tooltip("seconds:Q", format=".1f"),
                alt.Tooltip("words:N", title="answer"),
            ],
        )
    )
    rule = _data([{"at": too_fast_s}]).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=ORANGE)
    return _spec(alt.layer(rule.encode(y=alt.Y("at:Q", scale=scale)), dots), _TIME_HEIGHT)


def _data(rows: Rows) -> Any:
    import altair as alt

    return alt.Chart(alt.Data(values=[dict(row) for row in rows]))


def _percents() -> Any:
    import altair as alt

    return alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])


def _times() -> Any:
    import altair as alt

    return alt.Axis(tickCount=6, labelOverlap="greedy", labelSeparation=8)


def _time(field: str, title: str) -> Any:
    import altair as alt

    return alt.Tooltip(f"{field}:T", title=title, format="%-d %b %H:%M")


def _interval_tooltip() -> list[Any]:
    import altair as alt

    shares = (("value", "value"), ("low", "95% from"), ("high", "95% to"))
    tooltips = [alt.Tooltip(f"{name}:Q", title=title, format=".0%") for name, title in shares]
    return [*tooltips, alt.Tooltip("n:Q", title="n")]


def _spec(chart: Any, height: float) -> dict[str, Any]:
    """The chart as wide as its place on the page, on no background of its own.

    Not validated against Vega-Lite's schema: that takes longer than all the statistics, and a
    test does it.
    """
    sized = chart.properties(width="container", height=height, background="transparent")
    styled = sized.configure(font="system-ui, sans-serif").configure_view(stroke=None)
    styled = styled.configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
    made: dict[str, Any] = styled.configure_axisX(grid=False).to_dict(validate=False)
    return made
