"""Exports in the browser: what would come out, the attachment with its manifest, and pushes."""

import hashlib
import io
import json
import time
import zipfile

import pytest

from annotation_ui.lead import pushes
from rlhf.errors import ConfigError
from rlhf.feedback.exports import FORMATS
from rlhf.feedback.store import Store
from tests.annotation_ui.lead_site import lead_client, make_campaign, say
from tests.feedback.makers import judgement


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "feedback.db", create=True) as made:
        yield made


@pytest.fixture
def client(store):
    make_campaign(store)
    say(store, "i0", "ann", verdict=-3)
    say(store, "i1", "bob", verdict=1)
    say(store, "i2", "bob", skip="unreadable")
    return lead_client(store)


def preview(client, name, **query):
    query = {"campaign": "c", "format": name, **query}
    return client.get("/api/lead/export/preview", params=query)


def export(client, name, **query):
    return client.get("/api/lead/export", params={"campaign": "c", "format": name, **query})


def test_a_preview_counts_what_would_come_out(client):
    found = preview(client, "judgements").json()
    assert (found["num_rows"], found["num_judgements"], found["num_raters"]) == (3, 3, 2)
    assert not found["simulated"]
    assert found["formats"] == list(FORMATS)
    pairs = preview(client, "preference").json()
    assert (pairs["num_rows"], pairs["num_judgements"]) == (2, 2)
    assert sum(pairs["counts"].values()) > 0


def test_what_is_not_there_is_said_and_is_no_error(client):
    found = preview(client, "demonstrations")
    assert found.status_code == 200
    assert "nothing to export as demonstrations" in found.json()["problem"]
    assert preview(client, "nonsense").status_code == 409
    assert preview(client, "judgements", campaign="nope").status_code == 409


def test_an_attachment_holds_the_file_and_the_manifest_that_fits_it(client):
    reply = export(client, "preference")
    assert reply.status_code == 200
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["cache-control"] == "no-store"
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    name, beside = sorted(archive.namelist(), key=len)
    rows = [json.loads(line) for line in archive.read(name).splitlines()]
    manifest = json.loads(archive.read(beside))
    assert beside == f"{name}.manifest.json"
    assert manifest["sha256"] == hashlib.sha256(archive.read(name)).hexdigest()
    assert manifest["num_rows"] == len(rows) == 2
    assert {row["chosen"] for row in rows} == {"yes 0", "no 1"}
    assert "ann" not in {rater for row in rows for rater in row["raters"]}  # pseudonyms


def test_a_manifest_does_not_say_where_the_store_is(store, client):
    manifest = json.loads(export(client, "judgements", part="manifest").content)
    assert "store" in manifest
    assert manifest["store"] is None
    archive = zipfile.ZipFile(io.BytesIO(export(client, "judgements").content))
    for name in archive.namelist():
        assert store.location.encode() not in archive.read(name)
    assert (
        archive.read("c-judgements.jsonl.manifest.json")
        == json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_every_file_type_can_be_had_alone(client, suffix):
    reply = export(client, "judgements", suffix=suffix, part="file")
    assert reply.status_code == 200
    assert suffix in reply.headers["content-disposition"]
    starts = {".jsonl": b"{", ".jsonl.gz": b"\x1f\x8b", ".json": b"[", ".parquet": b"PAR1"}
    assert reply.content.startswith(starts[suffix])


def test_equal_exports_are_equal_bytes(client):
    assert export(client, "judgements").content == export(client, "judgements").content


@pytest.mark.parametrize(
    "query",
    [{"suffix": ".exe"}, {"part": "all"}, {"method": "magic"}, {"campaign": "../../etc/passwd"}],
)
def test_what_there_is_not_is_refused_in_one_line(client, query):
    reply = export(client, "preference", **query)
    assert reply.status_code == 409
    assert "\n" not in reply.json()["error"]


def test_a_name_of_any_letters_makes_a_safe_file_name(store, client):
    name = 'tea "é" ../\r\nx: y 茶'
    store.create_campaign(name)
    store.add_comparisons(name, store.comparisons("c"))
    store.record([judgement("i0", "ann", campaign=name)])
    reply = export(client, "judgements", campaign=name)
    assert reply.status_code == 200
    header = reply.headers["content-disposition"]
    assert "/" not in header
    assert header.isascii()


def test_a_rater_is_refused(store, client):
    rater = lead_client(store, "ann", "rater")
    assert export(rater, "judgements").status_code == 403
    assert preview(rater, "judgements").status_code == 403
    body = {"campaign": "c", "format": "judgements", "repository": "a/b"}
    assert rater.post("/api/lead/export/push", json=body).status_code == 403


# ---- pushes ----------------------------------------------------------------------------------


def push(client, **values):
    body = {"campaign": "c", "format": "preference", "repository": "team/tea", **values}
    return client.post("/api/lead/export/push", json=body)


def wait_for_push(client):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = client.get("/api/lead/export/pushes").json()["pushes"]
        if found[0]["state"] != "running":
            return found[0]
        time.sleep(0.02)
    raise AssertionError("the push does not end")


def test_a_push_runs_by_itself_and_says_how_it_went(client, monkeypatch):
    """The hub is another machine: here only what is asked of it."""
    asked = []

    def stand_in(_store, *arguments, **options):
        asked.append((arguments, options))
        return {"num_rows": 2}

    monkeypatch.setattr(pushes, "push_export", stand_in)
    assert push(client).status_code == 200
    found = wait_for_push(client)
    assert (found["state"], found["words"]) == ("done", "2 rows are there")
    ((arguments, options),) = asked
    assert arguments == ("c", "preference", "team/tea")
    assert options["private"]


def test_a_push_that_fails_says_why(client, monkeypatch):
    def fail(*_args, **_options):
        raise ConfigError("team/tea: not allowed;\nsign in")

    monkeypatch.setattr(pushes, "push_export", fail)
    push(client)
    found = wait_for_push(client)
    assert (found["state"], found["words"]) == ("failed", "team/tea: not allowed; sign in")


def test_names_of_raters_are_not_made_public(client):
    reply = push(client, format="judgements", public=True)
    assert reply.status_code == 409
    assert "names" in reply.json()["error"]


@pytest.mark.parametrize("repository", ["", "no-slash", "a/b/c", "../x", "a b/c"])
def test_a_repository_that_cannot_be_is_refused_at_once(client, repository):
    assert push(client, repository=repository).status_code == 409
    assert client.get("/api/lead/export/pushes").json()["pushes"] == []
