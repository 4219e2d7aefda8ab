"""Calls to the platform's API, or to a server that speaks it: signed in, bounded, retried where that helps."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import json
import threading
import time
import uuid
from collections.abc import Generator
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

import httpx
from pydantic import SecretStr

from syncagent.catalog.wire import dumps
from syncagent.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    InvalidInput,
    NotFound,
    SyncAgentError,
    Transient,
    named,
)
from syncagent.retry import retrying

_RENEW_SECONDS = 60  # before the token ends
_CONNECTIONS = 8
_REDIRECTS = 5
_CHUNK = 1 << 18
_BUSY = {408, 429, 500, 502, 503, 504}
_KINDS: dict[int, type[SyncAgentError]] = {
    400: InvalidInput, 401: AccessDenied, 403: AccessDenied, 404: NotFound, 409: AlreadyExists,
}  # fmt: skip

# Read once a process: it takes 30 ms.
_authorities = cache(httpx.create_ssl_context)


class Session:
    """One account at one server. Used from many threads.

    :param gate: scheme, host and port; the API is below ``/api/v1``.
    :raises ConfigError: `gate` is no such address, or would send the password in the clear.
    """

    def __init__(self, gate: str, username: str, password: SecretStr, *, timeout: float = 60.0) -> None:
        self.gate = _gate(gate)
        self._username, self._password = username, password
        self._token: str | None = None
        self._ends = 0.0
        self._lock = threading.Lock()
        self.requests = 0
        """Requests sent, those for tokens and those tried again among them."""
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        # A redirect would take the token elsewhere.
        self._http = httpx.Client(
            timeout=timeout, limits=limits, follow_redirects=False, verify=_authorities()
        )

    def __repr__(self) -> str:
        return f"<Session {self._username} at {self.gate}>"

    def get(self, path: str) -> Any:
        """The JSON below ``/api/v1``.

        :raises SyncAgentError: the server's own error, or what its status means.
        """
        return self.call("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """The JSON that answers `body`. Tried again after a lost answer, under the same ``Idempotency-Key``."""
        return self.call("POST", path, body)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that answers any request; bad moments are waited out, but nothing that the server means."""
        headers = {} if method == "GET" else {"Idempotency-Key": uuid.uuid4().hex}
        return self._told(retrying(self._call)(method, path, body, headers))

    def stream(self, path: str, *, offset: int = 0) -> Generator[bytes, None, None]:
        """The bytes below ``/api/v1`` from `offset` on, as they come; none past their end. To be closed if not read to its end.

        Nothing is tried again, but with a new token: whoever reads knows how far it came. A server that sends elsewhere (to a
        signed URL of a bucket) is followed there, without the token.

        :raises Transient: the server cannot be reached, or the answer broke off.
        :raises SyncAgentError: the server's own error, or what its status means.
        """
        with contextlib.ExitStack() as stack:
            with self._reached():
                answer = self._opened(f"{self.gate}/api/v1{path}", offset, stack)
                if answer.status_code == 416:  # past the end
                    return
                if answer.status_code != 206 and not answer.is_success:
                    answer.read()
                    if answer.status_code in _BUSY:
                        raise Transient(self._text(answer), resource=self.gate)
                    self._told(answer)
            skip = _skipped(answer, offset, self.gate)
            chunks = answer.iter_raw(_CHUNK)
            while True:
                with self._reached():
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(skip - len(chunk), 0)

    def upload(
        self, path: str, fields: dict[str, str], file: BinaryIO, *, name: str, kind: str | None
    ) -> Any:
        """The JSON that answers a form with a file, which is read once and as it goes out: nothing is tried again.

        :raises Transient: the server cannot be reached, cannot answer now, or wants a new token.
        :raises SyncAgentError: the server's own error, or what its status means.
        """
        token = self._bearer()
        part = (quote(name), file, kind or "application/octet-stream")
        self.requests += 1
        with self._reached():
            answer = self._http.post(
                f"{self.gate}/api/v1{path}",
                data=fields,
                files={"file": part},
                headers={"Authorization": f"Bearer {token}"},
            )
        if answer.status_code == 401:  # voided before its time, perhaps
            self._forget(token)
        if answer.status_code in {401, *_BUSY}:
            raise Transient(self._text(answer), resource=self.gate)
        self._must_be_json(answer, path)
        return self._told(answer)

    def _opened(self, url: str, offset: int, stack: contextlib.ExitStack) -> httpx.Response:
        renewed = False
        token: str | None = self._bearer()
        for _ in range(_REDIRECTS + 2):
            headers = {"Range": f"bytes={offset}-", "Accept-Encoding": "identity", "x-dl-sanitize": "0"}
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            self.requests += 1
            answer = self._http.send(self._http.build_request("GET", url, headers=headers), stream=True)
            stack.callback(answer.close)
            if answer.is_redirect:
                answer.close()
                url, token = urljoin(url, answer.headers.get("location", "")), None
                _safe(url)
            elif answer.status_code == 401 and token is not None and not renewed:
                answer.close()
                self._forget(token)
                token, renewed = self._bearer(), True
            else:
                return answer
        raise InvalidInput(f"{self.gate} redirected too often", resource=self.gate)

    @contextlib.contextmanager
    def _reached(self) -> Generator[None, None, None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Transient(f"{self.gate} did not answer in time", resource=self.gate) from error
        except httpx.InvalidURL as error:
            raise InvalidInput(f"{self.gate} redirected to no address", resource=self.gate) from error
        except httpx.TransportError as error:
            raise Transient(
                f"the answer of {self.gate} did not come: {type(error).__name__}",
                resource=self.gate,
                hint="check the address and the network",
            ) from error

    def close(self) -> None:
        """Close the connections; twice is fine."""
        self._http.close()

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
        token = self._bearer()
        path = f"/api/v1{path}"
        answer = self._send(method, path, body, {**headers, "Authorization": f"Bearer {token}"})
        if answer.status_code == 401:
            # Voided before its time, perhaps: once more with a new one.
            self._forget(token)
            answer = self._send(method, path, body, {**headers, "Authorization": f"Bearer {self._bearer()}"})
        return answer

    def _bearer(self) -> str:
        with self._lock:
            if self._token is None or time.time() > self._ends - _RENEW_SECONDS:
                body = {
                    "username": self._username,
                    "password": self._password.get_secret_value(),
                    "type": "user_credentials",
                }
                answer = self._send("POST", "/token?default", body, {})
                if answer.status_code in {400, 401, 403}:
                    raise AccessDenied(
                        f"{self.gate} does not accept the password of {self._username}",
                        resource=self.gate,
                        hint="check DTLPY_USERNAME and DTLPY_PASSWORD",
                    )
                told = self._told(answer)
                token = told.get("id_token") if isinstance(told, dict) else None
                if not isinstance(token, str):
                    raise Transient(f"{self.gate} answered a sign-in without a token", resource=self.gate)
                self._token, self._ends = token, _ends(token)
            return self._token

    def _forget(self, token: str) -> None:
        with self._lock:
            if self._token == token:
                self._token = None

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
        """One request, and its whole answer.

        :raises Transient: there is none, it is no JSON, or it says that the server cannot answer now.
        """
        self.requests += 1
        try:
            content = None if body is None else dumps(body)
            headers = headers if body is None else {**headers, "Content-Type": "application/json"}
            answer = self._http.request(method, f"{self.gate}{path}", content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise Transient(f"{self.gate} did not answer in time", resource=self.gate) from error
        except httpx.TransportError as error:
            raise Transient(
                f"cannot reach {self.gate}: {type(error).__name__}",
                resource=self.gate,
                hint="check the address and the network",
            ) from error
        if answer.status_code in _BUSY:
            after = answer.headers.get("Retry-After", "")
            raise Transient(
                self._text(answer),
                resource=self.gate,
                retry_after=float(after) if after.isdecimal() else None,
            )
        self._must_be_json(answer, path)
        return answer

    def _must_be_json(self, answer: httpx.Response, path: str) -> None:
        if answer.is_success:
            try:
                answer.json()
            except ValueError as error:
                raise Transient(f"{self.gate} answered {path} with no JSON", resource=self.gate) from error

    def _told(self, answer: httpx.Response) -> Any:
        """The answer's JSON.

        :raises SyncAgentError: what its status means; never with the request's content.
        """
        if answer.is_success:
            return answer.json()
        told = _object(answer)
        meant = _KINDS.get(answer.status_code, SyncAgentError)
        kind = named(told["error"]) if isinstance(told.get("error"), str) else meant
        resource = told.get("resource")
        raise kind(self._text(answer), resource=resource if isinstance(resource, str) else self.gate)

    def _text(self, answer: httpx.Response) -> str:
        message = _object(answer).get("message") or f"status {answer.status_code}"
        return f"{self.gate}: {str(message).splitlines()[0]:.500}"


def _skipped(answer: httpx.Response, offset: int, gate: str) -> int:
    """How many bytes of an answer come before `offset`: all of them where the server knows no ranges."""
    if answer.status_code != 206:
        return offset
    told = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
    if told != str(offset):
        raise Transient(f"{gate} sent other bytes than it was asked for", resource=gate)
    return 0


def _safe(url: str) -> None:
    """:raises ConfigError: bytes would come in the clear from elsewhere."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and _loopback(host))):
        raise ConfigError(f"the server sends to {host or 'no host'} without encryption", resource=host)


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _ends(token: str) -> float:
    """When a token ends, in epoch seconds, as it says itself; a day from now if it does not."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return time.time() + 24 * 3600


def _gate(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "the catalog's URL must hold no credentials and no parameters",  # not quoted
            hint="set DTLPY_USERNAME and DTLPY_PASSWORD",
        )
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{url} is no address of a server", hint="write dataloop+https://host")
    if parts.scheme == "http" and not _loopback(host):
        raise ConfigError(
            f"{url} would send the password in the clear", resource=host, hint="write dataloop+https://host"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
