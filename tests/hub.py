"""A hub of data sets that is a function: the real client code asks it, no network is there.

Within the process (`transported`) it stands behind the client's transport; for a process of its own
(a script, say) `served` puts it behind a port of this machine and gives the environment for it.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Answer = tuple[int, dict[str, str], bytes]


class DataHub:
    """Data sets as the hub's API shows them: repositories of files at one commit.

    The commit follows from the files, since the client keeps what it knows of one in memory.
    `asked` lists the method and path of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str]] = []

    def add(self, name: str, rows: Iterable[Mapping[str, Any]], split: str = "train") -> str:
        """Put rows up as a split of the data set `name` (OWNER/NAME), as Parquet; its name."""
        import pyarrow
        import pyarrow.parquet

        table = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), table)
        repository = self.files.setdefault(name, {})
        repository[f"data/{split}-00000-of-00001.parquet"] = table.getvalue()
        return name

    def answer(self, method: str, url: str, body: bytes) -> Answer:
        """What the hub says to a request: status, headers, content."""
        path = unquote(urlsplit(url).path)
        self.asked.append((method, path))
        for name, files in self.files.items():
            if path.startswith(f"/api/datasets/{name}"):
                rest = path.removeprefix(f"/api/datasets/{name}").strip("/")
                return _json(_api(name, files, rest, body))
            if path.startswith(f"/datasets/{name}/resolve/"):
                rest = path.removeprefix(f"/datasets/{name}/resolve/").partition("/")[2]
                return _file(files.get(rest), _commit(files))
        return 404, {"x-error-code": "RepoNotFound", "x-error-message": "not found"}, b"{}"


def _api(name: str, files: dict[str, bytes], rest: str, body: bytes) -> Any:
    kind, _, below = rest.partition("/")
    if kind == "tree":
        folder = below.partition("/")[2]
        return [one for one in _entries(files) if one["path"].startswith(folder)]
    if kind == "paths-info":
        asked = json.loads(body)["paths"] if body.startswith(b"{") else _form(body)
        return [one for one in _entries(files) if one["path"] in asked]
    siblings = [{"rfilename": path} for path in files]
    return {"id": name, "sha": _commit(files), "private": False, "tags": [], "siblings": siblings}


def _form(body: bytes) -> list[str]:
    from urllib.parse import parse_qs

    return parse_qs(body.decode()).get("paths", [])


def _entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    folders = {parent for path in files for parent in map(str, Path(path).parents)} - {"."}
    found = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
    return found + [
        {"type": "file", "path": path, "oid": _etag(content), "size": len(content)}
        for path, content in files.items()
    ]


def _file(content: bytes | None, commit: str) -> Answer:
    if content is None:
        return 404, {"x-error-code": "EntryNotFound", "x-repo-commit": commit}, b""
    headers = {"x-repo-commit": commit, "etag": f'"{_etag(content)}"', "accept-ranges": "none"}
    return 200, headers, content


def _json(value: Any) -> Answer:
    return 200, {"content-type": "application/json"}, json.dumps(value).encode()


def _commit(files: dict[str, bytes]) -> str:
    return _etag(b"".join(path.encode() + content for path, content in sorted(files.items())))


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def transported(data_hub: DataHub, cache: Path) -> Iterator[DataHub]:
    """Within the block this process's hub client asks `data_hub`; `cache` is for its files."""
    import datasets.config
    import httpx2
    import huggingface_hub
    import huggingface_hub.constants
    import pytest

    def transport(request: httpx2.Request) -> httpx2.Response:
        status, headers, content = data_hub.answer(
            request.method, str(request.url), request.content
        )
        length = {"content-length": str(len(content))} if request.method == "HEAD" else {}
        sent = b"" if request.method == "HEAD" else content
        return httpx2.Response(status, headers=headers | length, content=sent, request=request)

    def client() -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(transport), follow_redirects=True)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patched.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache / "hub"))
        patched.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        patched.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
        huggingface_hub.set_client_factory(client)
        try:
            yield data_hub
        finally:
            huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


@contextmanager
def served(data_hub: DataHub, cache: Path) -> Iterator[dict[str, str]]:
    """Within the block `data_hub` answers on a port; the environment of a process that asks it."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, headers, content = data_hub.answer(self.command, self.path, body)
            self.send_response(status)
            for key, value in (headers | {"content-length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = _reply

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
