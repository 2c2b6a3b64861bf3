"""The page in a real browser: nothing fetched, everything drawn, light, dark and on a phone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.conftest import Visit
from tests.report.test_browser import NUM_CHARTS, OVERFLOW
from tests.sweep.studies import mixed, written

pytestmark = pytest.mark.browser

NUM_DRAWN = 6  # in their order, three parameters, what mattered, on the way


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sweep"), simulated=True)


def test_fetches_nothing_and_has_no_error(page: Path, visit: Callable[..., Visit]) -> None:
    rows = "[...document.querySelectorAll('#trials tbody tr')].map((row) => row.innerText)"
    seen = visit(page, NUM_CHARTS, rows)
    assert seen.requests == [page.as_uri()]
    assert seen.messages == []
    assert seen.values[0] == [NUM_DRAWN, NUM_DRAWN]
    assert len(seen.values[1]) == 12
    assert "best" in seen.values[1][0]
    assert "the loss became NaN" in seen.values[1][-1]


def test_every_trial_that_was_measured_is_a_dot(page: Path, visit: Callable[..., Visit]) -> None:
    dots = "document.querySelectorAll('#chart-sweep-{} .mark-symbol.role-mark path').length"
    seen = visit(page, *[dots.format(index) for index in range(4)])
    assert seen.values == [11, 11, 11, 11]  # the failed one has no value


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 360, "height": 740}},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    ],
    ids=["phone", "dark"],
)
def test_fits_the_window(page: Path, visit: Callable[..., Visit], options: dict) -> None:
    seen = visit(page, OVERFLOW, NUM_CHARTS, **options)
    assert seen.values[0] <= 0
    assert seen.values[1] == [NUM_DRAWN, NUM_DRAWN]


def test_simulated_numbers_are_marked(page: Path, visit: Callable[..., Visit], tmp_path) -> None:
    marks = "document.querySelectorAll('#trials .sim').length"
    banner = "document.querySelectorAll('.banner').length"
    assert visit(page, marks, banner).values == [11, 1]
    assert visit(written(tmp_path), marks, banner).values == [0, 0]


def test_no_violation_that_axe_finds(page: Path, visit: Callable[..., Visit]) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    run = """axe.run(document, {resultTypes: ["violations"]}).then((result) =>
        result.violations.map((one) => one.id + ": " + one.nodes[0].html.slice(0, 160)))"""
    for scheme in ("light", "dark"):
        seen = visit(page, AXE_FILE_PATH.read_text(), run, color_scheme=scheme)
        assert seen.values[1] == []


def test_hostile_settings_are_text(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    from dataclasses import replace

    from rlhf.sweep.outcome import write_outcome

    plan, trials = mixed()
    plan = replace(plan, settings={"dataset_name": "</script><img src=x onerror='window.pwned=1'>"})
    trials[4].set_user_attr("reason", "<img src=x onerror='window.pwned=1'>")
    write_outcome(plan, trials, tmp_path)
    seen = visit(tmp_path / "sweep.html", "String(window.pwned)", "document.images.length")
    assert seen.values == ["undefined", 0]
    assert seen.messages == []
