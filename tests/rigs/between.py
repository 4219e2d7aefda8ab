"""Between a client and a real server: passes requests on, and does to some of them what the test says."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from tests.rigs.fake_http import Answer, FakeHttp, Request

Meddle = Callable[[Request], Answer | None]
"""An answer in the server's place; None passes the request on."""
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"}


class Between:
    """A proxy by address. `meddle` may be replaced at any time. Use it in a `with` statement."""

    def __init__(self, url: str) -> None:
        self._target = url
        self._client = httpx.Client(timeout=60, trust_env=False)
        self.meddle: Meddle = lambda _: None
        self.after: Callable[[Request], None] = lambda _: None
        """Called when the server has answered, and the client does not know yet."""
        self._fake = FakeHttp(self._reply)
        self.url = self._fake.url

    @property
    def requests(self) -> list[Request]:
        """All that came."""
        return self._fake.requests

    def _reply(self, request: Request) -> Answer:
        given = self.meddle(request)
        if given is not None:
            return given
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        answer = self._client.request(
            request.method, f"{self._target}{request.path}", params=request.query or None, content=request.body,
            headers=headers,
        )  # fmt: skip
        self.after(request)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        if request.method == "HEAD" and "content-length" in answer.headers:
            kept["Content-Length"] = answer.headers["content-length"]
        return answer.status_code, kept, answer.content

    def __enter__(self) -> Self:
        self._fake.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fake.__exit__(kind, error, trace)
        self._client.close()
