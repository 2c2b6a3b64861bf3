"""The doctor's findings, each on rows made by hand for it."""

import json
from collections.abc import Sequence

import pytest

from rlhf.data.columns import dpo_columns, reward_columns, sft_columns
from rlhf.data.doctor import Finding, Side, by_severity, examine, finding_lines, findings_as_dicts
from rlhf.data.doctor.catalogue import KINDS
from rlhf.data.doctor.near import NearDuplicates, jaccard, sampled, shingles
from rlhf.data.doctor.scripts import is_mixed, main_script, script_counts
from rlhf.data.formats import Demo, Pair, demonstrations, preference_pairs
from rlhf.data.losses import MAX_PLACES, DataLosses
from rlhf.data.sources import LoadedDataset
from rlhf.data.tokenization import Renderer
from tests.tiny import make_tokenizer

RENDERER = Renderer(make_tokenizer())
USER = {"role": "user", "content": "Is bread good?"}
YES = "Yes, bread is good."
NO = "No, it never was."


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def dataset(*rows: dict) -> LoadedDataset:
    places = [f"d.jsonl:{number}" for number in range(1, len(rows) + 1)]
    loaded = LoadedDataset(name="d.jsonl", kind="file", rows=rows, places=places, sha256="0")
    loaded.losses.num_rows = len(rows)
    return loaded


def pair(place: str = "d:1", **changes) -> Pair:
    values = {"prompt": [USER], "chosen": YES, "rejected": NO}
    values |= {"chosen_ended": True, "rejected_ended": True}
    return Pair(**(values | {"place": place} | changes))


def found_in(
    train: Sequence[Pair | Demo], heldout: Sequence[Pair | Demo] = (), **options
) -> dict[str, Finding]:
    findings = examine([], Side(list(train)), Side(list(heldout)), RENDERER, **options)
    assert len({one.name for one in findings}) == len(findings)
    return {one.name: one for one in findings}


def test_a_good_row_has_no_finding():
    assert found_in([pair()]) == {}


# Losses: what reading and tokenising counted, and nothing else


def test_losses_are_those_that_reading_and_tokenising_counted():
    good = {"prompt": [USER], "chosen": YES, "rejected": NO}
    data = dataset(
        good,
        good | {"rejected": YES},
        good | {"prompt": "  "},
        good | {"chosen": 7},
        good | {"rejected": "no " * 200},
        good | {"chosen": [USER]},
        good | {"margin": float("nan")},
        good | {"chosen": "half \ud83d"},
    )
    pairs = preference_pairs(data)
    columns, kept = reward_columns(pairs, RENDERER, 100, data.losses)
    found = {one.name: one for one in examine([data], Side(kept, columns), Side(), RENDERER)}
    lost = {name: one.examples[0].place for name, one in found.items() if one.severity == "loss"}
    assert lost == {
        "identical_pair": "d.jsonl:2",
        "empty_prompt": "d.jsonl:3",
        "not_text": "d.jsonl:4",
        "too_long": "d.jsonl:5",
        "wrong_roles": "d.jsonl:6",
        "wrong_value": "d.jsonl:7",
        "half_characters": "d.jsonl:8",
    }
    assert sum(one.count for one in found.values() if one.severity == "loss") == 7
    assert data.losses.num_lost == 7
    assert found["too_long"].share == 0.125
    assert found["too_long"].words == "rows dropped: over --max_length 100"


def test_reasons_of_one_kind_are_one_finding_that_names_them():
    good = {"prompt": [USER], "chosen": YES, "rejected": NO}
    data = dataset(good, good | {"chosen": None}, good | {"rejected": 3}, good | {"rejected": []})
    pairs = preference_pairs(data)
    findings = examine([data], Side(pairs), Side(), RENDERER)
    [finding] = [one for one in findings if one.name == "not_text"]
    assert finding.count == 2
    assert "chosen must be text" in finding.words
    assert "rejected must be text" in finding.words
    assert finding.places == ("d.jsonl:2", "d.jsonl:3")


def test_a_cut_row_is_a_loss_but_does_not_lack_its_end():
    losses = DataLosses(num_rows=1)
    data = dataset({"prompt": [USER], "chosen": YES, "rejected": NO})
    data.losses = losses
    [one] = preference_pairs(data)
    limit = len(RENDERER.prompt_ids([USER])) + 4
    columns, kept = dpo_columns([one], RENDERER, limit, losses, "keep_start")
    found = {f.name: f for f in examine([data], Side(kept, columns), Side(), RENDERER)}
    words = f"rows cut: over --max_length {limit}, end of a completion cut"
    assert found["too_long"].words == words
    assert "missing_end" not in found


def test_the_chat_template_may_refuse_a_row():
    tokenizer = make_tokenizer()
    refusal = "{{ raise_exception('roles must alternate') }}"
    tokenizer.chat_template = (
        "{% if messages|length > 1 and messages[1]['role'] == 'user' %}" + refusal + "{% endif %}"
    ) + tokenizer.chat_template
    losses = DataLosses(num_rows=2)
    rows, kept = reward_columns(
        [pair(), pair("d:2", prompt=[USER, USER])], Renderer(tokenizer), None, losses
    )
    assert [one.place for one in kept] == ["d:1"]
    assert len(rows) == 1
    assert losses.dropped == {"refused by the chat template (roles must alternate)": 1}


def test_no_more_places_are_listed_than_the_cap_and_the_count_goes_on():
    losses = DataLosses(num_rows=5, max_places=2)
    for number in range(5):
        losses.drop("empty prompt", f"d:{number}")
    data = dataset({"prompt": "p"})
    data.losses = losses
    [finding] = examine([data], Side(), Side(), RENDERER)
    written = finding.as_dict(places=True)
    assert (written["count"], written["places"], written["num_places_left_out"]) == (
        5,
        ["d:0", "d:1"],
        3,
    )
    assert MAX_PLACES == 10_000


# Tokens


def test_two_bos_tokens_are_seen():
    bos = RENDERER.tokenizer.bos_token_id
    twice = {"chosen_ids": [bos, bos, 5, 2], "rejected_ids": [bos, 5, 2]}
    findings = examine([], Side([pair()], [twice]), Side(), RENDERER)
    assert [one.name for one in findings] == ["double_bos"]


def test_a_completion_without_its_end_token_is_seen_unless_it_was_cut():
    end = RENDERER.turn_end_id
    lacking = {"prompt_ids": [5], "chosen_ids": [6, end], "rejected_ids": [7]}
    findings = examine([], Side([pair()], [lacking]), Side(), RENDERER)
    assert [one.name for one in findings] == ["missing_end"]
    cut = pair(rejected_ended=False)
    findings = examine([], Side([cut], [lacking]), Side(), RENDERER)
    assert [one.name for one in findings] == ["cut_completions"]


def test_our_own_columns_lack_no_end():
    demo = Demo(prompt=[USER], completion=YES, place="d:1", ended=True)
    columns, kept = sft_columns([demo], RENDERER, None, DataLosses())
    assert examine([], Side(kept, columns), Side(), RENDERER) == []


def test_rows_longer_than_the_context_are_warned_of_in_training_alone():
    columns, kept = reward_columns([pair()], RENDERER, None, DataLosses())
    longest = max(len(columns[0]["chosen_ids"]), len(columns[0]["rejected_ids"]))
    side = Side(kept, columns)
    assert examine([], side, Side(), RENDERER, longest) == []
    [finding] = examine([], side, Side(), RENDERER, longest - 1)
    assert (finding.name, finding.severity) == ("past_context", "warning")
    assert examine([], Side(), side, RENDERER, longest - 1) == []


@pytest.mark.parametrize(
    "text",
    ["<|im_start|>user\nIs bread good?<|im_end|>", "[INST] Is bread good? [/INST]", "x<|eot_id|>"],
)
def test_a_template_in_the_text_is_seen(text: str):
    assert found_in([pair(prompt=text)])["template_tokens"].count == 1


def test_a_transcript_left_as_text_and_a_stray_speaker_are_told_apart():
    whole = pair(prompt="\n\nHuman: Is bread good?\n\nAssistant:")
    stray = pair("d:2", rejected="It is. Human: Thanks")
    assert found_in([whole])["unparsed_transcript"].count == 1
    found = found_in([stray])
    assert found["stray_speakers"].examples[0].text == "It is. Human: Thanks"
    assert "unparsed_transcript" not in found


def test_ends_that_are_unknown_and_empty_answers_are_noted():
    found = found_in([pair(rejected_ended=None), pair("d:2", rejected="", chosen="A")])
    assert (found["unknown_end"].severity, found["unknown_end"].count) == ("note", 1)
    assert found["empty_answers"].examples[0].place == "d:2"


# Roles


@pytest.mark.parametrize(
    ("turns", "name"),
    [
        ([{"role": "human", "content": "hi"}], "unknown_roles"),
        ([USER, USER], "repeated_roles"),
        ([USER, {"role": "system", "content": "Be kind."}], "late_system"),
        ([USER, said("Yes.")], "prompt_ends_with_assistant"),
        ([USER, said(" "), USER], "empty_turns"),
    ],
)
def test_wrong_roles_are_named(turns: list[dict], name: str):
    assert list(found_in([pair(prompt=turns)])) == [name]


def test_a_conversation_to_imitate_rightly_ends_with_the_assistant():
    turns = ({"role": "system", "content": "Be kind."}, USER, said(YES))
    demo = Demo(prompt=list(turns[:-1]), completion=YES, place="d:1", messages=turns)
    assert found_in([demo]) == {}


# Duplicates and leaks

LONG = " ".join(f"word{number}" for number in range(40))
WORDS = "the quick brown fox jumps over the lazy dog while seven other foxes look on in wonder"


def test_repetitions_are_found_whatever_their_blanks_and_case():
    again = pair("d:2", chosen=f"  {YES.upper()} ")
    found = found_in([pair(), again, pair("d:3", chosen="Yes.")])
    assert found["duplicate_rows"].count == 1
    assert found["duplicate_rows"].examples[0].place == "d:2"


def test_a_pair_the_other_way_round_contradicts():
    found = found_in([pair(), pair("d:2", chosen=NO, rejected=YES)])
    assert found["contradicting_pairs"].examples[0].place == "d:2"


def test_near_duplicates_are_found_and_exact_ones_are_not_counted_again():
    rows = [
        pair(f"d:{number}", prompt=f"{LONG} {ending}", chosen="A", rejected="B")
        for number, ending in enumerate(["once", "twice", "twice", "again"])
    ]
    found = found_in(rows)
    assert found["duplicate_rows"].examples[0].place == "d:2"
    assert found["near_duplicates"].count == 2
    assert [one.place for one in found["near_duplicates"].examples] == ["d:1", "d:3"]


def test_leaks_are_told_apart_by_what_is_the_same():
    train = [pair(), pair("d:2", prompt=f"{WORDS} once")]
    heldout = [
        pair("h:1"),
        pair("h:2", chosen="Sure."),
        pair("h:3", prompt=f"{WORDS} twice"),
        pair("h:4", prompt="Something else entirely, please."),
    ]
    found = found_in(train, heldout)
    assert found["leaked_rows"].examples[0].place == "h:1"
    assert found["leaked_prompts"].examples[0].place == "h:2"
    assert found["near_leaks"].examples[0].place == "h:3"
    assert found["near_leaks"].share == 0.25


def test_similarity_is_the_share_of_common_shingles():
    # Of 8 words there are 6 runs of three; the last word is in one: 5 shared of 7 in all.
    a, b = shingles("a b c d e f g h"), shingles("a b c d e f g x")
    assert jaccard(a, b) == pytest.approx(5 / 7)
    near = NearDuplicates(5 / 7)
    assert not near.find_or_add("a b c d e f g h")
    assert near.find("a b c d e f g x")
    assert not NearDuplicates(0.8).find("a b c d e f g h")


def test_a_thousand_near_copies_cost_one_entry():
    near = NearDuplicates()
    copies = [f"{WORDS} {WORDS} {number}" for number in range(1000)]
    assert sum(near.find_or_add(text) for text in copies) == 999


def test_of_too_many_rows_a_fixed_sample_is_compared(monkeypatch):
    monkeypatch.setattr("rlhf.data.doctor.near.MAX_COMPARED", 5)
    rows = [pair(f"d:{number}", prompt=f"{number} {WORDS}") for number in range(20)]
    compared = sampled(rows, lambda row: row.place)
    assert len(compared) == 5
    assert compared == sampled(rows, lambda row: row.place)
    assert "(sought among 5 of 20)" in found_in(rows)["near_duplicates"].words


# Scripts

RUSSIAN = "Хлеб хорош, если он свежий."


def test_scripts_are_counted_by_their_letters():
    assert script_counts("ab, 12 яя") == {"LATIN": 2, "CYRILLIC": 2}
    assert main_script(script_counts(RUSSIAN)) == "CYRILLIC"
    assert main_script(script_counts("ok")) is None
    assert not is_mixed(script_counts("これは日本語のテキストです。カタカナもある"))
    assert is_mixed(script_counts(f"{RUSSIAN} bread is good when it is fresh"))


def test_scripts_that_differ_within_a_row_are_found():
    assert list(found_in([pair(chosen=RUSSIAN)])) == ["sides_differ_in_script"]
    both = pair(prompt="Is fresh bread good?", chosen=RUSSIAN, rejected=f"{RUSSIAN} Да.")
    assert list(found_in([both])) == ["other_script"]
    assert list(found_in([pair(chosen=f"{YES} {YES} {RUSSIAN}")])) == ["mixed_scripts"]


# Examples and the shared format


def test_examples_never_show_private_data():
    mail = "anna.smith@example.org"
    found = found_in([pair(prompt=f"{mail} asks: <|im_end|> {mail}", chosen_ended=None)])
    assert {"template_tokens", "private_email", "unknown_end"} <= set(found)
    written = json.dumps(findings_as_dicts(list(found.values())))
    assert "anna.smith" not in written
    assert "a***@***.org" in written


def test_findings_are_written_in_the_shared_format_gravest_first():
    data = dataset({"prompt": [USER], "chosen": YES, "rejected": NO}, {"prompt": "p"})
    pairs = preference_pairs(data)
    findings = examine([data], Side([*pairs, pair("d:9", rejected="")]), Side(), RENDERER)
    written = findings_as_dicts(findings)
    assert {"name", "severity", "count", "share", "words", "examples"} <= written[0].keys()
    assert [one["severity"] for one in written] == ["loss", "warning", "note"]
    assert written[0]["examples"][0].keys() == {"place", "text"}
    assert finding_lines(findings)[0].startswith("loss: 1 (50.0%) rows dropped")
    assert by_severity(findings)[0].name == written[0]["name"]


def test_each_kind_says_what_to_do():
    for name, kind in KINDS.items():
        assert kind.words, name
        assert len(kind.advice) > 10, name


def test_hostile_rows_are_examined_in_a_moment():
    rows = [
        pair("d:1", prompt="a" * 1_000_000),
        pair("d:2", prompt="1 " * 500_000),
        pair("d:3", prompt="a@" * 500_000),
        pair("d:4", prompt="+1 (" * 250_000),
        pair("d:5", prompt="\n\nHuman: " * 100_000),
        pair("d:6", prompt="AB12 " * 200_000),
        pair("d:7", prompt="\x00\u202e\ufeff" * 1000),
    ]
    assert set(found_in(rows)) <= set(KINDS)


def test_demonstrations_are_examined_like_pairs():
    good = {"prompt": [USER], "completion": YES}
    data = dataset(good, good | {"completion": " "}, good | {"completion": f"{YES} x@example.org"})
    demos = demonstrations(data)
    findings = examine([data], Side(demos), Side(), RENDERER)
    assert {"empty_completion", "private_email", "unknown_end"} == {one.name for one in findings}
