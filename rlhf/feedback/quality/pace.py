"""Work over time: how much was judged when, when the rest will be, and how agreement moves."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from rlhf.feedback.evidence import read_evidence
from rlhf.feedback.quality.estimates import resampling_counts, share_estimate
from rlhf.feedback.quality.measures import measures_of, rater_pairs
from rlhf.feedback.store import Store
from rlhf.feedback.votes import ordinary
from rlhf.records import Estimate, Judgement

BUCKETS = (timedelta(hours=1), timedelta(days=1), timedelta(weeks=1))
MAX_BUCKETS = 200
RECENT = timedelta(days=14)
MIN_BUCKETS_WITH_WORK = 3
MIN_JUDGEMENTS = 10
_FAR = timedelta(days=3650)
_EPOCH = datetime(2018, 1, 1, tzinfo=UTC)  # a Monday


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a campaign will be done if work goes on as it lately did; None where nobody can tell.

    `pace_per_hour` is by the clock, nights and pauses among the hours. `finish_low` to
    `finish_high` is a 95% interval; a high end of None has no bound in sight. `reason` says why
    there is no forecast, or what it rests on.
    """

    num_left: int
    pace_per_hour: float | None
    finish_low: datetime | None
    finish_median: datetime | None
    finish_high: datetime | None
    reason: str


def throughput(
    store: Store, campaign: str, now: datetime | None = None
) -> list[tuple[datetime, int]]:
    """The number of judgements in each hour (day, week, when there are more than 200 of them).

    From the first judgement to now, empty buckets as 0; by the beginning of the bucket in UTC.
    Ordinary judgements that stand, without skips.
    """
    times = _times(_judged(store, campaign))
    if not times:
        return []
    end = max(_utc(now), times[-1])
    width = _width(times[0], end)
    counts = Counter(_bucket(one, width) for one in times)
    start, last = _bucket(times[0], width), _bucket(end, width)
    number = (last - start) // width + 1
    return [(start + k * width, counts[start + k * width]) for k in range(number)]


def forecast(store: Store, campaign: str, now: datetime | None = None) -> Forecast:
    """When the places that are left will be filled, from the pace of the last 14 days.

    The pace is the mean over days counted back from now (hours, where work began less than
    three days ago), those without work among them; the interval draws these days again. It
    knows nothing of raters who will come or go.
    """
    progress = store.progress(campaign)
    left = max(0, progress.num_wanted - progress.num_filled)
    moment = _utc(now)
    times = [one for one in _times(_judged(store, campaign)) if one <= moment]
    return forecast_of(times, left, moment)


def forecast_of(times: Sequence[datetime], num_left: int, now: datetime) -> Forecast:
    """The forecast from the times of judgements in order and the number of places left."""
    if not num_left:
        return _unknown(0, None, "every place is filled")
    recent = [one for one in times if one > now - RECENT]
    if not recent:
        return _unknown(num_left, None, f"nothing was judged in the last {RECENT.days} days")
    span = RECENT if len(recent) < len(times) else max(BUCKETS[0], now - recent[0])
    unit = BUCKETS[1] if span >= MIN_BUCKETS_WITH_WORK * BUCKETS[1] else BUCKETS[0]
    number = round(span / unit)  # whole buckets, a little more or less than a unit each
    width = span / number
    counts = Counter(min(number - 1, int((now - one) / width)) for one in recent)
    pace = len(recent) / (span / BUCKETS[0])
    kind = "days" if unit == BUCKETS[1] else "hours"
    if len(recent) < MIN_JUDGEMENTS or len(counts) < MIN_BUCKETS_WITH_WORK:
        return _unknown(
            num_left,
            pace,
            f"too little to go by: {len(recent)} judgements on {len(counts)} of the last {number} "
            f"{kind}; at least {MIN_JUDGEMENTS}, on {MIN_BUCKETS_WITH_WORK} of them, are needed",
        )
    low, middle, high = _finishes([counts[at] for at in range(number)], width, num_left, now)
    return Forecast(
        num_left=num_left,
        pace_per_hour=pace,
        finish_low=low,
        finish_median=middle,
        finish_high=high,
        reason=f"from {len(recent)} judgements in the last {number} {kind}",
    )


def agreement_over_time(store: Store, campaign: str) -> list[tuple[datetime, Estimate | None]]:
    """Percent agreement in each day (week, when there are more than 200 of them).

    Each pair of raters of a unit counts where the later of the two judged; a bucket without any
    has None. Over the first measure and raters who are not excluded.
    """
    judged = [one for one in read_evidence(store, campaign).counted if one.skip is None]
    at = {(one.item, one.annotator): _utc(one.created_at) for one in judged}
    outcomes: list[tuple[datetime, str, bool]] = []
    for measure in measures_of(judged)[:1]:
        for unit, a, b, equal in rater_pairs(measure.categories):
            outcomes.append((max(at[unit[0], a], at[unit[0], b]), unit[0], equal))
    return _by_bucket(outcomes)


def _by_bucket(
    outcomes: Sequence[tuple[datetime, str, bool]],
) -> list[tuple[datetime, Estimate | None]]:
    if not outcomes:
        return []
    first, last = min(one[0] for one in outcomes), max(one[0] for one in outcomes)
    width = max(BUCKETS[1], _width(first, last))
    found: dict[datetime, list[tuple[str, bool]]] = defaultdict(list)
    for moment, item, equal in outcomes:
        found[_bucket(moment, width)].append((item, equal))
    start = _bucket(first, width)
    starts = [start + k * width for k in range((_bucket(last, width) - start) // width + 1)]
    return [(one, share_estimate(found[one]) if one in found else None) for one in starts]


def _finishes(
    counts: Sequence[int], width: timedelta, num_left: int, now: datetime
) -> list[datetime | None]:
    """The 2.5%, 50% and 97.5% points of when the rest is done, over the buckets drawn again."""
    means = resampling_counts(len(counts), seed=0) @ np.array(counts) / len(counts)
    with np.errstate(divide="ignore"):
        needed = num_left / means  # in buckets; endless where a draw holds no work at all
    points = np.quantile(needed, [0.025, 0.5, 0.975], method="nearest")
    return [_after(now, float(point), width) for point in points]


def _after(now: datetime, number: float, width: timedelta) -> datetime | None:
    return now + number * width if number <= _FAR / width else None


def _unknown(num_left: int, pace: float | None, reason: str) -> Forecast:
    return Forecast(
        num_left=num_left,
        pace_per_hour=pace,
        finish_low=None,
        finish_median=None,
        finish_high=None,
        reason=reason,
    )


def _judged(store: Store, campaign: str) -> list[Judgement]:
    return [one for one in ordinary(store.judgements(campaign)) if one.skip is None]


def _times(judgements: Iterable[Judgement]) -> list[datetime]:
    return sorted(_utc(one.created_at) for one in judgements)


def _width(first: datetime, last: datetime) -> timedelta:
    return next((one for one in BUCKETS if (last - first) / one < MAX_BUCKETS), BUCKETS[-1])


def _bucket(moment: datetime, width: timedelta) -> datetime:
    return _EPOCH + (moment - _EPOCH) // width * width


def _utc(moment: datetime | None) -> datetime:
    if moment is None:
        return datetime.now(UTC)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
