"""The platform's API over an embedded catalog."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from syncagent.agent import Agent
from syncagent.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidInput,
    NotFound,
    Refused,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.server import page
from syncagent.server.auth import Passwords, Tokens, TooManyAttempts, Unauthorized, Who, caller
from syncagent.server.bodies import Bodies
from syncagent.server.platform import Platform
from syncagent.server.routes import accounts, datasets, extension, items, labels, marks, storage, store
from syncagent.server.routes.once import Answers

_log = logging.getLogger(__name__)

# The first that fits.
_STATUS: tuple[tuple[type[SyncAgentError], int], ...] = (
    (Unauthorized, 401),
    (TooManyAttempts, 429),
    (AccessDenied, 403),
    (Refused, 403),
    (NotFound, 404),
    (AlreadyExists, 409),
    (Conflict, 409),
    (InvalidInput, 400),
    (ConfigError, 400),
    (Unsupported, 400),
    (Transient, 503),
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for code, text in {
        400: "the request is wrong", 401: "not signed in", 403: "not allowed", 404: "not there",
        409: "already there, or changed meanwhile", 413: "too large", 429: "too many attempts", 503: "try again later",
    }.items()
}  # fmt: skip
_ERROR = {
    "type": "object",
    "properties": {
        "status": {"type": "integer"},
        "message": {"type": "string"},
        "error": {"type": "string", "description": "the class of syncagent's own error"},
        "resource": {"type": ["string", "null"], "description": "what it is about"},
    },
    "required": ["status", "message"],
}


def create_app(agent: Agent, *, secret: str | None = None) -> FastAPI:
    """The application.

    :param secret: signs tokens; None for one that the catalog keeps.
    :raises ConfigError: the agent's catalog is not an embedded one.
    """
    platform = Platform(agent)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        platform.close()

    app = FastAPI(
        title="syncagent",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        routes=_routes(),
        lifespan=lifespan,
    )
    app.state.platform = platform
    app.state.passwords = Passwords()
    app.state.tokens = Tokens(platform.accounts, secret or platform.accounts.signing_key())
    app.state.answers = Answers()
    _measure(app)
    app.add_middleware(Bodies, check=app.state.tokens.read)
    _translate(app)
    _describe(app)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """One set for every application of a process: to read their signatures takes FastAPI a tenth of a second."""
    routes = APIRouter()
    routes.include_router(accounts.gate, responses=_ANSWERS)
    routes.include_router(page.router)
    for module in (accounts, storage, datasets, items, labels, extension, store, marks):
        routes.include_router(module.router, prefix="/api/v1", responses=_ANSWERS)
    routes.include_router(_upkeep)
    return routes.routes


_upkeep = APIRouter()


@_upkeep.get("/metrics", summary="Figures for Prometheus", tags=["upkeep"], responses=_ANSWERS)
def metrics(request: Request, who: Who) -> Response:
    return Response(generate_latest(request.app.state.figures), media_type="text/plain; version=0.0.4")


@_upkeep.get("/healthz", summary="Whether the server and its catalog answer", tags=["upkeep"])
def healthz(request: Request) -> dict[str, str]:
    request.app.state.platform.catalog.db.ping()
    return {"status": "ok"}


@_upkeep.get("/openapi.json", include_in_schema=False, dependencies=[Depends(caller)])
def document(request: Request) -> dict[str, Any]:
    told: dict[str, Any] = request.app.openapi()
    return told


@_upkeep.get("/docs", include_in_schema=False, dependencies=[Depends(caller)])
def docs() -> HTMLResponse:
    return get_swagger_ui_html(openapi_url="/openapi.json", title="syncagent")


def _describe(app: FastAPI) -> None:
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        told = plain()
        told["components"]["schemas"]["Error"] = _ERROR
        for path in told["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return told

    app.openapi = openapi  # type: ignore[method-assign]


def _measure(app: FastAPI) -> None:
    registry = app.state.figures = CollectorRegistry()
    requests = Counter(
        "syncagent_requests", "Requests answered.", ["method", "route", "status"], registry=registry
    )
    seconds = Histogram(
        "syncagent_request_seconds", "Until the answer began.", ["method", "route"], registry=registry
    )

    @app.middleware("http")
    async def count(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        status = 500
        try:
            answer = await following(request)
            status = answer.status_code
            return answer
        finally:
            route = getattr(
                request.scope.get("route"), "path", "none"
            )  # never a path: ids would be without end
            requests.labels(request.method, route, str(status)).inc()
            seconds.labels(request.method, route).observe(time.perf_counter() - started)


def _translate(app: FastAPI) -> None:
    @app.exception_handler(SyncAgentError)
    async def ours(_: Request, error: SyncAgentError) -> JSONResponse:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if isinstance(error, Transient):
            headers["Retry-After"] = str(max(1, int(error.retry_after or 1)))
        # For a client of ours: the status alone does not tell a taken name from a lost race.
        own = {"error": type(error).__name__, "resource": error.resource}
        return _error(status, str(error), headers, own)

    @app.exception_handler(RequestValidationError)
    async def shape(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(one) for one in first["loc"] if one != "body")
        return _error(400, f"{where or 'the body'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def routing(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> JSONResponse:
        return _error(500, "an internal error; the server's log tells more")


def _error(
    status: int, message: str, headers: dict[str, str] | None = None, own: dict[str, str | None] | None = None
) -> JSONResponse:
    return JSONResponse({"status": status, "message": message, **(own or {})}, status, headers)
