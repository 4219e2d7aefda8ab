"""The daemon, end to end: buckets' events through real queues into the catalog, and what happens when something breaks."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from syncagent.agent import Agent
from syncagent.catalog.rest import Session
from syncagent.config import Settings, load
from syncagent.daemon import service
from syncagent.daemon.metrics import Metrics
from syncagent.daemon.service import Daemon
from syncagent.drivers import open_bucket
from syncagent.errors import ConfigError, NotFound, SyncAgentError, Transient
from syncagent.handlers.deliveries import Taken
from tests.rigs.azure import DEV_KEY, AzureRig
from tests.rigs.between import Between
from tests.rigs.catalogs import url_of
from tests.rigs.fake_http import DROP, Answer, Request
from tests.rigs.gcs import GcsRig
from tests.rigs.ministack import KEYS, AwsRig
from tests.rigs.pubsub import PubSub
from tests.rigs.s3 import S3Rig
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

TOKEN = "a token of the tests"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))


def until(told: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `told` gives, once that is true."""
    end = time.monotonic() + seconds
    while not (found := told()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
    return found


class Running:
    """A daemon that runs in a thread."""

    def __init__(self, daemon: Daemon, address: str) -> None:
        self.daemon, self.address = daemon, address

    def get(self, path: str, token: str | None = TOKEN) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"http://{self.address}{path}", headers=headers)

    def figure(self, name: str, **labels: str) -> float:
        """A metric's value; 0 where it was never told."""
        return self.daemon.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.contextmanager
def running(settings: Settings | Callable[[], Settings]) -> Iterator[Running]:
    daemon = Daemon(settings if callable(settings) else lambda: settings)
    ready, errors = threading.Event(), []
    address: list[str] = []

    def work() -> None:
        try:
            daemon.run(lambda told: (address.append(told or ""), ready.set()))  # type: ignore[func-returns-value]
        except BaseException as error:
            errors.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(20)
        if errors:
            raise errors[0]
        yield Running(daemon, address[0])
    finally:
        daemon.stop()
        thread.join(60)
        assert not thread.is_alive()


def settings_of(catalog: str, datasets: dict[str, dict[str, Any]], **run: Any) -> Settings:
    told = {"listen": "127.0.0.1:0", "token": TOKEN, "poll": 1, "drain": 10, **run}
    return load(catalog=catalog, datasets=datasets, run=told)


class Place:
    """A bucket at an AWS, wired to a queue, and the dataset that mirrors it."""

    def __init__(self, agent: Agent, client: Any, endpoint: str, name: str, queue: str) -> None:
        self.agent, self.client, self.name, self.queue = agent, client, name, queue
        self.url = f"s3://{name}?endpoint={endpoint}&region=us-east-1"
        self.dataset = agent.resolve(self.url, name=name, create=True)

    def put(self, *keys: str, body: bytes = b"x") -> None:
        for key in keys:
            self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def keys(self) -> list[str]:
        return sorted(item.key for item in self.agent.catalog.items(self.dataset.id))

    def equal(self) -> bool:
        """Whether catalog and bucket are."""
        with open_bucket(self.url) as bucket:
            found = {one.key: one.fingerprint for page in bucket.list() for one in page}
        rows = {row.key: row.fingerprint for row in self.agent.catalog.scan(self.dataset.id)}
        return found == {key: stamp for key, stamp in rows.items() if stamp is not None}


@pytest.fixture(params=["sqlite", "served"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sqlite":
        return url_of(tmp_path / "catalog.db")
    server: ServerRig = request.getfixturevalue("server_rig")
    monkeypatch.setenv("DTLPY_USERNAME", EMAIL)
    monkeypatch.setenv("DTLPY_PASSWORD", PASSWORD)
    return f"dataloop+{server.url}"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return url_of(tmp_path / "catalog.db")


@pytest.fixture
def agent(catalog: str) -> Iterator[Agent]:
    with Agent(load(catalog=catalog)) as made:
        yield made


@pytest.fixture(params=["ministack", "ministack-versioned", "moto"])
def aws(request: pytest.FixtureRequest, agent: Agent) -> Place:
    """Both AWS emulators: moto's events have no sequencer, no version and no delete markers."""
    if request.param == "moto":
        rig: S3Rig = request.getfixturevalue("s3_rig")
        name = f"test-{uuid.uuid4().hex[:20]}"
        rig.client.create_bucket(Bucket=name)
        sqs = boto3.client("sqs", endpoint_url=rig.endpoint, **KEYS)
        queue = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sqs.close()
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        rig.client.put_bucket_notification_configuration(
            Bucket=name,
            NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": events}]},
        )
        return Place(
            agent,
            rig.client,
            rig.endpoint,
            name,
            f"sqs://{name}?endpoint={rig.endpoint}&region=us-east-1&hold=30",
        )
    other: AwsRig = request.getfixturevalue("aws_rig")
    name, queue = other.wired(versioned=request.param.endswith("versioned"))
    return Place(agent, other.s3, other.endpoint, name, other.queue_url(queue))


def test_what_happens_in_s3_is_in_the_catalog(aws: Place, catalog: str) -> None:
    aws.put("before")
    with running(settings_of(catalog, {aws.name: {"queue": aws.queue, "sweep": "off"}})) as run:
        until(lambda: aws.keys() == ["before"])
        aws.put("a b+c", "in/ö", "gone")
        aws.put("a b+c", body=b"other bytes")
        aws.client.copy_object(Bucket=aws.name, Key="copy", CopySource={"Bucket": aws.name, "Key": "in/ö"})
        upload = aws.client.create_multipart_upload(Bucket=aws.name, Key="large")["UploadId"]
        part = aws.client.upload_part(
            Bucket=aws.name, Key="large", UploadId=upload, PartNumber=1, Body=b"x" * 1000
        )
        aws.client.complete_multipart_upload(
            Bucket=aws.name, Key="large", UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )  # fmt: skip
        aws.client.delete_object(Bucket=aws.name, Key="gone")
        until(lambda: aws.keys() == ["a b+c", "before", "copy", "in/ö", "large"] and aws.equal())
        until(lambda: run.figure("syncagent_queue_held", queue=aws.queue) == 0)
        assert run.figure("syncagent_messages_total", queue=aws.queue, result="done") >= 8
        told = run.get("/status").json()
        assert told["ready"]
        assert aws.queue in told["queues"]


# -- the other clouds ----------------------------------------------------------------------------


def test_what_happens_in_gcs_is_in_the_catalog(
    sqlite: str, gcs_rig: GcsRig, pubsub_rig: PubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{pubsub_rig.port}")
    name = f"test-{uuid.uuid4().hex[:20]}"
    url = gcs_rig.store("gcs", name).url
    queue = pubsub_rig.create(name)

    def tell(kind: str, key: str, **more: str) -> None:
        told = {"eventType": kind, "bucketId": name, "objectId": key, "payloadFormat": "NONE", **more}
        for _ in range(2):  # at least once
            pubsub_rig.publish(name, b"", {**told, "eventTime": "2026-11-25T00:00:00Z"})

    with Agent(load(catalog=sqlite)) as agent, open_bucket(f"{url}&allow_delete=yes") as bucket:
        dataset = agent.resolve(url, name=name, create=True)

        def keys() -> list[str]:
            return [item.key for item in agent.catalog.items(dataset.id)]

        with running(settings_of(sqlite, {name: {"queue": queue, "sweep": "off"}})) as run:
            for key in ("in/a b", "ö", "gone"):
                bucket.put(key, io.BytesIO(b"x"))
                tell("OBJECT_FINALIZE", key)
            bucket.put("ö", io.BytesIO(b"other"))
            tell("OBJECT_DELETE", "ö", overwrittenByGeneration="2")  # of the old generation
            tell("OBJECT_FINALIZE", "ö", overwroteGeneration="1")
            bucket.delete("gone")
            tell("OBJECT_DELETE", "gone")
            until(lambda: run.figure("syncagent_messages_total", queue=queue, result="done") >= 12)
            assert keys() == ["in/a b", "ö"]
            assert list(agent.reconciler(dataset).check()) == []


def test_what_happens_in_azure_is_in_the_catalog(sqlite: str, azure_rig: AzureRig) -> None:
    from azure.storage.queue import QueueClient

    name = f"test-{uuid.uuid4().hex[:20]}"
    store = azure_rig.store("azure", name)
    credential = {"account_name": "devstoreaccount1", "account_key": DEV_KEY}
    client = QueueClient(azure_rig.queues, name, credential=credential)
    client.create_queue()
    queue = f"azqueue://devstoreaccount1/{name}?endpoint={azure_rig.queues}"

    def tell(kind: str, key: str) -> None:
        told = {
            "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1",
            "subject": f"/blobServices/default/containers/{name}/blobs/{key}", "eventType": f"Microsoft.Storage.{kind}",
            "id": "1", "data": {"url": "https://devstoreaccount1.blob.core.windows.net/x"},
        }  # fmt: skip
        client.send_message(base64.b64encode(json.dumps(told).encode()).decode())

    with Agent(load(catalog=sqlite)) as agent, store.open() as bucket:
        agent.catalog.create_integration(azure_rig.integration)
        dataset = agent.resolve(store.url, name=name, integration="test", create=True)
        with running(
            settings_of(sqlite, {name: {"queue": queue, "integration": "test", "sweep": "off"}})
        ) as run:
            for key in ("dir/a b", "dir/ö", "dirt"):
                bucket.put(key, io.BytesIO(b"x"))
                tell("BlobCreated", key)
            until(lambda: run.figure("syncagent_messages_total", queue=queue, result="done") == 3)
            for key in ("dir/a b", "dir/ö"):
                bucket.driver.delete(key)
            tell("DirectoryDeleted", "dir")
            until(lambda: run.figure("syncagent_messages_total", queue=queue, result="done") == 4)
            assert [item.key for item in agent.catalog.items(dataset.id)] == ["dirt"]
    client.close()


def test_what_happens_in_a_watched_folder_is_in_the_catalog(sqlite: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Agent(load(catalog=sqlite)) as agent:
        dataset = agent.resolve(str(folder), name="photos", create=True)
        with running(settings_of(sqlite, {"photos": {"queue": f"watch://{folder}", "sweep": "off"}})) as run:
            until(lambda: run.get("/healthz/ready", None).status_code == 200)

            def keys() -> list[str]:
                return [item.key for item in agent.catalog.items(dataset.id)]

            (folder / "a.jpg").write_bytes(b"x")
            (folder / "in").mkdir()
            (folder / "in" / "b.jpg").write_bytes(b"x")
            until(lambda: keys() == ["a.jpg", "in/b.jpg"])
            (folder / "in").rename(folder / "out")
            (folder / "a.jpg").unlink()
            until(lambda: keys() == ["out/b.jpg"])


def test_what_happened_while_nobody_watched_is_found_at_the_start(sqlite: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Agent(load(catalog=sqlite)) as agent:
        dataset = agent.resolve(str(folder), name="photos", create=True)

        def keys() -> list[str]:
            return sorted(item.key for item in agent.catalog.items(dataset.id))

        settings = settings_of(sqlite, {"photos": {"queue": f"watch://{folder}", "sweep": "24h"}})
        with running(settings):
            (folder / "a.jpg").write_bytes(b"a")
            until(lambda: keys() == ["a.jpg"])
            until(lambda: "done" in [run.state for run in agent.catalog.runs(dataset.id)])
        (folder / "b.jpg").write_bytes(b"b")
        with running(settings) as run:
            until(lambda: keys() == ["a.jpg", "b.jpg"])
            until(lambda: run.figure("syncagent_sweeps_total", dataset="photos", state="done") >= 1)
            before = run.figure("syncagent_sweeps_total", dataset="photos", state="done")
            (folder / "c.jpg").write_bytes(b"c")
            until(lambda: keys() == ["a.jpg", "b.jpg", "c.jpg"])
            # A name that is no text ends the watcher: it begins anew, and what it missed is swept.
            (Path(os.fsdecode(os.fsencode(folder) + b"/bad-\xff.txt"))).write_bytes(b"")
            until(lambda: run.figure("syncagent_sweeps_total", dataset="photos", state="done") > before)
            (folder / "d.jpg").write_bytes(b"d")
            until(lambda: "d.jpg" in keys())


def test_a_renamed_file_keeps_its_item_and_its_metadata(sqlite: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.jpg").write_bytes(b"some bytes")
    with Agent(load(catalog=sqlite)) as agent:
        dataset = agent.resolve(str(folder), name="photos", create=True)
        agent.reconciler(dataset).sweep()
        agent.catalog.set_user_metadata(dataset.id, "in/a.jpg", {"person": "alice"})
        item = agent.catalog.item(dataset.id, "in/a.jpg").id
        with running(settings_of(sqlite, {"photos": {"queue": f"watch://{folder}", "sweep": "off"}})) as run:
            until(lambda: run.get("/healthz/ready", None).status_code == 200)
            (folder / "in" / "a.jpg").rename(folder / "in" / "b.jpg")
            until(lambda: [one.key for one in agent.catalog.items(dataset.id)] == ["in/b.jpg"])
            until(lambda: agent.catalog.item(dataset.id, "in/b.jpg").user == {"person": "alice"})
            assert agent.catalog.item(dataset.id, "in/b.jpg").id == item


def test_the_messages_of_settled_keys_are_gone(aws: Place, catalog: str) -> None:
    from syncagent.drivers.queues import open_queue

    with running(settings_of(catalog, {aws.name: {"queue": aws.queue, "sweep": "off"}})):
        aws.put(*map(str, range(30)))
        until(lambda: len(aws.keys()) == 30)
    queue = open_queue(aws.queue)
    depth = queue.depth()
    queue.close()
    assert (depth.waiting, depth.in_flight) == (0, 0)


# -- faults --------------------------------------------------------------------------------------


@pytest.fixture
def place(sqlite: str, aws_rig: AwsRig) -> Iterator[Place]:
    """A bucket of the second AWS, its queue with a short hold, and the embedded catalog."""
    with Agent(load(catalog=sqlite)) as agent:
        name, queue = aws_rig.wired()
        yield Place(agent, aws_rig.s3, aws_rig.endpoint, name, aws_rig.queue_url(queue, hold=3))


def waiting(queue: str) -> int:
    """Messages that are not deleted."""
    from syncagent.drivers.queues import open_queue

    opened = open_queue(queue)
    depth = opened.depth()
    opened.close()
    return (depth.waiting or 0) + (depth.in_flight or 0)


def send(rig: AwsRig, name: str, body: str) -> None:
    url = rig.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    rig.sqs.send_message(QueueUrl=url, MessageBody=body)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays of a test's patience."""
    monkeypatch.setattr("syncagent.daemon.consumer._FIRST_DELAY", 0.5)
    monkeypatch.setattr("syncagent.daemon.consumer._LONGEST_DELAY", 1.0)
    monkeypatch.setattr("syncagent.daemon.consumer._LONGEST_PAUSE", 0.5)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "drop", "html", "hang"])
def test_a_catalog_that_fails_loses_nothing(
    fault: str, aws_rig: AwsRig, server_rig: ServerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTLPY_USERNAME", EMAIL)
    monkeypatch.setenv("DTLPY_PASSWORD", PASSWORD)
    sessions: list[Session] = []
    real = Session.__init__

    def noted(self: Session, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        sessions.append(self)

    monkeypatch.setattr(Session, "__init__", noted)

    def patience(seconds: float) -> None:
        """Of the daemon: the test's own session is the first."""
        for session in sessions[1:]:
            session._http.timeout = httpx.Timeout(seconds)

    failing = threading.Event()
    answers: dict[str, Answer] = {
        "429": (429, {"Retry-After": "0"}, b"{}"), "500": (500, {}, b"{}"), "503": (503, {}, b""),
        "cut": (200, {"Content-Length": "90"}, b'{"rows": ['), "drop": DROP, "html": (502, {}, b"<html>"),
    }  # fmt: skip
    with Between(server_rig.url) as catalog, Agent(load(catalog=f"dataloop+{server_rig.url}")) as agent:
        name, queue = aws_rig.wired()
        place = Place(agent, aws_rig.s3, aws_rig.endpoint, name, aws_rig.queue_url(queue, hold=3))
        place.put("before")
        settings = settings_of(f"dataloop+{catalog.url}", {name: {"queue": place.queue, "sweep": "off"}})
        with running(settings) as run:
            until(lambda: place.keys() == ["before"])

            def meddle(request: Request) -> Answer | None:
                if failing.is_set() and fault == "hang":
                    time.sleep(0.3)
                return answers.get(fault, DROP) if failing.is_set() else None

            catalog.meddle = meddle
            failing.set()
            patience(0.1 if fault == "hang" else 60.0)
            place.put("a", "b")
            place.client.delete_object(Bucket=name, Key="before")
            until(lambda: run.figure("syncagent_messages_total", queue=place.queue, result="again") > 0, 40)
            failing.clear()
            patience(60.0)
            until(lambda: place.keys() == ["a", "b"], 40)
            until(lambda: waiting(place.queue) == 0, 40)
            assert run.figure("syncagent_dead_letters") == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["denied", "expired", "busy", "drop"])
def test_a_bucket_that_does_not_answer_loses_nothing(
    fault: str, aws_rig: AwsRig, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = b"<Error><Code>%s</Code><Message>m</Message></Error>"
    answers: dict[str, Answer] = {
        "denied": (403, {}, body % b"AccessDenied"), "expired": (400, {}, body % b"ExpiredToken"),
        "busy": (503, {}, body % b"SlowDown"), "drop": DROP,
    }  # fmt: skip
    failing = threading.Event()
    failing.set()

    def meddle(request: Request) -> Answer | None:
        return answers[fault] if failing.is_set() else None

    with Between(aws_rig.endpoint) as between, Agent(load(catalog=sqlite)) as agent:
        between.meddle = meddle
        name, queue = aws_rig.wired()
        place = Place(agent, aws_rig.s3, between.url, name, aws_rig.queue_url(queue, hold=5))
        place.put("a", "b")
        with running(settings_of(sqlite, {name: {"queue": place.queue, "sweep": "off"}})) as run:
            until(lambda: run.figure("syncagent_messages_total", queue=place.queue, result="again") > 0, 60)
            assert place.keys() == []
            until(lambda: "trouble" in run.get("/status").json()["queues"][place.queue])
            failing.clear()
            until(lambda: place.keys() == ["a", "b"], 60)
            until(lambda: waiting(place.queue) == 0)
        assert agent.catalog.quarantined(place.dataset.id) == []


@pytest.mark.usefixtures("quick")
def test_a_message_that_is_no_event_is_kept_and_given_up(
    place: Place, aws_rig: AwsRig, sqlite: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    send(aws_rig, place.name, "this is no event")
    place.put("good")
    settings = settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}}, attempts=3)
    with running(settings) as run:
        until(lambda: run.figure("syncagent_dead_letters") == 1, 40)
        assert place.keys() == ["good"], "it stops nobody else"
        until(lambda: waiting(place.queue) == 0)
    (letter,) = (tmp_path / "home/dead-letters").iterdir()
    told = json.loads(letter.read_text())
    assert (told["body"], told["error"], told["attempts"]) == ("this is no event", "BadEvent", 3)
    (line,) = (one.getMessage() for one in caplog.records if "is given up" in one.getMessage())
    assert line.endswith(f"after 3 deliveries: BadEvent: {told['reason']}")
    assert letter.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("quick")
def test_a_key_that_cannot_be_settled_goes_to_the_quarantine_and_comes_out(
    place: Place, aws_rig: AwsRig, sqlite: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that no store can hold never works. One that does work again leaves the quarantine."""
    impossible = "k" * 2000
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": place.name}, "object": {"key": impossible}}}  # fmt: skip
    send(aws_rig, place.name, json.dumps({"Records": [record]}))
    place.agent.catalog.quarantine(place.dataset.id, "good", SyncAgentError("it was broken"))
    place.put("good")
    settings = settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}}, attempts=2)
    with running(settings) as run:
        until(lambda: run.figure("syncagent_dead_letters") == 1, 40)
        until(lambda: place.keys() == ["good"])
        until(lambda: [one.key for one in place.agent.catalog.quarantined(place.dataset.id)] == [impossible])
    (letter,) = (tmp_path / "home/dead-letters").iterdir()
    assert impossible in letter.read_text()
    assert "is given up after 2 deliveries: InvalidInput: " in caplog.text
    assert impossible not in caplog.text, "no log tells a key"


def test_two_daemons_on_one_queue_do_each_key_once(place: Place, sqlite: str) -> None:
    settings = settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}})
    with running(settings) as one, running(settings) as other:
        keys = [f"{n:03}" for n in range(200)]
        place.put(*keys)
        until(lambda: place.keys() == keys)
        until(lambda: waiting(place.queue) == 0)
        done = [
            run.figure("syncagent_keys_settled_total", source="event", action="added") for run in (one, other)
        ]
        assert sum(done) == 200, "each was added once"
        assert all(done), "and both worked"


class Process:
    """`syncagent run` as a process of its own."""

    def __init__(
        self, folder: Path, catalog: str, place: Place, *, queue: str | None = None, **run: Any
    ) -> None:
        told = {"listen": "127.0.0.1:0", "poll": 1, "drain": 10, **run}
        lines = [
            f'catalog = "{catalog}"',
            "[run]",
            *(f"{name} = {json.dumps(value)}" for name, value in told.items()),
        ]
        lines += [f'[datasets."{place.name}"]', f'queue = "{queue or place.queue}"', 'sweep = "off"']
        self.file = folder / "syncagent.toml"
        self.file.write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "syncagent", "--config", str(self.file), "run"], cwd=folder, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stderr is not None
        self.said: list[str] = []
        self._reader = threading.Thread(
            target=lambda: self.said.extend(self.process.stderr or ()), daemon=True
        )
        self._reader.start()
        until(lambda: any("following" in line for line in self.said) or self.process.poll() is not None)

    def address(self) -> str:
        (line,) = (line for line in self.said if "following" in line)
        return line.split("http://")[1].split("/")[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=40)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def test_a_kill_between_settling_and_deleting_loses_nothing(
    place: Place, aws_rig: AwsRig, sqlite: str, tmp_path: Path
) -> None:
    asked = threading.Event()
    with Between(aws_rig.endpoint) as between:

        def meddle(request: Request) -> Answer | None:
            if b"DeleteMessage" in request.body or "DeleteMessage" in request.headers.get("x-amz-target", ""):
                asked.set()
                return DROP
            return None

        between.meddle = meddle
        queue = place.queue.replace(aws_rig.endpoint, between.url)
        killed = Process(tmp_path, sqlite, place, queue=queue)
        place.put("a", "b")
        assert asked.wait(20), killed.said
        killed.end(signal.SIGKILL)
        before = {item.key: item.id for item in place.agent.catalog.items(place.dataset.id)}
        assert before, "it was settled"
        assert waiting(place.queue) >= 2, "and not deleted"
        between.meddle = lambda _: None
        again = Process(tmp_path, sqlite, place, queue=queue)
        until(lambda: waiting(place.queue) == 0, 30)
        assert again.end() == 0, again.said
        after = {item.key: item.id for item in place.agent.catalog.items(place.dataset.id)}
        assert after.items() >= before.items()
        assert sorted(after) == ["a", "b"], "nothing is lost, nothing twice"


def test_sigterm_drains_and_sighup_reads_the_settings_again(
    place: Place, aws_rig: AwsRig, sqlite: str, tmp_path: Path
) -> None:
    run = Process(tmp_path, sqlite, place)
    try:
        place.put("a")
        until(lambda: place.keys() == ["a"])
        good = run.file.read_text()
        run.file.write_text(good + "\nwrong = 1\n")
        run.process.send_signal(signal.SIGHUP)
        until(lambda: any("the settings are as they were" in line for line in run.said))
        place.put("b")
        until(lambda: place.keys() == ["a", "b"])
        other, queue = aws_rig.wired()
        second = Place(place.agent, aws_rig.s3, aws_rig.endpoint, other, aws_rig.queue_url(queue, hold=3))
        run.file.write_text(f'{good}[datasets."{other}"]\nqueue = "{second.queue}"\nsweep = "off"\n')
        run.process.send_signal(signal.SIGHUP)
        until(lambda: any("the settings were read again" in line for line in run.said))
        second.put("c")
        until(lambda: second.keys() == ["c"])
        token = (tmp_path / "home/run.token").read_text()
        assert (tmp_path / "home/run.token").stat().st_mode & 0o077 == 0
        told = httpx.get(f"http://{run.address()}/status", headers={"Authorization": f"Bearer {token}"})
        assert set(told.json()["queues"]) == {place.queue, second.queue}
        place.put(*map(str, range(50)))
    finally:
        code = run.end()
    assert code == 0, run.said
    assert "Traceback" not in "".join(run.said)
    assert waiting(place.queue) + len(place.keys()) >= 52, "what is not in the catalog is in the queue"


def test_settings_with_a_wrong_queue_leave_the_old_ones_at_work(place: Place, sqlite: str) -> None:
    good = settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}})
    wrong = settings_of(sqlite, {place.name: {"queue": "sqs://", "sweep": "off"}})
    answers = [good, wrong, RuntimeError("a bug"), good]

    def read() -> Settings:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with running(read) as run:
        before = threading.active_count()
        for left in (2, 1):
            run.daemon.reload()
            until(lambda left=left: len(answers) == left)
            time.sleep(0.5)
        place.put("a")
        until(lambda: place.keys() == ["a"])
        assert threading.active_count() <= before + 8, "those that settle"
        run.daemon.reload()
        until(lambda: not answers)
        place.put("b")
        until(lambda: place.keys() == ["a", "b"])


@pytest.mark.usefixtures("quick")
def test_a_delete_that_fails_holds_nothing_for_ever(
    place: Place, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.drivers.s3_queue import SqsQueue

    real, failed = SqsQueue.delete, threading.Event()

    def delete(self: SqsQueue, messages: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError("no error of ours")
        real(self, messages)

    monkeypatch.setattr(SqsQueue, "delete", delete)
    with running(settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}})) as run:
        place.put("a")
        assert failed.wait(20)
        until(lambda: waiting(place.queue) == 0, 30)
        until(lambda: run.figure("syncagent_queue_held", queue=place.queue) == 0)


def test_an_empty_token_opens_nothing(place: Place, sqlite: str, tmp_path: Path) -> None:
    settings = {place.name: {"queue": place.queue, "sweep": "off"}}
    (tmp_path / "token").write_text("")
    for token in ("", f"file://{tmp_path / 'token'}"):
        with (
            pytest.raises(SyncAgentError, match="token is empty"),
            running(settings_of(sqlite, settings, token=token)),
        ):
            pass
    (tmp_path / "token").write_text("first")
    with running(settings_of(sqlite, settings, token=f"file://{tmp_path / 'token'}")) as run:
        assert run.get("/status", "first").status_code == 200
        for header in ("Bearer ", "Bearer", ""):
            connection = http.client.HTTPConnection(run.address)  # which sends what it is given
            connection.request("GET", "/status", headers={"Authorization": header})
            assert connection.getresponse().status == 401
            connection.close()
        (tmp_path / "token").write_text("second")
        run.daemon.reload()
        until(lambda: run.get("/status", "second").status_code == 200, 30)
        assert run.get("/status", "first").status_code == 401


def test_names_of_events_do_not_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.batch("q", Taken(ignored=Counter({f"name {number}": 1})), [])
    assert metrics.text().count(b"syncagent_events_ignored_total{") <= 61
    metrics.asked("d", 0, {"head": 100}, {"head": 1.0})
    metrics.asked("d", 1, {"head": 1000}, {"head": 1.0})
    metrics.asked("d", 0, {"head": 110}, {"head": 1.0})
    metrics.asked("d", 1, {"head": 5}, {"head": 1.0})  # a new client
    told = metrics.registry.get_sample_value(
        "syncagent_bucket_requests_total", {"dataset": "d", "kind": "head"}
    )
    assert told == 1115


# -- sweeps --------------------------------------------------------------------------------------


def test_a_sweep_finds_what_no_event_told_of_and_says_so(
    place: Place, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "syncagent")
    place.put(*"abc")
    follow = {
        "queue": "sqs://nothing?region=us-east-1&endpoint=http://127.0.0.1:9",
        "sweep": "1s",
        "drift_warning": 1,
    }
    with running(settings_of(sqlite, {place.name: follow})) as run:
        until(lambda: place.keys() == ["a", "b", "c"])
        until(lambda: run.figure("syncagent_sweeps_total", dataset=place.name, state="done") >= 1)
        assert run.figure("syncagent_drift_keys_total", dataset=place.name) == 0, "the first sweep is none"
        place.put("d", "e")
        until(lambda: place.keys() == ["a", "b", "c", "d", "e"])
        until(lambda: run.figure("syncagent_drift_keys_total", dataset=place.name) == 2)
        assert run.get("/healthz", None).status_code == 503, "its queue does not answer"
        assert run.get("/healthz/live", None).json() == {"live": True, "ready": False}
    assert "drift: 2 keys differed that no event told of" in caplog.text


def test_without_a_queue_it_says_what_latency_to_expect(
    place: Place, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.put("a")
    with running(settings_of(sqlite, {place.name: {"sweep": "15m"}})):
        until(lambda: place.keys() == ["a"])
    assert "no queue tells of changes; they are seen up to 15m" in caplog.text


def test_it_is_not_said_of_settings_that_are_only_checked(
    place: Place, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}})
    wrong = settings_of(sqlite, {place.name: {"sweep": "15m"}, "other": {"queue": "sqs://"}})
    answers = [good, wrong]
    with running(lambda: answers.pop(0)) as run:
        run.daemon.reload()
        until(lambda: "the settings are as they were: datasets.other: " in caplog.text)
    assert "no queue tells of changes" not in caplog.text


def test_the_trouble_of_a_queue_is_told_with_its_text(
    place: Place, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = "sqs://missing?region=us-east-1&" + place.queue.partition("?")[2]
    with running(settings_of(sqlite, {place.name: {"queue": queue, "sweep": "off"}})):
        told = until(
            lambda: [
                one.getMessage() for one in caplog.records if "cannot receive for now" in one.getMessage()
            ]
        )
    assert told[0].startswith(f"{queue}: cannot receive for now, next try in ")
    assert "no such queue" in told[0]


def test_a_sweep_that_is_stopped_goes_on_next_time(
    place: Place, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncagent.reconcile._ADVANCE_SECONDS", 0.0)
    place.put(*(f"{n:04}" for n in range(50)))
    began, go_on = threading.Event(), threading.Event()
    real = Metrics.progress

    def slowly(self: Metrics, dataset: str, report: Any) -> None:
        real(self, dataset, report)
        began.set()
        go_on.wait(10)

    monkeypatch.setattr(Metrics, "progress", slowly)
    with running(settings_of(sqlite, {place.name: {"sweep": "1h"}})) as run:
        assert began.wait(20)
        run.daemon.stop()
        time.sleep(0.3)
        go_on.set()
    monkeypatch.setattr(Metrics, "progress", real)
    assert place.agent.catalog.runs(place.dataset.id)[0].state == "interrupted"
    with running(settings_of(sqlite, {place.name: {"sweep": "1h"}})):
        until(lambda: len(place.keys()) == 50)
        until(lambda: place.agent.catalog.runs(place.dataset.id)[0].state == "done")


# -- its address ---------------------------------------------------------------------------------


def test_only_health_is_told_without_the_token(place: Place, sqlite: str) -> None:
    with running(settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}})) as run:
        until(lambda: run.get("/healthz", None).status_code == 200)
        assert run.get("/healthz", None).json() == {"live": True, "ready": True}
        for path in ("/metrics", "/status"):
            assert run.get(path, None).status_code == 401
            assert run.get(path, "wrong").status_code == 401
        assert run.get("/", None).status_code == 404
        place.put("a")
        until(lambda: place.keys() == ["a"])
        told = run.get("/metrics").text
        for name in (
            "syncagent_events_total", "syncagent_keys_settled_total", "syncagent_event_lag_seconds_bucket",
            "syncagent_message_seconds_bucket", "syncagent_queue_held", "syncagent_queue_oldest_seconds",
        ):  # fmt: skip
            assert name in told


def test_an_address_that_changed_needs_a_restart_and_the_rest_is_taken(
    place: Place, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "syncagent")
    follow = {place.name: {"queue": place.queue, "sweep": "off"}}
    answers = [
        settings_of(sqlite, follow),
        settings_of(sqlite, follow, listen="", token="another"),
        settings_of(sqlite, follow, token="a third"),
    ]
    with running(lambda: answers.pop(0)) as run:
        run.daemon.reload()
        until(lambda: "the settings were read again" in caplog.text)
        until(lambda: run.get("/status", "another").status_code == 200)
        told = [one.getMessage() for one in caplog.records if "restart" in one.getMessage()]
        assert told == ["run.listen has changed: that needs a restart; it is still '127.0.0.1:0'"]
        run.daemon.reload()
        until(lambda: run.get("/status", "a third").status_code == 200)
    assert caplog.text.count("restart") == 1


def test_a_dataset_that_does_not_exist_is_refused(
    place: Place, sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    follow = {"queue": place.queue, "sweep": "off"}
    good, wrong = settings_of(sqlite, {place.name: follow}), settings_of(sqlite, {"nothing": follow})
    with pytest.raises(NotFound, match="nothing"), running(wrong):
        pass
    answers = [good, wrong]
    with running(lambda: answers.pop(0)) as run:
        run.daemon.reload()
        until(lambda: "the settings are as they were: datasets.nothing: " in caplog.text)
        place.put("a")
        until(lambda: place.keys() == ["a"])


def test_settings_that_could_not_be_begun_are_tried_until_they_are(
    place: Place, sqlite: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The catalog is away when the new settings begin, and when they are read once more."""
    monkeypatch.setattr("syncagent.daemon.service._AGAIN_SECONDS", 0.2)
    real, broken = service._Work.start, threading.Event()

    def start(self: service._Work) -> None:
        if broken.is_set():
            raise Transient("the catalog is away")
        real(self)

    reads: list[int] = []

    def read() -> Settings:
        reads.append(1)
        if len(reads) in {3, 4}:
            raise Transient("the catalog is still away")
        return settings_of(sqlite, {place.name: {"queue": place.queue, "sweep": "off"}})

    monkeypatch.setattr(service._Work, "start", start)
    with running(read) as run:
        broken.set()
        run.daemon.reload()
        until(lambda: "nothing is followed for now: the catalog is away" in caplog.text)
        until(lambda: len(reads) >= 3)
        broken.clear()
        place.put("a")
        until(lambda: place.keys() == ["a"])


@pytest.mark.parametrize("listen", ["foo", ":99999", "127.0.0.1:{taken}"])
def test_a_refused_address_ends_it_before_anything_is_started(
    place: Place, sqlite: str, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(service._Work, "start", lambda _: begun.append("work"))
    monkeypatch.setattr(service, "token_of", lambda *_, **__: begun.append("token"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = listen.format(taken=taken.getsockname()[1])
        settings = settings_of(
            sqlite, {place.name: {"queue": place.queue, "sweep": "off"}}, listen=listen, drain=30
        )
        with pytest.raises(ConfigError, match=r"is no address|cannot listen on"), running(settings):
            pass
    assert begun == []


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_home_that_cannot_be_written_is_told_with_the_ways_out(
    place: Place, sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "file" / below))
    follow = {place.name: {"queue": place.queue, "sweep": "off"}}
    with (
        pytest.raises(ConfigError) as caught,
        running(load(catalog=sqlite, datasets=follow, run={"listen": "127.0.0.1:0"})),
    ):
        pass
    told = str(caught.value)
    assert "cannot be written" in told
    assert "the token for metrics is kept there" in told
    assert all(way in told for way in ("run.token", "run.listen", "SYNCAGENT_HOME"))
    with running(settings_of(sqlite, follow)), running(settings_of(sqlite, follow, listen="", token=None)):
        pass


def test_status_knows_what_the_daemon_follows(
    place: Place,
    sqlite: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also when the queue came by the command line: the settings of status do not name it."""
    from syncagent.cli import run as command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCAGENT_CATALOG", sqlite)
    with running(settings_of(sqlite, {place.name: {"queue": place.queue}})) as run:
        Path("syncagent.toml").write_text(f'[run]\nlisten = "{run.address}"\ntoken = "{TOKEN}"\n')
        until(lambda: run.get("/healthz", None).status_code == 200)
        told = run.get("/status").json()
        assert told["datasets"] == {place.name: {"queue": place.queue, "sweep": "24h"}}
        until(lambda: run.get("/status").json()["queues"][place.queue].get("waiting") is not None)
        capsys.readouterr()
        assert command(["status", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["queue"].endswith(" waiting")
        assert shown["warnings"] == []
        run.daemon._work.consumers[0].ready.clear()  # type: ignore[union-attr]
        monkeypatch.setattr(
            run.daemon,
            "_lacking",
            lambda: [place.queue],  # a poll that ends meanwhile changes nothing
        )
        assert command(["status", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["warnings"] == ["the daemon waits for its queue"]
    text = f'[datasets."{place.name}"]\nqueue = "{place.queue}"\n'
    address = run.address
    Path("syncagent.toml").write_text(f'{text}[run]\nlisten = "{address}"\ntoken = "{TOKEN}"\n')
    assert command(["status", "--json"]) == 0
    assert f"no daemon answers at {address}, to follow {place.name}" in capsys.readouterr().err
    Path("syncagent.toml").write_text(f'[run]\nlisten = "{address}"\n')
    assert command(["status"]) == 0
    assert "no daemon" not in capsys.readouterr().err


def test_status_says_when_the_daemon_does_not_take_its_token(
    place: Place,
    sqlite: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from syncagent.cli import run as command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCAGENT_CATALOG", sqlite)
    with running(settings_of(sqlite, {place.name: {"queue": place.queue}})) as run:
        text = f'[datasets."{place.name}"]\nqueue = "{place.queue}"\n[run]\nlisten = "{run.address}"\n'
        Path("syncagent.toml").write_text(f'{text}token = "wrong"\n')
        command(["status"])
        told = capsys.readouterr().err
        assert (
            f"the daemon at {run.address} does not take this token; set run.token or SYNCAGENT_HOME" in told
        )
        assert "no daemon answers" not in told
        Path("syncagent.toml").write_text(text)
        command(["status"])
        told = capsys.readouterr().err
        assert (
            f"the daemon at {run.address} cannot be asked: there is no token in {tmp_path}/home/run.token"
            in told
        )


def test_an_idle_queue_is_ready_before_a_whole_poll_has_passed(sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with Agent(load(catalog=sqlite)) as agent:
        agent.resolve(str(tmp_path / "photos"), name="photos", create=True)
    follow = {"photos": {"queue": f"watch://{tmp_path}/photos", "sweep": "off"}}
    with running(settings_of(sqlite, follow, poll=4)) as run:
        until(lambda: run.get("/healthz", None).status_code == 200, 3)


def test_settings_that_are_wrong_are_told_in_one_line(sqlite: str, tmp_path: Path) -> None:
    for datasets, run, words in (
        ({"a": {"sweep": "often"}}, {}, r"datasets\.a: 'often' is no schedule"),
        ({"a": {"queue": "ftp://x"}}, {}, r"datasets\.a: unknown queue"),
        ({"a": {"queue": "sqs://q", "integration": "x"}}, {}, r"datasets\.a: .*x"),
        ({"a": {"sweep": "1h"}}, {"listen": "here"}, "no address"),
        (
            {"a": {"queue": "sqs://q", "integration": "x"}, "b": {"queue": "sqs://q"}},
            {},
            "another integration",
        ),
    ):
        with pytest.raises(SyncAgentError, match=words), running(settings_of(sqlite, datasets, **run)):
            pass
