"""The overview's charts: which rows each draws, its words, and the numbers behind it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from annotation_ui.lead import charts
from annotation_ui.lead.charts import figure, interval_words, percent, time_cell
from rlhf.feedback.quality import Forecast, RaterSummary
from rlhf.feedback.store import Progress
from rlhf.records import Estimate, Judgement

MAX_STEPS = 300
"""Of the progress line: more than a screen shows."""


def throughput_figure(buckets: Sequence[tuple[datetime, int | None]]) -> dict[str, Any]:
    """Judgements in each span of time; a span without any is an empty place, not a line."""
    title = "Judgements over time"
    if not any(num for _, num in buckets):
        return figure("throughput", title, caption="No judgement yet.")
    width = _width(buckets)
    rows = [
        {"start": start.isoformat(), "end": (start + width).isoformat(), "num": num}
        for start, num in buckets
        if num
    ]
    total, most = sum(num or 0 for _, num in buckets), max(num or 0 for _, num in buckets)
    each = _width_words(width)
    return figure(
        "throughput",
        title,
        spec=charts.bars_over_time(rows),
        note=f"A bar is {each}.",
        caption=f"{total:,} judgements, counted by {each}; at most {most:,}.",
        columns=["from", "judgements"],
        rows=[[time_cell(start), num or 0] for start, num in buckets],
    )


def agreement_figure(buckets: Sequence[tuple[datetime, Estimate | None]]) -> dict[str, Any]:
    """Agreement in each span of time with its band, broken where nobody overlapped."""
    title = "Agreement over time"
    rows = agreement_rows(buckets)
    if not rows:
        return figure("agreement", title, caption="No item has been judged by two raters yet.")
    last = next(estimate for _, estimate in reversed(buckets) if estimate is not None)
    return figure(
        "agreement",
        title,
        spec=charts.band_over_time(rows),
        note="How often two raters give the same answer, with its 95% interval.",
        caption=f"Agreement over time; most lately {interval_words(last)}.",
        columns=["from", "agreement", "95% interval", "n"],
        rows=[[time_cell(start), *_estimate_cells(estimate)] for start, estimate in buckets],
    )


def agreement_rows(buckets: Sequence[tuple[datetime, Estimate | None]]) -> list[dict[str, Any]]:
    """A row for each measured span; `stretch` goes up where one or more were not measured."""
    rows: list[dict[str, Any]] = []
    stretch = 0
    for start, estimate in buckets:
        if estimate is None:
            stretch += 1
        else:
            rows.append({"at": start.isoformat(), "stretch": stretch, **estimate.as_dict()})
    return rows


def progress_figure(
    progress: Progress,
    steps: Sequence[tuple[datetime, int]],
    expected: Forecast,
    now: datetime,
) -> dict[str, Any]:
    """Places filled against those wanted, and the cone in which the rest will come."""
    title = "Progress"
    if not progress.num_wanted:
        return figure("progress", title, caption="There are no items yet.")
    if not steps:
        return figure("progress", title, caption="No judgement yet.")
    cone = forecast_cone(progress, expected, now)
    until = f"{progress.num_filled:,} of {progress.num_wanted:,} judgements are there"
    note = "The dashed rule is the total wanted."
    note += " The cone is where the pace so far leads, within 95%." if cone else ""
    done = [{"at": at.isoformat(), "num": num} for at, num in steps]
    ends = [{"at": now.isoformat(), "num": steps[-1][1]}]
    return figure(
        "progress",
        title,
        spec=charts.progress_over_time([*done, *ends], cone, progress.num_wanted),
        note=note,
        caption=f"{until}.",
        columns=["when", "judgements"],
        rows=[[time_cell(at), num] for at, num in _thinned(steps, 20)],
    )


def filled_over_time(judgements: Sequence[Judgement], overlap: int) -> list[tuple[datetime, int]]:
    """When how many places were filled: an answer beyond an item's overlap fills none."""
    per_item: dict[str, int] = {}
    steps: list[tuple[datetime, int]] = []
    for row in sorted(judgements, key=lambda row: row.created_at):
        if row.skip is not None or per_item.get(row.item, 0) >= overlap:
            continue
        per_item[row.item] = per_item.get(row.item, 0) + 1
        steps.append((row.created_at, len(steps) + 1))
    if not steps:
        return []
    return _thinned([(steps[0][0], 0), *steps], MAX_STEPS)


def forecast_cone(progress: Progress, expected: Forecast, now: datetime) -> list[dict[str, Any]]:
    """Where fast, likely and slow pace lead, from now until the slow one is done (or a day later).

    Empty without a forecast. Each edge is a straight line from now to its own end.
    """
    finishes = (expected.finish_low, expected.finish_median, expected.finish_high)
    fast, likely, slow = finishes
    if fast is None or likely is None or progress.num_filled >= progress.num_wanted:
        return []
    last = slow or likely + (likely - now)
    moments = sorted({now, fast, likely, last})
    filled, left = progress.num_filled, progress.num_wanted - progress.num_filled

    def reached(moment: datetime, finish: datetime | None) -> float:
        if finish is None:
            return float(filled)
        span = (finish - now).total_seconds()
        share = 1.0 if span <= 0 else min(1.0, (moment - now).total_seconds() / span)
        return round(filled + left * share, 1)

    names = {"slow": slow, "likely": likely, "fast": fast}
    return [
        {"at": moment.isoformat(), **{name: reached(moment, end) for name, end in names.items()}}
        for moment in moments
    ]


def reliability_figure(raters: Sequence[RaterSummary]) -> dict[str, Any]:
    """Each rater's reliability with its interval, the lowest first."""
    title = "Reliability of each rater"
    known = [rater for rater in raters if rater.reliability is not None]
    if not known:
        caption = "Not known yet: it takes items that several raters have judged."
        return figure("reliability", title, caption=caption)
    known.sort(key=lambda rater: rater.reliability.value if rater.reliability else 0.0)
    rows = [_reliability_row(rater) for rater in known]
    lowest = f"{rows[0]['label']} at {percent(rows[0]['value'])}"
    return figure(
        "reliability",
        title,
        spec=charts.dots_with_whiskers(rows, reference=0.5),
        note="How often a rater is right, judged by the others (one-coin Dawid-Skene), with its "
        "95% interval. The dashed rule is chance.",
        caption=f"{len(rows)} raters; the lowest is {lowest}.",
        columns=["rater", "reliability", "95% interval", "n"],
        rows=[
            [row["label"], *_estimate_cells(r.reliability)]
            for row, r in zip(rows, known, strict=True)
        ],
    )


def _reliability_row(rater: RaterSummary) -> dict[str, Any]:
    label = f"{rater.name} (simulated)" if rater.simulated else rater.name
    label += ", excluded" if rater.weight == 0 else ""
    numbers = rater.reliability.as_dict() if rater.reliability else {}
    return {"label": label, "simulated": rater.simulated, **numbers}


def _estimate_cells(estimate: Estimate | None) -> list[str | int | None]:
    if estimate is None:
        return ["not measured", "", 0]
    span = f"{percent(estimate.low)} to {percent(estimate.high)}"
    return [percent(estimate.value), span, estimate.n]


def _width(buckets: Sequence[tuple[datetime, Any]]) -> timedelta:
    starts = [start for start, _ in buckets]
    gaps = [later - sooner for sooner, later in pairwise(starts)]
    return min(gaps, default=timedelta(hours=1))


def _width_words(width: timedelta) -> str:
    minutes = round(width.total_seconds() / 60)
    for size, noun in ((7 * 24 * 60, "week"), (24 * 60, "day"), (60, "hour"), (1, "minute")):
        if minutes >= size and minutes % size == 0:
            num = minutes // size
            return f"one {noun}" if num == 1 else f"{num} {noun}s"
    return f"{width.total_seconds():.0f} seconds"


def _thinned(steps: Sequence[tuple[datetime, int]], limit: int) -> list[tuple[datetime, int]]:
    """At most `limit` steps, evenly spaced, the first and the last among them."""
    if len(steps) <= limit:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (limit - 1))] for index in range(limit)]
