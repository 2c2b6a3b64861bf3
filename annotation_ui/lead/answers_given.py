"""What raters answered, counted: a chart (or several) for each task type."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from annotation_ui.answers import answer_of
from annotation_ui.lead import charts
from annotation_ui.lead.charts import figure
from rlhf.feedback.protocols import Criterion, Protocol
from rlhf.records import Judgement


def answer_figures(protocol: Protocol, judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """The distribution of the answers, sides and places as they were on screen.

    A heap on one side or in one place says something of the page or the raters, not of the
    completions: those are put on either side at random.
    """
    answered = [row for row in judgements if row.skip is None]
    make = _MAKERS[protocol.task]
    return make(protocol, answered, len(judgements) - len(answered))


def _verdicts(
    protocol: Protocol, rows: Sequence[Judgement], num_skipped: int
) -> list[dict[str, Any]]:
    found = Counter(answer_of(row).get("choice") for row in rows)
    counts = [(choice.label, found[choice.value]) for choice in protocol.scale]
    if protocol.both_bad:
        counts.append(("Both are bad", sum(row.both_bad for row in rows)))
    note = "By the sides as they were on screen, which are drawn at random."
    note += " “Both are bad” is marked beside a verdict." if protocol.both_bad else ""
    return [_count_figure("verdicts", "Verdicts", [*counts, ("Skipped", num_skipped)], note)]


def _ratings(
    protocol: Protocol, rows: Sequence[Judgement], num_skipped: int
) -> list[dict[str, Any]]:
    return [_criterion_figure(criterion, rows) for criterion in protocol.criteria]


def _criterion_figure(criterion: Criterion, rows: Sequence[Judgement]) -> dict[str, Any]:
    values = [
        value for row in rows for value in (row.ratings or {}).get(criterion.name, ()) if value
        is not None
    ]  # fmt: skip
    found = Counter(values)
    counts = []
    for value in range(criterion.low, criterion.high + 1):
        words = criterion.anchors.get(value)
        counts.append((f"{value}: {words}" if words else str(value), found[value]))
    note = f"Mean {sum(values) / len(values):.1f}, a bar for each value." if values else ""
    return _count_figure(f"ratings-{criterion.name}", f"Ratings: {criterion.title}", counts, note)


def _rankings(
    protocol: Protocol, rows: Sequence[Judgement], num_skipped: int
) -> list[dict[str, Any]]:
    firsts: Counter[int] = Counter()
    places = 0
    for row in rows:
        if row.ranking is None:
            continue
        places = max(places, len(row.shown_order))
        best = min(row.ranking)
        firsts.update(
            place for place, index in enumerate(row.shown_order) if row.ranking[index] == best
        )
    counts = [(f"shown in place {place + 1}", firsts[place]) for place in range(places)]
    note = "How often the completion in each place on screen was ranked best (ties count each)."
    return [_count_figure("rankings", "Ranked best", [*counts, ("Skipped", num_skipped)], note)]


def _rewrites(
    protocol: Protocol, rows: Sequence[Judgement], num_skipped: int
) -> list[dict[str, Any]]:
    written = [row for row in rows if row.rewrite is not None]
    places = Counter(
        None if row.rewrite_of is None else row.shown_order.index(row.rewrite_of) for row in written
    )
    shown = sorted(place for place in places if place is not None)
    counts = [(f"Rewrote the one shown in place {place + 1}", places[place]) for place in shown]
    counts += [("Written anew", places[None]), ("Skipped", num_skipped)]
    return [_count_figure("rewrites", "Rewrites", counts, "What raters started from.")]


def _flags(protocol: Protocol, rows: Sequence[Judgement], num_skipped: int) -> list[dict[str, Any]]:
    found = Counter(name for row in rows for names in row.flags or () for name in names)
    num_clean = sum(not names for row in rows for names in row.flags or ())
    counts = [(flag.label, found[flag.name]) for flag in protocol.flags]
    counts += [("No flag", num_clean), ("Skipped", num_skipped)]
    return [_count_figure("flags", "Flags", counts, "Completions that each flag was set on.")]


def _count_figure(
    key: str, title: str, counts: Sequence[tuple[str, int]], note: str
) -> dict[str, Any]:
    if not any(num for _, num in counts):
        return figure(key, title, caption="No judgement yet.")
    rows = [{"label": label, "num": num} for label, num in counts]
    caption = f"{title}: " + ", ".join(f"{label} {num:,}" for label, num in counts) + "."
    return figure(
        key,
        title,
        spec=charts.bars(rows),
        note=note,
        caption=caption,
        columns=["answer", "number"],
        rows=[[label, num] for label, num in counts],
    )


_MAKERS = {
    "pairwise": _verdicts,
    "ratings": _ratings,
    "ranking": _rankings,
    "rewrite": _rewrites,
    "flags": _flags,
}
