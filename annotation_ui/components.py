"""The page as a Gradio component: markup, style and script are package files, put together here."""

import html
import re
from pathlib import Path

import gradio as gr

from annotation_ui.form import SKIP_REASONS

STATIC = Path(__file__).parent / "static" / "rate"
IDLE_AFTER_MS = 60_000
WATCH_EVERY_MS = 60_000
"""How often the page looks whether its session still stands, and keeps its lease."""

# In the order in which they stand in the one function that they make up.
_SCRIPTS = (
    "parts.js",
    "inert.js",
    "clock.js",
    "drafts.js",
    "server.js",
    "cards.js",
    "marks.js",
    "tasks/picking.js",
    "tasks/pairwise.js",
    "tasks/rubric.js",
    "tasks/ratings.js",
    "tasks/ranking.js",
    "tasks/ranking_drag.js",
    "tasks/word_changes.js",
    "tasks/rewrite.js",
    "tasks/flags.js",
    "page.js",
    "saving.js",
    "history.js",
    "presence.js",
    "keys.js",
    "main.js",
)
_STYLES = ("rate.css", "tasks.css")


def rating_page() -> gr.HTML:
    """The rating page: it owns the keys and speaks to `/api`, so each save has an answer.

    Gradio's own events carry no failure to the page (an expired session is silent there), and
    a rater must see whether a judgement was saved; hence requests of its own. Not a subclass,
    since Gradio writes a stub file beside the source of each one.
    """
    return gr.HTML(
        value="",
        html_template=page_markup(),
        js_on_load=page_script(),
        apply_default_css=False,
        elem_id="rating",
    )


def page_markup() -> str:
    """The page before its first item, with its style: nothing in it comes from the store."""
    template = (STATIC / "rate.html").read_text("utf-8")
    parts = {"style": _style(), "reasons": _reasons()}
    return re.sub(r"@(style|reasons)\b", lambda match: parts[match[1]], template)


def page_script() -> str:
    """The page's script, as one function body with `element` in scope.

    All of the page is one function of its root and a signal to let go, so that it can be started
    again on another root (see mount.js).
    """
    page = "\n".join(_script(name) for name in _SCRIPTS)
    return f"function startPage(root, letGo) {{\n{page}\n}}\n{_script('mount.js')}"


def _style() -> str:
    """The page's own sheet, in its markup.

    What is given to Gradio as css comes back changed: it splits selectors at every comma, those
    within `:is()` and `:not()` too, and drops rules that it does not know.
    """
    return "\n".join((STATIC / name).read_text("utf-8") for name in _STYLES)


def _script(name: str) -> str:
    text = (STATIC / name).read_text("utf-8")
    return text.replace("@idle_ms", str(IDLE_AFTER_MS)).replace("@watch_ms", str(WATCH_EVERY_MS))


def _reasons() -> str:
    return "".join(
        f'<button type="button" data-do="reason" data-key="{key}" '
        f'data-reason="{html.escape(reason)}">{html.escape(reason)}<kbd>{key}</kbd></button>'
        for key, reason in enumerate(SKIP_REASONS, start=1)
    )
