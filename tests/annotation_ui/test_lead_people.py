"""People: invites, roles, shutting out, and erasure, each with its refusals."""

import pytest

from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.annotation_ui.lead_site import lead_client, make_campaign, say


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "feedback.db", create=True) as made:
        yield made


@pytest.fixture
def client(store):
    make_campaign(store)
    return lead_client(store)


def people(client):
    reply = client.get("/api/lead/people")
    assert reply.status_code == 200, reply.text
    return {one["name"]: one for one in reply.json()["accounts"]}


def post(client, path, **body):
    return client.post(f"/api/lead/people/{path}", json=body)


def refused(reply, words=""):
    assert reply.status_code == 409, reply.text
    assert words in reply.json()["error"]
    assert "\n" not in reply.json()["error"]


def test_accounts_say_role_and_last_judgement_and_mark_simulated_ones(store, client):
    store.add_annotator(Annotator(name="robot", simulated=True))
    row = say(store, "i1", "ann")
    found = people(client)
    assert found["lea"]["role"] == "lead"
    assert found["ann"]["last_judged_at"] == row.created_at.isoformat()
    assert found["bob"]["last_judged_at"] is None
    assert found["robot"]["simulated"]
    assert not found["ann"]["simulated"]
    assert found["ann"]["ways"] == []
    store.set_password_hash("ann", "x")
    store.link_identity("ann", "https://issuer.example", "7")
    assert people(client)["ann"]["ways"] == ["password", "OpenID Connect"]


def test_an_invite_is_shown_once_and_lets_one_person_in(store, client):
    made = post(client, "invite", role="lead", days=1).json()
    address, _, token = made["url"].partition("/join?token=")
    assert address == "http://testserver"
    assert [one["role"] for one in made["invites"]] == ["lead"]
    assert token not in client.get("/api/lead/people").text
    account = store.redeem_invite(token, name="cyd")
    assert (account.name, account.role) == ("cyd", "lead")
    assert client.get("/api/lead/people").json()["invites"] == []


def test_a_sign_in_link_is_for_one_person(store, client):
    made = post(client, "invite", annotator="ann", days=1).json()
    token = made["url"].partition("token=")[2]
    assert store.redeem_invite(token).name == "ann"


def test_an_open_invite_can_be_revoked(store, client):
    made = post(client, "invite").json()
    token = made["url"].partition("token=")[2]
    after = post(client, "revoke", id=made["invites"][0]["id"]).json()
    assert after["invites"] == []
    with pytest.raises(Exception, match="withdrawn"):
        store.redeem_invite(token, name="cyd")


def test_links_for_those_who_cannot_sign_in_are_refused(store, client):
    store.add_annotator(Annotator(name="robot", simulated=True))
    refused(post(client, "invite", annotator="robot"), "simulated")
    refused(post(client, "invite", annotator="nobody"), "nobody")
    assert client.get("/api/lead/people").json()["invites"] == []


def test_roles_change_and_the_last_lead_stays(store, client):
    assert post(client, "role", name="ann", role="lead").status_code == 200
    assert store.account("ann").role == "lead"
    assert post(client, "role", name="ann", role="rater").status_code == 200
    refused(post(client, "role", name="lea", role="rater"), "only lead")
    assert post(client, "role", name="ann", role="queen").status_code == 422


def test_a_disabled_person_is_signed_out(store, client):
    token = store.open_session("ann", lifetime_s=60)
    assert post(client, "disable", name="ann", disabled=True).status_code == 200
    assert store.session(token) is None
    assert people(client)["ann"]["disabled"]
    assert post(client, "disable", name="ann", disabled=False).status_code == 200
    assert not people(client)["ann"]["disabled"]
    refused(post(client, "disable", name="lea", disabled=True), "yourself")


def test_erasure_needs_the_name_typed_and_keeps_the_statistics(store, client):
    say(store, "i1", "ann", verdict=2, rationale="I am Ann of Main Street")
    for typed in ("", "Ann", "bob", " ann"):
        refused(post(client, "erase", name="ann", typed=typed), "type the name")
    assert "ann" in people(client)
    made = post(client, "erase", name="ann", typed="ann").json()
    assert "ann" not in people(client)
    (row,) = store.judgements("c")
    assert (row.annotator, row.verdict) == (made["pseudonym"], 2)
    assert not row.rationale


def test_a_lead_does_not_erase_themselves(store, client):
    refused(post(client, "erase", name="lea", typed="lea"), "yourself")
    assert store.account("lea").role == "lead"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("invite", {"role": "lead"}),
        ("revoke", {"id": 1}),
        ("role", {"name": "ann", "role": "lead"}),
        ("disable", {"name": "bob", "disabled": True}),
        ("erase", {"name": "bob", "typed": "bob"}),
    ],
)
def test_a_rater_is_refused(store, client, path, body):
    rater = lead_client(store, "ann", "rater")
    assert post(rater, path, **body).status_code == 403
    assert rater.get("/api/lead/people").status_code == 403
    assert store.invites() == []
    assert {one.name: one.role for one in store.accounts()} == {
        "ann": "rater", "bob": "rater", "lea": "lead",
    }  # fmt: skip


def test_reports_forget_an_erased_person_at_once(store, client):
    for item in ("i0", "i1"):
        say(store, item, "ann", verdict=1)
        say(store, item, "bob", verdict=1)
    for path in ("overview", "raters"):
        assert client.get(f"/api/lead/{path}", params={"campaign": "c"}).status_code == 200
    assert post(client, "erase", name="ann", typed="ann").status_code == 200
    for path in ("overview", "raters"):
        reply = client.get(f"/api/lead/{path}", params={"campaign": "c"})
        assert reply.status_code == 200, reply.text
        assert '"ann"' not in reply.text
