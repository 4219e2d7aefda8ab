"""Requests that are sent again because their answer was lost: done once, answered as often as asked."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from syncagent.server.auth import bearer, caller

_ANSWERS, _BYTES = 4096, 32 << 20
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Answers:
    """The last answers given, within a bound of memory. Used from one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._bytes = 0
        self._busy: dict[str, asyncio.Lock] = {}

    async def answer(self, name: str, request: Request, handler: Handler) -> Response:
        """What `handler` answers, or what it answered when it was asked under the same name before."""
        lock = self._busy.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                if name in self._kept:
                    status, body = self._kept[name]
                    return Response(body, status, media_type="application/json")
                answer = await handler(request)
                self._keep(name, answer.status_code, bytes(answer.body))
                return answer
        finally:
            if not lock.locked():
                self._busy.pop(name, None)

    def _keep(self, name: str, status: int, body: bytes) -> None:
        self._kept[name] = status, body
        self._bytes += len(body)
        while self._bytes > _BYTES or len(self._kept) > _ANSWERS:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= len(dropped)


class Once(APIRoute):
    """A route that heeds ``Idempotency-Key``: the same account, path, body and key are one request."""

    def get_route_handler(self) -> Handler:
        """See `APIRoute`."""
        plain = super().get_route_handler()

        async def handler(request: Request) -> Response:
            key = request.headers.get("Idempotency-Key")
            if key is None:
                return await plain(request)
            who = await run_in_threadpool(caller, request, await bearer(request))
            # Length first, so that no two lists of parts make the same text.
            parts = (who.account.id.encode(), request.url.path.encode(), key.encode(), await request.body())
            name = hashlib.sha256(b"".join(b"%d:%b" % (len(one), one) for one in parts)).hexdigest()
            answers: Answers = request.app.state.answers
            return await answers.answer(name, request, plain)

        return handler
