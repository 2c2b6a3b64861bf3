"""The simulated truth and the raters that see it dimly."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.feedback.simulation import (
    DEFAULT_PANEL,
    SimulatedRater,
    UtilityWeights,
    concise,
    direct,
    fluent,
    length_share,
    on_topic,
    panel_for,
    simulated_truth,
    simulated_verdict,
    utility_terms,
)
from rlhf.records import Comparison, Completion, Prompt
from tests.feedback.makers import comparison

ASKED = "How long do I need to boil eggs for a firm yolk?"
BEST = "Boil the eggs for 10 minutes, because the yolk is firm by then and still bright."


@pytest.mark.parametrize(
    ("term", "better", "worse"),
    [
        ("on_topic", BEST, "Wait 10 minutes, because haste makes waste and so does worry."),
        ("direct", BEST, f"Sure! {BEST}"),
        ("direct", BEST, f"- {BEST}"),
        ("direct", BEST, f"How long do I need to wait? {BEST}"),
        ("reason", BEST, "Boil the eggs for 10 minutes and cool them in cold water afterwards."),
        ("concrete", BEST, BEST.replace("10", "ten")),
        ("complete", BEST, BEST.removesuffix(".")),
        ("fluent", BEST, BEST.replace("firm", "firm firm firm")),
        ("concise", BEST, " ".join([BEST] * 4)),
        ("concise", BEST, "Eggs: 10."),
    ],
)
def test_each_term_alone_tells_better_from_worse(term: str, better: str, worse: str) -> None:
    high, low = utility_terms(ASKED, better, True), utility_terms(ASKED, worse, True)
    assert high[term] > low[term]
    only = UtilityWeights(**{name: float(name == term) for name in high})
    assert simulated_truth(ASKED, better, True, weights=only) == high[term]
    assert simulated_truth(ASKED, worse, True, weights=only) == low[term]


def test_best_completion_has_utility_one_and_empty_none() -> None:
    assert simulated_truth(ASKED, BEST, True) == pytest.approx(1.0)
    assert simulated_truth([{"role": "user", "content": ASKED}], BEST, True) == pytest.approx(1.0)
    assert simulated_truth(Prompt(content=ASKED), "", True) == 0.0


def test_a_cut_completion_is_not_complete() -> None:
    assert utility_terms(ASKED, BEST, False)["complete"] == 0.0
    assert utility_terms(ASKED, BEST, None)["complete"] == 1.0


@pytest.mark.parametrize(
    ("words", "value"), [(0, 0), (3, 0), (10, 1), (30, 1), (60, 0), (200, 0), (40, 20 / 30)]
)
def test_concise_by_hand(words: int, value: float) -> None:
    assert concise("word " * words) == pytest.approx(value)


def test_terms_by_hand() -> None:
    assert on_topic("boil eggs firm yolk", "the yolk") == pytest.approx(2 * 1 / 4)
    assert on_topic("boil eggs firm yolk", "firm yolk") == 1.0
    assert on_topic("cleaning windows", "clean the window") == 1.0  # by their first letters
    assert fluent("one two one two") == pytest.approx(2 / 3)
    assert direct("x", "") == 0.0
    assert direct("x", "Sure, here is a list:\n- one\n- two") == 0.0


@given(st.text(max_size=60), st.text(max_size=200), st.none() | st.booleans())
def test_utility_is_within_0_and_1_for_any_text(
    prompt: str, completion: str, ended: bool | None
) -> None:
    assert 0.0 <= simulated_truth(prompt, completion, ended) <= 1.0


def pairs(number: int) -> list[Comparison]:
    """Comparisons of good with worse completions, the good one on either side."""
    chance = random.Random(0)
    made = []
    for index in range(number):
        worse = BEST.replace("10", "ten") if index % 2 else "Boil the eggs"
        texts = [BEST, worse]
        chance.shuffle(texts)
        made.append(
            Comparison(
                prompt=Prompt(content=ASKED),
                completions=tuple(Completion(text=text, ended=True) for text in texts),
                item=f"i{index}",
            )
        )
    return made


def accuracy(rater: SimulatedRater) -> float:
    right = 0
    items = pairs(300)
    for item in items:
        better = 1 if item.completions[1].text == BEST else -1
        right += simulated_verdict(rater, item, (0, 1), seed=0) * better > 0
    return right / len(items)


def test_panel_goes_from_nearly_right_to_often_wrong() -> None:
    accuracies = [accuracy(rater) for rater in DEFAULT_PANEL]
    assert accuracies[0] > 0.95
    assert 0.55 < accuracies[-1] < 0.85
    assert accuracies[0] > accuracies[3] > accuracies[4]


def test_rater_without_noise_or_bias_is_always_right() -> None:
    assert accuracy(SimulatedRater(name="oracle", noise=0.0)) == 1.0


def test_side_bias_favours_what_is_shown_first() -> None:
    same = [comparison(f"i{index}", "x.", "y.") for index in range(400)]
    rater = SimulatedRater(name="leaning", side_bias=1.0, noise=1.0)
    first = [simulated_verdict(rater, item, (0, 1), seed=0) < 0 for item in same]
    second = [simulated_verdict(rater, item, (1, 0), seed=0) > 0 for item in same]
    # P(1 + Gaussian > .3) = .758
    assert 0.68 < sum(first) / 400 < 0.83
    assert 0.68 < sum(second) / 400 < 0.83


def test_verdicts_are_the_same_in_another_process() -> None:
    program = "from tests.feedback.test_simulation import verdicts; print(*verdicts(), sep=',')"
    other = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "7", "PATH": ""},
    )
    assert [int(each) for each in other.stdout.split(",")] == verdicts()


def verdicts() -> list[int]:
    return [simulated_verdict(DEFAULT_PANEL[4], item, (0, 1), seed=3) for item in pairs(40)]


def test_panel_for_an_item_draws_each_rater_about_as_often() -> None:
    drawn = [panel_for(f"i{index}", DEFAULT_PANEL, 3, seed=0) for index in range(500)]
    assert all(len(set(raters)) == 3 for raters in drawn)
    for rater in DEFAULT_PANEL:
        assert 240 <= sum(rater in raters for raters in drawn) <= 360  # 300 expected


def test_length_share_by_hand() -> None:
    lengths = [1, 2, 3, 4] * 25
    assert length_share([2.0 * length for length in lengths], lengths) == pytest.approx(1)
    assert length_share([(length - 2.5) ** 2 for length in lengths], lengths) == pytest.approx(1)
    assert length_share([0.3] * 100, lengths) == 0.0
    assert length_share([0.1, 0.9] * 50, [7] * 100) == 0.0
    assert length_share([], []) == 0.0
    # utility = length + as much again that has nothing to do with it: half is explained
    both = [length + other for length in (0, 1) for other in (0, 1)] * 25
    assert length_share(both, [length for length in (0, 1) for _ in (0, 1)] * 25) == pytest.approx(
        0.5
    )
