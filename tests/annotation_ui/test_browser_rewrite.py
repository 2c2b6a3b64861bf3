"""Writing a better completion, in a real Chromium."""

from pathlib import Path

import pytest

import annotation_ui
from tests.annotation_ui.payloads import HOSTILE
from tests.annotation_ui.task_page import (
    MISSING,
    RATING,
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

TASKS = Path(annotation_ui.__file__).parent / "static" / "rate" / "tasks"
DIALOG = "dialog[open]"


@pytest.fixture(scope="module")
def site(browser, serve, tmp_path_factory):
    windows = [
        "First line\r\nsecond line\u200b",
        "<think>x</think> <img src=x onerror=window.pwned=1>",
    ]
    long = ["\n".join(f"Line {number} of a long text" for number in range(60)), "Short"]
    return task_server(
        serve, tmp_path_factory, "rewrite", {},
        everyday=items(20, 2), windows=items(2, 2, windows), long=items(2, 2, long),
    )  # fmt: skip


@pytest.fixture
def page(browser, site):
    with rating_page(browser, site) as page:
        yield page


def field(page):
    return page.get_by_label("Your completion").and_(page.locator("textarea"))


def changes(page, kind) -> list[str]:
    return page.locator(f".changes {kind}").all_text_contents()


def source_text(site, row):
    """The text of the completion that a stored rewrite mends."""
    comparison = next(one for one in site.store.comparisons(row.campaign) if one.item == row.item)
    return comparison.completions[row.rewrite_of].text


def test_mending_by_keyboard_keeps_which_completion_it_was(page, site):
    orders = set()
    for letter in "ababab":
        source = shown(page)["ab".index(letter)]
        page.keyboard.press(letter)
        assert field(page).input_value() == source
        type_keys(page, "Control+End")
        page.keyboard.type(", a better 1")  # letters and digits are text here
        saving(page, lambda: page.keyboard.press("Control+Enter"))
        row = last(site)
        assert row.rewrite == f"{source}, a better 1"
        assert source_text(site, row) == source
        orders.add(row.shown_order)
    assert orders == {(0, 1), (1, 0)}


def test_writing_a_new_one_by_mouse(page, site):
    page.get_by_role("button", name="Write a new one").click()
    assert page.locator(":focus").get_attribute("aria-label") == "Your completion"
    field(page).fill("  One line\n\ttwo 🎉\n")
    assert page.inner_text(".count-words") == "3 words"
    saving(page, page.get_by_role("button", name="Save").click)
    row = last(site)
    assert (row.rewrite, row.rewrite_of) == ("  One line\n\ttwo 🎉\n", None)


def test_empty_and_unchanged_are_refused_in_words(page, site):
    before = len(site.judgements(current_only=False))
    page.keyboard.press("Enter")
    assert page.inner_text(MISSING).startswith("Nothing written yet")
    type_keys(page, "w Control+Enter")
    assert page.inner_text(MISSING) == "Nothing written yet."
    type_keys(page, "Escape a Control+Enter")
    assert page.inner_text(MISSING).startswith("Nothing changed")
    assert len(site.judgements(current_only=False)) == before
    saving(page, lambda: type_keys(page, "Escape k"))
    assert last(site).rewrite == source_text(site, last(site))


def test_good_as_it_is_saves_the_text_to_the_letter(browser, site):
    with rating_page(browser, site, "windows") as page:
        index = next(at for at, text in enumerate(shown(page)) if text.startswith("First"))
        page.keyboard.press("ab"[index])
        assert field(page).input_value() == "First line\nsecond line\u200b"
        saving(page, page.get_by_role("button", name="Good as it is").click)
        assert last(site, "windows").rewrite == "First line\r\nsecond line\u200b"


def test_edits_are_thrown_away_only_when_asked(page, site):
    texts = shown(page)
    page.keyboard.press("a")
    type_keys(page, "Control+End")
    page.keyboard.type(" mine")
    type_keys(page, "Escape b")
    assert page.is_visible(DIALOG)
    page.keyboard.press("Escape")
    assert field(page).input_value() == f"{texts[0]} mine"
    page.get_by_role("button", name="Write a new one").click()
    page.get_by_role("button", name="Keep my text").click()
    assert field(page).input_value() == f"{texts[0]} mine"
    page.get_by_role("button", name="Start from completion B").click()
    page.get_by_role("button", name="Start again from B").click()
    assert field(page).input_value() == texts[1]
    page.keyboard.press("Escape")
    page.keyboard.press("a")  # nothing of one's own in it: no question
    assert page.is_hidden(DIALOG)
    assert field(page).input_value() == texts[0]


def test_what_was_changed_is_shown_as_it_is_written(page):
    page.keyboard.press("a")
    assert page.inner_text(".changes") == "Nothing changed yet"
    source = field(page).input_value()
    field(page).fill(source.replace("Answer", "Solution") + " <b>new</b>")
    assert changes(page, "del") == ["Answer"]
    assert changes(page, "ins") == ["Solution", " <b>new</b>"]


def test_a_draft_outlives_a_reload_and_comes_back_to_be_changed(page, site):
    type_keys(page, "b Control+End")
    page.keyboard.type(" and more")
    written = field(page).input_value()
    page.reload()
    page.wait_for_selector(RATING)
    assert field(page).input_value() == written
    assert changes(page, "ins") == [" and more"]
    page.get_by_role("button", name="Start from completion B").click()  # back into the text
    saving(page, lambda: page.keyboard.press("Control+Enter"))
    saving(page, lambda: page.keyboard.press("u"))
    assert field(page).input_value() == written
    field(page).fill("Quite another")
    saving(page, lambda: page.keyboard.press("Control+Enter"))
    row = last(site)
    assert row.supersedes
    assert (row.rewrite, source_text(site, row) + " and more") == ("Quite another", written)


def test_a_phone_has_a_field_that_grows(browser, site):
    with rating_page(browser, site, "long", size="phone") as page:
        fits_the_phone(page)
        index = next(at for at, text in enumerate(shown(page)) if text.startswith("Line"))
        page.get_by_role("button", name=f"Start from completion {'AB'[index]}").tap()
        assert min(min(size) for size in targets(page, ".starts button")) >= 44
        assert field(page).evaluate("one => one.scrollHeight <= one.clientHeight")
        assert field(page).bounding_box()["height"] > 1000
        fits_the_phone(page)


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_no_accessibility_violation(browser, site, size):
    with rating_page(browser, site, size=size) as page:
        no_violation(page)
        page.keyboard.press("a")
        page.keyboard.type("new ")
        type_keys(page, "Delete")
        no_violation(page)
        type_keys(page, "Escape w")
        no_violation(page)


def test_changes_hold_both_texts_whole(browser):
    """Same and gone are the text before, same and new the one after: whatever the texts."""
    page = browser.new_page()
    script = (TASKS / "word_changes.js").read_text("utf-8")
    texts = [*HOSTILE.values(), "", "one two three", "two three one", "日本語の文章", "日本の文"]
    pairs = [[one, two] for one, two in zip(texts, [*texts[7:], *texts[:7]], strict=True)]
    pairs += [["a b c d", "a c d e"], ["x " * 3000, "y " * 3000]]
    found = page.evaluate(
        "([script, pairs]) => pairs.map("
        "new Function(script + '; return (pair) => wordChanges(...pair)')())",
        [script, pairs],
    )
    for (before, after), pieces in zip(pairs, found, strict=True):
        assert "".join(text for text, kind in pieces if kind != "new") == before
        assert "".join(text for text, kind in pieces if kind != "gone") == after
    assert found[-2] == [["a ", "same"], ["b ", "gone"], ["c d", "same"], [" e", "new"]]
    page.close()
