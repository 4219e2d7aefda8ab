"""The Azure archive, run by the library that Microsoft's image runs functions with, in a Python that sees nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zipfile import ZipFile

import jwt
import pytest

from syncagent.agent import Agent
from syncagent.config import load
from tests.keys import NASTY
from tests.rigs.azure import AzureRig
from tests.rigs.azure_functions import PYTHON, FunctionApp
from tests.rigs.between import Between
from tests.rigs.fake_http import FakeHttp
from tests.rigs.packages import Built
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

EVERYTHING = "queue,function,servicebus,blob,webhook"
IN_HAND = 12
"""Messages of one instance at once: host.json's batch, and the threshold for the next."""


OF_BUS: dict[str, Any] = {"MessageId": "b1", "UserProperties": {}, "SystemProperties": {}}
"""What the host tells of a Service Bus message."""


class World:
    """A container that anybody may read, a dataset of the server that mirrors it, and the app's settings."""

    def __init__(self, azure: AzureRig, agent: Agent, catalog: Between) -> None:
        self.name, self.agent, self.catalog = f"test-{uuid.uuid4().hex[:20]}", agent, catalog
        self.container = azure.service.create_container(self.name, public_access="container")
        url = f"az://devstoreaccount1/{self.name}?endpoint={azure.endpoint}&anonymous=yes"
        self.dataset = agent.resolve(url, name=self.name, create=True)

    def settings(self, **more: str) -> dict[str, str]:
        return {
            "SYNCAGENT_CATALOG": f"dataloop+{self.catalog.url}", "DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD,
            "DATASET_ID": self.dataset.id, "SYNCAGENT_TEST_NO_BACKOFF": "1", **more,
        }  # fmt: skip

    def put(self, *keys: str) -> None:
        for key in keys:
            self.container.upload_blob(key, key.encode())

    def delete(self, key: str) -> None:
        self.container.delete_blob(key)

    def items(self) -> set[str]:
        return {item.key for item in self.agent.catalog.items(self.dataset.id)}

    def event(self, key: str, name: str = "BlobCreated") -> dict[str, Any]:
        """In Event Grid's own schema."""
        return {
            "id": "831e1650-001e-001b-66ab-eeb76e069631", "eventType": f"Microsoft.Storage.{name}",
            "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1",
            "subject": f"/blobServices/default/containers/{self.name}/blobs/{key}", "eventTime": "2026-11-25T00:00:00.1234567Z",
            "data": {"api": "PutBlob", "url": self.address(key), "contentLength": len(key)},
            "dataVersion": "", "metadataVersion": "1",
        }  # fmt: skip

    def cloud_event(self, key: str, name: str = "BlobCreated") -> dict[str, Any]:
        told = self.event(key, name)
        return {
            "specversion": "1.0", "id": told["id"], "source": told["topic"], "subject": told["subject"],
            "type": told["eventType"], "time": told["eventTime"], "data": told["data"],
        }  # fmt: skip

    def address(self, key: str) -> str:
        return f"https://devstoreaccount1.blob.core.windows.net/{self.name}/{quote(key)}"


@pytest.fixture(scope="module")
def world(azure_rig: AzureRig, server_rig: ServerRig) -> Iterator[World]:
    with Between(server_rig.url) as between:
        settings = load(catalog=f"dataloop+{server_rig.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD)
        with Agent(settings) as agent:
            yield World(azure_rig, agent, between)


@pytest.fixture(scope="module")
def app(
    azure_package: Built, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FunctionApp]:
    """With every trigger that there is."""
    home = tmp_path_factory.mktemp("home")
    given = world.settings(SYNCAGENT_HOME=str(home), SYNCAGENT_WIRING=EVERYTHING)
    with FunctionApp(azure_package.unpacked, given) as started:
        assert started.error is None, started.error
        yield started


def encoded(event: Any) -> str:
    """As Event Grid writes it into a queue."""
    return base64.b64encode(json.dumps(event).encode()).decode()


def test_the_python_that_runs_it_has_nothing_that_the_archive_brings(azure_package: Built) -> None:
    code = (
        "import importlib.metadata as m, json; print(json.dumps([d.name.lower() for d in m.distributions()]))"
    )
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True, env={})
    brought = {path.name.partition("-")[0] for path in (azure_package.unpacked).rglob("*.dist-info")}
    assert {"azure_identity", "azure_storage_blob", "httpx", "pydantic"} <= brought
    assert not {"azure-identity", "azure-storage-blob", "httpx", "pydantic", "syncagent"} & set(
        json.loads(done.stdout)
    )


def test_the_sdks_own_objects_index_and_call_it(azure_package: Built, world: World, tmp_path: Path) -> None:
    """Without the library that the image runs: as somebody's own unit test would."""
    world.put("by-hand")
    script = f"""
import json, sys
import azure.functions as func
import function_app
functions = {{one.get_function_name(): one for one in function_app.app.get_functions()}}
(queue,) = functions.values()
queue.get_user_function()(func.QueueMessage(id="1", body={encoded(world.event("by-hand"))!r}))
print(json.dumps([func.__file__, list(functions), queue.get_trigger().type, queue.get_trigger().connection]))
"""
    packages = azure_package.unpacked / ".python_packages/lib/site-packages"
    done = subprocess.run(
        [str(PYTHON), "-P", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={
            **world.settings(SYNCAGENT_HOME=str(tmp_path)), "PYTHONPATH": f"{azure_package.unpacked}:{packages}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, names, trigger, connection = json.loads(done.stdout)
    assert where.startswith(str(packages)), "the archive's own SDK"
    assert (names, trigger, connection) == (["on_queue"], "queueTrigger", "EVENTS")
    assert "by-hand" in world.items()


def test_an_app_without_a_wiring_has_the_queue_and_nothing_else(
    azure_package: Built, world: World, tmp_path: Path
) -> None:
    with FunctionApp(azure_package.unpacked, world.settings(SYNCAGENT_HOME=str(tmp_path))) as started:
        assert started.functions == {
            "on_queue": [
                {"direction": "IN", "type": "queueTrigger", "name": "message", "queueName": "%EVENTS_QUEUE%", "connection": "EVENTS"}
            ]
        }  # fmt: skip
        world.put("by-queue")
        assert started.invoke("on_queue", encoded(world.event("by-queue"))).ok, started.log
    assert "by-queue" in world.items()


def test_each_wiring_has_its_trigger(app: FunctionApp) -> None:
    kinds = {name: [one["type"] for one in bindings] for name, bindings in app.functions.items()}
    assert kinds == {
        "on_queue": ["queueTrigger"], "on_event": ["eventGridTrigger"], "on_service_bus": ["serviceBusTrigger"],
        "main": ["blobTrigger"], "webhook": ["httpTrigger", "http"],
    }  # fmt: skip
    (blob,) = app.functions["main"]
    assert (blob["path"], blob["connection"], blob["source"]) == (
        "%BUCKET_CONTAINER%/{name}", "BUCKET", "EventGrid",
    )  # fmt: skip
    assert app.functions["webhook"][0]["authLevel"] == "FUNCTION"


def test_a_wiring_that_does_not_exist_stops_the_app_and_says_what_to_choose(azure_package: Built) -> None:
    with FunctionApp(azure_package.unpacked, {"SYNCAGENT_WIRING": "queue,pigeon"}) as started:
        assert started.error is not None
        assert "SYNCAGENT_WIRING=pigeon is no wiring" in started.error["message"]
        assert "queue, function, servicebus, blob or webhook" in started.error["message"]


def test_an_object_comes_and_goes_by_the_queue(app: FunctionApp, world: World) -> None:
    key = "cats/a b+c.jpg"
    world.put(key)
    told = app.invoke("on_queue", encoded(world.event(key)), metadata={"DequeueCount": 1, "Id": "m1"})
    assert told.ok, told.error
    assert key in world.items()
    world.delete(key)
    assert app.invoke("on_queue", encoded(world.event(key, "BlobDeleted"))).ok
    assert key not in world.items()


@pytest.mark.parametrize("kind", ["string", "bytes"])
@pytest.mark.parametrize("encode", [json.dumps, encoded])
def test_messages_in_base64_and_plain(app: FunctionApp, world: World, kind: str, encode: Any) -> None:
    key = f"{encode.__name__}/{kind}"
    world.put(key)
    assert app.invoke("on_queue", encode(world.cloud_event(key)), kind=kind).ok
    assert key in world.items()


@pytest.mark.parametrize("schema", ["event", "cloud_event"])
def test_event_grid_calls_in_both_schemas(app: FunctionApp, world: World, schema: str) -> None:
    make = getattr(world, schema)
    world.put(schema)
    assert app.invoke("on_event", json.dumps(make(schema)), kind="json").ok, app.log
    assert schema in world.items()
    world.delete(schema)
    assert app.invoke("on_event", json.dumps(make(schema, "BlobDeleted")), kind="json").ok
    assert schema not in world.items()


@pytest.mark.parametrize("kind", ["string", "json", "bytes"])
def test_service_bus(app: FunctionApp, world: World, kind: str) -> None:
    key = f"by-bus-{kind}"
    world.put(key)
    told = app.invoke("on_service_bus", json.dumps(world.event(key)), kind=kind, metadata=OF_BUS)
    assert told.ok, told.error
    assert key in world.items()


def test_the_tutorials_blob_trigger(app: FunctionApp, world: World) -> None:
    world.put("in/blob b")
    metadata = {
        "BlobTrigger": f"{world.name}/in/blob b",
        "Uri": world.address("in/blob b"),
        "Properties": {"Length": 9},
    }
    told = app.invoke("main", "the bytes", kind="bytes", metadata=metadata)
    assert told.ok, told.error
    assert "in/blob b" in world.items()


def posted(app: FunctionApp, body: str, method: str = "POST", **headers: str) -> Any:
    request = {"method": method, "url": "https://f/api/webhook", "headers": headers, "body": body}
    told = app.invoke("webhook", request, kind="http")
    assert told.ok, told.error
    return told.value


def test_a_webhook_shakes_hands_and_answers(app: FunctionApp, world: World) -> None:
    handshake = [
        {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "c0de"}}
    ]
    told = posted(app, json.dumps(handshake))
    assert (told["status"], json.loads(told["body"])) == (200, {"validationResponse": "c0de"})
    told = posted(app, "", "OPTIONS", **{"webhook-request-origin": "eventgrid.azure.net"})
    assert (told["status"], told["headers"]["WebHook-Allowed-Origin"]) == (200, "eventgrid.azure.net")
    assert posted(app, "", "OPTIONS", **{"webhook-request-origin": "evil.example"})["status"] == 403
    world.put("by-webhook")
    assert posted(app, json.dumps([world.event("by-webhook")]))["status"] == 200
    assert "by-webhook" in world.items()
    assert posted(app, '{"no": "event"}')["status"] == 400
    world.catalog.meddle = lambda _: (503, {}, b"")
    try:
        assert posted(app, json.dumps([world.event("by-webhook")]))["status"] == 503
    finally:
        world.catalog.meddle = lambda _: None


def test_every_key_that_the_bucket_can_hold(app: FunctionApp, world: World) -> None:
    lacks = {"a/../b.txt", "a/./b.txt", "back\\slash.txt"}  # see tests/rigs/azure.py
    keys = [key for key in NASTY if not key.endswith("/") and key not in lacks]
    assert len(keys) > 10
    world.put(*keys)
    for key in keys:
        assert app.invoke("on_queue", encoded(world.event(key))).ok, key
    assert set(keys) <= world.items()


def test_as_many_messages_at_once_as_an_instance_has_in_hand(
    azure_package: Built, app: FunctionApp, world: World
) -> None:
    queues = json.loads((azure_package.unpacked / "host.json").read_text())["extensions"]["queues"]
    assert queues["batchSize"] + queues["newBatchThreshold"] == IN_HAND
    keys = [f"many/{number:03}" for number in range(5 * IN_HAND)]
    world.put(*keys)
    answers = [app.start("on_queue", encoded(world.event(key))) for key in keys]
    assert [answer.get(timeout=30).error for answer in answers] == [None] * len(keys)
    assert set(keys) <= world.items()


def test_one_record_a_batch_without_a_key_or_a_secret(app: FunctionApp, world: World) -> None:
    before = len(app.log)
    world.put("secret-name.jpg")
    assert app.invoke("on_queue", encoded(world.event("secret-name.jpg"))).ok
    records = [line.partition(": ")[2] for line in app.log[before:] if line.startswith("INFO syncagent: ")]
    # The template's alarm for late events looks for these.
    assert [one.startswith('{"message": "batch"') for one in records] == [True]
    assert json.loads(records[0])["settled"] == {"added": 1}
    assert json.loads(records[0])["oldest_seconds"] > 0
    told = "".join(app.log)
    assert "secret-name" not in told
    assert world.name not in told, "an SDK logs its requests' addresses"
    assert PASSWORD not in told
    assert "Warning: " not in told


def test_what_is_no_event_is_an_error_and_the_next_event_is_not(app: FunctionApp, world: World) -> None:
    for function, value, kind in (
        ("on_queue", "hello", "string"), ("on_queue", '{"no": "event"}', "string"), ("on_service_bus", "[1]", "string"),
        ("on_event", '{"id": "1", "eventType": "Microsoft.Storage.BlobCreated", "subject": "s", "data": {}}', "json"),
    ):  # fmt: skip
        told = app.invoke(function, value, kind=kind, metadata=OF_BUS)
        assert told.error is not None, function
        assert "BadEvent" in told.error["trace"]
        assert told.error["message"]
    assert app.invoke("main", "", kind="bytes").error is not None
    assert app.process.poll() is None
    ignored = world.event("x", "DirectoryCreated")
    assert app.invoke("on_queue", encoded(ignored)).ok


@pytest.mark.parametrize("function", ["on_queue", "on_event", "on_service_bus"])
def test_a_catalog_that_is_away_is_an_error_that_comes_again(
    app: FunctionApp, world: World, function: str
) -> None:
    key, kind = f"late/{function}.jpg", "json" if function == "on_event" else "string"
    world.put(key)
    world.catalog.meddle = lambda _: (503, {}, b"")
    try:
        told = app.invoke(function, json.dumps(world.event(key)), kind=kind, metadata=OF_BUS)
    finally:
        world.catalog.meddle = lambda _: None
    assert told.error is not None
    assert "Transient" in told.error["trace"]
    assert "late/" not in json.dumps(told.error)
    assert app.invoke(function, json.dumps(world.event(key)), kind=kind, metadata=OF_BUS).ok
    assert key in world.items()


def test_a_bucket_that_refuses_is_an_error_that_comes_again(app: FunctionApp, world: World) -> None:
    world.put("closed.jpg")
    world.container.set_container_access_policy({}, public_access=None)
    try:
        told = app.invoke("on_queue", encoded(world.event("closed.jpg")))
    finally:
        world.container.set_container_access_policy({}, public_access="container")
    assert told.error is not None
    assert "closed" not in json.dumps(told.error)
    assert "closed.jpg" not in world.items()
    assert app.invoke("on_queue", encoded(world.event("closed.jpg"))).ok
    assert "closed.jpg" in world.items()


def test_wrong_settings_are_told(azure_package: Built, world: World, tmp_path: Path) -> None:
    given = world.settings(SYNCAGENT_HOME=str(tmp_path))
    del given["SYNCAGENT_CATALOG"], given["DATASET_ID"]
    with FunctionApp(azure_package.unpacked, given) as started:
        told = started.invoke("on_queue", encoded(world.event("a")))
    assert told.error is not None
    assert "SYNCAGENT_CATALOG" in told.error["message"]


def test_a_secret_by_reference(azure_package: Built, world: World, tmp_path: Path) -> None:
    secret = {"value": json.dumps({"username": EMAIL, "password": PASSWORD})}
    with FakeHttp(
        lambda _: (200, {"Content-Type": "application/json"}, json.dumps(secret).encode())
    ) as vault:
        given = world.settings(SYNCAGENT_HOME=str(tmp_path))
        for name in ("username", "password"):
            given[f"DTLPY_{name.upper()}"] = (
                f"azure-secret://vault/syncagent-photos?endpoint={vault.url}#{name}"
            )
        world.put("by-reference")
        with FunctionApp(azure_package.unpacked, given) as started:
            told = started.invoke("on_queue", encoded(world.event("by-reference")))
        assert told.ok, told.error
        assert {request.path for request in vault.requests} == {"/secrets/syncagent-photos"}
    assert "by-reference" in world.items()


def test_the_apps_identity_reads_the_bucket(
    azure_package: Built, world: World, identity_rig: tuple[AzureRig, Path], tmp_path: Path
) -> None:
    """As in the cloud: no key, no open container, and a token from the address that the platform tells."""
    azure, certificate = identity_rig
    container = azure.service.create_container("identified")
    container.upload_blob("by-identity", b"x")
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com/", "iss": "https://sts.windows.net/t/", "nbf": now - 60, "iat": now - 60, "exp": now + 3600,
    }  # fmt: skip
    token = jwt.encode(
        claims, "k" * 32, algorithm="HS256"
    )  # the emulator looks at claims, and at no signature
    told = {"access_token": token, "expires_on": str(now + 3600), "resource": "r", "token_type": "Bearer"}
    url = f"az://devstoreaccount1/identified?endpoint={azure.endpoint}"
    dataset = world.agent.resolve(url, name="identified", create=True)
    event = world.event("by-identity")
    event["subject"] = event["subject"].replace(world.name, "identified")
    with FakeHttp(
        lambda _: (200, {"Content-Type": "application/json"}, json.dumps(told).encode())
    ) as platform:
        given = world.settings(
            SYNCAGENT_HOME=str(tmp_path), DATASET_ID=dataset.id, IDENTITY_ENDPOINT=f"{platform.url}/msi/token", IDENTITY_HEADER="h",
            AZURE_CLIENT_ID="the-client-id", REQUESTS_CA_BUNDLE=str(certificate),
        )  # fmt: skip
        with FunctionApp(azure_package.unpacked, given) as started:
            answer = started.invoke("on_queue", encoded(event))
            loaded = Path(f"/proc/{started.process.pid}/maps").read_text()
        assert answer.ok, answer.error
        assert "_ssl" in loaded
        assert "cryptography" not in loaded, "10 MB, for certificates and encryption"
        (asked,) = platform.requests
        assert asked.query["client_id"] == "the-client-id", "the template's AZURE_CLIENT_ID"
        assert token not in "".join(started.log)
    assert [item.key for item in world.agent.catalog.items(dataset.id)] == ["by-identity"]


def test_label_files_are_left_to_the_sweep_by_an_archive_without_their_readers(
    azure_package: Built, world: World, tmp_path: Path
) -> None:
    world.agent.catalog.labels.set_settings(
        world.dataset.id, {"sources": [{"prefix": "labels/", "format": "coco"}]}
    )
    world.put("labels/all.json", "labels/more.json")
    with FunctionApp(azure_package.unpacked, world.settings(SYNCAGENT_HOME=str(tmp_path))) as started:
        for key in ("labels/all.json", "labels/more.json"):
            assert started.invoke("on_queue", encoded(world.event(key))).ok, started.log
            assert key in world.items()
    assert "".join(started.log).count("label files are left to the next sweep") == 1


def test_nothing_was_written_into_the_app(azure_package: Built, app: FunctionApp) -> None:
    with ZipFile(azure_package.archive) as archive:
        packed = set(archive.namelist())
    there = {
        path.relative_to(azure_package.unpacked).as_posix()
        for path in azure_package.unpacked.rglob("*")
        if path.is_file()
    }
    assert there == packed
    assert {"function_app.py", "host.json", "requirements.txt"} <= packed
