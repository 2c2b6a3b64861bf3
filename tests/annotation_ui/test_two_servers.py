"""Two servers over one PostgreSQL database: neither gives a place away that the other gave.

Servers in one process would share the lock that makes writers of one URL wait for each other;
the second one has a URL of its own, so that only the database stands between them, as it does
between machines.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from annotation_ui.guard import Guard
from annotation_ui.server import build_shell
from annotation_ui.site import Site, make_site
from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import Store
from tests.annotation_ui.conftest import CAMPAIGN, add_account, comparison, session_cookie

PORT = 7860  # the same of both, as behind one public address: a session holds at either
HERE = {"campaign": CAMPAIGN}
NUM_ITEMS, OVERLAP = 30, 2
RATERS = [f"rater-{number}" for number in range(8)]


@dataclass
class Server:
    """One of the two: its site, and the application, which all raters' connections share."""

    site: Site
    app: Guard


@pytest.fixture
def servers(postgres_store_url: str) -> Iterator[list[Server]]:
    """Two servers over one new campaign, and accounts of all raters."""
    second_url = f"{postgres_store_url}&application_name=second"
    with Store.open(postgres_store_url) as one, Store.open(second_url) as two:
        assert one._database._lock is not two._database._lock
        one.create_campaign(CAMPAIGN, overlap=OVERLAP)
        one.add_comparisons(CAMPAIGN, [comparison(number) for number in range(NUM_ITEMS)])
        for name in RATERS:
            add_account(one, name)
        yield [_server(store) for store in (one, two)]


def _server(store: Store) -> Server:
    site = make_site(store, PORT)
    return Server(site, Guard(build_shell(site), site.sessions, site.hosts))


def clients_of(stack: ExitStack, servers: list[Server], name: str) -> list[TestClient]:
    """One rater's connections to each server, with one session."""
    cookie, token = session_cookie(servers[0].site, name)
    clients = []
    for server in servers:
        client = stack.enter_context(TestClient(server.app, base_url=f"http://127.0.0.1:{PORT}"))
        client.cookies.set(cookie, token, domain="127.0.0.1")
        clients.append(client)
    return clients


def body_for(view: dict) -> dict:
    item = view["item"]
    return {
        "annotator": view["annotator"],
        "campaign": CAMPAIGN,
        "ticket": item["ticket"],
        "item": item["item"],
        "shown_order": item["shown_order"],
        "answer": {"choice": 1},
        "seconds": 2.0,
    }


def view_from(client: TestClient) -> dict:
    reply = client.get("/api/view", params=HERE)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_every_item_gets_exactly_its_raters_from_both_servers_together(servers: list[Server]):
    start = threading.Barrier(len(RATERS), timeout=60)

    def rate_to_the_end(number: int) -> list[str]:
        rated = []
        start.wait()
        view = view_from(clients[number][number % 2])
        while view["item"]:
            turn = clients[number][(number + len(rated)) % 2]
            reply = turn.post("/api/judgements", json=body_for(view))
            assert reply.status_code == 200, reply.text
            rated.append(view["item"]["item"])
            view = reply.json()
        return rated

    with ExitStack() as stack, ThreadPoolExecutor(len(RATERS)) as pool:
        clients = [clients_of(stack, servers, name) for name in RATERS]
        rated = list(pool.map(rate_to_the_end, range(len(RATERS))))
    store = servers[0].site.store
    rows = store.judgements(CAMPAIGN, current_only=False)
    raters_of = defaultdict(list)
    for row in rows:
        raters_of[row.item].append(row.annotator)
    assert len(raters_of) == NUM_ITEMS
    assert {(len(names), len(set(names))) for names in raters_of.values()} == {(OVERLAP, OVERLAP)}
    acknowledged = {
        (name, item) for name, items in zip(RATERS, rated, strict=True) for item in items
    }
    assert {(row.annotator, row.item) for row in rows} == acknowledged
    assert store.problems() == []


def send_to_both(pool: ThreadPoolExecutor, clients: list[TestClient], path: str, body: dict):
    """The replies of both servers to one request, asked for at the same moment."""
    start = threading.Barrier(2, timeout=60)

    def send(client: TestClient) -> dict:
        start.wait()
        reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    return list(pool.map(send, clients))


def test_a_request_sent_to_both_servers_writes_once(servers: list[Server]):
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        clients = clients_of(stack, servers, RATERS[0])
        for number in range(1, 11):
            body = body_for(view_from(clients[number % 2]))
            replies = send_to_both(pool, clients, "/api/judgements", body)
            first, second = (reply["item"]["item"] for reply in replies)
            assert first == second != body["item"]
            assert [reply["note"] for reply in replies] == [None, None]
            rows = servers[1].site.store.judgements(CAMPAIGN, current_only=False)
            assert len(rows) == number
        send_to_both(pool, clients, "/api/undo", {"judgement": rows[-1].id, **HERE})
    rows = servers[1].site.store.judgements(CAMPAIGN, current_only=False)
    assert [one.skip for one in rows] == [None] * 10 + [UNDONE]
    assert servers[0].site.store.problems() == []
