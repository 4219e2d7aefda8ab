"""The daemon's address: ``/healthz`` for anybody, ``/metrics`` and ``/status`` for whoever has the token."""

from __future__ import annotations

import hmac
import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from syncagent.errors import ConfigError


class Health:
    """A small HTTP server in a thread.

    :param listen: ``host:port``; port 0 takes a free one.
    :param token: gives what metrics and status ask for, which may change.
    :param ready: what is not ready yet; nothing when all is.
    :raises ConfigError: the address cannot be listened on.
    """

    def __init__(
        self,
        listen: str,
        token: Callable[[], str],
        *,
        ready: Callable[[], list[str]],
        metrics: Callable[[], bytes],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ConfigError(f"run.listen: {listen!r} is no address", hint="write 127.0.0.1:9464")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version, sys_version = "syncagent", ""
            timeout = 10

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path in {"/healthz", "/healthz/live", "/healthz/ready"}:
                    lacking = ready()
                    fine = path == "/healthz/live" or not lacking
                    told = {"live": True, "ready": not lacking}
                    self._answer(
                        HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(told).encode()
                    )
                elif path not in {"/metrics", "/status"}:
                    self._answer(HTTPStatus.NOT_FOUND, b'{"error": "not found"}')
                elif not (wanted := token()) or not hmac.compare_digest(
                    self.headers.get("Authorization", "").encode(), f"Bearer {wanted}".encode()
                ):
                    self._answer(HTTPStatus.UNAUTHORIZED, b'{"error": "a bearer token is needed"}')
                elif path == "/metrics":
                    self._answer(HTTPStatus.OK, metrics(), "text/plain; version=0.0.4; charset=utf-8")
                else:
                    self._answer(HTTPStatus.OK, json.dumps(status()).encode())

            def _answer(self, code: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
                self.send_response(code)
                if code is HTTPStatus.UNAUTHORIZED:
                    self.send_header("WWW-Authenticate", "Bearer")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: it would be a line a scrape."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        try:
            self._server = Server((host.strip("[]"), int(port)), Handler)
        except (OSError, UnicodeError, TypeError) as error:  # the last two: a name that no host can have
            why = (error.strerror if isinstance(error, OSError) else None) or "no such host"
            raise ConfigError(
                f"cannot listen on {listen}: {why}",
                resource=listen,
                hint="set run.listen, or --listen, to another address, or to '' for none",
            ) from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
