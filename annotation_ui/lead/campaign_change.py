"""What leads change of a campaign that runs: guideline, overlap, lease, shares, pause."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from annotation_ui.bodies import Body
from annotation_ui.lead.replies import reply
from annotation_ui.rendering import render_guideline, word_diff
from rlhf.errors import DataError
from rlhf.feedback.protocols import recorded_protocol
from rlhf.feedback.store import Campaign, Store
from rlhf.records import content_hash

MAX_GUIDELINE_CHARS = 200_000


class TextBody(Body):
    """A guideline as it is being written, to be shown as raters will see it."""

    text: str = Field(max_length=MAX_GUIDELINE_CHARS)


class GuidelineBody(Body):
    """A new guideline; `version` is the one it was written on."""

    campaign: str
    text: str = Field(max_length=MAX_GUIDELINE_CHARS)
    version: int


class SettingsBody(Body):
    """What a lead may change; `revision` says which settings they were looking at."""

    campaign: str
    revision: str
    overlap: int
    lease_s: float
    gold_share: float
    retest_share: float
    qualify_share: float | None
    too_fast_s: float


class PausedBody(Body):
    """Whether the campaign hands out items."""

    campaign: str
    paused: bool


def add_routes(router: APIRouter, store: Store) -> None:
    """Adds the routes by which a campaign is changed."""

    @router.get("/one")
    def get_one(campaign: str) -> JSONResponse:
        return reply(lambda: campaign_page(store, campaign))

    @router.post("/preview")
    def preview(body: TextBody) -> JSONResponse:
        return reply(lambda: {"html": render_guideline(body.text)})

    @router.get("/difference")
    def difference(campaign: str, before: int, after: int) -> JSONResponse:
        return reply(lambda: guideline_difference(store, campaign, before, after))

    @router.post("/guideline")
    def post_guideline(body: GuidelineBody) -> JSONResponse:
        return reply(lambda: revise_guideline(store, body))

    @router.post("/settings")
    def post_settings(body: SettingsBody) -> JSONResponse:
        return reply(lambda: change_settings(store, body))

    @router.post("/paused")
    def post_paused(body: PausedBody) -> JSONResponse:
        return reply(lambda: set_paused(store, body))


def campaign_page(store: Store, name: str) -> dict[str, Any]:
    """A campaign's settings and every version of its guideline, the newest first."""
    found = store.campaign(name)
    protocol = recorded_protocol(found.task, found.settings)
    return {
        "name": found.name,
        "title": protocol.title or found.name,
        "task": found.task,
        "created_at": found.created_at.isoformat(),
        "num_items": store.progress(name).num_items,
        "template": found.settings.get("template"),
        "overlap": found.overlap,
        "lease_s": found.lease_s,
        "gold_share": protocol.gold_share,
        "retest_share": protocol.retest_share,
        "qualify_share": protocol.qualify_share,
        "too_fast_s": protocol.too_fast_s,
        "paused": protocol.paused,
        "consent": protocol.consent,
        "revision": revision_of(found),
        "guideline_version": found.guideline_version,
        "guidelines": [
            {
                "version": version,
                "text": text,
                "html": render_guideline(text),
                "created_at": created_at.isoformat(),
            }
            for version, text, created_at in reversed(store.guidelines(name))
        ],
    }


def revision_of(campaign: Campaign) -> str:
    """A hash of all that can be changed: another lead's change makes another one."""
    return content_hash([campaign.settings, campaign.overlap, campaign.lease_s])


def guideline_difference(store: Store, name: str, before: int, after: int) -> dict[str, Any]:
    """What one version lacks of the other, as segments of text with a mark."""
    removed, added = word_diff(store.guideline(name, before), store.guideline(name, after))
    return {"before": removed, "after": added}


def revise_guideline(store: Store, body: GuidelineBody) -> dict[str, Any]:
    """Put a new version in force; DataError when another lead has done so meanwhile."""
    with store.atomically():
        found = store.campaign(body.campaign)
        if found.guideline_version != body.version:
            raise DataError(
                f"another lead has put version {found.guideline_version} in force while you wrote "
                "on an older one; look at the difference and save again"
            )
        if found.guideline == body.text:
            raise DataError("this is the guideline in force, word for word; nothing was saved")
        store.revise_guideline(body.campaign, body.text)
    return campaign_page(store, body.campaign)


def change_settings(store: Store, body: SettingsBody) -> dict[str, Any]:
    """Change overlap, lease and shares; DataError when somebody else changed them meanwhile."""
    names = ("gold_share", "retest_share", "qualify_share", "too_fast_s")
    with store.atomically():
        found = store.campaign(body.campaign)
        if revision_of(found) != body.revision:
            raise DataError(
                "the settings were changed by somebody else meanwhile; they are shown as they "
                "are now: change them again"
            )
        settings = {**found.settings, **{name: getattr(body, name) for name in names}}
        recorded_protocol(found.task, settings)
        store.change_settings(body.campaign, settings, overlap=body.overlap, lease_s=body.lease_s)
    return campaign_page(store, body.campaign)


def set_paused(store: Store, body: PausedBody) -> dict[str, Any]:
    """Stop handing out and saving, or go on; an answer begun stays in its rater's page."""
    with store.atomically():
        found = store.campaign(body.campaign)
        store.change_settings(body.campaign, {**found.settings, "paused": body.paused})
    return campaign_page(store, body.campaign)
