"""The report in a real browser: nothing fetched, nothing executed, everything drawn."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.report.page import write_report
from rlhf.report.reading import read_run
from tests.report.conftest import Visit
from tests.report.reward_runs import WORST
from tests.report.runs import HOSTILE, make_run

pytestmark = pytest.mark.browser

NUM_CHARTS = (
    "[document.querySelectorAll('.chart').length, document.querySelectorAll('.chart svg').length]"
)
# How far anything visible reaches beyond the window, in pixels; tables scroll by themselves.
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
NUM_DRAWN = 25  # wins 1, shape 2, gate 5, reward 8 and its curves 3, DPO 4, SFT's curves 2
SHOWN = "[...document.querySelectorAll('.prompt')].filter((card) => !card.hidden).length"


def report_of(folder: Path, **options) -> Path:
    run = read_run(make_run(folder / "run", **options))
    if run.heldout:
        run.heldout[WORST] |= {"prompt": HOSTILE, "rejected": HOSTILE}
    return write_report(run, folder / "report.html")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(tmp_path_factory.mktemp("report"), gate="overridden")


def test_fetches_nothing_and_has_no_error(report: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(report, NUM_CHARTS)
    assert seen.requests == [report.as_uri()]
    assert seen.messages == []
    charts, drawn = seen.values[0]
    assert charts == drawn == NUM_DRAWN


def test_hostile_completions_are_shown_and_not_run(
    report: Path, visit: Callable[..., Visit]
) -> None:
    texts = "[...document.querySelectorAll('.text')].map((cell) => cell.textContent)"
    images = "document.querySelectorAll('main img, main script, .text *:not(em, mark)').length"
    seen = visit(report, "String(window.pwned)", texts, images)
    assert seen.values[0] == "undefined"
    assert HOSTILE in seen.values[1]
    assert seen.values[2] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 360, "height": 740}},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    ],
    ids=["phone", "dark"],
)
def test_fits_the_window(report: Path, visit: Callable[..., Visit], options: dict) -> None:
    seen = visit(report, OVERFLOW, NUM_CHARTS, **options)
    assert seen.values[0] <= 0
    assert seen.values[1] == [NUM_DRAWN, NUM_DRAWN]


def test_dark_is_dark_in_the_charts_too(report: Path, visit: Callable[..., Visit]) -> None:
    fill = "getComputedStyle(document.querySelector('.chart .role-axis-label text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = visit(report, fill, paper, color_scheme="dark").values
    light = visit(report, fill, paper, color_scheme="light").values
    assert dark == ["rgb(230, 233, 240)", "rgb(18, 21, 28)"]
    assert light == ["rgb(29, 36, 51)", "rgb(251, 251, 253)"]


def test_ten_prompts_then_search_and_show_all(report: Path, visit: Callable[..., Visit]) -> None:
    search = """(() => { const box = document.getElementById("search");
        box.value = "question 42:"; box.dispatchEvent(new Event("input")); })()"""
    everything = "document.getElementById('show-all').click()"
    seen = visit(report, SHOWN, search, SHOWN, everything, SHOWN, everything, SHOWN)
    assert [seen.values[index] for index in (0, 2, 4, 6)] == [10, 1, 96, 10]


def test_a_stage_of_the_chain_opens_what_it_rests_on(
    report: Path, visit: Callable[..., Visit]
) -> None:
    click = "document.querySelector('a[href=\"#stage-reward\"]').click()"
    is_open = (
        "new Promise((done) => setTimeout("
        "() => done(document.getElementById('stage-reward').open), 50))"
    )
    text = "document.getElementById('stage-reward').textContent"
    seen = visit(report, click, is_open, text)
    assert seen.values[1] is True
    assert "ab" * 32 in seen.values[2]  # the hash of the labels
    assert "judgement-00000" in seen.values[2]


def test_a_misjudged_pair_leads_to_its_judgement_and_back(
    report: Path, visit: Callable[..., Visit]
) -> None:
    click = "document.querySelector('{}').click()"
    # Where the link leads must be open to the eye: inside the window, not in closed details.
    seen_at = """new Promise((done) => setTimeout(() => {{
        const box = document.getElementById("{}").getBoundingClientRect();
        done(box.height > 0 && box.top >= 0 && box.top < innerHeight); }}, 1500))"""
    row = "judgement-judgement-00021"
    seen = visit(
        report,
        click.format(f'#pair-1 a[href="#{row}"]'),
        seen_at.format(row),
        click.format(f'[id="{row}"] a[href="#pair-1"]'),
        seen_at.format("pair-1"),
    )
    assert [seen.values[1], seen.values[3]] == [True, True]


def test_on_paper_nothing_stays_folded(report: Path, visit: Callable[..., Visit]) -> None:
    folded = (
        "document.querySelectorAll('details.origin:not([open]), details.more:not([open])').length"
    )
    seen = visit(report, "dispatchEvent(new Event('beforeprint'))", folded)
    assert seen.values[1] == 0


def test_a_run_without_evaluation_still_opens(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(report_of(tmp_path, stages=("sft", "reward")), NUM_CHARTS, OVERFLOW)
    assert seen.messages == []
    charts, drawn = seen.values[0]
    assert charts == drawn == 13  # two of SFT, and the reward model's eight and three
    assert seen.values[1] <= 0


def test_no_violation_that_axe_finds(report: Path, visit: Callable[..., Visit]) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    script = AXE_FILE_PATH.read_text()
    run = """axe.run(document, {resultTypes: ["violations"]}).then((result) =>
        result.violations.map((one) => one.id + ": " + one.nodes[0].html.slice(0, 160)))"""
    for scheme in ("light", "dark"):
        seen = visit(report, script, run, color_scheme=scheme)
        assert seen.values[1] == []
