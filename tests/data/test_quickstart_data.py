"""The quickstart's prompts: enough of them, and none held out that was as good as trained on."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "configs" / "quickstart"
MAX_OVERLAP = 0.6
# Words that any question may hold: what is left says what it is about.
FILLERS = """
a an the and or but if of to in on at for from with is are am be do does did can could should would
will my me i you your it its this that these those what which who how when where why there some any
so not no out up off get have has write give make good way need want about please help note short
message
"""


def questions(name: str) -> list[str]:
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
    return [row["prompt"][-1]["content"] for row in rows]


def content_words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower())) - set(FILLERS.split())


def overlap(one: str, other: str) -> float:
    """Jaccard: the share of the content words of either that both hold."""
    ours, theirs = content_words(one), content_words(other)
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def test_overlap_tells_a_rewording_from_another_question():
    assert overlap("How do I boil an egg?", "Please, how should I boil my egg?") == 1
    assert overlap("How do I boil an egg?", "How do I boil rice?") == pytest.approx(1 / 3)
    assert overlap("How do I boil an egg?", "Where is my bicycle?") == 0


@pytest.mark.parametrize(
    ("name", "least"), [("demonstrations", 160), ("train_prompts", 200), ("heldout_prompts", 96)]
)
def test_there_are_enough_different_prompts(name: str, least: int):
    assert len(set(questions(name))) == len(questions(name)) >= least


@pytest.mark.parametrize("name", ["demonstrations", "train_prompts"])
def test_no_held_out_prompt_is_nearly_one_of_training(name: str):
    heldout, trained = questions("heldout_prompts"), questions(name)
    nearest = max((overlap(one, other), one, other) for one in heldout for other in trained)
    assert nearest[0] < MAX_OVERLAP, nearest
