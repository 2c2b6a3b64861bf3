"""A tab that is used again has nothing of the test before it."""

import pytest

from tests.annotation_ui.conftest import comparison
from tests.annotation_ui.rating_page import RATING
from tests.annotation_ui.tabs import clean_tab, watched

pytestmark = pytest.mark.browser

SCREEN = {"viewport": {"width": 700, "height": 500}, "reduced_motion": "reduce"}
STATE = """() => [
  document.cookie, localStorage.length, sessionStorage.length, window.name, innerWidth,
  matchMedia('(prefers-color-scheme: dark)').matches,
  matchMedia('(prefers-reduced-motion: reduce)').matches, 'pwned' in window,
  document.querySelectorAll('.rate').length]"""


@pytest.fixture(scope="module")
def site(serve_pairs):
    return serve_pairs([comparison(number) for number in range(3)])


def test_a_tab_used_again_is_as_a_new_one(browser, site):
    with clean_tab(browser, site.address, **SCREEN) as page:
        fresh = page.evaluate(STATE)
        site.sign_in(page.context)
        page.goto(site.rate_address())
        page.wait_for_selector(RATING)
        page.evaluate(
            "localStorage.a = sessionStorage.a = window.name = 'left';"
            " document.cookie = 'left=1'; window.pwned = 1"
        )
        page.emulate_media(color_scheme="dark", reduced_motion="no-preference")
        page.set_viewport_size({"width": 400, "height": 400})
        second = page.context.new_page()
        page.keyboard.down("Shift")
        page.mouse.down()
    with clean_tab(browser, site.address, **SCREEN) as again:
        assert again is page
        assert second.is_closed()
        assert again.evaluate(STATE) == fresh == ["", 0, 0, "", 700, False, True, False, 0]
        assert again.context.cookies() == []
        again.goto(site.rate_address())
        assert again.locator(RATING).count() == 0  # nobody is signed in


def test_a_tab_in_use_is_not_given_to_a_second_test(browser, site):
    with (
        clean_tab(browser, site.address, **SCREEN) as one,
        clean_tab(browser, site.address, **SCREEN) as other,
    ):
        assert one.context is not other.context


def test_a_tab_of_a_failed_test_is_thrown_away(browser, site):
    with (
        pytest.raises(AssertionError, match="it failed"),
        clean_tab(browser, site.address, **SCREEN) as page,
    ):
        raise AssertionError("it failed")
    assert page.is_closed()


def test_a_tab_with_a_clock_is_not_used_again(browser, site):
    with (
        pytest.raises(AssertionError, match="a clock"),
        clean_tab(browser, site.address, **SCREEN) as page,
    ):
        page.clock.install()
    assert page.is_closed()


def open_rating_page(page, site):
    site.sign_in(page.context)
    page.goto(site.rate_address())
    page.wait_for_selector(RATING)


@pytest.mark.parametrize(
    ("script", "words"),
    [("setTimeout(() => { throw new Error('mine'); })", "mine"), ("window.pwned = 1", "was run")],
)
def test_a_script_error_and_a_text_that_ran_are_seen(browser, site, script, words):
    with clean_tab(browser, site.address, **SCREEN) as page:
        open_rating_page(page, site)
        with pytest.raises(AssertionError, match=words), watched(page, site.address):
            page.evaluate(f"() => new Promise((done) => {{ {script}; setTimeout(done); }})")
        page.reload()
        with watched(page, site.address):
            page.wait_for_selector(RATING)


def test_a_request_to_somebody_else_is_seen(browser, site):
    with clean_tab(browser, site.address, **SCREEN) as page:
        with pytest.raises(AssertionError, match="asked"), watched(page, "http://other:1"):
            open_rating_page(page, site)
        with watched(page, site.address):
            page.reload()
