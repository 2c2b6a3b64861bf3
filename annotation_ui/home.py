"""The campaigns a person may rate, and the agreement that some of them ask for first."""

import hashlib
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotation_ui.pages import message_page, plain_page
from annotation_ui.rendering import render_guideline
from annotation_ui.site import Site
from rlhf.errors import ConfigError, DataError
from rlhf.feedback.people import originals, rated_by_people
from rlhf.feedback.protocols import names_what_it_asks, recorded_protocol
from rlhf.feedback.store import Campaign, Store

CLOSED = {
    "paused": "Paused for now; look again later.",
    "consent": "Asks for your agreement first.",
    "unqualified": "Its first items decide who goes on, and this time it was not you. Thank you.",
    "excluded": "A lead has closed this campaign for you; ask them why.",
}
"""Why a campaign gives somebody no item, by their standing in it."""

Text = Annotated[str, Form()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One campaign as it stands for one person."""

    name: str
    title: str
    description: str
    num_done: int
    num_total: int
    words: str
    closed: str | None
    needs_consent: bool


def home_routes(site: Site) -> APIRouter:
    """`/` (straight to the only campaign, for raters), `/campaigns` and `/consent`."""
    router = APIRouter()

    @router.get("/")
    def home(request: Request) -> Response:
        cards = _cards(site, request.state.annotator)
        if request.state.role == "rater" and len(cards) == 1 and cards[0].closed is None:
            return RedirectResponse(f"/app/?campaign={quote(cards[0].name, safe='')}", 303)
        return RedirectResponse("/campaigns", 303)

    @router.get("/campaigns")
    def campaigns(request: Request) -> Response:
        account = site.store.account(request.state.annotator)
        cards = _cards(site, account.name)
        page = plain_page("home", "Campaigns", account=account, here="campaigns", cards=cards)
        return HTMLResponse(page)

    @router.get("/consent")
    def show_consent(request: Request, campaign: str = "") -> Response:
        return _consent_page(site, request.state.annotator, campaign)

    @router.post("/consent")
    def consent(request: Request, campaign: Text = "", seen: Text = "") -> Response:
        return _agree(site, request.state.annotator, campaign, seen)

    return router


def offered(site: Site) -> list[Campaign]:
    """The campaigns that people may rate here, oldest first.

    What only simulated raters have judged is rated by people in its copy, and in no other place.
    """
    if site.campaign is not None:
        return [site.store.campaign(site.campaign)]
    campaigns = site.store.campaigns()
    copied = {campaign.settings.get("people_of") for campaign in campaigns}
    return [one for one in campaigns if one.name not in copied and not _is_simulated(site, one)]


def _is_simulated(site: Site, campaign: Campaign) -> bool:
    progress = site.store.progress(campaign.name)
    return 0 < progress.num_simulated == progress.num_judgements


def make_copies_for_people(store: Store) -> list[Campaign]:
    """The copies in which people rate what only simulated raters judged; made when new."""
    found = [(one, rated_by_people(store, one.name)) for one in originals(store.campaigns())]
    return [copy for one, copy in found if copy.name != one.name]


def _cards(site: Site, annotator: str) -> list[Card]:
    return [_card(site.store, campaign, annotator) for campaign in offered(site)]


def _card(store: Store, campaign: Campaign, annotator: str) -> Card:
    protocol = recorded_protocol(campaign.task, campaign.settings)
    own = store.own_progress(campaign.name, annotator)
    standing = store.standing_of(campaign.name, annotator)
    num_total = own.num_done + own.num_taken_back + own.num_left
    is_empty = store.progress(campaign.name).num_items == 0
    return Card(
        name=campaign.name,
        title=protocol.title or campaign.name,
        description=protocol.description,
        num_done=own.num_done,
        num_total=num_total,
        words=_progress_words(own.num_done, num_total),
        closed="Holds no item yet." if is_empty else _why_closed(campaign, standing),
        needs_consent=standing == "consent",
    )


def _why_closed(campaign: Campaign, standing: str) -> str | None:
    if not names_what_it_asks(campaign.task, campaign.settings):
        return "Its ratings were made elsewhere, on a scale that is not asked here."
    return CLOSED.get(standing)


def _progress_words(num_done: int, num_total: int) -> str:
    if num_total == 0:
        return "Nothing for you right now"
    if num_done == num_total:
        return f"You have done all {num_total} that were yours"
    return f"You have done {num_done} of {num_total}"


def _consent_page(
    site: Site, annotator: str, name: str, *, problem: str = "", status: int = 200
) -> Response:
    try:
        campaign = site.store.campaign(name)
    except ConfigError:
        text = "No campaign of that name is here; it may have been renamed."
        page = message_page("No such campaign", text, link=("/campaigns", "To your campaigns"))
        return HTMLResponse(page, 404)
    onward = f"/app/?campaign={quote(name, safe='')}"
    if site.store.has_agreed(name, annotator):
        return RedirectResponse(onward, 303)
    protocol = recorded_protocol(campaign.task, campaign.settings)
    page = plain_page(
        "consent",
        "Before you rate",
        account=site.store.account(annotator),
        campaign=name,
        campaign_title=protocol.title or name,
        consent=render_guideline(protocol.consent),
        seen=_fingerprint(protocol.consent),
        problem=problem,
    )
    return HTMLResponse(page, status)


def _agree(site: Site, annotator: str, name: str, seen: str) -> Response:
    """Keeps the agreement, to the very text that was on screen and no other."""
    try:
        campaign = site.store.campaign(name)
        text = recorded_protocol(campaign.task, campaign.settings).consent
        if seen == _fingerprint(text):
            site.store.agree(name, annotator, text)
        else:
            raise DataError("The text has changed meanwhile. Please read it again.")
    except ConfigError:
        return _consent_page(site, annotator, name)
    except DataError as error:
        return _consent_page(site, annotator, name, problem=str(error), status=409)
    return RedirectResponse(f"/app/?campaign={quote(name, safe='')}", 303)


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
