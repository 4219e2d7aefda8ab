"""The contract of wiring, over every cloud and every way. A new one is right when this says so.

To add an implementation, add a `Rig` for it to `rig`.
"""

from __future__ import annotations

import copy
import io
import json
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import boto3
import pytest

from syncagent.drivers import azure_wiring, gcs_wiring, parse_url
from syncagent.drivers.queues import open_queue
from syncagent.drivers.wiring import Step, Target, Wiring, open_wiring
from syncagent.errors import NotFound
from syncagent.model import Action, DriverSpec, Integration
from tests.rigs.azure import AzureRig
from tests.rigs.fake_http import FakeHttp
from tests.rigs.ministack import KEYS, AwsRig
from tests.rigs.pubsub import PubSub
from tests.rigs.s3 import S3Rig
from tests.rigs.wiring import Manager, Notifications, remember_models

PATH = "in coming/2026"
"""Of the driver: with a space, which S3 wants encoded."""


SERVICES = ("s3", "sqs", "events", "lambda", "iam")
Clients = dict[str, Any]


class Rig:
    """A fresh bucket, in which others have wired something already."""

    where: str
    """The driver's URL."""
    to: str
    integration: Integration | None = None
    queue: str | None = None
    """A queue's URL, where an emulator needs one."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.id = uuid.uuid4().hex[:24]
        self.name = f"photos-{self.id[:8]}"
        self._opened: Wiring | None = None

    @property
    def target(self) -> Target:
        return Target(self.name, self.id, self.to, self.queue)

    @property
    def spec(self) -> DriverSpec:
        return parse_url(self.where)

    def open(self, spec: DriverSpec | None = None, target: Target | None = None) -> Wiring:
        """The bucket's wiring: the same one again, for its clients take a while to make, or another one."""
        own = spec is None and target is None
        if self._opened is not None and own:
            return self._opened
        wiring = open_wiring(spec or self.spec, target or self.target, self.integration)
        self.stack.callback(wiring.close)
        if own:
            self._opened = wiring
        return wiring

    def others(self) -> Any:
        """What others wired, as it is told, word for word."""
        raise NotImplementedError

    def alter(self) -> None:
        """Somebody changes what tells of events: their prefix."""
        raise NotImplementedError

    def lose(self) -> None:
        """Somebody takes what tells of events away."""
        raise NotImplementedError

    def fill(self) -> None:
        """A message waits in our queue."""
        raise NotImplementedError

    def empty(self) -> None:
        """None waits any more."""


class S3(Rig):
    def __init__(self, to: str, aws: S3Rig | AwsRig, clients: dict[str, Clients]) -> None:
        super().__init__()
        self.to, self.integration = to, aws.integration
        self.bucket = f"test-{self.id}"
        if (kept := clients.get(aws.endpoint)) is None:
            kept = {name: boto3.client(name, endpoint_url=aws.endpoint, **KEYS) for name in SERVICES}
            clients[aws.endpoint] = kept
        self.s3, self.sqs, self.events, self.functions, self.iam = (kept[name] for name in SERVICES)
        self.s3.create_bucket(Bucket=self.bucket)
        self.where = f"s3://{self.bucket}/{PATH}?endpoint={aws.endpoint}&region=us-east-1"
        url = self.sqs.create_queue(QueueName=f"others-{self.id}")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        rules = [{"Name": "prefix", "Value": "thumbs/"}, {"Name": "suffix", "Value": ".png"}]
        theirs = {
            "Id": "theirs",
            "QueueArn": arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": rules}},
        }
        self.put({"QueueConfigurations": [theirs]})

    @property
    def target(self) -> Target:
        function = self.function() if self.to == "function" else None
        return Target(self.name, self.id, self.to, self.queue, function)

    def function(self) -> str:
        try:
            return str(self.functions.get_function_configuration(FunctionName=self.name)["FunctionArn"])
        except self.functions.exceptions.ResourceNotFoundException:
            role = self.iam.create_role(RoleName=self.name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
            with zipfile.ZipFile(code := io.BytesIO(), "w"):
                pass
            made = self.functions.create_function(
                FunctionName=self.name,
                Runtime="python3.13",
                Role=role,
                Handler="a.b",
                Code={"ZipFile": code.getvalue()},
            )
            self.functions.add_permission(
                FunctionName=self.name,
                StatementId="theirs",
                Action="lambda:InvokeFunction",
                Principal="sns.amazonaws.com",
            )
            return str(made["FunctionArn"])

    def document(self) -> dict[str, Any]:
        told = self.s3.get_bucket_notification_configuration(Bucket=self.bucket)
        return {name: value for name, value in told.items() if name != "ResponseMetadata"}

    def put(self, document: dict[str, Any]) -> None:
        self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=document)

    def others(self) -> Any:
        mine = f"syncagent-{self.id}"
        document = self.document()
        told = {
            kind: [one for one in entries if one["Id"] != mine]
            for kind, entries in document.items()
            if isinstance(entries, list) and any(one["Id"] != mine for one in entries)
        }
        if self.to != "function":
            return told
        policy = json.loads(self.functions.get_policy(FunctionName=self.function())["Policy"])
        return told, [one for one in policy["Statement"] if one["Sid"] != mine]

    def alter(self) -> None:
        if self.to == "eventbridge":
            rule = f"syncagent-{self.id}"
            self.events.put_rule(Name=rule, EventPattern='{"source": ["aws.s3"]}', State="ENABLED")
            return
        document = self.document()
        for kind, entries in document.items():
            for one in entries if isinstance(entries, list) else ():
                if one["Id"] == f"syncagent-{self.id}":
                    one["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": f"else/{kind}"}]}}
        self.put(document)

    def lose(self) -> None:
        if self.to == "eventbridge":
            rule = f"syncagent-{self.id}"
            self.events.remove_targets(Rule=rule, Ids=["syncagent"])
            self.events.delete_rule(Name=rule)
            return
        document = self.document()
        for kind, entries in document.items():
            if isinstance(entries, list):
                document[kind] = [one for one in entries if one["Id"] != f"syncagent-{self.id}"]
        self.put(document)

    def empty(self) -> None:
        # S3 sends a test event to a queue that it is bound to.
        if self.to == "queue":
            url = self.sqs.get_queue_url(QueueName=f"syncagent-{self.name}")["QueueUrl"]
            self.sqs.purge_queue(QueueUrl=url)

    def fill(self) -> None:
        url = self.sqs.get_queue_url(QueueName=f"syncagent-{self.name}")["QueueUrl"]
        self.sqs.send_message(QueueUrl=url, MessageBody="x")


class Gcs(Rig):
    def __init__(self, to: str, fake: PubSub, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.to, self.fake = to, fake
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{fake.port}")
        monkeypatch.setattr(gcs_wiring, "_LOOK", 0.2)
        self.bucket = f"test-{self.id}"
        self.notifications = Notifications(self.bucket)
        server = self.stack.enter_context(FakeHttp(self.notifications))
        self.where = f"gs://{self.bucket}/{PATH}?endpoint={server.url}&project=test-project"
        theirs = {
            "topic": "//pubsub.googleapis.com/projects/others-project/topics/theirs",
            "payload_format": "NONE",
            "etag": "7",
        }
        self.mine[str(next(self.notifications.numbers))] = {
            **theirs,
            "id": "1",
            "event_types": ["OBJECT_FINALIZE"],
        }

    @property
    def mine(self) -> dict[str, Any]:
        return self.notifications.of[self.bucket]

    @property
    def target(self) -> Target:
        to = (
            ("https://photos-x.a.run.app/push", "pusher@test.iam.gserviceaccount.com")
            if self.to == "function"
            else (None, None)
        )
        return Target(self.name, self.id, self.to, self.queue, *to)

    def others(self) -> Any:
        return copy.deepcopy([one for one in self.mine.values() if one["topic"].endswith("/theirs")])

    def ours(self) -> str:
        return next(id for id, one in self.mine.items() if not one["topic"].endswith("/theirs"))

    def alter(self) -> None:
        self.mine[self.ours()]["object_name_prefix"] = "else/"

    def lose(self) -> None:
        del self.mine[self.ours()]

    def fill(self) -> None:
        from google.pubsub_v1 import types

        message = types.PubsubMessage(data=b"{}", attributes={"eventType": "OBJECT_FINALIZE"})
        self.fake._publish(f"projects/test-project/topics/syncagent-{self.name}", message)


class Azure(Rig):
    def __init__(self, to: str, rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.to, self.integration = to, rig.integration
        self.manager = Manager()
        server = self.stack.enter_context(FakeHttp(self.manager))
        monkeypatch.setitem(azure_wiring._MANAGERS, "core.windows.net", server.url)
        monkeypatch.setattr(azure_wiring, "_STEP", 0.01)
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        self.where = f"az://devstoreaccount1/test-{self.id}/{PATH}?endpoint={rig.endpoint}"
        if to == "queue":
            self.queue = f"azqueue://devstoreaccount1/{self.name}?endpoint={rig.queues}"
        self.manager.there["theirs"] = {
            "name": "theirs",
            "properties": {"destination": {"endpointType": "WebHook"}},
        }

    @property
    def target(self) -> Target:
        function = (
            "/subscriptions/0002/resourceGroups/Media/providers/Microsoft.Web/sites/app/functions/on_event"
        )
        return Target(self.name, self.id, self.to, self.queue, function if self.to == "function" else None)

    def others(self) -> Any:
        return copy.deepcopy(self.manager.there["theirs"])

    def alter(self) -> None:
        self.manager.there[f"syncagent-{self.id}"]["properties"]["filter"]["subjectBeginsWith"] = "/else"

    def lose(self) -> None:
        del self.manager.there[f"syncagent-{self.id}"]

    def fill(self) -> None:
        from azure.storage.queue import QueueClient

        assert self.queue is not None and self.integration is not None
        key = {"account_name": "devstoreaccount1", "account_key": self.integration.options["accountKey"]}
        with QueueClient(self.queue.partition("endpoint=")[2], self.name, credential=key) as client:
            client.send_message("x")


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Clients]]:
    """Clients by emulator: each takes a while to make."""
    made: dict[str, Clients] = {}
    yield made
    for kept in made.values():
        for one in kept.values():
            one.close()


RIGS = [
    "s3-queue",
    "s3-eventbridge",
    "s3-function",
    "gcs-queue",
    "gcs-function",
    "azure-queue",
    "azure-function",
]
QUEUES = [name for name in RIGS if "function" not in name]


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    remember_models(monkeypatch)
    cloud, _, to = request.param.partition("-")
    made: Rig
    if cloud == "s3":
        # moto has functions, and does not tell that EventBridge is on; ministack, the other way round.
        emulator = request.getfixturevalue("aws_rig" if to == "eventbridge" else "s3_rig")
        made = S3(to, emulator, request.getfixturevalue("clients"))
    elif cloud == "gcs":
        made = Gcs(to, request.getfixturevalue("pubsub_rig"), monkeypatch)
    else:
        made = Azure(to, request.getfixturevalue("azure_rig"), monkeypatch)
    with made.stack:
        yield made


def apply(wiring: Wiring, *, unbind: bool = False) -> list[Step]:
    steps = wiring.plan(unbind=unbind)
    for step in steps:
        step.apply()
    return steps


def actions(steps: list[Step]) -> set[Action]:
    return {step.action for step in steps}


def test_what_is_not_there_is_made_and_then_is_as_it_should_be(rig: Rig) -> None:
    wiring, others = rig.open(), rig.others()
    planned = wiring.plan()
    assert actions(planned) <= {Action.ADDED, Action.SAME}
    assert Action.ADDED in actions(planned)
    assert wiring.plan() == planned, "planning changes nothing"
    assert rig.others() == others
    assert apply(wiring) == planned
    assert actions(wiring.plan()) == {Action.SAME}
    assert actions(rig.open(rig.spec).plan()) == {Action.SAME}, "nothing is remembered"
    assert len(wiring.plan()) == len(planned), "each thing is named, whether it is there or not"
    assert rig.others() == others
    assert all(step.what for step in planned)


def test_doing_it_again_changes_nothing(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    others = rig.others()
    assert actions(apply(wiring)) == {Action.SAME}
    assert rig.others() == others
    assert actions(wiring.plan()) == {Action.SAME}


def test_what_stopped_half_way_goes_on_from_there(rig: Rig) -> None:
    wiring = rig.open()
    for _ in wiring.plan():
        pending = [step for step in wiring.plan() if step.action is not Action.SAME]
        if pending:  # one step may have made the next one needless
            pending[0].apply()
    assert actions(wiring.plan()) == {Action.SAME}


def test_altered_wiring_is_found_and_made_right(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    others = rig.others()
    rig.alter()
    steps = wiring.plan()
    assert Action.CHANGED in actions(steps)
    assert Action.ADDED not in actions(steps)
    for step in steps:
        step.apply()
    assert actions(wiring.plan()) == {Action.SAME}
    assert rig.others() == others


def test_lost_wiring_is_found_and_made_again(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    rig.lose()
    steps = wiring.plan()
    assert [step.action for step in steps if step.action is not Action.SAME] == [Action.ADDED]
    for step in steps:
        step.apply()
    assert actions(wiring.plan()) == {Action.SAME}


def test_another_path_changes_the_wiring(rig: Rig) -> None:
    apply(rig.open())
    others = rig.others()
    elsewhere = replace(rig.spec, path="out going")
    wiring = rig.open(elsewhere)
    assert Action.CHANGED in actions(wiring.plan())
    apply(wiring)
    assert actions(wiring.plan()) == {Action.SAME}
    assert actions(rig.open().plan()) != {Action.SAME}
    assert rig.others() == others


def test_unbinding_removes_ours_only(rig: Rig) -> None:
    wiring, others = rig.open(), rig.others()
    before = wiring.plan()
    apply(wiring)
    rig.empty()
    removed = wiring.plan(unbind=True)
    assert actions(removed) <= {Action.REMOVED, Action.SAME}
    assert Action.REMOVED in actions(removed)
    assert actions(wiring.plan()) == {Action.SAME}, "planning changes nothing"
    for step in removed:
        step.apply()
    assert rig.others() == others
    again = wiring.plan()
    kept = {step.what for step in removed if step.action is Action.SAME}
    assert [step for step in again if step.action is Action.SAME and step.what not in kept] == [
        step for step in before if step.action is Action.SAME and step.what not in kept
    ], "what bind made is gone"
    assert Action.ADDED in actions(again)


def test_unbinding_twice_is_no_error(rig: Rig) -> None:
    wiring = rig.open()
    assert Action.REMOVED not in actions(apply(wiring, unbind=True)), "there is nothing yet"
    apply(wiring)
    rig.empty()
    steps = wiring.plan(unbind=True)
    for step in [*steps, *steps]:
        step.apply()
    assert Action.REMOVED not in actions(apply(wiring, unbind=True))


def test_two_datasets_of_one_bucket_do_not_touch_each_other(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    target = replace(rig.target, dataset=f"{rig.name}-b", id=uuid.uuid4().hex[:24])
    if rig.queue:
        target = replace(target, queue=rig.queue.replace(rig.name, f"{rig.name}-b"))
    other = rig.open(replace(rig.spec, path="raw"), target)
    apply(other)
    assert actions(wiring.plan()) == actions(other.plan()) == {Action.SAME}
    apply(other, unbind=True)
    assert actions(wiring.plan()) == {Action.SAME}


@pytest.mark.parametrize("rig", QUEUES, indirect=True)
def test_the_queue_that_is_told_is_the_one_that_was_made(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    rig.empty()
    assert wiring.queue is not None
    queue = open_queue(wiring.queue, rig.integration)
    rig.stack.callback(queue.close)
    rig.fill()
    assert len(queue.receive(1, 5)) == 1


@pytest.mark.parametrize("rig", QUEUES, indirect=True)
def test_a_queue_with_messages_is_kept(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    rig.empty()
    rig.fill()
    steps = apply(wiring, unbind=True)
    assert [step.what for step in steps if step.action is Action.SAME and "message" in step.detail] != []
    assert wiring.queue is not None
    queue = open_queue(wiring.queue, rig.integration)
    rig.stack.callback(queue.close)
    queue.delete(found := queue.receive(1, 10))
    assert len(found) == 1, "it is there, and free"
    apply(wiring, unbind=True)
    with pytest.raises(NotFound):
        queue.receive(1, 0.5)


@pytest.mark.parametrize("rig", QUEUES, indirect=True)
def test_a_queue_that_bind_did_not_make_is_kept(rig: Rig) -> None:
    wiring = rig.open()
    apply(wiring)
    rig.empty()
    if isinstance(rig, S3):
        url = rig.sqs.get_queue_url(QueueName=f"syncagent-{rig.name}")["QueueUrl"]
        rig.sqs.untag_queue(QueueUrl=url, TagKeys=["syncagent"])
    elif isinstance(rig, Gcs):
        path = f"projects/test-project/subscriptions/syncagent-{rig.name}"
        rig.fake.subscriptions[path].labels.clear()
    else:
        assert isinstance(rig, Azure) and rig.queue is not None
        from azure.storage.queue import QueueClient

        assert rig.integration is not None
        key = {"account_name": "devstoreaccount1", "account_key": rig.integration.options["accountKey"]}
        with QueueClient(rig.queue.partition("endpoint=")[2], rig.name, credential=key) as client:
            client.set_queue_metadata({})
    steps = apply(wiring, unbind=True)
    assert "kept: bind did not make it" in {step.detail for step in steps}
    assert wiring.queue is not None
    queue = open_queue(wiring.queue, rig.integration)
    rig.stack.callback(queue.close)
    assert queue.receive(1, 0.5) == []


def test_nothing_secret_is_told(rig: Rig) -> None:
    wiring = rig.open()
    told = f"{wiring!r} {wiring.plan()} {wiring.queue} {rig.target}"
    for secret in rig.integration.options.values() if rig.integration else ():
        if secret != "testing":
            assert secret not in told
    wiring.close()
    wiring.close()
