"""Browser tabs that many tests use, one after the other, each as clean as a new one.

To start a renderer and to compile Gradio's scripts takes a second of the processor; a tab that has
done so opens the next page in a fifth of it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

WAIT_MS = 30_000
"""How long anything is waited for: a busy machine needs seconds for what an idle one does at once.
What a test says must not be there is asserted at once and waits for nothing."""

_KEPT: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


@contextmanager
def clean_tab(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A tab of a context of these options, without cookies, storage or anything of another test.

    It shows a plain page of the server at `address`. A test that routes requests or installs a
    clock takes a context of its own instead: neither can be taken back.
    """
    kept = _KEPT.setdefault(browser, {})
    key = json.dumps(options, sort_keys=True)
    page = kept.pop(key, None) or _new_tab(browser, options)
    try:
        _clean(page, address, options)
        yield page
        _leave(page)
    except BaseException:  # of a test that failed, nothing is kept
        page.context.close()
        raise
    if key in kept:  # a test that had two at once
        page.context.close()
    else:
        kept[key] = page


def plain_page(address: str) -> str:
    """A page of the server that runs nothing: to leave another one without leaving the origin.

    A tab that goes over about:blank is given a new renderer, which starts cold.
    """
    return f"{address}/plain.css"


@contextmanager
def watched(page: Any, address: str) -> Iterator[None]:
    """Fails on script errors, requests to anybody but the server, and hostile text that was run."""
    errors: list[str] = []
    hosts: set[str] = set()

    def on_error(error: Any) -> None:
        errors.append(str(error))

    def on_request(request: Any) -> None:
        hosts.add(urlsplit(request.url).netloc)

    page.on("pageerror", on_error)
    page.on("request", on_request)
    yield
    pwned = page.evaluate("window.pwned")  # and with its answer, all events before it are here
    page.remove_listener("pageerror", on_error)
    page.remove_listener("request", on_request)
    assert errors == [], errors
    others = hosts - {urlsplit(address).netloc, ""}  # "" is a data: or blob: address
    assert not others, f"asked {others}"
    assert pwned is None, "a hostile text was run"


def _new_tab(browser: Any, options: dict[str, Any]) -> Any:
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


def _clean(page: Any, address: str, options: dict[str, Any]) -> None:
    page.set_viewport_size(options["viewport"])
    page.emulate_media(
        color_scheme=options.get("color_scheme", "light"),
        reduced_motion=options.get("reduced_motion", "no-preference"),
    )
    page.goto(plain_page(address))
    page.evaluate("localStorage.clear(); sessionStorage.clear(); window.name = ''")
    page.context.clear_cookies()
    page.mouse.move(0, 0)


def _leave(page: Any) -> None:
    """Makes sure that what cannot be taken back was not done, and that nothing is held down."""
    for other in page.context.pages:
        if other is not page:
            other.close()
    assert not page.evaluate("'__pwClock' in window"), "a clock"  # Playwright's own
    page.mouse.up()
    for key in ("Alt", "Control", "Meta", "Shift"):
        page.keyboard.up(key)
