"""The ratings stage: sampled completions become comparisons, and raters judge them.

The raters are simulated, people (who rate in the browser while the stage waits outside), or a
file of judgements made elsewhere. Run again, it takes up where it stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from rlhf.errors import ConfigError, DataError, PendingError
from rlhf.feedback.files import read_rows
from rlhf.feedback.imports import import_file
from rlhf.feedback.pairing import MadeComparisons, make_comparisons
from rlhf.feedback.simulation import (
    DEFAULT_PANEL,
    SimulatedRater,
    panel_for,
    simulated_verdict,
)
from rlhf.feedback.store import MAX_LEASE_S, Campaign, Progress, Store, display_order
from rlhf.records import Comparison, Judgement, content_hash

DEFAULT_GUIDELINE = (
    "Which completion helps the person more? Prefer one that answers what was asked, says why, "
    "is concrete, and is complete and to the point. Call it a tie when neither is better."
)
_ITEMS_A_WRITE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """What the ratings stage is asked for.

    `ratings` is "simulated", "human", or the path of a file of judgements. `quorum` is how many
    judgements are enough: a whole number, or a share (0 to 1] of items x overlap; None means
    all of them from people, and whatever there is from a file. A `guideline` of None is the
    campaign's own, or the default one of a new campaign.
    """

    ratings: str
    campaign: str
    overlap: int = 3
    num_comparisons_per_prompt: int = 2
    quorum: int | float | None = None
    seed: int = 0
    lease_s: float = 1800
    guideline: str | None = None
    allow_mixed: bool = False


def prepare(
    store: Store, completions: Path, settings: CollectionSettings
) -> tuple[CollectionSettings, MadeComparisons]:
    """Make the campaign of some completions, or find it again; the settings name it.

    A campaign that was made of other completions is left alone: the name is then NAME-2, or the
    next that is free. Raises ConfigError when the campaign was made with other settings.
    """
    made = make_comparisons(
        read_rows(completions),
        num_per_prompt=settings.num_comparisons_per_prompt,
        seed=settings.seed,
    )
    if not made.comparisons:
        raise DataError(
            f"{completions}: no prompt has two completions that differ; sample more of them "
            "(--num_completions), or at a higher temperature"
        )
    return _make_campaign(store, made.comparisons, settings), made


def collect(
    store: Store, settings: CollectionSettings, *, panel: Sequence[SimulatedRater] = DEFAULT_PANEL
) -> None:
    """Fill a campaign that `prepare` made as far as its raters are at hand.

    Raises PendingError while the quorum is not reached, DataError when raters of the other kind
    are in the campaign.
    """
    if settings.ratings == "simulated":
        _refuse_other_raters(store, settings, simulated=True)
        rate_by_panel(store, settings.campaign, panel)
    elif settings.ratings == "human":
        _refuse_other_raters(store, settings, simulated=False)
    else:
        _import_ratings(store, settings)
    _await_quorum(store, settings)


def rate_by_panel(store: Store, campaign: str, panel: Sequence[SimulatedRater]) -> int:
    """Let simulated raters judge what they have not judged yet; how many judgements were new.

    Which raters an item gets, and what they say, follows from the campaign's seed alone, so an
    interrupted run ends where an unbroken one does.
    """
    found = store.campaign(campaign)
    items = store.comparisons(campaign)
    for rater in panel:
        store.add_annotator(rater.annotator)
    there = {one.id for one in store.judgements(campaign, current_only=False)}
    num_new = 0
    with tqdm(total=len(items), desc="simulated raters", unit="item") as bar:
        for start in range(0, len(items), _ITEMS_A_WRITE):
            chunk = items[start : start + _ITEMS_A_WRITE]
            batch = [
                judgement
                for item in chunk
                for judgement in _panel_judgements(
                    campaign, item, panel, found.overlap, found.seed, found.guideline_version
                )
                if judgement.id not in there
            ]
            if batch:
                num_new += store.record(batch)
            bar.update(len(chunk))
    return num_new


def _panel_judgements(
    campaign: str,
    item: Comparison,
    panel: Sequence[SimulatedRater],
    overlap: int,
    seed: int,
    guideline_version: int,
) -> Iterator[Judgement]:
    for rater in panel_for(item.item, panel, overlap, seed=seed):
        order = display_order(seed, item.item, rater.name, len(item.completions))
        identity = content_hash([campaign, item.item, rater.name, seed])
        yield Judgement(
            id=f"simulated-{identity[:32]}",
            campaign=campaign,
            item=item.item,
            annotator=rater.name,
            simulated=True,
            seconds=0.0,
            created_at=datetime.now(UTC),
            shown_order=order,
            verdict=simulated_verdict(rater, item, order, seed=seed),
            guideline_version=guideline_version,
        )


def _make_campaign(
    store: Store, comparisons: list[Comparison], settings: CollectionSettings
) -> CollectionSettings:
    items = content_hash([comparison.item for comparison in comparisons])
    with store.atomically():
        name, there = _campaign_of(store, settings.campaign, items)
        if there is not None:
            there = _adjusted(store, there, settings)
        guideline = DEFAULT_GUIDELINE if settings.guideline is None else settings.guideline
        store.create_campaign(
            name,
            overlap=settings.overlap,
            lease_s=settings.lease_s,
            guideline=guideline if there is None else there.guideline,
            settings={"items": items} if there is None else there.settings,
            seed=settings.seed,
        )
        store.add_comparisons(name, comparisons)
    return replace(settings, campaign=name)


def _campaign_of(store: Store, wanted: str, items: str) -> tuple[str, Campaign | None]:
    """The campaign of these items under the wanted name or the first NAME-2, NAME-3 ... with
    them; where there is none, the first of these names that is free."""
    campaigns = {campaign.name: campaign for campaign in store.campaigns()}
    name, number = wanted, 1
    while name in campaigns and campaigns[name].settings.get("items") != items:
        number += 1
        name = f"{wanted}-{number}"
    return name, campaigns.get(name)


def _adjusted(store: Store, there: Campaign, settings: CollectionSettings) -> Campaign:
    """Give a campaign what may change while people rate: guideline, raters an item, leases."""
    if settings.guideline not in (None, there.guideline):
        there = store.revise_guideline(there.name, str(settings.guideline))
    if settings.ratings != "simulated" and (there.overlap, there.lease_s) != (
        settings.overlap,
        settings.lease_s,
    ):
        there = store.change_settings(
            there.name, there.settings, overlap=settings.overlap, lease_s=settings.lease_s
        )
    return there


def _import_ratings(store: Store, settings: CollectionSettings) -> None:
    with store.atomically():  # raters of two kinds: the import is undone
        import_file(store, Path(settings.ratings), campaign=settings.campaign, new_items=False)
        kinds = {one.simulated for one in store.judgements(settings.campaign)}
        if len(kinds) > 1 and not settings.allow_mixed:
            raise DataError(
                f"{settings.ratings}: simulated raters and people in one campaign; take "
                "another --campaign, or --allow_mixed"
            )


def _refuse_other_raters(store: Store, settings: CollectionSettings, *, simulated: bool) -> None:
    others = sum(one.simulated != simulated for one in store.judgements(settings.campaign))
    if others and not settings.allow_mixed:
        whose = "people's" if simulated else "simulated raters'"
        raise DataError(
            f"{store.location}: campaign {settings.campaign!r} holds {others} of {whose} "
            "judgements; take another --campaign, or --allow_mixed"
        )


def _await_quorum(store: Store, settings: CollectionSettings) -> None:
    progress = store.progress(settings.campaign)
    quorum = settings.quorum
    if quorum is None:
        quorum = 1.0 if settings.ratings == "human" else 1
    if isinstance(quorum, float):
        # -(-x // 1) rounds up: half of 5 judgements is 3
        found, wanted = progress.num_filled, int(-(-quorum * progress.num_wanted // 1))
    else:
        found, wanted = progress.num_judgements, quorum
    if settings.ratings == "human" and wanted > progress.num_wanted:
        raise ConfigError(
            f"--quorum {wanted}: the campaign wants {progress.num_wanted} judgements in all; "
            "lower the quorum or raise --overlap"
        )
    if found < wanted:
        raise PendingError(_pending(store, settings, progress, found, wanted))


def _pending(
    store: Store, settings: CollectionSettings, progress: Progress, found: int, wanted: int
) -> str:
    """What is missing and how to bring it, on one line."""
    raters = "rater" if settings.overlap == 1 else "raters"
    why = f"{progress.num_items} comparisons x {settings.overlap} {raters}"
    num_raters = -(-wanted // progress.num_items)
    if settings.ratings not in ("simulated", "human"):
        how = f"add judgements to {settings.ratings}"
    else:
        where = f"--store {store.location}"
        if len(store.campaigns()) > 1:
            where += f" --campaign {settings.campaign}"
        how = f"rate with: scripts/annotate.sh {where}"
        if num_raters > 1:
            why += (
                f"; at least {num_raters} different raters are needed; --overlap 1 (in a "
                "pipeline --ratings.overlap 1) lets one person finish"
            )
    return f"{found} of {wanted} in; run again once more are ({why}); {how}"


def check_settings(
    settings: CollectionSettings, panel: Sequence[SimulatedRater] = DEFAULT_PANEL
) -> None:
    """Raise ConfigError for settings that cannot be, before anything is made."""
    if not settings.campaign:
        raise ConfigError("--campaign: an empty name; give one")
    if settings.num_comparisons_per_prompt < 1:
        raise ConfigError("--num_comparisons_per_prompt: at least 1")
    if not 1 <= settings.overlap < 2**31:
        raise ConfigError("--overlap: at least 1 rater an item (and at most 2147483647)")
    if settings.ratings == "simulated" and settings.overlap > len(panel):
        raise ConfigError(
            f"--overlap {settings.overlap}: there are {len(panel)} simulated raters; lower it"
        )
    if not 0 < settings.lease_s < MAX_LEASE_S:
        raise ConfigError(f"--lease_s {settings.lease_s}: give a number of seconds (1800, say)")
    if not -(2**63) <= settings.seed < 2**63:
        raise ConfigError(f"--seed {settings.seed}: too large; give a smaller whole number")
    quorum = settings.quorum
    if quorum is not None and (not 0 < quorum <= 1 if isinstance(quorum, float) else quorum < 1):
        raise ConfigError(
            f"--quorum {quorum}: give a number of judgements (300) or a share of all (0.8)"
        )
