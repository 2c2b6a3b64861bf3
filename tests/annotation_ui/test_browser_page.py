"""What the rating page offers beside any task, in a real Chromium."""

import time
from pathlib import Path

import pytest

from annotation_ui.components import page_markup, page_script
from rlhf.records import Comparison, Completion, Prompt
from tests.annotation_ui.conftest import CAMPAIGN, comparison, make_store
from tests.annotation_ui.rating_page import (
    EMPTY,
    RATING,
    SAVED,
    act_and_wait,
    alert,
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
from tests.browser import at_rest, violations

pytestmark = pytest.mark.browser
LEASE_S = 1.5
FLAGS = ["unsafe", "private", "off_topic", "language"]


def several(number: int, count: int) -> Comparison:
    texts = [f"The {word} answer to {number}" for word in ["one", "two", "three", "four", "five"]]
    completions = tuple(Completion(text=text) for text in texts[:count])
    return Comparison(
        prompt=Prompt(content=f"Q{number}"), completions=completions, item=f"s{number}"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    talk = [
        {"role": "system", "content": "Answer in one line."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi there"},
        {"role": "user", "content": "How are you?"},
    ]
    completions = (Completion(text="Fine.", ended=True), Completion(text="Well", ended=False))
    conversation = Comparison(prompt=Prompt(content=talk), completions=completions, item="talk")
    pairs = [conversation, *(comparison(number) for number in range(80))]
    store = make_store(tmp_path_factory.mktemp("store"), pairs)
    settings = {"flags": FLAGS, "rationale": "required"}
    store.create_campaign("flagged", settings=settings, guideline="First rule.")
    store.add_comparisons("flagged", [comparison(number) for number in range(40)])
    store.create_campaign("ranks", task="ranking", guideline="Read all.")
    store.add_comparisons("ranks", [several(number, 5) for number in range(10)])
    store.create_campaign("consent", settings={"consent": "We keep your answers."})
    store.add_comparisons("consent", [comparison(number) for number in range(3)])
    store.create_campaign("short", lease_s=LEASE_S)
    store.add_comparisons("short", [comparison(number) for number in range(2)])
    return serve(store)


@pytest.fixture
def context(browser, site):
    with used_context(browser, site) as context:
        yield context


@pytest.fixture
def fresh(browser):
    with fresh_context(browser) as context:
        yield context


@pytest.fixture
def page(site, context):
    with opened(context, site) as page:
        yield page


@pytest.fixture
def flagged(site, context):
    with opened(context, site, "flagged") as page:
        yield page


def test_a_conversation_is_shown_whole_and_a_cut_completion_is_marked(page, site):
    prompt = page.inner_text(".prompt")
    for text in ("Instructions to the model", "Answer in one line.", "Hi there", "How are you?"):
        assert text in prompt
    cut = [page.is_visible(f'[data-card="{index}"] .chip') for index in (0, 1)]
    assert cut == [text == "Well" for text in on_screen(page)]
    press(page, "1")


def test_a_rationale_is_kept_and_its_letters_are_no_keys(page, site):
    page.keyboard.press("n")
    page.keyboard.type("1 umbrella, 2 dogs?")
    page.keyboard.press("Escape")
    assert page.is_hidden("dialog[open]")
    press(page, "6")
    assert last(site).rationale == "1 umbrella, 2 dogs?"
    assert reason(page) == ""


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
    before = num_rows(site)
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    assert num_rows(site) == before


def test_an_older_judgement_can_be_changed_from_the_history(page, site):
    shown = on_screen(page)
    press(page, "1")
    press(page, "2")
    change = page.locator('[data-part="history"] li:nth-child(2) button')
    act_and_wait(page, change.click)
    assert on_screen(page) == shown
    press(page, "4")


def test_all_judgements_can_be_searched_and_any_of_them_changed(page, site):
    shown = on_screen(page)
    write_reason(page, "a very rare word: quokka")
    press(page, "1")
    for key in "2345671":
        press(page, key)
    page.keyboard.press("h")
    page.wait_for_selector('[data-part="history-all"] li:nth-child(8)')
    page.keyboard.type("Quokka")
    page.wait_for_function("document.querySelectorAll('[data-part=history-all] li').length === 1")
    assert "1 of your" in page.inner_text('[data-part="history-note"]')
    act_and_wait(page, page.locator('[data-part="history-all"] button').click)
    assert on_screen(page) == shown
    assert reason(page) == "a very rare word: quokka"
    press(page, "4")


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


def test_a_completion_can_be_read_over_the_whole_page(page, site):
    shown = on_screen(page)
    page.keyboard.press("o")
    assert page.inner_text('[data-part="large-text"]') == shown[0]
    page.keyboard.press("ArrowRight")
    assert page.inner_text('[data-part="large-title"]') == "Completion B"
    assert page.inner_text('[data-part="large-text"]') == shown[1]
    page.keyboard.press("d")
    assert page.locator('[data-part="large-text"] ins').count() > 0
    page.keyboard.press("3")  # rates nothing behind it
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Read completion B larger").click()
    assert page.inner_text('[data-part="large-title"]') == "Completion B"
    assert page.is_visible(RATING)


def test_more_than_two_are_a_grid_and_compared_with_the_one_that_is_chosen(site, context):
    with opened(context, site, "ranks") as page:
        assert page.locator(".card .top h2").all_inner_texts() == list("ABCDE")
        shown = on_screen(page)
        word = [text.split()[1] for text in shown]
        boxes = [page.locator(f'[data-card="{index}"]').bounding_box() for index in range(5)]
        assert boxes[0]["y"] == boxes[1]["y"]  # side by side, the rest below
        assert boxes[4]["y"] > boxes[0]["y"] + boxes[0]["height"]
        bar = page.locator(".controls").bounding_box()
        assert bar["y"] + bar["height"] <= 900
        page.keyboard.press("Shift+D")
        page.wait_for_selector("ins")
        assert page.locator(".cards ins").all_inner_texts() == word[1:]
        assert "words that A lacks" in page.inner_text('[data-part="hint"]')
        page.get_by_role("button", name="Compare with C").click()
        page.wait_for_function(
            "document.querySelector('[data-part=hint]').textContent.includes('C')"
        )
        marked = page.locator(".cards del, .cards ins").all_inner_texts()
        assert marked == [one for index, one in enumerate(word) if index != 2]
        assert [page.locator(f'[data-card="{n}"] .text').text_content() for n in range(5)] == shown


def test_a_reload_keeps_the_draft_and_the_item(flagged, site):
    page = flagged
    shown = on_screen(page)
    write_reason(page, "half a thought")
    page.keyboard.press("b")
    page.get_by_role("button", name="Private data: completion B").click()
    page.reload()
    page.wait_for_selector(RATING)
    assert on_screen(page) == shown
    assert reason(page) == "half a thought"
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "true"
    press(page, "4")
    row = last(site, "flagged")
    assert (row.rationale, row.both_bad) == ("half a thought", True)
    assert row.flags[row.shown_order[1]] == ("private",)


def test_flags_are_set_in_their_panel_by_key(flagged, site):
    page = flagged
    write_reason(page, "why")
    page.keyboard.press("f")
    for key in ("1", "b", "2", "3", "2"):  # A unsafe; B private on and off again, off topic
        page.keyboard.press(key)
    page.keyboard.press("f")
    assert page.is_hidden("dialog[open]")
    assert page.inner_text('[data-do="flags"] [data-part="flag-count"]') == "2"
    press(page, "2")
    row = last(site, "flagged")
    assert [row.flags[index] for index in row.shown_order] == [("unsafe",), ("off_topic",)]
    words = page.inner_text('[data-part="history"] li:first-child .words')
    assert words == "A is better; A: Unsafe or harmful; B: Off topic"
    press(page, "u")
    assert page.locator(".cards .flag[aria-pressed=true]").count() == 2
    press(page, "2")
    assert page.locator(".cards .flag[aria-pressed=true]").count() == 0


def test_a_needed_reason_is_asked_for_and_then_saved(flagged, site):
    page = flagged
    before = num_rows(site, "flagged")
    page.keyboard.press("6")
    assert "asks for a reason" in page.inner_text('[data-part="missing"]')
    assert page.evaluate("document.activeElement.dataset.part") == "rationale"
    assert page.get_attribute('[data-choice="2"]', "aria-pressed") == "true"
    assert num_rows(site, "flagged") == before
    page.keyboard.type("because")
    assert page.inner_text('[data-part="missing"]') == ""
    press(page, "Control+Enter")
    row = last(site, "flagged")
    assert (abs(row.verdict), row.rationale) == (2, "because")


def test_the_save_button_says_what_is_missing(flagged):
    page = flagged
    page.get_by_role("button", name="Save").click()
    assert "Choose which one is better" in page.inner_text('[data-part="missing"]')


def test_the_guideline_says_when_it_has_changed(site, context):
    with opened(context, site, "flagged") as page:
        assert page.is_hidden('[data-part="guideline-changed"]')
        write_reason(page, "why")
        press(page, "1")
        site.store.revise_guideline("flagged", "Second rule, in **bold**.")
        write_reason(page, "why")
        press(page, "2")  # leased under the first version or not, the next one is not
        write_reason(page, "why")
        press(page, "3")
        assert page.is_visible('[data-part="guideline-changed"]')
        assert page.inner_text('[data-part="guideline"] strong') == "bold"
        page.get_by_role("button", name="I have read it").click()
        assert page.is_hidden('[data-part="guideline-changed"]')
        page.reload()
        page.wait_for_selector(RATING)
        assert page.is_hidden('[data-part="guideline-changed"]')


def test_guideline_history_progress_and_campaign_are_beside_the_pair(page, site):
    assert "more helpful" in page.inner_text(".guideline")
    assert page.inner_text('[data-part="campaign"]') == CAMPAIGN
    done, total = map(int, count(page).split(" of "))
    assert (done, total) == (len(site.judgements()), 81)
    assert page.get_attribute('[role="progressbar"]', "aria-valuenow") == str(
        round(100 * done / total)
    )
    page.keyboard.press("g")
    assert page.is_hidden(".guideline")
    page.keyboard.press("g")
    assert page.is_visible(".guideline")


def test_the_help_lists_the_keys_of_the_task_and_of_the_page(flagged):
    page = flagged
    page.keyboard.press("?")
    words = page.inner_text('[data-part="help-dialog"]')
    for text in ("from “A is much better”", "both are bad", "flag a completion", "take a break"):
        assert text in words


# ---- time ------------------------------------------------------------------------------------


def stop_clock(page):
    """From here on the page's time passes by run_for alone; two seconds have gone."""
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 2)


def test_idle_and_hidden_time_is_not_counted(site, fresh):
    site.sign_in(fresh)
    page = fresh.new_page()
    page.clock.install()
    page.goto(site.rate_address())
    page.wait_for_selector(RATING)
    stop_clock(page)
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


def test_a_break_covers_the_texts_and_stops_the_clock(site, fresh):
    site.sign_in(fresh)
    page = fresh.new_page()
    page.clock.install()
    page.goto(site.rate_address())
    page.wait_for_selector(RATING)
    stop_clock(page)
    page.clock.run_for(4_000)
    page.keyboard.press("p")
    box = page.locator('[data-part="break-dialog"]').bounding_box()
    assert (box["width"], box["height"]) == (1440, 900)
    for _ in range(5):
        page.clock.run_for(10_000)
        page.mouse.move(30, 30)  # moving does not end a break
    before = len(site.judgements())
    page.keyboard.press("1")  # any key goes on, and rates nothing
    assert page.is_hidden("dialog[open]")
    page.wait_for_timeout(100)
    assert len(site.judgements()) == before
    page.clock.run_for(3_000)
    page.keyboard.press("2")
    site.wait_for_judgements(before + 1)
    assert 6.5 <= last(site).seconds <= 12  # 4 + 3, and what the test itself took


def test_a_break_ends_by_its_button(page):
    page.get_by_role("button", name="Take a break").click()
    assert page.is_visible('[data-part="break-dialog"]')
    page.get_by_role("button", name="Go on").click()
    assert page.is_hidden("dialog[open]")


def test_a_short_lease_is_kept_while_the_rater_is_there(site, context):
    with opened(context, site, "short") as page:
        shown = on_screen(page)
        until = time.monotonic() + 2 * LEASE_S
        while time.monotonic() < until:
            with page.expect_response(f"{site.address}/api/renew") as renewed:
                page.mouse.move(40, 40)
            assert renewed.value.json()["kept"]
        site.store.add_annotator(type(site.store.annotators()[0])(name="eve"))
        other = site.store.next_assignment("short", "eve")
        texts = {one.text for one in other.comparison.completions}
        assert texts != set(shown)  # eve gets the other item
        press(page, "3")


# ---- two tabs, and a second mount ------------------------------------------------------------


def test_two_tabs_show_one_item_and_save_it_once(page, site, context):
    shown = on_screen(page)
    second = context.new_page()
    second.goto(site.rate_address())
    second.wait_for_selector(RATING)
    assert on_screen(second) == shown
    before = num_rows(site)
    press(page, "2")
    second.keyboard.press("6")  # the same item, a moment later, differently
    second.wait_for_function(
        "document.querySelector('[data-part=saved]').textContent.startsWith('Already saved')"
    )
    assert num_rows(site) == before + 1
    assert "Already saved: A is better" in second.inner_text('[data-part="saved"]')
    assert on_screen(second) == on_screen(page)


REMOUNT = """() => {
  const old = document.querySelector('.rate');
  const fresh = old.cloneNode(true);
  fresh.dataset.state = 'loading';
  for (const part of ['cards', 'controls', 'task-extras', 'history'])
    fresh.querySelector('[data-part=' + part + ']').replaceChildren();
  fresh.querySelector('[data-part=rationale]').value = '';
  old.replaceWith(fresh);
}"""


def test_markup_that_is_drawn_anew_is_taken_over(page, site):
    """Gradio may draw the component again: the page goes on in the new markup, with its draft."""
    shown = on_screen(page)
    write_reason(page, "half a thought")
    page.keyboard.press("b")
    page.evaluate(REMOUNT)
    page.wait_for_selector(RATING)
    assert on_screen(page) == shown
    assert reason(page) == "half a thought"
    assert page.get_attribute('[data-do="both-bad"]', "aria-pressed") == "true"
    before = num_rows(site)
    press(page, "5")
    page.wait_for_timeout(200)
    assert num_rows(site) == before + 1  # the first one has let go of the keys
    page.keyboard.press("u")
    page.wait_for_function(
        "document.querySelector('[data-part=saved]').textContent === 'Taken back'"
    )
    press(page, "5")


MOUNT_AGAIN = """([script, markup]) => {
  const first = document.querySelector('.rate').parentElement;
  const second = document.createElement('div');
  second.innerHTML = markup;
  first.after(second);
  first.style.display = 'none';
  first.id = 'first';
  new Function('element', script)(second);
}"""


def test_a_second_mount_takes_over_and_the_first_lets_go(page, site):
    shown = on_screen(page)
    write_reason(page, "half a thought")
    page.evaluate(MOUNT_AGAIN, [page_script(), page_markup()])
    second = page.locator(".rate").nth(1)
    second.locator(".card").first.wait_for()
    assert second.locator(".cards .text").all_inner_texts() == shown
    assert second.locator('[data-part="rationale"]').input_value() == "half a thought"
    before = num_rows(site)
    page.keyboard.press("6")
    second.locator('[data-part="saved"]', has_text="Saved").wait_for()
    page.wait_for_timeout(200)
    assert num_rows(site) == before + 1
    assert last(site).rationale == "half a thought"
    first = page.locator("#first .rate")
    assert first.locator('[data-part="saved"]').text_content() == "All saved"  # it heard nothing


# ---- when there is nothing to judge ----------------------------------------------------------


def test_a_consent_text_comes_first_and_the_page_leads_there(site, context):
    with opened(context, site, "consent") as page:
        page.wait_for_selector(EMPTY)
        assert page.get_by_role("link", name="Read it").get_attribute("href") == (
            "/consent?campaign=consent"
        )
        site.store.agree("consent", "ada", "We keep your answers.")
        page.get_by_role("button", name="Look again").click()
        page.wait_for_selector(RATING)


def test_a_paused_campaign_says_so(site, context):
    site.store.agree("consent", "ada", "We keep your answers.")
    with opened(context, site, "consent") as page:
        settings = {**site.store.campaign("consent").settings, "paused": True}
        site.store.change_settings("consent", settings)
        page.keyboard.press("3")
        page.wait_for_selector('[data-saved="unsaved"]')
        assert "this campaign is paused" in alert(page)
        page.wait_for_selector(EMPTY)
        assert page.inner_text('[data-part="empty-title"]') == "Paused"
        assert page.get_by_role("link", name="All campaigns", exact=True).count() == 2
        site.store.change_settings("consent", {**settings, "paused": False})
        page.get_by_role("button", name="Look again").click()
        page.wait_for_selector(RATING)
        assert page.get_attribute('[data-choice="-1"]', "aria-pressed") == "true"  # kept
        press(page, "3")


# ---- looks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1440, 900), (900, 800), (390, 844)])
def test_no_accessibility_violation(site, context, size):
    with opened(context, site, "flagged") as page:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.reload()
        page.wait_for_selector(RATING)
        for key in ("d", "b"):
            page.keyboard.press(key)
        page.locator(".cards .flag").first.click()
        page.locator("body").click(position={"x": 5, "y": 300})
        assert violations(page) == []
        for key in "?sfhop":
            page.keyboard.press(key)
            assert page.locator("dialog[open]").count() == 1, key
            assert violations(page) == []
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog[open]", state="hidden")


def test_a_phone_has_stacked_cards_and_a_bar_of_big_targets(page, site, tmp_path: Path):
    page.set_viewport_size({"width": 390, "height": 844})
    at_rest(page)
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


def test_the_last_card_of_a_phone_is_not_under_the_bar(site, context):
    with opened(context, site, "flagged") as page:
        page.set_viewport_size({"width": 390, "height": 700})
        # the bar's height is known a frame after the resize, and the page grows by it: a scroll
        # before that does not reach the end
        page.wait_for_function(
            """() => {
              window.scrollTo(0, document.documentElement.scrollHeight);
              const box = (selector) => document.querySelector(selector).getBoundingClientRect();
              return box('[data-card="1"]').bottom <= box(".controls").top;
            }"""
        )
        assert page.is_visible(SAVED)
