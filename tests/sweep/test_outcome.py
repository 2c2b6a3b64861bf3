"""The table, sweep.json, best.yaml, and what is said of the parameters' importance."""

import json
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from rlhf.cli import main, verb_module
from rlhf.sweep.charts import log_ticks
from rlhf.sweep.importance import MIN_TRIALS, NUM_RESAMPLINGS, importance_of, resamplings
from rlhf.sweep.outcome import best_config, write_outcome
from rlhf.sweep.plan import SweepPlan
from rlhf.sweep.wording import best_of, duration, ranked
from tests.sweep.forked import make_plan
from tests.sweep.studies import mixed, trials_of

TWO = {"learning_rate": {"low": 0.0, "high": 1.0}, "beta": {"low": 0.0, "high": 1.0}}


def square(count: int) -> list[dict]:
    """Points over the whole of both parameters, on a lattice that repeats no value."""
    return [{"learning_rate": (7 * i % count) / count, "beta": i / count} for i in range(count)]


def test_best_first_then_the_pruned_by_how_far_they_came_then_the_failed():
    plan, trials = mixed()
    told = ranked(plan, trials)
    states = [one.state for one in told]
    assert states == [TrialState.COMPLETE] * 8 + [TrialState.PRUNED] * 3 + [TrialState.FAIL]
    values = [one.value for one in told[:8]]
    assert values == sorted(values)
    assert told[0] is best_of(plan, trials)
    # A pruned trial may have a better number on its way than any whole one; it is not the best.
    upward = make_plan(search=plan_search(plan), direction="maximize")
    assert best_of(upward, trials).value == max(values)
    assert best_of(plan, [one for one in trials if one.state != TrialState.COMPLETE]) is None


def plan_search(plan: SweepPlan) -> dict:
    return {
        "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "beta": [0.05, 0.1, 0.3],
        "lora_r": {"low": 8, "high": 32, "step": 8},
    }


def test_sweep_json_holds_every_trial_and_marks_what_is_simulated(tmp_path):
    plan, trials = mixed(simulated=True)
    write_outcome(plan, trials, tmp_path)
    held = json.loads((tmp_path / "sweep.json").read_text())
    assert held["counts"] == {"complete": 8, "pruned": 3, "failed": 1, "unfinished": 0}
    assert held["best"] == held["trials"][0]
    assert held["simulated"] is True
    assert held["search"]["learning_rate"] == "1e-05 to 0.001, logarithmic"
    assert held["trials"][-1]["reason"] == "the loss became NaN or infinite at step 3"
    assert held["trials"][-1]["value"] is None
    assert held["seconds"] == pytest.approx(9 * 41 + 3 * 12)
    assert held["trials"][9]["on_the_way"][0][0] == 9
    assert "# Simulated raters" in (tmp_path / "best.yaml").read_text()


def test_best_yaml_is_taken_by_the_stage_as_it_is(tmp_path):
    search = {"beta": [0.1, 0.4], "loss_type": [["sigmoid", "sft"], "hinge"]}
    settings = {"model_name_or_path": "m", "dataset_name": "d", "max_steps": 7}
    plan = make_plan(search=search, settings=settings)
    text = plan.parameters[1].distribution.choices[0]
    [trial] = trials_of(plan, [{"beta": 0.4, "loss_type": text}], lambda _: 0.5)
    path = tmp_path / "best.yaml"
    path.write_text(best_config(plan, trial, tmp_path))
    parsed = verb_module("dpo").parse(["--config", str(path)])
    assert parsed.training.beta == 0.4
    assert parsed.training.loss_type == ["sigmoid", "sft"]
    assert parsed.training.max_steps == 7
    assert parsed.training.output_dir == str(tmp_path / "best")
    assert yaml.safe_load(path.read_text())["dataset_name"] == "d"


def test_the_parameter_that_alone_decides_has_nearly_all_the_importance():
    plan = make_plan(search=TWO)
    trials = trials_of(plan, square(16), lambda point: 10 * point["learning_rate"])
    found = importance_of(plan, trials)
    assert list(found.shares) == ["learning_rate", "beta"]
    assert found.shares["learning_rate"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.low["learning_rate"] <= found.shares["learning_rate"]
    assert found.low["learning_rate"] > found.high["beta"]
    assert "this is a rough guess." in found.words
    assert "not settled" not in found.words


def test_where_both_matter_alike_the_order_is_not_settled():
    plan = make_plan(search=TWO)
    trials = trials_of(plan, square(9), lambda point: point["learning_rate"] + point["beta"])
    found = importance_of(plan, trials)
    assert "Which of them comes first is not settled." in found.words


@pytest.mark.parametrize("count", [0, 1, MIN_TRIALS - 1])
def test_few_trials_say_nothing_of_importance(count):
    plan = make_plan(search=TWO)
    found = importance_of(plan, trials_of(plan, square(8)[:count], lambda point: point["beta"]))
    assert found.shares == {}
    assert f"cannot be said from {count} finished trials" in found.words


def test_equal_values_say_nothing_of_importance():
    plan = make_plan(search=TWO)
    found = importance_of(plan, trials_of(plan, square(8), lambda _: 0.5))
    assert found.shares == {}
    assert "came out alike" in found.words


def test_pruned_and_failed_trials_are_no_evidence_of_importance():
    plan, trials = mixed()
    assert importance_of(plan, trials).num_trials == 8


def test_resamplings_are_as_many_trials_of_the_same_and_never_all_alike():
    plan = make_plan(search=TWO)
    trials = trials_of(plan, square(6), lambda point: 1.0 if point["beta"] == 0 else 2.0)
    drawn = resamplings(trials, seed=0)
    assert drawn == resamplings(trials, seed=0) != resamplings(trials, seed=1)
    assert 2 < len(drawn) < NUM_RESAMPLINGS  # a third hold only twos
    for one in drawn:
        assert len(one) == 6
        assert {trial.value for trial in one} == {1.0, 2.0}


def test_a_sweep_without_a_whole_trial_is_told_all_the_same(tmp_path):
    plan, trials = mixed()
    left = [one for one in trials if one.state == TrialState.FAIL]
    outcome = write_outcome(plan, left, tmp_path)
    assert outcome["best"] is None
    assert not (tmp_path / "best.yaml").exists()
    assert "No trial was trained to its end." in (tmp_path / "sweep.html").read_text()


def test_show_prints_the_table_of_a_study(tmp_path: Path, sweep, capsys):
    sweep(num_trials=7, settings={"diverges_above": 1e-2, "mark": True})
    capsys.readouterr()
    assert main(["sweep", "--show", str(tmp_path / "sweep")]) == 0
    said = capsys.readouterr().out
    assert "(simulated)" in said
    assert "The best of several trials is optimistic" in said
    assert "The raters were SIMULATED" in said
    assert f"best: rlhf dpo --config {tmp_path / 'sweep' / 'best.yaml'}" in said
    assert (tmp_path / "sweep" / "sweep.html").exists()


def test_importance_is_the_same_each_time():
    plan, trials = mixed()
    assert importance_of(plan, trials) == importance_of(plan, trials)


def test_ticks_of_a_logarithmic_axis():
    assert log_ticks([3e-5, 2.5e-4]) == [5e-5, 1e-4, 2e-4]
    assert log_ticks([1e-5, 1e-1]) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]


def test_times_are_told_as_a_person_would():
    told = [duration(seconds) for seconds in (8.2, 89, 90, 3600, 7200)]
    assert told == ["8 s", "89 s", "2 min", "60 min", "2.0 h"]
