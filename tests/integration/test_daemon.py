"""The daemon, end to end: buckets' events through real queues into the catalog, and what happens when something breaks."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from syncagent.agent import Agent
from syncagent.config import Settings, load
from syncagent.daemon.service import Daemon
from syncagent.drivers import open_bucket
from syncagent.errors import AccessDenied, ConfigError, Transient
from tests.rigs.ministack import KEYS, AwsRig
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
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    server: ServerRig = request.getfixturevalue("server_rig")
    monkeypatch.setenv("DTLPY_USERNAME", EMAIL)
    monkeypatch.setenv("DTLPY_PASSWORD", PASSWORD)
    return f"dataloop+{server.url}"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'catalog.db'}"


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


def test_the_messages_of_settled_keys_are_gone(aws: Place, catalog: str) -> None:
    from syncagent.drivers.queues import open_queue

    with running(settings_of(catalog, {aws.name: {"queue": aws.queue, "sweep": "off"}})):
        aws.put(*map(str, range(30)))
        until(lambda: len(aws.keys()) == 30)
    queue = open_queue(aws.queue)
    depth = queue.depth()
    queue.close()
    assert (depth.waiting, depth.in_flight) == (0, 0)
