"""Files from the web, for uploads: of bounded size, and never from a private address unless that is allowed.

A name is resolved once, every address that it has is looked at, and the connection goes to the one that was looked at: a name
that answers differently the second time gains nothing. Redirects are followed by the same rules.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from syncagent.errors import InvalidInput, NotFound, Refused, Transient

_MEMORY = 8 << 20
_REDIRECTS = 5
_TIMEOUT = 60.0


def fetch(url: str, *, limit: int = 1 << 30, private: bool = False) -> tuple[BinaryIO, str | None]:
    """The bytes at a URL, and the type that the server tells.

    :param limit: bytes, at most; :param private: allow addresses that are not of the public network.
    :raises Refused: the address is private, or there is more than `limit`.
    :raises NotFound: the server says so; :raises InvalidInput: another answer than 200, or no such URL.
    :raises Transient: the server cannot be reached, or says that it cannot answer now.
    """
    shown = _shown(url)
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False) as client:
        for _ in range(_REDIRECTS + 1):
            with contextlib.ExitStack() as stack:
                answer = send(client, url, stack, private=private)
                if answer.is_redirect:
                    url = urljoin(url, answer.headers.get("location", ""))
                    continue
                _check(answer, shown)
                return _body(answer, shown, limit), answer.headers.get("content-type", "").partition(";")[
                    0
                ] or None
    raise InvalidInput(f"{shown}: redirected too often", resource=shown)


def name_of(url: str) -> str:
    """The file name that a URL's path ends in.

    :raises InvalidInput: it ends in none.
    """
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name:
        raise InvalidInput(
            f"{_shown(url)} ends in no file name", resource=_shown(url), hint="give one with --name"
        )
    return name


def send(
    client: httpx.Client,
    url: str,
    stack: contextlib.ExitStack,
    *,
    private: bool,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = _TIMEOUT,
) -> httpx.Response:
    """One request to an address that was looked at: GET, or POST where there is a body. The answer is not read yet.

    :param stack: closes the answer at its end. :raises SyncAgentError: see `fetch`.
    """
    parts = urlsplit(url)
    shown = _shown(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.password:
        raise InvalidInput(f"{shown} is no http or https address without credentials", resource=shown)
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError as error:
        raise InvalidInput(f"{shown} has no such host", resource=shown) from error
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidInput(f"{shown} has no such port", resource=shown) from error
    address = _address(host, port, shown, private=private)
    told = f"[{address}]" if ":" in address else address
    request = client.build_request(
        "GET" if body is None else "POST", httpx.URL(url).copy_with(host=told, port=port),
        headers={"Host": host if parts.port is None else f"{host}:{port}", "Accept-Encoding": "identity", **(headers or {})},
        content=body,
        extensions={"sni_hostname": host, "timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout)},
    )  # fmt: skip
    try:
        answer = client.send(request, stream=True)
    except httpx.TransportError as error:
        raise Transient(f"cannot reach {shown}: {type(error).__name__}", resource=shown) from error
    stack.callback(answer.close)
    return answer


def _address(host: str, port: int, shown: str, *, private: bool) -> str:
    """The address to connect to."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Transient(f"{shown}: no address is known for {host}", resource=shown) from error
    addresses = [str(one[4][0]).partition("%")[0] for one in found]
    if not private:
        for address in addresses:
            if not _public(address):
                raise Refused(
                    f"{shown} is on a private network",
                    resource=shown,
                    hint="pass --allow-private if you mean it",
                )
    return addresses[0]


def _public(address: str) -> bool:
    ip: Any = ipaddress.ip_address(address)
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if inner is None and getattr(ip, "teredo", None):
        inner = ip.teredo[1]
    if inner is not None:
        ip = inner
    return bool(ip.is_global) and not ip.is_multicast


def _check(answer: httpx.Response, shown: str) -> None:
    if answer.status_code in {404, 410}:
        raise NotFound(f"{shown}: there is nothing", resource=shown)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Transient(f"{shown}: the server answers {answer.status_code}", resource=shown)
    if answer.status_code != 200:
        raise InvalidInput(f"{shown}: the server answers {answer.status_code}", resource=shown)


def _body(answer: httpx.Response, shown: str, limit: int) -> BinaryIO:
    told = answer.headers.get("content-length", "")
    spooled = cast(BinaryIO, tempfile.SpooledTemporaryFile(_MEMORY))  # noqa: SIM115  # handed on
    size = 0
    try:
        if told.isdecimal() and int(told) > limit:
            raise _too_large(shown, limit)
        for chunk in answer.iter_raw(1 << 16):
            size += len(chunk)
            if size > limit:
                raise _too_large(shown, limit)
            spooled.write(chunk)
    except httpx.HTTPError as error:
        spooled.close()
        raise Transient(f"{shown}: the answer broke off after {size} bytes", resource=shown) from error
    except BaseException:
        spooled.close()
        raise
    spooled.seek(0)
    return spooled


def _too_large(shown: str, limit: int) -> Refused:
    return Refused(f"{shown} is larger than {limit} bytes", resource=shown, hint="raise --max-bytes")


def _shown(url: str) -> str:
    """The URL without its query, which may hold a signature, and without credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
