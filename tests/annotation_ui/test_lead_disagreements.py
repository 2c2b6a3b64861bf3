"""The adjudication queue: its order, blindness, the lead's answer, and taking it back."""

import pytest

from rlhf.feedback.store import Store
from tests.annotation_ui.lead_site import lead_client, make_campaign, say


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "feedback.db", create=True) as made:
        yield made


@pytest.fixture
def disputed(store):
    """i0: they agree; i1: a little apart; i2: as far apart as can be."""
    make_campaign(store, 3, overlap=2)
    say(store, "i0", "ann", verdict=2)
    say(store, "i0", "bob", verdict=2)
    say(store, "i1", "ann", verdict=1)
    say(store, "i1", "bob", verdict=0)
    say(store, "i2", "ann", verdict=3, rationale="it is right")
    say(store, "i2", "bob", verdict=-3)
    return store


def queue(client):
    reply = client.get("/api/lead/disagreements", params={"campaign": "c"})
    assert reply.status_code == 200, reply.text
    return reply.json()


def case(client, item="i2", **query):
    query = {"campaign": "c", "item": item, **query}
    reply = client.get("/api/lead/disagreements/one", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer(client, **values):
    body = {"campaign": "c", "item": "i2", "nonce": "nonce-0001", "reason": "checked", **values}
    return client.post("/api/lead/disagreements/answer", json=body)


def test_the_worst_comes_first(disputed):
    data = queue(lead_client(disputed))
    assert [one["item"] for one in data["items"]] == ["i2", "i1"]
    assert data["items"][0]["spread"] == 1
    assert data["num_waiting"] == 2


def test_names_and_models_are_hidden_until_asked_for(disputed):
    client = lead_client(disputed)
    blind = case(client)
    assert [row["annotator"] for row in blind["answers"]] == ["Rater 1", "Rater 2"]
    assert "ann" not in [row["annotator"] for row in blind["answers"]]
    assert blind["answers"][0]["rationale"] == "it is right"
    named = case(client, names=True)
    assert [row["annotator"] for row in named["answers"]] == ["ann", "bob"]


def test_an_answer_is_recorded_and_can_be_withdrawn(disputed):
    client = lead_client(disputed)
    reply = answer(client, verdict=-2)
    assert reply.status_code == 200, reply.text
    decision = reply.json()["adjudication"]
    assert (decision["decided_by"], decision["words"]) == ("lea", "1 is better")
    (row,) = disputed.judgements("c", purposes=["adjudication"])
    assert (row.annotator, row.verdict, row.rationale) == ("lea", -2, "checked")
    data = queue(client)
    assert [(one["item"], one["adjudicated"]) for one in data["items"]] == [
        ("i1", False),
        ("i2", True),
    ]

    body = {"campaign": "c", "item": "i2", "reason": "I misread it"}
    page = client.post("/api/lead/disagreements/withdraw", json=body).json()
    assert page["adjudication"] is None
    assert [one.reason for one in disputed.adjudications("c", current_only=False)] == [
        "checked",
        "I misread it",
    ]
    assert queue(client)["num_waiting"] == 2


def test_the_same_request_twice_is_one_answer(disputed):
    client = lead_client(disputed)
    for _ in range(2):
        assert answer(client, verdict=3).status_code == 200
    assert len(disputed.adjudications("c", current_only=False)) == 1


def test_a_second_lead_is_told_of_the_first(disputed):
    disputed.add_annotator(type(disputed.annotators()[0])(name="max", role="lead"))
    assert answer(lead_client(disputed), verdict=3).status_code == 200
    late = answer(lead_client(disputed, "max"), verdict=-3, nonce="nonce-0002")
    assert late.status_code == 409
    assert "lea has decided this item" in late.json()["error"]
    (kept,) = disputed.adjudications("c")
    assert kept.decided_by == "lea"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verdict": 1, "reason": "  "}, "reason"),
        ({"reason": "why"}, ""),  # no answer
        ({"ranking": [1, 2]}, ""),  # another task's
        ({"verdict": 1, "item": "nope"}, "nope"),
        ({"verdict": 1, "campaign": "nope"}, "nope"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(disputed, values, words):
    reply = answer(lead_client(disputed), **values)
    assert reply.status_code == 409, reply.text
    assert words in reply.json()["error"]
    assert "\n" not in reply.json()["error"]
    assert disputed.adjudications("c") == []


def test_withdrawing_nothing_is_refused(disputed):
    body = {"campaign": "c", "item": "i1", "reason": ""}
    reply = lead_client(disputed).post("/api/lead/disagreements/withdraw", json=body)
    assert reply.status_code == 409


def test_a_rater_is_refused(disputed):
    client = lead_client(disputed, "ann", "rater")
    assert answer(client, verdict=1).status_code == 403
    assert client.get("/api/lead/disagreements", params={"campaign": "c"}).status_code == 403
    assert disputed.adjudications("c") == []


@pytest.mark.parametrize(
    ("task", "settings", "said", "own"),
    [
        ("ranking", {}, [(1, 2), (2, 1)], {"ranking": [1, 1]}),
        (
            "ratings",
            {"criteria": [{"name": "h", "title": "Help"}]},
            [{"h": (1, 5)}, {"h": (5, 1)}],
            {"ratings": {"h": [3, 3]}},
        ),
        (
            "flags",
            {"flags": ["unsafe"]},
            [(("unsafe",), ()), ((), ())],
            {"flags": [["unsafe"], []]},
        ),
    ],
)
def test_every_task_that_can_differ_can_be_decided(store, task, settings, said, own):
    make_campaign(store, 1, task=task, settings=settings, overlap=2)
    for rater, value in zip(("ann", "bob"), said, strict=True):
        say(store, "i0", rater, **{task: value})
    client = lead_client(store)
    assert [one["item"] for one in queue(client)["items"]] == ["i0"]
    reply = answer(client, item="i0", **own)
    assert reply.status_code == 200, reply.text
    values = reply.json()["adjudication"]["values"]
    assert values[task] == own[task]
