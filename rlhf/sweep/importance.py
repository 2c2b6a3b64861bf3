"""Which parameters mattered, by fANOVA, with as much doubt as few trials leave.

Hutter, Hoos and Leyton-Brown (2014): a random forest is fitted to (values, metric), and the
variance of its predictions is divided among the parameters. Optuna's own implementation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from rlhf.sweep.plan import SweepPlan

MIN_TRIALS = 6
MANY_TRIALS = 30
NUM_RESAMPLINGS = 20
_NUM_TREES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Each parameter's share (0 to 1, together 1) of what the metric varied by, with the lowest
    and highest share over resamplings of the trials; empty where it cannot be said.
    """

    words: str
    num_trials: int
    shares: Mapping[str, float] = field(default_factory=dict)
    low: Mapping[str, float] = field(default_factory=dict)
    high: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For sweep.json."""
        return asdict(self)


def importance_of(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> Importance:
    """The importance of the parameters, from the trials that were trained to their end."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    count = len(complete)
    if count < MIN_TRIALS:
        words = (
            f"Which parameter mattered cannot be said from {count} finished trials; it takes "
            f"at least {MIN_TRIALS}, better {MANY_TRIALS}."
        )
        return Importance(words=words, num_trials=count)
    varied = {one.name for one in plan.parameters if _varies(one.name, complete)}
    if not varied or len({trial.value for trial in complete}) < 2:
        words = f"Which parameter mattered cannot be said: all {count} trials came out alike."
        return Importance(words=words, num_trials=count)
    shares = shares_of(plan, complete)
    spread = [shares, *(shares_of(plan, drawn) for drawn in resamplings(complete, plan.seed))]
    low = {name: min(one.get(name, 0.0) for one in spread) for name in shares}
    high = {name: max(one.get(name, 0.0) for one in spread) for name in shares}
    words = words_of(shares, low, high, count)
    return Importance(words=words, num_trials=count, shares=shares, low=low, high=high)


def shares_of(plan: SweepPlan, complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """Each parameter's share, the largest first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=plan.study_direction)
    study.add_trials(complete)
    evaluator = FanovaImportanceEvaluator(n_trees=_NUM_TREES, seed=plan.seed)
    found = get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def resamplings(trials: Sequence[FrozenTrial], seed: int) -> list[list[FrozenTrial]]:
    """As many trials drawn with replacement, again and again: the bootstrap (Efron, 1979).

    Leaving out single trials moves a share far less than another sweep would. A draw whose values
    are all alike says nothing and is left out.
    """
    random = Random(seed)
    drawn = [random.choices(trials, k=len(trials)) for _ in range(NUM_RESAMPLINGS)]
    return [one for one in drawn if len({trial.value for trial in one}) > 1]


def _varies(name: str, trials: Sequence[FrozenTrial]) -> bool:
    return len({trial.params[name] for trial in trials}) > 1


def words_of(
    shares: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float], count: int
) -> str:
    """The shares in a sentence, and how far they are to be trusted."""
    told = ", ".join(
        f"{name} {share:.0%} ({low[name]:.0%} to {high[name]:.0%})"
        for name, share in shares.items()
    )
    names = list(shares)
    trust = "a rough guess" if count < MANY_TRIALS else "an estimate"
    order = ""
    if len(names) > 1 and low[names[0]] <= high[names[1]]:
        order = " Which of them comes first is not settled."
    return (
        f"What mattered, by fANOVA on {count} finished trials: {told}. In brackets: lowest and "
        f"highest over {NUM_RESAMPLINGS} resamplings of the trials; this is {trust}.{order}"
    )
