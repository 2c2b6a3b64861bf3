"""The pages of leads: how a campaign goes, who rates how well, and what is decided about it."""

from fastapi import APIRouter, Depends

from annotation_ui.lead import (
    campaigns,
    disagreements,
    exports,
    items,
    overview,
    page,
    people,
    raters,
)
from annotation_ui.lead.page import lead_page, lead_style
from annotation_ui.lead.replies import require_lead
from annotation_ui.lead.reports import Reports
from rlhf.feedback.store import Store

__all__ = ["lead_page", "lead_routes", "lead_style"]


def lead_routes(store: Store) -> APIRouter:
    """Everything under `/api/lead`; each route answers 403 to whoever is not a lead."""
    router = APIRouter(dependencies=[Depends(require_lead)])
    reports = Reports(store)
    for made_once in (overview, raters, items, disagreements, people):
        router.include_router(made_once.routes(store, reports))
    for tab in (page, campaigns, exports):
        router.include_router(tab.routes(store))
    return router
