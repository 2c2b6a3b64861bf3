"""Pushing to the hub: huggingface_hub's own code, over a transport that answers as the hub does."""

import base64
import importlib
import json
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils._http import default_client_factory

from rlhf.cli import main
from rlhf.export.hub import require_target
from rlhf.manifest import Manifest
from rlhf.models.registry import ORIGIN_NAME

REPO = "someone/tuned"
# httpx or httpx2, as the version of huggingface_hub is
httpx: Any = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])


class Hub:
    """A hub that takes every file in its commit; `files` are those it got, `asked` the requests."""

    def __init__(
        self, *, private: bool = True, status: int = 200, error: Exception | None = None
    ) -> None:
        self.private, self.status, self.error = private, status, error
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.created: dict = {}
        self.tokens: set[str | None] = set()

    def __call__(self, request: Any) -> Any:
        if self.error is not None:
            raise self.error
        path = request.url.path
        self.asked.append((request.method, path))
        self.tokens.add(request.headers.get("authorization"))
        if self.status != 200:
            return httpx.Response(self.status, json={"error": "You may not"}, request=request)
        if path == "/api/repos/create":
            self.created = json.loads(request.content)
            return self.json(request, {"url": f"https://huggingface.co/{REPO}"})
        if path.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(request.content)["files"]]
            return self.json(request, {"files": [self.as_regular(name) for name in names]})
        if path.endswith("/commit/main"):
            self.take(request.content)
            commit = {"commitUrl": f"https://huggingface.co/{REPO}/commit/1", "commitOid": "1" * 40}
            return self.json(request, commit)
        if path.endswith("/validate-yaml") or path == "/api/validate-yaml":
            return self.json(request, {"errors": [], "warnings": []})
        assert path.startswith(f"/api/models/{REPO}"), path
        answer = {"id": REPO, "sha": "1" * 40, "private": self.private, "siblings": []}
        return self.json(request, answer)

    @staticmethod
    def json(request: Any, answer: dict) -> Any:
        return httpx.Response(200, json=answer, request=request)

    @staticmethod
    def as_regular(name: str) -> dict:
        return {"path": name, "uploadMode": "regular", "shouldIgnore": False}

    def take(self, content: bytes) -> None:
        for line in content.splitlines():
            part = json.loads(line)
            if part["key"] == "file":
                value = part["value"]
                self.files[value["path"]] = base64.b64decode(value["content"])


@pytest.fixture
def connect(monkeypatch):
    """`connect(hub)`: from now on huggingface_hub speaks with it."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")

    def connected(hub: Hub) -> Hub:
        transport = httpx.MockTransport(hub)
        huggingface_hub.set_client_factory(lambda: httpx.Client(transport=transport))
        return hub

    yield connected
    huggingface_hub.set_client_factory(default_client_factory)


def push(trained, out, *options: str) -> int:
    words = ["export", str(trained / "dpo"), "--output_dir", str(out), "--push_to_hub", REPO]
    return main([*words, *options])


def test_all_of_the_export_arrives(trained, tmp_path, connect, capsys):
    hub = connect(Hub())
    assert push(trained, tmp_path / "out", "--private") == 0
    assert f"{REPO}: uploaded" in capsys.readouterr().out
    assert hub.created["name"] == "tuned"
    assert hub.created["organization"] == "someone"
    assert "private" in (
        hub.created.get("visibility"),
        *(key for key, on in hub.created.items() if on is True),
    )
    assert hub.tokens == {"Bearer hf_of_a_test"}
    sent = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == sent


def test_token_that_is_missing_is_said_before_anything_is_done(
    trained, tmp_path, monkeypatch, capsys
):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    assert push(trained, tmp_path / "out") == 2
    assert "no token of the hub; run `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_public_repository_gets_nothing_that_should_be_private(trained, tmp_path, connect, capsys):
    hub = connect(Hub(private=False))
    assert push(trained, tmp_path / "out", "--private") == 4
    assert "is there already and is public; nothing was uploaded" in capsys.readouterr().err
    assert hub.files == {}
    assert push(trained, tmp_path / "out") == 0
    assert "README.md" in hub.files


@pytest.mark.parametrize(
    "trouble",
    [
        *({"status": 401}, {"status": 403}, {"status": 500}),
        {"error": httpx.ConnectError("no route")},
        {"error": OfflineModeIsEnabled("HF_HUB_OFFLINE is set")},
    ],
)
def test_refusal_is_one_line_and_the_folder_is_whole(trouble, trained, tmp_path, connect, capsys):
    connect(Hub(**trouble))
    assert push(trained, tmp_path / "out") == 4
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlhf ")]
    assert len(said) == 1
    assert "the hub does not take it" in said[0]
    assert "is whole" in said[0]
    assert "hf_of_a_test" not in said[0]
    assert Manifest.read(tmp_path / "out").stage == "export"


def test_adapter_whose_base_nobody_has_is_not_pushed(trained, tmp_path, connect, capsys):
    hub = connect(Hub())
    assert push(trained, tmp_path / "out", "--adapter_only") == 2
    assert "is on this machine alone" in capsys.readouterr().err
    assert hub.asked == []


def test_adapter_on_a_pulled_model_names_it_as_the_hub_does(stages, tmp_path, connect):
    hub = connect(Hub())
    origin = {"name": "smollm2-135m-instruct", "licence": "Apache-2.0", "origin": "the hub"}
    origin |= {"revision": "1" * 40, "converted": "only the pad token set"}
    (stages / "sft" / ORIGIN_NAME).write_text(json.dumps(origin))
    assert push(stages, tmp_path / "out", "--adapter_only") == 0
    config = json.loads(hub.files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert str(tmp_path).encode() not in hub.files["adapter_config.json"]


def test_base_on_the_hub_is_named(connect):
    target = require_target(REPO, True, "someone/base")
    assert target is not None
    assert (target.repo_id, target.private, target.base) == (REPO, True, "someone/base")
    assert require_target(None, False, None) is None
