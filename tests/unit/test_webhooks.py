"""Webhooks: told at least once, signed, in order, and never lost."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Items
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.catalog.sql.statements import migrations
from syncagent.catalog.sql.webhooks import Webhooks
from syncagent.config import load
from syncagent.drivers.memory import MemoryDriver, open_driver
from syncagent.errors import InvalidInput, NotFound, Refused
from syncagent.handlers import outbox
from syncagent.handlers.outbox import Teller, event_of, key_of, new_secret, post, signed
from syncagent.model import DriverSpec, ObjectInfo
from syncagent.reconcile import Reconciler
from tests.engine import info
from tests.rigs.catalogs import url_of
from tests.rigs.fake_http import DROP, FakeHttp, Request

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


class World:
    """A dataset with a webhook, which is a server of ours."""

    def __init__(self, agent: Agent, name: str, receiver: FakeHttp) -> None:
        self.agent, self.receiver = agent, receiver
        self.dataset: Dataset = agent.catalog.ensure_dataset(
            name, DriverSpec(type="memory", bucket=name, name=name)
        )
        driver = open_driver(DriverSpec(type="memory", bucket=name))
        assert isinstance(driver, MemoryDriver)
        self.driver = driver
        self.of: Reconciler = agent.reconciler(self.dataset)
        webhooks = agent.webhooks()
        assert webhooks is not None
        self.webhooks: Webhooks = webhooks
        self.webhooks.put(name, f"{receiver.url}/hook?token=private", SECRET, private=True)

    def put(self, key: str, body: bytes = b"x") -> None:
        self.driver.put(key, io.BytesIO(body))

    def heard(self) -> list[tuple[str, str, str | None]]:
        """Each event that was acknowledged, by its id once: what, key, moved from."""
        told = {event["id"]: event for event in map(self.event, self.receiver.requests)}
        return [
            (event["type"].rpartition(".")[2], event["subject"], event["data"]["movedFrom"])
            for event in sorted(told.values(), key=lambda event: event["sequence"])
        ]

    @staticmethod
    def event(request: Request) -> dict[str, Any]:
        return json.loads(request.body)  # type: ignore[no-any-return]

    def waiting(self) -> int:
        return self.webhooks.get(self.dataset.name).waiting


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with (
        FakeHttp(lambda _: (204, {}, b"")) as receiver,
        Agent(load(catalog=url_of(tmp_path / "c.db"))) as agent,
    ):
        yield World(agent, f"w-{tmp_path.name}", receiver)


def until(told: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := told()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def tell(world: World, wanted: int) -> None:
    teller = Teller(world.webhooks)
    teller.start()
    until(lambda: len(world.receiver.requests) >= wanted and world.waiting() == 0)
    assert teller.stop(10)


def test_everything_that_happens_to_an_item_is_told(world: World) -> None:
    world.put("a")
    world.put("b", b"other")
    world.of.sweep()
    world.of.settle("a")  # nothing happens
    world.put("a", b"new")
    world.of.settle("a")
    world.driver.delete("b")
    world.of.settle("b")
    world.put("b", b"back")
    world.of.settle_many(["b", "never"])
    world.driver.delete("a")
    world.put("c", b"new")
    world.of.sweep(max_deletes=10)
    tell(world, 6)
    assert world.heard() == [
        ("created", "a", None), ("created", "b", None), ("updated", "a", None), ("removed", "b", None),
        ("restored", "b", None), ("moved", "c", "a"),
    ]  # fmt: skip


def test_an_event_is_a_signed_cloudevent(world: World) -> None:
    world.put("in/a.jpg")
    world.of.settle("in/a.jpg")
    tell(world, 1)
    (request,) = world.receiver.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["content-type"].startswith("application/cloudevents+json")
    event = world.event(request)
    id, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    mark = hmac.new(b"k" * 24, f"{id}.{at}.".encode() + request.body, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(mark).decode()
    assert abs(int(at) - time.time()) < 60
    assert (event["specversion"], event["id"], event["subject"]) == ("1.0", id, "in/a.jpg")
    assert event["type"] == "io.syncagent.item.created"
    item = event["data"]["item"]
    assert (item["id"], item["filename"], item["metadata"]["system"]["size"]) == (
        event["data"]["itemId"],
        "/in/a.jpg",
        1,
    )


def test_what_people_do_is_told_too(world: World) -> None:
    world.put("a")
    world.of.settle("a")
    catalog = world.agent.catalog
    assert isinstance(catalog, SqlCatalog)
    item = catalog.item(world.dataset.id, "a")
    Items(catalog).rename(item.id, "z", by="somebody")
    Items(catalog).dismiss(item.id, by="somebody")
    tell(world, 3)
    assert world.heard() == [("created", "a", None), ("moved", "z", "a"), ("removed", "z", None)]


def test_what_was_not_heard_is_told_again_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FIRST_PAUSE", 0)
    answers = iter(
        [(500, {}, b""), DROP, (302, {"Location": "/elsewhere"}, b""), (429, {"Retry-After": "0"}, b"")]
    )
    acknowledged: list[str] = []

    def reply(request: Request) -> Any:
        answer = next(answers, (200, {}, b"ok"))
        if answer[0] == 200:
            acknowledged.append(World.event(request)["type"].rpartition(".")[2])
        return answer

    world.receiver.reply = reply
    for body in (b"1", b"2", b"3"):
        world.put("a", body)
        world.of.settle("a")
    world.driver.delete("a")
    world.of.settle("a")
    tell(world, 8)
    assert acknowledged == ["created", "updated", "updated", "removed"]
    assert not any(request.path == "/elsewhere" for request in world.receiver.requests)
    assert world.webhooks.get(world.dataset.name).failures == 0


def test_a_webhook_that_fails_rests_and_is_given_up_after_three_days(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.receiver.always((503, {}, b""))
    world.put("a")
    world.of.settle("a")
    counts: list[tuple[str, str, int]] = []
    teller = Teller(world.webhooks, count=lambda *told: counts.append(told))
    teller.start()
    until(lambda: world.webhooks.get(world.dataset.name).failures == 1)
    time.sleep(0.3)
    assert len(world.receiver.requests) == 1, "it rests"
    assert teller.stop(10)
    assert world.webhooks.get(world.dataset.name).error == "the webhook answers 503"
    monkeypatch.setattr(outbox, "_KEPT_SECONDS", -10)
    world.webhooks.put(world.dataset.name, f"{world.receiver.url}/hook", SECRET, private=True)
    teller = Teller(world.webhooks, count=lambda *told: counts.append(told))
    teller.start()
    until(lambda: world.webhooks.get(world.dataset.name).dropped == 1)
    assert teller.stop(10)
    assert world.waiting() == 0
    assert (world.dataset.name, "dropped", 1) in counts
    assert "given up" in caplog.text
    assert "private" not in caplog.text, "a URL's query may hold a token"


def test_two_tellers_tell_each_event_once(world: World) -> None:
    for n in range(300):
        world.put(f"{n:03}")
    world.of.sweep()
    one, other = Teller(world.webhooks), Teller(world.webhooks)
    one.start()
    other.start()
    until(lambda: world.waiting() == 0)
    assert one.stop(10)
    assert other.stop(10)
    assert len(world.receiver.requests) == len(world.heard()) == 300


def test_a_kill_after_the_settle_loses_no_event(tmp_path: Path) -> None:
    """The event is written with the item: whoever comes next tells it."""
    (tmp_path / "photos").mkdir()
    catalog = url_of(tmp_path / "c.db")
    script = f"""
import os
from syncagent.agent import Agent
from syncagent.config import load
with Agent(load(catalog={catalog!r})) as agent:
    dataset = agent.resolve({str(tmp_path / "photos")!r}, name="photos", create=True)
    agent.webhooks().put("photos", "https://example.com/", {SECRET!r})
    open({str(tmp_path / "photos/a.jpg")!r}, "w").close()
    agent.reconciler(dataset).settle("a.jpg")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    with Agent(load(catalog=catalog)) as agent:
        webhooks = agent.webhooks()
        assert webhooks is not None
        (telling,) = webhooks.take("photos", 10)
        assert (telling.what, telling.key) == ("created", "a.jpg")
        assert webhooks.take("photos", 10) == [], "taken"


def test_an_event_that_is_refused_holds_up_its_own_item_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_FIRST_PAUSE", 60)
    world.receiver.reply = lambda request: (400 if world.event(request)["subject"] == "bad" else 200, {}, b"")
    for key in ("bad", *(f"{n:02}" for n in range(40))):
        world.put(key)
    world.of.sweep()
    world.put("bad", b"other")
    world.of.settle("bad")
    teller = Teller(world.webhooks)
    teller.start()
    until(lambda: world.waiting() == 2)
    assert teller.stop(10)
    asked = [world.event(request)["subject"] for request in world.receiver.requests]
    assert asked.count("bad") == 1, "the second waits for the first, and that rests"
    assert len(asked) == 41
    hook = world.webhooks.get(world.dataset.name)
    assert (hook.failures, hook.error) == (0, "the webhook answers 400")
    monkeypatch.setattr(outbox, "_KEPT_SECONDS", -10)
    catalog = world.agent.catalog
    assert isinstance(catalog, SqlCatalog)
    catalog.db.change_sql("UPDATE outbox SET retry_at = 0")
    teller = Teller(world.webhooks)
    teller.start()
    until(lambda: world.webhooks.get(world.dataset.name).dropped == 2)
    assert teller.stop(10)


def test_one_webhook_that_cannot_be_told_keeps_no_other_waiting(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sealed with another key, one whose server drips its answer, one whose host is no name."""
    monkeypatch.setattr(outbox, "_TURN_SECONDS", 0.5)
    monkeypatch.setattr(outbox, "_TIMEOUT", 0.5)
    catalog = world.agent.catalog
    assert isinstance(catalog, SqlCatalog)
    sock = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection, _ = sock.accept()
                threading.Thread(target=trickle, args=(connection,), daemon=True).start()

    def trickle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.1):
                connection.sendall(b"x")

    threading.Thread(target=drip, daemon=True).start()
    urls = {"a-seal": "https://example.com/", "b-drip": f"http://127.0.0.1:{sock.getsockname()[1]}/", "c-host": "https://b\u00fccher.invalid/"}  # fmt: skip
    for name, url in urls.items():
        dataset = catalog.ensure_dataset(
            name, DriverSpec(type="memory", bucket=f"{tmp_path}{name}", name=name)
        )
        world.webhooks.put(name, url, SECRET, private=True)
        catalog.settle(dataset.id, "x", ObjectInfo("x", "1", 1, "2026-01-01T00:00:00Z"), expect_rev=0)
    number = catalog.source(catalog.dataset("a-seal").id)["dataset"]
    broken = {"dataset": number, "url": "http://127.0.0.1:1", "sealed": b"\0", "private": 1, "now": 0}
    catalog.db.change("put_webhook", broken)
    teller = Teller(world.webhooks)
    teller.start()
    world.put("a")
    world.of.settle("a")
    until(lambda: world.heard() == [("created", "a", None)])
    until(lambda: all(world.webhooks.get(name).failures for name in urls), 20)
    assert "does not end its answers" in str(world.webhooks.get("b-drip").error)
    assert all(world.webhooks.get(name).waiting == 1 for name in urls), "nothing is lost"
    assert teller.stop(10)
    ended.set()
    sock.close()


def test_a_move_that_was_told_as_new_is_told_as_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("old", b"same")
    world.of.sweep()
    tell(world, 1)
    world.driver.delete("old")
    world.put("new", b"same")
    real = world.agent.catalog.pair_moves

    def told_meanwhile(run: int) -> int:
        tell(world, 2)
        return real(run)

    monkeypatch.setattr(world.agent.catalog, "pair_moves", told_meanwhile)
    world.of.sweep(max_deletes=10)
    tell(world, 4)
    events = [world.event(request) for request in world.receiver.requests]
    told = {(event["type"].rpartition(".")[2], event["subject"], event["data"]["itemId"]) for event in events}
    kept = next(item for what, key, item in told if (what, key) == ("created", "old"))
    phantom = next(item for what, key, item in told if (what, key) == ("created", "new"))
    assert told == {
        ("created", "old", kept), ("created", "new", phantom), ("removed", "new", phantom), ("moved", "new", kept),
    }  # fmt: skip


def test_without_a_webhook_nothing_is_kept(world: World) -> None:
    world.webhooks.remove(world.dataset.name)
    world.put("a")
    world.of.sweep()
    catalog = world.agent.catalog
    assert isinstance(catalog, SqlCatalog)
    assert catalog.db.sql("SELECT count(*) FROM outbox") == [(0,)]
    with pytest.raises(NotFound):
        world.webhooks.remove(world.dataset.name)
    with pytest.raises(NotFound):
        world.webhooks.get(world.dataset.name)


def test_new_rows_pay_for_being_told_only_while_somebody_listens(tmp_path: Path) -> None:
    def triggers() -> set[str]:
        with contextlib.closing(sqlite3.connect(tmp_path / "c.db")) as db:
            return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Agent(load(catalog=f"sqlite:///{tmp_path / 'c.db'}")) as agent,
        SqliteCatalog(tmp_path / "c.db") as other,
    ):
        webhooks = agent.webhooks()
        assert webhooks is not None
        datasets = [agent.resolve(str(tmp_path / name), name=name, create=True) for name in ("one", "two")]
        assert other.insert_new(datasets[0].id, [info("before")], run=1) == []
        assert "item_created" not in triggers()
        webhooks.put("one", "https://example.com/", SECRET)
        webhooks.put("two", "https://example.com/", SECRET)
        webhooks.remove("one")
        assert "item_created" in triggers()
        for dataset in datasets:  # a connection that was there before, and has its statements ready
            assert other.insert_new(dataset.id, [info("after")], run=1) == []
        assert [one.key for one in webhooks.take("two", 10)] == ["after"]
        webhooks.remove("two")
        assert "item_created" not in triggers()
        webhooks.put("two", "https://example.com/", SECRET)
        other.remove_dataset("two")
        assert "item_created" not in triggers(), "it took its webhook along"


def test_a_catalog_with_webhooks_goes_on_telling_when_it_is_migrated(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with Agent(load(catalog=f"sqlite:///{tmp_path / 'c.db'}")) as agent:
        agent.resolve(str(tmp_path / "one"), name="one", create=True)
        webhooks = agent.webhooks()
        assert webhooks is not None
        webhooks.put("one", "https://example.com/", SECRET)
    with contextlib.closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as db:
        db.execute("PRAGMA user_version=9")
        (before,) = re.findall(r"CREATE TRIGGER item_created.*?END;", migrations()[5], re.DOTALL)
        db.execute("DROP TRIGGER item_created")
        db.execute(before)
    with Agent(load(catalog=f"sqlite:///{tmp_path / 'c.db'}")) as agent:
        (dataset,) = agent.catalog.datasets()
        agent.catalog.insert_new(dataset.id, [info("k")], run=1)
        webhooks = agent.webhooks()
        assert webhooks is not None
        assert [one.key for one in webhooks.take("one", 10)] == ["k"]


def test_a_dataset_that_goes_takes_its_webhook_along(world: World) -> None:
    world.put("a")
    world.of.sweep()
    world.agent.catalog.remove_dataset(world.dataset.name)
    assert world.webhooks.all() == []
    catalog = world.agent.catalog
    assert isinstance(catalog, SqlCatalog)
    assert catalog.db.sql("SELECT count(*) FROM outbox") == [(0,)]


def test_a_private_address_is_not_told_unless_allowed(world: World) -> None:
    import httpx

    world.put("a")
    world.of.settle("a")
    world.webhooks.put(world.dataset.name, world.receiver.url, SECRET, private=False)
    hook = world.webhooks.get(world.dataset.name)
    (telling,) = world.webhooks.take(world.dataset.name, 1)
    with httpx.Client() as client, pytest.raises(Refused):
        post(client, hook, SECRET, event_of(telling, "x"))
    assert world.receiver.requests == []


def test_secrets_are_made_checked_and_never_shown(world: World, tmp_path: Path) -> None:
    assert len(key_of(new_secret())) == 24
    for wrong in ("", "whsec_", "whsec_???", "secret", "whsec_" + base64.b64encode(b"short").decode()):
        with pytest.raises(InvalidInput) as told:
            key_of(wrong)
        assert not wrong or wrong not in str(told.value) or wrong in {"whsec_", "secret"}
    hook = world.webhooks.get(world.dataset.name)
    assert SECRET not in repr(hook)
    assert world.webhooks.secret(hook) == SECRET
    assert isinstance(world.agent.catalog, SqlCatalog)
    ((sealed,),) = world.agent.catalog.db.sql("SELECT sealed FROM webhook")
    assert SECRET.encode() not in sealed
    (tmp_path / "secret").write_text(SECRET)
    world.webhooks.put(
        world.dataset.name, f"{world.receiver.url}/hook", f"file://{tmp_path / 'secret'}", private=True
    )
    world.put("a")
    world.of.settle("a")
    tell(world, 1)
    (request,) = world.receiver.requests
    id, at = request.headers["webhook-id"], int(request.headers["webhook-timestamp"])
    assert request.headers["webhook-signature"] == signed(SECRET, id, at, request.body)["webhook-signature"]
