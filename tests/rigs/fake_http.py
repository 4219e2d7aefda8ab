"""A loopback HTTP server whose answers the test gives, under the real SDKs."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    """As it was sent, still percent-encoded."""
    query: dict[str, str]
    """Decoded; of a repeated parameter, the first."""
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body. A `Content-Length` among the headers may lie: the connection ends after the body."""
Reply = Callable[[Request], Answer]

DROP: Answer = (0, {}, b"")
"""No answer: the connection is closed."""


class FakeHttp:
    """Answers each request with `reply(request)`, from a thread a connection, and keeps the requests.

    Use it in a `with` statement. `reply` may be replaced at any time. An error that it raises closes the
    connection, and is raised again at the end of the `with`.
    """

    def __init__(self, reply: Reply = lambda _: (500, {}, b"")) -> None:
        self.reply = reply
        self.requests: list[Request] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        # A short poll: it is how long the end takes.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)

    def always(self, answer: Answer) -> None:
        """Answer every request alike."""
        self.reply = lambda _: answer

    def in_turn(self, *answers: Answer) -> None:
        """One answer a request; one request too many is an error."""
        left = iter(answers)

        def reply(request: Request) -> Answer:
            answer = next(left, None)
            assert answer is not None, f"a request too many: {request.method} {request.path}"
            return answer

        self.reply = reply

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()  # waits for the threads of the connections
        if kind is None and self._server.faults:
            raise self._server.faults[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # the end waits for them: none leaves an open socket behind
    request_queue_size = 128

    def __init__(self, fake: FakeHttp) -> None:
        self.fake = fake
        self.faults: list[BaseException] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that the client keeps for later."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called in the `except` of a connection's thread."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):  # the client may leave early
            self.faults.append(error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write

    def _answer(self) -> None:
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, query, headers, body)
        fake.requests.append(request)
        status, given, answer = fake.reply(request)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **given}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)
        if "Content-Length" in given:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""
