"""What every route under `/api/lead` does alike: who may call it, and how it answers."""

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse

from rlhf.errors import ConfigError, DataError, RlhfError


def require_lead(request: Request) -> None:
    """Refuses with 403 unless the session's account is a lead, as the store says now."""
    if getattr(request.state, "role", None) != "lead":
        raise HTTPException(403, "only leads may see and do this; ask a lead for an invite")


def reply(work: Callable[[], Any]) -> JSONResponse:
    """What `work` returns as JSON; a refusal is `{"error": one line}` with 409, a failure 503."""
    try:
        return JSONResponse(work())
    except (DataError, ConfigError) as error:
        return JSONResponse({"error": " ".join(str(error).split())}, 409)
    except RlhfError as error:
        return JSONResponse({"error": " ".join(str(error).split())}, 503)
