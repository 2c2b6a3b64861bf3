"""Takes the pictures of docs/images: a made-up store, the real server, a real Chromium.

    python docs/images/take.py [NAME ...]

Without names all of them are taken. Needs the `dev` extra and Chromium.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fill import CAMPAIGN, LEAD, RATER, fill_store
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
MAX_BYTES = 300_000
SIZES = {"wide": (1440, 900), "phone": (390, 844)}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome")
     if (path := shutil.which(name))), None,
)  # fmt: skip
RATING = '.rate[data-state="rating"]'
LEADING = '.lead[data-state="shown"]'

Act = Callable[[Page], None]


@contextmanager
def server(store: Path, annotator: str) -> Iterator[str]:
    """The server as people start it; the link that it prints for `annotator`."""
    command = [sys.executable, "-u", "-m", "annotation_ui", "--store", str(store), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--annotator", annotator], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        links = (re.search(r"http://\S+/join\?token=\S+", line) for line in process.stdout)
        yield next(link[0] for link in links if link)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def signed_in(browser: Browser, link: str, size: str = "wide") -> Iterator[Page]:
    """A page of whoever the link signs in, with dates as they are written in Europe."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        locale="en-GB",
        timezone_id="Europe/Brussels",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(link)
    page.get_by_role("button", name="Continue as").click()
    page.wait_for_load_state()
    yield page
    context.close()


def keep(page: Page, name: str) -> None:
    """Writes what is on screen to NAME.png, once it stands still."""
    page.wait_for_timeout(700)
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path.name}: {path.stat().st_size} bytes, and {MAX_BYTES} are allowed")
    print(f"{path.name}: {path.stat().st_size // 1000} kB", flush=True)


# ---- the rating page -----------------------------------------------------------------------------


def rate(page: Page, campaign: str) -> None:
    address = page.url.split("/", 3)
    page.goto(f"{address[0]}//{address[2]}/app/?campaign={campaign}")
    page.wait_for_selector(RATING)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(350)


def rate_until(page: Page, words: str) -> None:
    """Judges pairs until the one with these words in its prompt is up."""
    for key in "2537265372":
        if words in (page.text_content('[data-part="prompt"]') or ""):
            return
        press(page, key)
    raise SystemExit(f"no pair with {words!r} came up")


def pairs(page: Page, wanted: Callable[[str], bool]) -> None:
    rate(page, "pairs")
    rate_until(page, "stale bread")
    for name, scheme in (("annotate-light", "light"), ("annotate-dark", "dark")):
        page.emulate_media(color_scheme=scheme)
        if wanted(name):
            keep(page, name)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(dict(zip(("width", "height"), SIZES["phone"], strict=True)))
    if wanted("annotate-phone"):
        keep(page, "annotate-phone")
    page.set_viewport_size(dict(zip(("width", "height"), SIZES["wide"], strict=True)))
    if wanted("annotate-diff"):
        press(page, "2")
        rate_until(page, "vegetable garden")
        press(page, "d")
        keep(page, "annotate-diff")


def ratings(page: Page) -> None:
    rate(page, "criteria")
    if "password" not in (page.text_content('[data-part="prompt"]') or ""):
        press(page, "s", "1")
    press(page, "4", "4", "3", "2")


def ranking(page: Page) -> None:
    rate(page, "order")
    if "breakfast" not in (page.text_content('[data-part="prompt"]') or ""):
        press(page, "s", "1")
    press(page, "a", "1", "b", "1", "c", "2")


def rewrite(page: Page) -> None:
    rate(page, "write")
    if "neighbours" not in (page.text_content('[data-part="prompt"]') or ""):
        press(page, "s", "1")
    cards = page.locator("[data-card]")
    index = next(at for at in range(2) if "Dear" in (cards.nth(at).text_content() or ""))
    press(page, "ab"[index])
    page.keyboard.press("Control+End")
    page.keyboard.type(" We stop the music at eleven. Ring the bell if it is too loud, or come in!")


def flags(page: Page) -> None:
    rate(page, "marks")
    if "weather" not in (page.text_content('[data-part="prompt"]') or ""):
        press(page, "s", "1")
    cards = page.locator("[data-card]")
    for at in range(2):
        text = cards.nth(at).text_content() or ""
        key = "4" if "Sonntag" in text else "3" if "Romans" in text else "0"
        press(page, "abc"[at], key)


TASKS: dict[str, Act] = {"ratings": ratings, "ranking": ranking, "rewrite": rewrite, "flags": flags}

# ---- the leads' pages ----------------------------------------------------------------------------


def show(page: Page, tab: str) -> None:
    address = page.url.split("/", 3)
    page.goto("about:blank")
    page.goto(f"{address[0]}//{address[2]}/lead/?campaign={CAMPAIGN}#{tab}")
    page.wait_for_selector(LEADING)
    page.wait_for_timeout(1500)


def overview(page: Page) -> None:
    show(page, "overview")
    page.wait_for_selector(".answers")


def disagreements(page: Page) -> None:
    show(page, "disagreements")
    page.get_by_role("button", name="Begin with the worst").click()
    page.wait_for_selector('[data-part="own-answer"]')


def export(page: Page) -> None:
    show(page, "exports")
    page.select_option('[data-part="format"]', "preference")


LEAD_PAGES: dict[str, Act] = {
    "lead-overview": overview,
    "lead-raters": lambda page: show(page, "raters"),
    "lead-items": lambda page: show(page, "items"),
    "lead-disagreements": disagreements,
    "lead-campaign": lambda page: show(page, "campaigns"),
    "lead-people": lambda page: show(page, "people"),
    "lead-export": export,
}


def take(browser: Browser, store: Path, wanted: Callable[[str], bool]) -> None:
    with server(store, RATER) as link, signed_in(browser, link) as page:
        pairs(page, wanted)
        for name, act in TASKS.items():
            if wanted(name):
                act(page)
                keep(page, name)
    with server(store, LEAD) as link, signed_in(browser, link) as page:
        home = page.url
        for name, act in LEAD_PAGES.items():
            if wanted(name):
                page.goto(home)
                act(page)
                keep(page, name)


def main(names: list[str]) -> None:
    """Takes the pictures of these names, or all."""
    options: dict[str, Any] = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Path(folder) / "feedback.db"
        fill_store(store)
        browser = playwright.chromium.launch(**options)
        take(browser, store, lambda name: not names or name in names)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
