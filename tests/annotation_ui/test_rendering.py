"""Rendered text is inert and complete."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_ui.rendering import (
    MAX_DIFF_CELLS,
    MAX_MARKDOWN_CHARS,
    UNSEEN,
    render_guideline,
    render_inert,
    render_plain,
    word_diff,
)
from tests.annotation_ui.payloads import HOSTILE

_TAGS = """p br em strong s code pre ul ol li blockquote h1 h2 h3 h4 h5 h6 hr
table thead tbody tr th td div span"""
ALLOWED_TAGS = set(_TAGS.split())
ALLOWED_CLASSES = {"plain", "blank", "fence-info", "unseen"}
MARKUP = set("#*_`~->+=|:.)\\")


class Inspected(HTMLParser):
    """Every tag and attribute of a rendering, and its text with list numbers."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED_TAGS, tag
        for name, value in attrs:
            if name == "class":
                assert value in ALLOWED_CLASSES
            elif name == "data-code":
                assert re.fullmatch(r"U\+[0-9A-F]{4,6}", value)
            elif name == "style":  # the alignment of a table's column
                assert re.fullmatch(r"text-align:(left|right|center)", value)
            else:
                assert (tag, name) in {("li", "value"), ("ol", "start")}
                assert value.isdecimal()
        if tag == "li":
            self.text += dict(attrs).get("value", "")

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment hides {data!r}")


def words(text: str) -> str:
    kept = [char for char in text if not char.isspace() and char not in MARKUP]
    return "".join(kept).replace("\0", "\ufffd")


def test_there_are_enough_payloads():
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_inert_and_all_there(name):
    text = HOSTILE[name]
    seen = Inspected(render_inert(text)).text
    assert words(seen) == words(text)
    assert seen.strip()


@pytest.mark.parametrize("name", HOSTILE)
def test_plain_text_is_unaltered(name):
    assert Inspected(render_plain(HOSTILE[name])).text == HOSTILE[name]


@given(st.text(max_size=300))
def test_any_text_is_inert_and_all_there(text):
    inspected = Inspected(render_inert(text))
    if text.strip():
        assert words(inspected.text) == words(text)
    else:
        assert "(" in inspected.text  # "(empty)" or "(only white space, ...)"


@given(st.text(alphabet="*_`~#>-+=|:.)([]!<>&;\\/ \n\t0a1\u200b", max_size=200))
def test_any_mess_of_markup_is_inert_and_all_there(text):
    inspected = Inspected(render_inert(text))
    if text.strip():
        assert words(inspected.text) == words(text)


def test_markdown_is_formatted():
    html = render_inert("**bold** and `x<y`\n\n- one\n- two\n\n| a |\n|---|\n| 1 |")
    for part in ("<strong>bold</strong>", "<code>x&lt;y</code>", "<li>one</li>", "<td>1</td>"):
        assert part in html


def test_a_list_keeps_its_own_numbers():
    html = render_inert("3. three\n7. seven")
    assert '<li value="3">three</li>' in html
    assert '<li value="7">seven</li>' in html


def test_what_markdown_would_swallow_is_shown_plain():
    assert "hidden cell" in render_inert(HOSTILE["table overflow"])
    assert render_inert(HOSTILE["table overflow"]).startswith('<div class="plain">')
    assert "buried words" in render_inert(HOSTILE["deep nesting"])


def test_the_language_of_a_code_block_is_printed():
    assert '<div class="fence-info">python</div>' in render_inert("```python\nx\n```")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\u200bb", "U+200B"),
        ("a\u202eb", "U+202E"),
        ("a\U000e0041b", "U+E0041"),
        ("a\x07", "U+0007"),
    ],
)
def test_unseen_characters_print_their_code_point(text, code):
    assert f'data-code="{code}"' in render_inert(text)
    assert f'data-code="{code}"' in render_plain(text)


def test_joiners_that_scripts_and_emoji_need_are_left_alone():
    family = "\U0001f468\u200d\U0001f469"
    assert UNSEEN.search(family) is None
    assert UNSEEN.search("\u0645\u06cc\u200c\u062e") is None
    assert UNSEEN.search("pass\u200dword")


def test_blank_completions_say_so():
    assert "(empty)" in render_inert("")
    assert "only white space, 3 characters" in render_inert(" \n ")


def test_very_long_text_is_plain_and_whole():
    text = "**x** " * (MAX_MARKDOWN_CHARS // 6 + 1)
    assert Inspected(render_inert(text)).text == text


def test_word_diff_marks_what_the_other_lacks():
    a, b = word_diff("the red cat sat", "the grey cat sat down")
    assert a == [("the ", False), ("red", True), (" cat sat", False)]
    assert b == [("the ", False), ("grey", True), (" cat sat", False), (" down", True)]


def test_word_diff_of_equal_texts_marks_nothing():
    assert word_diff("same\n text", "same\n text") == ([("same\n text", False)],) * 2


@given(st.text(max_size=200), st.text(max_size=200))
def test_word_diff_gives_both_texts_back(a, b):
    side_a, side_b = word_diff(a, b)
    assert "".join(text for text, _ in side_a) == a
    assert "".join(text for text, _ in side_b) == b
    kept = ["".join(text for text, changed in side if not changed) for side in (side_a, side_b)]
    assert kept[0] == kept[1]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["x y ", "x\n", "x"])
def test_word_diff_of_huge_repetitive_texts_is_quick_and_exact(unit):
    a, b = unit * 5000, unit.replace("x", "z", 1) + unit * 5001
    assert MAX_DIFF_CELLS < 5000 * 5001
    side_a, side_b = word_diff(a, b)
    assert "".join(text for text, _ in side_a) == a
    assert "".join(text for text, _ in side_b) == b


def test_a_guideline_wrapped_by_hand_flows_and_a_completion_keeps_its_lines():
    text = "Prefer the completion\nthat is *right*."
    assert "<br" in render_inert(text)
    assert render_guideline(text) == "<p>Prefer the completion\nthat is <em>right</em>.</p>\n"
    assert "<script" not in render_guideline("<script>alert(1)</script>")
