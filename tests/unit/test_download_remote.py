"""Downloads over a server: streams that break, redirects, tokens that end; through `syncagent serve`, and past it."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from syncagent.agent import Agent
from syncagent.catalog.rest import Session
from syncagent.config import load
from syncagent.drivers import open_bucket
from syncagent.errors import AccessDenied, ConfigError, InvalidInput, NotFound, Transient, Unsupported
from syncagent.ingest.download import Options
from syncagent.ingest.gather import Link, gather
from syncagent.ingest.origin import EitherOrigin, Facts, HereOrigin, item_of
from syncagent.model import DriverSpec
from tests.rigs.fake_http import DROP, Answer, FakeHttp, Request
from tests.rigs.served import EMAIL, PASSWORD, Served
from tests.unit.test_download import files

BODY = bytes(range(256)) * 20
TOKEN: Answer = (200, {}, b'{"id_token": "t.e30.s"}')


@pytest.fixture
def web() -> Iterator[FakeHttp]:
    with FakeHttp() as one:
        yield one


@pytest.fixture
def session(web: FakeHttp) -> Iterator[Session]:
    one = Session(web.url, "ann@example.com", SecretStr("secret"))
    yield one
    one.close()


def served(answer: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    return lambda request: TOKEN if request.path == "/token" else answer(request)


def ranged(request: Request) -> Answer:
    start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
    if start >= len(BODY):
        return 416, {}, b""
    return 206, {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}, BODY[start:]


def test_a_stream_begins_where_it_is_asked_to(web: FakeHttp, session: Session) -> None:
    web.reply = served(ranged)
    assert b"".join(session.stream("/items/x/stream")) == BODY
    assert b"".join(session.stream("/items/x/stream", offset=1000)) == BODY[1000:]
    assert b"".join(session.stream("/items/x/stream", offset=len(BODY))) == b""
    last = web.requests[-1]
    assert (last.path, last.headers["authorization"]) == ("/api/v1/items/x/stream", "Bearer t.e30.s")


def test_a_server_without_ranges_is_read_from_the_beginning(web: FakeHttp, session: Session) -> None:
    large = os.urandom(1_000_000)  # several pieces
    web.reply = served(lambda _: (200, {}, large))
    for offset in (0, 3000, 700_001, 1_000_000):
        assert b"".join(session.stream("/x", offset=offset)) == large[offset:]


def test_other_bytes_than_asked_for_are_not_taken(web: FakeHttp, session: Session) -> None:
    web.reply = served(lambda _: (206, {"Content-Range": f"bytes 0-9/{len(BODY)}"}, BODY[:10]))
    with pytest.raises(Transient, match="other bytes than it was asked for"):
        list(session.stream("/x", offset=5))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, {"Content-Length": "9999"}, BODY[:10]), Transient),
        (DROP, Transient),
        ((503, {}, b""), Transient),
        ((404, {}, b'{"message": "no item"}'), NotFound),
        ((403, {}, b"<xml>"), AccessDenied),
        ((401, {}, b"{}"), AccessDenied),
        ((302, {"Location": "http://example.com/bytes"}, b""), ConfigError),
        ((302, {"Location": "ftp://127.0.0.1/x"}, b""), ConfigError),
        ((302, {"Location": "/again"}, b""), InvalidInput),
    ],
)
def test_what_goes_wrong_is_an_error_of_ours(
    web: FakeHttp, session: Session, answer: Answer, kind: type[Exception]
) -> None:
    web.reply = served(lambda _: answer)
    with pytest.raises(kind):
        list(session.stream("/x"))


def test_a_redirect_is_followed_without_the_token(web: FakeHttp, session: Session) -> None:
    with FakeHttp(ranged) as other:
        web.reply = served(lambda _: (307, {"Location": f"{other.url}/signed?s=1"}, b""))
        assert b"".join(session.stream("/x", offset=7)) == BODY[7:]
        (asked,) = other.requests
        assert (asked.path, asked.query, asked.headers["range"]) == ("/signed", {"s": "1"}, "bytes=7-")
        assert "authorization" not in asked.headers


def test_a_token_that_ended_is_renewed(web: FakeHttp, session: Session) -> None:
    left = [401]
    web.reply = served(lambda request: (left.pop(), {}, b"{}") if left else ranged(request))
    assert b"".join(session.stream("/x")) == BODY
    assert [one.path for one in web.requests].count("/token") == 2


# -- a whole server ------------------------------------------------------------------------------


@pytest.fixture(params=["served", "platform"])
def remote(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Served, Agent]]:
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    with Served(tmp_path / "server.db", extension=request.param == "served") as server:
        name = f"remote-{uuid.uuid4().hex}"
        made = server.catalog.ensure_dataset("data", DriverSpec(type="memory", bucket=name, name=name))
        with open_bucket(f"memory://{name}") as bucket:
            picture = io.BytesIO()
            Image.new("RGB", (20, 10), "red").save(picture, "PNG")
            for key, body in {
                "a/b.png": picture.getvalue(),
                "large.bin": BODY * 300,
                "empty": b"",
                "ü x": b"1",
            }.items():
                bucket.put(key, io.BytesIO(body))
        server.agent.reconciler(made).sweep()
        server.catalog.labels.add_labels(made.id, [{"tag": "car"}])
        item = server.catalog.labels.at(made.id, ["a/b.png"])["a/b.png"]
        box = {
            "type": "box",
            "label": "car",
            "coordinates": [{"x": 1, "y": 1}, {"x": 9, "y": 8}],
            "metadata": {},
        }
        server.catalog.labels.annotate(made.id, [(item.id, [box])])
        given = load(
            catalog=f"dataloop+{server.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD, workers=12
        )
        with Agent(given) as agent:
            yield server, agent


def test_through_the_server(remote: tuple[Served, Agent], tmp_path: Path) -> None:
    _, agent = remote
    dataset = agent.catalog.dataset("data")
    options = Options(annotations=["json", "mask", "on-image"])
    report = agent.downloader(dataset).run(tmp_path / "out", None, options)
    assert report.errors == []
    found = files(tmp_path / "out")
    assert (found["items/large.bin"], found["items/empty"], found["items/ü x"]) == (BODY * 300, b"", b"1")
    assert {name for name in found if "b.png" in name} == {
        "items/a/b.png", "json/a/b.png.json", "mask/a/b.png.png", "img_mask/a/b.png.png",
    }  # fmt: skip
    assert agent.downloader(dataset).run(tmp_path / "out").same == 4
    item = agent.catalog.labels.at(dataset.id, ["a/b.png"])["a/b.png"]
    assert agent.downloader(dataset).to_array(item).shape == (10, 20, 3)


def test_a_part_goes_on_through_the_server(
    remote: tuple[Served, Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, agent = remote
    dataset = agent.catalog.dataset("data")
    plain = Session.stream
    offsets: list[int] = []

    def broken(self: Session, path: str, *, offset: int = 0) -> Iterator[bytes]:
        offsets.append(offset)
        left = 100_000 if len(offsets) < 4 else 1 << 30
        with contextlib.closing(plain(self, path, offset=offset)) as chunks:
            for chunk in chunks:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    raise Transient("the connection broke")

    monkeypatch.setattr(Session, "stream", broken)
    query = {"filter": {"$and": [{"type": "file"}, {"filename": "/large.bin"}]}}
    assert agent.downloader(dataset).run(tmp_path / "out", query).added == 1
    assert files(tmp_path / "out") == {"items/large.bin": BODY * 300}
    assert offsets == [0, 100_000, 200_000, 300_000]


def test_a_link_to_an_item_through_the_server(remote: tuple[Served, Agent], tmp_path: Path) -> None:
    server, agent = remote
    made = server.catalog.dataset("data")
    item = server.catalog.labels.at(made.id, ["a/b.png"])["a/b.png"]
    server.agent.uploader(made).run(gather([Link(item.id, name="to", dataset=made.id)]))
    report = agent.downloader(agent.catalog.dataset("data")).run(tmp_path / "out")
    assert report.errors == []
    found = files(tmp_path / "out")
    assert found["items/to_link.json.png"] == found["items/a/b.png"]


def test_what_is_no_item_is_an_error() -> None:
    for told in ({}, {"id": "x", "metadata": None}, []):
        with pytest.raises(InvalidInput):
            item_of(told)


class _Origin(HereOrigin):
    """One that says no."""

    def __init__(self, error: Exception | None, body: bytes = b"") -> None:
        self.error, self.body, self.asked = error, body, 0

    def chunks(self, item: Any, offset: int = 0) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        yield self.body[offset:]

    def now(self, item: Any) -> Facts:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Facts(len(self.body), None, "e", None, "")


def test_the_server_helps_where_the_bucket_is_not_ours() -> None:
    item: Any = None
    denied, server = _Origin(AccessDenied("no credentials")), _Origin(None, b"bytes")
    either = EitherOrigin(denied, server)
    assert b"".join(either.chunks(item)) == b"bytes"
    assert b"".join(either.chunks(item, 2)) == b"tes"
    assert either.now(item).size == 5
    assert denied.asked == 1, "it is not asked for every item"
    missing = _Origin(NotFound("another name"))
    either = EitherOrigin(missing, server)
    assert b"".join(either.chunks(item)) == b"bytes"
    assert b"".join(either.chunks(item)) == b"bytes"
    assert missing.asked == 2, "another item may be there"
    with pytest.raises(Transient):
        list(EitherOrigin(_Origin(Transient("slow")), server).chunks(item))


def test_a_bucket_that_cannot_be_opened_here_is_read_through_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from types import SimpleNamespace

    from syncagent.ingest.origin import ServerOrigin

    def refuse(self: Agent, spec: DriverSpec) -> Any:
        raise Unsupported("the credentials stay where the catalog is")

    monkeypatch.setattr(Agent, "bucket", refuse)
    given = load(catalog="dataloop+http://127.0.0.1:1", dtlpy_username="a", dtlpy_password="b")
    with Agent(given) as agent:
        agent.__dict__["catalog"] = SimpleNamespace(labels=None)
        dataset: Any = SimpleNamespace(id="x", driver=DriverSpec(type="s3", bucket="b"))
        assert isinstance(agent._origin(dataset), ServerOrigin)


def test_a_cloud_bucket_without_credentials_is_read_through_the_server(
    s3_rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"down-{uuid.uuid4().hex[:12]}"
    s3_rig.client.create_bucket(Bucket=bucket)
    body = os.urandom(400_000)
    s3_rig.client.put_object(Bucket=bucket, Key="a/b", Body=body)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with Served(tmp_path / "server.db") as server:
        server.catalog.create_integration(s3_rig.integration)
        spec = DriverSpec(
            type="s3", bucket=bucket, region="us-east-1", endpoint=s3_rig.endpoint, name=bucket, integration=s3_rig.integration.name
        )  # fmt: skip
        made = server.catalog.ensure_dataset("data", spec)
        server.agent.reconciler(made).sweep()
        given = load(catalog=f"dataloop+{server.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD)
        with Agent(given) as agent:
            report = agent.downloader(agent.catalog.dataset("data")).run(tmp_path / "out")
    assert report.errors == []
    assert files(tmp_path / "out") == {"items/a/b": body}
