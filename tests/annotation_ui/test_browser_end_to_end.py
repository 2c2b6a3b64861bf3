"""Every task type from end to end in a real Chromium: a lead makes a campaign of a template and a
file, a rater rates it by keyboard, and the lead exports it. The rows are what was on screen."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.annotation_ui.lead_browser import lead_page, press, show
from tests.annotation_ui.rating_page import opened, used_context
from tests.annotation_ui.task_page import saving, shown, type_keys

pytestmark = pytest.mark.browser

NUM_ITEMS = 3


@dataclass(frozen=True)
class Protocol:
    """A template, how many completions its items have, the keys of an answer, and its export.

    `check(rows, seen)` gets the exported rows and per prompt the texts in screen order.
    """

    template: str
    count: int
    rate: Callable[[Any], None]
    format_name: str
    check: Callable[[list[dict[str, Any]], dict[str, list[str]]], None]


def keys(*pressed: str) -> Callable[[Any], None]:
    return lambda page: type_keys(page, " ".join(pressed))


def check_pairs(rows, seen):
    """2 is "A is better": chosen is what was on the left, each time."""
    assert {row["prompt"]: [row["chosen"], row["rejected"]] for row in rows} == seen
    assert len(rows) == NUM_ITEMS
    assert all(row["p_chosen"] > 0.5 and row["margin"] > 0 for row in rows)


def check_ratings(rows, seen):
    """The digits went to A from the first criterion to the last, then to B."""
    given = {(row["prompt"], row["completion"]): row["ratings"] for row in rows}
    assert len(rows) == 2 * NUM_ITEMS
    for prompt, (first, second) in seen.items():
        assert values_of(given[prompt, first]) == [4, 3, 4, 2, 1]
        assert values_of(given[prompt, second]) == [0, 1, 2, 3, 4]


CRITERIA = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def values_of(ratings):
    return [ratings[name] for name in CRITERIA]


def check_ranking(rows, seen):
    """Ranks 2, 1, 3, 3: B before A before C and D, which tie; five pairs of six have a winner."""
    assert len(rows) == 5 * NUM_ITEMS
    assert len({row["group"] for row in rows}) == NUM_ITEMS
    for prompt, (a, b, c, d) in seen.items():
        pairs = {(row["chosen"], row["rejected"]) for row in rows if row["prompt"] == prompt}
        assert pairs == {(b, a), (b, c), (b, d), (a, c), (a, d)}


def check_rewrites(rows, seen):
    """What was put before the text of A."""
    assert {row["prompt"]: row["completion"] for row in rows} == {
        prompt: f"Better: {texts[0]}" for prompt, texts in seen.items()
    }
    assert len(rows) == NUM_ITEMS


def check_flags(rows, seen):
    """The first flag of the template on A, and nothing on B."""
    shares = {(row["prompt"], row["completion"]): row["flag_shares"] for row in rows}
    assert len(rows) == 2 * NUM_ITEMS
    for prompt, (first, second) in seen.items():
        assert {name: share for name, share in shares[prompt, first].items() if share} == {
            "unsafe": 1.0
        }
        assert not any(shares[prompt, second].values())


def rewrite(page):
    page.keyboard.press("a")
    page.keyboard.type("Better: ")
    page.keyboard.press("Control+Enter")


PROTOCOLS = {
    "pairwise": Protocol("hh_helpful", 2, keys("2"), "preference", check_pairs),
    "ratings": Protocol("helpsteer", 2, keys(*"43421", *"01234", "Enter"), "rated", check_ratings),
    "ranking": Protocol(
        "instructgpt_ranking", 4, keys("2", "1", "3", "3", "Enter"), "ranking", check_ranking
    ),
    "rewrite": Protocol("rewrite", 2, rewrite, "demonstrations", check_rewrites),
    "flags": Protocol("flags", 2, keys("1", "b", "0", "Enter"), "rated", check_flags),
}


@pytest.fixture(scope="module")
def site(serve, tmp_path_factory):
    """A store with nobody but a lead and a rater in it, and no campaign."""
    store = Store.open(tmp_path_factory.mktemp("whole") / "feedback.db", create=True)
    store.add_annotator(Annotator(name="lea", role="lead"))
    store.add_annotator(Annotator(name="ada"))
    return serve(store)


def completions_file(task: str, count: int) -> dict[str, Any]:
    """A JSONL file as `rlhf sample` writes it, for the file chooser."""
    rows = [
        {
            "prompt": f"{task} question {number}?",
            "completions": [f"Answer {index} to {number}" for index in range(count)],
        }
        for number in range(NUM_ITEMS)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return {"name": f"{task}.jsonl", "mimeType": "application/jsonl", "buffer": text.encode()}


def make(browser, site, name: str, template: str, file: dict[str, Any]) -> None:
    with lead_page(browser, site) as page:
        show(page, site, "campaigns", "new")
        page.select_option('[data-part="template"]', template)
        page.fill('[data-part="name"]', name)
        page.set_input_files('[data-part="file"]', file)
        press(page, "Check")
        page.get_by_text("It can be made").wait_for()
        assert f"{NUM_ITEMS} items" in page.inner_text('[data-part="result"]')
        press(page, "Make the campaign")
        page.wait_for_selector('[data-part="settings"]')


def rate(browser, site, name: str, protocol: Protocol) -> dict[str, list[str]]:
    """Rates every item; per prompt the texts of its completions, as they were on screen."""
    seen = {}
    with used_context(browser, site) as context, opened(context, site, name) as page:
        for _ in range(NUM_ITEMS):
            seen[page.inner_text('[data-part="prompt"] .text')] = shown(page)
            saving(page, lambda: protocol.rate(page))
        page.wait_for_selector('.rate[data-state="empty"]')
    return seen


def export(browser, site, name: str, format_name: str) -> list[dict[str, Any]]:
    with lead_page(browser, site) as page:
        show(page, site, "exports", campaign=name)
        page.select_option('[data-part="format"]', format_name)
        page.get_by_text("Judgements behind them").wait_for()
        with page.expect_download() as coming:
            press(page, "The file alone")
        content = coming.value.path().read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("task", PROTOCOLS)
def test_a_campaign_is_made_rated_and_exported_in_the_browser(browser, site, task):
    protocol = PROTOCOLS[task]
    name = f"{task} campaign"
    make(browser, site, name, protocol.template, completions_file(task, protocol.count))
    assert site.store.campaign(name).task == task
    seen = rate(browser, site, name, protocol)
    assert len(seen) == NUM_ITEMS
    protocol.check(export(browser, site, name, protocol.format_name), seen)
    judgements = export(browser, site, name, "judgements")
    assert [row["annotator"] for row in judgements] == ["ada"] * NUM_ITEMS
    assert not any(row["simulated"] for row in judgements)
    assert site.store.problems() == []
