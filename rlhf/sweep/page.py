"""The sweep as one self-contained HTML page, in the report's style."""

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf.report.page import page_environment, vega_bundle
from rlhf.report.wording import number
from rlhf.sweep.charts import (
    THE_BEST,
    course_chart,
    history_chart,
    importance_chart,
    parameter_chart,
)
from rlhf.sweep.plan import SweepPlan
from rlhf.sweep.wording import duration, trial_name, value_text, values_text

_MEASURED = ("complete", "pruned")


def render(
    plan: SweepPlan, outcome: Mapping[str, Any], folder: Path, best: str, caution: str
) -> str:
    """The page's HTML; `outcome` is what sweep.json holds, `best` the text of best.yaml, `caution`
    what a reader must know of the best number.
    """
    figures = [
        {**one, "id": f"sweep-{index}", "simulated": outcome["simulated"]}
        for index, one in enumerate(figures_of(plan, outcome))
    ]
    page: str = (
        _environment()
        .get_template("sweep.html")
        .render(
            title=f"Sweep of rlhf {plan.stage}: {folder.resolve().name}",
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            folder=folder,
            plan=plan,
            names=[one.name for one in plan.parameters],
            outcome=outcome,
            findings=findings(plan, outcome),
            figures=figures,
            best_config=best,
            optimism=caution,
            bundle=vega_bundle(),
        )
    )
    return page


def findings(plan: SweepPlan, outcome: Mapping[str, Any]) -> list[str]:
    """What the sweep came to, in sentences: the best trial first."""
    counts, best = outcome["counts"], outcome["best"]
    told = [f"{count} {state}" for state, count in counts.items() if count]
    took = f"{sum(counts.values())} trials ({', '.join(told)}) took {duration(outcome['seconds'])}."
    if best is None:
        return [f"No trial was trained to its end. {took}"]
    return [
        f"Trial {trial_name(best['number'])} is the best: {plan.metric} "
        f"{value_text(best['value'])} with {values_text(best['settings'])}.",
        took,
    ]


def figures_of(plan: SweepPlan, outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The charts that there is material for, each with its numbers in words."""
    rows = [
        row for row in outcome["trials"] if row["state"] in _MEASURED and row["value"] is not None
    ]
    rows.sort(key=lambda row: row["number"])
    if not rows:
        return []
    points = with_best(plan, rows, outcome["best"]["number"] if outcome["best"] else None)
    made = [
        {
            "title": "Trial after trial",
            "note": "The line is the best so far of the trials that were trained to their end.",
            "spec": history_chart(points, plan.metric),
            "caption": f"{plan.metric} of {len(rows)} trials in their order: {_span(rows)}.",
        }
    ]
    made += [_parameter_figure(plan, index, points) for index in range(len(plan.parameters))]
    made += [one for one in (_importance_figure(outcome), _course_figure(plan, outcome)) if one]
    return made


def with_best(
    plan: SweepPlan, rows: Sequence[Mapping[str, Any]], number: int | None
) -> list[dict[str, Any]]:
    """The trials in their order, each with the best value so far and its settings in words; the
    best of all is that of `number`.
    """
    best: float | None = None
    made = []
    for row in rows:
        if row["state"] == "complete":
            better = max if plan.is_maximized else min
            best = row["value"] if best is None else better(best, row["value"])
        words = values_text(row["settings"])
        made.append(
            {
                "number": row["number"],
                "value": row["value"],
                "state": THE_BEST if row["number"] == number else row["state"],
                "best": best,
                "settings": words,
                "values": row["settings"],
            }
        )
    return made


def _parameter_figure(
    plan: SweepPlan, index: int, points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    one = plan.parameters[index]
    rows = [
        {key: value for key, value in point.items() if key != "values"}
        | {"x": _place(point["values"][one.name], one.is_choice)}
        for point in points
        if one.name in point["values"]
    ]
    low, high = _ends(rows, plan)
    return {
        "title": one.name,
        "spec": parameter_chart(rows, plan.metric, log=one.is_log, choice=one.is_choice),
        "caption": f"{plan.metric} against {one.name}, searched over {one.words}: best "
        f"{value_text(low['value'])} at {value_text(low['x'])}, worst "
        f"{value_text(high['value'])} at {value_text(high['x'])}.",
    }


def _place(value: Any, is_choice: bool) -> Any:
    """Where a value stands on its axis: as itself, or among choices by its name."""
    return value_text(value) if is_choice else value


def _ends(
    rows: Sequence[Mapping[str, Any]], plan: SweepPlan
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The row with the best value and the one with the worst."""
    ordered = sorted(rows, key=lambda row: row["value"], reverse=plan.is_maximized)
    return ordered[0], ordered[-1]


def _importance_figure(outcome: Mapping[str, Any]) -> dict[str, Any] | None:
    found = outcome["importance"]
    if not found["shares"]:
        return None
    rows = [
        {"label": name, "value": share, "low": found["low"][name], "high": found["high"][name]}
        for name, share in found["shares"].items()
    ]
    return {
        "title": "What mattered",
        "note": "Share of the metric's variation (fANOVA). The thin lines: lowest and "
        "highest over resamplings of the trials.",
        "spec": importance_chart(rows),
        "caption": found["words"],
    }


def _course_figure(plan: SweepPlan, outcome: Mapping[str, Any]) -> dict[str, Any] | None:
    best = outcome["best"]["number"] if outcome["best"] else None
    spec = course_chart(outcome["trials"], plan.pruner_metric, best)
    if spec is None:
        return None
    return {
        "title": "On the way",
        "note": "A line a trial; what the pruner saw.",
        "spec": spec,
        "caption": f"{plan.pruner_metric} over the steps of {len(outcome['trials'])} trials.",
    }


def _span(rows: Sequence[Mapping[str, Any]]) -> str:
    values = [row["value"] for row in rows]
    return f"from {value_text(min(values))} to {value_text(max(values))}"


@functools.cache
def _environment() -> Any:
    environment = page_environment("rlhf.sweep")
    environment.filters |= {
        "number": number,
        "value": value_text,
        "duration": duration,
        "trial": trial_name,
    }
    return environment
