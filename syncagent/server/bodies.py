"""What may be sent before anything is known of the sender: little, and no files."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.concurrency import run_in_threadpool

from syncagent.errors import SyncAgentError

LIMIT = 64 << 20
"""Bytes of a request that is no upload. The largest are batches of 5,000 objects with long keys."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Bodies:
    """ASGI middleware. The framework reads a body before it asks who sends it; this asks, or counts, before that.

    :param check: takes a bearer token; raises `SyncAgentError` if it is not good.
    """

    def __init__(self, app: Any, *, check: Callable[[str], object]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if headers.get(b"content-type", b"").startswith(b"multipart/"):
            # Files go to the disk as they come.
            scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
            try:
                await run_in_threadpool(self._check, token if scheme.lower() == "bearer" else "")
            except SyncAgentError as error:
                await _answer(send, 401, str(error))
                return
            await self._app(scope, receive, send)
            return
        told = headers.get(b"content-length", b"")
        if told.isdigit() and int(told) > LIMIT:
            await _answer(send, 413, _TOO_LARGE)
            return
        await self._app(scope, _counted(receive), send)


_TOO_LARGE = f"the request is larger than {LIMIT >> 20} MB"


def _counted(receive: Receive) -> Receive:
    """`receive`, which ends the request like a client that hangs up once too much has come."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > LIMIT else message

    return counted


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"status": status, "message": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    # What is still to come is not read: the connection ends.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
