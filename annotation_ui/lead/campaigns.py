"""Campaigns made in the browser: a YAML text and rows of completions, checked, then made whole."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from annotation_ui.bodies import Body
from annotation_ui.form import form_of
from annotation_ui.lead import campaign_change
from annotation_ui.lead.item_view import texts_of
from annotation_ui.lead.replies import reply
from annotation_ui.lead.sampling_jobs import SamplingJobs
from annotation_ui.rendering import render_guideline
from rlhf.errors import ConfigError
from rlhf.feedback.campaign_file import (
    MADE_FROM,
    CampaignPlan,
    create_campaign,
    plan_campaign_from_text,
    planned_items,
    template_names,
    template_text,
)
from rlhf.feedback.files import read_text_rows
from rlhf.feedback.store import Store


class DraftBody(Body):
    """A campaign to be made: YAML, and the text of a file of completions where there is one."""

    text: str = Field(max_length=1_000_000)
    name: str = Field(default="", max_length=200)
    file_name: str | None = Field(default=None, max_length=400)
    rows: str | None = None


class JobBody(Body):
    """Which sampling job is to end, or to leave the list."""

    id: str


def routes(store: Store) -> APIRouter:
    """The routes by which campaigns are made and changed."""
    router = APIRouter(prefix="/api/lead/campaigns")
    jobs = SamplingJobs(store)
    campaign_change.add_routes(router, store)

    @router.get("/templates")
    def get_templates() -> JSONResponse:
        return reply(templates)

    @router.post("/check")
    def check(body: DraftBody) -> JSONResponse:
        return reply(lambda: checked(store, body))

    @router.post("/create")
    def create(request: Request, body: DraftBody) -> JSONResponse:
        return reply(lambda: created(store, jobs, request.state.annotator, body))

    @router.get("/jobs")
    def get_jobs() -> JSONResponse:
        return reply(lambda: {"jobs": [job.as_json() for job in jobs.every()]})

    @router.post("/jobs/stop")
    def stop_job(body: JobBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            jobs.stop(body.id)
            return {"jobs": [job.as_json() for job in jobs.every()]}

        return reply(work)

    return router


def templates() -> dict[str, Any]:
    """The ready templates with their YAML, to be put into the editor."""
    return {
        "templates": [
            {"name": name, "title": title, "text": template_text(name)}
            for name, title in template_names()
        ]
    }


def checked(store: Store, body: DraftBody) -> dict[str, Any]:
    """What would be made: counts, and the first item as raters would see it. Writes nothing.

    Raises the first mistake, naming its key or row.
    """
    plan = _plan(body)
    _refuse_taken(store, plan)
    overlap = plan.values.get("overlap", 1)
    shown = {
        "name": plan.name,
        "title": plan.protocol.title or plan.name,
        "overlap": overlap,
        "num_gold": len(plan.gold.comparisons),
        "num_qualification": len(plan.qualification.comparisons),
        "form": form_of(plan.protocol),
        "guideline": render_guideline(plan.guideline) if plan.guideline else "",
        "consent": plan.protocol.consent,
    }
    if plan.rows is None:
        sample = _sample_json(plan.values["sample"])
        return {**shown, "num_items": None, "first": None, "sample": sample}
    made = planned_items(plan, plan.rows)
    return {
        **shown,
        "num_items": len(made.comparisons),
        "num_wanted": len(made.comparisons) * overlap,
        "num_identical": made.num_identical,
        "num_repeated": made.num_repeated,
        "first": texts_of(made.comparisons[0], blind=True),
        "sample": None,
    }


def _sample_json(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "models": list(sample["models"]),
        "num_prompts": len(sample["prompts"]),
        "num_completions": sample.get("num_completions", 1),
    }


def created(store: Store, jobs: SamplingJobs, lead: str, body: DraftBody) -> dict[str, Any]:
    """Make the campaign, or begin to sample for it; the same again changes nothing."""
    plan = _plan(body)
    if plan.rows is None:
        _refuse_taken(store, plan)
        return {"job": jobs.start(plan, lead).as_json(), "campaign": None}
    made = create_campaign(store, plan)
    return {
        "job": None,
        "campaign": made.campaign.name,
        "num_items": made.num_items,
        "new": made.new,
    }


def _plan(body: DraftBody) -> CampaignPlan:
    rows = None
    if body.rows is not None:
        named = body.file_name or "completions.jsonl"
        rows = [row for _, row in read_text_rows(body.rows, named)]
    return plan_campaign_from_text(body.text, rows, name=body.name.strip() or None)


def _refuse_taken(store: Store, plan: CampaignPlan) -> None:
    """Say that the name is taken, unless by a campaign that this very text had made."""
    for campaign in store.campaigns():
        same = campaign.settings.get(MADE_FROM) == plan.settings[MADE_FROM]
        if campaign.name == plan.name and not same:
            raise ConfigError(f"name: there is a campaign {plan.name!r}; choose another name")
