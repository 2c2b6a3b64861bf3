"""How a sweep names trials, values, times and ends."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from rlhf.sweep.plan import SweepPlan

STATE_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
    TrialState.WAITING: "unfinished",
}


def trial_name(number: int) -> str:
    """The trial's name, which is its folder's: `007`."""
    return f"{number:03d}"


def value_text(value: Any) -> str:
    """A setting or a metric, a number with as many digits as can be told apart by eye."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def values_text(values: Mapping[str, Any]) -> str:
    """`learning_rate 0.0003, beta 0.1`."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def settings_of(plan: SweepPlan, trial: FrozenTrial) -> dict[str, Any]:
    """The stage's settings that a trial tried, in the order in which they are searched."""
    return {
        one.name: one.value_of(trial.params[one.name])
        for one in plan.parameters
        if one.name in trial.params
    }


def best_of(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The best trial that was trained to its end; of equals the first. None without one."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return ranked(plan, complete)[0] if complete else None


def ranked(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Best first: those with a value of their end, the pruned by how far they came, the failed."""
    sign = -1.0 if plan.is_maximized else 1.0

    def rank(trial: FrozenTrial) -> tuple[float, float, float, int]:
        order = list(STATE_WORDS).index(trial.state)
        value = sign * trial.value if trial.value is not None else 0.0
        step = trial.last_step or 0
        if trial.state == TrialState.COMPLETE:
            return order, value, 0, trial.number
        return order, -step, value, trial.number

    return sorted(trials, key=rank)


def outcome_line(plan: SweepPlan, trial: FrozenTrial, ended: Sequence[FrozenTrial]) -> str:
    """A trial's end in one line: what came out, of which values, beside the best so far."""
    name, seconds = trial_name(trial.number), duration(trial.user_attrs.get("seconds", 0.0))
    with_what = values_text(settings_of(plan, trial))
    if trial.state == TrialState.FAIL:
        return f"{name}: failed ({trial.user_attrs.get('reason', '')}); {with_what}; {seconds}"
    if trial.state == TrialState.PRUNED:
        at = f"pruned at step {trial.user_attrs['step']}"
        return (
            f"{name}: {at}, {plan.pruner_metric} {value_text(trial.value)}; {with_what}; {seconds}"
        )
    best = best_of(plan, ended)
    is_best = best is not None and best.number == trial.number
    beside = "the best so far" if is_best else f"best {value_text(best.value if best else None)}"
    return f"{name}: {plan.metric} {value_text(trial.value)} ({beside}); {with_what}; {seconds}"
