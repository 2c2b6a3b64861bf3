"""The annotation server: a FastAPI shell with sign-in and guard, and the page mounted in it."""

import asyncio
import os
import socket
from collections.abc import Callable

# Gradio calls home at start and sums up its events with pandas unless told otherwise; both are
# read when it is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from annotation_ui.api import rating_routes
from annotation_ui.components import page_style, pairwise_page
from annotation_ui.guard import Guard
from annotation_ui.pages import FAVICON, plain_page
from annotation_ui.rate import Desk
from annotation_ui.session import InviteError, Sessions
from annotation_ui.theme import theme
from rlhf.errors import ConfigError


def build_app(desk: Desk, sessions: Sessions) -> Guard:
    """The whole application behind its guard."""
    shell = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # Its presence keeps Gradio from adding its own, which lets every origin in.
    shell.add_middleware(CORSMiddleware, allow_origins=[])
    _add_session_routes(shell, sessions)
    shell.include_router(rating_routes(desk))
    shell.add_exception_handler(RequestValidationError, _say_invalid)
    _in_event_loop(lambda: _mount_pages(shell, desk.campaign))
    return Guard(shell, sessions)


def _in_event_loop(work: Callable[[], None]) -> None:
    """Runs `work` with an event loop running: without one, Gradio opens several, closes none."""

    async def run() -> None:
        work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run())
    else:
        work()


def _mount_pages(shell: FastAPI, campaign: str) -> None:
    gr.mount_gradio_app(
        shell,
        _blocks(campaign),
        path="/app",
        auth_dependency=lambda request: request.state.annotator,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size="1kb",
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        ssr_mode=False,
        theme=theme(),
        css=page_style(),
    )


def _blocks(campaign: str) -> gr.Blocks:
    with gr.Blocks(title=f"Rate: {campaign}", analytics_enabled=False, fill_width=True) as blocks:
        pairwise_page()
    return blocks


def _add_session_routes(shell: FastAPI, sessions: Sessions) -> None:
    @shell.get("/")
    def home() -> RedirectResponse:
        return RedirectResponse("/app/")

    @shell.get("/join")
    def join(token: str = "") -> Response:
        try:
            annotator = sessions.redeem(token)
        except InviteError as error:
            text = f"{error} Stop the server and start it again for a new one."
            return HTMLResponse(plain_page("This link opens nothing", text), 403)
        return RedirectResponse("/app/", 303, {"set-cookie": sessions.cookie(annotator)})

    @shell.get("/favicon.ico")
    def favicon() -> Response:
        return Response(FAVICON, media_type="image/svg+xml")


async def _say_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"error": f"{where or 'body'}: {first['msg']}"}, 422)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError when the port is taken or not ours to use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "choose another --port, or --port 0 for a free one"
        raise ConfigError(f"{host}:{port}: {reason}; {hint}") from error
    return listener


def serve(app: Guard, listener: socket.socket) -> None:
    """Serves `app` on a bound socket until interrupted."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False
    )
    uvicorn.Server(config).run(sockets=[listener])
