"""Driving the lead pages in a browser: opening a tab, waiting for it, and looking it over."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from tests.annotation_ui.conftest import LiveServer
from tests.annotation_ui.tabs import clean_tab, plain_page, watched
from tests.browser import at_rest, violations

SHOWN = '.lead[data-state="shown"]'
SIZES = {"wide": (1440, 900), "phone": (390, 844)}


@contextmanager
def lead_page(
    browser: Any, site: LiveServer, size: str = "wide", name: str = "lea"
) -> Iterator[Any]:
    """The pages of a signed-in lead; they are watched."""
    width, height = SIZES[size]
    screen = {
        "viewport": {"width": width, "height": height},
        "has_touch": size == "phone",
        "reduced_motion": "reduce",
    }
    with clean_tab(browser, site.address, **screen) as page:
        site.sign_in(page.context, name, "lead")
        with watched(page, site.address):
            yield page


def show(page: Any, site: LiveServer, tab: str, detail: str = "", campaign: str = "c") -> None:
    """Opens a tab by its address and waits until it is shown."""
    hash_ = f"#{tab}/{quote(detail, safe='')}" if detail else f"#{tab}"
    page.goto(plain_page(site.address))  # or only the part after # would change
    page.goto(f"{site.address}/lead/?campaign={quote(campaign)}{hash_}")
    page.wait_for_selector(SHOWN)
    at_rest(page)


def panel(page: Any, tab: str) -> Any:
    return page.locator(f'[data-panel="{tab}"]')


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def problem(page: Any) -> str:
    """The refusal on screen, waited for."""
    line = page.locator(".problem:not(:empty)").first
    line.wait_for()
    return line.inner_text()


def looks_right(page: Any, size: str) -> None:
    """Asserts that axe has nothing to say of it, light or dark, and that it fits the screen."""
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
