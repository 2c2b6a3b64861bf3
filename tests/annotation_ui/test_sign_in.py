"""Sign-in by password and by link, sessions, the account page, and throttling."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from annotation_ui.guard import Guard
from annotation_ui.passwords import (
    FREE_TRIES,
    MAX_WAIT_S,
    Passwords,
    problem_with_password,
    waiting_time_s,
)
from annotation_ui.server import build_shell
from annotation_ui.session import CACHE_S, Sessions
from annotation_ui.sign_in import own_path
from annotation_ui.site import Site, make_site
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.annotation_ui.conftest import (
    CAMPAIGN,
    add_account,
    comparison,
    make_store,
    session_cookie,
)

BASE = "http://127.0.0.1:7860"
HTML = {"accept": "text/html"}
PASSWORD = "four calm words here"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path, [comparison(n) for n in range(3)])
    yield store
    store.close()


@pytest.fixture
def site(store):
    made = make_site(store, 7860)
    return Site(store=store, sessions=made.sessions, passwords=Passwords(hasher=CHEAP))


def build_app(site):
    """The application without Gradio's pages, which take a second to make."""
    return Guard(build_shell(site), site.sessions, site.hosts)


def give_session(client, site, name="ada"):
    client.cookies.set(*session_cookie(site, name), domain="127.0.0.1")


@pytest.fixture
def client(site):
    with TestClient(build_app(site), base_url=BASE, follow_redirects=False) as client:
        yield client


@pytest.fixture
def second_browser(client):
    other = TestClient(client.app, base_url=BASE, follow_redirects=False)
    yield other
    other.close()


def give_password(site, name="ada", password=PASSWORD):
    site.store.set_password_hash(name, site.passwords.hasher.hash(password))


def sign_in(client, name="ada", password=PASSWORD, **values):
    return client.post("/sign-in", data={"name": name, "password": password, **values})


def is_signed_in(client) -> bool:
    return client.get("/account").status_code == 200


# ---- links


def test_a_link_to_an_account_signs_in_by_its_button_once(site, client, second_browser):
    token = site.store.create_invite(annotator="ada")
    for _ in range(3):  # a preview by a mail program, a reload
        page = client.get("/join", params={"token": token}, headers=HTML)
        assert "Continue as ada" in page.text
        assert "set-cookie" not in page.headers
    client.head("/join", params={"token": token})
    reply = client.post("/join", data={"token": token})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    for flag in ("rlhf_session_7860=", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="):
        assert flag in reply.headers["set-cookie"]
    assert "Secure" not in reply.headers["set-cookie"]
    assert is_signed_in(client)
    again = second_browser.post("/join", data={"token": token})
    assert again.status_code == 403
    assert "used already" in again.text
    assert "set-cookie" not in again.headers
    assert second_browser.get("/join", params={"token": token}).status_code == 403


def test_the_first_leads_invite_makes_an_account(site, client):
    token = site.store.create_invite(role="lead")
    assert "Make the lead" in client.get("/join", params={"token": token}).text
    form = {"token": token, "name": " lena ", "password": PASSWORD, "again": PASSWORD}
    assert client.post("/join", data=form).status_code == 303
    account = site.store.account("lena")
    assert (account.role, account.has_password) == ("lead", True)
    assert client.get("/api/lead/shell").status_code == 200
    assert PASSWORD not in site.store.password_hash("lena")
    assert site.store.password_hash("lena").startswith("$argon2id$")


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"name": ""}, 422, "A name is needed"),
        ({"name": "x" * 65}, 422, "at most 64"),
        ({"name": "a\u202eb"}, 422, "cannot be read"),
        ({"password": "short"}, 422, "at least 10"),
        ({"again": "something else"}, 422, "not the same"),
        ({"password": "aaaaaaaaaaaa", "again": "aaaaaaaaaaaa"}, 422, "easy to guess"),
        ({"name": "ada"}, 409, "taken"),
    ],
)
def test_a_form_that_will_not_do_leaves_the_invite_good(site, client, values, status, words):
    token = site.store.create_invite()
    form = {"token": token, "name": "grace", "password": PASSWORD, "again": PASSWORD}
    reply = client.post("/join", data={**form, **values})
    assert reply.status_code == status
    assert words in reply.text
    assert PASSWORD not in reply.text
    assert "set-cookie" not in reply.headers
    assert client.post("/join", data=form).status_code == 303


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 5000, "\u202e", "' OR 1=1 --"])
def test_a_forged_link_opens_nothing(client, token):
    for reply in (
        client.get("/join", params={"token": token}),
        client.post("/join", data={"token": token, "name": "eve", "password": PASSWORD,
                                   "again": PASSWORD}),
    ):  # fmt: skip
        assert reply.status_code == 403
        assert "This link opens nothing" in reply.text
        assert "set-cookie" not in reply.headers


def test_an_old_a_withdrawn_and_another_stores_link_open_nothing(site, client, tmp_path):
    old = site.store.create_invite(lifetime_s=60, now=datetime.now(UTC) - timedelta(hours=1))
    assert "expired" in client.get("/join", params={"token": old}).text
    withdrawn = site.store.create_invite(annotator="ada")
    site.store.revoke_invite(site.store.invites()[-1].id)
    assert client.post("/join", data={"token": withdrawn}).status_code == 403
    (tmp_path / "other").mkdir()
    with make_store(tmp_path / "other") as other:
        foreign = other.create_invite(annotator="ada")
    assert client.post("/join", data={"token": foreign}).status_code == 403


def test_a_link_gives_no_role_but_its_own(site, client):
    token = site.store.create_invite(role="rater")
    form = {"token": token, "name": "eve", "password": PASSWORD, "again": PASSWORD, "role": "lead"}
    assert client.post("/join", data=form).status_code == 303
    assert site.store.account("eve").role == "rater"


# ---- passwords


def test_the_right_password_signs_in_and_leads_on(site, client):
    give_password(site)
    reply = sign_in(client, next="/app/?campaign=everyday")
    assert (reply.status_code, reply.headers["location"]) == (303, "/app/?campaign=everyday")
    assert is_signed_in(client)
    assert client.get("/sign-in").headers["location"] == "/"


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "wrong password"), ("ada", ""), ("nobody", PASSWORD), ("", ""), ("robot", PASSWORD),
     ("dora", PASSWORD), ("bare", ""), ("bare", PASSWORD), ("ada", PASSWORD + "\0")],
)  # fmt: skip
def test_all_wrong_sign_ins_look_alike(site, client, name, password):
    give_password(site)
    for other in ("dora", "bare"):
        add_account(site.store, other)
    give_password(site, "dora")
    site.store.set_disabled("dora", True)
    site.store.add_annotator(Annotator(name="robot", simulated=True))
    reply = sign_in(client, name, password)
    assert reply.status_code == 403
    assert "The name or the password is wrong." in reply.text
    assert "set-cookie" not in reply.headers


def test_an_unknown_name_is_verified_like_a_known_one(site, client):
    give_password(site)
    tried = []

    class Watching(PasswordHasher):
        def verify(self, hash, password):
            tried.append(hash)
            return super().verify(hash, password)

    site.passwords.hasher = Watching(time_cost=1, memory_cost=8, parallelism=1)
    for name in ("ada", "nobody", "no\0body"):
        assert sign_in(client, name, "wrong password").status_code == 403
    assert len(tried) == 3
    parameters = {hash.rpartition("$")[0].rpartition("$")[0] for hash in tried}
    assert len(parameters) == 1  # as costly as each other


def test_an_old_hash_is_made_anew(site, client):
    give_password(site)
    site.passwords.hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    assert sign_in(client).status_code == 303
    assert "t=2" in site.store.password_hash("ada")
    client.cookies.clear()
    assert sign_in(client).status_code == 303


def test_the_library_defaults_are_in_use():
    assert Passwords().hasher.hash("x").startswith("$argon2id$v=19$m=65536,t=3,p=4$")


@pytest.mark.parametrize(
    ("password", "again", "words"),
    [
        ("ninechars", "ninechars", "at least 10"),
        ("x" * 1001, "x" * 1001, "at most 1000"),
        ("ten characters", "Ten characters", "not the same"),
        ("abababababab", "abababababab", "too easy"),
        ("ada lovelace", "ada lovelace", "too easy"),
    ],
)
def test_new_passwords_that_will_not_do(password, again, words):
    assert words in problem_with_password(password, again, name="Ada Lovelace")
    assert problem_with_password(PASSWORD, PASSWORD, name="ada") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/app/?campaign=a", "/app/?campaign=a"),
        ("", "/"),
        ("//attacker.example", "/"),
        ("/\\attacker.example", "/"),
        ("https://attacker.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nset-cookie: x", "/"),
        ("app", "/"),
    ],
)
def test_signing_in_leads_nowhere_else(path, expected):
    assert own_path(path) == expected


# ---- throttling


def test_the_wait_grows_and_ends(store):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    key, free = "name:ada", FREE_TRIES["name"]
    for _ in range(free - 1):
        store.record_sign_in_failure(key, now=now)
    assert waiting_time_s(store, key, now=now) == 0
    waits = []
    for _ in range(14):
        store.record_sign_in_failure(key, now=now)
        waits.append(waiting_time_s(store, key, now=now))
    assert waits[:5] == [1, 2, 4, 8, 16]  # 2 ** (failures - free tries)
    assert waits[-1] == MAX_WAIT_S
    assert waiting_time_s(store, "name:bob", now=now) == 0
    later = now + timedelta(seconds=100)
    assert waiting_time_s(store, key, now=later) == pytest.approx(MAX_WAIT_S - 100, abs=1)
    assert waiting_time_s(store, key, now=now + timedelta(seconds=MAX_WAIT_S + 1)) == 0
    assert waiting_time_s(store, key, now=now + timedelta(hours=2)) == 0


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_after_some_failures_one_has_to_wait_even_with_the_right_password(site, client, name):
    give_password(site)
    for _ in range(FREE_TRIES["name"] + 4):
        site.store.record_sign_in_failure(f"name:{name}")
    reply = sign_in(client, name)
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["retry-after"]) <= 16
    assert f"Try again in {reply.headers['retry-after']} seconds." in reply.text
    assert not is_signed_in(client)


def test_a_link_still_opens_what_somebody_else_has_throttled(site, client):
    for _ in range(50):
        site.store.record_sign_in_failure("name:ada")
    token = site.store.create_invite(annotator="ada")
    assert client.post("/join", data={"token": token}).status_code == 303


def test_success_clears_the_name(site, client):
    give_password(site)
    for _ in range(FREE_TRIES["name"] - 1):
        assert sign_in(client, password="wrong password").status_code == 403
    assert sign_in(client).status_code == 303
    client.cookies.clear()
    for _ in range(FREE_TRIES["name"]):
        assert sign_in(client, password="wrong password").status_code == 403
    assert sign_in(client).status_code == 429


def test_one_address_cannot_go_through_many_names(site, client):
    for number in range(FREE_TRIES["address"] + 6):
        reply = sign_in(client, f"name{number}", "wrong password")
    assert reply.status_code == 429
    give_password(site)
    assert sign_in(client).status_code == 429


def test_the_waits_hold_on_a_second_server(site, store):
    second = Site(
        store=Store.open(store.location),
        sessions=Sessions(store, "rlhf_session_7861"),
        passwords=Passwords(hasher=CHEAP),
    )
    give_password(site)
    for _ in range(FREE_TRIES["name"] + 3):
        store.record_sign_in_failure("name:ada")
    with TestClient(build_app(second), base_url=BASE, follow_redirects=False) as client:
        assert sign_in(client).status_code == 429
    second.store.close()


# ---- sessions


def test_without_a_session_one_is_asked_to_sign_in(client):
    for path in ("/app/?campaign=a%20b", "/campaigns", "/anything", "/account"):
        reply = client.get(path, headers=HTML)
        assert reply.status_code == 303
        assert reply.headers["location"].startswith("/sign-in?next=/")
    assert client.get("/", headers=HTML).headers["location"] == "/sign-in"
    page = client.get("/app/?campaign=a%20b", headers=HTML, follow_redirects=True)
    assert 'name="next" value="/app/?campaign=a%20b"' in page.text
    for path in ("/api/view", "/app/theme.css", "/api/lead/shell"):
        assert client.get(path).status_code == 401
    assert client.post("/api/judgements", json={}).json() == {"error": "signed out"}


@pytest.mark.parametrize("cookie", ["ada", "ImFkYSI.aaaa.bbbb", '"', "\\", "x" * 4000, "é", ""])
def test_a_forged_cookie_is_no_session(client, cookie):
    headers = {"cookie": f"rlhf_session_7860={cookie}".encode()}
    assert client.get("/account", headers=headers).status_code == 401


def test_a_neighbours_odd_cookie_does_no_harm(site, client):
    name, value = session_cookie(site, "ada")
    headers = {"cookie": f'a[b]=c d; =x; "; {name}={value}; z'}
    assert client.get("/account", headers=headers).status_code == 200


def test_the_store_holds_no_token(site, store):
    _, token = session_cookie(site, "ada")
    invite = store.create_invite()
    for path in store_files(store):
        assert token.encode() not in path.read_bytes()
        assert invite.encode() not in path.read_bytes()


def store_files(store):
    from pathlib import Path

    return list(Path(store.location).parent.glob("feedback.db*"))


def test_an_expired_session_is_over_and_an_ageing_one_renewed(store):
    now = [time.time()]
    sessions = Sessions(store, "rlhf_session_7860", lifetime_s=1000, clock=lambda: now[0])
    site = Site(store=store, sessions=sessions)
    with TestClient(build_app(site), base_url=BASE, follow_redirects=False) as client:
        give_session(client, site)
        assert "set-cookie" not in client.get("/api/view").headers
        now[0] += 600
        assert "Max-Age=1000" in client.get("/api/view").headers["set-cookie"]
        assert "set-cookie" not in client.get("/api/view").headers
        now[0] += 600
        assert client.get("/api/view").status_code == 200  # as renewed
        now[0] += 1001
        assert client.get("/api/view").json() == {"error": "signed out"}


def test_a_session_outlives_the_server(site, client, store):
    give_session(client, site)
    assert is_signed_in(client)
    with Store.open(store.location) as again:
        after = make_site(again, 7860)
        with TestClient(build_app(after), base_url=BASE) as later:
            later.cookies = client.cookies
            assert is_signed_in(later)


def test_signing_out_ends_this_session_only(site, client, second_browser):
    give_session(client, site)
    give_session(second_browser, site)
    kept = dict(client.cookies)
    assert is_signed_in(client)
    reply = client.post("/sign-out")
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert reply.headers.get_list("set-cookie") == [reply.headers["set-cookie"]]
    for name, value in kept.items():  # the thief's copy is worth nothing either
        client.cookies.set(name, value, domain="127.0.0.1")
    assert not is_signed_in(client)
    assert is_signed_in(second_browser)


def test_signing_in_again_ends_the_session_before(site, client):
    give_password(site)
    name, token = session_cookie(site, "ada")
    client.cookies.set(name, token, domain="127.0.0.1")
    assert sign_in(client).status_code == 303
    assert site.store.session(token) is None


def test_a_disabled_account_is_out_within_seconds(store):
    now = [time.time()]
    sessions = Sessions(store, "s", clock=lambda: now[0])
    token = session_cookie(Site(store=store, sessions=sessions), "ada")[1]
    assert sessions.seen_lately(token).name == "ada"
    store.set_disabled("ada", True)
    now[0] += CACHE_S
    assert sessions.seen_lately(token) is None
    assert sessions.account(token) is None
    assert sessions.seen_lately(token) is None


def test_two_servers_on_one_postgresql_share_sessions_and_sign_outs(postgres_store_url):
    with Store.open(postgres_store_url) as one, Store.open(postgres_store_url) as two:
        one.create_campaign(CAMPAIGN)
        one.add_comparisons(CAMPAIGN, [comparison(1)])
        one.add_annotator(Annotator(name="ada"))
        now = [time.time()]
        sites = [
            Site(store=store, sessions=Sessions(store, "shared", clock=lambda: now[0]))
            for store in (one, two)
        ]
        first, second = (
            TestClient(build_app(site), base_url=BASE, follow_redirects=False) for site in sites
        )
        token = one.create_invite(annotator="ada")
        assert second.post("/join", data={"token": token}).status_code == 303
        assert first.post("/join", data={"token": token}).status_code == 403
        first.cookies = second.cookies
        assert is_signed_in(first)
        assert first.post("/sign-out").status_code == 303
        now[0] += CACHE_S
        second.cookies.set("shared", second.cookies.get("shared") or "gone")
        assert not is_signed_in(second)


# ---- the account page


@pytest.fixture
def ada(site, client):
    give_password(site)
    give_session(client, site)
    return client


def change(client, current=PASSWORD, password="another four words", again=None):
    form = {"current": current, "password": password, "again": again or password}
    return client.post("/account/password", data=form)


def test_changing_the_password_ends_the_other_sessions(site, ada, second_browser):
    give_session(second_browser, site)
    assert is_signed_in(second_browser)
    reply = change(ada)
    assert reply.status_code == 200
    assert "The password is changed" in reply.text
    assert is_signed_in(ada)
    assert not is_signed_in(second_browser)
    assert sign_in(second_browser).status_code == 403
    assert sign_in(second_browser, password="another four words").status_code == 303


@pytest.mark.parametrize(
    ("values", "status"),
    [({"current": "wrong"}, 403), ({"password": "short"}, 422), ({"again": "different"}, 422)],
)
def test_a_password_change_that_will_not_do(site, ada, values, status):
    before = site.store.password_hash("ada")
    assert change(ada, **values).status_code == status
    assert site.store.password_hash("ada") == before


def test_guessing_the_password_on_the_account_page_is_throttled_too(ada):
    for _ in range(FREE_TRIES["name"]):
        assert change(ada, current="wrong").status_code == 403
    assert change(ada).status_code == 429


def test_who_came_by_a_link_may_set_a_first_password(site, client, store):
    add_account(store, "grace")
    give_session(client, site, "grace")
    assert "Set a password" in client.get("/account").text
    assert change(client, current="").status_code == 200
    assert site.store.account("grace").has_password


def test_signing_out_everywhere(site, ada, second_browser):
    give_session(second_browser, site)
    assert ada.post("/account/sign-out-everywhere").headers["location"] == "/sign-in"
    assert not is_signed_in(second_browser)


def test_all_that_is_kept_can_be_read(ada):
    page = ada.get("/account").text
    assert "What is kept about you" in page
    assert "$argon2" not in page
    kept = ada.get("/account/data").json()
    assert kept["account"]["name"] == "ada"
    assert kept["judgements"] == []


@pytest.mark.parametrize("words", ["", "yes", "erase my", "erase all data"])
def test_nothing_is_erased_without_the_words(site, ada, words):
    reply = ada.post("/account/erase", data={"confirm": words})
    assert reply.status_code == 422
    assert "Nothing was erased" in reply.text
    assert site.store.account("ada")


def test_erasure_blanks_the_person_and_ends_all_sessions(site, ada, second_browser):
    give_session(second_browser, site)
    assert is_signed_in(second_browser)
    reply = ada.post("/account/erase", data={"confirm": "Erase my data"})
    assert reply.status_code == 200
    assert "Your data is erased" in reply.text
    assert reply.headers["clear-site-data"] == '"storage"'  # drafts in the browser
    assert "ada" not in [account.name for account in site.store.accounts()]
    assert not is_signed_in(ada)
    assert not is_signed_in(second_browser)
    assert sign_in(ada).status_code == 403
    assert site.store.problems() == []
