"""Sign-in, guard and API over HTTP."""

import subprocess
import sys
import time

import pytest
from starlette.testclient import TestClient

from annotation_ui.guard import MAX_BODY_BYTES, SECURITY_HEADERS, is_loopback
from annotation_ui.server import build_app
from annotation_ui.session import InviteError, Sessions
from tests.annotation_ui.conftest import CAMPAIGN, comparison, make_desk

BASE = "http://127.0.0.1:7860"
HTML = {"accept": "text/html"}
UNUSED = """upload deep_link file=x file/x proxy=x info openapi.json call/x component_server
process_recording runs run-history startup-events"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    desk = make_desk(tmp_path_factory.mktemp("site"), [comparison(n) for n in range(30)])
    sessions = Sessions("rlhf_session_7860")
    yield desk, sessions, build_app(desk, sessions)
    desk.store.close()


@pytest.fixture
def stranger(site):
    with TestClient(site[2], base_url=BASE, follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(site, stranger):
    assert stranger.get("/join", params={"token": site[1].invite("ada")}).status_code == 303
    return stranger


def body_for(view, **values):
    item = view["item"]
    return {
        "annotator": view["annotator"],
        "campaign": view["campaign"],
        "ticket": item["ticket"],
        "item": item["item"],
        "shown_order": item["shown_order"],
        "choice": 1,
        "seconds": 2.0,
        **values,
    }


def num_rows(site) -> int:
    return len(site[0].store.judgements(CAMPAIGN, current_only=False))


def test_the_link_signs_in_once(site, stranger):
    token = site[1].invite("ada")
    reply = stranger.get("/join", params={"token": token})
    assert (reply.status_code, reply.headers["location"]) == (303, "/app/")
    cookie = reply.headers["set-cookie"]
    for flag in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="):
        assert flag in cookie
    stranger.cookies.clear()
    again = stranger.get("/join", params={"token": token})
    assert again.status_code == 403
    assert "used already" in again.text
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("token", ["", "nonsense", "WyJhZGEiLCJ4Il0.aaaa.bbbb"])
def test_a_forged_link_opens_nothing(stranger, token):
    reply = stranger.get("/join", params={"token": token})
    assert reply.status_code == 403
    assert "not one that this server printed" in reply.text


def test_a_link_of_another_run_opens_nothing(stranger):
    token = Sessions("rlhf_session_7860").invite("ada")
    assert stranger.get("/join", params={"token": token}).status_code == 403


def test_a_head_request_does_not_use_the_link_up(site, stranger):
    token = site[1].invite("ada")
    stranger.head("/join", params={"token": token})
    assert stranger.get("/join", params={"token": token}).status_code == 303


def test_without_a_session_there_is_only_a_plain_page(stranger):
    for path in ("/", "/app/", "/app/config", "/anything"):
        reply = stranger.get(path, headers=HTML)
        assert reply.status_code == 401
        assert "Open the printed link" in reply.text
    for path in ("/api/view", "/app/gradio_api/queue/status", "/app/config"):
        assert stranger.get(path).status_code == 401
    assert stranger.post("/api/judgements", json={}).json() == {"error": "signed out"}


@pytest.mark.parametrize("cookie", ["ImFkYSI.aaaa.bbbb", "ada", '"', "\\"])
def test_a_forged_cookie_is_no_session(stranger, cookie):
    reply = stranger.get("/api/view", headers={"cookie": f"rlhf_session_7860={cookie}"})
    assert reply.status_code == 401


def test_an_expired_session_is_signed_out_and_an_ageing_one_renewed(site, monkeypatch):
    sessions = Sessions("rlhf_session_7860", lifetime_s=100)
    now = time.time()
    with TestClient(build_app(site[0], sessions), base_url=BASE, follow_redirects=False) as client:
        client.get("/join", params={"token": sessions.invite("ada")})
        assert "set-cookie" not in client.get("/api/view").headers
        monkeypatch.setattr(time, "time", lambda: now + 60)
        assert "set-cookie" in client.get("/api/view").headers
        monkeypatch.setattr(time, "time", lambda: now + 150)
        assert client.get("/api/view").status_code == 200  # by the renewed cookie
        monkeypatch.setattr(time, "time", lambda: now + 400)
        assert client.get("/api/view").status_code == 401


def test_an_old_invite_has_expired(monkeypatch):
    sessions = Sessions("s")
    token = sessions.invite("ada")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
    with pytest.raises(InviteError, match="expired"):
        sessions.redeem(token)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://attacker.example"},
        {"origin": "http://attacker.example:7860"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": BASE, "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/api/judgements", "/api/undo", "/app/gradio_api/queue/join"])
def test_a_cross_site_write_is_refused(site, client, headers, path):
    before = num_rows(site)
    body = body_for(client.get("/api/view").json())
    reply = client.post(path, json=body, headers=headers)
    assert reply.status_code == 403
    assert "access-control-allow-origin" not in reply.headers
    assert num_rows(site) == before


def test_a_write_of_our_own_page_passes(site, client):
    before = num_rows(site)
    body = body_for(client.get("/api/view").json())
    headers = {"origin": BASE, "sec-fetch-site": "same-origin"}
    assert client.post("/api/judgements", json=body, headers=headers).status_code == 200
    assert num_rows(site) == before + 1


@pytest.mark.parametrize("host", ["attacker.example:7860", "127.0.0.1.attacker.example", "", "["])
def test_a_rebound_host_name_is_refused(client, host):
    assert client.get("/api/view", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:1", "[::1]:7860", "LOCALHOST"])
def test_loopback_host_names_are_served(client, host):
    cookie = "; ".join(f"{key}={value}" for key, value in client.cookies.items())
    reply = client.get("/api/view", headers={"host": host, "cookie": cookie})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_what_counts_as_loopback(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "route",
    UNUSED.split(),
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_gradio_routes_that_we_do_not_use_are_gone(client, route, method):
    reply = client.request(method, f"/app/gradio_api/{route}", headers={"origin": BASE})
    assert reply.status_code == 404


@pytest.mark.parametrize("path", ["/app/monitoring", "/docs", "/redoc", "/openapi.json"])
def test_there_is_no_documentation_or_monitoring(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/app/", "/api/view", "/join", "/nowhere"])
def test_every_reply_carries_the_security_headers(client, path):
    reply = client.get(path, headers={"origin": "http://attacker.example"})
    for name, value in SECURITY_HEADERS.items():
        assert reply.headers[name] == value
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["cache-control"] == "no-store"


def test_a_large_body_is_refused(client):
    assert client.post("/api/judgements", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413
    chunks = (b"{}" for _ in range(2))
    assert client.post("/api/judgements", content=chunks).status_code == 413


def test_a_double_submission_is_one_judgement(site, client):
    before = num_rows(site)
    body = body_for(client.get("/api/view").json())
    first = client.post("/api/judgements", json=body).json()
    second = client.post("/api/judgements", json=body).json()
    assert num_rows(site) == before + 1
    assert first["item"] == second["item"]
    assert second["note"] is None
    other = client.post("/api/judgements", json={**body, "choice": -1}).json()
    assert other["note"] == "Already saved: B is slightly better"
    assert num_rows(site) == before + 1


def test_a_forged_assignment_changes_nothing(site, client):
    before = num_rows(site)
    view = client.get("/api/view").json()
    for forged in (
        {"ticket": "lease 00000000", "item": "item-29"},
        {"item": "item-29"},
        {"ticket": "redo someone-elses", "item": "item-29"},
        {"shown_order": view["item"]["shown_order"][::-1]},
        {"shown_order": []},
    ):
        reply = client.post("/api/judgements", json=body_for(view, **forged))
        assert reply.status_code == 409
    assert num_rows(site) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"choice": 9},
        {"choice": "x"},
        {"seconds": -1},
        {"simulated": True},
        {"skip": "x" * 1001},
        {"rationale": "x" * 20_001},
        {"shown_order": "01"},
    ],
)
def test_malformed_values_are_refused_with_their_name(site, client, wrong):
    before = num_rows(site)
    reply = client.post("/api/judgements", json=body_for(client.get("/api/view").json(), **wrong))
    assert reply.status_code == 422
    assert next(iter(wrong)) in reply.json()["error"]
    assert num_rows(site) == before


def test_identity_comes_from_the_cookie_alone(site, client):
    body = body_for(client.get("/api/view").json())
    client.post("/api/judgements", json=body, headers={"x-annotator": "eve"})
    assert {row.annotator for row in site[0].store.judgements(CAMPAIGN)} == {"ada"}


@pytest.mark.parametrize("wrong", [{"annotator": "eve"}, {"campaign": "other"}])
def test_a_page_opened_by_another_saves_nothing(site, client, wrong):
    before = num_rows(site)
    body = body_for(client.get("/api/view").json(), **wrong)
    reply = client.post("/api/judgements", json=body)
    assert reply.status_code == 409
    assert "this page was opened by" in reply.json()["error"]
    assert num_rows(site) == before


def test_undo_over_http(site, client):
    body = body_for(client.get("/api/view").json())
    view = client.post("/api/judgements", json=body).json()
    back = client.post("/api/undo", json={"judgement": view["history"][0]["id"]}).json()
    assert back["item"]["item"] == body["item"]
    assert client.post("/api/undo", json={"judgement": "nope"}).status_code == 409
    again = client.post("/api/judgements", json=body_for(back)).json()
    assert again["history"][0]["words"] == "B is slightly better"


def test_no_text_of_the_store_is_in_the_page_itself(client):
    page = client.get("/app/", headers=HTML).text
    assert "Which completion is better?" in page
    assert "Question" not in page


def test_the_server_starts_without_torch():
    code = (
        "import sys, annotation_ui.server, annotation_ui.__main__, rlhf.feedback.store;"
        "heavy = {'torch', 'transformers', 'trl'} & set(sys.modules); sys.exit(str(heavy) if heavy "
        "else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
