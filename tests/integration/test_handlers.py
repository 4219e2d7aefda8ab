"""The functions, called as their clouds call them, over emulators' buckets and both catalogs."""

from __future__ import annotations

import base64
import datetime
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import azure.functions as func
import pytest
from cloudevents.http import CloudEvent

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.config import load
from syncagent.drivers import Bucket, open_bucket
from syncagent.errors import AccessDenied, ConfigError, SyncAgentError, Transient
from syncagent.handlers import aws, azure, deliveries, gcp
from syncagent.handlers.events import BadEvent
from syncagent.handlers.mirror import Settled
from syncagent.model import Integration
from tests.keys import NASTY
from tests.rigs.azure import AzureRig
from tests.rigs.catalogs import url_of
from tests.rigs.gcs import GcsRig
from tests.rigs.s3 import S3Rig
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

CATALOGS = ["sqlite", "served"]


class World:
    """A bucket, the dataset that mirrors it, and the environment of the function that keeps them equal."""

    def __init__(self, agent: Agent, function: ModuleType, url: str, integration: Integration | None) -> None:
        self.agent, self.function, self.name = agent, function, url.partition("?")[0].rpartition("/")[2]
        named = None
        if integration is not None:
            named = integration.name
            agent.catalog.create_integration(integration)
        self.dataset: Dataset = agent.resolve(url, name=self.name, integration=named, create=True)
        self.bucket: Bucket = open_bucket(f"{url}&allow_delete=yes", integration)

    def put(self, *keys: str) -> None:
        for key in keys:
            self.bucket.put(key, io.BytesIO(key.encode()))

    def items(self) -> list[str]:
        return [item.key for item in self.agent.catalog.items(self.dataset.id)]


@pytest.fixture(autouse=True)
def cold() -> Iterator[None]:
    """Every test begins as a process does."""
    for function in (aws, gcp, azure):
        function._front.close()
        function._front._refused_at = float("-inf")
    yield
    for function in (aws, gcp, azure):
        function._front.close()


@pytest.fixture
def agent(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """A catalog, which the functions find by their environment."""
    kind = getattr(request, "param", "sqlite")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    if kind == "served":
        server: ServerRig = request.getfixturevalue("server_rig")
        monkeypatch.setenv("SYNCAGENT_CATALOG", f"dataloop+{server.url}")
        monkeypatch.setenv("DTLPY_USERNAME", EMAIL)
        monkeypatch.setenv("DTLPY_PASSWORD", PASSWORD)
    else:
        monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "catalog.db"))
    with Agent(load()) as made:
        yield made


@pytest.fixture
def s3(agent: Agent, s3_rig: S3Rig) -> World:
    name = f"test-{uuid.uuid4().hex[:20]}"
    s3_rig.client.create_bucket(Bucket=name)
    return World(agent, aws, f"s3://{name}?endpoint={s3_rig.endpoint}&region=us-east-1", None)


@pytest.fixture
def gcs(agent: Agent, gcs_rig: GcsRig) -> World:
    return World(agent, gcp, gcs_rig.store("gcs", f"test-{uuid.uuid4().hex[:20]}").url, None)


@pytest.fixture
def blobs(agent: Agent, azure_rig: AzureRig) -> World:
    store = azure_rig.store("azure", f"test-{uuid.uuid4().hex[:20]}")
    return World(agent, azure, store.url, store.integration)


# -- payloads ------------------------------------------------------------------------------------


def notification(world: World, *keys: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "Records": [
            {"eventSource": "aws:s3", "eventName": name, "eventTime": "2026-11-25T00:00:00Z",
             "responseElements": {"x-amz-request-id": "REQUEST"},
             "s3": {"bucket": {"name": world.name}, "object": {"key": quote_plus(key)}}}
            for key in keys
        ]
    }  # fmt: skip


def messages(*bodies: Any) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": f"m{n}", "eventSource": "aws:sqs", "body": body if isinstance(body, str) else json.dumps(body)}
            for n, body in enumerate(bodies)
        ]
    }  # fmt: skip


def grid(world: World, key: str, name: str = "BlobCreated") -> dict[str, Any]:
    return {
        "id": "1", "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1",
        "subject": f"/blobServices/default/containers/{world.name}/blobs/{key}", "eventType": f"Microsoft.Storage.{name}",
        "eventTime": "2026-11-25T00:00:00.1234567Z", "dataVersion": "", "metadataVersion": "1",
        "data": {"api": "PutBlob", "url": f"https://devstoreaccount1.blob.core.windows.net/{world.name}/{quote(key)}"},
    }  # fmt: skip


# -- AWS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", CATALOGS, indirect=True)
def test_lambda_mirrors_what_a_notification_names(s3: World, capsys: pytest.CaptureFixture[str]) -> None:
    s3.put("a b+c.jpg", "other")
    assert aws.handler(notification(s3, "a b+c.jpg", "a b+c.jpg", "not there")) is None
    assert s3.items() == ["a b+c.jpg"]
    s3.bucket.delete("a b+c.jpg")
    aws.handler(notification(s3, "a b+c.jpg", name="ObjectRemoved:Delete"))
    assert s3.items() == []
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["events"], first["settled"]) == ({"created": 3}, {"added": 1, "same": 1})
    assert (second["events"], second["settled"]) == ({"removed": 1}, {"removed": 1})
    assert first["ids"] == ["REQUEST"]
    assert first["oldest_seconds"] > 0
    assert "a b" not in json.dumps(first)


def test_lambda_keeps_its_clients_from_one_call_to_the_next(s3: World) -> None:
    s3.put("a", "b")
    aws.handler(notification(s3, "a"))
    made = aws._front.mirror()
    aws.handler(notification(s3, "b"))
    assert aws._front.mirror() is made
    assert len(made._reconcilers) == 1


def test_the_removal_of_an_old_version_removes_nothing(s3: World) -> None:
    s3.put("a")
    aws.handler(notification(s3, "a"))
    aws.handler(notification(s3, "a", name="ObjectRemoved:Delete"))
    assert s3.items() == ["a"]


def test_lambda_tells_sqs_which_messages_are_not_done(s3: World, capsys: pytest.CaptureFixture[str]) -> None:
    s3.put("good", "secret-name")
    gone = notification(s3, "secret-name")
    answer = aws.handler(messages(notification(s3, "good"), "no event", gone, {"Event": "s3:TestEvent"}))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert s3.items() == ["good", "secret-name"]
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == {"BadEvent": 1}
    assert told["ignored"] == {"TestEvent": 1}
    assert told["severity"] == "WARNING"


def test_lambda_leaves_what_it_has_no_time_for(s3: World) -> None:
    s3.put("a")
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1500, aws_request_id="r")
    assert aws.handler(messages(notification(s3, "a")), context) == {
        "batchItemFailures": [{"itemIdentifier": "m0"}]
    }
    with pytest.raises(Transient, match="no time was left"):
        aws.handler(notification(s3, "a"), context)
    assert s3.items() == []
    context.get_remaining_time_in_millis = lambda: 30_000
    assert aws.handler(messages(notification(s3, "a")), context) == {"batchItemFailures": []}


def test_lambda_raises_where_it_cannot_tell(s3: World) -> None:
    with pytest.raises(BadEvent):
        aws.handler({"hello": 1})
    with pytest.raises(BadEvent):
        aws.handler(None)
    lost = notification(s3, "a")
    s3.agent.catalog.remove_dataset(s3.name)
    s3.agent.resolve(
        f"s3://{s3.name}-gone?endpoint=http://127.0.0.1:9&region=us-east-1", name="gone", create=True
    )
    lost["Records"][0]["s3"]["bucket"]["name"] += "-gone"
    with pytest.raises(SyncAgentError):
        aws.handler(lost)


def test_lambda_answers_batch_operations_task_by_task(s3: World) -> None:
    s3.put("a b")
    event = {
        "invocationSchemaVersion": "2.0", "invocationId": "i", "job": {"id": "j"},
        "tasks": [{"taskId": "t1", "s3Key": "a+b", "s3Bucket": s3.name}, {"taskId": "t2", "s3Bucket": s3.name}, "x"],
    }  # fmt: skip
    answer = aws.handler(event)
    assert answer is not None
    assert answer["invocationId"] == "i"
    assert answer["treatMissingKeysAs"] == "PermanentFailure"
    assert [(one["taskId"], one["resultCode"]) for one in answer["results"]] == [
        ("t1", "Succeeded"), ("t2", "PermanentFailure"), ("", "PermanentFailure"),
    ]  # fmt: skip
    assert s3.items() == ["a b"]


# -- Google Cloud --------------------------------------------------------------------------------


def cloud_event(world: World, key: str, kind: str = "finalized") -> CloudEvent:
    attributes = {
        "type": f"google.cloud.storage.object.v1.{kind}", "id": "1", "time": "2026-11-25T00:00:00Z",
        "source": f"//storage.googleapis.com/projects/_/buckets/{world.name}", "subject": "objects/x",
    }  # fmt: skip
    return CloudEvent(attributes, {"bucket": world.name, "name": key, "generation": "1", "size": "3"})


@pytest.mark.parametrize("agent", CATALOGS, indirect=True)
def test_a_cloud_function_mirrors_what_a_cloudevent_names(
    gcs: World, capsys: pytest.CaptureFixture[str]
) -> None:
    gcs.put("in/a b.jpg")
    gcp.on_event(cloud_event(gcs, "in/a b.jpg"))
    gcp.on_event(cloud_event(gcs, "in/a b.jpg", "deleted"))  # of an overwrite: the live object stays
    assert gcs.items() == ["in/a b.jpg"]
    gcs.bucket.delete("in/a b.jpg")
    gcp.on_event(cloud_event(gcs, "in/a b.jpg", "deleted"))
    assert gcs.items() == []
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_tutorials_pair_of_functions_is_there(gcs: World) -> None:
    gcs.put("a", "b")
    context = SimpleNamespace(
        event_id="1",
        timestamp="2026-11-25T00:00:00Z",
        event_type="google.storage.object.finalize",
        resource="x",
    )
    gcp.create_gcs({"bucket": gcs.name, "name": "a", "kind": "storage#object"}, context)
    gcp.create_gcs({"bucket": gcs.name, "name": "b"}, {"eventType": "google.storage.object.finalize"})
    assert gcs.items() == ["a", "b"]
    gcp.delete_gcs({"bucket": gcs.name, "name": "a", "kind": "storage#object"}, None)
    assert gcs.items() == ["a", "b"], "it is there"
    gcs.bucket.delete("a")
    gcp.delete_gcs({"bucket": gcs.name, "name": "a", "kind": "storage#object"}, None)
    assert gcs.items() == ["b"]
    with pytest.raises(BadEvent):
        gcp.create_gcs({}, context)


def test_a_push_subscription_is_answered(gcs: World) -> None:
    from flask import Request
    from werkzeug.test import EnvironBuilder

    def pushed(body: Any) -> tuple[str, int]:
        return gcp.push(Request(EnvironBuilder(method="POST", json=body).get_environ()))

    gcs.put("a")
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": gcs.name,
        "objectId": "a",
        "payloadFormat": "NONE",
    }
    message = {"message": {"attributes": attributes, "data": "", "messageId": "1"}, "subscription": "s"}
    assert pushed(message) == ("", 204)
    assert gcs.items() == ["a"]
    assert pushed({"hello": 1})[1] == 400
    gcp._front.mirror()._agent.close()
    gcp._front.mirror().settle = lambda *_, **__: (_ for _ in ()).throw(Transient("busy"))  # type: ignore[method-assign]
    assert pushed(message)[1] == 503


# -- Azure ---------------------------------------------------------------------------------------


def test_azures_triggers_mirror_what_they_name(blobs: World) -> None:
    blobs.put("grid", "cloud", "queue", "plain", "bus", "in/blob b")
    told = grid(blobs, "grid")
    at = datetime.datetime(2026, 11, 25, tzinfo=datetime.UTC)
    azure.on_event(
        func.EventGridEvent(
            id="1", data=told["data"], topic=told["topic"], subject=told["subject"], event_type=told["eventType"],
            event_time=at, data_version="",
        )
    )  # fmt: skip
    told = grid(blobs, "cloud")
    azure.on_event(
        func.CloudEvent(
            id="1", source=told["topic"], type=told["eventType"], specversion="1.0", data=told["data"], time=at,
            subject=told["subject"],
        )
    )  # fmt: skip
    encoded = base64.b64encode(json.dumps(grid(blobs, "queue")).encode())
    azure.on_queue(func.QueueMessage(id="1", body=encoded))
    azure.on_queue(func.QueueMessage(id="2", body=json.dumps(grid(blobs, "plain"))))
    azure.on_service_bus(Bus(json.dumps(grid(blobs, "bus")).encode()))
    name, uri = f"{blobs.name}/in/blob b", f"https://devstoreaccount1.blob.core.windows.net/{blobs.name}/x"
    azure.main(func.blob.InputStream(data=b"", name=name, uri=uri))
    assert blobs.items() == ["bus", "cloud", "grid", "in/blob b", "plain", "queue"]
    blobs.bucket.delete("queue")
    azure.on_queue(func.QueueMessage(id="3", body=json.dumps(grid(blobs, "queue", "BlobDeleted"))))
    assert "queue" not in blobs.items()
    with pytest.raises(BadEvent):
        azure.on_queue(func.QueueMessage(id="4", body="hello"))


class Bus(func.ServiceBusMessage):  # type: ignore[misc]
    """What the SDK has no constructor for."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    message_id = "1"

    def get_body(self) -> bytes:
        return self._body


def test_a_directory_that_went_takes_its_items_along(blobs: World) -> None:
    blobs.put("dir/a", "dir/b/c", "dirt")
    for key in ("dir/a", "dir/b/c", "dirt"):
        azure.on_queue(func.QueueMessage(id="1", body=json.dumps(grid(blobs, key))))
    for key in ("dir/a", "dir/b/c"):
        blobs.bucket.delete(key)
    azure.on_queue(func.QueueMessage(id="1", body=json.dumps(grid(blobs, "dir", "DirectoryDeleted"))))
    assert blobs.items() == ["dirt"]


def test_a_webhook_shakes_hands_and_answers(blobs: World) -> None:
    def posted(body: Any, method: str = "POST", **headers: str) -> tuple[int, dict[str, str], str]:
        given = body if isinstance(body, bytes) else json.dumps(body).encode()
        return azure.webhook(
            func.HttpRequest(method=method, url="https://f/api", headers=headers, body=given)
        )

    handshake = [
        {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "c"}}
    ]
    assert posted(handshake) == (200, {"Content-Type": "application/json"}, '{"validationResponse": "c"}')
    allowed = posted(b"", "OPTIONS", **{"WebHook-Request-Origin": "eventgrid.azure.net"})
    assert allowed[:2] == (
        200,
        {"WebHook-Allowed-Origin": "eventgrid.azure.net", "WebHook-Allowed-Rate": "*"},
    )
    assert posted(b"", "OPTIONS", **{"WebHook-Request-Origin": "evil.example"})[0] == 403
    blobs.put("a")
    assert posted([grid(blobs, "a")])[0] == 200
    assert blobs.items() == ["a"]
    assert posted(b"{")[0] == 400
    azure._front.mirror().settle = lambda *_, **__: (_ for _ in ()).throw(Transient("busy"))  # type: ignore[method-assign]
    assert posted([grid(blobs, "a")])[0] == 503


# -- settings ------------------------------------------------------------------------------------


def test_the_tutorials_variables_are_enough(
    s3: World, server_rig: ServerRig, monkeypatch: pytest.MonkeyPatch, s3_rig: S3Rig, tmp_path: Path
) -> None:
    """DATASET_ID, DTLPY_USERNAME, DTLPY_PASSWORD: the catalog is the platform."""
    monkeypatch.setenv("SYNCAGENT_CATALOG", f"dataloop+{server_rig.url}")
    monkeypatch.setenv("DTLPY_USERNAME", EMAIL)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    monkeypatch.setenv("DTLPY_PASSWORD", f"file://{tmp_path / 'password'}")
    with Agent(load()) as agent:
        url = f"s3://{s3.name}?endpoint={s3_rig.endpoint}&region=us-east-1"
        dataset = agent.resolve(url, name=s3.name, create=True)
        monkeypatch.delenv("SYNCAGENT_CATALOG")
        monkeypatch.setenv("DATASET_ID", dataset.id)
        monkeypatch.setattr(deliveries, "PLATFORM", f"dataloop+{server_rig.url}")
        s3.put("a")
        aws.handler(notification(s3, "a"))
        assert [item.key for item in agent.catalog.items(dataset.id)] == ["a"]
    assert deliveries.settings().catalog == f"dataloop+{server_rig.url}"


def test_a_function_without_a_catalog_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNCAGENT_CATALOG", raising=False)
    with pytest.raises(ConfigError, match="set DATASET_ID, DTLPY_USERNAME and DTLPY_PASSWORD"):
        aws.handler(notification(SimpleNamespace(name="b"), "a"))  # type: ignore[arg-type]


def test_a_cold_start_that_failed_is_tried_again(s3: World, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("a")
    with monkeypatch.context() as wrong:
        wrong.setenv("SYNCAGENT_WORKERS", "none")
        with pytest.raises(ConfigError):
            aws.handler(notification(s3, "a"))
    aws.handler(notification(s3, "a"))
    assert s3.items() == ["a"]


def test_a_denied_bucket_is_told_without_its_keys(
    s3: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def denied(*_: Any, **__: Any) -> Any:
        raise AccessDenied("not allowed: s3:GetObject on private.jpg", resource="private.jpg")

    aws._front.mirror().settle = denied  # type: ignore[method-assign]
    assert aws.handler(messages(notification(s3, "private.jpg"))) == {
        "batchItemFailures": [{"itemIdentifier": "m0"}]
    }
    assert "private" not in capsys.readouterr().out + caplog.text
    assert "s3:GetObject" in caplog.text


def test_a_function_loads_its_own_clouds_sdk_and_no_other(s3: World, s3_rig: S3Rig, tmp_path: Path) -> None:
    """Not when it is imported, and not when it works either: what is loaded is what a cold start waits for."""
    s3.put("a")
    (tmp_path / "event.json").write_text(json.dumps(messages(notification(s3, "a"))))
    script = f"""
import json, sys
from syncagent.handlers.aws import handler
print(handler(json.load(open({str(tmp_path / "event.json")!r}))))
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *_, answer, modules = done.stdout.splitlines()
    assert answer == "{'batchItemFailures': []}"
    assert s3.items() == ["a"]
    loaded = set(json.loads(modules))
    assert "boto3" in loaded
    for name in ("azure", "google_auth", "numpy", "PIL", "fastapi", "uvicorn", "pyarrow", "prometheus_client"):  # fmt: skip
        assert name not in loaded


# -- keys ----------------------------------------------------------------------------------------


def test_one_payload_that_we_cannot_take_stops_no_other(
    s3: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = aws.parse

    def parse(payload: Any) -> Any:
        if "poison" in json.dumps(payload):
            raise TypeError("a bug of ours")
        return real(payload)

    monkeypatch.setattr(aws, "parse", parse)
    s3.put("a", "b")
    answer = aws.handler(messages(notification(s3, "a"), "poison", notification(s3, "b")))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert s3.items() == ["a", "b"]


def test_one_key_that_we_cannot_settle_stops_no_other(s3: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from syncagent.reconcile import Reconciler

    real = Reconciler.settle_many

    def settle_many(self: Reconciler, keys: Any) -> Any:
        if "poison" in keys:
            raise RuntimeError("a bug of ours")
        return real(self, keys)

    monkeypatch.setattr(Reconciler, "settle_many", settle_many)
    s3.put("a", "b")
    answer = aws.handler(messages(*(notification(s3, key) for key in ("a", "poison", "b"))))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert s3.items() == ["a", "b"]


@pytest.mark.parametrize("key", ["private.jpg", "private\\1.jpg", "private'\"\t.jpg", "privat\u00e9.jpg"])
def test_what_a_function_raises_tells_no_key(s3: World, key: str) -> None:
    aws._front.mirror().settle = lambda *_, **__: Settled(  # type: ignore[method-assign]
        errors=[AccessDenied(f"not allowed: s3:GetObject on {key!r}, {key}, {key!a}", resource=key)]
    )
    with pytest.raises(AccessDenied) as told:
        aws.handler(notification(s3, key))
    assert "privat" not in str(told.value)
    assert "s3:GetObject" in str(told.value)
    assert told.value.__cause__ is None


def test_credentials_that_were_refused_are_read_again_but_not_for_each_batch(s3: World) -> None:
    s3.put("a")
    refused = Settled(errors=[AccessDenied("the token has expired")])
    first = aws._front.mirror()
    first.settle = lambda *_, **__: refused  # type: ignore[method-assign]
    with pytest.raises(AccessDenied):
        aws.handler(notification(s3, "a"))
    second = aws._front.mirror()
    assert second is not first
    second.settle = lambda *_, **__: refused  # type: ignore[method-assign]
    with pytest.raises(AccessDenied):
        aws.handler(notification(s3, "a"))
    assert aws._front.mirror() is second
    aws._front.close()
    aws.handler(notification(s3, "a"))
    assert s3.items() == ["a"]


def test_every_key_comes_from_the_bucket_through_lambda_into_the_catalog(s3: World) -> None:
    keys = [key for key in NASTY if key != "new\nline.txt"]  # moto's routes do not match a newline
    s3.put(*keys)
    aws.handler(messages(*(notification(s3, key) for key in keys)))
    assert sorted(s3.items()) == sorted(keys)
