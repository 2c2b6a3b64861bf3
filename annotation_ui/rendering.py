"""Completions as inert HTML: nothing of a text is executed, fetched or hidden from the rater.

A rater must judge what the model wrote, so the rendered view only ever formats. CommonMark can
also swallow text (link targets, reference definitions, HTML comments, surplus table cells,
anything nested too deep); rules that do are switched off, and whatever still loses a character
is caught by comparing the result with its source, and shown as plain text instead.
"""

import html
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

MAX_MARKDOWN_CHARS = 60_000
"""Longer texts are shown plain: parsing them would keep other raters waiting."""

MAX_DIFF_CELLS = 4_000_000
"""Token pairs above which the diff goes by lines, then by the whole (difflib is quadratic)."""

EXACT_DIFF_CELLS = 100_000
"""Token pairs above which frequent tokens no longer anchor a match: cubic on repeated words."""

# Characters without a picture of their own, some of which reorder or hide their neighbours.
# U+200C and U+200D stay out: scripts and emoji need them; between ASCII they are caught below.
_UNSEEN = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
UNSEEN = re.compile(_UNSEEN + r"|(?<![^\x00-\x7f])[\u200c\u200d]")

# What Markdown itself consumes; everything else must come out in the order it went in.
_MARKUP = frozenset("#*_`~->+=|:.)\\")


def render_inert(text: str) -> str:
    """HTML of `text` read as Markdown, safe to assign to innerHTML.

    No scripts, links, images, attributes or styles come from `text`, and every character that
    is not Markdown's own punctuation is visible; where that cannot be kept, `render_plain`.
    """
    return _render(text, _MARKDOWN)


@lru_cache(maxsize=64)
def render_guideline(text: str) -> str:
    """HTML of a lead's Markdown (guideline, consent), as inert as a completion's.

    A line break within a paragraph is a space, as in any Markdown file that is wrapped by hand;
    in a completion it is what the model wrote, and stays.
    """
    return _render(text, _WRAPPED_MARKDOWN)


def _render(text: str, markdown: MarkdownIt) -> str:
    if not text.strip():
        return _render_blank(text)
    if len(text) > MAX_MARKDOWN_CHARS:
        return render_plain(text)
    rendered = markdown.render(text)
    if _significant(_visible_text(rendered)) != _significant(text.replace("\0", "\ufffd")):
        return render_plain(text)
    return _mark_unseen(rendered)


def render_plain(text: str) -> str:
    """HTML that shows `text` letter by letter, line breaks kept."""
    return f'<div class="plain">{_mark_unseen(html.escape(text))}</div>'


def _render_blank(text: str) -> str:
    what = f"only white space, {len(text)} characters" if text else "empty"
    return f'<p class="blank">({what})</p>'


def _mark_unseen(markup: str) -> str:
    """Wraps unseen characters so that CSS prints their code point (text content is unchanged).

    Works on finished HTML because none of them can stand inside a tag: no attribute of ours
    holds text of a completion.
    """
    return UNSEEN.sub(_unseen_span, markup)


def _unseen_span(match: re.Match[str]) -> str:
    return f'<span class="unseen" data-code="U+{ord(match[0]):04X}">{match[0]}</span>'


def _significant(text: str) -> list[str]:
    kept = [char for char in text if not char.isspace() and char not in _MARKUP]
    # A text of nothing but markup (a lone "***") would render as a rule or a bullet.
    return kept or list(text)


class _TextOf(HTMLParser):
    """Collects what a browser shows of our own HTML, list numbers included."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "li":
            self.parts.append(dict(attrs).get("value") or "")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _visible_text(markup: str) -> str:
    parser = _TextOf()
    parser.feed(markup)
    parser.close()
    return "".join(parser.parts)


def _render_fence(
    _renderer: RendererHTML, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType
) -> str:
    """A code block with its info string printed above it, where CommonMark would hide it."""
    token = tokens[idx]
    info = f'<div class="fence-info">{html.escape(token.info)}</div>' if token.info.strip() else ""
    return f"{info}<pre><code>{html.escape(token.content)}</code></pre>\n"


def _render_list_item(
    _renderer: RendererHTML, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType
) -> str:
    """A list item that keeps the number its author gave it: a browser would count anew."""
    number = tokens[idx].info
    return f'<li value="{int(number)}">' if number.isdecimal() else "<li>"


def _inert_markdown(*, breaks: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": breaks})
    parser.enable(["table", "strikethrough"])
    # Each of these drops or rewrites text (targets, titles, definitions, &lt;, \[ of LaTeX).
    parser.disable(["link", "image", "autolink", "reference", "entity", "escape"])
    parser.disable(["html_inline", "html_block"])
    parser.add_render_rule("fence", _render_fence)
    parser.add_render_rule("list_item_open", _render_list_item)
    return parser


_MARKDOWN = _inert_markdown(breaks=True)
_WRAPPED_MARKDOWN = _inert_markdown(breaks=False)

Segment = tuple[str, bool]
"""A piece of a text, and whether the other text lacks it."""

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")


def word_diff(a: str, b: str) -> tuple[list[Segment], list[Segment]]:
    """The segments of `a` and of `b`; joined, each side gives its own text back exactly."""
    tokens_a, tokens_b = _TOKEN.findall(a), _TOKEN.findall(b)
    if len(tokens_a) * len(tokens_b) > MAX_DIFF_CELLS:
        tokens_a, tokens_b = a.splitlines(keepends=True), b.splitlines(keepends=True)
    if len(tokens_a) * len(tokens_b) > MAX_DIFF_CELLS:
        tokens_a, tokens_b = [a], [b]
    side_a: list[Segment] = []
    side_b: list[Segment] = []
    exact = len(tokens_a) * len(tokens_b) <= EXACT_DIFF_CELLS
    matcher = SequenceMatcher(None, tokens_a, tokens_b, autojunk=not exact)
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        _extend(side_a, "".join(tokens_a[a_from:a_to]), tag != "equal")
        _extend(side_b, "".join(tokens_b[b_from:b_to]), tag != "equal")
    return side_a, side_b


def _extend(segments: list[Segment], text: str, changed: bool) -> None:
    if text:
        segments.append((text, changed))
