"""Trials as processes: what ends, what goes on, what is stopped, and what a failure does."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from rlhf.errors import ConfigError, DataError, StageError
from rlhf.sweep import trial as trial_module
from rlhf.sweep.study import read_study
from rlhf.sweep.trial import stop
from tests.processes import Started, run_alone
from tests.sweep.forked import NUM_STEPS, loss_at, sweep_scripted


def told(folder: Path) -> list[tuple]:
    """What a study holds of each trial but its times."""
    return [
        (one.number, one.state, one.params, one.value, one.intermediate_values)
        for one in read_study(folder)[1]
    ]


def starts(folder: Path) -> list[int]:
    """How often each trial's process was started."""
    return [len(path.read_text()) for path in sorted(folder.glob("trials/*/starts"))]


def wait_for(path: Path) -> None:
    ends = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < ends, f"{path} never came"
        time.sleep(0.01)


def test_each_trial_is_a_folder_and_its_value_the_manifests(sweep, tmp_path):
    trials = sweep()
    assert [one.state for one in trials] == [TrialState.COMPLETE] * 5
    for one in trials:
        folder = tmp_path / "sweep" / "trials" / f"{one.number:03d}"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert one.value == loss_at(one.params, NUM_STEPS) == manifest["metrics"]["eval_loss"]
        assert manifest["config"]["output_dir"] == str(folder)
        assert one.user_attrs["metrics"]["held.accuracy"] == 0.5
        assert "reached" not in one.user_attrs["metrics"]


def test_finished_trials_stand_and_more_are_added(sweep, tmp_path):
    first = sweep(num_trials=2)
    trials = sweep(num_trials=4)
    assert [one.params for one in trials[:2]] == [one.params for one in first]
    assert starts(tmp_path / "sweep") == [1, 1, 1, 1]
    sweep(num_trials=4)
    assert starts(tmp_path / "sweep") == [1, 1, 1, 1]
    unbroken = sweep(out="other", num_trials=4)
    assert [one.params for one in unbroken] == [one.params for one in trials]


def test_each_end_is_a_line_with_the_time_left(sweep, capsys):
    sweep(num_trials=3)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "3 trials of rlhf dpo by eval_loss (minimize), sampler tpe, pruner none"
    assert len(lines) == 3
    assert "(the best so far); learning_rate" in lines[0]
    assert "; about " in lines[0]
    assert "; about " in lines[1]
    assert "left" not in lines[2]


def test_a_diverged_trial_is_kept_and_the_search_goes_on(sweep, tmp_path):
    trials = sweep(num_trials=6, settings={"diverges_above": 1e-3})
    failed = [one for one in trials if one.state == TrialState.FAIL]
    assert 0 < len(failed) < 6
    assert all(one.params["learning_rate"] > 1e-3 for one in failed)
    assert failed[0].user_attrs["reason"].startswith("the loss became NaN at step 1")
    assert failed[0].user_attrs["exit_code"] == 4
    folder = tmp_path / "sweep" / "trials" / f"{failed[0].number:03d}"
    assert "the loss became NaN" in (folder / "output.log").read_text()


def test_all_failed_is_a_stage_error(sweep):
    with pytest.raises(StageError, match="all 2 trials failed; the first: the loss became NaN"):
        sweep(num_trials=2, settings={"diverges_above": 0})


@pytest.mark.parametrize(("code", "kind"), [(2, ConfigError), (3, DataError)])
def test_what_no_trial_can_run_with_ends_the_sweep_at_once(sweep, tmp_path, code, kind):
    with pytest.raises(kind, match=r"trials/000: pairs.jsonl: no such file"):
        sweep(settings={"fails_with": code})
    assert starts(tmp_path / "sweep") == [1]
    assert read_study(tmp_path / "sweep")[1][0].state == TrialState.RUNNING


def test_an_unknown_metric_lists_what_there_is(sweep, tmp_path):
    with pytest.raises(ConfigError) as error:
        sweep(metric="eval_los")
    assert "no metric 'eval_los'; did you mean 'eval_loss'?; there are" in str(error.value)
    assert "eval_loss, held.accuracy, loss, num_steps" in str(error.value)
    # The trained trial is not lost: with another metric its folder is read, not trained again.
    trials = sweep(num_trials=1, metric="held.accuracy", direction="maximize")
    assert trials[0].value == 0.5
    assert json.loads((tmp_path / "sweep/trials/000/log.json").read_text())[-1]["step"] == NUM_STEPS


def test_a_metric_that_is_no_number_is_a_failed_trial(sweep):
    with pytest.raises(StageError, match="reached came out as no number"):
        sweep(metric="reached", num_trials=1)


def test_a_killed_trial_goes_on_once_with_its_values(sweep, tmp_path, capsys):
    trials = sweep(num_trials=1, settings={"dies_at": 3, "dies": 1})
    assert starts(tmp_path / "sweep") == [2]
    assert trials[0].state == TrialState.COMPLETE
    assert trials[0].user_attrs["kills"] == 1
    assert "000: ended by SIGKILL; it goes on once more" in capsys.readouterr().err
    assert trials[0].params == sweep(out="other", num_trials=1)[0].params


def test_a_trial_that_is_killed_again_and_again_failed(sweep, tmp_path):
    with pytest.raises(StageError, match="ended by SIGKILL"):
        sweep(num_trials=1, settings={"dies_at": 3, "dies": 9})
    assert starts(tmp_path / "sweep") == [2]


def test_a_killed_sweep_goes_on_where_it_was(sweep, tmp_path):
    """kill -9 of the sweep in the midst of trial 2: its process goes too, its values stay."""
    changes = {"num_trials": 5, "settings": {"waits_at": 3}}
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        (folder / "trials").mkdir(parents=True)
    (unbroken / "trials" / "go").touch()
    assert run_alone(tmp_path, sweep_scripted, unbroken, changes).exit_code == 0
    (broken / "trials" / "go").touch()
    run_alone(tmp_path, sweep_scripted, broken, {**changes, "num_trials": 2})
    (broken / "trials" / "go").unlink()
    process = Started(tmp_path / "said.log", sweep_scripted, (broken, changes), {})
    wait_for(broken / "trials" / "002" / "checkpoint-2")
    process.kill()
    assert starts(broken) == [1, 1, 1]
    (broken / "trials" / "go").touch()
    assert run_alone(tmp_path, sweep_scripted, broken, changes).exit_code == 0
    assert told(broken) == told(unbroken)
    assert starts(broken) == [1, 1, 2, 1, 1]


def test_interrupted_by_hand_it_stops_its_trial_and_can_go_on(sweep, tmp_path):
    changes = {"num_trials": 2, "settings": {"waits_at": 3}}
    folder = tmp_path / "sweep"
    process = Started(tmp_path / "said.log", sweep_scripted, (folder, changes), {})
    wait_for(folder / "trials/000/checkpoint-2")
    os.kill(process.process.pid, signal.SIGINT)
    ended = process.wait(60)
    assert "KeyboardInterrupt" in ended.stderr
    assert read_study(folder)[1][0].state == TrialState.RUNNING
    (folder / "trials" / "go").touch()
    sweep(**changes)
    assert starts(folder) == [2, 1]


def test_two_sweeps_in_one_folder_are_refused(sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    with (tmp_path / "sweep" / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another run is at work there"):
            sweep()


def test_a_finished_trial_that_no_study_knows_is_not_overwritten(sweep, tmp_path):
    sweep(num_trials=1)
    (tmp_path / "sweep" / "study.db").unlink()
    with pytest.raises(ConfigError, match="a finished trial of other values"):
        sweep(num_trials=1, seed=7)
    assert sweep(num_trials=1)[0].state == TrialState.COMPLETE  # the same values: it stands


PRUNED = {"pruner": "median", "num_trials": 8, "sampler": "grid"}
RATES = [1e-3, 1e-3 * 10**0.5, 1e-2, 1e-1, 1e-5]
"""Losses at step 1: 3 + beta plus 0, 0.25, 1, 4, 4."""


def test_the_median_pruner_stops_what_lies_behind(sweep, tmp_path):
    """After two whole trials the median at step 1 is that of (0, .25): 1, 4 and 4 are behind."""
    search = {"learning_rate": RATES, "beta": [0.1]}
    trials = sweep(search=search, **{**PRUNED, "num_trials": 5})
    assert [one.state.name for one in trials] == ["COMPLETE"] * 2 + ["PRUNED"] * 3
    assert [one.user_attrs.get("step") for one in trials] == [None, None, 1, 1, 1]
    assert trials[2].value == pytest.approx(loss_at(trials[2].params, 1))
    pruned = tmp_path / "sweep" / "trials" / "002"
    left = {path.name for path in pruned.iterdir()}
    assert {"config.yaml", "log.json", "output.log"} <= left
    assert not any(name.startswith("checkpoint") for name in left)
    assert (tmp_path / "sweep/trials/001/checkpoint-4").exists()


def test_checkpoints_of_pruned_trials_can_be_kept(sweep, tmp_path):
    search = {"learning_rate": RATES[:3], "beta": [0.1]}
    sweep(search=search, keep_checkpoints=True, **{**PRUNED, "num_trials": 3})
    assert (tmp_path / "sweep/trials/002/checkpoint-1").exists()


def test_no_trial_is_pruned_before_the_warm_up(sweep):
    search = {"learning_rate": RATES[:3], "beta": [0.1]}
    trials = sweep(search=search, **{**PRUNED, "num_trials": 3}, pruner_warmup_steps=3)
    assert trials[2].user_attrs["step"] == 3


def test_pruning_goes_by_the_log_and_not_by_the_clock(sweep, tmp_path, monkeypatch):
    """Seen only once its process has ended, a trial is pruned all the same, at the same step."""
    search = {"learning_rate": RATES, "beta": [0.1]}
    quick = sweep(search=search, **{**PRUNED, "num_trials": 5})
    real = trial_module.start

    def start_and_wait(*words):
        process = real(*words)
        process.wait()
        return process

    monkeypatch.setattr(trial_module, "start", start_and_wait)
    slow = sweep(out="slow", search=search, **{**PRUNED, "num_trials": 5})
    assert told(tmp_path / "slow") == told(tmp_path / "sweep")
    assert [one.value for one in slow] == [one.value for one in quick]


def test_a_process_that_ignores_the_request_is_made_to_end(monkeypatch):
    monkeypatch.setattr(trial_module, "_GRACE_S", 0.2)
    program = "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}; time.sleep(60)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    stop(process)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


@pytest.mark.parametrize("strange", ["model.safetensors", "notes"])
def test_a_folder_of_anything_else_is_left_alone(strange, sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / strange).write_text("")
    with pytest.raises(ConfigError, match=f"holds {strange}, which no sweep put there"):
        sweep()
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == [strange]


def test_a_file_is_no_folder_for_a_sweep(sweep, tmp_path):
    (tmp_path / "sweep").write_text("")
    with pytest.raises(ConfigError, match="a file; give a folder"):
        sweep()
