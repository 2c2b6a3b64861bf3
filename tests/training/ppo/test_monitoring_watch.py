"""Each warning fires on what it is about, once, and never on a healthy run."""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf.training.ppo.monitoring import Watch
from rlhf.training.ppo.monitoring.causes import CAUSES


@dataclass
class Config:
    kl_budget: float | None = 8.0
    max_completion_length: int = 64


def healthy(index: int = 0, **changes: float) -> dict[str, float]:
    """A rollout of a run in which nothing is wrong."""
    rng = random.Random(index)
    values = {
        "score": 0.02 * index + rng.gauss(0, 0.1),
        "score_std": 1.0,
        "reward": 0.1,
        "kl": 0.3 + 0.03 * index,
        "kl_se": 0.2,
        "completion_length": 40 + rng.gauss(0, 2),
        "ended_rate": 0.9 + rng.uniform(-0.1, 0.1),
        "entropy": 1.5 - 0.005 * index,
        "explained_variance": 0.2,
        "clip_fraction": 0.12,
        "repetition": 0.03,
        "policy_loss": -0.01,
        "value_loss": 0.4,
        "value_mean": 0.1,
    }
    return {**values, **changes}


def words_of(rows: list[dict[str, float]], config: Config | None = None) -> list[str]:
    watch = Watch(config or Config())
    return [words for row in rows for words in watch.look(row)]


def series(count: int, **changes: list[float] | float) -> list[dict[str, float]]:
    """Healthy rollouts but for what is given: a constant, or a value for each rollout."""
    return [
        healthy(i, **{k: v[i] if isinstance(v, list) else v for k, v in changes.items()})
        for i in range(count)
    ]


def test_a_healthy_run_is_not_disturbed() -> None:
    watch = Watch(Config())
    for index in range(200):
        assert watch.look(healthy(index)) == []
    assert watch.stop_reason is None
    assert watch.said == []


def test_negative_kl_for_five_rollouts() -> None:
    words = words_of(series(9, kl=-0.5))
    assert len(words) == 1
    assert words[0].startswith("KL negative for 5 rollouts: sampling and training disagree")
    assert "-0.5 nats" in words[0]
    assert words_of(series(9, kl=[-0.5] * 4 + [0.1] + [-0.5] * 4)) == []


def test_negative_kl_within_its_noise_is_chance() -> None:
    # Sum -0.5 against a standard error of 0.2 * sqrt(5) = 0.45: hardly more than one.
    assert words_of(series(9, kl=-0.1)) == []
    assert len(words_of([{"kl": -0.1}] * 5)) == 1  # of unknown noise


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        # After eight rollouts the first two and the last two are compared.
        ([18, 18, 17, 17, 15, 14, 10, 10], "falling with score (18 to 10 tokens)"),
        ([40, 40, 42, 45, 50, 55, 60, 64], "rising with score (40 to 62 tokens)"),
    ],
)
def test_length_falling_and_rising_with_the_score(lengths: list[float], words: str) -> None:
    rows = series(8, completion_length=lengths, score=[0.1 * i for i in range(8)])
    assert words_of(rows) == [f"length {words}: length hacking?"]


def test_length_over_a_long_run_is_noticed_too() -> None:
    """Half a token a rollout: over eight rollouts less than a fifth, over fifty far more."""
    lengths = [60 + 0.5 * i for i in range(50)]
    words = words_of(series(50, completion_length=lengths, score=[0.05 * i for i in range(50)]))
    assert len(words) == 1
    assert words[0].startswith("length rising with score (")


@pytest.mark.parametrize(
    ("lengths", "scores"),
    [
        ([18 - i for i in range(9)], [1 - 0.1 * i for i in range(9)]),  # the score falls as well
        ([100 - i for i in range(9)], [0.1 * i for i in range(9)]),  # hardly shorter
        ([18 - i for i in range(7)], [0.1 * i for i in range(7)]),  # too few rollouts
        ([18 - i for i in range(9)], [0, 1, 0, 1, 0, 1, 0, 1, 1]),  # hardly related
        ([18 - i for i in range(9)], [1.0] * 9),  # the score does not move
    ],
)
def test_length_that_buys_no_score(lengths: list[float], scores: list[float]) -> None:
    assert words_of(series(len(lengths), completion_length=lengths, score=scores)) == []


def test_no_completion_ends() -> None:
    words = words_of(series(5, ended_rate=0.0))
    assert len(words) == 1
    assert "no completion ended by itself within 64 tokens" in words[0]


def test_fewer_and_fewer_completions_end() -> None:
    # The mean of three falls from 0.9 to below 0.45.
    words = words_of(series(9, ended_rate=[0.9] * 5 + [0.5, 0.4, 0.3, 0.2]))
    assert words == [
        "ended rate fell from 90% to 40%: the policy unlearns to end; raise --missing_eos_penalty?"
    ]
    assert words_of(series(9, ended_rate=[0.9] * 5 + [0.5] * 4)) == []
    assert words_of(series(9, ended_rate=[0.08] * 5 + [0.01] * 4)) == []  # too few either way


def test_entropy_collapses() -> None:
    words = words_of(series(9, entropy=[1.6] * 5 + [0.3] * 4))
    assert len(words) == 1
    assert words[0].startswith("entropy fell from 1.6 to 0.3 nats a token")
    assert words_of(series(9, entropy=[1.6] * 5 + [0.5] * 4)) == []


def test_a_critic_worse_than_none_for_long() -> None:
    words = words_of(series(12, explained_variance=-0.4))
    assert len(words) == 1
    assert words[0].startswith("explained variance negative for 10 rollouts (now -0.40)")
    assert words_of(series(12, explained_variance=[-0.4] * 9 + [0.1] * 3)) == []


def test_too_much_clipping() -> None:
    words = words_of(series(4, clip_fraction=0.41))
    assert len(words) == 1
    assert words[0].startswith("clip fraction of 41% over 3 rollouts")
    assert words_of(series(4, clip_fraction=[0.5, 0.1, 0.1, 0.1])) == []


def test_constant_scores() -> None:
    words = words_of(series(5, score=2.5, score_std=0.0))
    assert len(words) == 1
    assert words[0].startswith("every completion of 3 rollouts scored 2.5")
    assert words_of(series(5, score_std=[0.0, 0.0, 0.5, 0.0, 0.0])) == []


def test_repetition_rises() -> None:
    words = words_of(series(9, repetition=[0.03] * 5 + [0.2] * 4))
    assert words == ["repetition rose from 3% to 14% of word trigrams: does repeating buy score?"]
    assert words_of(series(9, repetition=0.2)) == []  # it has always been so


def test_kl_above_its_budget_warns_then_stops() -> None:
    watch = Watch(Config(kl_budget=8))
    assert watch.look(healthy(kl=9.5)) == ["KL of 9.5 nats a completion is above the budget of 8"]
    assert watch.look(healthy(kl=9.6)) == []
    assert watch.stop_reason is None
    watch.look(healthy(kl=9.75))
    assert watch.stop_reason == (
        "KL of 9.75 nats a completion is above the budget of 8, for 3 rollouts in a row"
    )


def test_kl_that_comes_back_into_its_budget_does_not_stop() -> None:
    watch = Watch(Config(kl_budget=8))
    said = [watch.look(healthy(kl=kl)) for kl in (9.0, 9.0, 7.9, 9.0, 9.0)]
    assert watch.stop_reason is None
    assert [len(words) for words in said] == [1, 0, 0, 1, 0]  # said again: it was gone
    free = Watch(Config(kl_budget=None))
    assert [free.look(healthy(kl=99.0)) for _ in range(4)] == [[], [], [], []]


def test_nan_stops_at_once() -> None:
    watch = Watch(Config())
    words = watch.look(healthy(policy_loss=math.nan, value_loss=math.inf))
    assert words == [
        "policy_loss and value_loss became NaN or infinite: nothing can be learnt from it"
    ]
    assert watch.stop_reason == words[0]
    fine = Watch(Config())
    assert fine.look(healthy(score_ci_low=math.nan, explained_variance=math.nan)) == []


def test_a_level_is_not_said_to_fall_to_nan() -> None:
    words = words_of(
        series(6, entropy=[1.5] * 3 + [math.nan] * 3, repetition=[0.0] * 5 + [math.inf])
    )
    assert words == ["entropy became NaN or infinite: nothing can be learnt from it"]


def test_a_warning_comes_again_only_after_its_cause_was_gone() -> None:
    clipping = [0.5] * 5 + [0.0] * 3 + [0.5] * 5
    watch = Watch(Config())
    said = [
        bool(watch.look(healthy(index, clip_fraction=value)))
        for index, value in enumerate(clipping)
    ]
    # The mean of three is above 0.3 from the third, gone at the seventh, back at the tenth.
    assert [index for index, words in enumerate(said, start=1) if words] == [3, 10]
    assert [(one["cause"], one["rollout"]) for one in watch.said] == [
        ("much_clipping", 3),
        ("much_clipping", 10),
    ]


def test_the_step_of_a_warning_is_kept() -> None:
    watch = Watch(Config())
    watch.look(healthy(ended_rate=0.0), step=40)
    assert [(one["step"], one["cause"]) for one in watch.said] == [(40, "no_end")]


@pytest.mark.parametrize("cut", [1, 4, 7, 11, 15])
def test_a_resumed_watch_says_what_an_unbroken_one_says(cut: int) -> None:
    rows = series(
        20,
        kl=[-0.5] * 7 + [9.0] * 13,
        completion_length=[40 - i for i in range(20)],
        score=[0.1 * i for i in range(20)],
        entropy=[1.5] * 6 + [0.2] * 14,
        repetition=[0.0] * 9 + [0.5] * 11,
    )
    unbroken, before = Watch(Config()), Watch(Config())
    expected = [unbroken.look(row) for row in rows]
    for row in rows[:cut]:
        before.look(row)
    after = Watch(Config())
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert [after.look(row) for row in rows[cut:]] == expected[cut:]
    assert after.state_dict() == unbroken.state_dict()
    assert sum(map(len, expected)) == 5


def test_nothing_is_asked_of_metrics_that_are_not_there() -> None:
    assert words_of([{"step": 1.0}] * 20) == []
    assert len(CAUSES) == 9


def test_every_warning_has_a_line_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "ppo.md").read_text(encoding="utf-8")
    table = page.partition("| it says | when |\n|---|---|\n")[2].partition("\n\n")[0]
    assert len(table.splitlines()) == len(CAUSES) + 2  # and the budget and NaN, which stop
