"""The leads' overview and raters in a real Chromium, over a store in the middle of a campaign."""

import re
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rlhf.feedback.store import Store
from rlhf.records import Judgement
from tests.annotation_ui.rated import CAMPAIGN, rated_store
from tests.annotation_ui.tabs import WAIT_MS, clean_tab, watched
from tests.browser import violations

pytestmark = pytest.mark.browser

SHOWN = '.lead[data-state="shown"]'
DRAWN = '[data-chart="verdicts"] svg'


@pytest.fixture(scope="module")
def site(browser, serve, tmp_path_factory):
    return serve(rated_store(tmp_path_factory.mktemp("rated")))


@pytest.fixture
def open_page(site, browser):
    """Opens the leads' page in a tab of its own; it is watched."""
    with ExitStack() as tabs:

        def start(where: str = f"?campaign={CAMPAIGN}", *, width: int = 1440, live=site):
            screen = {"width": width, "height": 900}
            page = tabs.enter_context(clean_tab(browser, live.address, viewport=screen))
            live.sign_in(page.context, "boss", "lead")
            tabs.enter_context(watched(page, live.address))
            page.goto(f"{live.address}/lead/{where}")
            page.wait_for_selector(SHOWN)
            return page

        yield start


def sideways(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def test_the_overview_answers_three_questions_before_anything_else(open_page):
    page = open_page()
    page.wait_for_selector(DRAWN)
    headings = page.locator(".lead .content h2").all_inner_texts()
    assert headings == ["Is the work good?", "Will it be done?", "Who needs help?"]
    assert re.search(r"agreement between raters", page.inner_text(".answers"))
    assert "takes under 3 s" in page.inner_text(".people")
    assert "judgements are by simulated raters" in page.inner_text(".remark")
    assert not re.search(r"\d\.\d{3,}", page.inner_text(".panels")), "numbers are rounded"
    assert page.inner_text('[data-part="updated"]').startswith("updated ")


def test_a_chart_has_words_and_its_numbers_behind_it(open_page):
    page = open_page()
    page.wait_for_selector(DRAWN)
    for box in page.locator(".chart-box").all():
        chart = box.locator('[role="img"]').first
        assert chart.get_attribute("aria-label")
        assert chart.locator("svg").count() == 1
        box.locator("summary").click()
        assert box.locator("tbody tr").count() > 0
    page.locator('[data-key="agreement"] details td', has_text="not measured").first.wait_for()


def test_help_leads_to_the_raters_own_page_and_back(open_page):
    page = open_page()
    page.evaluate("window.isSamePage = true")
    page.locator(".people a", has_text="hasty").click()
    page.wait_for_selector('[data-chart="pace"] svg')
    assert page.url.endswith(f"?campaign={CAMPAIGN}#raters/hasty")
    assert page.evaluate("window.isSamePage")
    assert page.inner_text(".rater-head h2").startswith("hasty")
    page.wait_for_function("document.activeElement.dataset.panel === 'raters'")
    page.go_back()
    page.wait_for_selector(".answers")
    assert page.get_attribute('[data-tab="overview"]', "aria-selected") == "true"


def test_tabs_by_keyboard_and_each_has_an_address(open_page):
    page = open_page()
    page.locator('[data-tab="overview"]').focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("table.raters")
    assert page.url.endswith(f"?campaign={CAMPAIGN}#raters")
    assert page.evaluate("document.activeElement.dataset.tab") == "raters"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.tab") == "exports"
    page.keyboard.press("Home")
    page.wait_for_selector(".answers")
    page.reload()
    page.wait_for_selector(SHOWN)
    assert page.get_attribute('[data-tab="overview"]', "aria-selected") == "true"


def test_a_mistyped_address_opens_what_it_can(open_page):
    page = open_page(f"?campaign={CAMPAIGN}#raters/100%")
    assert page.locator("table.raters").count() == 1
    page = open_page("?campaign=nothing#nowhere")
    assert page.get_attribute('[data-tab="overview"]', "aria-selected") == "true"


def first_names(page) -> list[str]:
    return page.locator("table.raters tbody th a").all_inner_texts()


def test_the_table_sorts_by_every_column_and_keeps_the_focus(open_page):
    page = open_page(f"?campaign={CAMPAIGN}#raters")
    page.locator('[data-column="gold_accuracy"]').focus()
    page.keyboard.press("Enter")
    head = page.locator('th[data-key="gold_accuracy"]')
    assert head.get_attribute("aria-sort") == "descending"
    assert first_names(page)[-2:] == ["hasty", "sim-1"]  # what is not known comes last
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert first_names(page)[0] == "hasty"
    assert first_names(page)[-1] == "sim-1"
    assert page.evaluate("document.activeElement.dataset.column") == "gold_accuracy"
    for button in page.locator("button.sort").all():
        button.click()
        assert len(first_names(page)) == 6
    row = page.locator("tr", has_text="sim-1")
    assert "simulated" in row.inner_text()
    assert re.search(r"\d+% to \d+%, n \d+", page.locator("tr", has_text="ada").inner_text())


def test_a_rater_is_excluded_with_a_reason_and_restored(open_page, browser, serve, tmp_path):
    live = serve(rated_store(tmp_path))
    page = open_page(f"?campaign={CAMPAIGN}#raters/hasty", live=live)
    page.get_by_label("Not at all").check()
    page.get_by_role("button", name="Decide").click()
    assert page.locator(".decide textarea:invalid").count() == 1  # a reason is needed
    assert live.store.rater_decisions(CAMPAIGN) == []
    page.get_by_label("Give the items of this rater to others").check()
    page.get_by_label("Reason").fill("clicks without reading")
    page.get_by_role("button", name="Decide").click()
    page.wait_for_selector(".rater-head .chip.bad")
    (decision,) = live.store.rater_decisions(CAMPAIGN)
    assert (decision.weight, decision.reopen, decision.decided_by) == (0.0, True, "boss")
    assert "clicks without reading" in page.inner_text(".decisions")
    page.get_by_role("link", name="All raters").click()
    page.wait_for_selector("table.raters tr.out")
    page.get_by_role("link", name="hasty").click()
    page.get_by_label("Less").check()
    page.get_by_label("Weight").fill("0.25")
    page.get_by_label("Reason").fill("got better")
    page.get_by_role("button", name="Decide").click()
    page.wait_for_selector(".rater-head .chip.warn")
    assert live.store.rater_weights(CAMPAIGN) == {"hasty": 0.25}
    page.get_by_label("In full").check()
    page.get_by_label("Reason").fill("it was my mistake")
    page.get_by_role("button", name="Decide").click()
    page.wait_for_function("document.querySelectorAll('.decisions li').length === 3")
    assert live.store.rater_weights(CAMPAIGN) == {"hasty": 1.0}


def refresh_now(page, change) -> None:
    """Lets the page believe that 15 seconds have passed, and waits until it has asked again."""
    with page.expect_response(lambda reply: "/api/lead/overview" in reply.url):
        change()
        page.clock.fast_forward(16_000)
    page.wait_for_selector(SHOWN)


def test_it_refreshes_by_itself_without_losing_place_or_focus(
    open_page, browser, serve, tmp_path, monkeypatch
):
    monkeypatch.setattr("annotation_ui.lead.reports.FRESH_S", 0.0)
    monkeypatch.setattr("annotation_ui.lead.reports.REST", 0.0)
    live = serve(rated_store(tmp_path))
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    live.sign_in(context, "boss", "lead")
    page = context.new_page()
    page.clock.install()
    page.goto(f"{live.address}/lead/?campaign={CAMPAIGN}")
    page.wait_for_selector(SHOWN)
    page.wait_for_selector(DRAWN)
    before = page.inner_text('[data-key="done"]')
    page.locator('[data-key="throughput"] summary').click()
    page.locator(".people a").first.focus()
    page.evaluate("window.scrollTo(0, 300)")
    page.evaluate("window.oldChart = document.querySelector('[data-chart=verdicts] svg')")
    page.evaluate("window.oldCard = document.querySelector('[data-key=done]')")
    refresh_now(page, lambda: one_more(live.store))
    page.wait_for_function(
        "before => document.querySelector('[data-key=\"done\"]').innerText !== before", arg=before
    )
    assert page.evaluate("window.scrollY") == 300
    assert page.evaluate("document.activeElement.closest('.people') !== null")
    assert page.evaluate("document.querySelector('[data-key=throughput] details').open")
    assert page.evaluate("document.querySelector('[data-key=done]') === window.oldCard")
    page.wait_for_function(
        "document.querySelector('[data-chart=verdicts] svg') !== window.oldChart"
        " && document.querySelectorAll('[data-chart=verdicts] svg').length === 1"
    )
    page.evaluate("window.newChart = document.querySelector('[data-chart=verdicts] svg')")
    refresh_now(page, lambda: None)
    page.wait_for_timeout(300)
    # nothing new was judged: the drawing was not made again
    assert page.evaluate("document.querySelector('[data-chart=verdicts] svg') === window.newChart")
    context.close()


def one_more(store: Store) -> None:
    last: Judgement = store.judgements(CAMPAIGN, purposes={"rate"})[-1]
    waiting = [one for one in store.comparisons(CAMPAIGN) if one.item.startswith("item-1")]
    store.record(
        [replace(last, id="one more", item=waiting[-1].item, created_at=datetime.now(UTC))]
    )


def test_a_server_that_does_not_answer_is_said_and_what_is_shown_stays(browser, site):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(WAIT_MS)
    cut = threading.Event()  # a route that is set on a page that has loaded may come too late
    context.route(
        "**/api/lead/**", lambda route: route.abort() if cut.is_set() else route.continue_()
    )
    site.sign_in(context, "boss", "lead")
    page = context.new_page()
    with watched(page, site.address):
        page.goto(f"{site.address}/lead/?campaign={CAMPAIGN}")
        page.wait_for_selector(SHOWN)
        page.wait_for_selector(DRAWN)
        cut.set()
        page.locator('[data-tab="raters"]').click()
        page.wait_for_selector('.lead [role="alert"]:visible')
        assert "the server does not answer" in page.inner_text('.lead [data-part="notice"]')
        cut.clear()
        page.get_by_role("button", name="Try again").click()
        page.wait_for_selector("table.raters")
        assert page.is_hidden('.lead [data-part="notice"]')
    context.close()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("?campaign=bare", "This campaign has no items yet"),
        ("?campaign=waiting", "No judgement yet"),
        ("?campaign=waiting#raters", "No rater yet"),
    ],
)
def test_what_is_empty_says_so_and_what_to_do(open_page, where, words):
    page = open_page(where)
    assert words in page.inner_text(".empty h2")
    assert page.locator(".empty a").count() == 1
    assert violations(page) == []


def test_no_campaign_at_all(open_page, serve, tmp_path):
    live = serve(Store.open(tmp_path / "empty.db", create=True))
    page = open_page("", live=live)
    assert page.inner_text(".empty h2") == "No campaign yet"
    assert page.is_hidden('[data-part="chooser"]')


def test_the_chooser_changes_the_campaign_and_the_address(open_page):
    page = open_page()
    page.locator('select[data-part="campaign"]').select_option("waiting")
    page.wait_for_selector(".empty")
    assert "campaign=waiting" in page.url
    page.locator('select[data-part="campaign"]').select_option(CAMPAIGN)
    page.wait_for_selector(".answers")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("where", ["", "#raters", "#raters/lefty"])
def test_it_is_accessible_and_fits(open_page, where, width):
    page = open_page(f"?campaign={CAMPAIGN}{where}", width=width)
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every((one) => one.querySelector('svg'))"
    )
    assert violations(page) == []
    assert sideways(page) <= 0


def test_a_name_that_looks_like_markup_is_text(open_page, serve, tmp_path):
    name = "<img src=x onerror=alert(1)>"
    store = rated_store(tmp_path)
    from rlhf.records import Annotator

    store.add_annotator(Annotator(name=name))
    row = store.judgements(CAMPAIGN, annotator="hasty", purposes={"rate"})[0]
    free = [one.item for one in store.comparisons(CAMPAIGN)][-20:]
    rows = [replace(row, id=f"x{k}", item=item, annotator=name) for k, item in enumerate(free)]
    store.record([one for one in rows if one.item.startswith("item")])
    page = open_page(f"?campaign={CAMPAIGN}#raters", live=serve(store))
    assert name in first_names(page)
    page.get_by_role("link", name=name).click()
    page.wait_for_selector(".rater-head")
    assert page.inner_text(".rater-head h2").startswith(name)
    assert page.locator(".lead img").count() == 0
