"""The page in a real Chromium: every test rates real pairs of one running server."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from annotation_ui.rate import UNDONE
from rlhf.records import Comparison, Completion, Prompt
from tests.annotation_ui.conftest import comparison
from tests.annotation_ui.payloads import HOSTILE
from tests.annotation_ui.test_rendering import words

pytestmark = pytest.mark.browser

RATING = '.rate[data-state="rating"]'
SAVED = '[data-saved="saved"]'


@pytest.fixture(scope="module")
def site(browser, serve_pairs):
    talk = [
        {"role": "system", "content": "Answer in one line."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi there"},
        {"role": "user", "content": "How are you?"},
    ]
    completions = (Completion(text="Fine.", ended=True), Completion(text="Well", ended=False))
    conversation = Comparison(prompt=Prompt(content=talk), completions=completions, item="talk")
    return serve_pairs([conversation, *(comparison(number) for number in range(60))])


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(site, context):
    """The rating page of a signed-in rater; fails on script errors and outside requests."""
    page = context.new_page()
    errors, hosts = [], set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(site.link())
    page.wait_for_selector(RATING)
    yield page
    assert errors == []
    assert hosts <= {urlsplit(site.address).netloc, ""}  # "" is a data: address


def count(page) -> str:
    return page.inner_text('[data-part="count"]')


def act_and_wait(page, act) -> None:
    """Does something that saves, and waits until the next pair is up."""
    before = page.evaluate("document.querySelector('[data-part=count]').textContent")
    act()
    page.wait_for_function(
        "before => document.querySelector('[data-part=count]').textContent !== before", arg=before
    )
    page.wait_for_selector(SAVED)


def press(page, key: str) -> None:
    act_and_wait(page, lambda: page.keyboard.press(key))


def on_screen(page) -> list[str]:
    return [page.inner_text(f'[data-card="{index}"] .text') for index in (0, 1)]


def last(site):
    return site.judgements(current_only=False)[-1]


def test_a_conversation_is_shown_whole_and_a_cut_completion_is_marked(page, site):
    prompt = page.inner_text(".prompt")
    for text in ("Instructions to the model", "Answer in one line.", "Hi there", "How are you?"):
        assert text in prompt
    cut = [page.is_visible(f'[data-card="{index}"] .chip') for index in (0, 1)]
    assert cut == [text == "Well" for text in on_screen(page)]
    press(page, "1")


@pytest.mark.parametrize(
    ("key", "choice"), [("1", -3), ("2", -2), ("3", -1), ("4", 0), ("5", 1), ("6", 2), ("7", 3)]
)
def test_rating_by_key_logs_the_sides_that_were_on_screen(page, site, key, choice):
    left, right = on_screen(page)
    press(page, key)
    row = last(site)
    completions = site.desk.comparison(row.item).completions
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


def test_both_bad_goes_with_the_choice_and_not_with_the_next(page, site):
    page.keyboard.press("b")
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "true"
    press(page, "3")
    assert last(site).both_bad
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "false"
    press(page, "5")
    assert not last(site).both_bad


def test_a_rationale_is_kept_and_its_letters_are_no_keys(page, site):
    page.keyboard.press("n")
    page.keyboard.type("1 umbrella, 2 dogs?")
    page.keyboard.press("Escape")
    assert page.is_hidden("dialog[open]")
    press(page, "6")
    assert last(site).rationale == "1 umbrella, 2 dogs?"
    assert page.input_value('[data-part="rationale"]') == ""


def test_skip_asks_for_a_reason(page, site):
    page.keyboard.press("s")
    assert page.is_visible('[data-part="skip-dialog"]')
    press(page, "2")
    assert last(site).skip == "It needs knowledge that I do not have"
    page.locator('[data-do="skip"]').click()
    page.fill('[data-part="other"]', "my own reason")
    act_and_wait(page, lambda: page.keyboard.press("Enter"))
    assert last(site).skip == "my own reason"


def test_leaving_the_skip_dialog_saves_nothing(page, site):
    before = len(site.judgements(current_only=False))
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    assert len(site.judgements(current_only=False)) == before


def test_undo_takes_back_the_last_judgement(page, site):
    shown = on_screen(page)
    page.fill('[data-part="rationale"]', "first thought")
    page.locator('[data-part="rationale"]').blur()
    press(page, "7")
    first = last(site)
    press(page, "u")
    assert on_screen(page) == shown
    assert page.input_value('[data-part="rationale"]') == "first thought"
    assert "was" in page.get_attribute('[data-choice="3"]', "class")
    assert last(site).skip == UNDONE
    press(page, "2")
    second = last(site)
    assert (second.item, second.shown_order) == (first.item, first.shown_order)
    assert first.id not in [row.id for row in site.judgements()]


def test_an_older_judgement_can_be_changed_from_the_history(page, site):
    shown = on_screen(page)
    press(page, "1")
    press(page, "2")
    change = page.locator('[data-part="history"] li:nth-child(2) button')
    act_and_wait(page, change.click)
    assert on_screen(page) == shown
    press(page, "4")


def test_two_keys_in_one_tick_give_one_judgement(page, site):
    before = len(site.judgements(current_only=False))
    act_and_wait(
        page,
        lambda: page.evaluate(
            "for (const key of ['1', '1', '5']) document.dispatchEvent("
            "new KeyboardEvent('keydown', {key, bubbles: true}))"
        ),
    )
    assert len(site.judgements(current_only=False)) == before + 1


def test_a_double_press_or_click_does_not_rate_the_next_pair(page, site):
    before = len(site.judgements(current_only=False))
    act_and_wait(page, lambda: [page.keyboard.press("1"), page.keyboard.press("1")])
    page.wait_for_timeout(300)
    assert len(site.judgements(current_only=False)) == before + 1
    act_and_wait(page, lambda: page.locator('[data-choice="2"]').dblclick())
    page.keyboard.press("s")
    act_and_wait(page, lambda: [page.keyboard.press("2"), page.keyboard.press("2")])
    page.wait_for_timeout(300)
    assert len(site.judgements(current_only=False)) == before + 3


def test_held_keys_and_shortcuts_of_the_browser_are_ignored(page, site):
    before = len(site.judgements(current_only=False))
    page.evaluate(
        "for (const extra of [{repeat: true}, {ctrlKey: true}, {metaKey: true}, {altKey: true},"
        " {isComposing: true}]) document.dispatchEvent("
        "new KeyboardEvent('keydown', {key: '1', bubbles: true, ...extra}))"
    )
    page.keyboard.press("?")
    page.keyboard.press("3")  # the help is open: no key rates behind it
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert len(site.judgements(current_only=False)) == before


def test_raw_and_difference_views(page, site):
    shown = on_screen(page)
    page.keyboard.press("r")
    assert on_screen(page) == shown
    page.keyboard.press("d")
    for index, tag in ((0, "del"), (1, "ins")):
        card = page.locator(f'[data-card="{index}"]')
        assert card.locator(tag).count() > 0
        assert card.locator(".text").text_content() == shown[index]
    page.keyboard.press("m")
    assert page.locator("del, ins").count() == 0


def test_a_reload_keeps_the_draft_and_the_pair(page, site):
    shown = on_screen(page)
    page.fill('[data-part="rationale"]', "half a thought")
    page.locator('[data-part="rationale"]').blur()
    page.keyboard.press("b")
    page.reload()
    page.wait_for_selector(RATING)
    assert on_screen(page) == shown
    assert page.input_value('[data-part="rationale"]') == "half a thought"
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "true"
    press(page, "4")
    assert last(site).rationale == "half a thought"


def test_a_server_that_does_not_answer_is_said_and_the_choice_is_sent_again(page, site):
    before = len(site.judgements(current_only=False))
    shown = on_screen(page)
    page.route("**/api/judgements", lambda route: route.abort())
    page.keyboard.press("6")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "Not saved: the server does not answer" in page.inner_text('[role="alert"]')
    assert on_screen(page) == shown
    assert page.get_attribute('[data-choice="2"]', "aria-pressed") == "true"
    page.unroute("**/api/judgements")
    act_and_wait(page, page.get_by_role("button", name="Try again").click)
    assert page.is_hidden('[role="alert"]')
    assert len(site.judgements(current_only=False)) == before + 1


def test_a_lost_answer_does_not_double_the_judgement(page, site):
    before = len(site.judgements(current_only=False))
    held = []

    def lose_the_answer(route):
        route.fetch()  # the server gets it, the page does not hear of it
        held.append(route.abort())

    page.route("**/api/judgements", lose_the_answer, times=1)
    act_and_wait(page, lambda: page.keyboard.press("5"))  # sent again by itself
    assert held
    assert len(site.judgements(current_only=False)) == before + 1


def test_an_expired_session_says_not_saved_and_loses_nothing(page, site, context):
    before = len(site.judgements(current_only=False))
    page.fill('[data-part="rationale"]', "precious words")
    page.locator('[data-part="rationale"]').blur()
    context.clear_cookies()
    page.keyboard.press("2")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "Not saved: you are signed out" in page.inner_text('[role="alert"]')
    assert page.input_value('[data-part="rationale"]') == "precious words"
    page.reload()
    assert "Open the printed link" in page.inner_text("h1")
    assert len(site.judgements(current_only=False)) == before
    page.goto(site.link())  # a new link: the kept choice goes out by itself
    rows = site.wait_for_judgements(before + 1, current_only=False)
    assert (rows[-1].rationale, abs(rows[-1].verdict)) == ("precious words", 2)


def test_a_refused_judgement_is_said_and_the_pair_stays(page, site):
    page.evaluate("document.querySelector('[data-part=rationale]').value = 'kept'")
    page.route(
        "**/api/judgements",
        lambda route: route.fulfill(status=409, json={"error": "this pair is not before you"}),
        times=1,
    )
    page.keyboard.press("1")
    page.wait_for_selector('[data-saved="unsaved"]')
    page.wait_for_selector('[role="alert"]')
    assert "Not saved: this pair is not before you" in page.inner_text('[role="alert"]')
    assert page.input_value('[data-part="rationale"]') == "kept"


def test_idle_and_hidden_time_is_not_counted(site, context):
    page = context.new_page()
    page.clock.install()
    page.goto(site.link())
    page.wait_for_selector(RATING)
    page.clock.run_for(10_000)
    page.mouse.move(10, 10)
    page.clock.run_for(600_000)  # away: a minute of it counts
    page.mouse.move(20, 20)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.clock.run_for(50_000)  # another tab: none of it counts
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: false, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.clock.run_for(5_000)
    before = len(site.judgements())
    page.keyboard.press("3")
    site.wait_for_judgements(before + 1)
    assert 74 <= last(site).seconds <= 80  # 10 + 60 + 5, and what the test itself took


def test_guideline_history_progress_and_campaign_are_beside_the_pair(page, site):
    assert "more helpful" in page.inner_text(".guideline")
    assert page.inner_text('[data-part="campaign"]') == "everyday"
    done, total = map(int, count(page).split(" of "))
    assert (done, total) == (len(site.judgements()), 61)
    assert page.get_attribute('[role="progressbar"]', "aria-valuenow") == str(
        round(100 * done / total)
    )
    page.keyboard.press("g")
    assert page.is_hidden(".guideline")
    page.keyboard.press("g")
    assert page.is_visible(".guideline")


def test_another_site_cannot_rate(site, page, context):
    """A form on another host, sent by this browser with its cookies, writes nothing."""
    before = len(site.judgements(current_only=False))
    other = context.new_page()
    other.route("http://attacker.example/", lambda route: route.fulfill(
        content_type="text/html",
        body=f'<form method="post" enctype="text/plain" action="{site.address}/api/undo">'
        f'<input name=\'{{"judgement": "{last(site).id}", "x": "\' value=\'"}}\'></form>'
        "<script>document.forms[0].submit()</script>",
    ))  # fmt: skip
    with other.expect_response(f"{site.address}/api/undo") as caught:
        other.goto("http://attacker.example/")
    assert caught.value.status == 403
    other.close()
    assert len(site.judgements(current_only=False)) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (900, 800), (390, 844)])
def test_no_accessibility_violation(page, scheme, size):
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.reload()
    page.wait_for_selector(RATING)
    for key in ("m", "d", "b", "?"):
        page.keyboard.press(key)
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.keyboard.press("Escape")
    page.keyboard.press("b")  # the draft is as it was
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()


def test_a_phone_has_stacked_cards_and_a_bar_of_big_targets(page, site, tmp_path: Path):
    page.set_viewport_size({"width": 390, "height": 844})
    cards = [page.locator(f'[data-card="{index}"]').bounding_box() for index in (0, 1)]
    assert cards[1]["y"] >= cards[0]["y"] + cards[0]["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    targets = [page.locator(".scale button").nth(index).bounding_box() for index in range(7)]
    assert len({target["y"] for target in targets}) == 1
    for target in targets:
        assert target["height"] >= 48
        assert target["width"] >= 44
        assert target["y"] + target["height"] <= 844
    page.screenshot(path=tmp_path / "phone.png")
    assert (tmp_path / "phone.png").stat().st_size > 10_000
    act_and_wait(page, lambda: page.get_by_role("button", name="A is better", exact=True).click())
    act_and_wait(page, page.get_by_role("button", name="Undo", exact=True).click)
    act_and_wait(page, lambda: page.get_by_role("button", name="B is better", exact=True).click())


VISIBLE_TEXT = """index => {
  const box = document.querySelector('[data-card="' + index + '"] .text');
  const hidden = [...box.querySelectorAll('*')].filter((e) => !e.checkVisibility());
  if (hidden.length) return 'hidden: ' + hidden[0].outerHTML;
  let text = '';
  const walk = document.createTreeWalker(box, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (node.nodeType === Node.TEXT_NODE) text += node.data;
    else if (node.tagName === 'LI' && node.hasAttribute('value')) text += node.value;
  }
  return text;
}"""


def test_hostile_completions_are_shown_whole_and_never_run(browser, serve_pairs):
    pairs = [
        Comparison(
            prompt=Prompt(content=text),
            completions=(Completion(text=text), Completion(text=f"{text} ")),
            item=f"{number:03} {name}",
        )
        for number, (name, text) in enumerate(HOSTILE.items())
    ]
    site = serve_pairs(pairs)
    context = browser.new_context()
    page = context.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: requests.append(f"dialog {dialog.message}"))
    page.goto(site.link())
    page.wait_for_selector(RATING)
    for number, text in enumerate(HOSTILE.values()):
        page.keyboard.press("m")
        rendered = [page.evaluate(VISIBLE_TEXT, index) for index in (0, 1)]
        assert [words(shown) for shown in rendered] == [words(text)] * 2
        page.keyboard.press("r")
        raw = [page.text_content(f'[data-card="{index}"] .text .plain') for index in (0, 1)]
        assert sorted(raw) == sorted([text, f"{text} "])
        assert page.text_content(".prompt .plain") == text
        page.keyboard.press("d")
        diff = [page.text_content(f'[data-card="{index}"] .text .plain') for index in (0, 1)]
        assert diff == raw
        assert page.evaluate("window.pwned") is None
        if number < len(HOSTILE) - 1:
            press(page, str(1 + number % 7))
    press(page, "7")
    page.wait_for_selector('.rate[data-state="empty"]')
    assert "All done" in page.inner_text('[data-part="empty"]')
    assert page.evaluate("window.pwned") is None
    assert all(url.startswith((site.address, "data:")) for url in requests), requests
    context.close()
