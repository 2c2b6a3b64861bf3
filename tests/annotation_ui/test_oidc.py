"""Signing in with a real OpenID Connect provider on a local port, and with one that lies."""

import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from annotation_ui.guard import Guard
from annotation_ui.oidc import Provider, check_issuer
from annotation_ui.server import build_shell
from annotation_ui.site import make_site
from rlhf.errors import ConfigError
from tests.annotation_ui.conftest import add_account, comparison, make_store
from tests.annotation_ui.openid import CLIENT_ID, CLIENT_SECRET, OpenIdProvider

BASE = "http://127.0.0.1:7860"
COOKIE = "rlhf_session_7860_oidc"


@pytest.fixture
def provider():
    running = OpenIdProvider()
    yield running
    running.stop()


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path, [comparison(n) for n in range(2)])
    yield store
    store.close()


@pytest.fixture
def ours(provider):
    return Provider(issuer=provider.issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)


@pytest.fixture
def open_browser(store, ours):
    """`open_browser()`: another browser before one server; `domain` is the one admitted."""
    clients = []

    def start(domain=None):
        site = make_site(store, 7860, provider=replace(ours, domain=domain))
        app = Guard(build_shell(site), site.sessions, site.hosts)
        clients.append(TestClient(app, base_url=BASE, follow_redirects=False))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def client(open_browser):
    return open_browser()


def go(client, **query) -> str:
    """Begins a sign-in and goes to the provider; the address that it sends back to."""
    reply = client.get("/oidc/start", params=query)
    assert reply.status_code == 303
    assert "HttpOnly; SameSite=Lax" in reply.headers["set-cookie"]
    address = reply.headers["location"]
    assert parse_qs(urlsplit(address).query)["redirect_uri"] == [f"{BASE}/oidc/callback"]
    back = httpx.get(address).headers["location"]
    assert back.startswith(f"{BASE}/oidc/callback?")
    return back


def sign_in(client, **query) -> httpx.Response:
    return client.get(go(client, **query))


def is_signed_in(client) -> bool:
    return client.get("/account").status_code == 200


def assert_refused(client, reply, words="") -> None:
    assert reply.status_code == 403
    assert "You are not signed in" in reply.text
    assert words in reply.text
    cookies = reply.headers.get_list("set-cookie")
    assert all(cookie.startswith(f"{COOKIE}=;") for cookie in cookies)
    assert not is_signed_in(client)


def test_an_invite_is_redeemed_with_the_provider_instead_of_a_password(store, client):
    token = store.create_invite(role="lead")
    page = client.get("/join", params={"token": token}).text
    assert f"/oidc/start?token={token}" in page
    reply = sign_in(client, token=token)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    account = store.account("Ada Lovelace")
    assert (account.role, account.has_password) == ("lead", False)
    assert is_signed_in(client)
    assert client.get("/join", params={"token": token}).status_code == 403  # used up


def test_a_known_identity_signs_in_and_leads_on(store, client, ours):
    add_account(store, "grace")
    store.link_identity("grace", ours.issuer, "7")
    reply = sign_in(client, next="/app/?campaign=everyday")
    assert reply.headers["location"] == "/app/?campaign=everyday"
    assert "<dd>grace</dd>" in client.get("/account").text


def test_an_invite_of_an_account_binds_the_identity_to_it(store, client, open_browser):
    assert sign_in(client, token=store.create_invite(annotator="ada")).status_code == 303
    assert "<dd>ada</dd>" in client.get("/account").text
    again = open_browser()
    assert sign_in(again).status_code == 303
    assert "<dd>ada</dd>" in again.get("/account").text


def test_a_subject_is_known_by_its_number_and_not_by_its_name(store, client, provider, ours):
    add_account(store, "grace")
    store.link_identity("grace", ours.issuer, "7")
    provider.person = {"sub": "8", "name": "grace", "preferred_username": "grace"}
    assert_refused(client, sign_in(client), "You have no account here yet")


def test_the_same_subject_of_another_issuer_is_somebody_else(store, client):
    store.link_identity("ada", "https://elsewhere.example", "7")
    assert_refused(client, sign_in(client), "You have no account here yet")


def test_a_taken_name_gets_a_number(store, client, provider):
    provider.person = {"sub": "9", "preferred_username": "ada"}
    assert sign_in(client, token=store.create_invite()).status_code == 303
    assert "<dd>ada-2</dd>" in client.get("/account").text


@pytest.mark.parametrize("token", ["nonsense", "x" * 600])
def test_a_forged_invite_lets_nobody_in(store, client, token):
    before = store.accounts()
    assert_refused(client, sign_in(client, token=token), "not known here")
    assert store.accounts() == before


def test_a_closed_account_stays_closed(store, client, ours):
    add_account(store, "grace")
    store.link_identity("grace", ours.issuer, "7")
    store.set_disabled("grace", True)
    assert_refused(client, sign_in(client), "closed")


# ---- by e-mail domain


def test_a_verified_address_of_the_domain_is_admitted_as_a_rater(store, open_browser, provider):
    client = open_browser(domain="example.org")
    provider.person |= {"email": "ada.l@Example.org", "email_verified": True}
    assert sign_in(client).status_code == 303
    assert store.account("Ada Lovelace").role == "rater"
    again = open_browser(domain="example.org")
    assert sign_in(again).status_code == 303
    assert sum(account.name.startswith("Ada L") for account in store.accounts()) == 1


@pytest.mark.parametrize(
    "person",
    [
        {},
        {"email": "ada@example.org"},
        {"email": "ada@example.org", "email_verified": False},
        {"email": "ada@example.org", "email_verified": "true"},
        {"email": "ada@evil-example.org", "email_verified": True},
        {"email": "ada@example.org.attacker.example", "email_verified": True},
        {"email": "ada@sub.example.org", "email_verified": True},
        {"email": "example.org", "email_verified": True, "preferred_username": "a@example.org"},
        {"email": "@example.org", "email_verified": True},
    ],
)
def test_other_addresses_are_not(store, open_browser, provider, person):
    client = open_browser(domain="example.org")
    provider.person = {"sub": "7", "name": "Ada", **person}
    before = store.accounts()
    assert_refused(client, sign_in(client), "You have no account here yet")
    assert store.accounts() == before


def test_the_address_may_come_from_the_userinfo_endpoint(store, open_browser, provider):
    client = open_browser(domain="example.org")
    provider.userinfo = {"sub": "7", "email": "a@example.org", "email_verified": True}
    assert sign_in(client).status_code == 303
    provider.person = {"sub": "8"}
    assert_refused(other := open_browser(domain="example.org"), sign_in(other), "two people")


# ---- what is not believed


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": ["another-client"], "azp": CLIENT_ID},
        {"aud": None},
        {"iss": "https://attacker.example"},
        {"iss": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"sub": None},
        {"nbf": int(time.time()) + 3600},
    ],
)
def test_an_id_token_that_is_not_for_us_now_is_refused(store, client, ours, provider, lies):
    store.link_identity("ada", ours.issuer, "7")
    provider.lies = lies
    assert_refused(client, sign_in(client))
    provider.lies = {}
    assert sign_in(client).status_code == 303


@pytest.mark.parametrize("algorithm", ["none", "HS256", "another key"])
@pytest.mark.filterwarnings("ignore")
def test_an_id_token_that_the_provider_did_not_sign_is_refused(
    store, client, ours, provider, algorithm
):
    store.link_identity("ada", ours.issuer, "7")
    if algorithm == "another key":
        provider.signing_key = RSAKey.generate_key(2048, parameters={"kid": "one"})
    else:
        provider.algorithm = algorithm
    assert_refused(client, sign_in(client))


def test_a_provider_that_calls_itself_another_is_refused(client, provider):
    provider.discovery_lies = {"issuer": "https://attacker.example"}
    reply = client.get("/oidc/start")
    assert reply.status_code == 502
    assert "calls itself" in reply.text


def test_an_answer_opens_nothing_a_second_time(store, client, ours, provider):
    store.link_identity("ada", ours.issuer, "7")
    back = go(client)
    kept = client.cookies.get(COOKIE)
    assert client.get(back).status_code == 303
    num_asked = len(provider.token_requests)
    client.cookies.clear()
    client.cookies.set(COOKIE, kept, domain="127.0.0.1")  # the thief has the cookie as well
    assert_refused(client, client.get(back), "used before")
    assert len(provider.token_requests) == num_asked


def test_an_answer_opens_nothing_in_another_browser(store, client, open_browser, ours):
    store.link_identity("ada", ours.issuer, "7")
    back = go(client)
    victim = open_browser()
    assert_refused(victim, victim.get(back), "not begun in this browser")
    go(victim)
    assert_refused(victim, victim.get(back), "belongs to another sign-in")


@pytest.mark.parametrize("query", ["", "?code=x", "?state=x", "?code=x&state=x", "?error=denied"])
def test_an_answer_out_of_the_blue_is_refused(client, query):
    assert_refused(client, client.get(f"/oidc/callback{query}"))


@pytest.mark.parametrize("cookie", ["", "x", "e30.aaaa.bbbb", '"', "e30"])
def test_a_forged_journey_is_refused(client, cookie):
    back = go(client)
    client.cookies.clear()
    headers = {"cookie": f"{COOKIE}={cookie}"}
    assert_refused(client, client.get(back, headers=headers), "not begun in this browser")


def test_a_journey_that_took_too_long_is_refused(store, client, ours, monkeypatch):
    store.link_identity("ada", ours.issuer, "7")
    back = go(client)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert_refused(client, client.get(back), "too long ago")


def test_a_refusal_by_the_provider_is_said(client, provider):
    provider.refuses = True
    assert_refused(client, sign_in(client), "has not let you in")


def test_a_provider_that_is_down_is_said_in_words(client, provider):
    provider.stop()
    reply = client.get("/oidc/start")
    assert reply.status_code == 502
    assert "127.0.0.1: " in reply.text
    assert "Traceback" not in reply.text
    provider.server, provider.thread = _Stopped(), _Stopped()


class _Stopped:
    def shutdown(self): ...
    def server_close(self): ...
    def join(self): ...


@pytest.mark.parametrize("next", ["https://attacker.example", "//attacker.example", "/\\x"])
def test_signing_in_leads_nowhere_else(store, client, ours, next):
    store.link_identity("ada", ours.issuer, "7")
    assert sign_in(client, next=next).headers["location"] == "/"


def test_without_a_provider_there_is_nothing(store):
    site = make_site(store, 7860)
    app = Guard(build_shell(site), site.sessions, site.hosts)
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        assert client.get("/oidc/start").status_code == 404
        assert client.get("/oidc/callback").status_code == 404
        assert "/oidc" not in client.get("/sign-in").text


def test_two_servers_share_the_key_of_journeys(ours):
    assert ours.signing_key == replace(ours).signing_key
    public = replace(ours, client_secret="")
    assert public.signing_key != replace(public).signing_key
    assert public.signing_key == public.signing_key


@pytest.mark.parametrize(
    "issuer", ["", "login.example.org", "http://login.example.org", "https://a?b", "ftp://a"]
)
def test_an_issuer_that_cannot_be_asked_safely_is_refused(issuer):
    with pytest.raises(ConfigError, match="--oidc_issuer"):
        check_issuer(issuer)


@pytest.mark.browser
def test_in_a_browser(browser, serve, tmp_path, provider, ours):
    live = serve(make_store(tmp_path, [comparison(1)]), provider=ours)
    page = browser.new_context().new_page()
    page.goto(f"{live.address}/join?token={live.store.create_invite()}")
    page.click("text=Continue with 127.0.0.1")
    page.wait_for_url("**/app/?campaign=everyday")
    page.goto(f"{live.address}/account")
    assert page.inner_text("dd >> nth=0") == "Ada Lovelace"
    page.click("text=Sign out >> nth=0")
    page.wait_for_url("**/sign-in")
    page.click("text=Sign in with 127.0.0.1")
    page.wait_for_url("**/app/?campaign=everyday")
    page.context.close()
