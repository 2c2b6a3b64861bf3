"""The leads' routes over HTTP, without a browser: who may ask, what comes back, what is decided."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from annotation_ui.lead import lead_routes
from annotation_ui.lead.page import TABS, page_markup, page_script
from annotation_ui.lead.raters import expected_words, history_rows
from rlhf.feedback.protocols import Protocol, protocol_of
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Prompt
from tests.annotation_ui.rated import CAMPAIGN, NUM_GOLD, NUM_ITEMS, rated_store
from tests.annotation_ui.test_lead_overview import judgement


def client_of(store: Store, role: str | None = "lead") -> TestClient:
    """The leads' routes with a session of that role, as the guard would set it."""
    app = FastAPI()

    @app.middleware("http")
    async def sign_in(request: Request, call_next):
        request.state.annotator, request.state.role = "boss", role
        return await call_next(request)

    app.include_router(lead_routes(store))
    return TestClient(app)


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> Iterator[Store]:
    with rated_store(tmp_path_factory.mktemp("rated")) as store:
        store.add_annotator(Annotator(name="boss", role="lead"))
        yield store


@pytest.fixture(scope="module")
def client(rated) -> TestClient:
    return client_of(rated)


def get(client: TestClient, path: str, **values: str) -> dict:
    reply = client.get(f"/api/lead/{path}", params=values)
    assert reply.status_code == 200, reply.text
    return reply.json()


def flat(routes) -> list:
    """Every route, those of routers within the router too."""
    found = []
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        found += flat(inner.routes) if inner is not None else [route]
    return found


def test_every_route_refuses_whoever_is_no_lead(rated):
    paths = {
        (method, route.path)
        for route in flat(lead_routes(rated).routes)
        for method in route.methods
    }
    assert len(paths) > 10
    assert {"/api/lead/overview", "/api/lead/raters/decide"} <= {path for _, path in paths}
    for role in ("rater", None):
        client = client_of(rated, role)
        for method, path in paths:
            reply = client.request(method, path.replace("{", "").replace("}", ""))
            assert reply.status_code == 403, (method, path, reply.status_code)
            assert "only leads" in reply.json()["detail"]


def test_the_page_has_a_tab_a_panel_and_a_script_for_each(rated):
    markup, script = page_markup(), page_script()
    for name in TABS:
        assert f'data-tab="{name}"' in markup
        assert f'data-panel="{name}"' in markup
        assert f"tabs.{name} = {{" in script
    assert "@" not in markup


def test_the_shell_names_the_campaigns_where_something_happened_last_first(client):
    found = get(client, "shell")
    assert found["annotator"] == "boss"
    assert [one["name"] for one in found["campaigns"]] == [CAMPAIGN, "waiting", "bare"]
    assert found["campaigns"][0]["title"] == "Everyday questions"


def test_the_charts_script_comes_compressed_and_in_a_scope_of_its_own(client):
    reply = client.get("/api/lead/vega.js")
    assert reply.headers["content-type"].startswith("text/javascript")
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.text.startswith("(() => {")
    assert "window.vegaEmbed=" in reply.text


def test_the_overview_of_a_campaign_in_work(client):
    found = get(client, "overview", campaign=CAMPAIGN)
    answers = {answer["key"]: answer for answer in found["answers"]}
    assert list(answers) == ["work", "done", "help"]
    assert answers["done"]["bar"]["wanted"] == 3 * NUM_ITEMS
    reasons = {person["name"]: " ".join(person["reasons"]) for person in answers["help"]["people"]}
    assert "takes under 3 s" in reasons["hasty"]
    assert "shown first" in reasons["lefty"]
    assert "ada" not in reasons
    assert 0 < found["num_simulated"] < found["num_answers"]
    assert 0 <= found["age_s"] < 60
    assert {figure["simulated"] for figure in found["figures"]} == {"partly simulated"}
    drawn = [figure["id"] for figure in found["figures"] if figure["spec"]]
    assert drawn == ["progress", "throughput", "agreement", "reliability", "verdicts"]
    for figure in found["figures"]:
        assert figure["caption"]
        assert figure["table"]["rows"]


def test_days_without_work_are_gaps(client):
    figures = {one["id"]: one for one in get(client, "overview", campaign=CAMPAIGN)["figures"]}
    agreement = figures["agreement"]["table"]["rows"]
    assert [row[1] for row in agreement].count("not measured") >= 3
    throughput = figures["throughput"]["table"]["rows"]
    assert 0 in [row[1] for row in throughput]
    assert all(bar["num"] for bar in figures["throughput"]["spec"]["data"]["values"])


@pytest.mark.parametrize(("campaign", "num_items"), [("bare", 0), ("waiting", 4)])
def test_a_campaign_without_judgements_has_counts_alone(client, campaign, num_items):
    found = get(client, "overview", campaign=campaign)
    assert (found["num_items"], found["num_answers"], found["answers"]) == (num_items, 0, [])
    assert get(client, "raters", campaign=campaign)["raters"] == []


@pytest.mark.parametrize("path", ["overview", "raters"])
def test_an_unknown_campaign_is_one_line(client, path):
    reply = client.get(f"/api/lead/{path}", params={"campaign": "everyda"})
    assert reply.status_code == 409
    assert "everyday" in reply.json()["error"]


def test_the_table_has_each_rater_with_intervals_and_marks(client):
    rows = {row["name"]: row for row in get(client, "raters", campaign=CAMPAIGN)["raters"]}
    assert set(rows) == {"ada", "grace", "kathleen", "hasty", "lefty", "sim-1"}
    assert [name for name, row in rows.items() if row["simulated"]] == ["sim-1"]
    gold = rows["ada"]["gold_accuracy"]
    assert gold["n"] == NUM_GOLD
    assert gold["low"] <= gold["value"] <= gold["high"]
    assert rows["hasty"]["too_fast_share"] > 0.9
    assert [one["about"] for one in rows["lefty"]["concerns"]] == ["side"]
    assert rows["sim-1"]["gold_accuracy"] is None


def test_one_rater_closely(client):
    found = get(client, "raters/one", campaign=CAMPAIGN, annotator="hasty")
    assert found["rater"]["name"] == "hasty"
    assert len(found["gold"]) == NUM_GOLD
    assert {row["expected"] for row in found["gold"]} == {"1 is better"}
    for row in found["gold"]:
        assert row["share"] == (1.0 if row["answered"].startswith("1") else 0.0)
    times = [row["created_at"] for row in found["history"]]
    assert times == sorted(times, reverse=True)
    assert [figure["id"] for figure in found["figures"]] == ["pace", "verdicts"]
    assert {row["purpose"] for row in found["history"]} == {"", "gold"}


def test_a_simulated_raters_charts_are_marked(client):
    found = get(client, "raters/one", campaign=CAMPAIGN, annotator="sim-1")
    assert {figure["simulated"] for figure in found["figures"]} == {"simulated"}


def test_somebody_who_has_judged_nothing_is_said(client):
    reply = client.get("/api/lead/raters/one", params={"campaign": CAMPAIGN, "annotator": "boss"})
    assert reply.status_code == 409
    assert "'boss' has judged nothing in 'everyday'" in reply.json()["error"]


def test_a_decision_is_recorded_holds_at_once_and_can_be_taken_back(tmp_path):
    with rated_store(tmp_path) as store:
        store.add_annotator(Annotator(name="boss", role="lead"))
        client = client_of(store)

        def decide(weight: float, reason: str, **more) -> dict:
            body = {"campaign": CAMPAIGN, "annotator": "hasty", "weight": weight, "reason": reason}
            reply = client.post("/api/lead/raters/decide", json=body | more)
            assert reply.status_code == 200, reply.text
            return reply.json()

        filled = get(client, "overview", campaign=CAMPAIGN)["answers"][1]["bar"]["num"]
        found = decide(0, "  clicks without reading  ", reopen=True)
        assert (found["rater"]["weight"], found["rater"]["concerns"]) == (0.0, [])
        after = get(client, "overview", campaign=CAMPAIGN)["answers"]
        assert after[1]["bar"]["num"] < filled  # their places want others now
        assert "hasty" not in [person["name"] for person in after[2]["people"]]
        decide(0.5, "read more lately")
        found = decide(1, "it was my mistake")
        assert found["rater"]["weight"] == 1.0
        assert found["rater"]["concerns"]
        told = [(one["weight"], one["reason"], one["decided_by"]) for one in found["decisions"]]
        assert told == [
            (1.0, "it was my mistake", "boss"),
            (0.5, "read more lately", "boss"),
            (0.0, "clicks without reading", "boss"),
        ]
        assert found["decisions"][2]["reopen"] is True
        again = get(client, "overview", campaign=CAMPAIGN)["answers"][1]["bar"]["num"]
        assert again == filled
        assert len(get(client, "raters", campaign=CAMPAIGN)["decisions"]) == 3
        assert store.problems() == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"reason": ""}, 422),
        ({"reason": "   "}, 409),
        ({"weight": 1.5}, 422),
        ({"weight": -0.1}, 422),
        ({"annotator": "nobody"}, 409),
        ({"campaign": "nothing"}, 409),
        ({"weight": 0.5, "reopen": True}, 409),
        ({"decided_by": "ada"}, 422),
    ],
)
def test_a_decision_that_cannot_be_is_refused(client, rated, changes, status):
    body = {"campaign": CAMPAIGN, "annotator": "hasty", "weight": 0, "reason": "too fast"}
    reply = client.post("/api/lead/raters/decide", json=body | changes)
    assert reply.status_code == status, reply.text
    assert rated.rater_decisions(CAMPAIGN) == []


def test_a_decision_on_somebody_who_judged_nothing_is_refused_and_not_recorded(client, rated):
    rated.add_annotator(Annotator(name="newcomer"))
    body = {"campaign": CAMPAIGN, "annotator": "newcomer", "weight": 0, "reason": "who is that"}
    reply = client.post("/api/lead/raters/decide", json=body)
    assert reply.status_code == 409, reply.text
    assert rated.rater_decisions(CAMPAIGN, current_only=False) == []


def test_history_marks_what_was_changed_since_and_taken_back():
    item = Comparison(
        prompt=Prompt(content="Why?"),
        completions=(Completion(text="a"), Completion(text="b")),
        item="a",
    )
    rows = [judgement(1, verdict=-3), judgement(2, verdict=1, supersedes="1", rationale="fewer")]
    found = history_rows(Protocol(task="pairwise"), rows, {"a": item})
    assert [(row["id"], row["standing"]) for row in found] == [("2", ""), ("1", "changed since")]
    assert found[0]["rationale"] == "fewer"


@pytest.mark.parametrize(
    ("task", "expected", "words"),
    [
        ("pairwise", {"verdict": 2}, "2 is better"),
        ("pairwise", {"verdict": 0}, "About the same"),
        ("ranking", {"ranking": [2, 1, 2]}, "2 > 1 = 3"),
    ],
)
def test_what_was_expected_is_told_in_the_words_of_answers(task, expected, words):
    answered = judgement(1, verdict=-1, shown_order=(2, 0, 1) if task == "ranking" else (1, 0))
    assert expected_words(answered, expected, protocol_of(task, {})) == words


def test_a_rater_who_did_not_qualify_is_told(tmp_path):
    with Store.open(tmp_path / "f.db", create=True) as store:
        store.create_campaign("c", settings={"qualify_share": 0.8})
        items = [
            Comparison(prompt=Prompt(content=f"{n}?"), item=f"q{n}",
                       completions=(Completion(text="a"), Completion(text="b")))
            for n in range(3)
        ]  # fmt: skip
        expected = {item.item: {"verdict": -1} for item in items[:2]}
        store.add_comparisons("c", items[:2], purpose="qualification", gold=expected)
        store.add_comparisons("c", items[2:])
        store.add_annotator(Annotator(name="ada"))
        wrong = [
            judgement(n, item=f"q{n}", annotator="ada", verdict=2, purpose="qualification")
            for n in range(2)
        ]
        store.record(wrong)
        (row,) = get(client_of(store), "raters", campaign="c")["raters"]
        assert row["standing"] == "unqualified"
        assert [one["about"] for one in row["concerns"]] == ["qualification"]
