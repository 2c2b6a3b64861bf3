"""The plain pages around the app: no scripts, readable without it."""

import html
from pathlib import Path

STATIC = Path(__file__).parent / "static"

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="8" fill="#4338ca"/>'
    '<rect x="6" y="9" width="8" height="14" rx="2" fill="#fff"/>'
    '<rect x="18" y="9" width="8" height="14" rx="2" fill="#c5caf5"/></svg>'
)


def plain_page(title: str, text: str, *, link: tuple[str, str] | None = None) -> str:
    """A whole HTML page with one heading and one paragraph; `link` is (address, words)."""
    anchor = f'<p><a href="{html.escape(link[0])}">{html.escape(link[1])}</a></p>' if link else ""
    return (
        (STATIC / "plain.html")
        .read_text("utf-8")
        .format(title=html.escape(title), text=html.escape(text), anchor=anchor)
    )
