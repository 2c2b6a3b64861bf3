"""Each warning fires on what it is about, once, and never on a healthy run."""

import json
import random
from pathlib import Path

import pytest
from transformers import TrainerState

from rlhf.training.dpo.watch import CAUSES, Watch, WatchCallback, Watched, warnings_of
from tests.training.conftest import metrics_of

RUN = Watched(beta=0.1, kl_budget=8.0)


def healthy(index: int, **changes: float) -> dict[str, float]:
    """A row of training in which nothing is wrong: chosen rises, rejected falls."""
    rng = random.Random(index)
    row = {
        "step": index + 1,
        "loss": 0.69 - 0.001 * index + rng.gauss(0, 0.02),
        "rewards/chosen": 0.002 * index + rng.gauss(0, 0.05),
        "rewards/rejected": -0.003 * index + rng.gauss(0, 0.05),
        "rewards/margins": 0.005 * index + rng.gauss(0, 0.05),
        "rewards/accuracies": min(0.5 + 0.01 * index, 0.75) + rng.uniform(-0.1, 0.1),
    }
    return {**row, **changes}


def evaluation(index: int, **changes: float) -> dict[str, float]:
    row = {
        "step": index + 1,
        "eval_loss": 0.68 - 0.0005 * index,
        "eval_kl": 1.0 + 0.01 * index,
        "eval_completion_length": 40.0,
        "eval_completion_length_se": 3.0,
        "eval_ref_completion_length": 38.0,
    }
    return {**row, **changes}


def run_of(count: int, **changes: list[float] | float) -> list[dict[str, float]]:
    """Rows of training, each tenth followed by an evaluation; `changes` as a number a row."""
    rows = []
    for index in range(count):
        now = {
            key: value[index] if isinstance(value, list) else value
            for key, value in changes.items()
        }
        trained = {key: value for key, value in now.items() if not key.startswith("eval_")}
        rows.append(healthy(index, **trained))
        if index % 10 == 9:
            measured = {key: value for key, value in now.items() if key.startswith("eval_")}
            rows.append(evaluation(index, **measured))
    return rows


def causes_of(rows: list[dict[str, float]], run: Watched = RUN) -> list[str]:
    return [each["cause"] for each in warnings_of(rows, run)]


def test_a_healthy_run_is_not_disturbed():
    assert causes_of(run_of(200)) == []


def falling(count: int, nats: float, beta: float = 0.1) -> dict[str, list[float]]:
    """The chosen falls to `nats` below the reference at the end, the rejected twice as far."""
    share = [index / (count - 1) for index in range(count)]
    return {
        "rewards/chosen": [beta * nats * each for each in share],
        "rewards/rejected": [2 * beta * nats * each for each in share],
        "rewards/margins": [-beta * nats * each for each in share],
    }


def test_chosen_that_falls_with_the_rejected_is_named_with_its_numbers():
    (said,) = warnings_of(run_of(40, **falling(40, nats=-20.0)), RUN)
    assert said["cause"] == "chosen_falls"
    words = said["words"]
    assert "chosen log-probability falls with the rejected" in words
    assert "raise --beta" in words
    assert "apo_zero" in words
    # Row 6 is the first of which six are there; their mean is that of 0, .1, ..., .5 of 20/39 * 10.
    # -1 nat is passed where (i - 2.5) * 20 / 39 >= 1, i = 4.45; six rows are there from step 6 on.
    assert said["step"] == 6
    assert "-1.3 nats a completion (rejected -4.1)" in words


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (falling(40, nats=-0.9), "less than a nat"),
        ({**falling(40, nats=-20.0), "rewards/margins": [0.0] * 40}, "the margin does not grow"),
        (falling(40, nats=20.0), "it rises"),
        ({"rewards/chosen": [-8.0 * (index % 7 == 0) + 1 for index in range(40)]}, "noise"),
    ],
)
def test_chosen_that_does_not_fall_is_left_alone(changes, why):
    assert "chosen_falls" not in causes_of(run_of(40, **changes)), why


def test_losses_that_push_the_chosen_down_are_not_warned_of():
    rows = run_of(40, **falling(40, nats=-20.0))
    assert causes_of(rows, Watched(beta=0.1, loss_types=("apo_down",))) == []
    assert causes_of(rows, Watched(beta=0.1, loss_types=("sigmoid", "sft"))) == ["chosen_falls"]


def test_the_same_reward_is_fewer_nats_at_a_higher_beta():
    rows = run_of(40, **falling(40, nats=-2.0, beta=0.1))
    assert causes_of(rows) == ["chosen_falls"]
    assert causes_of(rows, Watched(beta=1.0)) == []


def test_overfitting_is_a_held_out_loss_that_rises_while_training_falls():
    held_out = [0.60, 0.55, 0.57, 0.58]
    rows = run_of(40, eval_loss=[held_out[index // 10] for index in range(40)])
    (said,) = warnings_of(rows, RUN)
    assert (said["cause"], said["step"]) == ("overfitting", 40)
    assert "held-out loss rose from 0.55 to 0.58 while the training loss fell" in said["words"]
    flat = run_of(40, eval_loss=[held_out[index // 10] for index in range(40)], loss=0.69)
    assert causes_of(flat) == []  # the training loss stands still: something else is wrong
    noise = [0.60, 0.55, 0.552, 0.553]
    assert causes_of(run_of(40, eval_loss=[noise[index // 10] for index in range(40)])) == []


def test_an_evaluation_before_the_first_step_is_no_measure_of_overfitting():
    rows = [evaluation(-1, eval_loss=0.1), *run_of(40)]
    assert causes_of(rows) == []


def test_accuracy_that_stays_at_chance_is_named():
    rng = random.Random(0)
    chance = [0.5 + rng.uniform(-0.2, 0.2) for _ in range(60)]
    (said,) = warnings_of(run_of(60, **{"rewards/accuracies": chance}), RUN)
    assert (said["cause"], said["step"]) == ("no_learning", 30)
    assert "over the last 30 rows of the log: nothing is learnt" in said["words"]
    noisy_labels = [0.62 + rng.uniform(-0.1, 0.1) for _ in range(60)]
    assert causes_of(run_of(60, **{"rewards/accuracies": noisy_labels})) == []


def test_a_margin_of_ten_has_no_gradient_left():
    margins = [0.5 * index for index in range(40)]
    (said,) = warnings_of(run_of(40, **{"rewards/margins": margins}), RUN)
    # The mean of three is above 10 first for 10, 10.5 and 11: row 22, step 23.
    assert (said["cause"], said["step"]) == ("margins_explode", 23)
    assert "margin of 10.5" in said["words"]
    assert causes_of(run_of(40, **{"rewards/margins": margins}), Watched(0.1, ("ipo",))) == []


@pytest.mark.parametrize(
    ("length", "error", "words"),
    [
        (60.0, 3.0, "58% longer than the reference's 38"),
        (19.0, 3.0, "50% shorter than the reference's 38"),
        (45.0, 3.0, None),  # 18%: no change that a reader would notice
        (60.0, 12.0, None),  # 22 tokens are less than two standard errors
    ],
)
def test_length_drift_is_by_much_and_beyond_chance(length, error, words):
    rows = run_of(10, eval_completion_length=length, eval_completion_length_se=error)
    said = warnings_of(rows, RUN)
    assert [each["cause"] for each in said] == (["length_drift"] if words else [])
    assert all(words in each["words"] for each in said)


def test_the_budget_is_warned_of_where_there_is_one():
    rows = run_of(20, eval_kl=[7.9 if index < 15 else 8.1 for index in range(20)])
    (said,) = warnings_of(rows, RUN)
    assert (said["cause"], said["step"]) == ("kl_budget", 20)
    assert "KL of 8.1 nats a completion to the reference is above the budget of 8" in said["words"]
    assert causes_of(rows, Watched(beta=0.1)) == []


def test_a_warning_is_given_again_only_after_its_cause_was_gone():
    kls = [9.0, 9.0, 1.0, 9.0]
    rows = run_of(40, eval_kl=[kls[index // 10] for index in range(40)])
    assert [(each["cause"], each["step"]) for each in warnings_of(rows, RUN)] == [
        ("kl_budget", 10),
        ("kl_budget", 40),
    ]


def state_after(rows: list[dict[str, float]]) -> TrainerState:
    return TrainerState(log_history=list(rows), global_step=len(rows))


@pytest.mark.parametrize("cut", [0, 5, 22, 43])
def test_a_continued_run_says_what_an_unbroken_one_says(cut, capsys):
    """It says nothing twice, nothing less, and its list is the same."""
    rows = run_of(40, **falling(40, nats=-20.0), eval_kl=9.0)
    spoken = []
    for pieces in ([rows], [rows[:cut], rows[cut:]]):
        done: list[dict[str, float]] = []
        for piece in pieces:
            callback = WatchCallback(RUN)
            callback.on_train_begin(None, state_after(done), None)
            for row in piece:
                done.append(row)
                callback.on_log(None, state_after(done), None)
        assert callback.watch.said == warnings_of(rows, RUN)
        spoken.append(capsys.readouterr().err)
    assert spoken[0] == spoken[1]
    assert spoken[0].count("chosen log-probability falls") == 1


def test_every_cause_has_a_test_and_a_stable_name():
    assert set(CAUSES) == {
        *("chosen_falls", "overfitting", "no_learning"),
        *("margins_explode", "length_drift", "kl_budget"),
    }
    source = Path(__file__).read_text()
    for cause in CAUSES:
        assert source.count(f'"{cause}"') > 1, cause


def test_warnings_are_json():
    watch = Watch(RUN)
    for row in run_of(40, **falling(40, nats=-20.0)):
        watch.look(row)
    assert json.loads(json.dumps(watch.said)) == watch.said


def test_a_run_that_overshoots_says_so_and_its_manifest_too(run_stage, pairs, capsys):
    """A learning rate far too high, of all weights: the margin is past all that the loss asks."""
    options = ("--learning_rate", "3e-2", "--max_steps", "8", "--beta", "1")
    folder = run_stage("dpo", pairs, *options, "--lr_scheduler_type", "constant")
    said = metrics_of(folder)["warnings"]
    assert [each["cause"] for each in said] == ["margins_explode"]
    assert f"step {said[0]['step']}: {said[0]['words']}" in capsys.readouterr().err
