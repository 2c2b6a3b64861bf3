"""Sets from elsewhere: which subsets a name stands for, and the accuracy on each."""

import json

import pytest

from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.gate.subsets import find_subsets, out_of_domain_check, score_subsets
from tests.evaluation.gate_rows import write_rows

CHAT = {"prompt": "Hello?", "chosen": "Hi there", "rejected": "No"}
DIALOGUE = "How old is it?\n\nAssistant: Ten.\n\nHuman: Sure?"
TASK = {
    "name": "Helpfulness",
    "examples": [
        {"input": "Why?", "target_scores": {"Because it is.": 1, "No": 0}},
        {"input": DIALOGUE, "target_scores": {"No": 0, "Quite sure.": 1}},
    ],
}


@pytest.fixture
def folder(tmp_path):
    sets = tmp_path / "sets"
    sets.mkdir()
    write_rows(sets / "chat.jsonl", [CHAT, CHAT | {"chosen": "x", "rejected": "much longer"}])
    (sets / "helpful.json").write_text(json.dumps(TASK))
    (sets / "notes.txt").write_text("no rows")
    return sets


def by_length(prompts, texts, ended):
    return [float(len(text)) for text in texts]


def test_each_file_of_a_folder_is_a_subset(folder):
    subsets = find_subsets([str(folder)])
    assert [(subset.name, len(subset.pairs)) for subset in subsets] == [("chat", 2), ("helpful", 2)]
    dialogue = subsets[1].pairs[1]
    assert [turn["role"] for turn in dialogue.prompt] == ["user", "assistant", "user"]
    assert dialogue.prompt[-1]["content"] == "Sure?"
    assert (dialogue.chosen, dialogue.rejected) == ("Quite sure.", "No")


def test_names_and_a_subset_column(folder, tmp_path):
    write_rows(
        tmp_path / "bench.jsonl", [CHAT | {"subset": "easy"}, CHAT | {"subset": "hard"}, CHAT]
    )
    words = [f"mine={tmp_path / 'bench.jsonl'}", f"big={folder}"]
    names = [subset.name for subset in find_subsets(words)]
    assert names == ["mine/easy", "mine/hard", "mine", "big/chat", "big/helpful"]


def test_accuracy_on_each_subset_and_over_all(folder):
    rows = score_subsets(find_subsets([str(folder)]), by_length, as_messages=True)
    assert rows[0]["prompt"] == [{"role": "user", "content": "Hello?"}]
    assert rows[0]["chosen_score"] == len("Hi there")
    check = out_of_domain_check(rows, 0.5)
    groups = {group["group"]: (group["value"], group["n"]) for group in check.details["groups"]}
    assert groups == {"chat": (0.5, 2), "helpful": (1.0, 2)}
    assert (check.value, check.n, check.passed) == (0.75, 4, True)


def test_plain_prompts_stay_plain_for_a_model_of_plain_text(folder):
    rows = score_subsets(find_subsets([str(folder)]), by_length, as_messages=False)
    assert rows[0]["prompt"] == "Hello?"


def test_out_of_domain_fails_only_when_shown_to_be_below():
    def scored(right, number):
        scores = {"chosen_score": float(right), "rejected_score": 0.5}
        return {"subset": "s", "prompt": f"p{number}", **scores}

    bad = [scored(number < 3, number) for number in range(30)]
    assert out_of_domain_check(bad, 0.5).passed is False
    near = [scored(number < 13, number) for number in range(30)]
    assert out_of_domain_check(near, 0.5).passed is True
    assert out_of_domain_check([], 0.5).passed is None


def test_a_subset_that_is_shown_to_be_below_fails_though_all_together_are_not():
    def scored(subset, number, right):
        scores = {"chosen_score": float(right), "rejected_score": 0.5}
        return {"subset": subset, "prompt": f"{subset} {number}", **scores}

    rows = [scored("large", number, number % 10 < 9) for number in range(100)]
    rows += [scored("small", number, number < 1) for number in range(12)]
    check = out_of_domain_check(rows, 0.5)
    assert check.value > 0.8
    assert check.passed is False
    assert check.words.endswith("shown to be below: small")
    assert out_of_domain_check(rows, 0.5, min_pairs=13).passed is True
    assert out_of_domain_check(rows, None).passed is True


def test_what_is_not_there_is_named_with_the_nearest(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"no such subset file or folder; did you mean 'sets'"):
        find_subsets([str(tmp_path / "set")])
    with pytest.raises(ConfigError, match="'chat' stands twice"):
        find_subsets([str(folder), str(folder / "chat.jsonl")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no subset files"):
        find_subsets([str(tmp_path / "empty")])
    (folder / "helpful.json").write_text(json.dumps({"examples": [{"input": "a"}]}))
    with pytest.raises(DataError, match="example 1: expected one answer scored 1"):
        find_subsets([str(folder)])
