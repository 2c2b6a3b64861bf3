"""Cleaning: each step on text made for it, the log, the files, and that twice is once."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.cleaning import CleaningSteps, clean_rows, clean_to_file
from rlhf.data.cleaning.changes import changed_part
from rlhf.data.cleaning.text_steps import TEXT_STEPS, normalise_text
from rlhf.data.formats import demonstrations, preference_pairs
from rlhf.data.sources import LoadedDataset, load_rows
from rlhf.errors import ConfigError, DataError

PAIR = {"prompt": "Is bread good?", "chosen": "Yes.", "rejected": "No."}
CONTENT = "text or a list of {role, content} turns"


def dataset(*rows: dict) -> LoadedDataset:
    places = [f"d.jsonl:{number}" for number in range(1, len(rows) + 1)]
    return LoadedDataset(name="d.jsonl", kind="file", rows=rows, places=places, sha256="0")


def cleaned(*rows: dict, **steps) -> list[dict]:
    return list(clean_rows(dataset(*rows), CleaningSteps(**steps)).rows)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("line_ends", "a\r\nb\rc\x85d", "a\nb\nc\nd"),
        ("control_characters", "a\x00b\x07\tc\x9fd\ufeff\ufdd0", "ab\tcd"),
        ("zero_width", "bread\u200b and \u2060\u200bbutter\u200b", "bread and butter"),
        ("unicode_nfc", "e\u0301", "\u00e9"),
        ("outer_blanks", " \n  \n  bread \n", "bread"),
        ("outer_blanks", "\n\n    if x:\n        y\n\n", "    if x:\n        y"),
    ],
)
def test_each_step_mends_what_it_is_for(step: str, before: str, after: str):
    assert TEXT_STEPS[step](before, "turn") == after
    assert next(normalise_text(before, "turn"))[0] == step


@pytest.mark.parametrize(
    "text",
    [
        "a family: \U0001f468\u200d\U0001f469\u200d\U0001f467",  # joiners make one emoji
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian needs its non-joiner
        "\u0e01\u200b\u0e02",  # Thai breaks words by it
        "\u202b\u05e9\u05dc\u05d5\u05dd\u202c",
        "one\ttab, one\u00a0fixed space",
    ],
)
def test_what_carries_meaning_stays(text: str):
    assert list(normalise_text(text, "turn")) == []


def test_blanks_where_plain_texts_join_stay():
    row = {"prompt": "Q: bread?\nA: ", "chosen": " yes ", "rejected": " no"}
    assert cleaned(row) == [{"prompt": "Q: bread?\nA: ", "chosen": " yes", "rejected": " no"}]


def test_composing_may_make_room_for_another_step():
    # U+212A (Kelvin) composes to an ASCII K, beside which the zero-width space is an error.
    [row] = cleaned(PAIR | {"chosen": "27 \u212a\u200b!"})
    assert row["chosen"] == "27 K!"


def test_transcripts_become_messages_that_are_read_the_same():
    rows = [
        {
            "chosen": "\r\n\r\nHuman: hi\n\nAssistant: hello",
            "rejected": "\n\nHuman: hi\n\nAssistant: go",
            "item": 3,
        },
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "rejected": "\n\nHuman: a\n\nAssistant: x",
        },
    ]
    out = cleaned(*rows)
    hi = {"role": "user", "content": "hi"}
    assert out[0] == {
        "prompt": [hi],
        "chosen": [{"role": "assistant", "content": "hello"}],
        "rejected": [{"role": "assistant", "content": "go"}],
        "item": 3,
    }
    rows[0]["chosen"] = rows[0]["chosen"].replace("\r", "")
    before, after = (preference_pairs(dataset(*given)) for given in (rows, out))
    assert [(p.prompt, p.chosen, p.rejected, p.rejected_prompt) for p in before] == [
        (p.prompt, p.chosen, p.rejected, p.rejected_prompt) for p in after
    ]
    assert after[1].rejected_prompt is not None


def test_a_prompt_that_is_a_transcript_becomes_messages():
    row = {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " yes", "rejected": " no"}
    [out] = cleaned(row)
    assert out["prompt"] == [{"role": "user", "content": "hi"}]
    assert out["chosen"] == [{"role": "assistant", "content": "yes"}]
    assert cleaned(row, extract=False)[0]["prompt"] == row["prompt"]


def test_unusable_rows_go_by_the_readers_own_judgement():
    rows = [PAIR, PAIR | {"chosen": "No."}, PAIR | {"prompt": " "}, PAIR | {"rejected": 3}]
    result = clean_rows(dataset(*rows), CleaningSteps())
    assert result.rows == [PAIR]
    assert [(one.place, one.step, one.reason) for one in result.changes] == [
        ("d.jsonl:2", "drop_unusable", "identical chosen and rejected"),
        ("d.jsonl:3", "drop_unusable", "empty prompt"),
        ("d.jsonl:4", "drop_unusable", f"rejected must be {CONTENT}"),
    ]
    assert len(cleaned(*rows, drop_unusable=False)) == 4


def test_unpaired_rows_labelled_false_are_no_loss():
    rows = [
        {"prompt": "p", "completion": "a", "label": True},
        {"prompt": "p", "completion": "b", "label": False},
    ]
    assert cleaned(*rows) == rows


def test_repetitions_go_but_not_those_of_another_item_or_end():
    rows = [PAIR, dict(PAIR), PAIR | {"item": "b"}, PAIR | {"chosen_ended": False}]
    assert cleaned(*rows) == [rows[0], rows[2], rows[3]]
    assert len(cleaned(*rows, deduplicate=False)) == 4


def test_the_same_texts_with_another_label_are_no_repetition():
    """The first label would otherwise win over the others without a word."""
    labels = [{"p_chosen": 0.9}, {"p_chosen": 0.2}, {"criteria": {"a": 0.3}}, {"weight": 2.0}]
    rows = [PAIR | label for label in labels]
    assert cleaned(*rows, *rows) == rows


def test_near_repetitions_go_only_where_a_threshold_is_given():
    long = " ".join(f"word{number}" for number in range(60))
    rows = [PAIR | {"prompt": f"{long} once"}, PAIR | {"prompt": f"{long} twice"}]
    assert len(cleaned(*rows)) == 2
    assert cleaned(*rows, near_threshold=0.8) == rows[:1]


def test_private_data_are_masked_only_when_asked_and_not_kept_in_the_log():
    row = PAIR | {"chosen": "Ask anna@example.org\u200b, or 212-555-0147."}
    assert "anna@" in cleaned(row)[0]["chosen"]
    result = clean_rows(dataset(row), CleaningSteps(mask_private=True))
    assert result.rows[0]["chosen"] == "Ask [EMAIL], or [PHONE]."
    log = json.dumps([one.as_dict() for one in result.changes])
    assert "anna" not in log
    assert "0147" not in log


def test_every_change_says_where_by_which_step_and_what():
    long = "x" * 500
    row = PAIR | {"chosen": f"{long} e\u0301 {long}"}
    [change] = clean_rows(dataset(row), CleaningSteps()).changes
    assert change.as_dict() == {
        "place": "d.jsonl:1",
        "step": "unicode_nfc",
        "before": f"…{'x' * 19} e\u0301 {'x' * 19}…",
        "after": f"…{'x' * 19} \u00e9 {'x' * 19}…",
        "column": "chosen",
    }


def test_the_changed_part_is_what_differs():
    assert changed_part("same", "same!") == ("same", "same!")
    assert changed_part("a" * 50 + "b", "a" * 50 + "c") == (f"…{'a' * 20}b", f"…{'a' * 20}c")


# Files


def test_the_files_hold_the_rows_the_log_and_what_became_of_what(tmp_path: Path):
    rows = [PAIR | {"chosen": "Yes.\r\n", "note": [1, {"x": None}]}, PAIR | {"chosen": "No."}]
    source = write(tmp_path / "in.jsonl", rows)
    manifest = clean_to_file(str(source), tmp_path / "out.jsonl")
    assert lines(tmp_path / "out.jsonl") == [PAIR | {"note": [1, {"x": None}]}]
    log = lines(tmp_path / "out.jsonl.changes.jsonl")
    assert [one["step"] for one in log] == ["line_ends", "outer_blanks", "drop_unusable"]
    assert log[2]["after"] is None
    written = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert written == json.loads(json.dumps(manifest))
    assert written["inputs"]["data"]["sha256"] == load_rows(str(source)).sha256
    assert written["metrics"]["num_rows_in"] == 2
    assert written["metrics"]["removed"] == {"identical chosen and rejected": 1}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


def test_cleaning_the_output_again_changes_nothing(tmp_path: Path):
    transcript = "\n\nHuman: hi \n\nAssistant: {} "
    rows = [
        {"chosen": transcript.format(one), "rejected": transcript.format(f"no {one}")}
        for one in ("a\u200b", "b", "b")
    ]
    source = write(tmp_path / "in.jsonl", rows)
    clean_to_file(str(source), tmp_path / "once.jsonl")
    again = clean_to_file(str(tmp_path / "once.jsonl"), tmp_path / "twice.jsonl")
    assert again["metrics"]["changes"] == {}
    assert (tmp_path / "once.jsonl").read_bytes() == (tmp_path / "twice.jsonl").read_bytes()
    assert (tmp_path / "twice.jsonl.changes.jsonl").read_text() == ""


pieces = st.one_of(
    st.sampled_from("ab \n\r\t\x00\u200b\u2060\ufeff\u0301e\u212a\u037e\x85\u200d"),
    st.sampled_from(["\n\nHuman:", "\n\nAssistant:", "a@b.org", "212-555-0147", "1" * 16]),
    st.characters(exclude_categories=["Cs"]),
)
texts = st.lists(pieces, max_size=10).map("".join)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts})
pairs = st.one_of(
    st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts}),
    st.fixed_dictionaries(
        {
            "chosen": texts.map("\n\nHuman: x\n\nAssistant: {}".format),
            "rejected": texts.map("\n\nHuman: x\n\nAssistant: {}".format),
        }
    ),
    st.fixed_dictionaries(
        {"prompt": st.lists(turns, max_size=3), "chosen": texts, "rejected": texts}
    ),
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(pairs, min_size=1, max_size=5), mask=st.booleans(), near=st.booleans())
def test_what_is_clean_stays_as_it_is(rows: list[dict], mask: bool, near: bool):
    steps = CleaningSteps(mask_private=mask, near_threshold=0.8 if near else None)
    try:
        once = clean_rows(dataset(*rows), steps)
    except DataError:
        return  # no usable row, or no known format: nothing was written
    twice = clean_rows(dataset(*once.rows), steps)
    assert twice.changes == []
    assert twice.rows == once.rows
    assert preference_pairs(dataset(*once.rows))


def test_conversations_and_demonstrations_are_cleaned_too():
    turns = [{"role": "user", "content": "hi\r"}, {"role": "assistant", "content": " yes \n"}]
    [row] = cleaned({"messages": turns, "source": "x"})
    assert row["messages"][1]["content"] == "yes"
    assert row["source"] == "x"
    assert demonstrations(dataset(row))[0].completion == "yes"
    assert cleaned({"prompt": "a\x00b"}) == [{"prompt": "ab"}]


@pytest.mark.parametrize(
    ("output", "log", "message"),
    [
        ("in.jsonl", None, "never overwritten"),
        ("link.jsonl", None, "never overwritten"),
        ("out.jsonl", "in.jsonl", "never overwritten"),
        ("out.jsonl", "out.jsonl", "one file"),
        ("out.csv", None, "must end in .jsonl"),
        ("folder.jsonl", None, "a folder"),
    ],
)
def test_the_input_is_never_overwritten(output: str, log: str | None, message: str, tmp_path: Path):
    source = write(tmp_path / "in.jsonl", [PAIR])
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError, match=message):
        clean_to_file(str(source), tmp_path / output, tmp_path / log if log else None)
    assert lines(source) == [PAIR]


def test_an_output_within_the_input_folder_is_refused(tmp_path: Path):
    write(tmp_path / "in.jsonl", [PAIR])
    with pytest.raises(ConfigError, match="lies in the input folder"):
        clean_to_file(str(tmp_path), tmp_path / "out.jsonl")


def test_nothing_is_written_when_nothing_is_left(tmp_path: Path):
    source = write(tmp_path / "in.jsonl", [PAIR | {"chosen": "No."}])
    with pytest.raises(DataError, match="no usable row"):
        clean_to_file(str(source), tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_hostile_input_is_cleaned_or_refused_in_one_line(tmp_path: Path):
    source = tmp_path / "in.json"
    nested = "[" * 400 + "]" * 400
    source.write_bytes(
        b"\xef\xbb\xbf"
        + b'{"prompt": "p", "chosen": "a", "rejected": "b", "x": NaN}\r\n'
        + b'{"prompt": "p", "chosen": "half \\ud83d", "rejected": "b"}\r\n'
        + b'{"prompt": "q", "chosen": "a", "rejected": "b", "x": "half \\ud83d"}\r\n'
        + b'{"prompt": "r", "chosen": "a", "rejected": "b", "x": '
        + b"9" * 4000
        + b"}\r\n"
        + b'{"prompt": "s", "chosen": "a", "rejected": "b", "x": '
        + nested.encode()
        + b"}\r\n"
        + b'{"prompt": "t", "chosen": "'
        + b"a" * 1_000_000
        + b'", "rejected": "b"}\r\n'
    )
    manifest = clean_to_file(str(source), tmp_path / "out.jsonl")
    out = load_rows(str(tmp_path / "out.jsonl")).rows
    assert [row["prompt"] for row in out] == ["p", "q", "r", "s", "t"]
    assert out[0]["x"] is None
    assert out[1]["x"] == "half \ud83d"
    assert out[2]["x"] == int("9" * 4000)
    assert manifest["metrics"]["changes"] == {"drop_unusable": 1, "store": 1}
    again = clean_to_file(str(tmp_path / "out.jsonl"), tmp_path / "twice.jsonl")
    assert again["metrics"]["changes"] == {}


@pytest.mark.shared_data
def test_real_transcripts_are_read_the_same_once_cleaned(tmp_path: Path):
    folder = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
    path = folder / "hh-helpful-train.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no real human data at {folder} (set RLHF_TEST_DATA)")
    manifest = clean_to_file(str(path), tmp_path / "out.jsonl")
    assert manifest["metrics"]["removed"] == {"identical chosen and rejected": 2}
    before = preference_pairs(load_rows(str(path)))
    after = preference_pairs(load_rows(str(tmp_path / "out.jsonl")))
    assert [(p.prompt, p.chosen.strip(), p.rejected.strip()) for p in before] == [
        (p.prompt, p.chosen, p.rejected) for p in after
    ]


@pytest.mark.parametrize("extract", [True, False])
def test_what_normalising_makes_private_is_not_kept_in_the_log_either(extract: bool):
    """A zero-width space hides an address from the mask until it is removed."""
    said = "\n\nHuman: I am anna\u200b@exam\u200bple.org\u200b, \r\n hi\n\nAssistant: "
    row = {"chosen": said + "Hello.", "rejected": said + "Go."}
    found = clean_rows(dataset(row), CleaningSteps(mask_private=True, extract=extract))
    assert "[EMAIL]" in str(found.rows)
    kept = json.dumps([change.as_dict() for change in found.changes]) + str(found.rows)
    assert "anna" not in kept
    assert "ple.org" not in kept
