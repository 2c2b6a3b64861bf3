"""Formats are told apart, and each row becomes the pair or demonstration it stands for."""

import gzip
import json
import os
from pathlib import Path

import pytest

from rlhf.data.formats import demonstrations, placed_prompts, preference_pairs, recognise
from rlhf.data.sources import LoadedDataset, load_rows
from rlhf.errors import DataError
from rlhf.feedback.transcripts import parse_transcript

USER = {"role": "user", "content": "hi"}
BYE = {"role": "user", "content": "bye"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def dataset(*rows: dict) -> LoadedDataset:
    places = [f"d.jsonl:{number}" for number in range(1, len(rows) + 1)]
    return LoadedDataset(name="d.jsonl", kind="file", rows=rows, places=places, sha256="0")


FORMATS = {
    "preference (plain text, explicit prompt)": {"prompt": "p", "chosen": "a", "rejected": "b"},
    "preference (plain text, implicit prompt)": {"chosen": "p a", "rejected": "p b"},
    "preference (conversational, explicit prompt)": {
        "prompt": [USER],
        "chosen": [said("a")],
        "rejected": [said("b")],
    },
    "preference (conversational, implicit prompt)": {
        "chosen": [USER, said("a")],
        "rejected": [USER, said("b")],
    },
    "unpaired preference (plain text)": {"prompt": "p", "completion": "a", "label": True},
    "prompt-completion (plain text)": {"prompt": "p", "completion": "a"},
    "prompt-completion (conversational)": {"prompt": [USER], "completion": [said("a")]},
    "messages (conversational)": {"messages": [USER, said("a")]},
    "HH transcripts": {
        "chosen": "\n\nHuman: hi\n\nAssistant: a",
        "rejected": "\n\nHuman: hi\n\nAssistant: b",
    },
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_recognised_and_named(name: str):
    assert str(recognise(dataset(FORMATS[name]))) == name


def test_prompt_only_is_for_prompts_alone():
    data = dataset({"prompt": "p"})
    assert str(recognise(data, "prompts")) == "prompt-only (plain text)"
    with pytest.raises(DataError, match="no column 'chosen'"):
        recognise(data, "pairs")


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if "preference (conv" in name or "HH" in name]
)
def test_conversational_pairs_are_the_same_whatever_the_format(name: str):
    [pair] = preference_pairs(dataset(FORMATS[name]))
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], "a", "b")
    assert pair.rejected_prompt is None


def test_implicit_plain_prompt_is_the_shared_beginning():
    [pair] = preference_pairs(dataset({"chosen": "ask: a box", "rejected": "ask: a basket"}))
    assert (pair.prompt, pair.chosen, pair.rejected) == ("ask: a b", "ox", "asket")
    [pair] = preference_pairs(dataset({"chosen": "ask: box", "rejected": "ask: pot"}))
    assert (pair.prompt, pair.chosen, pair.rejected) == ("ask:", " box", " pot")


def test_columns_of_our_own_travel_along():
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_ended": False}
    row |= {"p_chosen": 0.75, "margin": 2, "judgement_ids": ["j1"]}
    [pair] = preference_pairs(dataset(row))
    assert (pair.chosen_ended, pair.rejected_ended) == (False, None)
    assert (pair.p_chosen, pair.margin, pair.judgement_ids) == (0.75, 2, ("j1",))


def test_prompts_that_differ_are_kept_and_noted():
    data = dataset({"chosen": [USER, said("a")], "rejected": [BYE, said("b")]})
    [pair] = preference_pairs(data)
    assert pair.rejected_prompt == [BYE]
    assert data.losses.noted == {"pairs whose prompts differ": 1}
    assert data.losses.num_lost == 0


def test_completions_of_several_turns_leave_all_but_the_last_in_the_prompt():
    row = {"prompt": [USER], "chosen": [said("x"), BYE, said("a")], "rejected": [said("b")]}
    [pair] = preference_pairs(dataset(row))
    assert (pair.prompt, pair.chosen) == ([USER, said("x"), BYE], "a")
    assert pair.rejected_prompt == [USER]


def test_identical_pairs_and_empty_prompts_are_counted_with_their_places():
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    data = dataset(good, good | {"rejected": "a"}, good | {"prompt": "  "}, good | {"chosen": ""})
    assert len(preference_pairs(data)) == 2  # an empty completion is rated like any other
    assert data.losses.dropped == {"identical chosen and rejected": 1, "empty prompt": 1}
    assert data.losses.examples["identical chosen and rejected"] == ["d.jsonl:2"]


def test_same_text_but_only_one_was_cut_is_a_pair():
    row = {"prompt": "p", "chosen": "a", "rejected": "a", "rejected_ended": False}
    assert len(preference_pairs(dataset(row))) == 1


def test_nothing_but_identical_pairs_is_refused():
    same = {"prompt": "p", "chosen": "a", "rejected": "a"}
    data = dataset(same, same)
    data.losses.num_rows = 2
    with pytest.raises(DataError, match=r"no usable row: 2 of 2 rows lost.*identical chosen and"):
        preference_pairs(data)


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": None}, "d.jsonl:1: rejected must be text"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "d.jsonl:1: prompt must be text or"),
        ({"chosen": [USER], "rejected": [USER]}, "chosen must end with an assistant's turn"),
        ({"chosen": [{"role": "user"}], "rejected": []}, "chosen must be text or a list"),
        ({**PAIR, "margin": "x"}, "margin must be a finite number"),
        ({**PAIR, "margin": float("inf")}, "d.jsonl:1: margin must be a finite number"),
        ({**PAIR, "margin": 10**400}, "margin must be a finite number"),
        ({**PAIR, "margin": -1}, "margin must be a finite number from 0 to 1000000"),
        ({**PAIR, "margin": 1e300}, "margin must be a finite number from 0 to 1000000"),
        ({**PAIR, "item": "\ud800"}, "item holds half a character"),
        ({**PAIR, "judgement_ids": ["\ud800"]}, "judgement_ids holds half a character"),
        ({**PAIR, "criteria": {"\ud800": 1}}, "criteria holds half a character"),
        ({**PAIR, "votes": [{"prefers": "tie", "id": "\ud800"}]}, "votes holds half a character"),
        ({**PAIR, "votes": [{"prefers": "tie", "id": [[]]}]}, "votes must be a list of"),
        ({**PAIR, "p_chosen": float("nan")}, "p_chosen must be a finite number from 0 to 1"),
        ({**PAIR, "p_chosen": 1.5}, "p_chosen must be a finite number from 0 to 1"),
        ({**PAIR, "weight": -1}, "weight must be a finite number from 0 to 1000000"),
        ({**PAIR, "weight": 1e300}, "weight must be a finite number from 0 to 1000000"),
        ({**PAIR, "group": ["g"]}, "group must be text"),
        ({**PAIR, "criteria": 0.5}, "criteria must be {criterion: p_chosen by it}"),
        ({**PAIR, "criteria": {"x": 2}}, "x must be a finite number from 0 to 1"),
        ({**PAIR, "votes": [{"prefers": "first"}]}, "votes must be a list of {id, rater, prefers"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_ended": 1}, "must be true or"),
        (
            {"prompt": "p", "choosen": "a", "rejected": "b"},
            "no column 'chosen'; did you mean 'choosen'",
        ),
        (
            {"completions": ["a", "b"], "annotator": "x", "prompt": "p"},
            "not in the interchange format",
        ),
        ({"prompt": "p", "completion": "a"}, "no column 'chosen'|pairs of chosen and rejected"),
    ],
)
def test_rows_that_are_not_what_they_promise(row: dict, message: str):
    with pytest.raises(DataError, match=message):
        preference_pairs(dataset(row))


def test_demonstrations_of_every_format():
    for name, row in FORMATS.items():
        [demo] = demonstrations(dataset(row))
        assert demo.completion.strip() == "a", name
    assert demonstrations(dataset(FORMATS["messages (conversational)"]))[0].messages is not None


def test_unpaired_rows_labelled_false_are_not_imitated():
    good = {"prompt": "p", "completion": "a", "label": True}
    data = dataset(good, good | {"label": False})
    assert len(demonstrations(data)) == 1
    assert data.losses.noted == {"unpaired rows labelled false, not imitated": 1}


def test_empty_demonstrations_are_dropped():
    data = dataset({"prompt": "p", "completion": "a"}, {"prompt": "p", "completion": " "})
    assert len(demonstrations(data)) == 1
    assert data.losses.dropped == {"empty completion": 1}


def test_prompts_of_every_format():
    for name, row in FORMATS.items():
        [(_, prompt)] = placed_prompts(dataset(row))
        assert prompt in ("p", [USER]) or "implicit prompt" in name, name


def test_transcript_turns():
    turns = parse_transcript("here", "chosen", "\n\nHuman: hi\n\nAssistant: a\n\nb\n\nHuman: bye")
    assert turns == [USER, said("a\n\nb"), BYE]
    again = parse_transcript("here", "chosen", "\n\nHuman: hi\n\nAssistant: a\n\nAssistant: b")
    assert again == [USER, said("a\n\nb")]
    with pytest.raises(DataError, match="here: chosen does not open with a Human"):
        parse_transcript("here", "chosen", "Once upon a time")


@pytest.mark.shared_data
def test_hh_pairs_of_real_people():
    folder = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
    path = folder / "hh-helpful-train.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no real human data at {folder} (set RLHF_TEST_DATA)")
    data = load_rows(str(path))
    pairs = preference_pairs(data)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    assert len(pairs) == sum(row["chosen"] != row["rejected"] for row in raw)
    assert len(pairs) + data.losses.num_lost == len(raw)
    for pair in pairs:
        assert [turn["role"] for turn in pair.prompt] == ["user", "assistant"] * (
            len(pair.prompt) // 2
        ) + ["user"]
        whole = raw[int(pair.place.rpartition(":")[2]) - 1]["chosen"]
        said_in_all = "".join(turn["content"] for turn in [*pair.prompt, said(pair.chosen)])
        untagged = whole.replace("\n\nHuman:", "").replace("\n\nAssistant:", "")
        assert "".join(said_in_all.split()) == "".join(untagged.split())
