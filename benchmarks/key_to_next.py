"""How long a rater waits from a key press to the next pair on screen, in a real Chromium.

    python benchmarks/key_to_next.py --json keys.json

The clock runs in the page: from the key's event to the first frame that shows the next prompt,
so it holds the request, the store's write, the reply and the drawing.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
from annotation_server import CAMPAIGN, fill, serving
from machine import machine
from playwright.sync_api import sync_playwright

from rlhf.feedback.store import Store

_RATING = '.rate[data-state="rating"]'
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
_PAUSE_MS = 300  # longer than what the page takes for a double press
_WATCH = """() => {
  window.waits = [];
  let pressed = null;
  document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
  const drawn = new MessageChannel();
  drawn.port1.onmessage = (event) => window.waits.push(performance.now() - event.data);
  new MutationObserver(() => {
    if (pressed === null) return;
    const since = pressed;
    pressed = null;
    requestAnimationFrame(() => drawn.port2.postMessage(since));
  }).observe(document.querySelector('[data-part="prompt"]'), { childList: true, subtree: true });
}"""


def waits_ms(location: str, num_presses: int) -> list[float]:
    """The wait after each key press."""
    names = fill(location, num_items=num_presses + 5, overlap=1, num_raters=1)
    with serving(location) as server, sync_playwright() as playwright:
        with Store.open(location) as store:
            token = store.open_session(names[0], lifetime_s=3600)
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=_ARGUMENTS
        )
        context = chromium.new_context(viewport={"width": 1440, "height": 900})
        context.add_cookies([{"name": server.cookie_name, "value": token, "url": server.address}])
        page = context.new_page()
        page.goto(f"{server.address}/app/?campaign={quote(CAMPAIGN)}")
        page.wait_for_selector(_RATING)
        page.evaluate(_WATCH)
        for number in range(num_presses):
            page.keyboard.press(str(1 + number % 7))
            page.wait_for_function("count => window.waits.length >= count", arg=number + 1)
            page.wait_for_timeout(_PAUSE_MS)
        found = page.evaluate("window.waits")
        chromium.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        waits = np.array(waits_ms(str(Path(folder) / "feedback.db"), options.presses))
    figures = {
        "num_presses": len(waits),
        "median_ms": float(np.median(waits)),
        "p95_ms": float(np.percentile(waits, 95)),
        "max_ms": float(waits.max()),
    }
    print(", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps({**figures, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
