"""What was on screen and what is stored are the same answer, whatever the sides."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_ui.answers import Answer, answer_of, is_same, values_of, verdict_of
from rlhf.errors import DataError
from rlhf.feedback.rules import problem_with
from rlhf.records import Comparison, Completion, Judgement, Prompt

NAMES = st.sampled_from(["unsafe", "private", "off topic", "sprache", "h\u00f6flich"])


def judgement(shown_order, **values) -> Judgement:
    return Judgement(
        id="j",
        campaign="c",
        item="i",
        annotator="ada",
        simulated=False,
        seconds=1.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        shown_order=tuple(shown_order),
        **values,
    )


@st.composite
def shown(draw, low=1, high=9):
    return tuple(draw(st.permutations(range(draw(st.integers(low, high))))))


def rows(count, values):
    return st.lists(values, min_size=count, max_size=count)


@st.composite
def answers(draw):
    """An order on screen, and an answer of any mix of kinds for it."""
    order = draw(shown())
    count = len(order)
    answer = {}
    if count == 2 and draw(st.booleans()):
        answer |= {"choice": draw(st.integers(-3, 3)), "both_bad": draw(st.booleans())}
    if draw(st.booleans()):
        answer["ranks"] = draw(rows(count, st.integers(1, count)))
    if draw(st.booleans()):
        row = rows(count, st.none() | st.integers(1, 5).map(float))
        answer["ratings"] = draw(st.dictionaries(NAMES, row, min_size=1, max_size=3))
    if draw(st.booleans()):
        answer["rewrite"] = draw(st.sampled_from(["", "better", "two words\n"]))
        answer["rewrite_of"] = draw(st.none() | st.integers(0, count - 1))
    if draw(st.booleans()):
        answer["flags"] = draw(rows(count, st.lists(NAMES, max_size=3, unique=True)))
    return order, answer


@given(answers())
def test_to_the_store_and_back_is_the_same_answer(drawn):
    order, answer = drawn
    stored = judgement(order, **values_of(answer, order))
    assert answer_of(stored) == answer
    assert is_same(answer, stored)


@given(answers())
def test_to_the_screen_and_back_is_the_same_judgement(drawn):
    order, answer = drawn
    stored = judgement(order, **values_of(answer, order))
    assert judgement(order, **values_of(answer_of(stored), order)) == stored


@given(answers())
def test_what_the_page_sends_fits_the_comparison(drawn):
    order, answer = drawn
    completions = tuple(Completion(text=str(index)) for index in order)
    comparison = Comparison(prompt=Prompt(content="p"), completions=completions, item="i")
    skip = None if answer else "nothing said"
    assert problem_with(judgement(order, skip=skip, **values_of(answer, order)), comparison) is None


@given(shown(), st.data())
def test_each_value_goes_to_the_completion_that_stood_there(order, data):
    """Named by identity: rank k is given to the completion on place k, wherever that is kept."""
    ranks = data.draw(st.permutations(range(1, len(order) + 1)))
    stored = values_of({"ranks": list(ranks)}, order)["ranking"]
    for place, index in enumerate(order):
        assert stored[index] == ranks[place]


def test_three_shown_as_c_a_b_by_hand():
    order = (2, 0, 1)  # completions[2] stands first on screen
    values = values_of(
        {
            "ranks": [1, 2, 3],
            "ratings": {"helpfulness": [5.0, 3.0, None]},
            "flags": [["unsafe"], [], ["private", "off_topic"]],
            "rewrite": "better",
            "rewrite_of": 0,
        },
        order,
    )
    assert values["ranking"] == (2, 3, 1)
    assert values["ratings"] == {"helpfulness": (3.0, None, 5.0)}
    assert values["flags"] == ((), ("private", "off_topic"), ("unsafe",))
    assert (values["rewrite"], values["rewrite_of"]) == ("better", 2)


def test_a_choice_means_the_completion_that_was_on_that_side():
    assert verdict_of(-3, (0, 1)) == -3  # A was completions[0], and it is much better
    assert verdict_of(-3, (1, 0)) == 3  # A was completions[1]
    assert values_of({"choice": 2, "both_bad": True}, (1, 0)) == {"verdict": -2, "both_bad": True}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choice": 4}, "no choice"),
        ({"choice": -4}, "no choice"),
        ({"ranks": [1]}, "ranks: 1 values for 2"),
        ({"ratings": {"tone": [1, 2, 3]}}, "tone: 3 values for 2"),
        ({"flags": [[]]}, "flags: 1 values for 2"),
        ({"rewrite": "x", "rewrite_of": 2}, "not shown"),
        ({"rewrite": "x", "rewrite_of": -1}, "not shown"),
    ],
)
def test_answers_that_do_not_fit_what_was_shown_are_refused(answer, message):
    with pytest.raises(DataError, match=message):
        values_of(answer, (0, 1))


@pytest.mark.parametrize("order", [(0,), (0, 1, 2)])
def test_a_choice_needs_two(order):
    with pytest.raises(DataError, match="not two"):
        values_of({"choice": 0}, order)


def test_an_empty_answer_says_nothing():
    assert values_of({}, (0, 1)) == {}
    assert values_of({"both_bad": True}, (0, 1)) == {}  # goes with a choice, never alone


def test_a_second_thought_is_not_the_same_answer():
    stored = judgement((1, 0), verdict=-2)
    assert is_same({"choice": 2}, stored)
    assert not is_same({"choice": 1}, stored)
    assert not is_same({"choice": 2, "both_bad": True}, stored)
    assert not is_same({"choice": 2, "flags": [["unsafe"], []]}, stored)
    assert not is_same({}, stored)
    assert not is_same({"ranks": [1]}, stored)


def test_a_flag_sent_twice_is_one():
    assert values_of(Answer(flags=[["rude", "cut", "rude"]]), (0,))["flags"] == (("rude", "cut"),)
