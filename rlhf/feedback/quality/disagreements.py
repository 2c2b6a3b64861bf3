"""The items on which raters disagree most, for somebody to decide."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.quality.measures import Measure, measures_of
from rlhf.feedback.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An item that raters answered differently, and how differently: `spread`, 0 to 1.

    `num_simulated` of the `num_raters` are simulated; `judgement_ids` are theirs.
    """

    item: str
    num_raters: int
    num_simulated: int
    spread: float
    adjudicated: bool
    judgement_ids: tuple[str, ...]


def disagreements(store: Store, campaign: str) -> list[Disagreement]:
    """The items with any disagreement, worst first; ConfigError for an unknown campaign.

    Of ordinary judgements by raters who are not excluded. The spread is the variance of the
    values over the greatest that it can be: of the signs of verdicts and of each pair of a
    ranking (-1 and 1: 1; a tie and a preference: 1/4), of ratings over the range that the
    campaign's ratings have, of flags 0 and 1. Over the pairs of a ranking and the completions of
    a criterion it is the mean, over flags, criteria and completions with flags the largest.
    Equal spreads stand in the order of how far verdicts lie apart, then of the items.
    """
    return disagreements_in(read_evidence(store, campaign))


def disagreements_in(evidence: Evidence) -> list[Disagreement]:
    """The same of evidence at hand."""
    judged = [one for one in evidence.counted if one.skip is None]
    spreads: dict[str, list[float]] = defaultdict(list)
    distances: dict[str, float] = defaultdict(float)
    for measure in measures_of(judged):
        for item, found in spread_by_item(measure).items():
            spreads[item].append(found)
        if measure.name == "verdict":
            for unit, values in measure.table.items():
                distances[unit[0]] = max(values.values()) - min(values.values())
    of_item: dict[str, dict[str, str]] = defaultdict(dict)
    for one in judged:
        of_item[one.item][one.annotator] = one.id
    places = {one.item: place for place, one in enumerate(evidence.comparisons)}
    simulated, decided = evidence.simulated, evidence.deciding
    found_items = [item for item in places if max(spreads.get(item, [0.0])) > 0]
    found_items.sort(key=lambda item: (-max(spreads[item]), -distances[item], places[item]))
    return [
        Disagreement(
            item=item,
            num_raters=len(of_item[item]),
            num_simulated=sum(simulated[name] for name in of_item[item]),
            spread=max(spreads[item]),
            adjudicated=item in decided,
            judgement_ids=tuple(of_item[item].values()),
        )
        for item in found_items
    ]


def spread_by_item(measure: Measure) -> dict[str, float]:
    """How far the raters of each item lie apart on one measure, 0 to 1."""
    table = measure.categories
    values = {value for given in table.values() for value in given.values()}
    half = 1.0 if measure.name in ("verdict", "ranking") else (max(values) - min(values)) / 2
    units: dict[str, list[float]] = defaultdict(list)
    for unit, given in table.items():
        if len(given) > 1 and half > 0:
            units[unit[0]].append(_variance(list(given.values())) / half**2)
    if measure.name.startswith("flag:"):
        return {item: max(each) for item, each in units.items()}
    return {item: sum(each) / len(each) for item, each in units.items()}


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)
