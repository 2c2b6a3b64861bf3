"""A store for the pictures: made-up campaigns, simulated raters with habits, and people to show.

Every judgement that is written here is a simulated rater's, and the pages say so wherever they
show a number made of it. The people have judged nothing.
"""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from rlhf.feedback.campaign_file import create_campaign, plan_campaign, plan_campaign_from_text
from rlhf.feedback.protocols import protocol_of
from rlhf.feedback.quality import disagreements
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Judgement

CAMPAIGNS = Path(__file__).parent / "campaigns"
CAMPAIGN, LEAD, RATER = "everyday", "lea", "ada"
CONSENT = (
    "Your name stays with us. What you choose is used to train models. You may skip any item "
    "and stop at any time."
)
NUM_DAYS = 9
PLACES_FILLED = 0.84
REASONS = (
    "I would rather get this one.",
    "The other one would not help me.",
    "This one answers what was asked.",
    "I would not follow the other one.",
)


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a simulated rater judges: how often right, and for the first side when in doubt."""

    name: str
    accuracy: float
    first_side: float = 0.5
    seconds: float = 25.0


RATERS = (
    Habits(name="sim-anna", accuracy=0.97, seconds=31),
    Habits(name="sim-ben", accuracy=0.94, seconds=24),
    Habits(name="sim-carla", accuracy=0.92, seconds=40),
    Habits(name="sim-dario", accuracy=0.5, first_side=0.95, seconds=18),
    Habits(name="sim-eli", accuracy=0.8, seconds=3),
)


def fill_store(path: Path) -> None:
    """Makes the store and all that the pictures show."""
    with Store.open(path, create=True) as store:
        create_campaign(store, plan_campaign_from_text(yaml.safe_dump(shuffled())))
        for file in sorted(CAMPAIGNS.glob("*.yaml")):
            if file.stem != CAMPAIGN:
                create_campaign(store, plan_campaign(file))
        for name in (LEAD, RATER, "noor", "sam"):
            store.add_annotator(Annotator(name=name, role="lead" if name == LEAD else "rater"))
        for rater in RATERS:
            store.add_annotator(Annotator(name=rater.name, simulated=True))
        store.create_invite(created_by=LEAD)
        judge(store)
        lead(store)


def judge(store: Store) -> None:
    """Has the simulated raters judge most places, some gold items and a few items twice."""
    rng = random.Random(7)
    gold = store.gold(CAMPAIGN)
    comparisons = store.comparisons(CAMPAIGN)
    ordinary = [one for one in comparisons if one.item not in gold]
    truth = true_order()
    rows: list[Judgement] = []
    for one, rater in places(ordinary, rng):
        sign = -1 if better_first(one, truth) else 1
        rows.append(judgement(one, rater, sign, rng))
    num_kept = int(len(rows) * PLACES_FILLED)
    rows = [*rows[:num_kept]]
    for one in comparisons:
        if one.item in gold:
            known = 1 if gold[one.item]["verdict"] > 0 else -1
            rows += [judgement(one, rater, known, rng, purpose="gold") for rater in RATERS]
    rows += [again for row in rows[:60:3] if (again := retest(row, rng))]
    store.record(spread_over_time(rows, rng))


def content() -> dict[str, Any]:
    return dict(yaml.safe_load((CAMPAIGNS / f"{CAMPAIGN}.yaml").read_text()))


def shuffled() -> dict[str, Any]:
    """The campaign with each prompt's completions in any order: the better one is not the first."""
    campaign, rng = content(), random.Random(2)
    for row in campaign["completions"]:
        rng.shuffle(row["completions"])
    return campaign


def true_order() -> list[str]:
    """The texts of the file, those of one prompt from the best to the worst."""
    return [text for row in content()["completions"] for text in row["completions"]]


def better_first(comparison: Comparison, truth: list[str]) -> bool:
    first, second = (truth.index(one.text) for one in comparison.completions)
    return first < second


def places(
    comparisons: list[Comparison], rng: random.Random
) -> Iterator[tuple[Comparison, Habits]]:
    """Each item with three raters, in the order in which they come by."""
    for number, one in enumerate(rng.sample(comparisons, len(comparisons))):
        for step in range(3):
            yield one, RATERS[(number + step) % len(RATERS)]


def judgement(
    comparison: Comparison, rater: Habits, sign: int, rng: random.Random, **more: str
) -> Judgement:
    """What the rater says of an item whose right answer has this sign."""
    order = (0, 1) if rng.random() < 0.5 else (1, 0)
    if rng.random() > rater.accuracy:
        shown = -1 if rng.random() < rater.first_side else 1
        sign = shown if order == (0, 1) else -shown
    return Judgement(
        id=uuid.UUID(int=rng.getrandbits(128)).hex,
        campaign=CAMPAIGN,
        item=comparison.item,
        annotator=rater.name,
        simulated=True,
        seconds=round(rater.seconds * rng.lognormvariate(0, 0.4), 1),
        created_at=datetime.now(UTC),
        shown_order=order,
        verdict=rng.choices((0, sign, 2 * sign, 3 * sign), (0.06, 0.3, 0.4, 0.24))[0],
        flags=((), ()),
        rationale=rng.choice(REASONS) if rng.random() < 0.4 else None,
        guideline_version=1,
        **more,  # type: ignore[arg-type]
    )


def retest(row: Judgement, rng: random.Random) -> Judgement | None:
    """The same item a second time: mostly the same answer; none of what checks a rater."""
    if row.purpose != "rate" or not row.verdict:
        return None
    answer = row.verdict if rng.random() < 0.85 else -row.verdict
    values = {name: getattr(row, name) for name in row.__dataclass_fields__}
    values |= {"id": f"again-{row.id}", "purpose": "retest", "verdict": answer, "rationale": None}
    return Judgement(**values)


def spread_over_time(rows: list[Judgement], rng: random.Random) -> list[Judgement]:
    """The rows over the working hours of the last days, retests after what they repeat."""
    start = datetime.now(UTC).replace(minute=0, second=0) - timedelta(days=NUM_DAYS)
    days = [start.replace(hour=8) + timedelta(days=day) for day in range(NUM_DAYS)]
    moments = sorted(rng.choice(days) + timedelta(minutes=rng.uniform(0, 540)) for _ in rows)
    main = [row for row in rows if row.purpose == "rate"]
    late = [row for row in rows if row.purpose == "retest"]
    ordered = [*main[:60], *late, *main[60:]]
    for row in rows:
        if row.purpose == "gold":
            ordered.insert(rng.randrange(len(ordered)), row)
    stamped = zip(ordered, moments, strict=True)
    return [_at(row, moment) for row, moment in stamped]


def _at(row: Judgement, moment: datetime) -> Judgement:
    values = {name: getattr(row, name) for name in row.__dataclass_fields__}
    return Judgement(**{**values, "created_at": moment})


def lead(store: Store) -> None:
    """What the lead has done: a guideline, a decision on a rater, one adjudicated item."""
    campaign = store.campaign(CAMPAIGN)
    words = "\n\nWhen one of the two is dangerous to follow, the other one is *much* better.\n"
    store.revise_guideline(CAMPAIGN, campaign.guideline + words)
    protocol_of(campaign.task, settings := {**campaign.settings, "consent": CONSENT})
    store.change_settings(CAMPAIGN, settings)
    reason = "Chooses the first side when in doubt; counts half until we have talked."
    store.decide_on_rater(CAMPAIGN, "sim-dario", weight=0.5, reason=reason, decided_by=LEAD)
    second = disagreements(store, CAMPAIGN)[1].item
    found = next(one for one in store.comparisons(CAMPAIGN) if one.item == second)
    own = Judgement(
        id="adjudicated",
        campaign=CAMPAIGN,
        item=second,
        annotator=LEAD,
        simulated=False,
        seconds=42,
        created_at=datetime.now(UTC),
        shown_order=(0, 1),
        verdict=-2 if better_first(found, true_order()) else 2,
        flags=((), ()),
        guideline_version=2,
        purpose="adjudication",
    )
    store.adjudicate(own, reason="Only this one can be followed.", idempotency_key=own.id)
