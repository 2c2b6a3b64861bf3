"""What the study proposes, and which sweep may go on in a folder."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from rlhf.errors import ConfigError, DataError
from rlhf.sweep.study import Study, read_study
from tests.sweep.forked import SEARCH, make_plan


def proposals(folder: Path, count: int, *, broken_at: int | None = None, **plan) -> list[dict]:
    """The values of `count` trials; the process that asks is another after trial `broken_at`."""
    folder.mkdir(exist_ok=True)
    study, found = Study(folder, make_plan(**plan)), []
    for number in range(count):
        trial = study.next_trial()
        values = study.values_of(trial)
        if number == broken_at:
            study = Study(folder, make_plan(**plan))
            trial = study.next_trial()
            assert trial.number == number
            assert study.values_of(trial) == values
        found.append(values)
        study.tell(trial, TrialState.COMPLETE, values["beta"] + 100 * values["learning_rate"])
    return found


def test_the_same_seed_proposes_the_same_and_another_does_not(tmp_path):
    first = proposals(tmp_path / "a", 4)
    assert proposals(tmp_path / "b", 4) == first
    assert proposals(tmp_path / "c", 4, seed=1) != first
    assert len({values["learning_rate"] for values in first}) == 4


@pytest.mark.parametrize("broken_at", [0, 4])
def test_a_sweep_begun_anew_proposes_what_an_unbroken_one_would(tmp_path, broken_at):
    unbroken = proposals(tmp_path / "a", 6)
    assert proposals(tmp_path / "b", 6, broken_at=broken_at) == unbroken


def test_tpe_learns_from_what_came_out(tmp_path):
    told = proposals(tmp_path / "a", 16)
    rates = [values["learning_rate"] for values in told]
    assert sum(rates[-5:]) < sum(rates[:5]) / 10  # the metric falls with the learning rate


def test_the_grid_is_gone_through_in_order(tmp_path):
    search = {"learning_rate": [1e-3, 1e-2], "beta": [0.1, 0.2]}
    told = proposals(tmp_path / "a", 4, search=search, sampler="grid")
    assert [tuple(values.values()) for values in told] == [
        (1e-3, 0.1),
        (1e-3, 0.2),
        (1e-2, 0.1),
        (1e-2, 0.2),
    ]


def test_random_proposals_ignore_what_came_out(tmp_path):
    assert proposals(tmp_path / "a", 5, sampler="random") == proposals(
        tmp_path / "b", 5, sampler="random", broken_at=3
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search": {**SEARCH, "beta": [0.1, 0.9]}},
            "search.beta: one of 0.1, 0.2, 0.4 there, one",
        ),
        ({"seed": 3}, "seed: 0 there, 3 here"),
        ({"metric": "accuracy"}, "metric: eval_loss there, accuracy here"),
        ({"settings": {"max_steps": 9}}, "settings.max_steps: unset there, 9 here"),
        ({"reads": {"dataset_name d.jsonl": "ab"}}, "reads.dataset_name d.jsonl: unset there, ab"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(tmp_path, changes, message):
    proposals(tmp_path, 1)
    with pytest.raises(ConfigError, match=f"holds another sweep .*{message}.*--output_dir"):
        Study(tmp_path, make_plan(**changes))
    assert len(read_study(tmp_path)[1]) == 1


def test_more_trials_are_no_other_sweep(tmp_path):
    proposals(tmp_path, 1)
    Study(tmp_path, make_plan(num_trials=50))
    plan, trials = read_study(tmp_path)
    assert (plan.num_trials, len(trials)) == (50, 1)


def test_a_sweep_without_a_trial_that_ended_may_change(tmp_path):
    study = Study(tmp_path, make_plan())
    study.values_of(study.next_trial())
    assert Study(tmp_path, make_plan(metric="x", direction="maximize")).trials == []
    assert read_study(tmp_path)[0].is_maximized


def test_the_plan_is_read_again_as_it_was(tmp_path):
    plan = make_plan(search={**SEARCH, "loss_type": [["sigmoid", "sft"], "hinge"]})
    Study(tmp_path, plan)
    again = read_study(tmp_path)[0]
    assert again.description() == plan.description()
    assert again.parameters == plan.parameters


def test_no_study_is_said_in_a_line(tmp_path):
    with pytest.raises(ConfigError, match=r"no study\.db, so no sweep"):
        read_study(tmp_path)
    (tmp_path / "study.db").write_text("not a database")
    with pytest.raises(DataError, match="no SQLite database"):
        read_study(tmp_path)
