"""Studies without processes: proposals told a value by a formula, some pruned, one failed."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from rlhf.sweep.plan import SweepPlan
from tests.sweep.forked import make_plan

Value = Callable[[Mapping[str, Any]], float]


def trials_of(
    plan: SweepPlan, points: list[dict[str, Any]], value: Value, **notes: Any
) -> list[FrozenTrial]:
    """Finished trials at `points`, with the metric that `value` gives."""
    made = []
    for number, point in enumerate(points):
        trial = create_trial(
            params=point,
            distributions={one.name: one.distribution for one in plan.parameters},
            value=value(point),
            user_attrs={"seconds": 10.0, "metrics": {}, "simulated": False, **notes},
        )
        trial.number = number
        made.append(trial)
    return made


SEARCH = {
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "beta": [0.05, 0.1, 0.3],
    "lora_r": {"low": 8, "high": 32, "step": 8},
}


def mixed(simulated: bool = False) -> tuple[SweepPlan, list[FrozenTrial]]:
    """Twelve trials: eight whole, three pruned, one failed; best near 2e-4."""
    plan = make_plan(
        search=SEARCH, num_trials=12, pruner="median", settings={"model_name_or_path": "m"}
    )
    trials = []
    for number, point in enumerate(_points(plan.seed, 12)):
        loss = 0.55 + 0.1 * (math.log10(point["learning_rate"]) + 3.7) ** 2 + 0.05 * point["beta"]
        course = {step: loss + 0.3 / step for step in (9, 18, 27, 36)}
        pruned, failed = number in (6, 8, 10), number == 4
        course = {9: course[9]} if pruned else {} if failed else course
        notes: dict[str, Any] = {"seconds": 12.0 if pruned else 41.0, "simulated": simulated}
        if failed:
            notes |= {"reason": "the loss became NaN or infinite at step 3", "exit_code": 4}
        trial = create_trial(
            state=TrialState.PRUNED
            if pruned
            else TrialState.FAIL
            if failed
            else TrialState.COMPLETE,
            params=point,
            distributions={one.name: one.distribution for one in plan.parameters},
            value=None if failed else course[9] if pruned else loss,
            intermediate_values=course,
            user_attrs=notes | ({"step": 9} if pruned else {}),
        )
        trial.number = number
        trials.append(trial)
    return plan, trials


@cache
def _points(seed: int, count: int) -> tuple[dict[str, Any], ...]:
    plan = make_plan(search=SEARCH)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found = []
    for _ in range(count):
        trial = study.ask()
        for one in plan.parameters:
            one.suggest(trial)
        found.append(dict(trial.params))
    return tuple(found)


def written(folder: Path, simulated: bool = False) -> Path:
    """The page of `mixed`, with sweep.json and best.yaml beside it."""
    from rlhf.sweep.outcome import write_outcome

    folder.mkdir(parents=True, exist_ok=True)
    plan, trials = mixed(simulated)
    write_outcome(plan, trials, folder)
    return folder / "sweep.html"
