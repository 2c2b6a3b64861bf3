"""Where this machine's Chromium is, and how tests start it."""

import os
import shutil
from typing import Any

import pytest

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str:
    """Chromium's executable; without one the test fails in CI and is skipped elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        reason = "no chromium on this machine: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def at_rest(page: Any) -> None:
    """Waits until what was changed is laid out and no animation is on its way.

    A size that a script measures, such as a bar's, is put to use in the frame after the change.
    """
    page.evaluate(
        """async () => {
          const frame = () => new Promise((done) => requestAnimationFrame(done));
          await frame();
          await frame();
          const ends = document.getAnimations()
            .filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
            .map((one) => one.finished.catch(() => {}));
          await Promise.all(ends);
        }"""
    )


def violations(page: Any) -> list[str]:
    """What axe complains of in the page as it is now, light and dark, with the elements.

    The schemes differ in colours alone: all rules are run on one, those of colours on both, and
    the page is loaded once.
    """
    page.emulate_media(color_scheme="light", reduced_motion="reduce")  # no colour on its way
    at_rest(page)
    found = [f"light {one}" for one in _axe(page, {})]
    page.emulate_media(color_scheme="dark")
    at_rest(page)
    found += [f"dark {one}" for one in _axe(page, {"runOnly": ["color-contrast"]})]
    page.emulate_media(color_scheme="light")
    return found


def _axe(page: Any, options: dict[str, Any]) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    if not page.evaluate("'axe' in window"):  # the script is half a megabyte
        page.evaluate(Axe().axe_script)
    options = {"resultTypes": ["violations"], **options}
    reply = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['id']}: {node['html'][:150]}" for one in reply["violations"] for node in one["nodes"]
    ]
