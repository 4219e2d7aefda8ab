"""A Service Bus over HTTP, as far as its REST interface is documented: locks, delivery counts, signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from urllib.parse import parse_qs, quote_plus, unquote

import pytest

from syncagent.model import Integration
from tests.rigs.fake_http import Answer, FakeHttp, Request

KEY = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdHM="


class ServiceBus:
    """Queues by path. https://learn.microsoft.com/rest/api/servicebus/service-bus-runtime-rest"""

    def __init__(self) -> None:
        self.fake = FakeHttp(self._reply)
        self.lock_seconds = 1.0
        self.integration = Integration(
            "bus", "azureblob",
            {"connectionString": f"Endpoint=sb://x/;SharedAccessKeyName=listen;SharedAccessKey={KEY}"},
        )  # fmt: skip
        self._changed = threading.Condition()
        self._queues: dict[str, dict[str, list[object]]] = {}

    def create(self, path: str) -> None:
        self._queues[path] = {}

    def send(self, path: str, body: str) -> None:
        with self._changed:
            number = str(len(self._queues[path]) + 1000 + uuid.uuid4().int % 10**9)
            # body, deliveries, locked until, token, sent at
            self._queues[path][number] = [body, 0, 0.0, "", time.time()]
            self._changed.notify_all()

    def url(self, path: str) -> str:
        return f"servicebus://bus/{path}?endpoint={self.fake.url}"

    def _reply(self, request: Request) -> Answer:
        if not self._authorized(request.headers.get("authorization", "")):
            return 401, {}, b"<Error><Code>401</Code></Error>"
        path, _, rest = unquote(request.path).lstrip("/").partition("/messages/")
        if path not in self._queues:
            return 410, {}, b""
        if rest == "head" and request.method == "POST":
            return self._take(path, float(request.query.get("timeout", "60")))
        number, _, token = rest.partition("/")
        with self._changed:
            held = self._queues[path].get(number)
            if held is None or held[3] != token or held[2] < time.time():  # type: ignore[operator]
                return 404, {}, b""
            if request.method == "DELETE":
                del self._queues[path][number]
            elif request.method == "PUT":
                held[2] = 0.0
                self._changed.notify_all()
            else:
                held[2] = time.time() + self.lock_seconds
        return 200, {}, b""

    def _take(self, path: str, seconds: float) -> Answer:
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                for number, held in self._queues[path].items():
                    if held[2] < time.time():  # type: ignore[operator]
                        held[1] += 1  # type: ignore[operator]
                        held[2], held[3] = time.time() + self.lock_seconds, str(uuid.uuid4())
                        told = {
                            "DeliveryCount": held[1], "LockToken": held[3], "SequenceNumber": int(number),
                            "MessageId": "not unique", "EnqueuedTimeUtc": formatdate(held[4], usegmt=True),  # type: ignore[arg-type]
                            "LockedUntilUtc": formatdate(held[2], usegmt=True),  # type: ignore[arg-type]
                        }  # fmt: skip
                        return 201, {"BrokerProperties": json.dumps(told)}, str(held[0]).encode()
                left = until - time.monotonic()
                if left <= 0:
                    return 204, {}, b""
                self._changed.wait(min(left, 0.05))

    def _authorized(self, header: str) -> bool:
        kind, _, told = header.partition(" ")
        given = {name: values[0] for name, values in parse_qs(told).items()}
        where = quote_plus(self.fake.url.partition("://")[2])
        if kind != "SharedAccessSignature" or float(given.get("se", "0")) < time.time():
            return False
        mark = hmac.new(KEY.encode(), f"{where}\n{given['se']}".encode(), hashlib.sha256).digest()
        return given.get("sig") == base64.b64encode(mark).decode() and given.get("skn") == "listen"


@pytest.fixture
def bus_rig() -> Iterator[ServiceBus]:
    """One for a test."""
    rig = ServiceBus()
    with rig.fake:
        yield rig
