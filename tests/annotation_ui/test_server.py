"""The rating API over HTTP, and the application as it is served."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.testclient import TestClient

from annotation_ui.guard import Guard
from annotation_ui.server import bind, build_shell
from annotation_ui.site import make_site
from rlhf.errors import ConfigError
from tests.annotation_ui.conftest import (
    CAMPAIGN,
    add_account,
    comparison,
    make_store,
    session_cookie,
)
from tests.annotation_ui.tabs import WAIT_MS

BASE = "http://127.0.0.1:7860"
HTML = {"accept": "text/html"}
HERE = {"campaign": CAMPAIGN}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("site"), [comparison(n) for n in range(30)])
    yield make_site(store, 7860)
    store.close()


@pytest.fixture(scope="module")
def app(site):
    return Guard(build_shell(site), site.sessions, site.hosts)


@pytest.fixture
def client(site, app):
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        client.cookies.set(*session_cookie(site, "ada"), domain="127.0.0.1")
        yield client


def view_of(client) -> dict:
    return client.get("/api/view", params=HERE).json()


def body_for(view, **values):
    item = view["item"]
    return {
        "annotator": view["annotator"],
        "campaign": CAMPAIGN,
        "ticket": item["ticket"],
        "item": item["item"],
        "shown_order": item["shown_order"],
        "answer": {"choice": 1},
        "seconds": 2.0,
        **values,
    }


def num_rows(site) -> int:
    return len(site.store.judgements(CAMPAIGN, current_only=False))


def test_a_double_submission_is_one_judgement(site, client):
    before = num_rows(site)
    body = body_for(view_of(client))
    first = client.post("/api/judgements", json=body).json()
    second = client.post("/api/judgements", json=body).json()
    assert num_rows(site) == before + 1
    assert first["item"] == second["item"]
    assert second["note"] is None
    other = client.post("/api/judgements", json={**body, "answer": {"choice": -1}}).json()
    assert other["note"] == "Already saved: B is slightly better"
    assert num_rows(site) == before + 1


def test_a_forged_assignment_changes_nothing(site, client):
    before = num_rows(site)
    view = view_of(client)
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
        {"seconds": -1},
        {"simulated": True},
        {"skip": "x" * 1001},
        {"rationale": "x" * 20_001},
        {"shown_order": "01"},
        {"answer": {"choice": "x"}},
        {"purpose": "adjudication"},
    ],
)
def test_malformed_values_are_refused_with_their_name(site, client, wrong):
    before = num_rows(site)
    reply = client.post("/api/judgements", json=body_for(view_of(client), **wrong))
    assert reply.status_code == 422
    assert next(iter(wrong)) in reply.json()["error"]
    assert num_rows(site) == before


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [("/api/nothing", None, 404), ("/api/undo", "[" * 50_000, 400)],
)
def test_what_is_no_route_or_no_body_is_one_line(client, path, content, status):
    headers = {"content-type": "application/json"}
    method = "GET" if content is None else "POST"
    reply = client.request(method, path, content=content, headers=headers)
    assert reply.status_code == status
    assert "\n" not in reply.json()["error"]


def test_a_mistyped_address_leads_a_person_home(client):
    reply = client.get("/campaings", headers=HTML)
    assert (reply.status_code, "/campaigns" in reply.text) == (404, True)


def test_identity_comes_from_the_session_alone(site, client):
    body = body_for(view_of(client))
    client.post("/api/judgements", json=body, headers={"x-annotator": "eve"})
    assert {row.annotator for row in site.store.judgements(CAMPAIGN)} == {"ada"}


def test_a_page_opened_by_another_saves_nothing(site, client):
    before = num_rows(site)
    reply = client.post("/api/judgements", json=body_for(view_of(client), annotator="eve"))
    assert reply.status_code == 409
    assert "this page was opened by" in reply.json()["error"]
    assert num_rows(site) == before


def test_another_raters_judgement_cannot_be_taken_back(site, client):
    body = body_for(view_of(client))
    mine = client.post("/api/judgements", json=body).json()["history"][0]["id"]
    add_account(site.store, "eve")
    client.cookies.set(*session_cookie(site, "eve"), domain="127.0.0.1")
    reply = client.post("/api/undo", json={"judgement": mine, **HERE})
    assert reply.status_code == 409
    assert site.store.find_judgement(mine, "ada").verdict is not None


def test_an_unknown_campaign_is_one_line(client):
    reply = client.get("/api/view", params={"campaign": "everday"})
    assert reply.status_code == 409
    assert "everyday" in reply.json()["error"]


def test_the_server_starts_without_torch():
    code = (
        "import sys, annotation_ui.server, annotation_ui.__main__, rlhf.feedback.store;"
        "heavy = {'torch', 'transformers', 'trl'} & set(sys.modules); sys.exit(str(heavy) if heavy "
        "else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_taken_port_is_said():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another --port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_said(host):
    with pytest.raises(ConfigError, match=host):
        bind(host, 0)


# ---- on a real port


@pytest.fixture(scope="module")
def live(serve, tmp_path_factory):
    return serve(make_store(tmp_path_factory.mktemp("live"), [comparison(n) for n in range(4)]))


def test_no_text_of_the_store_is_in_the_page_itself(live):
    with live.client() as client:
        page = client.get("/app/", headers=HTML)
    assert page.status_code == 200
    assert "/api/" in page.text  # it asks for them
    assert "of pair" not in page.text
    assert page.headers.get("server") is None


def test_one_link_opens_for_one_of_many_who_press_at_once(live):
    token = live.store.create_invite(annotator="ada")
    start = threading.Barrier(8)

    def press(_number: int) -> int:
        with httpx.Client(base_url=live.address, timeout=60) as client:
            start.wait()
            return client.post("/join", data={"token": token}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(press, range(8))) == [303] + [403] * 7


def test_a_crowd_signing_in_leaves_room_for_raters(live):
    """Passwords are hashed one at a time: a view stays far from waiting for all of them."""
    import time

    live.store.set_password_hash("ada", live.site.passwords.hasher.hash("four calm words"))

    def sign_in(number: int) -> int:
        form = {"name": f"crowd-{number}", "password": "wrong password"}
        with httpx.Client(base_url=live.address, timeout=60) as client:
            return client.post("/sign-in", data=form).status_code

    with ThreadPoolExecutor(12) as pool, live.client() as rater:
        rater.get("/api/view", params=HERE)
        begun = time.monotonic()
        crowd = [pool.submit(sign_in, number) for number in range(12)]
        waits = []
        while not all(one.done() for one in crowd):
            before = time.monotonic()
            assert rater.get("/api/view", params=HERE).status_code == 200
            waits.append(time.monotonic() - before)
        whole = time.monotonic() - begun
    assert {one.result() for one in crowd} == {403}
    assert max(waits) < whole / 2


@pytest.mark.browser
def test_the_pages_are_whole_accessible_and_ask_nobody_else(browser, live):
    """Every plain page in both colour schemes, and at a phone's width: no violation, no scroll."""
    from axe_playwright_python.sync_playwright import Axe

    live.store.create_campaign("asking", settings={"consent": "# Agree\n\n**Do** you?"})
    live.store.add_comparisons("asking", [comparison(1)])
    add_account(live.store, "lena", "lead")
    pages = {
        None: [
            "/sign-in?next=/app/",
            "/join?token=forged",
            f"/join?token={live.store.create_invite(role='lead')}",
            f"/join?token={live.store.create_invite(annotator='ada')}",
        ],
        "ada": ["/consent?campaign=asking", "/account", "/lead/"],
        "lena": ["/campaigns"],
    }
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        page, hosts, errors = context.new_page(), set(), []
        page.on("request", lambda request, hosts=hosts: hosts.add(httpx.URL(request.url).host))
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        for name, paths in pages.items():
            if name is not None:
                live.sign_in(context, name)
            for path in paths:
                where = (scheme, width, path)
                page.goto(f"{live.address}{path}")
                assert page.locator("h1:not(.text h1)").count() == 1, where
                assert page.evaluate("document.documentElement.scrollWidth") <= width, where
                if width > 360:
                    violations = Axe().run(page).response["violations"]
                    assert [(one["id"], one["nodes"]) for one in violations] == [], where
        assert (hosts, errors) == ({"127.0.0.1"}, [])
        context.close()


@pytest.mark.browser
def test_from_the_invite_to_the_rating_page_by_keyboard(browser, live):
    live.store.create_campaign("other")  # of one campaign alone, the way in leads to its page
    live.store.add_comparisons("other", [comparison(1)])
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(f"{live.address}/join?token={live.store.create_invite()}")
    page.wait_for_selector("#name:focus")  # given a moment after the page has loaded
    for words in ("Grace Hopper", "four calm words", "four calm words"):
        page.keyboard.type(words)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/campaigns")
    page.click("text=Rate >> nth=0")
    page.wait_for_url("**/app/?campaign=everyday")
    page.wait_for_selector('.rate[data-state="rating"]')
    page.goto(f"{live.address}/account")
    page.click("text=Sign out >> nth=0")
    page.wait_for_url("**/sign-in")
    page.goto(live.rate_address())
    page.wait_for_url("**/sign-in?next=**")
    page.wait_for_selector("#name:focus")
    page.keyboard.type("Grace Hopper")
    page.keyboard.press("Tab")
    page.keyboard.type("four calm words")
    page.keyboard.press("Enter")
    page.wait_for_url("**/app/?campaign=everyday")
    context.close()


@pytest.mark.browser
def test_another_sites_page_can_write_nothing(browser, live):
    """A page on another port of the same host is another origin, though it shares cookies."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    target = live.address

    class Attacker(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(
                f"<form method=post action='{target}/account/erase'>"
                "<input name=confirm value='erase my data'><button>win</button></form>"
                f"<iframe src='{target}/account'></iframe>".encode()
            )

        def log_message(self, *_args):
            pass

    add_account(live.store, "victim")
    attacker = ThreadingHTTPServer(("127.0.0.1", 0), Attacker)
    threading.Thread(target=attacker.serve_forever, daemon=True).start()
    context = browser.new_context()
    try:
        live.sign_in(context, "victim")
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{attacker.server_port}/")
        fetched = page.evaluate(
            "target => fetch(target + '/api/view', {credentials: 'include'})"
            ".then(() => 'read', () => 'refused')",
            target,
        )
        assert fetched == "refused"
        with page.expect_navigation():
            page.click("button")
        assert "writes from other pages are refused" in page.content()
        assert live.store.account("victim")
    finally:
        context.close()
        attacker.shutdown()
        attacker.server_close()
