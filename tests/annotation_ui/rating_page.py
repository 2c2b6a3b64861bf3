"""Driving the rating page in a browser: opening it, pressing keys, reading what is on screen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.annotation_ui.conftest import CAMPAIGN, LiveServer
from tests.annotation_ui.tabs import WAIT_MS, clean_tab, watched
from tests.browser import at_rest

RATING = '.rate[data-state="rating"]'
EMPTY = '.rate[data-state="empty"]'
SAVED = '[data-saved="saved"]'
WIDE = {"width": 1440, "height": 900}


@contextmanager
def fresh_context(browser: Any) -> Iterator[Any]:
    """A new browser without cookies or storage, for a test that routes requests or sets a clock."""
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@contextmanager
def used_context(browser: Any, site: LiveServer) -> Iterator[Any]:
    """A browser without cookies or storage: see `clean_tab`."""
    with clean_tab(browser, site.address, viewport=WIDE) as page:
        yield page.context


@contextmanager
def opened(
    context: Any, site: LiveServer, campaign: str = CAMPAIGN, annotator: str = "ada"
) -> Iterator[Any]:
    """The rating page of a signed-in rater, in the context's one tab; it is watched."""
    site.sign_in(context, annotator)
    page = context.pages[0] if context.pages else context.new_page()
    with watched(page, site.address):
        page.goto(site.rate_address(campaign))
        page.wait_for_selector(f"{RATING}, {EMPTY}")
        at_rest(page)
        yield page


class Network:
    """What becomes of the page's requests to `/api`. To be made before the page is opened.

    A route that is set on a page that has loaded may miss the next request: the page's own
    process hears of it some milliseconds later, and a busy machine makes seconds of them.
    """

    def __init__(self, context: Any) -> None:
        assert not context.pages, "open the page after its network, or requests go past it"
        self._answers: dict[str, Callable[[Any], None]] = {}
        context.route("**/api/**", self._handle)

    def _handle(self, route: Any) -> None:
        path = urlsplit(route.request.url).path.removeprefix("/api/")
        self._answers.get(path, lambda route: route.continue_())(route)

    def refuse(self, path: str, error: str, status: int = 409) -> None:
        self._answers[path] = lambda route: route.fulfill(status=status, json={"error": error})

    def cut(self, path: str) -> None:
        self._answers[path] = lambda route: route.abort()

    def lose_one_answer(self, path: str) -> None:
        """The server gets the next request, and the page never hears of it."""

        def lose(route: Any) -> None:
            route.fetch()
            del self._answers[path]
            route.abort()

        self._answers[path] = lose

    def restore(self) -> None:
        self._answers.clear()


def count(page: Any) -> str:
    return page.inner_text('[data-part="count"]')


def act_and_wait(page: Any, act: Callable[[], Any]) -> None:
    """Does something that saves, and waits until the next item is up."""
    before = page.evaluate("document.querySelector('[data-part=count]').textContent")
    act()
    page.wait_for_function(
        "before => document.querySelector('[data-part=count]').textContent !== before", arg=before
    )
    page.wait_for_selector(SAVED)


def press(page: Any, key: str) -> None:
    act_and_wait(page, lambda: page.keyboard.press(key))


def on_screen(page: Any) -> list[str]:
    """The completions' texts, in the order on screen."""
    return page.locator(".cards .text").all_inner_texts()


def alert(page: Any) -> str:
    return page.inner_text('[data-part="notice"]')


def write_reason(page: Any, words: str) -> None:
    page.fill('[data-part="rationale"]', words)
    page.locator('[data-part="rationale"]').blur()


def reason(page: Any) -> str:
    return page.input_value('[data-part="rationale"]')


def last(site: LiveServer, campaign: str = CAMPAIGN):
    """The judgement or skip that was stored last."""
    return site.judgements(campaign, current_only=False)[-1]


def num_rows(site: LiveServer, campaign: str = CAMPAIGN) -> int:
    return len(site.judgements(campaign, current_only=False))
