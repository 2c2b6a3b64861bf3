"""Ranking completions, ties and all, in a real Chromium."""

import itertools
import json
from pathlib import Path

import pytest

import annotation_ui
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

TASKS = Path(annotation_ui.__file__).parent / "static" / "rate" / "tasks"


@pytest.fixture(scope="module")
def site(browser, serve, tmp_path_factory):
    return task_server(
        serve, tmp_path_factory, "ranking", {}, everyday=items(24, 4), nine=items(3, 9)
    )


@pytest.fixture
def page(browser, site):
    with rating_page(browser, site) as page:
        yield page


@pytest.fixture
def nine(browser, site):
    with rating_page(browser, site, "nine") as page:
        yield page


def order(page) -> str:
    """The order so far as the page says it, such as "1B 2A = C Not ranked yet: D"."""
    return " ".join(page.locator(".ranks-line > span").all_text_contents())


def ranking_of(site, texts, campaign="everyday"):
    """The last stored ranking, for the completions in the order of `texts`."""
    row = last(site, campaign)
    return [by_text(site, row, row.ranking)[text] for text in texts]


def drag(page, letter, target, up_to=0.5):
    """Drags an item by the mouse, and drops it at that share of the target's height."""
    item = page.locator(f".board .item:has(strong:text-is('{letter}'))").bounding_box()
    page.mouse.move(item["x"] + 20, item["y"] + 20)
    page.mouse.down()
    box = page.locator(target).bounding_box()
    y = box["y"] + up_to * box["height"]
    page.mouse.move(box["x"] + box["width"] / 2, y - 3)
    page.mouse.move(box["x"] + box["width"] / 2, y)
    assert page.locator(".ghost").count() == 1
    page.mouse.up()
    assert page.locator(".ghost").count() == 0


def test_digits_rank_in_turn_and_the_store_has_them_by_completion(page, site):
    orders = set()
    for _ in range(3):
        texts = shown(page)
        type_keys(page, "4 1 2 2")
        assert order(page) == "1B 2C = D 3A"  # the rank left empty closes up
        saving(page, lambda: page.keyboard.press("Enter"))
        assert ranking_of(site, texts) == [3, 1, 2, 2]
        orders.add(last(site).shown_order)
    assert orders - {(0, 1, 2, 3)}


def test_letters_pick_and_arrows_move_tie_and_part(page, site):
    texts = shown(page)
    type_keys(page, "d 1 c 2 b 3 a 4")
    assert order(page) == "1D 2C 3B 4A"
    page.keyboard.press("ArrowUp")  # A, past B
    assert order(page) == "1D 2C 3A 4B"
    page.keyboard.press("=")
    assert order(page) == "1D 2A = C 3B"
    assert page.inner_text('.board [role="status"]') == "A: rank 2, tied with C"
    type_keys(page, "c -")  # out of the tie, below
    assert order(page) == "1D 2A 3C 4B"
    type_keys(page, "ArrowLeft +")  # B, past C
    assert order(page) == "1D 2A 3B 4C"
    type_keys(page, "d = 0")  # none is above it; without a rank again
    assert order(page) == "1A 2B 3C Not ranked yet: D"
    page.keyboard.press("ArrowUp")  # without a rank: in at the end
    saving(page, lambda: page.keyboard.press("Enter"))
    assert ranking_of(site, texts) == [1, 2, 3, 4]


def test_nothing_is_ranked_until_the_rater_does_it(page, site):
    before = len(site.judgements(current_only=False))
    assert order(page) == "Not ranked yet: A, B, C, D"
    page.keyboard.press("Enter")
    assert page.inner_text(MISSING) == "Not ranked yet: A, B, C, D."
    type_keys(page, "1 2 3 Enter")
    assert page.inner_text(MISSING) == "Not ranked yet: D."
    assert page.locator(".card.now h2").inner_text() == "D"
    assert len(site.judgements(current_only=False)) == before


def test_ranking_by_mouse_alone(page, site):
    texts = shown(page)
    drag(page, "B", '.slot[data-rank="1"]')
    drag(page, "A", '.slot[data-rank="2"]')
    drag(page, "C", '.slot[data-rank="2"]')  # onto A: a tie
    assert order(page) == "1B 2A = C Not ranked yet: D"
    drag(page, "D", '.slot[data-rank="2"]', 0.05)  # between the first two
    assert order(page) == "1B 2D 3A = C"
    drag(page, "B", '.slot[data-rank="3"]', 0.95)  # below the tie
    assert order(page) == "1D 2A = C 3B"
    drag(page, "D", ".tray")
    assert order(page) == "1A = C 2B Not ranked yet: D"
    page.locator('.slot[data-rank="1"] .give').click()  # D is picked: it was dragged last
    saving(page, page.get_by_role("button", name="Save").click)
    assert ranking_of(site, texts) == [2, 3, 2, 1]


def test_a_drag_that_is_given_up_changes_nothing(page):
    item = page.locator(".board .item").first.bounding_box()
    slot = page.locator('.slot[data-rank="1"]').bounding_box()
    page.mouse.move(item["x"] + 9, item["y"] + 9)
    page.mouse.down()
    page.mouse.move(slot["x"] + 99, slot["y"] + 9, steps=3)
    assert page.locator(".slot.aim").count() == 1
    page.keyboard.press("Escape")
    page.mouse.up()
    assert page.locator(".ghost, .slot.aim").count() == 0
    assert order(page) == "Not ranked yet: A, B, C, D"


def test_picking_shows_the_whole_text(nine):
    page = nine
    page.keyboard.press("f")  # completion F, though F is a key of the page too
    card = page.locator(".card.now")
    assert card.locator("h2").inner_text() == "F"
    box, cards = card.bounding_box(), page.locator(".cards").bounding_box()
    assert cards["y"] - 1 <= box["y"]
    assert box["y"] + box["height"] <= cards["y"] + cards["height"] + 1


def test_nine_are_ranked_and_come_back_to_be_changed(nine, site):
    page = nine
    texts = shown(page)
    type_keys(page, "9 8 7 6")
    page.reload()
    page.wait_for_selector(RATING)
    assert order(page) == "1D 2C 3B 4A Not ranked yet: E, F, G, H, I"
    type_keys(page, "5 4 3 2 1")
    saving(page, lambda: page.keyboard.press("Enter"))
    assert ranking_of(site, texts, "nine") == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    saving(page, lambda: page.keyboard.press("u"))
    assert order(page) == "1I 2H 3G 4F 5E 6D 7C 8B 9A"
    type_keys(page, "a =")
    saving(page, lambda: page.keyboard.press("Enter"))
    assert last(site, "nine").supersedes
    assert ranking_of(site, texts, "nine") == [8, 8, 7, 6, 5, 4, 3, 2, 1]


def test_a_phone_ranks_by_taps_and_by_dragging_with_a_finger(browser, site):
    with rating_page(browser, site, size="phone") as page:
        texts = shown(page)
        fits_the_phone(page)
        for rank in (2, 1, 2):  # A, B, C: the next one is picked by itself
            page.locator(f'.slot[data-rank="{rank}"] .give').tap()
        finger = page.context.new_cdp_session(page)
        start = page.locator(".tray .item").nth(3).bounding_box()
        end = page.locator('.slot[data-rank="3"]').bounding_box()
        for kind, box in (("touchStart", start), ("touchMove", end), ("touchEnd", None)):
            page.wait_for_timeout(120)  # as a finger does; a flick would swallow the next tap
            points = [{"x": box["x"] + 20, "y": box["y"] + 20}] if box else []
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        assert order(page) == "1B 2A = C 3D"
        fits_the_phone(page)
        saving(page, page.get_by_role("button", name="Save").tap)
        assert ranking_of(site, texts) == [2, 1, 2, 3]


@pytest.mark.parametrize("size", ["wide", "tablet", "phone"])
def test_no_accessibility_violation(browser, site, size):
    with rating_page(browser, site, size=size) as page:
        no_violation(page)
        type_keys(page, "2 1 2 Enter ?")
        no_violation(page)


def test_putting_one_between_two_keeps_the_order_of_all_others(browser):
    """Every way to rank some of three and all of four; every one put below every rank."""
    page = browser.new_page()
    script = "const tasks = {};" + (TASKS / "ranking.js").read_text("utf-8")
    cases = [
        (ranks, index, above)
        for count, ways in ((3, [None, 1, 2, 3]), (4, [1, 2, 3, 4]))
        for ranks in itertools.product(ways, repeat=count)
        for index in range(count)
        for above in range(count + 1)
    ]
    found = page.evaluate(
        "([script, cases]) => JSON.stringify(JSON.parse(cases).map("
        "new Function(script + '; return (one) => insertRank(...one)')()))",
        [script, json.dumps(cases)],
    )
    for (ranks, index, above), after in zip(cases, json.loads(found), strict=True):
        others = [at for at in range(len(ranks)) if at != index]
        assert all(after[at] is None for at in others if ranks[at] is None)
        placed = [at for at in others if ranks[at] is not None]
        assert after[index] in range(1, len(ranks) + 1)
        for at in placed:
            assert (after[at] < after[index]) == (ranks[at] <= above), (ranks, index, above, after)
            assert after[at] != after[index]
        for one, two in itertools.combinations(placed, 2):
            assert (ranks[one] < ranks[two]) == (after[one] < after[two])
            assert (ranks[one] == ranks[two]) == (after[one] == after[two])
    page.close()
