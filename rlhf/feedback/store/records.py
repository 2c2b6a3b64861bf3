"""What the store hands out beside the records of the loop."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rlhf.records import Comparison, TaskType


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A set of items to be rated in one way.

    `overlap` raters are wanted for each item; a lease on an item lasts `lease_s` seconds;
    `guideline` is the text of version `guideline_version`. `kinds` are the kinds of value a
    judgement may carry: `task` alone, or what an imported file mixed.
    """

    name: str
    task: TaskType
    overlap: int
    lease_s: float
    guideline: str
    guideline_version: int
    seed: int
    settings: dict[str, Any]
    created_at: datetime

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.settings.get("kinds", [self.task]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A lease on one item for one annotator, and how the item is shown to them.

    `shown_order` holds indices into `comparison.completions`, first shown first. `num_done` and
    `num_left` count this annotator's items in the campaign, the leased one among those left;
    both are 0 where they were not asked for.
    """

    id: str
    campaign: str
    annotator: str
    comparison: Comparison
    shown_order: tuple[int, ...]
    expires_at: datetime
    guideline_version: int
    num_done: int
    num_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a campaign has come. Skips and superseded judgements are no `num_judgements`.

    `num_filled` of the `num_wanted` places are taken: an item's raters beyond the overlap fill
    none. What was taken back counts nowhere.
    """

    num_items: int
    num_complete: int
    num_judgements: int
    num_wanted: int
    num_filled: int
    num_skipped: int
    num_annotators: int
    num_simulated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProgress:
    """How far one rater has come in a campaign, by the judgements of theirs that stand.

    `num_left` items still want somebody and were never before them.
    """

    num_judged: int
    num_skipped: int
    num_taken_back: int
    num_left: int

    @property
    def num_done(self) -> int:
        return self.num_judged + self.num_skipped
