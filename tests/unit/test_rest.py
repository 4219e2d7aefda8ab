"""The catalog over HTTP: against `syncagent serve` in its own process, and against servers that misbehave."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from syncagent.catalog.base import Dataset
from syncagent.catalog.rest import Session
from syncagent.catalog.served import ServedCatalog, is_served
from syncagent.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidInput,
    NotFound,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.model import Action, DriverSpec
from syncagent.reconcile import Reconciler
from tests.engine import drop, info, memory_bucket, put, stored
from tests.keys import NASTY
from tests.rigs.catalogs import open_at
from tests.rigs.fake_http import DROP, Answer, FakeHttp, Request
from tests.rigs.server import EMAIL, PASSWORD, ServerRig, server_rig

__all__ = ["server_rig"]


@pytest.fixture
def session(server_rig: ServerRig) -> Iterator[Session]:
    one = Session(server_rig.url, EMAIL, SecretStr(PASSWORD))
    yield one
    one.close()


@pytest.fixture
def ds(server_rig: ServerRig, request: pytest.FixtureRequest) -> str:
    """A mirrored dataset at the server, made beside it in its catalog."""
    with open_at(server_rig.folder / "catalog.db") as catalog:
        name = request.node.name
        return catalog.ensure_dataset(name, DriverSpec(type="memory", bucket=name[:60], name=name)).id


@pytest.fixture
def catalog(session: Session) -> ServedCatalog:
    return ServedCatalog(session)


def test_rows_go_there_and_back(catalog: ServedCatalog, ds: str) -> None:
    keys = sorted((key for key in NASTY if "\0" not in key), key=str.encode)
    assert catalog.insert_new(ds, [info(key) for key in keys]) == []
    assert [row.key for row in catalog.scan(ds)] == keys
    assert [row.key for row in catalog.scan(ds, after=keys[0], until=keys[5])] == keys[1:6]
    assert [row.key for row in catalog.scan(ds, limit=3)] == keys[:3]
    assert catalog.stamps(ds, after=None, until=keys[2], limit=10) == [
        (key, info(key).fingerprint) for key in keys[:3]
    ]
    assert catalog.insert_new(ds, [info(keys[0]), info("~~")]) == [keys[0]]
    assert catalog.get(ds, "never") is None


def test_a_settle_with_an_old_revision_is_a_conflict(catalog: ServedCatalog, ds: str) -> None:
    assert catalog.settle(ds, "k", info("k"), expect_rev=0).rev == 1
    for rev in (0, 7):
        with pytest.raises(Conflict):
            catalog.settle(ds, "k", None, expect_rev=rev)
    assert catalog.settle(ds, "k", None, expect_rev=1).fingerprint is None


def test_many_pages_take_few_requests(catalog: ServedCatalog, session: Session, ds: str) -> None:
    objects = [info(f"{number:06}") for number in range(10_000)]
    catalog.get(ds, "k")
    before = session.requests
    assert catalog.insert_new(ds, objects) == []
    assert session.requests - before == 2
    assert catalog.stamps(ds, after=None, until="~", limit=20_000) == [one[:2] for one in objects]
    assert session.requests - before <= 2 + 3


def test_many_settle_at_once_and_the_catalog_is_the_bucket(catalog: ServedCatalog, ds: str) -> None:
    bucket = memory_bucket({f"{number:02}": b"body" for number in range(20)})
    of = Reconciler(catalog, Dataset(ds, "data", bucket.spec, ""), bucket)
    assert {outcome.action for outcome in of.plan()} == {Action.ADDED}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(of.settle, [f"{number % 20:02}" for number in range(60)]))
    drop(bucket, "03")
    put(bucket, "04", b"other")
    for key in ("03", "04"):
        of.settle(key)
    live = {row.key: row.fingerprint for row in catalog.scan(ds) if row.fingerprint is not None}
    assert live == stored(bucket)
    assert list(of.check()) == []


def test_what_the_server_refuses_is_our_error(catalog: ServedCatalog, server_rig: ServerRig) -> None:
    with pytest.raises(NotFound, match="no dataset"):
        catalog.get("0" * 24, "k")
    wrong = Session(server_rig.url, EMAIL, SecretStr("not the password"))
    with pytest.raises(AccessDenied, match="does not accept the password of owner"):
        wrong.get("/users/me")
    wrong.close()


# -- servers that misbehave ----------------------------------------------------------------------


def token(seconds: float = 3600, name: str = "t") -> str:
    claims = (
        base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds}).encode()).decode().rstrip("=")
    )
    return f"{name}.{claims}.s"


def said(body: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHttp]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    with FakeHttp() as one:
        yield one


@pytest.fixture
def asked(fake: FakeHttp) -> Iterator[Session]:
    session = Session(fake.url, "me@example.com", SecretStr("hunter2-secret"), timeout=0.5)
    yield session
    session.close()


SIGNED_IN = said({"id_token": token()})


@pytest.mark.parametrize(
    "bad",
    [said({"message": "slow down"}, 429), said({}, 500), said({}, 503), DROP, (200, {"Content-Length": "99"}, b'{"a"')],
    ids=["429", "500", "503", "dropped", "cut off"],
)  # fmt: skip
def test_a_bad_moment_is_waited_out(fake: FakeHttp, asked: Session, bad: Answer) -> None:
    fake.in_turn(SIGNED_IN, bad, bad, said({"fine": 1}))
    assert asked.get("/x") == {"fine": 1}
    assert asked.requests == 4


def test_a_bad_day_is_told(fake: FakeHttp, asked: Session) -> None:
    fake.reply = lambda request: SIGNED_IN if request.path == "/token" else said({"message": "busy"}, 503)
    with pytest.raises(Transient, match="busy"):
        asked.get("/x")
    assert len(fake.requests) == 1 + 6


def test_the_server_says_how_long_to_wait(fake: FakeHttp, asked: Session) -> None:
    fake.reply = lambda request: (
        SIGNED_IN if request.path == "/token" else said({}, 429, **{"Retry-After": "7"})
    )
    with pytest.raises(Transient) as caught:
        asked.get("/x")
    assert caught.value.retry_after == 7


def test_a_wait_that_is_too_long_is_not_begun(
    fake: FakeHttp, asked: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNCAGENT_TEST_NO_BACKOFF")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"it sleeps for {seconds} s"))
    fake.in_turn(SIGNED_IN, said({"message": "tomorrow"}, 503, **{"Retry-After": "86400"}))
    with pytest.raises(Transient, match="tomorrow"):
        asked.get("/x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidInput), (403, AccessDenied), (404, NotFound), (409, AlreadyExists), (418, SyncAgentError), (302, SyncAgentError)],
)  # fmt: skip
def test_what_does_not_pass_is_not_tried_again(
    fake: FakeHttp, asked: Session, status: int, kind: type[SyncAgentError]
) -> None:
    answers = [SIGNED_IN, said({"message": "because\nof this"}, status, Location="http://127.0.0.1:1/")]
    fake.in_turn(*answers)
    with pytest.raises(kind, match=r"because$"):
        asked.get("/x")


def test_a_token_is_renewed_before_it_ends_and_when_it_is_refused(fake: FakeHttp, asked: Session) -> None:
    fake.in_turn(
        said({"id_token": token(30, "short")}), said(1),
        said({"id_token": token(name="void")}), said({}, 401), said({"id_token": token(name="good")}), said(2),
        said(3),
    )  # fmt: skip
    assert [asked.get("/x") for _ in range(3)] == [1, 2, 3]
    bearers = [request.headers.get("authorization", "").partition(".")[0] for request in fake.requests]
    assert bearers == ["", "Bearer short", "", "Bearer void", "", "Bearer good", "Bearer good"]


def test_an_account_that_is_refused_is_asked_twice_at_most(fake: FakeHttp, asked: Session) -> None:
    fake.reply = lambda request: SIGNED_IN if request.path == "/token" else said({"message": "no"}, 401)
    with pytest.raises(AccessDenied, match="no"):
        asked.get("/x")
    assert len(fake.requests) == 4


def test_a_request_that_is_sent_again_is_known_as_the_same(fake: FakeHttp, asked: Session) -> None:
    fake.in_turn(SIGNED_IN, DROP, said({"rows": [["k", "f", 2, 1, 4, None]]}), said({"rows": [None]}))
    catalog = ServedCatalog(asked)
    assert catalog.settle("d", "k", info("k"), expect_rev=1).rev == 2
    with pytest.raises(Conflict):
        catalog.settle("d", "k", info("k"), expect_rev=1)
    first, again, other = (request.headers["idempotency-key"] for request in fake.requests[1:])
    assert first == again != other


def test_a_lost_race_is_not_tried_again(fake: FakeHttp, asked: Session) -> None:
    body = {"message": "run 3 is somebody else's", "error": "Conflict", "resource": "photos"}
    fake.in_turn(SIGNED_IN, said(body, 409))
    with pytest.raises(Conflict, match="somebody else's") as caught:
        asked.post("/x", {})
    assert caught.value.resource == "photos"


def test_a_server_that_does_not_answer_in_time_is_asked_again(fake: FakeHttp, asked: Session) -> None:
    slow = iter([True, False])

    def reply(request: Request) -> Answer:
        if request.path != "/token" and next(slow):
            time.sleep(0.8)
        return SIGNED_IN if request.path == "/token" else said({"fine": 1})

    fake.reply = reply
    assert asked.get("/x") == {"fine": 1}


def test_who_answers_is_told_apart(fake: FakeHttp, asked: Session) -> None:
    fake.in_turn(SIGNED_IN, said({"message": "no"}, 404), said({"version": 1}), said({"version": 2}))
    assert not is_served(asked), "the platform has no such path"
    assert is_served(asked)
    with pytest.raises(Unsupported, match="another version"):
        is_served(asked)


def test_the_password_is_sent_once_and_never_told(
    fake: FakeHttp, asked: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def reply(request: Request) -> Answer:
        return said({"message": "hm"}, 500) if request.path != "/token" else SIGNED_IN

    fake.reply = reply
    with pytest.raises(Transient) as caught:
        asked.post("/x", {"a": 1})
    assert sum(b"hunter2-secret" in request.body for request in fake.requests) == 1
    for text in (caplog.text, str(caught.value), repr(asked), repr(ServedCatalog(asked))):
        assert "hunter2-secret" not in text
        assert token().partition(".")[2] not in text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://example.com", "in the clear"), ("https://me:hunter2@example.com", "no credentials"),
        ("https://example.com?token=hunter2", "no credentials"), ("ftp://example.com", "no address"), ("https://", "no address"),
    ],
)  # fmt: skip
def test_an_address_that_will_not_do(url: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        Session(url, "me", SecretStr("x"))
    assert "hunter2" not in str(caught.value)
