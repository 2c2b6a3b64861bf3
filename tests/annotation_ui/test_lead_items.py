"""The item browser: what it finds, and that an item shows all that was ever said of it."""

import pytest

from annotation_ui.lead.items import PAGE_SIZE
from annotation_ui.lead.words import words_of
from rlhf.feedback.protocols import Choice, Criterion, Flag, Protocol
from rlhf.feedback.store import Store
from rlhf.records import Comparison, Completion, Prompt
from tests.annotation_ui.lead_site import lead_client, make_campaign, say
from tests.feedback.makers import judgement


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "feedback.db", create=True) as made:
        yield made


def found(client, **query):
    reply = client.get("/api/lead/items", params={"campaign": "c", **query})
    assert reply.status_code == 200, reply.text
    return reply.json()


def names(data):
    return [one["item"] for one in data["items"]]


@pytest.fixture
def judged(store):
    """i0: agreed and flagged; i1: they differ; i2: one skip; i3: gold; i4: nothing yet."""
    settings = {"flags": ["unsafe"], "gold_share": 0.2}
    make_campaign(store, 5, overlap=2, settings=settings)
    say(store, "i0", "ann", verdict=2, flags=(("unsafe",), ()))
    say(store, "i0", "bob", verdict=1)
    say(store, "i1", "ann", verdict=3)
    say(store, "i1", "bob", verdict=-3)
    say(store, "i2", "ann", skip="unreadable")
    store.set_gold("c", "i3", {"verdict": 2})
    return store


def test_items_are_counted_by_what_became_of_them(judged):
    data = found(lead_client(judged))
    assert data["counts"] == {
        "all": 5, "open": 2, "complete": 2, "disagreed": 1, "gold": 1, "flagged": 1, "skipped": 1,
    }  # fmt: skip
    assert names(data) == ["i0", "i1", "i2", "i3", "i4"]
    assert data["items"][0]["num_raters"] == 2


@pytest.mark.parametrize(
    ("state", "items"),
    [
        ("open", ["i2", "i4"]),
        ("complete", ["i0", "i1"]),
        ("disagreed", ["i1"]),
        ("gold", ["i3"]),
        ("flagged", ["i0"]),
        ("skipped", ["i2"]),
    ],
)
def test_a_state_narrows_the_list(judged, state, items):
    assert names(found(lead_client(judged), state=state)) == items


def test_search_looks_in_names_prompts_and_completions(store):
    make_campaign(store, 2)
    talk = [{"role": "system", "content": "Speak like a PIRATE"}, {"role": "user", "content": "Hi"}]
    completions = (Completion(text="Ahoy"), Completion(text="Hello"))
    store.add_comparisons(
        "c", [Comparison(prompt=Prompt(content=talk), completions=completions, item="talk")]
    )
    client = lead_client(store)
    assert names(found(client, search="pirate ahoy")) == ["talk"]
    assert names(found(client, search="i1")) == ["i1"]
    assert names(found(client, search="yes 0")) == ["i0"]
    assert names(found(client, search="nothing such")) == []


def test_long_lists_come_in_pages(store):
    make_campaign(store, PAGE_SIZE + 3)
    client = lead_client(store)
    assert len(names(found(client))) == PAGE_SIZE
    assert names(found(client, offset=PAGE_SIZE)) == ["i50", "i51", "i52"]
    assert found(client, offset=PAGE_SIZE)["total"] == PAGE_SIZE + 3


def one(client, item):
    reply = client.get("/api/lead/items/one", params={"campaign": "c", "item": item})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_an_item_shows_its_whole_history(store):
    make_campaign(store)
    first = say(store, "i1", "ann", verdict=-2, shown_order=(1, 0), rationale="short")
    say(store, "i1", "ann", verdict=1, supersedes=first.id)
    say(store, "i1", "bob", skip="unreadable")
    page = one(lead_client(store), "i1")
    assert [(row["words"], row["standing"]) for row in page["judgements"]] == [
        ("1 is better", "superseded"),
        ("2 is slightly better", "stands"),
        ("Skipped: unreadable", "stands"),
    ]
    assert page["judgements"][0]["screen"] == "2 1"
    assert page["judgements"][0]["rationale"] == "short"
    assert (page["before"], page["after"], page["position"]) == ("i0", "i2", 2)


def test_texts_come_inert_and_raw(store):
    hostile = "<script>alert(1)</script> <think>x</think>"
    store.create_campaign("c")
    completions = (Completion(text=hostile), Completion(text="${1}"))
    store.add_comparisons(
        "c", [Comparison(prompt=Prompt(content="<img src=x>"), completions=completions, item="x")]
    )
    page = one(lead_client(store), "x")
    assert page["completions"][0]["raw"] == hostile
    assert "<script" not in page["completions"][0]["html"]
    assert "&lt;think&gt;" in page["completions"][0]["html"]
    assert "<img" not in page["turns"][0]["html"]


def test_an_item_becomes_gold_and_ordinary_again(store):
    make_campaign(store, settings={"gold_share": 0.1})
    client = lead_client(store)
    body = {"campaign": "c", "item": "i1", "expected": {"verdict": -2}}
    page = client.post("/api/lead/items/gold", json=body).json()
    assert (page["purpose"], page["expected"]) == ("gold", {"verdict": -2})
    assert store.gold("c") == {"i1": {"verdict": -2}}
    page = client.post("/api/lead/items/gold", json={**body, "expected": None}).json()
    assert page["purpose"] == "rate"
    assert store.gold("c") == {}


@pytest.mark.parametrize(
    "expected", [{}, {"verdict": 9}, {"ranking": [1]}, {"verdict": "x"}, {"nonsense": 1}]
)
def test_an_impossible_expected_answer_is_refused_in_one_line(store, expected):
    make_campaign(store, settings={"gold_share": 0.1})
    body = {"campaign": "c", "item": "i1", "expected": expected}
    reply = lead_client(store).post("/api/lead/items/gold", json=body)
    assert reply.status_code == 409, reply.text
    assert "\n" not in reply.json()["error"]
    assert store.gold("c") == {}


def test_unknown_names_are_refused_in_one_line(store):
    make_campaign(store)
    client = lead_client(store)
    for path, query in (
        ("items", {"campaign": "nope"}),
        ("items", {"campaign": "c", "state": "nope"}),
        ("items/one", {"campaign": "c", "item": "nope"}),
    ):
        reply = client.get(f"/api/lead/{path}", params=query)
        assert reply.status_code == 409
        assert "nope" in reply.json()["error"]


def test_a_rater_is_refused(store):
    make_campaign(store)
    client = lead_client(store, "ann", "rater")
    assert client.get("/api/lead/items", params={"campaign": "c"}).status_code == 403
    body = {"campaign": "c", "item": "i1", "expected": {"verdict": 1}}
    assert client.post("/api/lead/items/gold", json=body).status_code == 403
    assert store.gold("c") == {}


def said(protocol, **values):
    return words_of(judgement(shown_order=(1, 0), **values), protocol)


def test_words_number_the_completions_in_the_stores_order():
    pairwise = Protocol(task="pairwise")
    assert said(pairwise, verdict=-3) == "1 is much better"
    assert said(pairwise, verdict=0, both_bad=True) == "About the same, both bad"
    own = Protocol(task="pairwise", scale=(Choice(value=-1, label="Left", short="L"),))
    assert said(own, verdict=-1) == "Left (1 ahead)"
    assert said(own, verdict=2) == "2 is better"  # a point that the scale no longer has


def test_words_of_every_task():
    ratings = Protocol(task="ratings", criteria=(Criterion(name="h", title="Help"),))
    flags = Protocol(task="flags", flags=(Flag(name="u", label="Unsafe"),))
    rank = Protocol(task="ranking")
    ranks = judgement(ranking=(2, 1, 2), shown_order=(2, 0, 1))
    assert words_of(ranks, rank) == "2 > 1 = 3"
    assert said(ratings, ratings={"h": (4, None)}) == "Help 4/-"
    assert said(flags, flags=((), ("u",))) == "2: Unsafe"
    assert said(flags, flags=((), ())) == "Nothing marked"
    assert said(Protocol(task="rewrite"), rewrite="x", rewrite_of=1) == "Rewrote 2, 1 word"
    assert said(rank, skip="undone") == "Taken back"
