"""The home page: which campaigns a person may rate, why one is closed, and the consent."""

import re

import pytest
from starlette.testclient import TestClient

from annotation_ui.guard import Guard
from annotation_ui.home import make_copies_for_people, offered
from annotation_ui.server import build_shell
from annotation_ui.site import Site, make_site
from tests.annotation_ui.conftest import (
    CAMPAIGN,
    add_account,
    comparison,
    make_store,
    session_cookie,
)

BASE = "http://127.0.0.1:7860"
CONSENT = "I take part **freely**. <script>alert(1)</script> ${window.pwned=1}"


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path, [comparison(n) for n in range(3)])
    add_account(store, "lena", "lead")
    yield store
    store.close()


@pytest.fixture
def open_as(store):
    """`open_as(name, campaign=None)`: a client of a server, signed in."""
    clients = []

    def start(name="ada", campaign=None):
        made = make_site(store, 7860)
        site = Site(store=store, sessions=made.sessions, campaign=campaign)
        app = Guard(build_shell(site), site.sessions, site.hosts)
        client = TestClient(app, base_url=BASE, follow_redirects=False)
        client.cookies.set(*session_cookie(site, name), domain="127.0.0.1")
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close()


def add_campaign(store, name, *, num_items=2, **settings):
    store.create_campaign(name, settings=settings)
    store.add_comparisons(name, [comparison(n) for n in range(num_items)])


def titles(page) -> list[str]:
    return re.findall(r'<h2 id="campaign-\d+">(.*?)</h2>', page.text)


def test_a_rater_of_the_only_campaign_goes_straight_to_it(open_as):
    reply = open_as().get("/")
    assert (reply.status_code, reply.headers["location"]) == (303, "/app/?campaign=everyday")


def test_a_lead_sees_the_list_first(open_as):
    client = open_as("lena")
    assert client.get("/").headers["location"] == "/campaigns"
    page = client.get("/campaigns")
    assert titles(page) == [CAMPAIGN]
    assert 'href="/lead/?campaign=everyday"' in page.text


def test_of_several_one_chooses(store, open_as):
    add_campaign(store, "second one & more", title="A <b>title</b>", description="What <i>for</i>")
    client = open_as()
    assert client.get("/").headers["location"] == "/campaigns"
    page = client.get("/campaigns")
    assert titles(page) == [CAMPAIGN, "A &lt;b&gt;title&lt;/b&gt;"]
    assert 'href="/app/?campaign=second%20one%20%26%20more"' in page.text
    assert "You have done 0 of 3" in page.text
    assert "/lead/" not in page.text


def test_a_chosen_campaign_is_the_only_one_offered(store, open_as):
    add_campaign(store, "second")
    client = open_as(campaign="second")
    assert client.get("/").headers["location"] == "/app/?campaign=second"
    assert titles(client.get("/campaigns")) == ["second"]


def test_own_progress_is_shown(store, open_as):
    client = open_as()
    view = client.get("/api/view", params={"campaign": CAMPAIGN}).json()
    item = view["item"]
    body = {
        "annotator": "ada",
        "campaign": CAMPAIGN,
        "ticket": item["ticket"],
        "item": item["item"],
        "shown_order": item["shown_order"],
        "answer": {"choice": 1},
        "seconds": 1.0,
    }
    assert client.post("/api/judgements", json=body).status_code == 200
    assert "You have done 1 of 3" in client.get("/campaigns").text
    assert "<dt>Judged in everyday</dt><dd>1</dd>" in client.get("/account").text
    assert len(client.get("/account/data").json()["judgements"]) == 1


@pytest.mark.parametrize(
    ("settings", "num_items", "words"),
    [
        ({"paused": True}, 2, "Paused for now"),
        ({"consent": "Agree?"}, 2, "Asks for your agreement first"),
        ({}, 0, "Holds no item yet"),
    ],
)
def test_a_closed_campaign_says_why(store, open_as, settings, num_items, words):
    add_campaign(store, "closed", num_items=num_items, **settings)
    client = open_as(campaign="closed")
    assert client.get("/").headers["location"] == "/campaigns"  # not into an empty page
    page = client.get("/campaigns")
    assert words in page.text
    assert ">Rate</a>" not in page.text
    assert (">Read and agree</a>" in page.text) is ("consent" in settings)


def test_ratings_from_elsewhere_that_no_page_asks_for_close_their_campaign_alone(store, open_as):
    store.create_campaign("imported", task="ratings", settings={"title": "From 0 to 100"})
    store.add_comparisons("imported", [comparison(1)])
    page = open_as().get("/campaigns")
    assert page.status_code == 200
    assert titles(page) == [CAMPAIGN, "From 0 to 100"]
    assert "made elsewhere" in page.text
    assert "/app/?campaign=imported" not in page.text
    lead = open_as("lena")
    for path in ("overview", "raters", "items", "disagreements", "campaigns/one"):
        reply = lead.get(f"/api/lead/{path}", params={"campaign": "imported"})
        assert reply.status_code == 200, reply.text


def test_an_excluded_rater_is_told_and_others_are_not(store, open_as):
    add_account(store, "bob")
    store.decide_on_rater(CAMPAIGN, "ada", weight=0, reason="asleep", decided_by="lena")
    page = open_as().get("/campaigns").text
    assert "A lead has closed this campaign for you" in page
    assert "asleep" not in page
    assert "has closed" not in open_as("bob").get("/campaigns").text


def test_with_no_campaign_a_lead_is_shown_where_to_make_one(store, open_as, tmp_path):
    from rlhf.feedback.store import Store

    with Store.open(tmp_path / "empty.db", create=True) as empty:
        add_account(empty, "lena", "lead")
        add_account(empty, "ada")
        site = make_site(empty, 7860)
        app = Guard(build_shell(site), site.sessions, site.hosts)
        for name, words in (("lena", "Make a campaign"), ("ada", "Nothing to rate yet")):
            with TestClient(app, base_url=BASE) as client:
                client.cookies.set(*session_cookie(site, name), domain="127.0.0.1")
                assert words in client.get("/").text


def test_what_simulated_raters_judged_people_rate_in_its_copy(store, open_as):
    add_campaign(store, "simulated")
    simulate_all(store, "simulated")
    site = make_site(store, 7860)
    assert [one.name for one in offered(site)] == [CAMPAIGN]  # no copy yet: nothing to mix
    assert [one.name for one in make_copies_for_people(store)] == ["simulated-people"]
    assert [one.name for one in make_copies_for_people(store)] == ["simulated-people"]  # once
    assert [one.name for one in offered(site)] == [CAMPAIGN, "simulated-people"]
    assert titles(open_as().get("/campaigns")) == [CAMPAIGN, "simulated-people"]


def simulate_all(store, campaign):
    from datetime import UTC, datetime

    from rlhf.records import Annotator, Judgement

    store.add_annotator(Annotator(name="robot", simulated=True))
    store.record(
        Judgement(
            id=f"{campaign}-{one.item}",
            campaign=campaign,
            item=one.item,
            annotator="robot",
            simulated=True,
            seconds=1.0,
            created_at=datetime.now(UTC),
            shown_order=(0, 1),
            verdict=1,
        )
        for one in store.comparisons(campaign)
    )


# ---- consent


@pytest.fixture
def asking(store):
    add_campaign(store, "asking", consent=CONSENT)
    return store


def seen_in(page) -> str:
    return re.search(r'name="seen" value="(\w+)"', page.text)[1]


def test_the_consent_text_is_shown_inert_and_agreeing_opens_the_campaign(asking, open_as):
    client = open_as()
    page = client.get("/consent", params={"campaign": "asking"})
    assert "<strong>freely</strong>" in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<script" not in page.text
    assert not asking.has_agreed("asking", "ada")
    reply = client.post("/consent", data={"campaign": "asking", "seen": seen_in(page)})
    assert (reply.status_code, reply.headers["location"]) == (303, "/app/?campaign=asking")
    assert asking.has_agreed("asking", "ada")
    assert client.get("/api/view", params={"campaign": "asking"}).json()["item"]
    again = client.get("/consent", params={"campaign": "asking"})
    assert again.headers["location"] == "/app/?campaign=asking"


def test_nothing_is_shown_before_one_has_agreed(asking, open_as):
    view = open_as().get("/api/view", params={"campaign": "asking"}).json()
    assert view.get("item") is None


@pytest.mark.parametrize("seen", ["", "0" * 64, "x"])
def test_one_agrees_only_to_what_was_shown(asking, open_as, seen):
    reply = open_as().post("/consent", data={"campaign": "asking", "seen": seen})
    assert reply.status_code == 409
    assert "has changed meanwhile" in reply.text
    assert not asking.has_agreed("asking", "ada")


def test_a_text_that_changed_meanwhile_is_shown_again(asking, open_as):
    client = open_as()
    seen = seen_in(client.get("/consent", params={"campaign": "asking"}))
    asking.change_settings("asking", {"consent": "New words."})
    reply = client.post("/consent", data={"campaign": "asking", "seen": seen})
    assert reply.status_code == 409
    assert "New words." in reply.text
    reply = client.post("/consent", data={"campaign": "asking", "seen": seen_in(reply)})
    assert reply.status_code == 303


def test_nobody_agrees_for_another(asking, open_as):
    add_account(asking, "bob")
    client = open_as()
    seen = seen_in(client.get("/consent", params={"campaign": "asking"}))
    client.post("/consent", data={"campaign": "asking", "seen": seen, "annotator": "bob"})
    assert not asking.has_agreed("asking", "bob")


@pytest.mark.parametrize("campaign", ["", "nowhere", "<b>x</b>"])
def test_an_unknown_campaign_is_said(asking, open_as, campaign):
    client = open_as()
    page = client.get("/consent", params={"campaign": campaign})
    assert page.status_code == 404
    assert "No such campaign" in page.text
    assert client.post("/consent", data={"campaign": campaign}).status_code == 404
