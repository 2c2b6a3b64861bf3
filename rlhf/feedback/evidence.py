"""Everything that is known of a campaign's answers: what was said, decided and expected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.feedback.store import Store
from rlhf.feedback.votes import ordinary
from rlhf.records import Comparison, Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What labels and numbers on raters are made of.

    `judgements` are those that stand, of every purpose. `weights` holds the raters decided on
    (0 excluded), `adjudications` the judgement that decides an item, `gold` expected values.
    """

    comparisons: Sequence[Comparison]
    judgements: Sequence[Judgement]
    weights: Mapping[str, float] = field(default_factory=dict)
    adjudications: Mapping[str, str] = field(default_factory=dict)
    gold: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def simulated(self) -> dict[str, bool]:
        """Each rater's name and whether they are simulated."""
        return {one.annotator: one.simulated for one in self.judgements}

    @property
    def deciding(self) -> dict[str, Judgement]:
        """The judgement that decides each adjudicated item, where it still stands."""
        by_id = {one.id: one for one in self.judgements}
        return {item: by_id[key] for item, key in self.adjudications.items() if key in by_id}

    def weight(self, annotator: str) -> float:
        """How much a rater's judgements count: 1 unless somebody decided otherwise."""
        return self.weights.get(annotator, 1.0)

    @property
    def counted(self) -> list[Judgement]:
        """The ordinary judgements of raters who are not excluded: what labels are made of."""
        return [one for one in ordinary(self.judgements) if self.weight(one.annotator) > 0]


def read_evidence(store: Store, campaign: str) -> Evidence:
    """The evidence of a campaign; ConfigError when there is no such campaign."""
    judgements = store.judgements(campaign)  # before the items: items are never taken away
    return Evidence(
        comparisons=store.comparisons(campaign),
        judgements=judgements,
        weights=store.rater_weights(campaign),
        adjudications={
            one.item: one.judgement_id
            for one in store.adjudications(campaign)
            if one.judgement_id is not None
        },
        gold=store.gold(campaign),
    )
