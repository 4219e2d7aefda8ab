"""The Google archive, run by Google's own functions framework in a Python that sees nothing else."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from syncagent.agent import Agent
from syncagent.config import load
from tests.keys import NASTY
from tests.rigs.between import Between
from tests.rigs.fake_http import Answer, FakeHttp, Request
from tests.rigs.functions_framework import Function
from tests.rigs.gcs import GcsRig
from tests.rigs.packages import Built
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

OBJECT = "google.cloud.storage.object.v1."
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
TOPIC = "//pubsub.googleapis.com/projects/p/topics/syncagent-photos"
NAMES = {"finalized": "OBJECT_FINALIZE", "deleted": "OBJECT_DELETE", "archived": "OBJECT_ARCHIVE"}
Start = Callable[..., Function]


def said(function: Function, words: str) -> bool:
    """Whether the function's log has some words: its lines come a moment after the answer."""
    for _ in range(100):
        if words in "".join(function.log):
            return True
        time.sleep(0.05)
    return False


def logged(function: Function, before: int, least: int) -> list[dict[str, Any]]:
    """The lines of JSON in the function's log after some, once there are as many: they come a moment after the answers."""
    found: list[str] = []
    for _ in range(100):
        found = [line for line in function.log[before:] if line.startswith("{")]
        if len(found) >= least:
            break
        time.sleep(0.05)
    return [json.loads(line) for line in found]


class World:
    """A bucket, a dataset of the server that mirrors it, and the function's environment. Both may misbehave."""

    def __init__(self, bucket: Between, agent: Agent, catalog: Between) -> None:
        self.name, self.agent, self.bucket, self.catalog = (
            f"test-{uuid.uuid4().hex[:20]}",
            agent,
            bucket,
            catalog,
        )
        self._client = bucket._client
        self._of = f"{bucket.url}/storage/v1/b"
        self._client.post(f"{self._of}?project=p", json={"name": self.name}).raise_for_status()
        self.dataset = agent.resolve(f"gs://{self.name}", name=self.name, create=True)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        return {
            "SYNCAGENT_CATALOG": f"dataloop+{self.catalog.url}", "DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD,
            "DATASET_ID": self.dataset.id, "SYNCAGENT_TEST_NO_BACKOFF": "1", "STORAGE_EMULATOR_HOST": self.bucket.url,
            "SYNCAGENT_HOME": str(home), **more,
        }  # fmt: skip

    def put(self, *keys: str) -> None:
        for key in keys:
            url = self._of.replace("/storage/v1", "/upload/storage/v1")
            given = {"uploadType": "media", "name": key}
            self._client.post(f"{url}/{self.name}/o", params=given, content=key.encode()).raise_for_status()

    def delete(self, key: str) -> None:
        from urllib.parse import quote

        self._client.delete(f"{self._of}/{self.name}/o/{quote(key, safe='')}").raise_for_status()

    def items(self) -> set[str]:
        return {item.key for item in self.agent.catalog.items(self.dataset.id)}

    def resource(self, key: str) -> dict[str, Any]:
        """As the JSON API tells an object."""
        return {
            "kind": "storage#object", "id": f"{self.name}/{key}/1", "bucket": self.name, "name": key, "generation": "1",
            "metageneration": "1", "updated": "2026-11-25T00:00:00.000Z", "size": str(len(key.encode())),
        }  # fmt: skip

    def headers(self, what: str) -> dict[str, str]:
        """Of a binary CloudEvent. A subject with the key would be mangled: it is never read."""
        return {
            "ce-id": "1", "ce-specversion": "1.0", "ce-time": "2026-11-25T00:00:00Z", "ce-type": OBJECT + what,
            "ce-source": f"//storage.googleapis.com/projects/_/buckets/{self.name}", "ce-subject": "objects/x",
            "ce-bucket": self.name,
        }  # fmt: skip

    def structured(self, key: str, what: str) -> dict[str, Any]:
        given = {name.removeprefix("ce-"): value for name, value in self.headers(what).items()}
        return {**given, "datacontenttype": "application/json", "data": self.resource(key)}

    def message(self, key: str, what: str) -> dict[str, Any]:
        """As Pub/Sub pushes what a bucket's notification told it."""
        data = base64.b64encode(json.dumps(self.resource(key)).encode()).decode()
        attributes = {
            "notificationConfig": f"projects/_/buckets/{self.name}/notificationConfigs/1", "eventType": NAMES[what],
            "payloadFormat": "JSON_API_V1", "bucketId": self.name, "objectId": key, "objectGeneration": "1",
            "eventTime": "2026-11-25T00:00:00.123456Z",
        }  # fmt: skip
        message = {
            "data": data, "attributes": attributes, "messageId": "7", "message_id": "7",
            "publishTime": "2026-11-25T00:00:00.2Z", "publish_time": "2026-11-25T00:00:00.2Z",
        }  # fmt: skip
        return {
            "message": message,
            "subscription": "projects/p/subscriptions/syncagent-photos",
            "deliveryAttempt": 1,
        }

    def legacy(self, key: str, what: str) -> dict[str, Any]:
        """As the first generation posts it to its containers."""
        kind = {"finalized": "finalize", "deleted": "delete", "archived": "archive"}[what]
        resource = {
            "service": "storage.googleapis.com", "type": "storage#object",
            "name": f"projects/_/buckets/{self.name}/objects/{key}",
        }  # fmt: skip
        context = {
            "eventId": "1", "timestamp": "2026-11-25T00:00:00.000Z", "eventType": f"google.storage.object.{kind}",
            "resource": resource,
        }  # fmt: skip
        return {"context": context, "data": self.resource(key)}


def as_binary(world: World, key: str, what: str) -> tuple[Any, dict[str, str]]:
    return world.resource(key), world.headers(what)


def as_structured(world: World, key: str, what: str) -> tuple[Any, dict[str, str]]:
    return world.structured(key, what), {"Content-Type": "application/cloudevents+json"}


def as_topic(world: World, key: str, what: str) -> tuple[Any, dict[str, str]]:
    """What Eventarc makes of a topic's message."""
    headers = {
        "ce-id": "7", "ce-specversion": "1.0", "ce-time": "2026-11-25T00:00:00.2Z", "ce-type": PUBLISHED, "ce-source": TOPIC,
    }  # fmt: skip
    return world.message(key, what), headers


def as_push(world: World, key: str, what: str) -> tuple[Any, dict[str, str]]:
    return world.message(key, what), {}


def as_legacy(world: World, key: str, what: str) -> tuple[Any, dict[str, str]]:
    return world.legacy(key, what), {}


EVENTARC = ("on_event", "cloudevent")
# A function that has no trigger of its own, as the template's, is told to be one of plain HTTP.
BARE = ("on_event", "http")
PUSH, CREATE, DELETE = ("push", "http"), ("create_gcs", "event"), ("delete_gcs", "event")
WAYS = [
    (EVENTARC, as_binary), (EVENTARC, as_structured), (EVENTARC, as_topic), (BARE, as_binary), (PUSH, as_push),
    (PUSH, as_binary), (CREATE, as_legacy), (CREATE, as_topic), (CREATE, as_push), (DELETE, as_legacy),
]  # fmt: skip


def over(ways: list[tuple[tuple[str, str], Any]]) -> pytest.MarkDecorator:
    names = [f"{'-'.join(entry)}-{shaped.__name__}" for entry, shaped in ways]
    return pytest.mark.parametrize(("entry", "shaped"), ways, ids=names)


@pytest.fixture(scope="module")
def world(gcs_rig: GcsRig, server_rig: ServerRig) -> Iterator[World]:
    with Between(gcs_rig.endpoint) as bucket, Between(server_rig.url) as catalog:
        settings = load(catalog=f"dataloop+{server_rig.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD)
        with Agent(settings) as agent:
            yield World(bucket, agent, catalog)


@pytest.fixture(scope="module")
def start(
    gcp_package: Built, gcp_python: Path, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts a function with an entry, or gives the one that was started."""
    started: dict[tuple[str, str], Function] = {}

    def start(entry: tuple[str, str]) -> Function:
        if entry not in started:
            given = world.environment(tmp_path_factory.mktemp("home"))
            started[entry] = Function(gcp_python, gcp_package.unpacked, *entry, given).__enter__()
        return started[entry]

    yield start
    for function in started.values():
        function.stop()
    for function in started.values():
        function.__exit__(None, None, None)


def test_the_python_that_runs_it_has_the_framework_and_nothing_else(
    gcp_package: Built, gcp_python: Path
) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps(sorted(d.name.lower() for d in m.distributions())))"
    done = subprocess.run([str(gcp_python), "-c", code], capture_output=True, text=True, check=True, env={})
    there = {name.replace("-", "_") for name in json.loads(done.stdout)}
    assert there == {path.name.partition("-")[0] for path in (gcp_package.unpacked / "wheels").iterdir()}
    assert {"functions_framework", "flask", "gunicorn"} <= there
    assert not {"google_cloud_storage", "httpx", "pydantic", "syncagent"} & there


def test_every_line_of_its_requirements_is_pinned_by_version_and_hash(gcp_package: Built) -> None:
    lines = (gcp_package.unpacked / "requirements.txt").read_text().splitlines()
    assert len(lines) == len(list((gcp_package.unpacked / "wheels").iterdir()))
    assert all("==" in line and "--hash=sha256:" in line and ";" not in line for line in lines)


def test_googles_build_leaves_the_packages_as_they_are(
    gcp_package: Built, gcp_python: Path, tmp_path: Path
) -> None:
    """It compiles all sources anew, and the image loses the times that these say: each start would compile again."""
    made = tmp_path / "function"
    shutil.copytree(gcp_package.unpacked, made)
    # https://github.com/GoogleCloudPlatform/buildpacks/blob/main/cmd/python/functions_framework/lib/lib.go
    command = [str(gcp_python), "-m", "compileall", "-f", "-q", "."]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    added = [
        path for path in made.rglob("*.pyc") if not (gcp_package.unpacked / path.relative_to(made)).exists()
    ]
    assert [path.parent.relative_to(made).as_posix() for path in added] == ["__pycache__"], (
        "main.py, and no other"
    )
    assert list((made / "packages").rglob("*.pyc"))
    assert not list((made / "packages").rglob("*.py"))


@over(WAYS)
def test_an_object_comes_and_goes(start: Start, world: World, entry: tuple[str, str], shaped: Any) -> None:
    function, key = start(entry), f"{'-'.join(entry)}/{shaped.__name__} b+c.jpg"
    world.put(key)
    told = function.post(*shaped(world, key, "finalized"))
    assert told.is_success, function.log
    assert key in world.items()
    assert function.post(*shaped(world, key, "deleted")).is_success
    assert key in world.items(), "an overwrite tells of a delete, too: the live object counts"
    world.delete(key)
    assert function.post(*shaped(world, key, "archived")).is_success
    assert key not in world.items()


@over(WAYS)
def test_a_catalog_that_is_away_is_an_error_that_comes_again(
    start: Start, world: World, entry: tuple[str, str], shaped: Any
) -> None:
    function, key = start(entry), f"late/{'-'.join(entry)}-{shaped.__name__}"
    world.put(key)
    world.catalog.meddle = lambda _: (503, {}, b"")
    try:
        told = function.post(*shaped(world, key, "finalized"))
    finally:
        world.catalog.meddle = lambda _: None
    assert told.status_code >= 500, "Pub/Sub, Eventarc and the first generation deliver it again"
    assert function.post(*shaped(world, key, "finalized")).is_success, function.log
    assert key in world.items()


@over([(EVENTARC, as_binary), (PUSH, as_push), (CREATE, as_legacy)])
def test_a_bucket_that_refuses_is_an_error_that_comes_again(
    start: Start, world: World, entry: tuple[str, str], shaped: Any
) -> None:
    function, key = start(entry), f"refused/{entry[0]}"
    world.put(key)
    world.bucket.meddle = lambda _: (403, {"Content-Type": "application/json"}, b'{"error": {"code": 403}}')
    try:
        told = function.post(*shaped(world, key, "finalized"))
    finally:
        world.bucket.meddle = lambda _: None
    assert told.status_code >= 500
    assert said(function, "AccessDenied"), function.log
    assert function.post(*shaped(world, key, "finalized")).is_success, function.log
    assert key in world.items()


@pytest.mark.parametrize("entry", [EVENTARC, PUSH, CREATE, DELETE], ids=lambda entry: entry[0])
def test_what_is_no_event_is_an_error_and_the_next_event_is_not(
    start: Start, world: World, entry: tuple[str, str]
) -> None:
    function, key = start(entry), f"after/{entry[0]}"
    for body, headers in (
        ({"no": "event"}, {}),
        (["x"], {}),
        ({"message": {"data": "!", "messageId": "1"}}, {}),
        ({"no": "event"}, world.headers("finalized")),
    ):
        assert function.post(body, headers).status_code >= 400, body
    assert function.process.poll() is None
    world.put(key)
    shaped = {"cloudevent": as_binary, "http": as_push, "event": as_legacy}[entry[1]]
    assert function.post(*shaped(world, key, "finalized")).is_success
    assert key in world.items()


def test_what_a_push_answers(start: Start, world: World) -> None:
    function = start(PUSH)
    world.put("answered")
    assert function.post(world.message("answered", "finalized")).status_code == 204
    refused = function.post({"no": "event"})
    assert (refused.status_code, refused.text) == (400, "not an event")


def test_an_event_on_which_nothing_depends_is_done(start: Start, world: World) -> None:
    told = start(EVENTARC).post(world.resource("x"), world.headers("unheardOf"))
    assert told.is_success


def test_every_key_that_the_bucket_can_hold(start: Start, world: World) -> None:
    keys = [key for key in NASTY if "\n" not in key and not key.endswith("/")]
    assert len(keys) > 10
    world.put(*keys)
    for key in keys:
        assert start(PUSH).post(world.message(key, "finalized")).status_code == 204, key
    assert set(keys) <= world.items()


def test_one_line_a_batch_without_a_key(start: Start, world: World) -> None:
    world.put("secret-name.jpg")
    for entry, shaped in ((PUSH, as_push), (EVENTARC, as_binary)):
        function = start(entry)
        before = len(function.log)
        assert function.post(*shaped(world, "secret-name.jpg", "finalized")).is_success
        world.catalog.meddle = lambda _: (503, {}, b"")
        try:
            assert function.post(*shaped(world, "secret-name.jpg", "finalized")).status_code >= 500
        finally:
            world.catalog.meddle = lambda _: None
        lines = logged(function, before, 2)
        assert [line["severity"] for line in lines] == ["INFO", "WARNING"], function.log
        assert {line["message"] for line in lines} == {"batch"}
        assert "secret-name" not in "".join(function.log)
        assert "Warning: " not in "".join(function.log)
        assert PASSWORD not in "".join(function.log)


def test_events_at_once(start: Start, world: World) -> None:
    """As many as the template lets one instance have."""
    from concurrent.futures import ThreadPoolExecutor

    keys = [f"at-once/{number}" for number in range(32)]
    world.put(*keys)
    function = start(PUSH)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda key: function.post(world.message(key, "finalized")).status_code, keys))
    assert told == [204] * len(keys), function.log
    assert set(keys) <= world.items()


def test_wrong_settings_are_told_and_a_secret_is_read_by_reference(
    gcp_package: Built, gcp_python: Path, world: World, tmp_path: Path
) -> None:
    told = json.dumps({"username": EMAIL, "password": PASSWORD}).encode()
    answer = json.dumps({"payload": {"data": base64.b64encode(told).decode()}}).encode()
    given = world.environment(tmp_path)
    with FakeHttp(lambda _: (200, {"Content-Type": "application/json"}, answer)) as store:
        reference = f"gcp-secret://p/syncagent-photos?endpoint={store.url}"
        given |= {"DTLPY_USERNAME": f"{reference}#username", "DTLPY_PASSWORD": f"{reference}#password"}
        world.put("by-reference")
        with Function(gcp_python, gcp_package.unpacked, *PUSH, given) as function:
            assert function.post(world.message("by-reference", "finalized")).status_code == 204, function.log
        assert {one.path for one in store.requests} == {
            "/v1/projects/p/secrets/syncagent-photos/versions/latest:access"
        }
    assert "by-reference" in world.items()
    del given["SYNCAGENT_CATALOG"], given["DATASET_ID"]
    with Function(gcp_python, gcp_package.unpacked, *EVENTARC, given) as function:
        assert function.post(*as_binary(world, "a", "finalized")).status_code == 500
    assert said(function, "SYNCAGENT_CATALOG"), function.log


@pytest.fixture
def no_emulator(world: World, tmp_path: Path) -> Iterator[tuple[dict[str, str], FakeHttp]]:
    """The environment of a function that has to sign, and who gives it tokens, each by its own path."""

    def reply(request: Request) -> Answer:
        told = {"access_token": f"of {request.path.partition('?')[0]}", "expires_in": 3600, "token_type": "Bearer"}  # fmt: skip
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    with FakeHttp(reply) as giver:
        more = {
            "STORAGE_EMULATOR_HOST": "", "API_ENDPOINT_OVERRIDE": world.bucket.url,
            "GCE_METADATA_HOST": giver.url.removeprefix("http://"),
        }  # fmt: skip
        yield world.environment(tmp_path / "home", **more), giver


def mapped(function: Function) -> str:
    """The files that a function's processes have in memory."""
    pid = function.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "".join(Path(f"/proc/{one}/maps").read_text() for one in (pid, *children))


def test_the_functions_own_account_is_used_and_nothing_is_loaded_that_signs(
    gcp_package: Built, gcp_python: Path, world: World, no_emulator: tuple[dict[str, str], FakeHttp]
) -> None:
    environment, giver = no_emulator
    world.put("by-account")
    del world.bucket.requests[:]
    with Function(gcp_python, gcp_package.unpacked, *PUSH, environment) as function:
        assert function.post(world.message("by-account", "finalized")).status_code == 204, function.log
        world.delete("by-account")
        assert function.post(world.message("by-account", "deleted")).status_code == 204, function.log
        assert "_ssl" in mapped(function)
        assert "cryptography" not in mapped(function)
        assert "access_token" not in "".join(function.log)
    (asked,) = giver.requests
    sent = {one.headers.get("authorization") for one in world.bucket.requests if "alt" not in one.query}
    assert sent - {None} == {f"Bearer of {asked.path.partition('?')[0]}"}
    assert "by-account" not in world.items()


def test_a_service_accounts_key_signs(
    gcp_package: Built, gcp_python: Path, world: World, no_emulator: tuple[dict[str, str], FakeHttp], tmp_path: Path
) -> None:  # fmt: skip
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    environment, giver = no_emulator
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": key.decode(),
        "client_email": "me@p.iam.gserviceaccount.com", "token_uri": f"{giver.url}/token",
    }  # fmt: skip
    (tmp_path / "account.json").write_text(json.dumps(account))
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "account.json")
    world.put("by-key")
    del world.bucket.requests[:]
    with Function(gcp_python, gcp_package.unpacked, *PUSH, environment) as function:
        assert function.post(world.message("by-key", "finalized")).status_code == 204, function.log
    assert [one.path for one in giver.requests] == ["/token"]
    assert {one.headers.get("authorization") for one in world.bucket.requests} == {"Bearer of /token"}
    assert "by-key" in world.items()


def test_nothing_was_written_into_the_function(gcp_package: Built, start: Start) -> None:
    start(PUSH)
    with ZipFile(gcp_package.archive) as archive:
        packed = set(archive.namelist())
    there = {
        path.relative_to(gcp_package.unpacked).as_posix()
        for path in gcp_package.unpacked.rglob("*")
        if path.is_file()
    }
    assert there == packed
