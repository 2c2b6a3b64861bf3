"""The page as a Gradio component: markup, style and script are package files, put together here."""

import html
import re
from pathlib import Path

import gradio as gr

from annotation_ui.scale import SCALE, SKIP_REASONS

STATIC = Path(__file__).parent / "static"
IDLE_AFTER_MS = 60_000
_SCRIPTS = ("inert.js", "clock.js", "drafts.js", "rate.js")

_KEYS = (
    ("1 to 7", "from “A is much better” to “B is much better”"),
    ("T", "about the same (as 4)"),
    ("B", "mark that both are bad, then choose"),
    ("N", "write a reason; Esc leaves it"),
    ("S", "skip, with a reason"),
    ("U", "undo the last judgement"),
    ("M, R, D", "formatted, raw, differences"),
    ("G", "show or hide the guideline"),
    ("?", "these keys"),
)


def pairwise_page() -> gr.HTML:
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
        elem_id="pairwise",
    )


def page_markup() -> str:
    """The page before its first item: nothing in it comes from the store."""
    template = (STATIC / "rate.html").read_text("utf-8")
    parts = {"scale": _scale(), "keys": _key_list(), "reasons": _reasons()}
    return re.sub(r"@(\w+)", lambda match: parts[match[1]], template)


def page_script() -> str:
    """The page's script, as one function body with `element` in scope."""
    script = "\n".join((STATIC / name).read_text("utf-8") for name in _SCRIPTS)
    return script.replace("@idle_ms", str(IDLE_AFTER_MS))


def page_style() -> str:
    """The page's stylesheet."""
    return (STATIC / "rate.css").read_text("utf-8")


def _scale() -> str:
    return "".join(
        f'<button type="button" data-do="choose" data-choice="{choice}" data-key="{key}" '
        f'aria-pressed="false" aria-label="{words}" aria-keyshortcuts="{key}">'
        f'<span class="full">{words}</span><span class="short">{short}</span>'
        f"<kbd>{key}</kbd></button>"
        for key, (choice, words, short) in enumerate(SCALE, start=1)
    )


def _key_list() -> str:
    rows = []
    for keys, meaning in _KEYS:
        caps = re.sub(r"[^\s,]+", lambda m: m[0] if m[0] == "to" else f"<kbd>{m[0]}</kbd>", keys)
        rows.append(f"<dt>{caps.replace(',', '')}</dt><dd>{meaning}</dd>")
    return "".join(rows)


def _reasons() -> str:
    return "".join(
        f'<button type="button" data-do="reason" data-key="{key}" '
        f'data-reason="{html.escape(reason)}">{html.escape(reason)}<kbd>{key}</kbd></button>'
        for key, reason in enumerate(SKIP_REASONS, start=1)
    )
