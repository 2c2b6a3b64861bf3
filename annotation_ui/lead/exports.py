"""Exports in the browser: what would come out, the file with its manifest, and a push to the hub.

A download is made in memory and sent as an attachment: nothing is served from the file system.
"""

import io
import json
import zipfile
from typing import Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from annotation_ui.bodies import Body
from annotation_ui.lead.pushes import Pushes
from annotation_ui.lead.replies import reply
from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.feedback.exports import FORMATS, export_bytes, make_export
from rlhf.feedback.files import WRITABLE
from rlhf.feedback.soft_labels import METHODS, LabelMethod
from rlhf.feedback.store import Store

PARTS = ("both", "file", "manifest")
MEDIA_TYPES = {
    ".jsonl": "application/jsonl",
    ".jsonl.gz": "application/gzip",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".zip": "application/zip",
}
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time in the archive: equal exports make equal bytes."""


class PushBody(Body):
    """Which export goes to which repository of the hub."""

    campaign: str
    format: str
    method: str = "votes"
    repository: str = Field(max_length=200)
    public: bool = False


def routes(store: Store) -> APIRouter:
    """The routes of the export tab."""
    router = APIRouter(prefix="/api/lead/export")
    pushes = Pushes(store)

    @router.get("/preview")
    def get_preview(campaign: str, format: str, method: str = "votes") -> JSONResponse:
        return reply(lambda: preview(store, campaign, format, cast(LabelMethod, method)))

    @router.get("")
    def get_export(
        campaign: str,
        format: str,
        suffix: str = ".jsonl",
        method: str = "votes",
        part: str = "both",
    ) -> Response:
        made: list[Response] = []

        def work() -> None:
            name, content = exported(
                store, campaign, format, suffix, cast(LabelMethod, method), part
            )
            made.append(_attachment(name, content))

        refusal = reply(work)
        return made[0] if made else refusal

    @router.post("/push")
    def push(request: Request, body: PushBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            pushes.start(
                request.state.annotator,
                campaign=body.campaign,
                format_name=body.format,
                method=cast(LabelMethod, body.method),  # checked where it is used
                repository=body.repository.strip(),
                public=body.public,
            )
            return {"pushes": pushes.as_json()}

        return reply(work)

    @router.get("/pushes")
    def get_pushes() -> JSONResponse:
        return reply(lambda: {"pushes": pushes.as_json()})

    return router


def preview(store: Store, campaign: str, format_name: str, method: LabelMethod) -> dict[str, Any]:
    """How much would come out, what is left out and why; `problem` where nothing would."""
    choices = {"formats": list(FORMATS), "suffixes": list(WRITABLE), "methods": list(METHODS)}
    try:
        export = make_export(store, campaign, format_name, method=method)
    except DataError as error:
        return {**choices, "problem": " ".join(str(error).split())}
    provenance = export.provenance
    return {
        **choices,
        "problem": None,
        "num_rows": len(export.rows),
        "num_judgements": len(set(export.judgement_ids)),
        "counts": export.counts,
        "simulated": provenance["simulated"],
        "num_raters": len(provenance["raters"]),
        "num_simulated_raters": sum(rater["simulated"] for rater in provenance["raters"]),
        "num_raters_excluded": provenance["num_raters_excluded"],
        "num_raters_down_weighted": provenance["num_raters_down_weighted"],
        "num_items_adjudicated": provenance["num_items_adjudicated"],
        "guideline_versions": provenance["guideline_versions"],
        "label_method": provenance.get("label_method"),
        "flag_method": provenance.get("flag_method"),
        "first_row": json.dumps(export.rows[0], ensure_ascii=False, indent=1)[:4000],
    }


def exported(
    store: Store, campaign: str, format_name: str, suffix: str, method: LabelMethod, part: str
) -> tuple[str, bytes]:
    """The name and content of a download: the file, its manifest, or both in an archive."""
    if part not in PARTS:
        raise ConfigError(f"no part {part!r}{nearest_hint(part, PARTS)}: {', '.join(PARTS)}")
    name, content, manifest = export_bytes(store, campaign, format_name, suffix, method=method)
    manifest["store"] = None  # where the server keeps it is nobody's business outside
    beside = json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n"
    if part == "file":
        return name, content
    if part == "manifest":
        return f"{name}.manifest.json", beside
    return f"{name.removesuffix(suffix)}.zip", _archive(
        {name: content, f"{name}.manifest.json": beside}
    )


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _attachment(name: str, content: bytes) -> Response:
    suffix = next(suffix for suffix in (".jsonl.gz", *MEDIA_TYPES) if name.endswith(suffix))
    plain = name.encode("ascii", "replace").decode().replace("?", "-")
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
    headers = {"content-disposition": disposition, "cache-control": "no-store"}
    return Response(content, media_type=MEDIA_TYPES[suffix], headers=headers)
