"""Nothing is lost, nothing runs, and nobody else's word counts: in a real Chromium."""

import pytest

from rlhf.records import Comparison, Completion, Prompt
from tests.annotation_ui.conftest import comparison, make_store
from tests.annotation_ui.payloads import HOSTILE
from tests.annotation_ui.rating_page import (
    RATING,
    Network,
    act_and_wait,
    alert,
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
from tests.annotation_ui.test_rendering import words

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    return serve(make_store(tmp_path_factory.mktemp("store"), [comparison(n) for n in range(60)]))


@pytest.fixture
def fresh(browser):
    with fresh_context(browser) as context:
        yield context


@pytest.fixture
def context(browser, site):
    with used_context(browser, site) as context:
        yield context


@pytest.fixture
def network(fresh):
    return Network(fresh)


@pytest.fixture
def networked(site, fresh, network):
    """A page whose requests go over `network`, and whose time can be made to pass."""
    fresh.clock.install()
    with opened(fresh, site) as page:
        yield page


@pytest.fixture
def page(site, context):
    with opened(context, site) as page:
        yield page


# ---- nothing is lost -------------------------------------------------------------------------


def later(page) -> None:
    """Lets some seconds pass for the page, in which it has saved what was not saved."""
    page.clock.fast_forward(3_100)
    page.wait_for_selector('[data-saved="saved"]')


def test_a_server_that_does_not_answer_is_said_and_the_choice_is_sent_again(
    network, networked, site
):
    page = networked
    before = num_rows(site)
    shown = on_screen(page)
    network.cut("judgements")
    page.keyboard.press("6")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "Not saved: the server does not answer" in alert(page)
    assert on_screen(page) == shown
    assert page.get_attribute('[data-choice="2"]', "aria-pressed") == "true"
    network.restore()
    act_and_wait(page, page.get_by_role("button", name="Try again").click)
    assert page.is_hidden('[data-part="notice"]')
    assert num_rows(site) == before + 1


def test_a_lost_answer_does_not_double_the_judgement(network, networked, site):
    page = networked
    before = num_rows(site)
    network.lose_one_answer("judgements")
    page.keyboard.press("5")
    page.wait_for_selector('[data-saved="unsaved"]')
    later(page)  # sent again by itself
    assert num_rows(site) == before + 1


def test_a_refused_judgement_is_said_and_the_pair_stays(network, networked, site):
    page = networked
    before = num_rows(site)
    shown = on_screen(page)
    write_reason(page, "kept")
    network.refuse("judgements", "this item is not before you")
    page.keyboard.press("1")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "Not saved: this item is not before you" in alert(page)
    assert reason(page) == "kept"
    assert on_screen(page) == shown
    network.restore()
    act_and_wait(page, lambda: page.keyboard.press("1"))
    assert (num_rows(site), last(site).rationale) == (before + 1, "kept")


def test_a_failing_server_is_said_and_tried_again(network, networked, site):
    page = networked
    before = num_rows(site)
    network.refuse("judgements", "the disk is full", status=503)
    page.keyboard.press("2")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "Not saved: the disk is full" in alert(page)
    network.restore()
    later(page)  # by itself
    assert num_rows(site) == before + 1


def test_an_expired_session_says_not_saved_and_saves_after_signing_in_again(networked, site, fresh):
    page = networked
    before = num_rows(site)
    write_reason(page, "precious words")
    fresh.clear_cookies()
    page.keyboard.press("2")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "Not saved: you are signed out" in alert(page)
    sign_in = page.get_by_role("link", name="Sign in in a new tab")
    assert (sign_in.get_attribute("href"), sign_in.get_attribute("target")) == (
        "/sign-in",
        "_blank",
    )
    assert reason(page) == "precious words"
    assert num_rows(site) == before
    site.sign_in(fresh)  # as another tab would
    later(page)
    assert num_rows(site) == before + 1
    row = last(site)
    assert (row.rationale, abs(row.verdict)) == ("precious words", 2)
    assert page.is_hidden('[data-part="notice"]')


def test_a_choice_that_was_cut_off_goes_out_after_a_reload(page, site, context):
    before = num_rows(site)
    write_reason(page, "still here")
    context.clear_cookies()
    page.keyboard.press("7")
    page.wait_for_selector('[data-saved="unsaved"]')
    page.reload()
    assert page.locator(RATING).count() == 0  # the way in, and no item
    site.sign_in(context)
    page.goto(site.rate_address())
    rows = site.wait_for_judgements(before + 1, current_only=False)
    assert (rows[-1].rationale, abs(rows[-1].verdict)) == ("still here", 3)


def test_the_end_of_a_session_is_noticed_before_the_next_answer(site, fresh):
    site.sign_in(fresh)
    page = fresh.new_page()
    page.clock.install()
    page.goto(site.rate_address())
    page.wait_for_selector(RATING)
    fresh.clear_cookies()
    page.clock.run_for(61_000)
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "You are signed out. What you have chosen is kept" in alert(page)
    site.sign_in(fresh)
    page.clock.run_for(61_000)
    page.wait_for_selector('[data-saved="saved"]')
    assert page.is_hidden('[data-part="notice"]')


def test_a_page_of_one_rater_does_not_save_for_the_next(page, site, context):
    before = num_rows(site)
    site.sign_in(context, "bob")  # in another tab of the same browser
    page.keyboard.press("1")
    page.wait_for_selector('[data-saved="unsaved"]')
    assert "this page was opened by 'ada', and you are signed in as 'bob'" in alert(page)
    assert num_rows(site) == before


# ---- nobody else's word counts ---------------------------------------------------------------


def test_another_site_cannot_rate(site, fresh, networked):
    """A form on another host, sent by this browser with its cookies, writes nothing."""
    press(networked, "4")
    before = num_rows(site)
    body = (
        f'<form method="post" enctype="text/plain" action="{site.address}/api/undo">'
        f'<input name=\'{{"judgement": "{last(site).id}", "x": "\' value=\'"}}\'></form>'
        "<script>document.forms[0].submit()</script>"
    )
    fresh.route(
        "http://attacker.example/",
        lambda route: route.fulfill(content_type="text/html", body=body),
    )
    other = fresh.new_page()
    with other.expect_response(f"{site.address}/api/undo") as caught:
        other.goto("http://attacker.example/")
    assert caught.value.status == 403
    other.close()
    assert num_rows(site) == before


# ---- nothing runs, nothing is hidden ---------------------------------------------------------

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
    with fresh_context(browser) as context:
        site.sign_in(context)
        page = context.new_page()
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("dialog", lambda dialog: requests.append(f"dialog {dialog.message}"))
        page.goto(site.rate_address())
        page.wait_for_selector(RATING)
        for number, text in enumerate(HOSTILE.values()):
            check_shown_whole(page, text)
            if number < len(HOSTILE) - 1:
                press(page, str(1 + number % 7))
        press(page, "7")
        page.wait_for_selector('.rate[data-state="empty"]')
        assert "All done" in page.inner_text('[data-part="empty"]')
        page.keyboard.press("h")
        page.wait_for_selector('[data-part="history-all"] li:nth-child(50)')
        assert page.evaluate("window.pwned") is None
        assert all(url.startswith((site.address, "data:")) for url in requests), requests


def check_shown_whole(page, text: str) -> None:
    """Formatted, raw, as differences and over the whole page: all of `text` and nothing run."""
    page.keyboard.press("m")
    rendered = [page.evaluate(VISIBLE_TEXT, index) for index in (0, 1)]
    assert [words(shown) for shown in rendered] == [words(text)] * 2
    page.keyboard.press("r")
    raw = [page.text_content(f'[data-card="{index}"] .text .plain') for index in (0, 1)]
    assert sorted(raw) == sorted([text, f"{text} "])
    assert page.text_content(".prompt .plain") == text
    page.keyboard.press("o")
    assert page.text_content('[data-part="large-text"] .plain') == raw[0]
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    diff = [page.text_content(f'[data-card="{index}"] .text .plain') for index in (0, 1)]
    assert diff == raw
    assert page.evaluate("window.pwned") is None


def test_hostile_flags_criteria_and_titles_stay_text(browser, serve, tmp_path):
    """What a lead writes is shown as text, too: a campaign file may come from anywhere."""
    bad = "<img src=x onerror=window.pwned=1>${window.pwned=1}"
    settings = {"title": bad, "flags": [{"name": bad, "label": bad}]}
    store = make_store(tmp_path, [comparison(n) for n in range(3)], settings=settings)
    site = serve(store)
    with used_context(browser, site) as context, opened(context, site) as page:
        assert page.inner_text('[data-part="campaign"]') == bad
        page.locator(".cards .flag").first.click()
        page.keyboard.press("f")
        assert bad in page.inner_text('[data-part="flag-rows"]')
        page.keyboard.press("f")
        press(page, "1")
        assert bad in page.inner_text('[data-part="history"]')
        assert page.evaluate("window.pwned") is None
