"""The plain pages around the rating and lead pages: no scripts, readable without style."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from rlhf.feedback.store import Account

STATIC = Path(__file__).parent / "static"

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="8" fill="#4338ca"/>'
    '<rect x="6" y="9" width="8" height="14" rx="2" fill="#fff"/>'
    '<rect x="18" y="9" width="8" height="14" rx="2" fill="#c5caf5"/></svg>'
)


def plain_page(
    template: str, title: str, *, account: Account | None = None, here: str = "", **values: Any
) -> str:
    """A whole HTML page from `static/plain/TEMPLATE.html`; every value is escaped.

    With `account` it carries the links and the sign-out of a person who is signed in.
    """
    page = _templates().get_template(f"{template}.html")
    narrow = template in ("message", "sign_in", "join")
    return page.render(title=title, account=account, here=here, narrow=narrow, **values)


def message_page(title: str, text: str, *, link: tuple[str, str] | None = None) -> str:
    """A page of one heading and one paragraph; `link` is (address, words)."""
    return plain_page("message", title, text=text, link=link)


@cache
def plain_style() -> str:
    """The stylesheet of these pages."""
    return (STATIC / "plain.css").read_text("utf-8")


@cache
def _templates() -> Environment:
    sources = {path.name: path.read_text("utf-8") for path in (STATIC / "plain").glob("*.html")}
    return Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
