"""The page that is put together from its files."""

import re
from typing import get_args

import pytest

from annotation_ui.components import _SCRIPTS, STATIC, page_markup, page_script
from annotation_ui.lead import lead_style
from rlhf.records import TaskType

FILES = sorted(path for path in STATIC.rglob("*.*") if path.is_file())


def test_gradio_finds_nothing_to_fill_in_the_markup():
    """The markup is a Handlebars template and a template literal: data must never be either."""
    markup = page_markup()
    for mark in ("${", "{{", "`", "\\", "@children", "@style", "@reasons"):
        assert mark not in markup, mark
    assert markup.count('class="rate"') == 1


def test_every_placeholder_of_the_script_is_filled():
    assert re.findall(r"@\w+_ms", page_script()) == []


def test_every_script_is_on_the_page():
    found = {str(path.relative_to(STATIC)) for path in FILES if path.suffix == ".js"}
    assert found == {*_SCRIPTS, "mount.js"}


def test_every_task_has_its_script():
    for task in get_args(TaskType):
        assert f"tasks.{task} = {{" in page_script()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_page_is_too_long_to_read(path):
    assert len(path.read_text("utf-8").splitlines()) < 320


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_data_enters_the_page_as_text_only(path):
    """`innerHTML` takes what `render_inert` made, under its name, and nothing else."""
    for line in path.read_text("utf-8").splitlines():
        for value in re.findall(r"innerHTML = (.+?);", line):
            assert value in {"turn.html", "completion.html", "view.guideline"}, line
        assert "insertAdjacentHTML" not in line
        assert "outerHTML" not in line


def test_the_leads_sheet_holds_nothing_that_gradio_would_break():
    """Gradio splits selectors at every comma, and keeps no rules but these."""
    sheet = re.sub(r"/\*.*?\*/", "", lead_style(), flags=re.DOTALL)
    assert not re.search(r":(is|not|where)\([^)]*,", sheet)
    assert set(re.findall(r"@([\w-]+)", sheet)) <= {"media", "keyframes", "font-face"}
