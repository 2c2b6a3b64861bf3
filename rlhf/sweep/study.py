"""The study: every trial, its values and its end, in SQLite, so that nothing of a sweep is lost.

Proposals depend on the seed, the trial's number and the trials that ended before it, never on
the process that asks: a sweep that was killed and started again proposes what it would have.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from rlhf.errors import ConfigError, DataError
from rlhf.records import content_hash
from rlhf.sweep.plan import SweepPlan, changed
from rlhf.sweep.space import grid_points

STUDY_NAME = "sweep"
DATABASE_NAME = "study.db"
_PLAN, _NUM_TRIALS = "plan", "num_trials"
_MAX_SHOWN = 3
_SQLITE = b"SQLite format 3\0"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class GridInOrder(BaseSampler):
    """Proposes the points of a grid one after the other, by the number of the trial."""

    def __init__(self, points: Sequence[dict[str, Any]]) -> None:
        self.points = points

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: each parameter is looked up by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of `param_name` at the trial's point."""
        return self.points[trial.number][param_name]


class Study:
    """A sweep's study in `folder`/study.db.

    It is created for `plan`, or must have been: ConfigError says what differs. A sweep without a
    trial that ended may still change.
    """

    def __init__(self, folder: Path, plan: SweepPlan) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan = plan
        self._storage = _storage(folder)
        self._study = self._begun(folder)
        self._study.set_user_attr(_PLAN, plan.description())
        self._study.set_user_attr(_NUM_TRIALS, plan.num_trials)

    def _begun(self, folder: Path) -> optuna.Study:
        pruner = pruner_of(self.plan)
        study = optuna.create_study(
            study_name=STUDY_NAME,
            storage=self._storage,
            direction=self.plan.study_direction,
            pruner=pruner,
            load_if_exists=True,
        )
        noted = study.user_attrs.get(_PLAN)
        differing = changed(noted, self.plan.description()) if noted else []
        if differing and any(trial.state in ENDED for trial in study.trials):
            shown = "; ".join(differing[:_MAX_SHOWN])
            more = len(differing) - _MAX_SHOWN
            raise ConfigError(
                f"{folder}: holds another sweep ({shown}{f'; {more} more' if more > 0 else ''}); "
                "choose another --output_dir"
            )
        if not differing:
            return study
        optuna.delete_study(study_name=STUDY_NAME, storage=self._storage)
        return optuna.create_study(
            study_name=STUDY_NAME,
            storage=self._storage,
            direction=self.plan.study_direction,
            pruner=pruner,
        )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number, the one at work among them."""
        return self._study.trials

    def ended(self) -> list[FrozenTrial]:
        """The trials that are done: with a value, pruned or failed."""
        return [trial for trial in self.trials if trial.state in ENDED]

    def next_trial(self) -> Trial:
        """The trial that was interrupted, with the values it had, or else a new one."""
        begun = [trial for trial in self.trials if trial.state not in ENDED]
        number = begun[0].number if begun else len(self.trials)
        self._study.sampler = sampler_of(self.plan, number)
        if not begun:
            return self._study.ask()
        study_id = self._storage.get_study_id_from_name(STUDY_NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return Trial(self._study, trial_id)

    def values_of(self, trial: Trial) -> dict[str, Any]:
        """The stage's settings that a trial is proposed; noted before it begins."""
        return {one.name: one.suggest(trial) for one in self.plan.parameters}

    def tell(self, trial: Trial, state: TrialState, value: float | None, **notes: Any) -> None:
        """End a trial, with what is to be remembered of it."""
        for name, note in notes.items():
            trial.set_user_attr(name, note)
        self._study.tell(trial, value, state)


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    """The database of a sweep's folder; DataError when the file is none."""
    path = (folder / DATABASE_NAME).resolve()
    begins = path.read_bytes()[: len(_SQLITE)] if path.is_file() else b""
    if begins and begins != _SQLITE:
        raise DataError(f"{path}: no SQLite database; move it away or restore it")
    try:
        return optuna.storages.RDBStorage(f"sqlite:///{path}")
    except RuntimeError as error:  # written by another version of Optuna
        raise DataError(f"{path}: cannot be read: {error}; move it away") from None


def read_study(folder: Path) -> tuple[SweepPlan, list[FrozenTrial]]:
    """The plan and the trials of a sweep's folder; ConfigError when there is no study in it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not (folder / DATABASE_NAME).is_file():
        raise ConfigError(f"{folder}: no {DATABASE_NAME}, so no sweep; give a sweep's --output_dir")
    storage = _storage(folder)
    names = optuna.get_all_study_names(storage)
    if STUDY_NAME not in names:
        raise ConfigError(f"{folder / DATABASE_NAME}: holds no sweep of ours; give another folder")
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    described = study.user_attrs.get(_PLAN)
    if described is None:
        raise ConfigError(f"{folder}: its sweep was stopped before it began; run it again")
    plan = SweepPlan.of_description(described, study.user_attrs[_NUM_TRIALS])
    return plan, study.trials


def sampler_of(plan: SweepPlan, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by the sweep's seed and the trial's number."""
    seed = int(content_hash([plan.seed, number])[:8], 16)
    if plan.sampler == "grid":
        return GridInOrder(grid_points(plan.parameters))
    if plan.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=plan.sampler_startup_trials)


def pruner_of(plan: SweepPlan) -> optuna.pruners.BasePruner:
    """The pruner: a pure function of what trials have reported."""
    if plan.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=plan.pruner_startup_trials, n_warmup_steps=plan.pruner_warmup_steps
    )
