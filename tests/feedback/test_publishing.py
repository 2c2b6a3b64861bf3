"""The push to the hub: real client code, against a hub that is a function."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import huggingface_hub
import huggingface_hub.constants
import pyarrow.parquet
import pytest

from rlhf.errors import ConfigError, StageError
from rlhf.feedback.publishing import DATA_PATH, MANIFEST_PATH, push_export
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import comparison, judgement

HUB = huggingface_hub.constants.ENDPOINT


class Hub:
    """Takes repositories and commits as the hub's API does."""

    def __init__(self) -> None:
        self.repositories: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.status = 200

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if self.status != 200:
            return httpx2.Response(self.status, json={"error": "no"}, request=request)
        if path == "/api/repos/create":
            self.repositories.append(json.loads(request.content))
            return httpx2.Response(200, json={"url": f"{HUB}/datasets/ada/trees"})
        if path == "/api/validate-yaml":
            return httpx2.Response(200, json={"errors": [], "warnings": []})
        if "/preupload/" in path:
            names = [one["path"] for one in json.loads(request.content)["files"]]
            plain = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            return httpx2.Response(200, json={"files": plain})
        if "/commit/" in path:
            for line in request.content.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            url = f"{HUB}/datasets/ada/trees/commit/1"
            return httpx2.Response(200, json={"commitUrl": url, "commitOid": "1"})
        return httpx2.Response(404, json={"error": path}, request=request)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(made)))
    yield made
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


@pytest.fixture
def rated(sqlite_store: Store) -> Store:
    sqlite_store.create_campaign("trees")
    sqlite_store.add_comparisons("trees", [comparison("i0", "Oak", "Brick")])
    sqlite_store.add_annotator(Annotator(name="ann@example.org"))
    sqlite_store.record([judgement("i0", "ann@example.org", campaign="trees", verdict=-2)])
    return sqlite_store


def test_rows_manifest_and_card_go_in_one_commit(rated: Store, hub: Hub) -> None:
    manifest = push_export(rated, "trees", "preference", "ada/trees", private=True)
    assert hub.repositories[0]["type"] == "dataset"
    assert hub.repositories[0]["visibility"] == "private"
    assert set(hub.files) == {DATA_PATH, MANIFEST_PATH, "README.md"}
    (row,) = pyarrow.parquet.read_table(io.BytesIO(hub.files[DATA_PATH])).to_pylist()
    assert (row["chosen"], row["rejected"]) == ("Oak", "Brick")
    assert json.loads(hub.files[MANIFEST_PATH]) == manifest
    assert manifest["num_rows"] == 1
    assert f"path: {DATA_PATH}" in hub.files["README.md"].decode()


def test_nothing_of_the_rater_or_of_this_machine_goes_out(rated: Store, hub: Hub) -> None:
    push_export(rated, "trees", "preference", "ada/trees")
    everything = b"".join(hub.files.values())
    assert b"ann@example.org" not in everything
    assert rated.location.encode() not in everything


def test_the_card_says_that_raters_are_simulated(rated: Store, hub: Hub) -> None:
    rated.add_annotator(Annotator(name="sim", simulated=True))
    rated.record([judgement("i0", "sim", campaign="trees", verdict=-1, simulated=True)])
    push_export(rated, "trees", "preference", "ada/trees")
    card = hub.files["README.md"].decode()
    assert "Simulated raters are among them" in card
    assert "1 people and 1 simulated raters" in card


def test_a_hub_that_refuses_is_one_line(rated: Store, hub: Hub) -> None:
    hub.status = 403
    with pytest.raises(ConfigError, match="ada/trees: the hub refuses") as caught:
        push_export(rated, "trees", "preference", "ada/trees")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a/b/c"):
        push_export(rated, "trees", "preference", "a/b/c")


def test_a_hub_that_is_not_there_is_one_line(rated: Store, hub: Hub) -> None:
    def gone(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route to host")

    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(gone)))
    with pytest.raises(StageError, match=r"cannot be reached.*no route to host"):
        push_export(rated, "trees", "preference", "ada/trees")


def test_judgements_with_their_raters_names_go_to_a_private_place_only(
    rated: Store, hub: Hub
) -> None:
    with pytest.raises(ConfigError, match="hold the raters' names"):
        push_export(rated, "trees", "judgements", "ada/trees")
    assert hub.files == {}
    push_export(rated, "trees", "judgements", "ada/trees", private=True)
    assert "under their own names" in hub.files["README.md"].decode()
