"""Rating completions on a rubric, in a real Chromium."""

import pytest

from tests.annotation_ui.task_page import (
    MISSING,
    RATING,
    by_text,
    fits_the_phone,
    items,
    last,
    no_violation,
    rating_page,
    saving,
    shown,
    task_server,
    type_keys,
)

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="window.pwned=1"> ${window.pwned=1}'
CRITERIA = [
    {
        "name": "help",
        "title": "Helpfulness",
        "question": f"Does it do what was asked? {HOSTILE}",
        "low": 0,
        "high": 4,
        "anchors": {0: "Of no use", 2: "Half of it helps", 4: "Nothing to add"},
    },
    {"name": "truth", "title": "Truth", "question": "Is it true?", "low": 1, "high": 5},
    {"name": "score", "title": "Score", "low": 1, "high": 10, "anchors": {1: "Poor", 10: "Superb"}},
]


@pytest.fixture(scope="module")
def site(browser, serve, tmp_path_factory):
    return task_server(
        serve,
        tmp_path_factory,
        "ratings",
        {"criteria": CRITERIA},
        everyday=items(24, 2),
        one=items(2, 1),
        nine=items(2, 9),
    )


@pytest.fixture
def page(browser, site):
    with rating_page(browser, site) as page:
        yield page


def checked(page) -> list[str]:
    """What is chosen, as it is read aloud."""
    return page.eval_on_selector_all(
        '.criterion [role="radio"][aria-checked="true"]',
        "found => found.map((one) => one.closest('[role=radiogroup]').ariaLabel"
        " + ': ' + one.dataset.value)",
    )


def radio(page, letter, criterion, value):
    group = f'.criterion [role="radiogroup"][aria-label="{criterion} of completion {letter}"]'
    return page.locator(f'{group} [role="radio"]').filter(has_text=str(value)).first


def test_digits_rate_and_move_on_and_the_store_has_them_by_completion(page, site):
    orders = set()
    for _ in range(4):
        texts = shown(page)
        type_keys(page, "0 5 0 4 1 9")
        saving(page, lambda: page.keyboard.press("Enter"))
        row = last(site)
        orders.add(row.shown_order)
        assert by_text(site, row, row.ratings["help"]) == dict(zip(texts, [0, 4], strict=True))
        assert by_text(site, row, row.ratings["truth"]) == dict(zip(texts, [5, 1], strict=True))
        assert by_text(site, row, row.ratings["score"]) == dict(zip(texts, [10, 9], strict=True))
    assert orders == {(0, 1), (1, 0)}


def test_letters_and_arrows_go_where_they_say_and_space_chooses(page, site):
    type_keys(page, "b 3 a ArrowDown 2 ArrowUp ArrowUp ArrowRight ArrowRight Space")
    assert sorted(checked(page)) == [
        "Helpfulness of completion A: 1",
        "Helpfulness of completion B: 3",
        "Truth of completion A: 2",
    ]


def test_rating_by_mouse_alone(page, site):
    texts = shown(page)
    for letter, criterion, value in [
        ("A", "Helpfulness", 2), ("A", "Truth", 3), ("A", "Score", 10),
        ("B", "Helpfulness", 1), ("B", "Truth", 4), ("B", "Score", 7),
    ]:  # fmt: skip
        radio(page, letter, criterion, value).click()
    assert page.inner_text(".tally") == "6 of 6 rated"
    saving(page, page.get_by_role("button", name="Save").click)
    row = last(site)
    assert by_text(site, row, row.ratings["score"]) == dict(zip(texts, [10, 7], strict=True))


def test_every_criterion_is_explained_where_it_is_rated(page, site):
    row = page.locator(".criterion").first
    assert row.locator(".ends").inner_text().split("\n") == ["Of no use", "Nothing to add"]
    assert HOSTILE in row.locator(".question").text_content()
    words = page.locator(".legend .words")
    radio(page, "A", "Helpfulness", 2).hover()
    assert words.text_content() == "2Half of it helps"
    radio(page, "B", "Helpfulness", 3).hover()  # no words of its own: those around it
    assert words.text_content() == "3between2Half of it helps4Nothing to add"
    assert "B · Helpfulness" in page.inner_text(".legend")
    page.get_by_role("button", name="All values in words").click()
    assert page.locator(".all-values li").count() == 3


def test_what_is_missing_is_said_and_gone_to(page, site):
    before = len(site.judgements(current_only=False))
    type_keys(page, "0 1 1 b 0 ArrowDown ArrowDown 1 Enter")
    assert page.inner_text(MISSING) == "Not rated yet: Truth of completion B."
    assert page.inner_text(".criterion.now strong").startswith("Truth")
    assert len(site.judgements(current_only=False)) == before
    saving(page, lambda: type_keys(page, "5 Enter"))
    assert page.inner_text(MISSING) == ""


def test_ratings_outlive_a_reload_and_come_back_to_be_changed(page, site):
    texts = shown(page)
    type_keys(page, "0 1 2")
    page.reload()
    page.wait_for_selector(RATING)
    assert [name[-1] for name in checked(page)] == ["0", "1", "2"]
    type_keys(page, "4 5 6")  # the first open one is marked again
    saving(page, lambda: page.keyboard.press("Enter"))
    saving(page, lambda: page.keyboard.press("u"))
    assert (shown(page), len(checked(page))) == (texts, 6)
    type_keys(page, "a 3")
    saving(page, lambda: page.keyboard.press("Enter"))
    row = last(site)
    assert row.supersedes
    assert by_text(site, row, row.ratings["help"]) == dict(zip(texts, [3, 4], strict=True))
    assert by_text(site, row, row.ratings["score"]) == dict(zip(texts, [2, 6], strict=True))


@pytest.mark.parametrize(("campaign", "count"), [("one", 1), ("nine", 9)])
def test_one_completion_and_nine(browser, site, campaign, count):
    with rating_page(browser, site, campaign) as page:
        texts = shown(page)
        assert len(texts) == count
        for number in range(count):
            type_keys(page, f"{number % 5} {number % 5 + 1} 0")
        if count == 9:
            page.keyboard.press("d")  # completion D, not the differences
            assert page.locator(".card.now h2").inner_text() == "D"
            page.keyboard.press("Shift+D")
            page.wait_for_selector('[data-view="diff"][aria-pressed="true"]')
            page.keyboard.press("m")
        saving(page, lambda: page.keyboard.press("Enter"))
    row = last(site, campaign)
    expected = {text: number % 5 for number, text in enumerate(texts)}
    assert by_text(site, row, row.ratings["help"]) == expected


def test_a_phone_rates_one_big_row_at_a_time(browser, site):
    with rating_page(browser, site, size="phone") as page:
        fits_the_phone(page)
        assert not page.locator(".criterion .values").first.is_visible()
        for number in range(6):
            assert page.locator(".big-row [role=radiogroup]").count() == 1
            place = page.inner_text(".legend strong")
            assert place == "AB"[number // 3] + " · " + CRITERIA[number % 3]["title"]
            page.locator(".big-row [role=radio]").nth(2).tap()
        fits_the_phone(page)
        page.locator(".jump").filter(has_text="Truth").first.tap()
        page.locator(".big-row [role=radio]").nth(0).tap()
        saving(page, page.get_by_role("button", name="Save").tap)
        row = last(site)
        assert sorted(row.ratings["truth"]) == [1, 3]
        assert row.ratings["help"] == (2, 2)


@pytest.mark.parametrize("size", ["wide", "tablet", "phone"])
def test_no_accessibility_violation(browser, site, size):
    with rating_page(browser, site, size=size) as page:
        type_keys(page, "0 1")
        no_violation(page)
        page.keyboard.press("Enter")
        page.keyboard.press("?")
        no_violation(page)
