"""What a sweep came to: a table, `sweep.json`, and `best.yaml` for the stage's own command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from rlhf.manifest import write_json, write_text
from rlhf.sweep.importance import Importance, importance_of
from rlhf.sweep.plan import SweepPlan
from rlhf.sweep.wording import (
    STATE_WORDS,
    best_of,
    duration,
    ranked,
    settings_of,
    trial_name,
    value_text,
)

JSON_NAME = "sweep.json"
BEST_NAME = "best.yaml"
PAGE_NAME = "sweep.html"
OPTIMISM = (
    "The best of several trials is optimistic: it was picked by the same held-out rows that its "
    "number is of. Measure it again on others before it is quoted."
)
SIMULATED = "The raters were SIMULATED: these numbers say nothing about people."


def write_outcome(plan: SweepPlan, trials: Sequence[FrozenTrial], folder: Path) -> dict[str, Any]:
    """Write sweep.json, best.yaml and sweep.html into the sweep's folder; the first as a value."""
    from rlhf.sweep.page import render

    importance = importance_of(plan, trials)
    outcome = outcome_of(plan, trials, importance)
    write_json(folder / JSON_NAME, outcome)
    best = best_of(plan, trials)
    config = best_config(plan, best, folder) if best is not None else ""
    if config:
        write_text(folder / BEST_NAME, config)
    write_text(folder / PAGE_NAME, render(plan, outcome, folder, config, OPTIMISM))
    return outcome


def outcome_of(
    plan: SweepPlan, trials: Sequence[FrozenTrial], importance: Importance
) -> dict[str, Any]:
    """What sweep.json holds: how was searched, every trial best first, the best, what mattered."""
    rows = [trial_row(plan, trial) for trial in ranked(plan, trials)]
    best = best_of(plan, trials)
    return {
        **{key: value for key, value in plan.description().items() if key != "search"},
        "search": {one.name: one.words for one in plan.parameters},
        "num_trials": plan.num_trials,
        "counts": counts(trials),
        "simulated": is_simulated(trials),
        "best": trial_row(plan, best) if best else None,
        "trials": rows,
        "importance": importance.as_dict(),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }


def trial_row(plan: SweepPlan, trial: FrozenTrial) -> dict[str, Any]:
    """One trial as sweep.json tells it. The `value` of a pruned one is its last on the way."""
    notes = trial.user_attrs
    return {
        "number": trial.number,
        "state": STATE_WORDS[trial.state],
        "value": trial.value if trial.state != TrialState.FAIL else None,
        "settings": settings_of(plan, trial),
        "seconds": notes.get("seconds", 0.0),
        "step": trial.last_step,
        "on_the_way": [[step, value] for step, value in sorted(trial.intermediate_values.items())],
        "reason": notes.get("reason"),
        "simulated": notes.get("simulated"),
        "metrics": notes.get("metrics", {}),
        "folder": f"trials/{trial_name(trial.number)}",
    }


def counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """How many trials ended how."""
    words = dict.fromkeys(STATE_WORDS.values(), 0)
    for trial in trials:
        words[STATE_WORDS[trial.state]] += 1
    return words


def is_simulated(trials: Sequence[FrozenTrial]) -> bool:
    """Whether any trial rests on simulated labels."""
    return any(trial.user_attrs.get("simulated") for trial in trials)


def best_config(plan: SweepPlan, best: FrozenTrial, folder: Path) -> str:
    """A config that `rlhf STAGE --config` takes as it is, writing to `best` beside it."""
    settings = plan.trial_settings(settings_of(plan, best), folder / "best")
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    simulated = (
        "# Simulated raters made the labels behind it.\n"
        if best.user_attrs.get("simulated")
        else ""
    )
    return (
        f"# The best of a sweep's trials, {trial_name(best.number)}: "
        f"{plan.metric} {value_text(best.value)}\n{simulated}"
        f"#   rlhf {plan.stage} --config {folder / BEST_NAME}\n{text}"
    )


def print_outcome(plan: SweepPlan, outcome: Mapping[str, Any], folder: Path) -> None:
    """The closing table, best first, and where the rest is."""
    console = Console()
    console.print(trial_table(plan, outcome))
    importance = outcome["importance"]
    print(importance["words"])
    if outcome["best"]:
        print(OPTIMISM)
        print(f"best: rlhf {plan.stage} --config {folder / BEST_NAME}")
    print(f"page: {folder / PAGE_NAME}")
    if outcome["simulated"]:
        print(SIMULATED)


def trial_table(plan: SweepPlan, outcome: Mapping[str, Any]) -> Table:
    """Trials best first: metric, values, time, how it ended."""
    metric = plan.metric + (" (simulated)" if outcome["simulated"] else "")
    names = [one.name for one in plan.parameters]
    table = Table("trial", metric, *names, "time", "end", title=f"Sweep of rlhf {plan.stage}")
    for row in outcome["trials"]:
        values = [value_text(row["settings"].get(name, "")) for name in names]
        is_whole = row["state"] == "complete"
        value = value_text(row["value"]) if is_whole else "-"
        table.add_row(
            trial_name(row["number"]), value, *values, duration(row["seconds"]), end_text(row)
        )
    return table


def end_text(row: Mapping[str, Any]) -> str:
    """How a trial ended, in a few words."""
    if row["state"] == "pruned":
        return f"pruned at step {row['step']} ({value_text(row['value'])} there)"
    return f"failed: {row['reason']}" if row["state"] == "failed" else row["state"]
