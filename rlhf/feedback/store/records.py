"""What the store hands out beside the records of the loop."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rlhf.records import Comparison, Purpose, TaskType

Role = Literal["rater", "lead"]

Standing = Literal["open", "unqualified", "paused", "consent", "excluded"]
"""Whether a rater gets items of a campaign, and if not, why."""


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
    purpose: Purpose = "rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRow:
    """One lease, past or present. `outcome` is judged or expired, None while it is open."""

    item: str
    annotator: str
    purpose: Purpose
    issued_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a campaign has come, by its items and judgements of purpose `rate` alone.

    Skips and superseded judgements are no `num_judgements`.

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

    `num_left` items still want somebody and were never before them. Gold items and retests count
    like any other, those to come by their shares, so that the numbers do not give them away.
    """

    num_judged: int
    num_skipped: int
    num_taken_back: int
    num_left: int

    @property
    def num_done(self) -> int:
        return self.num_judged + self.num_skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who can sign in, or a simulated rater, who cannot."""

    name: str
    role: Role
    simulated: bool
    has_password: bool
    disabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """What a single-use link gives: a new account of a role, or a sign-in as `annotator`."""

    role: Role
    annotator: str | None
    created_by: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvite(Invite):
    """An invite that can still be used. Its secret is nowhere: it is revoked by its `id`."""

    id: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterDecision:
    """How much a rater's judgements in a campaign weigh, by a lead's decision.

    `weight` 0 is excluded, between 0 and 1 down-weighted, 1 restored. With `reopen` the items of
    an excluded rater want others in their place.
    """

    campaign: str
    annotator: str
    weight: float
    reason: str
    decided_by: str
    created_at: datetime
    reopen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjudication:
    """A lead's word on an item that raters disagree on; without a judgement it is withdrawn."""

    campaign: str
    item: str
    judgement_id: str | None
    decided_by: str
    reason: str
    created_at: datetime
