"""Files from the web: bounded, and never from where a user has no business."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from syncagent.errors import InvalidInput, NotFound, Refused, SyncAgentError, Transient
from syncagent.ingest.fetch import fetch, name_of
from tests.rigs.fake_http import DROP, FakeHttp, Request


@pytest.fixture
def web() -> Iterator[FakeHttp]:
    with FakeHttp() as one:
        yield one


def test_bytes_and_type(web: FakeHttp) -> None:
    web.always((200, {"Content-Type": "image/png; charset=x"}, b"picture"))
    body, kind = fetch(f"{web.url}/a/b.png?sig=1", private=True)
    with body:
        assert (body.read(), kind) == (b"picture", "image/png")
    request = web.requests[0]
    assert (request.path, request.query, request.headers["host"]) == ("/a/b.png", {"sig": "1"}, web.url[7:])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://localhost/x", "http://[::1]/x", "http://10.1.2.3/x", "http://192.168.0.1/x",
        "http://169.254.169.254/latest/meta-data/", "http://[::ffff:127.0.0.1]/x", "http://[fe80::1]/x", "http://0/x",
        "http://2130706433/x", "http://0x7f.1/x", "http://[2002:7f00:1::]/x", "http://100.64.0.1/x", "http://224.0.0.1/x",
        "http://[fd00:ec2::254]/x",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_however_they_are_written(url: str) -> None:
    with pytest.raises(Refused, match="private network; pass --allow-private"):
        fetch(url)


def test_a_name_is_looked_up_once_and_all_its_addresses_are_looked_at(
    web: FakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        if not host.endswith(".example"):
            return real(host, port, *rest, **more)
        asked.append(host)
        told = ["93.184.216.34", "10.0.0.1"] if host == "mixed.example" else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in told]

    monkeypatch.setattr("syncagent.ingest.fetch.socket.getaddrinfo", lookup)
    with pytest.raises(Refused):
        fetch("http://mixed.example/x")
    port = web.url.rpartition(":")[2]
    web.always((200, {}, b"x"))
    asked.clear()
    fetch(f"http://rebound.example:{port}/x", private=True)[0].close()
    assert asked == ["rebound.example"], "no second look-up that could be answered differently"
    assert web.requests[-1].headers["host"] == f"rebound.example:{port}"


def test_redirects_are_followed_by_the_same_rules(web: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    web.in_turn((302, {"Location": "/b"}, b""), (200, {}, b"there"))
    with fetch(f"{web.url}/a", private=True)[0] as body:
        assert body.read() == b"there"
    assert [request.path for request in web.requests] == ["/a", "/b"]
    web.always((302, {"Location": "/again"}, b""))
    with pytest.raises(InvalidInput, match="redirected too often"):
        fetch(f"{web.url}/a", private=True)
    web.always((302, {"Location": "file:///etc/passwd"}, b""))
    with pytest.raises(InvalidInput, match="no http or https"):
        fetch(f"{web.url}/a", private=True)
    from syncagent.ingest import fetch as module

    real = module._public
    seen: list[str] = []

    def public(address: str) -> bool:  # the first address counts as public, where it points to does not
        seen.append(address)
        return len(seen) == 1 or real(address)

    monkeypatch.setattr(module, "_public", public)
    web.always((302, {"Location": "http://169.254.169.254/"}, b""))
    with pytest.raises(Refused, match=r"169\.254\.169\.254"):
        fetch(f"{web.url}/a")


def test_more_than_allowed_is_refused(web: FakeHttp) -> None:
    web.always((200, {}, b"x" * 11))
    with pytest.raises(Refused, match="larger than 10 bytes"):
        fetch(f"{web.url}/a", private=True, limit=10)

    def endless(_: Request) -> Any:
        return 200, {"Transfer-Encoding": "chunked"}, b"b\r\n01234567890\r\n" * 3

    web.reply = endless
    with pytest.raises(Refused, match="larger than 20 bytes"):
        fetch(f"{web.url}/a", private=True, limit=20)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (403, InvalidInput), (500, Transient), (503, Transient), (204, InvalidInput)],
)
def test_an_error_page_is_no_file(web: FakeHttp, status: int, kind: type[SyncAgentError]) -> None:
    web.always((status, {}, b"" if status == 204 else b"<html>no</html>"))
    with pytest.raises(kind) as caught:
        fetch(f"{web.url}/a?secret=1", private=True)
    assert "secret" not in str(caught.value)


def test_what_breaks_off_is_no_file(web: FakeHttp) -> None:
    web.always((200, {"Content-Length": "100"}, b"short"))
    with pytest.raises(Transient, match="broke off after"):
        fetch(f"{web.url}/a", private=True)
    web.always(DROP)
    with pytest.raises(Transient, match="cannot reach"):
        fetch(f"{web.url}/a", private=True)


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "http:///y", "http://u:p@example.com/y", "http://example.com:99999/y"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fetch(url, private=True)
    assert ":p@" not in str(caught.value)


def test_names() -> None:
    assert name_of("https://h/a/b%20c.jpg?x=/y") == "b c.jpg"
    with pytest.raises(InvalidInput, match="--name"):
        name_of("https://h/")
