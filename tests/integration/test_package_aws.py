"""The AWS archive, run by Lambda's own runtime client in a Python that sees nothing else."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from syncagent.agent import Agent
from syncagent.config import load
from tests.keys import NASTY
from tests.rigs.between import Between
from tests.rigs.lambda_api import RIC, Function
from tests.rigs.packages import Built
from tests.rigs.s3 import S3Rig
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

HANDLER = "lambda_function.lambda_handler"


class World:
    """A bucket, a dataset of the server that mirrors it, and the function."""

    def __init__(self, s3: S3Rig, agent: Agent, catalog: Between) -> None:
        self.name, self.s3, self.agent, self.catalog = f"test-{uuid.uuid4().hex[:20]}", s3, agent, catalog
        s3.client.create_bucket(Bucket=self.name)
        self.dataset = agent.resolve(
            f"s3://{self.name}?endpoint={s3.endpoint}&region=us-east-1", name=self.name, create=True
        )

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "SYNCAGENT_CATALOG": f"dataloop+{self.catalog.url}", "DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD,
            "DATASET_ID": self.dataset.id, "SYNCAGENT_TEST_NO_BACKOFF": "1", **more,
        }  # fmt: skip

    def put(self, *keys: str) -> None:
        for key in keys:
            self.s3.client.put_object(Bucket=self.name, Key=key, Body=key.encode())

    def items(self) -> set[str]:
        return {item.key for item in self.agent.catalog.items(self.dataset.id)}

    def event(self, *keys: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
        return {
            "Records": [
                {"eventSource": "aws:s3", "eventName": name, "eventTime": "2026-11-25T00:00:00Z",
                 "s3": {"bucket": {"name": self.name}, "object": {"key": quote_plus(key)}}}
                for key in keys
            ]
        }  # fmt: skip


def messages(bodies: list[Any]) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": f"m{n}", "eventSource": "aws:sqs", "body": json.dumps(body)}
            for n, body in enumerate(bodies)
        ]
    }


@pytest.fixture(scope="module")
def world(s3_rig: S3Rig, server_rig: ServerRig) -> Iterator[World]:
    with Between(server_rig.url) as between, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        settings = load(catalog=f"dataloop+{server_rig.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD)
        with Agent(settings) as agent:
            yield World(s3_rig, agent, between)


@pytest.fixture(scope="module")
def function(
    aws_package: Built, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Function]:
    home = tmp_path_factory.mktemp("home")
    with Function(aws_package.unpacked, HANDLER, world.environment(SYNCAGENT_HOME=str(home))) as started:
        yield started


def test_the_python_that_runs_it_has_nothing_else(aws_package: Built) -> None:
    code = "import importlib.metadata as m; print(sorted(d.name for d in m.distributions()))"
    done = subprocess.run([str(RIC), "-c", code], capture_output=True, text=True, check=True, env={})
    assert not {"boto3", "httpx", "pydantic", "syncagent"} & set(json.loads(done.stdout.replace("'", '"')))


def test_an_object_comes_and_goes(function: Function, world: World) -> None:
    world.put("cats/a b+c.jpg")
    told = function.invoke(world.event("cats/a b+c.jpg"))
    assert (told.ok, told.body) == (True, None), function.log
    assert "cats/a b+c.jpg" in world.items()
    world.s3.client.delete_object(Bucket=world.name, Key="cats/a b+c.jpg")
    assert function.invoke(world.event("cats/a b+c.jpg", name="ObjectRemoved:Delete")).ok
    assert "cats/a b+c.jpg" not in world.items()


def test_every_key_that_the_bucket_can_hold(function: Function, world: World) -> None:
    keys = [key for key in NASTY if "\n" not in key and not key.endswith("/")]
    assert len(keys) > 10
    world.put(*keys)
    assert function.invoke(world.event(*keys)).ok, function.log
    assert set(keys) <= world.items()


def logged(function: Function, before: int) -> list[str]:
    """The lines of JSON in the function's log after some: the first of them comes a moment after the answer."""
    for _ in range(100):
        if lines := [line for line in function.log[before:] if line.startswith("{")]:
            return lines
        time.sleep(0.05)
    return []


def test_one_line_a_batch_without_a_key(function: Function, world: World) -> None:
    before = len(function.log)
    world.put("secret-name.jpg")
    assert function.invoke(world.event("secret-name.jpg")).ok
    lines = logged(function, before)
    assert json.loads(lines[-1])["settled"] == {"added": 1}
    assert "secret-name" not in "".join(function.log)
    assert PASSWORD not in "".join(function.log)


def test_messages_that_are_not_done_are_named(function: Function, world: World) -> None:
    world.put("good-1", "good-2")
    bodies = [world.event("good-1"), {"no": "event"}, world.event("good-2")]
    told = function.invoke(messages(bodies))
    assert (told.ok, told.body) == (True, {"batchItemFailures": [{"itemIdentifier": "m1"}]})
    assert {"good-1", "good-2"} <= world.items()


def test_what_is_no_event_is_an_error_and_the_next_event_is_not(function: Function, world: World) -> None:
    told = function.invoke({"no": "event"})
    assert not told.ok
    assert told.body["errorType"] == "BadEvent"
    assert told.body["errorMessage"]
    assert function.process.poll() is None
    assert function.invoke({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": world.name}).ok


def test_a_catalog_that_is_away_is_an_error_that_comes_again(function: Function, world: World) -> None:
    world.put("late.jpg")
    world.catalog.meddle = lambda _: (503, {}, b"")
    try:
        told = function.invoke(world.event("late.jpg"))
        queued = function.invoke(messages([world.event("late.jpg"), world.event("late.jpg")]))
    finally:
        world.catalog.meddle = lambda _: None
    assert not told.ok
    assert told.body["errorType"] == "Transient"
    assert "late.jpg" not in told.body["errorMessage"]
    assert queued.body == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m1"}]}
    assert function.invoke(world.event("late.jpg")).ok
    assert "late.jpg" in world.items()


def test_a_thousand_events_are_four_requests_of_the_catalog(function: Function, world: World) -> None:
    from moto.s3.models import s3_backends

    keys = [f"many/{number:04}.jpg" for number in range(1000)]
    for key in keys:  # not over HTTP: that takes ten seconds
        s3_backends["123456789012"]["aws"].put_object(world.name, key, b"x")
    before = len(world.catalog.requests)
    told = function.invoke(messages([world.event(key) for key in keys]))
    assert told.body == {"batchItemFailures": []}, function.log
    assert len(world.catalog.requests) - before <= 4
    assert set(keys) <= world.items()


def test_wrong_settings_are_told_and_nothing_else_is_needed(
    aws_package: Built, world: World, tmp_path: Path
) -> None:
    given = world.environment(SYNCAGENT_HOME=str(tmp_path))
    del given["SYNCAGENT_CATALOG"], given["DATASET_ID"]
    with Function(aws_package.unpacked, HANDLER, given) as started:
        told = started.invoke(world.event("a"))
    assert told.body["errorType"] == "ConfigError"
    assert "SYNCAGENT_CATALOG" in told.body["errorMessage"]


def test_a_secret_by_reference(
    aws_package: Built, world: World, tmp_path: Path, s3_rig: S3Rig, aws_client: Callable[[str], Any]
) -> None:
    told = json.dumps({"username": EMAIL, "password": PASSWORD})
    arn = aws_client("secretsmanager").create_secret(Name=f"s-{world.name}", SecretString=told)["ARN"]
    given = world.environment(
        SYNCAGENT_HOME=str(tmp_path), AWS_ENDPOINT_URL=s3_rig.endpoint, DTLPY_USERNAME=f"aws-secret://{arn}#username",
        DTLPY_PASSWORD=f"aws-secret://{arn}#password",
    )  # fmt: skip
    world.put("by-reference")
    with Function(aws_package.unpacked, HANDLER, given) as started:
        assert started.invoke(world.event("by-reference")).ok, started.log
    assert "by-reference" in world.items()


def test_label_files_are_left_to_the_sweep_by_an_archive_without_their_readers(
    aws_package: Built, world: World, tmp_path: Path
) -> None:
    labels = world.agent.catalog.labels
    labels.set_settings(world.dataset.id, {"sources": [{"prefix": "labels/", "format": "coco"}]})
    world.put("labels/all.json", "labels/more.json")
    with Function(aws_package.unpacked, HANDLER, world.environment(SYNCAGENT_HOME=str(tmp_path))) as started:
        for key in ("labels/all.json", "labels/more.json"):
            assert started.invoke(world.event(key)).ok, started.log
            assert key in world.items()
    assert "".join(started.log).count("label files are left to the next sweep") == 1


def test_nothing_was_written_into_the_function(aws_package: Built, function: Function) -> None:
    from zipfile import ZipFile

    with ZipFile(aws_package.archive) as archive:
        packed = set(archive.namelist())
    there = {
        path.relative_to(aws_package.unpacked).as_posix()
        for path in aws_package.unpacked.rglob("*")
        if path.is_file()
    }
    assert there == packed


@pytest.fixture
def aws_client(s3_rig: S3Rig) -> Iterator[Callable[[str], Any]]:
    import boto3

    made = []

    def client(service: str) -> Any:
        made.append(
            boto3.client(service, endpoint_url=s3_rig.endpoint, region_name="us-east-1", aws_access_key_id="testing",
                         aws_secret_access_key="testing")
        )  # fmt: skip
        return made[-1]

    yield client
    for one in made:
        one.close()
