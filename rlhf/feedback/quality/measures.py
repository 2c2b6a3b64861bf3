"""What raters can agree on, as a table of units by raters, whatever the task."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from rlhf.feedback.votes import last_of_each_rater, votes_of
from rlhf.records import Judgement

Unit = tuple[str, int, int]
"""The item, and within it a pair of completions, or one completion (then both numbers are it)."""

Table = dict[Unit, dict[str, float]]
"""For each unit the value of each rater who gave one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One thing that raters say of each unit.

    `name` is "verdict" (-3..3 of a pair), "ranking" (-1, 0, 1 of each pair of a ranking),
    "ratings:CRITERION" (of each completion) or "flag:FLAG" (0 or 1 of each completion). Values
    are in the order of the item's completions, never in that on screen.
    """

    name: str
    table: Table

    @property
    def categories(self) -> Table:
        """The values as categories: of a verdict its sign, of anything else the value itself.

        Nominal statistics count "slightly better" and "much better" as the same answer, as
        papers on pairwise data do.
        """
        return {
            unit: {rater: _category(self.name, value) for rater, value in values.items()}
            for unit, values in self.table.items()
        }


def measures_of(judgements: Iterable[Judgement]) -> list[Measure]:
    """A measure for each thing that was judged; the verdict first, then rankings, ratings, flags.

    Of several judgements by one rater on one item the last counts; skips say nothing.
    """
    said = [one for one in last_of_each_rater(judgements) if one.skip is None]
    tables: dict[str, Table] = defaultdict(lambda: defaultdict(dict))
    names = sorted({flag for one in said for flags in one.flags or () for flag in flags})
    for judgement in said:
        for name, unit, value in _values_of(judgement, names):
            tables[name][unit][judgement.annotator] = value
    order = ("verdict", "ranking", "ratings", "flag")
    return [
        Measure(name=name, table={unit: dict(values) for unit, values in tables[name].items()})
        for name in sorted(tables, key=lambda name: (order.index(name.partition(":")[0]), name))
    ]


def rater_pairs(categories: Table) -> Iterator[tuple[Unit, str, str, bool]]:
    """Every two raters of every unit, and whether they gave it the same category."""
    for unit, values in categories.items():
        for a, b in combinations(sorted(values), 2):
            yield unit, a, b, values[a] == values[b]


def categories_of(
    judgement: Judgement, flag_names: Iterable[str] = ()
) -> dict[tuple[str, Unit], float]:
    """What one judgement says, as categories, by the measure's name and the unit."""
    if judgement.skip is not None:
        return {}
    return {
        (name, unit): _category(name, value)
        for name, unit, value in _values_of(judgement, flag_names)
    }


def _category(name: str, value: float) -> float:
    return float((value > 0) - (value < 0)) if name == "verdict" else value


def _values_of(judgement: Judgement, flag_names: Iterable[str]) -> list[tuple[str, Unit, float]]:
    kind = "verdict" if judgement.verdict is not None else "ranking"
    found = [(kind, vote.key, float(vote.strength)) for vote in votes_of(judgement)]
    for criterion, values in (judgement.ratings or {}).items():
        found += [
            (f"ratings:{criterion}", (judgement.item, at, at), float(value))
            for at, value in enumerate(values)
            if value is not None
        ]
    for at, flags in enumerate(judgement.flags or ()):
        for flag in flag_names:
            found.append((f"flag:{flag}", (judgement.item, at, at), float(flag in flags)))
    return found
