"""`syncagent serve` in a thread of the test, over a catalog whose clock the test holds; and a network that misbehaves."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from argon2 import PasswordHasher
from fastapi.responses import JSONResponse

from syncagent.agent import Agent
from syncagent.cli.serve import listening
from syncagent.config import load
from syncagent.server.app import create_app
from tests.rigs.catalogs import open_at, url_of
from tests.rigs.fake_http import DROP, Answer, FakeHttp, Request

EMAIL, PASSWORD = "owner@example.com", "correct horse battery"
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
"""The password's. Cheap to check: each test signs in."""
_LOOK = 0.005
"""Seconds."""
_PATIENCE = 3
"""Faults in a row, at most: fewer than a client tries."""


class Served:
    """One server with one administrator. Use it in a `with` statement.

    :param extension: False hides what the platform does not have.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, extension: bool = True) -> None:
        self.path = path
        self.agent = Agent(load(catalog=url_of(path)))
        self.catalog = open_at(path, timeout=10.0, clock=clock)
        self.agent.__dict__["catalog"] = self.catalog
        self.app: Any = create_app(self.agent, secret="s" * 40)
        self.app.state.platform.accounts.add(EMAIL, HASH, admin=True)
        if not extension:
            self.app.middleware("http")(_hide)
        config = uvicorn.Config(self.app, "127.0.0.1", 0, log_level="error", access_log=False)
        self._server = _Prompt(config)
        self._socket = listening(config)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self.agent.close()
        self.catalog.close()


class _Prompt(uvicorn.Server):
    """Ends when it is told: uvicorn looks ten times a second whether it shall, and as often whether its connections have ended."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(_LOOK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(_LOOK)
        await self.lifespan.shutdown()


async def _hide(request: Any, following: Any) -> Any:
    if request.url.path.startswith("/api/v1/syncagent"):
        return JSONResponse({"status": 404, "message": "Not Found"}, 404)
    return await following(request)


class BadNetwork:
    """Between a client and a server: loses requests, loses answers, cuts them, sends requests twice, ends tokens.

    What it does is the same for the same seed and the same requests.
    """

    def __init__(self, url: str, *, seed: int = 1, share: float = 0.4) -> None:
        self.fake = FakeHttp(self._reply)
        self.url = self.fake.url
        self.faults: dict[str, int] = {}
        self._random = random.Random(seed)
        self._share = share
        self._http = httpx.Client(base_url=url, timeout=30, verify=False)  # noqa: S501 - there is no TLS
        self._row, self._since_over = 0, 20
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.fake.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.fake.__exit__(kind, *rest)
        self._http.close()

    def _forward(self, request: Request) -> Answer:
        headers = {
            name: value for name, value in request.headers.items() if name not in {"host", "content-length"}
        }
        answer = self._http.request(
            request.method, request.path, params=request.query, headers=headers, content=request.body
        )
        return answer.status_code, {"Content-Type": "application/json"}, answer.content

    def _reply(self, request: Request) -> Answer:
        with self._lock:
            fault = "none"
            if self._row < _PATIENCE and self._random.random() < self._share:
                fault = self._random.choice(
                    ["busy", "broken", "unavailable", "lost", "unheard", "cut", "twice", "over"]
                )
            self._since_over += 1
            if fault == "over":
                if request.path == "/token" or self._since_over < 20:
                    fault = "none"  # a token that was just given is good
                else:
                    self._since_over = 0
            self._row = self._row + 1 if fault != "none" else 0
            self.faults[fault] = self.faults.get(fault, 0) + 1
        match fault:
            case "busy":
                return 429, {}, b'{"message": "slow down"}'
            case "broken":
                return 500, {}, b"<html>"
            case "unavailable":
                return 503, {"Retry-After": "0"}, b""
            case "unheard":
                return DROP
            case "over":
                return 401, {}, b'{"message": "the token is over"}'
        answer = self._forward(request)
        match fault:
            case "lost":
                return DROP
            case "cut":
                status, headers, body = answer
                return status, {**headers, "Content-Length": str(len(body) + 9)}, body
            case "twice":
                return self._forward(request)
        return answer
