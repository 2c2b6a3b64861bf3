"""Ratings of other tools: TRL's formats, Argilla's records, Label Studio's tasks."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rlhf.errors import ConfigError, DataError, RlhfError
from rlhf.feedback.exports import make_export
from rlhf.feedback.foreign import ForeignOptions, convert, recognise
from rlhf.feedback.foreign_imports import import_converted, import_unrated
from rlhf.feedback.store import Store
from rlhf.records import Judgement

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ANN = ForeignOptions(annotator="ann")


def rows_of(*rows: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"f.jsonl:{number}", row) for number, row in enumerate(rows, 1)]


def imported(
    store: Store, *rows: dict[str, Any], options: ForeignOptions = ANN, **values: Any
) -> list[Judgement]:
    """The judgements that a file of these rows brings into campaign `c`."""
    numbered = rows_of(*rows)
    converted = convert(numbered, recognise(numbered, "f.jsonl"), options)
    import_converted(store, converted, campaign="c", judged_at=NOON, **values)
    assert store.problems() == []
    return store.judgements("c")


def texts(store: Store, number: int = 0) -> list[str]:
    return [one.text for one in store.comparisons("c")[number].completions]


def winner(store: Store, judgement: Judgement) -> str:
    """The text that a verdict calls better."""
    assert judgement.verdict
    item = next(one for one in store.comparisons("c") if one.item == judgement.item)
    return item.completions[judgement.verdict > 0].text


USER = {"role": "user", "content": "Name a tree."}
OAK = {"role": "assistant", "content": "Oak"}
BRICK = {"role": "assistant", "content": "Brick"}
HH = "\n\nHuman: Name a tree.\n\nAssistant:"

PREFERENCES: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "plain": (
        {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Brick"},
        "Name a tree.",
        ["Oak", "Brick"],
    ),
    "implicit": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "The sky is",
        [" blue.", " green."],
    ),
    "implicit, a word in common": (
        {"chosen": "A tree is bluish", "rejected": "A tree is blue"},
        "A tree is",
        [" bluish", " blue"],
    ),
    "conversational": (
        {"prompt": [USER], "chosen": [OAK], "rejected": [BRICK]},
        [USER],
        ["Oak", "Brick"],
    ),
    "conversational, implicit": (
        {"chosen": [USER, OAK], "rejected": [USER, BRICK]},
        [USER],
        ["Oak", "Brick"],
    ),
    "text prompt that stands in the messages too": (
        {"prompt": "Name a tree.", "chosen": [USER, OAK], "rejected": [USER, BRICK]},
        [USER],
        ["Oak", "Brick"],
    ),
    "transcripts": (
        {"chosen": f"{HH} Oak", "rejected": f"{HH} Brick"},
        [USER],
        ["Oak", "Brick"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_preference_is_a_verdict_for_the_chosen(sqlite_store: Store, name: str) -> None:
    row, prompt, completions = PREFERENCES[name]
    (said,) = imported(sqlite_store, row)
    (item,) = sqlite_store.comparisons("c")
    assert item.prompt.content == prompt
    assert sorted(texts(sqlite_store)) == sorted(completions)
    assert winner(sqlite_store, said) == completions[0]
    assert (said.annotator, said.simulated, said.created_at) == ("ann", False, NOON)
    assert abs(said.verdict or 0) == 1


def test_transcripts_that_part_before_the_last_turn_lose_nothing(sqlite_store: Store) -> None:
    more = "\n\nHuman: Another.\n\nAssistant: Elm"
    (said,) = imported(sqlite_store, {"chosen": f"{HH} Oak{more}", "rejected": f"{HH} Brick"})
    assert sorted(texts(sqlite_store)) == [
        "Assistant: Oak\n\nHuman: Another.\n\nAssistant: Elm",
        "Brick",
    ]
    assert winner(sqlite_store, said).startswith("Assistant: Oak")


def test_a_margin_is_a_strength_where_it_can_be_one(sqlite_store: Store) -> None:
    rows = [
        {"prompt": f"p{margin}", "chosen": "a", "rejected": "b", "margin": margin}
        for margin in (2.4, 3, 0.2, 9, None)
    ]
    said = imported(sqlite_store, *rows)
    assert [abs(one.verdict or 0) for one in said] == [2, 3, 1, 1, 1]


def test_the_chosen_one_is_not_known_by_its_place(sqlite_store: Store) -> None:
    rows = [{"prompt": f"p{number}", "chosen": "good", "rejected": "bad"} for number in range(200)]
    first = sum(one.verdict == -1 for one in imported(sqlite_store, *rows))
    assert 70 <= first <= 130  # half of 200, four standard deviations of 7 each way


def test_unpaired_is_a_rating_and_comes_back_as_it_was(sqlite_store: Store) -> None:
    rows = [
        {"prompt": "p", "completion": "good", "label": True},
        {"prompt": "p", "completion": "bad", "label": False},
    ]
    said = imported(sqlite_store, *rows)
    assert [one.ratings for one in said] == [{"good": (1,)}, {"good": (0,)}]
    back = make_export(sqlite_store, "c", "unpaired").rows
    assert [{key: row[key] for key in rows[0]} for row in back] == rows


@pytest.mark.parametrize(
    "given", [{"ranking": [2, 1, 2]}, {"ranks": [2, 1, 2]}, {"scores": [0.1, 7, 0.1]}]
)
def test_ranked_completions(sqlite_store: Store, given: dict[str, Any]) -> None:
    row = {"prompt": "p", "completions": ["a", {"text": "b", "source": "m"}, "c"], **given}
    (said,) = imported(sqlite_store, row)
    assert said.ranking == (2, 1, 2)
    assert sqlite_store.campaign("c").task == "ranking"


def test_unrated_brings_the_comparisons_alone(sqlite_store: Store) -> None:
    options = ForeignOptions(unrated=True)
    rows = rows_of({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_ended": True})
    converted = convert(rows, "preference", options)
    assert import_unrated(sqlite_store, converted, campaign="c").num_items == 1
    assert import_unrated(sqlite_store, converted, campaign="c").num_items == 0
    assert sqlite_store.judgements("c") == []
    (item,) = sqlite_store.comparisons("c")
    assert {one.text: one.ended for one in item.completions} == {"a": True, "b": None}
    assert sqlite_store.campaign("c").task == "pairwise"


def test_importing_again_changes_nothing_though_the_file_s_time_has_changed(
    sqlite_store: Store,
) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    before = imported(sqlite_store, row)
    converted = convert(rows_of(row), "preference", ANN)
    later = datetime(2027, 1, 1, tzinfo=UTC)
    report = import_converted(sqlite_store, converted, campaign="c", judged_at=later)
    assert report.num_new == 0
    assert sqlite_store.judgements("c") == before


# Argilla: what `dataset.records.to_json` of version 2 writes
ARGILLA = {
    "id": "r1",
    "fields": {"prompt": "Name a tree.", "response_1": "Oak", "response_2": "Brick"},
    "metadata": {},
    "suggestions": {},
    "responses": {
        "preference": [
            {"value": "response_1", "user_id": "u-1"},
            {"value": "response_2", "user_id": "u-2"},
        ],
        "ranking": [{"value": ["response_2", "response_1"], "user_id": "u-2"}],
        "clarity_response_2": [{"value": 4, "user_id": "u-1"}],
        "comments": [{"value": "clear", "user_id": "u-1"}],
        "corrected": [{"value": "An oak.", "user_id": "u-1"}],
    },
    "vectors": {},
    "_server_id": "8d",
}


def test_argilla_version_2(sqlite_store: Store) -> None:
    first, second = imported(sqlite_store, ARGILLA, options=ForeignOptions())
    assert first.item == "argilla-r1"
    assert (first.annotator, first.verdict, first.rationale) == ("u-1", -1, "clear")
    assert first.ratings == {"clarity": (None, 4)}
    assert first.rewrite == "An oak."
    assert (second.annotator, second.verdict, second.ranking) == ("u-2", 1, (2, 1))
    assert texts(sqlite_store) == ["Oak", "Brick"]


def test_argilla_flattened(sqlite_store: Store) -> None:
    row = {
        "id": "r1",
        "instruction": "Name a tree.",
        "generation": "Oak",
        "quality.responses": [4, 2],
        "quality.responses.users": ["u-1", "u-2"],
        "quality.responses.status": ["submitted", "submitted"],
        "problems.responses": [["rude", "short"]],
        "problems.responses.users": ["u-2"],
        "problems.responses.status": ["submitted"],
    }
    first, second = imported(sqlite_store, row, options=ForeignOptions())
    assert (first.ratings, first.flags) == ({"quality": (4,)}, None)
    assert (second.ratings, second.flags) == ({"quality": (2,)}, (("rude", "short"),))


@pytest.mark.parametrize(
    "column",
    [
        [{"user_id": "u", "value": 5, "status": "submitted"}],
        {"user_id": ["u"], "value": [5], "status": ["submitted"]},
    ],
)
def test_argilla_version_1_as_a_data_set(sqlite_store: Store, column: Any) -> None:
    row = {"prompt": "p", "response": "a", "quality": column, "metadata": "{}"}
    row |= {"quality-suggestion": 3, "external_id": "e1"}
    (said,) = imported(sqlite_store, row, options=ForeignOptions())
    assert (said.annotator, said.ratings, said.item) == ("u", {"quality": (5,)}, "argilla-e1")


def test_argilla_version_1_with_drafts_and_what_was_discarded(sqlite_store: Store) -> None:
    ranks = [{"value": "reply-2", "rank": 1}, {"value": "reply-1", "rank": 2}]
    row = {
        "fields": {"prompt": "p", "reply-1": "a", "reply-2": "b"},
        "responses": [
            {"user_id": "u-1", "status": "submitted", "values": {"order": {"value": ranks}}},
            {"user_id": "u-2", "status": "draft", "values": {"order": {"value": ranks}}},
            {"user_id": "u-3", "status": "discarded", "values": {}},
        ],
    }
    converted = convert(rows_of(row), "argilla", ForeignOptions())
    assert dict(converted.left_out) == {"draft answers": 1}
    first, second = imported(sqlite_store, row, options=ForeignOptions())
    assert (first.annotator, first.ranking) == ("u-1", (2, 1))
    assert (second.annotator, second.skip) == ("u-3", "discarded")


def test_argilla_without_users_and_with_one_who_answered_twice(sqlite_store: Store) -> None:
    fields = {"prompt": "p", "response_a": "x", "response_b": "y"}
    answers = [{"value": word, "user_id": user} for word, user in
               (("A", "None"), ("A", "u-1"), ("B is much better", "u-1"))]  # fmt: skip
    row = {"id": "r", "fields": fields, "responses": {"best": answers}}
    with pytest.raises(DataError, match=r"f\.jsonl:1: nobody is named .* --annotator"):
        imported(sqlite_store, row, options=ForeignOptions())
    said = imported(sqlite_store, row)
    assert [(one.annotator, one.verdict) for one in said] == [("ann", -1), ("u-1", 3)]
    everything = sqlite_store.judgements("c", current_only=False)
    assert said[1].supersedes == everything[1].id


@pytest.mark.parametrize(
    ("word", "verdict", "both_bad"),
    [
        ("response_1", -1, False), ("Response 2", 1, False), ("A", -1, False), ("left", -1, False),
        ("second", 1, False), ("tie", 0, False), ("both bad", 0, True), ("neither", 0, True),
        ("A is slightly better", -1, False), ("B is significantly better", 3, False),
    ],
)  # fmt: skip
def test_words_for_a_verdict(sqlite_store: Store, word: str, verdict: int, both_bad: bool) -> None:
    responses = {"choice": [{"value": word, "user_id": "u"}]}
    (said,) = imported(sqlite_store, {**ARGILLA, "responses": responses})
    assert (said.verdict, said.both_bad) == (verdict, both_bad)


def test_a_question_and_fields_can_be_named(sqlite_store: Store) -> None:
    row = {
        "fields": {"doc": "Name a tree.", "mistral": "Oak", "llama": "Elm", "id": "x"},
        "responses": {
            "free": [{"value": "because", "user_id": "u"}],
            "best": [{"value": "llama", "user_id": "u"}],
            "colour": [{"value": "red", "user_id": "u"}],
        },
    }
    with pytest.raises(DataError, match=r"fields doc, mistral, llama, id: cannot tell"):
        imported(sqlite_store, row)
    named = {"prompt_field": "doc", "completion_fields": ("mistral", "llama")}
    with pytest.raises(DataError, match=r"question 'free' says 'because'.*--question free=KIND"):
        imported(sqlite_store, row, options=ForeignOptions(**named))  # type: ignore[arg-type]
    questions = {"free": "rationale", "colour": "ignore"}
    options = ForeignOptions(**named, questions=questions)  # type: ignore[arg-type]
    (said,) = imported(sqlite_store, row, options=options)
    assert (said.verdict, said.rationale) == (1, "because")


def label_studio(*results: dict[str, Any], data: Any = None, **values: Any) -> dict[str, Any]:
    """A task with one annotation, as Label Studio's JSON export writes it."""
    annotation = {
        "id": 1001,
        "completed_by": 7,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "lead_time": 4.25,
        "task": 1,
        **values,
    }
    return {
        "id": 1,
        "data": data or {"prompt": "Name a tree.", "answer1": "Oak", "answer2": "Brick"},
        "annotations": [annotation],
        "predictions": [],
    }


def result(kind: str, value: Any, name: str = "q", to_name: str = "prompt") -> dict[str, Any]:
    return {"id": "x", "from_name": name, "to_name": to_name, "type": kind, "value": value}


LEFT = result("pairwise", {"selected": "left"}, "comparison", "answer1,answer2")


def test_label_studio_pairwise(sqlite_store: Store) -> None:
    why = result("textarea", {"text": ["It is", "a tree."]}, "reason")
    (said,) = imported(sqlite_store, label_studio(LEFT, why), options=ForeignOptions())
    assert (said.id, said.item, said.annotator) == ("label-studio-1001", "task-1", "user-7")
    assert (said.verdict, said.seconds, said.rationale) == (-1, 4.25, "It is\na tree.")
    assert said.created_at == datetime(2026, 3, 9, 22, 16, 8, 728353, tzinfo=UTC)
    assert texts(sqlite_store) == ["Oak", "Brick"]


def test_label_studio_ratings_choices_and_rewrite(sqlite_store: Store) -> None:
    row = label_studio(
        result("rating", {"rating": 4}, "quality", "answer1"),
        result("rating", {"rating": 2}, "quality", "answer2"),
        result("choices", {"choices": ["rude", "wrong"]}, "problems", "answer2"),
        result("choices", {"choices": ["tie"]}, "better"),
        result("textarea", {"text": ["An oak."]}, "rewrite"),
    )
    (said,) = imported(sqlite_store, row)
    assert said.ratings == {"quality": (4, 2)}
    assert said.flags == ((), ("rude", "wrong"))
    assert said.verdict == 0
    assert said.rewrite == "An oak."


ITEMS = [
    {"id": "llm_1", "title": "LLM 1", "body": "a"},
    {"id": "llm_2", "title": "LLM 2", "body": "b"},
    {"id": "llm_3", "title": "LLM 3", "body": "c"},
]


@pytest.mark.parametrize(
    ("ranker", "ranking"),
    [
        (["llm_2", "llm_3", "llm_1"], (3, 1, 2)),
        ({"rank": ["llm_3", "llm_1"], "_": ["llm_2"]}, (2, 3, 1)),
        ({"_": ["llm_1", "llm_2", "llm_3"]}, (1, 2, 3)),
    ],
)
def test_label_studio_ranker(sqlite_store: Store, ranker: Any, ranking: Any) -> None:
    row = label_studio(result("ranker", {"ranker": ranker}), data={"prompt": "p", "items": ITEMS})
    (said,) = imported(sqlite_store, row)
    assert said.ranking == ranking


def test_label_studio_buckets_are_kinds(sqlite_store: Store) -> None:
    buckets = {"biased": ["llm_3"], "relevant": ["llm_1", "llm_3"], "_": ["llm_2"]}
    row = label_studio(result("ranker", {"ranker": buckets}), data={"prompt": "p", "items": ITEMS})
    (said,) = imported(sqlite_store, row)
    assert said.flags == (("relevant",), (), ("biased", "relevant"))


def test_label_studio_users_of_one_name_are_two_people(sqlite_store: Store) -> None:
    row = label_studio(LEFT)
    first = {"id": 1, "first_name": "Ann", "last_name": "Lee", "email": ""}
    row["annotations"] = [
        {**row["annotations"][0], "id": key, "completed_by": user}
        for key, user in ((1, first), (2, {**first, "id": 2}), (3, {"id": 3, "email": "b@x.org"}))
    ]
    said = imported(sqlite_store, row, options=ForeignOptions())
    assert [one.annotator for one in said] == ["Ann Lee (1)", "Ann Lee (2)", "b@x.org"]


def test_label_studio_cancelled_is_a_skip_and_later_takes_the_place_of_earlier(
    sqlite_store: Store,
) -> None:
    row = label_studio(LEFT)
    (once,) = row["annotations"]
    later = {**once, "id": 1002, "was_cancelled": True, "created_at": "2026-03-10T00:00:00Z"}
    row["annotations"] = [later, once]
    (said,) = imported(sqlite_store, row)
    assert (said.skip, said.supersedes) == ("cancelled", "label-studio-1001")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing known": ({"text": "a", "labels": ["b"]}, "no known format of ratings"),
    "near": ({"promt": "a", "x": 1}, "did you mean 'prompt'?"),
    "label studio min": (
        {"annotation_id": 1, "lead_time": 2, "prompt": "p", "comparison": "left"},
        "export as JSON",
    ),
    "label": ({"prompt": "p", "completion": "c", "label": "yes"}, "neither true nor false"),
    "unranked": ({"prompt": "p", "completions": ["a", "b"]}, "give --unrated"),
    "mixed": ({"chosen": "a", "rejected": [OAK]}, "text and messages"),
    "no shared turn": (
        {"chosen": [OAK], "rejected": [BRICK]},
        "share no turn",
    ),
    "message": ({"chosen": [USER, "x"], "rejected": [USER, OAK]}, "not one of TRL's"),
    "side": (
        label_studio(result("pairwise", {"selected": "up"})),
        "which of two completions is better is wanted",
    ),
    "type": (label_studio(result("brushlabels", {"rle": []})), "type 'brushlabels'"),
    "ranks": (
        label_studio(result("ranker", {"ranker": ["llm_1"]}), data={"prompt": "p", "items": ITEMS}),
        "a rank for every completion",
    ),
    "no value": (label_studio(result("rating", {"stars": 2}, to_name="answer1")), "no 'rating'"),
    "no data": ({"data": {"image": "x.png"}, "annotations": []}, "fields image: cannot tell"),
    "answers": (
        {"fields": {"prompt": "p", "answer": "a"}, "responses": {"q": ["x"]}},
        "not one of",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(sqlite_store: Store, name: str) -> None:
    row, message = REFUSED[name]
    with pytest.raises(RlhfError) as caught:
        imported(sqlite_store, row)
    said = str(caught.value)
    assert message in said
    assert said.startswith("f.jsonl:1: ")
    assert "\n" not in said
    assert sqlite_store.campaigns() == []


def test_the_rater_must_be_named_where_the_file_names_nobody() -> None:
    rows = rows_of({"prompt": "p", "chosen": "a", "rejected": "b"})
    with pytest.raises(DataError, match="give --annotator NAME"):
        convert(rows, "preference", ForeignOptions())


def test_an_unknown_field_of_the_options_is_named() -> None:
    options = ForeignOptions(prompt_field="promt")
    with pytest.raises(ConfigError, match="did you mean 'prompt'"):
        convert(rows_of(ARGILLA), "argilla", options)


@pytest.mark.parametrize(
    ("row", "format_name"),
    [
        ({"prompt": "p", "completions": [], "annotator": "a", "shown_order": []}, "judgements"),
        (ARGILLA, "argilla"),
        (label_studio(LEFT), "label_studio"),
        ({"chosen": f"{HH} a", "rejected": f"{HH} b"}, "transcripts"),
        ({"chosen": "a", "rejected": "b"}, "preference"),
        ({"prompt": "p", "completion": "c", "label": True}, "unpaired"),
        ({"prompt": "p", "completions": ["c"]}, "ranking"),
    ],
)
def test_formats_are_recognised(row: dict[str, Any], format_name: str) -> None:
    assert recognise(rows_of(row), "f.jsonl") == format_name


def test_simulated_raters_stay_simulated(sqlite_store: Store) -> None:
    options = ForeignOptions(annotator="judge-model", simulated=True)
    (said,) = imported(
        sqlite_store, {"prompt": "p", "chosen": "a", "rejected": "b"}, options=options
    )
    assert said.simulated
