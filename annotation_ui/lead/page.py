"""The leads' page as a Gradio component, put together from package files, and what it starts with.

Each tab is a script of its own under `static/lead`; it runs in a scope of its own and finds what
the shell offers (`tabs`, `read`, `send`, `build`, `morph`, charts and tables).
"""

import functools
import gzip
import html
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from annotation_ui.lead.replies import reply
from rlhf.feedback.store import Campaign, Store

STATIC = Path(__file__).parent.parent / "static"
TABS = {
    "overview": "Overview",
    "raters": "Raters",
    "items": "Items",
    "disagreements": "Disagreements",
    "campaigns": "Campaign",
    "people": "People",
    "exports": "Export",
}
"""In the order on the page: a tab's name, which is also its script's, and its title."""

_SHARED = ("rate/inert.js", "lead/shell.js", "lead/charts.js", "lead/work.js", "lead/answer.js")


def lead_page() -> gr.HTML:
    """The leads' page; like the rating page it speaks to the server by requests of its own."""
    return gr.HTML(
        value="",
        html_template=page_markup(),
        js_on_load=page_script(),
        apply_default_css=False,
        elem_id="lead",
    )


def lead_style() -> str:
    """The page's stylesheet."""
    return "\n".join(_read(f"lead/{name}.css") for name in ("lead", "overview", "work"))


def page_markup() -> str:
    """The page before it has asked for anything: nothing in it comes from the store."""
    template = _read("lead/lead.html")
    tabs = "".join(_tab(name, title) for name, title in TABS.items())
    panels = "".join(_panel(name) for name in TABS)
    return template.replace("@tabs", tabs).replace("@panels", panels)


def page_script() -> str:
    """The page's script, as one function body with `element` in scope."""
    shared = [_read(name) for name in _SHARED]
    tabs = [f"(() => {{\n{_read(f'lead/{name}.js')}\n}})();" for name in TABS]
    return "\n".join([*shared, *tabs, "start();"])


def routes(store: Store) -> APIRouter:
    """What the shell asks for: the campaigns to choose from, and the script that draws charts."""
    router = APIRouter(prefix="/api/lead")

    @router.get("/shell")
    def get_shell(request: Request) -> JSONResponse:
        return reply(lambda: shell(store, request.state.annotator))

    @router.get("/vega.js")
    def get_vega() -> Response:
        headers = {"content-encoding": "gzip", "cache-control": "private, max-age=86400"}
        return Response(_vega(), media_type="text/javascript", headers=headers)

    return router


def shell(store: Store, annotator: str) -> dict[str, Any]:
    """Who is looking, and every campaign, the one first where something happened last."""
    found = sorted(store.campaigns(), key=lambda each: _last_at(store, each), reverse=True)
    campaigns = [
        {
            "name": campaign.name,
            "title": campaign.settings.get("title") or campaign.name,
            "task": campaign.task,
            "paused": bool(campaign.settings.get("paused")),
        }
        for campaign in found
    ]
    return {"annotator": annotator, "campaigns": campaigns}


def _last_at(store: Store, campaign: Campaign) -> datetime:
    last = store.judgements(campaign.name, current_only=False, limit=1)
    return max(campaign.created_at, last[0].created_at) if last else campaign.created_at


@functools.cache
def _vega() -> bytes:
    """Vega, Vega-Lite and Vega-Embed as one script, compressed once.

    In a scope of its own: its short names would collide with those of Gradio's scripts.
    """
    import vl_convert

    return gzip.compress(
        f"(() => {{{vl_convert.javascript_bundle(snippet=None)}\n}})();".encode(), 6
    )


def _read(name: str) -> str:
    return (STATIC / name).read_text("utf-8")


def _tab(name: str, title: str) -> str:
    return (
        f'<button type="button" role="tab" id="lead-tab-{name}" data-tab="{name}" '
        f'aria-controls="lead-panel-{name}" aria-selected="false" tabindex="-1">'
        f"{html.escape(title)}</button>"
    )


def _panel(name: str) -> str:
    return (
        f'<section role="tabpanel" id="lead-panel-{name}" data-panel="{name}" '
        f'aria-labelledby="lead-tab-{name}" tabindex="-1" hidden></section>'
    )
