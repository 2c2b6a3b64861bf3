"""Forecasts by hand, and buckets with their gaps."""

from datetime import timedelta

import pytest

from rlhf.feedback.quality.pace import _by_bucket, forecast_of
from tests.feedback.makers import NOON

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def test_even_pace_has_a_narrow_end() -> None:
    # two an hour for ten hours, 30 left: 15 hours more, whichever hours are drawn again
    times = [NOON - (k + 0.5) * HOUR / 2 for k in range(20)][::-1]
    found = forecast_of(times, 30, NOON)
    assert found.pace_per_hour == pytest.approx(20 / 9.75)  # since the first, 9 h 45 min ago
    assert found.finish_median is not None
    assert found.finish_median - NOON == pytest.approx(14.625 * HOUR, abs=HOUR)
    assert found.finish_low is not None
    assert found.finish_high is not None
    assert found.finish_high - found.finish_low < 3 * HOUR  # a bucket holds 1, 2 or 3


def test_uneven_days_have_an_interval_round_the_mean() -> None:
    # days of 0, 10, 20, 30 in turn for twelve days: 15 a day, 60 left: about 4 days
    times = sorted(
        NOON - day * DAY - (k + 1) * HOUR / 2 for day in range(12) for k in range(10 * (day % 4))
    )
    found = forecast_of(times, 60, NOON)
    assert found.finish_low is not None
    assert found.finish_median is not None
    assert found.finish_high is not None
    assert found.finish_low < found.finish_median < found.finish_high
    assert found.finish_median - NOON == pytest.approx(4 * DAY, abs=0.6 * DAY)
    assert found.finish_high - NOON > 4.5 * DAY
    assert "judgements in the last" in found.reason


@pytest.mark.parametrize(
    ("hours", "left", "reason"),
    [
        ([], 5, "nothing was judged"),
        ([24 * 30] * 50, 5, "nothing was judged"),  # long ago
        ([1, 2, 3], 5, "too little"),
        ([0.5] * 50, 5, "too little"),  # all in one hour
        ([1] * 50, 0, "every place is filled"),
    ],
)
def test_no_forecast_without_ground(hours: list[float], left: int, reason: str) -> None:
    found = forecast_of(sorted(NOON - h * HOUR for h in hours), left, NOON)
    assert (found.finish_low, found.finish_median, found.finish_high) == (None, None, None)
    assert reason in found.reason


def test_work_of_a_few_days_among_idle_ones_may_never_end() -> None:
    times = sorted(NOON - day * DAY - k * HOUR / 4 for day in (1, 2, 13) for k in range(8))
    times = [NOON - 40 * DAY, *times]
    found = forecast_of(times, 1000, NOON)
    assert found.pace_per_hour == pytest.approx(24 / (14 * 24))
    assert found.finish_low is not None
    assert found.finish_low > NOON + 200 * DAY


def test_buckets_without_pairs_stand_empty() -> None:
    found = _by_bucket(
        [(NOON, "i", True), (NOON, "k", False), (NOON + 2 * DAY, "m", True)]
    )  # fmt: skip
    assert [(start.day, one and one.value) for start, one in found] == [
        (2, 0.5), (3, None), (4, 1.0)
    ]  # fmt: skip
    assert _by_bucket([]) == []
