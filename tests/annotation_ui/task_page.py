"""What the browser tests of the task types share: a server with one campaign, and its page."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from rlhf.records import Comparison, Completion, Judgement, Prompt
from tests.annotation_ui.conftest import CAMPAIGN, LiveServer, make_store
from tests.annotation_ui.tabs import clean_tab, watched
from tests.browser import at_rest, violations

RATING = '.rate[data-state="rating"]'
SAVED = '[data-saved="saved"]'
MISSING = '[data-part="missing"]'
DOUBLE_PRESS_MS = 260
"""The same key again sooner than this is a slip, and saves nothing."""

_SAVED_AT: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""When each page was last made to save, in seconds of time.monotonic."""

SIZES = {"wide": (1440, 900), "tablet": (900, 1000), "phone": (390, 844)}


def items(num: int, count: int, texts: Sequence[str] = ()) -> list[Comparison]:
    """`num` items of `count` completions, whose texts say which ones they are."""
    return [
        Comparison(
            prompt=Prompt(content=f"Question {number}?"),
            completions=tuple(
                Completion(text=texts[index] if texts else f"Answer {index} of item {number}")
                for index in range(count)
            ),
            item=f"{count} completions, item {number}",
        )
        for number in range(num)
    ]


def task_server(
    serve: Callable[..., LiveServer],
    tmp_path_factory: Any,
    task: str,
    settings: dict[str, Any],
    **campaigns: Sequence[Comparison],
) -> LiveServer:
    """A server over a new store with campaigns of that task, one of them called everyday."""
    everyday = campaigns.pop(CAMPAIGN)
    store = make_store(tmp_path_factory.mktemp(task), everyday, task=task, settings=settings)
    for name, comparisons in campaigns.items():
        store.create_campaign(name, task=task, settings=settings)
        store.add_comparisons(name, comparisons)
    return serve(store)


@contextmanager
def rating_page(
    browser: Any,
    site: LiveServer,
    campaign: str = CAMPAIGN,
    *,
    size: str = "wide",
) -> Iterator[Any]:
    """The rating page of a signed-in rater; it is watched."""
    width, height = SIZES[size]
    screen = {
        "viewport": {"width": width, "height": height},
        "has_touch": size == "phone",
        "reduced_motion": "reduce",
    }
    with clean_tab(browser, site.address, **screen) as page:
        site.sign_in(page.context)
        with watched(page, site.address):
            page.goto(site.rate_address(campaign))
            page.wait_for_selector(RATING)
            at_rest(page)
            yield page


def saving(page: Any, act: Callable[[], object]) -> None:
    """Does something that saves, and waits until the next item is up (or none is left)."""
    since_ms = 1000 * (time.monotonic() - _SAVED_AT.get(page, 0))
    if since_ms < DOUBLE_PRESS_MS:
        page.wait_for_timeout(DOUBLE_PRESS_MS - since_ms)
    before = page.text_content('[data-part="count"]')
    act()
    _SAVED_AT[page] = time.monotonic()
    page.wait_for_function(
        "before => document.querySelector('[data-part=count]').textContent !== before", arg=before
    )
    page.wait_for_selector(SAVED)


def type_keys(page: Any, keys: str) -> None:
    """Presses the keys named, with spaces between them."""
    for key in keys.split():
        page.keyboard.press(key)


def shown(page: Any) -> list[str]:
    """The texts of the completions, in screen order."""
    return [box.text_content().strip() for box in page.query_selector_all("[data-card] > .text")]


def last(site: LiveServer, campaign: str = CAMPAIGN) -> Judgement:
    """The judgement stored last."""
    return site.judgements(campaign, current_only=False)[-1]


def by_text(site: LiveServer, row: Judgement, values: Sequence[Any]) -> dict[str, Any]:
    """Stored values by the text of the completion that each is about, whatever the sides were."""
    comparison = next(one for one in site.store.comparisons(row.campaign) if one.item == row.item)
    return dict(zip([one.text for one in comparison.completions], values, strict=True))


def no_violation(page: Any) -> None:
    """Asserts that axe finds nothing to complain of in the page as it is now, light and dark."""
    assert violations(page) == []


def targets(page: Any, selector: str) -> list[tuple[float, float]]:
    """Width and height of each element of the selector that is on screen."""
    boxes = [one.bounding_box() for one in page.query_selector_all(selector) if one.is_visible()]
    return [(box["width"], box["height"]) for box in boxes]


def fits_the_phone(page: Any) -> None:
    """Asserts that nothing is wider than the screen, and that the bar's targets are big."""
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    bar = targets(page, ".controls button")
    assert bar
    assert min(min(size) for size in bar) >= 44, bar
