"""The change feed as a queue, over Azurite: a feed is a container like others."""

from __future__ import annotations

import gc
import io
import json
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from syncagent.agent import Agent
from syncagent.config import load
from syncagent.drivers.azure_feed import ChangeFeedQueue
from syncagent.drivers.queues import Queue, open_queue
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.handlers.azure_events import parse
from syncagent.model import Integration
from tests.rigs.azure import AzureRig
from tests.rigs.catalogs import url_of
from tests.rigs.fake_http import FakeHttp

# As the vendor gives it, as far as we read it:
# https://learn.microsoft.com/azure/storage/blobs/storage-blob-change-feed#event-record-schemas
SCHEMA = fastavro.parse_schema(
    {
        "type": "record", "name": "BlobChangeEvent",
        "fields": [
            {"name": "schemaVersion", "type": "int"}, {"name": "topic", "type": "string"},
            {"name": "subject", "type": "string"},
            {"name": "eventType", "type": {"type": "enum", "name": "kind", "symbols": ["BlobCreated", "BlobDeleted", "Control"]}},
            {"name": "eventTime", "type": "string"}, {"name": "id", "type": "string"},
            {"name": "data", "type": {"type": "record", "name": "data", "fields": [
                {"name": "api", "type": "string"}, {"name": "contentLength", "type": "long"}, {"name": "url", "type": "string"}]}},
        ],
    }
)  # fmt: skip


class Feed:
    """What Azure would write."""

    def __init__(self, rig: AzureRig) -> None:
        self.rig = rig
        self.name = f"feed-{uuid.uuid4().hex[:16]}"
        self.container = rig.service.create_container(self.name)
        self.chunks: dict[str, list[dict[str, Any]]] = {}
        self.put("idx/segments/1601/01/01/0000/meta.json", {"chunkFilePaths": [], "status": "Finalized"})

    def put(self, name: str, told: Any) -> None:
        self.container.upload_blob(name, json.dumps(told).encode(), overwrite=True)

    def consumable(self, hour: int) -> None:
        self.put("meta/segments.json", {"version": 0, "lastConsumable": f"2026-11-25T{hour:02}:00:00.000Z"})

    def segment(self, hour: int, *, status: str = "Finalized", shards: int = 1) -> None:
        paths = [f"$blobchangefeed/log/{shard:02}/2026/11/25/{hour:02}00/" for shard in range(shards)]
        told = {
            "version": 0,
            "begin": f"2026-11-25T{hour:02}:00:00Z",
            "status": status,
            "chunkFilePaths": paths,
        }
        self.put(f"idx/segments/2026/11/25/{hour:02}00/meta.json", told)

    def write(self, hour: int, *keys: str, shard: int = 0, chunk: int = 0, kind: str = "BlobCreated") -> None:
        name = f"log/{shard:02}/2026/11/25/{hour:02}00/{chunk:05}.avro"
        records = self.chunks.setdefault(name, [])
        records += [
            {
                "schemaVersion": 1, "id": str(uuid.uuid4()), "eventType": kind, "eventTime": "2026-11-25T00:00:00.1234567Z",
                "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1",
                "subject": f"/blobServices/default/containers/box/blobs/{key}",
                "data": {"api": "PutBlob", "contentLength": 3, "url": ""},
            }
            for key in keys
        ]  # fmt: skip
        out = io.BytesIO()
        fastavro.writer(out, SCHEMA, records)
        self.container.upload_blob(name, out.getvalue(), overwrite=True)

    def url(self, **options: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"azfeed://devstoreaccount1?endpoint={self.rig.endpoint}&container={self.name}&every=0{more}"

    def open(self, **options: str) -> Queue:
        return open_queue(self.url(**options), self.rig.integration)


@pytest.fixture
def feed(azure_rig: AzureRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    made = Feed(azure_rig)
    yield made
    made.container.close()


def keys(queue: Queue, *, delete: bool = True, most: int = 1000) -> list[str]:
    messages = queue.receive(most, 0)
    found = [event.key for one in messages for event in parse(one.body).events]
    if delete:
        queue.delete(messages)
    return found


def test_a_feed_is_read_from_its_newest_hour_on(feed: Feed) -> None:
    for hour in (9, 10, 11):
        feed.segment(hour, shards=2)
        feed.write(hour, f"a{hour}", f"b{hour}")
        feed.write(hour, f"c{hour}", shard=1)
    feed.consumable(10)
    queue = feed.open()
    assert keys(queue) == ["a10", "b10", "c10"], "older hours are a sweep's, and the newest is not complete"
    assert keys(queue) == []
    feed.write(10, "d10", kind="BlobDeleted")  # a chunk grows
    feed.write(10, "e10", chunk=1)
    feed.write(10, "x", kind="Control")
    assert keys(queue) == ["d10", "e10"]
    feed.consumable(11)
    assert keys(queue) == ["a11", "b11", "c11"]
    queue.close()


def test_what_is_done_is_not_read_again_by_the_next_process(feed: Feed) -> None:
    feed.segment(10)
    feed.write(10, *"abcdef")
    feed.consumable(10)
    queue = feed.open()
    messages = queue.receive(3, 0)
    queue.delete(messages[:2])
    queue.delete(messages[2:])
    queue.receive(2, 0)
    queue.close()
    again = feed.open()
    assert keys(again) == ["d", "e", "f"], "what was read and not done comes again"
    feed.segment(11)
    feed.write(11, "g")
    feed.consumable(11)
    assert keys(again, delete=False) == ["g"]
    again.close()
    last = feed.open()
    assert keys(last) == ["g"]
    assert keys(last) == []
    last.close()


def test_done_out_of_order_loses_nothing(feed: Feed) -> None:
    feed.segment(10)
    feed.write(10, *"abc")
    feed.consumable(10)
    queue = feed.open()
    messages = queue.receive(10, 0)
    queue.delete(messages[1:])
    queue.close()
    again = feed.open()
    assert keys(again) == ["a", "b", "c"], "at least once"
    again.close()


def test_a_message_that_was_released_comes_again(feed: Feed) -> None:
    feed.segment(10)
    feed.write(10, "a")
    feed.consumable(10)
    queue = feed.open()
    (first,) = queue.receive(10, 0)
    assert queue.receive(10, 0) == []
    queue.release([first])
    (second,) = queue.receive(10, 0)
    assert (second.id, second.attempts) == (first.id, 2)
    assert (queue.depth().waiting, queue.depth().in_flight) == (0, 1)
    queue.close()


def test_a_feed_larger_than_memory_comes_in_parts(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncagent.drivers.azure_feed._MOST_KEPT", 10)
    feed.segment(10)
    feed.write(10, *(f"{n:02}" for n in range(25)))
    feed.consumable(10)
    queue = feed.open()
    found: list[str] = []
    for _ in range(4):
        part = keys(queue)
        assert len(part) <= 10
        found += part
    assert found == [f"{n:02}" for n in range(25)]
    queue.close()


def test_a_full_feed_asks_for_nothing_more(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncagent.drivers.azure_feed._MOST_KEPT", 10)
    feed.segment(10)
    feed.write(10, *(f"{n:02}" for n in range(25)))
    feed.consumable(10)
    queue = feed.open()
    first = queue.receive(1000, 0)
    looked: list[int] = []
    monkeypatch.setattr(type(queue), "_json", lambda *_: looked.append(1))
    assert [queue.receive(1000, 0) for _ in range(5)] == [[]] * 5
    assert (len(first), looked) == (10, [])
    queue.close()


def test_an_hour_that_has_left_the_feed_is_left(feed: Feed) -> None:
    feed.segment(9)
    feed.write(9, "lost")
    feed.consumable(9)
    queue = feed.open()
    queue.receive(10, 0)
    queue.close()
    feed.container.delete_blob("idx/segments/2026/11/25/0900/meta.json")
    for hour in (11, 12):
        feed.segment(hour)
        feed.write(hour, f"a{hour}")
    feed.consumable(12)
    again = feed.open()
    assert keys(again) == ["a11", "a12"]
    assert isinstance(again, ChangeFeedQueue)
    assert again._position.segment == "idx/segments/2026/11/25/1200/meta.json"
    again.close()


def test_a_position_that_cannot_be_kept_is_told(feed: Feed, tmp_path: Path) -> None:
    feed.segment(10)
    feed.write(10, "a")
    feed.consumable(10)
    queue = feed.open()
    assert isinstance(queue, ChangeFeedQueue)
    messages = queue.receive(10, 0)
    queue._position._saved_at = float("-inf")
    (tmp_path / "home/change-feeds").rename(tmp_path / "home/elsewhere")
    (tmp_path / "home/change-feeds").write_text("no folder")
    with pytest.raises(Transient, match="cannot be written"):
        queue.delete(messages)
    (tmp_path / "home/change-feeds").unlink()
    queue.close()


def test_a_damaged_position_is_none(feed: Feed, tmp_path: Path) -> None:
    feed.segment(10)
    feed.write(10, "a")
    feed.consumable(10)
    queue = feed.open()
    assert keys(queue) == ["a"]
    queue.close()
    (file,) = (tmp_path / "home/change-feeds").iterdir()
    for damage in ("", "{}", "[]", '{"segment": 1, "chunks": 2}'):
        file.write_text(damage)
        queue = feed.open()
        assert keys(queue) == ["a"]
        queue.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFound), (403, AccessDenied), (503, Transient), (400, SyncAgentError)],
)
def test_what_azure_answers_is_told_in_our_words(
    status: int, error: type[SyncAgentError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with FakeHttp(lambda _: (status, {}, b"")) as fake:
        queue = open_queue(
            f"azfeed://acc?endpoint={fake.url}/acc", Integration("t", "azureblob", {"accountKey": "a2V5"})
        )
        with pytest.raises(error) as told:
            queue.receive(1, 0)
        assert type(told.value) is error
        queue.close()
    # The SDK keeps the connection of each answer that it tries again, until it is collected: here, and not in another test.
    del told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_a_damaged_feed_is_told(feed: Feed) -> None:
    queue = feed.open()
    feed.put("meta/segments.json", {"lastConsumable": "soon"})
    with pytest.raises(SyncAgentError, match="is damaged"):
        queue.receive(1, 0)
    feed.segment(10)
    feed.consumable(10)
    feed.container.upload_blob("log/00/2026/11/25/1000/00000.avro", b"no avro")
    with pytest.raises(SyncAgentError, match="is damaged"):
        queue.receive(1, 0)
    queue.close()
    for url, said in (("azfeed://acc/box", "names no account"), ("azfeed://acc?every=x", "every=x")):
        with pytest.raises(ConfigError, match=said):
            open_queue(url)


def test_the_feed_keeps_a_catalog_equal(feed: Feed, azure_rig: AzureRig, tmp_path: Path) -> None:
    from tests.integration.test_daemon import running, settings_of, until

    store = azure_rig.store(
        "azure", "box" if "box" not in [c.name for c in azure_rig.service.list_containers()] else "box2"
    )
    feed.segment(10, status="Publishing")
    feed.consumable(10)
    catalog = url_of(tmp_path / "catalog.db")
    with Agent(load(catalog=catalog)) as agent, store.open() as bucket:
        agent.catalog.create_integration(azure_rig.integration)
        dataset = agent.resolve(store.url, name="box", integration="test", create=True)
        with running(
            settings_of(catalog, {"box": {"queue": feed.url(), "integration": "test", "sweep": "off"}})
        ):
            bucket.put("a", io.BytesIO(b"x"))
            feed.write(10, "a")
            until(lambda: [item.key for item in agent.catalog.items(dataset.id)] == ["a"])
            bucket.driver.delete("a")
            feed.write(10, "a", kind="BlobDeleted")
            until(lambda: not list(agent.catalog.items(dataset.id)))
