"""Campaigns made and changed in the browser: checks, previews, sampling, two leads at once."""

import json
import threading
import time

import pytest
from pydantic import ValidationError

from annotation_ui.lead import sampling_jobs
from annotation_ui.lead.campaign_change import SettingsBody
from rlhf.errors import ConfigError
from rlhf.feedback.campaign_file import template_names
from rlhf.feedback.store import Store
from tests.annotation_ui.lead_site import lead_client, make_campaign

YAML = "name: tea\ntask: pairwise\noverlap: 2\nguideline: '*Kind*'\n"
ROWS = [
    {"prompt": "Tea?", "completions": ["Yes, please", "<script>no</script>"]},
    {"prompt": "Milk?", "completions": ["A little", "None"]},
]


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "feedback.db", create=True) as made:
        yield made


@pytest.fixture
def client(store):
    return lead_client(store)


def draft(text=YAML, rows=ROWS, **values):
    lines = None if rows is None else "".join(json.dumps(row) + "\n" for row in rows)
    return {"text": text, "rows": lines, "file_name": "tea.jsonl", **values}


def post(client, path, body):
    return client.post(f"/api/lead/campaigns/{path}", json=body)


def test_templates_come_with_their_text(client):
    found = client.get("/api/lead/campaigns/templates").json()["templates"]
    assert [one["name"] for one in found] == [name for name, _ in template_names()]
    assert all("task:" in one["text"] for one in found)


def test_a_check_counts_and_previews_and_writes_nothing(store, client):
    found = post(client, "check", draft()).json()
    assert (found["num_items"], found["num_wanted"], found["overlap"]) == (2, 4, 2)
    assert found["first"]["completions"][1]["raw"] == "<script>no</script>"
    assert "<script" not in found["first"]["completions"][1]["html"]
    assert found["guideline"].strip() == "<p><em>Kind</em></p>"
    assert found["form"]["task"] == "pairwise"
    assert store.campaigns() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (draft("name: x\ntask: pairwse\n"), "pairwise"),  # the nearest known one
        (draft("name: x\ntask: pairwise\noverlp: 2\n"), "overlap"),
        (draft("name: [\n"), "campaign"),
        (draft("task: pairwise\n"), "name"),
        (draft(rows=None), "completions"),
        (draft(rows=[]), "completions"),
        (draft(rows=[{"prompt": "x", "completions": ["one"]}]), "row 1"),
        (draft(YAML + "gold_share: 2\n"), "gold_share"),
        (draft("name: x\ntask: ratings\n"), "criteria"),
        (draft("name: x\ntask: pairwise\ncompletions: /etc/passwd\n", None), "file of the server"),
        (draft("name: x\ntask: pairwise\nguideline_file: /etc/passwd\n"), "guideline"),
        ({"text": YAML, "rows": '{"prompt": 1', "file_name": "tea.jsonl"}, "tea.jsonl:1"),
        ({"text": YAML, "rows": "{}", "file_name": "tea.csv"}, "tea.csv"),
        ({"text": YAML, "rows": '"\ud800"', "file_name": "tea.jsonl"}, "tea.jsonl"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(store, client, body, words):
    content = json.dumps(body).encode()
    for path in ("check", "create"):
        headers = {"content-type": "application/json"}  # json= refuses half a character
        reply = client.post(f"/api/lead/campaigns/{path}", content=content, headers=headers)
        assert reply.status_code == 409, reply.text
        assert words in reply.json()["error"]
        assert "\n" not in reply.json()["error"]
    assert store.campaigns() == []


def test_a_campaign_is_made_once_however_often_it_is_sent(store, client):
    first = post(client, "create", draft()).json()
    again = post(client, "create", draft()).json()
    assert (first["campaign"], first["num_items"], first["new"]) == ("tea", 2, True)
    assert (again["campaign"], again["new"]) == ("tea", False)
    assert store.progress("tea").num_items == 2
    assert store.campaign("tea").overlap == 2
    other = post(client, "create", draft(YAML.replace("Kind", "Rude")))
    assert other.status_code == 409
    assert "tea" in other.json()["error"]
    assert store.campaign("tea").guideline == "*Kind*"


def test_the_name_beside_the_text_wins(store, client):
    assert post(client, "create", draft(name=" milk ")).json()["campaign"] == "milk"


# ---- sampling --------------------------------------------------------------------------------

SAMPLED = (
    "name: sampled\ntask: pairwise\n"
    "sample:\n  models: [some-model]\n  num_completions: 2\n  prompts: [Tea, Milk]\n"
)


def jobs(client):
    return client.get("/api/lead/campaigns/jobs").json()["jobs"]


def wait_for(client, *states):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        (job,) = jobs(client)
        if job["state"] in states:
            return job
        time.sleep(0.02)
    raise AssertionError(f"still {job}")


def stand_in(monkeypatch, work):
    """Sampling needs a model of hundreds of megabytes; here `work(say)` gives the rows."""
    monkeypatch.setattr(sampling_jobs, "sampled_rows", lambda sample, folder, say: work(say))


def test_a_check_of_a_sample_says_what_would_be_sampled(store, client):
    found = post(client, "check", draft(SAMPLED, None)).json()
    expected = {"models": ["some-model"], "num_prompts": 2, "num_completions": 2}
    assert (found["sample"], found["first"]) == (expected, None)


def test_sampling_goes_on_without_the_page_and_makes_the_campaign_whole(store, client, monkeypatch):
    gate = threading.Event()

    def work(say):
        say("50%|#####     | 1/2")
        say("100%|##########| 2/2")
        assert gate.wait(10)
        return [(f"row {number}", row) for number, row in enumerate(ROWS, 1)]

    stand_in(monkeypatch, work)
    begun = post(client, "create", draft(SAMPLED, None)).json()
    again = post(client, "create", draft(SAMPLED, None)).json()  # a double click
    assert begun["job"]["id"] == again["job"]["id"]
    assert store.campaigns() == []
    other = post(client, "create", draft(SAMPLED.replace("Tea", "Coffee"), None))
    assert other.status_code == 409
    gate.set()
    job = wait_for(client, "done")
    assert job["num_items"] == 2
    assert job["lines"] == ["100%|##########| 2/2"]  # one bar is one line
    assert store.progress("sampled").num_items == 2


def test_a_failed_sample_says_why_and_leaves_nothing(store, client, monkeypatch):
    def work(say):
        raise ConfigError("sample.models: some-model: no such model")

    stand_in(monkeypatch, work)
    post(client, "create", draft(SAMPLED, None))
    assert wait_for(client, "failed")["error"] == "sample.models: some-model: no such model"
    assert store.campaigns() == []
    (job,) = jobs(client)
    assert post(client, "jobs/stop", {"id": job["id"]}).json()["jobs"] == []


def test_a_running_sample_can_be_stopped(store, client, monkeypatch):
    def work(say):
        while True:
            say("on and on")
            time.sleep(0.01)

    stand_in(monkeypatch, work)
    job = post(client, "create", draft(SAMPLED, None)).json()["job"]
    post(client, "jobs/stop", {"id": job["id"]})
    wait_for(client, "stopped")
    assert store.campaigns() == []


def test_the_real_command_tells_of_an_unknown_model(store, client):
    """Only the start of `rlhf sample`: a folder that is not there, told by the process itself."""
    text = SAMPLED.replace("some-model", "/nowhere/such-model")
    post(client, "create", draft(text, None))
    deadline = time.monotonic() + 120
    while jobs(client)[0]["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    (job,) = jobs(client)
    assert job["state"] == "failed"
    assert "/nowhere/such-model" in job["error"]
    assert job["lines"]  # what the process said on its way
    assert store.campaigns() == []


# ---- changes ---------------------------------------------------------------------------------


@pytest.fixture
def made(store, client):
    make_campaign(store, 2, guideline="one", settings={"title": "Tea", "gold_share": 0.1})
    return client


def page(client):
    reply = client.get("/api/lead/campaigns/one", params={"campaign": "c"})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_guideline_gets_versions_and_their_difference(store, made):
    body = {"campaign": "c", "text": "one *two*", "version": 1}
    after = post(made, "guideline", body).json()
    assert [(one["version"], one["text"]) for one in after["guidelines"]] == [
        (2, "one *two*"),
        (1, "one"),
    ]
    query = {"campaign": "c", "before": 1, "after": 2}
    found = made.get("/api/lead/campaigns/difference", params=query).json()
    assert found == {"before": [["one", False]], "after": [["one", False], [" *two*", True]]}


def test_a_guideline_written_on_an_older_one_is_refused(store, made):
    assert (
        post(made, "guideline", {"campaign": "c", "text": "two", "version": 1}).status_code == 200
    )
    late = post(made, "guideline", {"campaign": "c", "text": "three", "version": 1})
    assert late.status_code == 409
    assert "version 2" in late.json()["error"]
    assert store.campaign("c").guideline == "two"


def test_a_preview_is_inert(client):
    found = post(client, "preview", {"text": "<img src=x onerror=alert(1)> **b**"}).json()
    assert "<img" not in found["html"]
    assert "<strong>b</strong>" in found["html"]


def settings(page, **changes):
    names = [
        "revision",
        "overlap",
        "lease_s",
        "gold_share",
        "retest_share",
        "qualify_share",
        "too_fast_s",
    ]
    return {"campaign": "c", **{name: page[name] for name in names}, **changes}


def test_settings_change_and_others_stay(store, made):
    body = settings(page(made), overlap=3, lease_s=600, retest_share=0.2, qualify_share=0.8)
    after = post(made, "settings", body).json()
    assert (after["overlap"], after["lease_s"], after["retest_share"]) == (3, 600, 0.2)
    found = store.campaign("c")
    assert (found.overlap, found.settings["title"], found.settings["qualify_share"]) == (
        3, "Tea", 0.8,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"overlap": 0}, {"lease_s": 0}, {"gold_share": 1.5}, {"qualify_share": 0}, {"too_fast_s": -1}],
)
def test_impossible_settings_are_refused_and_nothing_changes(store, made, changes):
    before = store.campaign("c")
    reply = post(made, "settings", settings(page(made), **changes))
    assert reply.status_code == 409, reply.text
    assert "\n" not in reply.json()["error"]
    assert store.campaign("c") == before


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), True, "3"])
@pytest.mark.parametrize("name", ["overlap", "lease_s", "too_fast_s", "gold_share"])
def test_settings_take_finite_numbers_alone(made, name, wrong):
    with pytest.raises(ValidationError, match=name):
        SettingsBody(**settings(page(made), **{name: wrong}))


def test_of_two_leads_the_second_sees_the_first_ones_settings(store, made):
    seen = page(made)
    assert post(made, "settings", settings(seen, overlap=2)).status_code == 200
    late = post(made, "settings", settings(seen, overlap=5))
    assert late.status_code == 409
    assert store.campaign("c").overlap == 2


def test_a_campaign_is_paused_and_goes_on(store, made):
    assert post(made, "paused", {"campaign": "c", "paused": True}).json()["paused"]
    assert store.standing_of("c", "ann") == "paused"
    assert not post(made, "paused", {"campaign": "c", "paused": False}).json()["paused"]
    assert store.standing_of("c", "ann") == "open"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("create", draft()),
        ("check", draft()),
        ("guideline", {"campaign": "c", "text": "x", "version": 1}),
        ("paused", {"campaign": "c", "paused": True}),
    ],
)
def test_a_rater_is_refused(store, path, body):
    make_campaign(store, 1)
    before = store.campaigns()
    assert post(lead_client(store, "ann", "rater"), path, body).status_code == 403
    assert store.campaigns() == before
