"""Seconds and tokens by phase, by a clock that the test moves."""

import pytest

from rlhf.training.ppo.monitoring import TIMING_PREFIXES, PhaseClock


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_phases_add_up_and_start_again() -> None:
    hands = Hands()
    clock = PhaseClock(now=hands)
    for seconds, tokens in ((2.0, 10), (3.0, 40)):
        with clock.phase("rollout", tokens=tokens):
            hands.at += seconds
        hands.at += 7  # between phases: nobody's
    with clock.phase("train"):
        hands.at += 4
    clock.count("train", 8)
    with clock.phase("score"):
        hands.at += 1
    found = clock.metrics()
    assert found == {
        "seconds/rollout": 5.0,
        "seconds/train": 4.0,
        "seconds/score": 1.0,
        "tokens_per_second/rollout": 10.0,
        "tokens_per_second/train": 2.0,
    }
    assert all(key.startswith(TIMING_PREFIXES) for key in found)
    assert clock.metrics() == {}


def test_a_phase_that_fails_is_charged_and_no_time_is_no_division() -> None:
    hands = Hands()
    clock = PhaseClock(now=hands)

    def fail() -> None:
        with clock.phase("score", tokens=3):
            hands.at += 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with clock.phase("train", tokens=5):
        pass
    assert clock.metrics() == {
        "seconds/score": 2.0,
        "seconds/train": 0.0,
        "tokens_per_second/score": 1.5,
    }


def test_the_device_is_waited_for_before_and_after_each_phase() -> None:
    events: list[str] = []
    clock = PhaseClock(synchronize=lambda: events.append("wait"))
    with clock.phase("train"):
        events.append("work")
    assert events == ["wait", "work", "wait"]
