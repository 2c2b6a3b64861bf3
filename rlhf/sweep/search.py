"""The search itself: trial after trial until enough have ended, each told to the study."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from rlhf.errors import ConfigError, DataError, GateError, StageError, printable
from rlhf.manifest import make_folder
from rlhf.pipeline.runner import locked
from rlhf.sweep.plan import SweepPlan
from rlhf.sweep.study import DATABASE_NAME, Study
from rlhf.sweep.trial import Ended, clear_checkpoints, metric_of, run_trial
from rlhf.sweep.wording import duration, outcome_line, trial_name

TRIALS_NAME = "trials"
_MADE_FIRST = (".lock", f"{DATABASE_NAME}-journal", TRIALS_NAME)
_MAX_KILLS = 2
_USERS_OWN = {error.exit_code: error for error in (ConfigError, DataError, GateError)}


def run_sweep(
    plan: SweepPlan, folder: Path, *, keep_checkpoints: bool = False
) -> list[FrozenTrial]:
    """Run trials until `plan.num_trials` have ended; all trials of the study.

    What ended before stands; what was interrupted goes on with the values it had. A failed trial
    is kept and counted. StageError when every trial failed; the error of a first trial that
    cannot run at all (exit 2, 3 or 5), since the others would end alike.
    """
    refuse_foreign_folder(folder)
    with locked(make_folder(folder)):
        study = Study(folder, plan)
        progress = Progress(study)
        while len(study.ended()) < plan.num_trials:
            trial = study.next_trial()
            _run_one(study, trial, folder, keep_checkpoints, progress)
            progress.trial_ended()
        _refuse_all_failed(study.ended())
        return study.trials


def refuse_foreign_folder(folder: Path) -> None:
    """ConfigError for a file, and for a folder that holds anything but a sweep."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output_dir {folder}: a file; give a folder")
    if not folder.is_dir() or (folder / DATABASE_NAME).exists():
        return
    strange = sorted(path.name for path in folder.iterdir() if path.name not in _MADE_FIRST)
    if strange:
        raise ConfigError(
            f"--output_dir {folder}: holds {strange[0]}, which no sweep put there; choose another "
            "--output_dir"
        )


def _run_one(
    study: Study, trial: Trial, folder: Path, keep_checkpoints: bool, progress: "Progress"
) -> None:
    """Bring one trial to its end and tell the study."""
    plan = study.plan
    place = folder / TRIALS_NAME / trial_name(trial.number)
    settings = plan.trial_settings(study.values_of(trial), place)
    ended = run_trial(
        plan.stage,
        settings,
        watched=plan.pruner_metric,
        prune=lambda step, value: _is_pruned(study, trial, step, value),
        note=lambda step: progress.show(trial.number, step),
    )
    seconds = trial.user_attrs.get("seconds", 0.0) + ended.seconds
    trial.set_user_attr("seconds", round(seconds, 1))
    if ended.pruned_at is not None:
        if not keep_checkpoints:
            clear_checkpoints(place)
        study.tell(trial, TrialState.PRUNED, None, step=ended.pruned_at)
    elif ended.exit_code == 0 and not ended.reason:
        _tell_finished(study, trial, ended, place)
    elif _goes_on(trial, ended):
        _run_one(study, trial, folder, keep_checkpoints, progress)
    else:
        _refuse_first(study, ended, place)
        study.tell(trial, TrialState.FAIL, None, reason=ended.reason, exit_code=ended.exit_code)


def _tell_finished(study: Study, trial: Trial, ended: Ended, place: Path) -> None:
    """Tell the study of a trial that was trained to its end."""
    name = study.plan.metric
    known = any(each.state == TrialState.COMPLETE for each in study.ended())
    value = ended.metrics.get(name, math.nan) if known else metric_of(ended.metrics, name, place)
    numbers = {key: number for key, number in ended.metrics.items() if math.isfinite(number)}
    notes: dict[str, Any] = {"metrics": numbers, "simulated": ended.simulated}
    if math.isfinite(value):
        study.tell(trial, TrialState.COMPLETE, value, **notes)
    else:
        study.tell(trial, TrialState.FAIL, None, **notes, reason=f"{name} came out as no number")


def _is_pruned(study: Study, trial: Trial, step: int, value: float) -> bool:
    """Report a value unless the study has that step already, and ask the pruner."""
    reported = study.trials[trial.number].intermediate_values
    if step not in reported:
        trial.report(value, step)
    return trial.should_prune()


def _goes_on(trial: Trial, ended: Ended) -> bool:
    """Whether a trial whose process was killed is started again: once, from its last checkpoint."""
    if ended.exit_code is None or not (ended.exit_code < 0 or ended.exit_code == 130):
        return False
    kills = trial.user_attrs.get("kills", 0) + 1
    trial.set_user_attr("kills", kills)
    if kills >= _MAX_KILLS:
        return False
    print(f"{trial_name(trial.number)}: {ended.reason}; it goes on once more", file=sys.stderr)
    return True


def _refuse_first(study: Study, ended: Ended, place: Path) -> None:
    """Raise a trial's own error where no trial has got further: the next would end alike."""
    error = _USERS_OWN.get(ended.exit_code or 0)
    done = any(trial.state != TrialState.FAIL for trial in study.ended())
    if error is not None and not done:
        raise error(f"{place}: {printable(ended.reason)}")


def _refuse_all_failed(trials: list[FrozenTrial]) -> None:
    if all(trial.state == TrialState.FAIL for trial in trials):
        reason = trials[0].user_attrs.get("reason", "")
        raise StageError(f"all {len(trials)} trials failed; the first: {printable(reason)}")


class Progress:
    """Says each trial's end in a line, and on a terminal what is at work and the time left."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.begun = time.monotonic()
        self.is_terminal = sys.stderr.isatty()
        ended = len(study.ended())
        plan = study.plan
        print(
            f"{plan.num_trials} trials of rlhf {plan.stage} by {plan.metric} ({plan.direction}), "
            f"sampler {plan.sampler}, pruner {plan.pruner}"
            + (f"; {ended} ended already" if ended else ""),
            flush=True,
        )

    def show(self, number: int, step: int) -> None:
        """On a terminal: the trial at work, its step, and the time left."""
        if self.is_terminal:
            left = self.time_left(time.monotonic() - self.begun)
            words = f"{trial_name(number)}: step {step}{left}"
            print(f"\r\x1b[2K{words}", end="", file=sys.stderr, flush=True)

    def trial_ended(self) -> None:
        """A line for the trial that has just ended."""
        self.begun = time.monotonic()
        if self.is_terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        ended, plan = self.study.ended(), self.study.plan
        line = outcome_line(plan, ended[-1], ended)
        print(f"[{len(ended)}/{plan.num_trials}] {line}{self.time_left()}", flush=True)

    def time_left(self, spent_s: float = 0.0) -> str:
        """`; about 5 min left`, by the mean of the trials that ended; nothing at the end."""
        ended = self.study.ended()
        left = self.study.plan.num_trials - len(ended)
        times = [trial.user_attrs.get("seconds", 0.0) for trial in ended]
        if left <= 0 or not times:
            return ""
        seconds = max(0.0, left * sum(times) / len(times) - spent_s)
        return f"; about {duration(seconds)} left"
