"""Saying what is wrong with each completion, in a real Chromium."""

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
    targets,
    task_server,
    type_keys,
)

pytestmark = pytest.mark.browser

HOSTILE = "<b onclick=alert(1)>Made up</b> ${window.pwned=1}"
FLAGS = ["unsafe", "private", {"name": "made_up", "label": HOSTILE}]


@pytest.fixture(scope="module")
def site(browser, serve, tmp_path_factory):
    settings = {"flags": FLAGS}
    return task_server(serve, tmp_path_factory, "flags", settings, everyday=items(16, 3))


@pytest.fixture
def page(browser, site):
    with rating_page(browser, site) as page:
        yield page


def found(site, texts):
    """The last stored flags, for the completions in the order of `texts`."""
    row = last(site)
    return [by_text(site, row, row.flags)[text] for text in texts]


def pressed(page) -> list[str]:
    return page.eval_on_selector_all(
        '[data-tick][aria-pressed="true"]',
        "found => found.map((one) => one.closest('[data-card]').dataset.card + one.dataset.tick)",
    )


def button(page, card, label):
    return page.locator(f'[data-card="{card}"]').get_by_role("button", name=label)


def test_letters_and_digits_flag_and_the_store_has_them_by_completion(page, site):
    orders = set()
    for _ in range(3):
        texts = shown(page)
        type_keys(page, "2 1 c 3 b 0")
        saving(page, lambda: page.keyboard.press("Enter"))
        assert found(site, texts) == [("private", "unsafe"), (), ("made_up",)]
        orders.add(last(site).shown_order)
    assert orders - {(0, 1, 2)}


def test_silence_is_no_answer(page, site):
    before = len(site.judgements(current_only=False))
    type_keys(page, "1 1 b 2 Enter")  # ticked and taken away again: not answered
    assert page.inner_text(MISSING).startswith("Not answered yet: A, C.")
    assert page.locator(".card.now h2").inner_text() == "A"
    type_keys(page, "0 Enter")  # nothing wrong with A; on to C
    assert page.inner_text(MISSING).startswith("Not answered yet: C.")
    assert len(site.judgements(current_only=False)) == before
    saving(page, lambda: type_keys(page, "0 Enter"))


def test_flagging_by_mouse_alone(page, site):
    texts = shown(page)
    assert button(page, 0, "Made up").inner_text().startswith(HOSTILE)
    button(page, 0, "Unsafe").click()
    button(page, 0, "Nothing wrong").click()  # takes the flag away
    button(page, 1, "Nothing wrong").click()
    button(page, 1, "Private").click()  # and a flag takes that away
    button(page, 2, "Made up").click()
    assert pressed(page) == ["0", "1private", "2made_up"]
    saving(page, page.get_by_role("button", name="Save").click)
    assert found(site, texts) == [(), ("private",), ("made_up",)]


def test_flags_outlive_a_reload_and_come_back_to_be_changed(page, site):
    texts = shown(page)
    type_keys(page, "1 3 b 0")
    page.reload()
    page.wait_for_selector(RATING)
    assert pressed(page) == ["0unsafe", "0made_up", "1"]
    type_keys(page, "2")  # C, the open one, is marked
    saving(page, lambda: page.keyboard.press("Enter"))
    saving(page, lambda: page.keyboard.press("u"))
    assert pressed(page) == ["0unsafe", "0made_up", "1", "2private"]
    type_keys(page, "a 1 ArrowRight 2")
    saving(page, lambda: page.keyboard.press("Enter"))
    assert last(site).supersedes
    assert found(site, texts) == [("made_up",), ("private",), ("private",)]


def test_a_phone_has_big_targets_in_the_cards(browser, site):
    with rating_page(browser, site, size="phone") as page:
        texts = shown(page)
        fits_the_phone(page)
        assert min(min(size) for size in targets(page, "[data-tick]")) >= 44
        button(page, 0, "Unsafe").tap()
        button(page, 1, "Nothing wrong").tap()
        button(page, 2, "Nothing wrong").tap()
        saving(page, page.get_by_role("button", name="Save").tap)
    assert found(site, texts) == [("unsafe",), (), ()]


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_no_accessibility_violation(browser, site, size):
    with rating_page(browser, site, size=size) as page:
        type_keys(page, "1 b 0 Enter")
        no_violation(page)


def test_more_completions_than_digits_are_all_there(browser, serve, tmp_path_factory):
    """An import may bring them; the last ones have no key of their own, and none is left out."""
    site = task_server(serve, tmp_path_factory, "flags", {"flags": FLAGS}, everyday=items(2, 28))
    with rating_page(browser, site) as page:
        texts = shown(page)
        assert len(texts) == 28
        assert page.locator('[data-card="27"] h2').inner_text() == "AB"
        for card in range(27):
            button(page, card, "Nothing").click()
        button(page, 27, "Unsafe").click()
        saving(page, lambda: page.keyboard.press("Enter"))
        assert found(site, texts) == [()] * 27 + [("unsafe",)]
        assert "AB: Unsafe" in page.locator("[data-part=history]").inner_text()
