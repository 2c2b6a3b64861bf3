"""The rating page's routes: identity from the session alone, and one line for what is refused."""

import pytest

from tests.annotation_ui.conftest import CAMPAIGN, comparison, make_store


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    store = make_store(tmp_path_factory.mktemp("store"), [comparison(n) for n in range(200)])
    store.create_campaign("other")
    store.add_comparisons("other", [comparison(n) for n in range(3)])
    return serve(store)


@pytest.fixture
def ada(site):
    with site.client("ada") as client:
        yield client


def view(client, campaign=CAMPAIGN):
    return client.get("/api/view", params={"campaign": campaign}).json()


def body(shown, **values):
    """A judgement as the page sends it for what it was shown."""
    item = shown["item"]
    return {
        "annotator": shown["annotator"],
        "campaign": shown["campaign"],
        "ticket": item["ticket"],
        "item": item["item"],
        "shown_order": item["shown_order"],
        "seconds": 2.5,
        "answer": {"choice": -2, "both_bad": False},
        **values,
    }


def test_a_judgement_is_saved_and_answered_with_the_next_item(ada, site):
    shown = view(ada)
    reply = ada.post("/api/judgements", json=body(shown, rationale="why"))
    assert reply.status_code == 200
    assert reply.json()["item"]["item"] != shown["item"]["item"]
    assert reply.json()["note"] is None
    row = site.judgements()[-1]
    assert (row.item, row.rationale, row.seconds) == (shown["item"]["item"], "why", 2.5)
    assert (row.verdict if row.shown_order == (0, 1) else -row.verdict) == -2


def test_a_request_sent_twice_writes_once_and_the_first_word_stands(ada, site):
    sent = body(view(ada))
    assert ada.post("/api/judgements", json=sent).json()["note"] is None
    before = len(site.judgements(current_only=False))
    again = ada.post("/api/judgements", json=sent)
    assert (again.status_code, again.json()["note"]) == (200, None)
    thought = ada.post("/api/judgements", json={**sent, "answer": {"choice": 3}})
    assert thought.json()["note"] == "Already saved: A is better"
    skipped = ada.post("/api/judgements", json={**sent, "answer": {}, "skip": "no"})
    assert skipped.json()["note"] == "Already saved: A is better"
    assert len(site.judgements(current_only=False)) == before


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"annotator": "bob"}, 409, "opened by 'bob'"),
        ({"campaign": "other"}, 409, "not before you"),
        ({"campaign": "no such"}, 409, "no such"),
        ({"item": "item-199"}, 409, "not before you"),
        ({"shown_order": [0, 1, 2]}, 409, "another order"),
        ({"shown_order": []}, 409, "another order"),
        ({"answer": {}}, 409, "nothing was chosen"),
        ({"answer": {"choice": 4}}, 422, "choice"),
        ({"answer": {"choice": True}}, 422, "choice"),
        ({"answer": {"choice": "2"}}, 422, "choice"),
        ({"answer": {"choice": 1, "both_bad": 1}}, 422, "both_bad"),
        ({"answer": {"choice": 1, "ranks": [1, 2]}}, 409, "does not ask for ranking"),
        ({"answer": {"choice": 1, "rewrite": "mine"}}, 409, "does not ask for rewrite"),
        ({"answer": {"choice": 1, "ranks": [1, 10**20]}}, 422, "ranks"),
        ({"answer": {"ranks": [1, 2]}}, 409, "scale"),
        ({"answer": {"choice": 1, "flags": [["x"]]}}, 409, "1 values for 2"),
        ({"answer": {"ratings": {"x": ["much"]}}}, 422, "ratings"),
        ({"answer": {"wish": 1}}, 422, "wish"),
        ({"skip": "   "}, 409, "needs a reason"),
        ({"seconds": -1}, 422, "seconds"),
        ({"ticket": "x" * 201}, 422, "ticket"),
        ({"purpose": "gold"}, 422, "purpose"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_line(ada, site, change, status, words):
    before = len(site.judgements(current_only=False))
    reply = ada.post("/api/judgements", json=body(view(ada)) | change)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert words in reply.json()["error"]
    assert "\n" not in reply.json()["error"]
    assert len(site.judgements(current_only=False)) == before


def test_nobody_writes_on_anothers_lease_or_takes_back_anothers_word(ada, site):
    shown = view(ada)
    ada.post("/api/judgements", json=body(shown))
    judged = site.judgements()[-1]
    shown = view(ada)
    with site.client("eve") as eve:
        forged = eve.post("/api/judgements", json=body(shown, annotator="eve"))
        assert (forged.status_code, forged.json()["error"][:40]) == (
            409,
            "this item is not before you any more; ju",
        )
        taken = eve.post("/api/undo", json={"campaign": CAMPAIGN, "judgement": judged.id})
        assert "not yours" in taken.json()["error"]
        renewed = eve.post(
            "/api/renew", json={"campaign": CAMPAIGN, "ticket": shown["item"]["ticket"]}
        )
        assert renewed.status_code == 409
        diff = eve.get("/api/diff", params={"campaign": CAMPAIGN, "ticket": "lease x", "base": 0})
        assert diff.status_code == 409
        assert eve.get("/api/history", params={"campaign": CAMPAIGN}).json()["history"] == []
    assert judged in site.judgements()


def test_a_judgement_of_another_campaign_is_not_taken_back_here(ada, site):
    ada.post("/api/judgements", json=body(view(ada, "other")))
    judged = site.judgements("other")[-1]
    reply = ada.post("/api/undo", json={"campaign": CAMPAIGN, "judgement": judged.id})
    assert reply.status_code == 409
    reply = ada.post("/api/undo", json={"campaign": "other", "judgement": judged.id})
    assert reply.json()["item"]["previous"] == {"choice": -2, "both_bad": False, "rationale": None}


def test_a_lease_is_renewed(ada):
    ticket = view(ada)["item"]["ticket"]
    reply = ada.post("/api/renew", json={"campaign": CAMPAIGN, "ticket": ticket})
    assert reply.json() == {"kept": True}


def test_the_session_says_who_is_signed_in(ada):
    assert ada.get("/api/session").json() == {"annotator": "ada"}


def test_an_address_without_a_campaign_asks_for_one(ada):
    reply = ada.get("/api/view")
    assert (reply.status_code, reply.json()) == (
        409,
        {"error": "this address names no campaign; choose one on the home page"},
    )


@pytest.mark.parametrize("path", ["view", "history", "session", "diff?ticket=a&base=0"])
def test_nothing_is_read_without_a_session(ada, path):
    ada.cookies.clear()
    assert ada.get(f"/api/{path}").status_code == 401


@pytest.mark.parametrize("path", ["judgements", "undo", "renew"])
def test_nothing_is_written_without_a_session(ada, path):
    ada.cookies.clear()
    assert ada.post(f"/api/{path}", json={}).status_code == 401


def test_a_store_that_cannot_be_reached_is_a_503(ada, site, monkeypatch):
    from rlhf.errors import StageError

    def broken(*_args, **_values):
        raise StageError("feedback.db: the disk is full; free some")

    monkeypatch.setattr(type(site.store), "own_progress", broken)
    reply = ada.get("/api/view", params={"campaign": CAMPAIGN})
    assert (reply.status_code, reply.json()["error"]) == (
        503,
        "feedback.db: the disk is full; free some",
    )
