"""A store as it is in the middle of a campaign: some hundred judgements by raters of all kinds."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, Prompt

CAMPAIGN = "everyday"
NUM_ITEMS = 120
NUM_GOLD = 12
DAYS = (10, 9, 8, 5, 4, 1, 0)
"""Days ago on which there was work; nothing in between."""

_WORDS = ("water", "the plant", "twice", "a week", "because", "its soil", "dries out", "in summer")


@dataclass(frozen=True, kw_only=True)
class Habit:
    """How one test rater judges: right how often, in what time, drawn to the first side."""

    right: float
    seconds: float
    first: float = 0.0
    a_day: int = 7


HABITS = {
    "ada": Habit(right=0.95, seconds=40, a_day=9),
    "grace": Habit(right=0.9, seconds=55),
    "kathleen": Habit(right=0.9, seconds=35, a_day=8),
    "hasty": Habit(right=0.5, seconds=1.5, a_day=8),
    "lefty": Habit(right=0.85, seconds=30, first=0.7),
    "sim-1": Habit(right=0.8, seconds=20, a_day=6),
}


def rated_store(folder: Path, *, seed: int = 3) -> Store:
    """A store with CAMPAIGN half judged by HABITS' raters, and two campaigns without judgements."""
    store = Store.open(folder / "feedback.db", create=True)
    store.create_campaign("bare", settings={"title": "Nothing here yet"})
    store.create_campaign("waiting", overlap=2)
    store.create_campaign(CAMPAIGN, overlap=3, settings={"title": "Everyday questions"})
    rng = random.Random(seed)
    items = [_item(f"item-{number:03}", number, rng) for number in range(NUM_ITEMS)]
    golds = [_item(f"gold-{number:02}", number + 500, rng) for number in range(NUM_GOLD)]
    store.add_comparisons("waiting", items[:4])
    store.add_comparisons(CAMPAIGN, items)
    expected = {gold.item: {"verdict": -2} for gold in golds}
    store.add_comparisons(CAMPAIGN, golds, purpose="gold", gold=expected)
    for name in HABITS:
        store.add_annotator(Annotator(name=name, simulated=name.startswith("sim")))
    rows = [*_ordinary(items, rng), *_checks(golds, rng)]
    rows.sort(key=lambda row: row.created_at)
    store.record(rows)
    return store


def _item(name: str, number: int, rng: random.Random) -> Comparison:
    texts = [" ".join(rng.choices(_WORDS, k=rng.randint(5, 30))) for _ in range(2)]
    completions = (Completion(text=texts[0]), Completion(text=f"{texts[1]}!"))
    prompt = Prompt(content=f"How do I look after plant number {number}?")
    return Comparison(prompt=prompt, completions=completions, item=name)


def _ordinary(items: list[Comparison], rng: random.Random) -> list[Judgement]:
    rows: list[Judgement] = []
    better = {item.item: rng.choice((-1, 1)) for item in items}
    seen: dict[str, set[str]] = {item.item: set() for item in items}
    now = datetime.now(UTC)
    for day in DAYS:
        for name, habit in HABITS.items():
            moment = now - timedelta(days=day, hours=2)
            for _ in range(habit.a_day):
                open_items = [one for one in seen if name not in seen[one] and len(seen[one]) < 3]
                if not open_items:
                    break
                item = open_items[0]
                seen[item].add(name)
                moment += timedelta(seconds=60)
                rows.append(_answer(len(rows), item, better[item], name, moment, rng))
    return rows


def _answer(
    number: int, item: str, better: int, name: str, moment: datetime, rng: random.Random
) -> Judgement:
    habit = HABITS[name]
    order = rng.choice(((0, 1), (1, 0)))
    sign = better if rng.random() < habit.right else -better
    if rng.random() < habit.first:
        sign = -1 if order[0] == 0 else 1
    skip = "It needs knowledge that I do not have" if rng.random() < 0.03 else None
    return Judgement(
        id=f"judgement-{number:04}",
        campaign=CAMPAIGN,
        item=item,
        annotator=name,
        simulated=name.startswith("sim"),
        seconds=habit.seconds * rng.uniform(0.7, 1.4),
        created_at=moment,
        shown_order=order,
        verdict=None if skip else sign * rng.randint(1, 3),
        skip=skip,
    )


def _checks(golds: list[Comparison], rng: random.Random) -> list[Judgement]:
    people = [name for name in HABITS if not name.startswith("sim")]
    return [
        Judgement(
            id=f"check {name} {gold.item}",
            campaign=CAMPAIGN,
            item=gold.item,
            annotator=name,
            simulated=False,
            seconds=HABITS[name].seconds,
            created_at=datetime.now(UTC) - timedelta(days=rng.choice(DAYS), hours=3),
            shown_order=(0, 1),
            verdict=-2 if rng.random() < HABITS[name].right else 2,
            purpose="gold",
        )
        for name in people
        for gold in golds
    ]
