"""Pairwise judging in a real Chromium: by key and by mouse, each choice exactly once."""

import pytest

from annotation_ui.rate import UNDONE
from tests.annotation_ui.conftest import comparison, make_store
from tests.annotation_ui.rating_page import (
    SAVED,
    act_and_wait,
    count,
    fresh_context,
    last,
    num_rows,
    on_screen,
    opened,
    press,
    reason,
    used_context,
    write_reason,
)

pytestmark = pytest.mark.browser

FORCED = [
    {"value": -2, "label": "A wins", "short": "A"},
    {"value": -1, "label": "A by a nose", "short": "a"},
    {"value": 1, "label": "B by a nose", "short": "b"},
    {"value": 2, "label": "B wins", "short": "B"},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    store = make_store(tmp_path_factory.mktemp("store"), [comparison(n) for n in range(60)])
    store.create_campaign("own scale", settings={"scale": FORCED, "both_bad": False})
    store.add_comparisons("own scale", [comparison(n) for n in range(10)])
    return serve(store)


@pytest.fixture
def context(browser, site):
    with used_context(browser, site) as context:
        yield context


@pytest.fixture
def page(site, context):
    with opened(context, site) as page:
        yield page


def completions_of(site, row, campaign="everyday"):
    found = {one.item: one for one in site.store.comparisons(campaign)}
    return found[row.item].completions


@pytest.mark.parametrize(
    ("key", "choice"), [("1", -3), ("2", -2), ("3", -1), ("4", 0), ("5", 1), ("6", 2), ("7", 3)]
)
def test_rating_by_key_logs_the_sides_that_were_on_screen(page, site, key, choice):
    left, right = on_screen(page)
    press(page, key)
    row = last(site)
    completions = completions_of(site, row)
    assert [completions[index].text for index in row.shown_order] == [left, right]
    better_left = choice < 0
    assert abs(row.verdict) == abs(choice)
    if choice:
        better = completions[0 if row.verdict < 0 else 1].text
        assert better == (left if better_left else right)


@pytest.mark.parametrize("label", ["A is slightly better", "About the same", "B is much better"])
def test_rating_by_mouse(page, site, label):
    act_and_wait(page, lambda: page.get_by_role("button", name=label, exact=True).click())
    assert page.inner_text('[data-part="history"] li:first-child .words') == label
    assert last(site).seconds < 60


def test_t_is_a_tie(page, site):
    press(page, "t")
    assert last(site).verdict == 0


def test_a_campaign_has_its_own_scale_and_words(site, context):
    with opened(context, site, "own scale") as page:
        assert page.locator(".scale .full").all_inner_texts() == [one["label"] for one in FORCED]
        assert page.get_by_text("Both are bad").count() == 0
        before = num_rows(site, "own scale")
        for key in ("t", "b", "5"):  # no tie, no both-bad and no fifth point here
            page.keyboard.press(key)
        assert num_rows(site, "own scale") == before
        press(page, "4")
        row = last(site, "own scale")
        assert (row.verdict if row.shown_order == (0, 1) else -row.verdict) == 2
        assert page.inner_text('[data-part="history"] li:first-child .words') == "B wins"
        page.keyboard.press("?")
        assert "from “A wins” to “B wins”" in page.inner_text("dialog[open]")


def test_both_bad_goes_with_the_choice_and_not_with_the_next(page, site):
    page.keyboard.press("b")
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "true"
    press(page, "3")
    assert last(site).both_bad
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "false"
    press(page, "5")
    assert not last(site).both_bad


def test_undo_takes_back_the_last_judgement(page, site):
    shown = on_screen(page)
    write_reason(page, "first thought")
    press(page, "7")
    first = last(site)
    press(page, "u")
    assert on_screen(page) == shown
    assert reason(page) == "first thought"
    assert "was" in page.get_attribute('[data-choice="3"]', "class")
    assert page.get_attribute('[data-choice="3"]', "aria-pressed") == "false"
    assert last(site).skip == UNDONE
    press(page, "2")
    second = last(site)
    assert (second.item, second.shown_order) == (first.item, first.shown_order)
    assert first.id not in [row.id for row in site.judgements()]


def test_two_keys_in_one_tick_give_one_judgement(page, site):
    before = num_rows(site)
    act_and_wait(
        page,
        lambda: page.evaluate(
            "for (const key of ['1', '1', '5']) document.dispatchEvent("
            "new KeyboardEvent('keydown', {key, bubbles: true}))"
        ),
    )
    assert num_rows(site) == before + 1


def test_a_double_press_or_click_does_not_rate_the_next_pair(page, site):
    """Pressed within one tick after the save, so that no busy machine can part the two."""
    before = num_rows(site)
    page.evaluate(
        """() => {
          const count = document.querySelector('[data-part=count]');
          new MutationObserver((_, watcher) => { watcher.disconnect(); window.again(); })
            .observe(count, {childList: true, characterData: true, subtree: true});
          window.again = () => document.dispatchEvent(
            new KeyboardEvent('keydown', {key: '1', bubbles: true}));
        }"""
    )
    press(page, "1")
    page.wait_for_timeout(300)
    assert num_rows(site) == before + 1
    pressed = page.locator(".scale [aria-pressed=true]")
    assert pressed.count() == 0


def test_a_double_click_or_a_double_press_in_the_skip_dialog_is_one(browser, site):
    """While the page's clock stands still, so that no busy machine can part the two."""
    before = num_rows(site)
    with fresh_context(browser) as context:
        context.clock.install()
        with opened(context, site) as page:
            page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 5)
            page.locator('[data-choice="2"]').dblclick()
            site.wait_for_judgements(before + 1, current_only=False)
            page.wait_for_selector(SAVED)
            page.wait_for_timeout(300)
            page.clock.run_for(300)
            page.keyboard.press("s")
            page.keyboard.press("2")
            page.keyboard.press("2")
            site.wait_for_judgements(before + 2, current_only=False)
            page.wait_for_timeout(300)
            assert num_rows(site) == before + 2


def test_held_keys_and_shortcuts_of_the_browser_are_ignored(page, site):
    before = num_rows(site)
    page.evaluate(
        "for (const extra of [{repeat: true}, {ctrlKey: true}, {metaKey: true}, {altKey: true},"
        " {isComposing: true}]) document.dispatchEvent("
        "new KeyboardEvent('keydown', {key: '1', bubbles: true, ...extra}))"
    )
    page.keyboard.press("?")
    page.keyboard.press("3")  # the help is open: no key rates behind it
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert num_rows(site) == before


@pytest.mark.parametrize(
    ("event", "choice"),
    [
        ("{key: '&', code: 'Digit1'}", -3),  # AZERTY: digits need Shift there
        ("{key: '7', code: 'Digit7', shiftKey: true}", 3),
        ("{key: '\u0435', code: 'KeyT'}", 0),  # a Cyrillic layout: the key where T lies
        ("{key: 'T', code: 'KeyT', shiftKey: true}", 0),
        ("{key: '6', code: 'Numpad6'}", 2),
    ],
)
def test_keys_work_on_every_layout(page, site, event, choice):
    script = f"document.dispatchEvent(new KeyboardEvent('keydown', {{bubbles: true, ...{event}}}))"
    act_and_wait(page, lambda: page.evaluate(script))
    row = last(site)
    assert (row.verdict if row.shown_order == (0, 1) else -row.verdict) == choice


def test_the_next_pair_comes_with_the_answer_to_the_last(page, site):
    """One request between a key and the next pair; benchmarks/key_to_next.py takes its time."""
    asked = []
    page.on("request", lambda request: asked.append((request.method, request.url)))
    for _ in range(3):
        before = page.inner_text(".prompt")
        asked.clear()
        page.keyboard.press("4")
        page.wait_for_function(
            "before => document.querySelector('.prompt').innerText !== before", arg=before
        )
        assert [method for method, _ in asked] == ["POST"], asked
        page.wait_for_timeout(260)  # later than a double press
    assert count(page)
