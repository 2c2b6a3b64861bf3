"""The guard: hosts, other sites' writes, unused routes, sizes, headers, roles."""

import re

import pytest
from starlette.testclient import TestClient

from annotation_ui.guard import (
    CONTENT_SECURITY,
    MAX_BODY_BYTES,
    MAX_LEAD_BODY_BYTES,
    PLAIN_CONTENT_SECURITY,
    SECURITY_HEADERS,
)
from annotation_ui.hosts import Hosts, is_loopback, read_public_url
from annotation_ui.server import build_app
from annotation_ui.site import make_site
from rlhf.errors import ConfigError
from tests.annotation_ui.conftest import add_account, comparison, make_store, session_cookie

BASE = "http://127.0.0.1:7860"
HTML = {"accept": "text/html"}
GRADIO_ROUTES = """upload upload_progress deep_link file=/etc/passwd file=x file/x proxy=http://x
proxy=x info info/ openapi.json call/x call/v2/x component_server process_recording runs run-history
run-history/connect startup-events queue/join queue/data run/predict api/predict reset cancel user
token login_check dev/reload custom_component/a/b/c/d stream/x vibe-edit profiling/traces mcp
mcp/sse heartbeat/x app_id theme.css""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("guarded"), [comparison(n) for n in range(3)])
    add_account(store, "lena", "lead")
    yield store
    store.close()


@pytest.fixture(scope="module")
def site(store):
    return make_site(store, 7860)


@pytest.fixture(scope="module")
def app(site):
    return build_app(site)


@pytest.fixture
def stranger(app):
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        yield client


def signed_in(site, client, name):
    client.cookies.set(*session_cookie(site, name), domain="127.0.0.1")
    return client


@pytest.fixture
def rater(site, stranger):
    return signed_in(site, stranger, "ada")


@pytest.fixture
def lead(site, stranger):
    return signed_in(site, stranger, "lena")


# ---- which host


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.3.4.5", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("192.168.0.7", False),
        ("localhost.attacker.example", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("hosts", "served", "refused"),
    [
        (Hosts(), ["127.0.0.1:7860", "localhost", "[::1]:7860"], ["10.0.0.5", "rate.example.org"]),
        (Hosts(host="10.0.0.5"), ["10.0.0.5:7860", "localhost"], ["10.0.0.6", "a.example"]),
        (Hosts(host="box.lan"), ["box.lan:80", "BOX.lan"], ["10.0.0.5", "box.lan.example"]),
        (Hosts(host="0.0.0.0"), ["10.0.0.5", "[fe80::1]:80"], ["box.lan", "10.0.0.5.example"]),
        (Hosts(host="::"), ["10.0.0.5", "[fe80::1]"], ["box.lan"]),
        (
            Hosts(public_url="https://rate.example.org"),
            ["rate.example.org", "rate.example.org:443", "127.0.0.1:7860"],
            ["example.org", "rate.example.org.attacker.example", "10.0.0.5"],
        ),
    ],
)
def test_only_known_names_are_served(hosts, served, refused):
    assert all(hosts.serves(header) for header in served)
    assert not any(hosts.serves(header) for header in [*refused, "", "[", "a b", "@", "x:y:z"])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Rate.example.org", "https://rate.example.org"),
        ("https://rate.example.org/", "https://rate.example.org"),
        ("https://rate.example.org:443", "https://rate.example.org"),
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("https://[fe80::1]:8443", "https://[fe80::1]:8443"),
    ],
)
def test_a_public_url_is_scheme_and_host(url, expected):
    assert read_public_url(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "rate.example.org", "ftp://a", "https://", "https://a/b", "https://a:x", "https://a?b",
     "https://me@a", "https://[a"],
)  # fmt: skip
def test_other_public_urls_are_refused(url):
    with pytest.raises(ConfigError, match="--public_url"):
        read_public_url(url)


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example:7860", "[", ""])
def test_a_rebound_host_name_gets_nothing(rater, host):
    for path in ("/campaigns", "/api/view", "/sign-in", "/favicon.ico"):
        reply = rater.get(path, headers={"host": host})
        assert reply.status_code == 403
        assert reply.json() == {"error": "this host name is not served here"}


# ---- who wrote it


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://attacker.example"},
        {"origin": "http://attacker.example:7860"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:7860"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": BASE, "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/api/judgements", "/sign-in", "/sign-out", "/join", "/account/erase", "/consent"]
)
def test_another_sites_write_is_refused(rater, path, headers):
    reply = rater.post(path, data={}, headers=headers)
    assert reply.status_code == 403
    assert "other pages" in reply.json()["error"]
    assert rater.get("/account").status_code == 200  # nothing was signed out


@pytest.mark.parametrize("headers", [{"origin": BASE, "sec-fetch-site": "same-origin"}, {}])
def test_our_own_write_passes_the_guard(rater, headers):
    assert rater.post("/api/undo", json={}, headers=headers).status_code == 422


def test_behind_a_proxy_the_public_page_may_write():
    hosts = Hosts(public_url="https://rate.example.org")
    assert hosts.is_own_origin("https://rate.example.org", "rate.example.org")
    assert hosts.is_own_origin("https://rate.example.org", "127.0.0.1:7860")  # Host not passed on
    assert hosts.is_own_origin("http://127.0.0.1:7860", "127.0.0.1:7860")
    assert not hosts.is_own_origin("http://rate.example.org", "rate.example.org")
    assert not hosts.is_own_origin("https://attacker.example", "127.0.0.1:7860")


@pytest.mark.parametrize(
    ("hosts", "peer", "forwarded", "expected"),
    [
        (Hosts(), "127.0.0.1", "203.0.113.9", "127.0.0.1"),  # no proxy: anybody's claim
        (Hosts(public_url="https://a.org"), "127.0.0.1", "203.0.113.9", "203.0.113.9"),
        (Hosts(public_url="https://a.org"), "172.17.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        (Hosts(public_url="https://a.org"), "8.8.8.8", "203.0.113.9", "8.8.8.8"),
        (Hosts(public_url="https://a.org"), "127.0.0.1", "", "127.0.0.1"),
        (Hosts(public_url="https://a.org"), "127.0.0.1", "x" * 999, "127.0.0.1"),
        (Hosts(public_url="https://a.org"), "testclient", "203.0.113.9", "testclient"),
    ],
)
def test_failures_are_counted_by_the_address_that_can_be_known(hosts, peer, forwarded, expected):
    assert hosts.client_address(peer, forwarded) == expected


def test_servers_behind_one_address_share_the_cookie(store):
    hosts = Hosts(public_url="https://a.org")
    names = {make_site(store, port, hosts=hosts).sessions.cookie_name for port in (1, 2)}
    assert names == {"__Host-rlhf_session_443"}
    assert make_site(store, 1).sessions.cookie_name != make_site(store, 2).sessions.cookie_name


# ---- what there is


@pytest.mark.parametrize("route", GRADIO_ROUTES)
@pytest.mark.parametrize("mount", ["app", "lead"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_gradio_routes_that_no_page_uses_are_gone(lead, mount, route, method):
    reply = lead.request(method, f"/{mount}/gradio_api/{route}", headers={"origin": BASE})
    assert reply.status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/app/monitoring", "/app/monitoring/summary", "/docs", "/redoc", "/openapi.json", "/app/docs",
     "/app/openapi.json", "/app/login", "/app/logout", "/app/proxy=x", "/app/file=x", "/file=x",
     "/app/..%2flead/", "/static/plain.css", "/gradio_api/info", "/app/queue/join",
     "/app/pwa_icon", "/lead/monitoring", "/app/config", "/app/svelte/x", "/app/robots.txt"],
)  # fmt: skip
def test_nothing_else_is_there(lead, path):
    assert lead.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/app/", "/app/theme.css", "/lead/", "/lead/assets/x.js"])
def test_mounts_take_no_write(lead, path):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert lead.request(method, path).status_code == 404


@pytest.mark.parametrize(
    "path", ["static/../../../../etc/passwd", "static/%2e%2e/%2e%2e/x", "assets//etc/passwd"]
)
def test_no_file_outside_the_package_is_served(lead, path):
    reply = lead.get(f"/app/{path}")
    assert reply.status_code in (403, 404)
    assert "root:" not in reply.text


def test_what_the_page_loads_is_let_through(rater):
    page = rater.get("/app/", headers=HTML)
    assert page.status_code == 200
    found = set(
        re.findall(r'(?:src|href)="(?:\./|/app/|http://127.0.0.1:7860/app/)([^"]+)', page.text)
    )
    assert len(found) >= 2  # a script and a style; the browser tests load the rest
    for name in found:
        assert rater.get(f"/app/{name}").status_code == 200, name


# ---- how much


def test_a_large_body_is_refused(rater):
    large = b"x" * (MAX_BODY_BYTES + 1)
    assert rater.post("/api/judgements", content=large).status_code == 413
    chunks = (b"{}" for _ in range(2))
    assert rater.post("/api/judgements", content=chunks).status_code == 413
    assert rater.post("/sign-in", content=large).status_code == 413


def test_only_a_lead_may_send_much_and_not_too_much(site, stranger):
    headers = {"content-length": str(MAX_BODY_BYTES + 1)}
    post = lambda path, headers=headers: stranger.post(path, content=b"", headers=headers)  # noqa: E731
    assert post("/api/lead/nowhere").status_code == 401
    signed_in(site, stranger, "ada")
    assert post("/api/lead/nowhere").status_code == 403
    signed_in(site, stranger, "lena")
    assert post("/api/lead/nowhere").status_code == 404  # past the guard
    assert post("/api/judgements").status_code == 413
    too_much = {"content-length": str(MAX_LEAD_BODY_BYTES + 1)}
    assert post("/api/lead/nowhere", too_much).status_code == 413


# ---- headers


PATHS = ["/app/", "/app/theme.css", "/api/view", "/join", "/nowhere", "/lead/", "/account",
         "/sign-in", "/app/monitoring", "/api/lead/shell"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("who", [None, "ada", "lena"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_reply_carries_the_security_headers(site, stranger, path, who, method):
    if who is not None:
        signed_in(site, stranger, who)
    reply = stranger.request(method, path, headers=HTML)
    for name, value in SECURITY_HEADERS.items():
        assert reply.headers[name] == value
    is_mounted = path.startswith(("/app", "/lead"))
    policy = CONTENT_SECURITY if is_mounted else PLAIN_CONTENT_SECURITY
    assert reply.headers["content-security-policy"] == policy
    assert "access-control-allow-origin" not in reply.headers
    assert "strict-transport-security" not in reply.headers
    if reply.headers.get("content-type", "").startswith(("text/html", "application/json")):
        assert reply.headers["cache-control"] == "no-store"


def test_refusals_carry_them_too(rater):
    cross = {"origin": "http://attacker.example"}
    for reply in (
        rater.get("/", headers={"host": "attacker.example"}),
        rater.post("/api/undo", json={}, headers=cross),
        rater.options("/api/view", headers={**cross, "access-control-request-method": "POST"}),
        rater.get("/api/view", headers=cross),
    ):
        assert reply.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in reply.headers
        assert "access-control-allow-credentials" not in reply.headers


def test_over_https_the_cookie_is_secure_and_browsers_are_told_to_stay(store):
    site = make_site(store, 7860, hosts=Hosts(public_url="https://rate.example.org"))
    app = build_app(site)
    token = store.create_invite(annotator="ada")
    with TestClient(app, base_url="https://rate.example.org", follow_redirects=False) as client:
        reply = client.post("/join", data={"token": token})
        assert reply.headers["set-cookie"].startswith("__Host-rlhf_session_443=")
        assert "; Secure" in reply.headers["set-cookie"]
        assert reply.headers["strict-transport-security"] == "max-age=31536000"
        page = client.get("/app/", headers={**HTML, "x-forwarded-host": "attacker.example"})
        assert page.status_code == 200
        assert "https://rate.example.org/app" in page.text
        assert "attacker.example" not in page.text


def test_forwarding_headers_of_anybody_are_not_believed(rater):
    headers = {"x-forwarded-host": "attacker.example", "x-forwarded-proto": "https"}
    page = rater.get("/app/", headers={**HTML, **headers})
    assert page.status_code == 200
    assert "attacker.example" not in page.text
    assert f"{BASE}/app" in page.text


# ---- roles


LEAD_PATHS = ["/lead", "/lead/", "/lead/theme.css", "/api/lead", "/api/lead/shell", "/api/lead/x"]


@pytest.mark.parametrize("path", LEAD_PATHS)
def test_a_rater_reaches_nothing_of_the_leads(rater, path):
    reply = rater.get(path)
    assert (reply.status_code, reply.json()) == (403, {"error": "this is for leads only"})
    page = rater.get(path, headers=HTML)
    assert page.status_code == 403
    assert "This page is for leads" in page.text
    assert rater.post(path, json={}).status_code in (403, 404)


@pytest.mark.parametrize("path", LEAD_PATHS)
def test_a_stranger_neither(stranger, path):
    assert stranger.get(path).status_code == 401
    assert stranger.get(path, headers=HTML).status_code == 303


def test_a_lead_reaches_them(lead):
    assert lead.get("/lead/", headers=HTML).status_code == 200
    assert lead.get("/api/lead/shell").status_code == 200


def test_a_demoted_lead_is_out_at_once(site, store, stranger):
    add_account(store, "dora", "lead")
    client = signed_in(site, stranger, "dora")
    assert client.get("/api/lead/shell").status_code == 200
    store.set_role("dora", "rater")
    assert client.get("/api/lead/shell").status_code == 403
    assert client.get("/lead/").status_code == 403


def test_a_store_that_does_not_answer_is_said(site, rater, monkeypatch):
    from rlhf.errors import StageError

    def fail(*_args, **_kwargs):
        raise StageError("the database\nis gone; start it")

    monkeypatch.setattr(type(site.store), "session", fail)
    reply = rater.get("/api/lead/shell")
    assert reply.status_code == 503
    assert reply.json() == {"error": "the database is gone; start it"}


def test_no_websocket_is_spoken(rater):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), rater.websocket_connect("/app/gradio_api/queue/join"):
        pass
