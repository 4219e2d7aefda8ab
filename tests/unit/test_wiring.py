"""What is particular about each cloud's wiring, and its errors. What all have in common is in tests/contract/test_wiring.py."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import boto3
import pytest

from syncagent.drivers import azure_wiring, gcs_wiring, parse_url, s3_documents, s3_wiring
from syncagent.drivers.s3_documents import allows, covers, overlapping
from syncagent.drivers.wiring import Step, Target, Wiring, name_of, open_wiring
from syncagent.errors import (
    AccessDenied,
    ConfigError,
    Conflict,
    NotFound,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.handlers import azure_events, gcs_events, s3_events
from syncagent.model import Action, Integration
from tests.rigs.azure import AzureRig
from tests.rigs.fake_http import Answer, FakeHttp, Request
from tests.rigs.ministack import KEYS
from tests.rigs.pubsub import PubSub
from tests.rigs.s3 import S3Rig
from tests.rigs.wiring import Manager, Notifications, remember_models

KEY = Integration("test", "s3", {"key": "testing", "secret": "testing"})
ARN = "arn:aws:sqs:us-east-1:123456789012:photos"


def find(steps: list[Step], what: str) -> Step:
    (found,) = (step for step in steps if step.what.startswith(what))
    return found


def apply(wiring: Wiring, *, unbind: bool = False) -> list[Step]:
    steps = wiring.plan(unbind=unbind)
    for step in steps:
        step.apply()
    return steps


# -- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "longest", "allowed", "wanted"),
    [
        ("photos", 75, "A-Za-z0-9_-", "syncagent-photos"),
        ("my_photos", 75, "A-Za-z0-9_-", "syncagent-my_photos"),
        ("bucket/train set", 75, "A-Za-z0-9_-", "syncagent-bucket-train-set-"),
        ("Photos", 63, "a-z0-9-", "syncagent-photos-"),
        ("写真", 75, "A-Za-z0-9_-", "syncagent-"),
        ("-", 63, "a-z0-9-", "syncagent-"),
        ("a" * 99, 63, "a-z0-9-", "syncagent-" + "a" * 44 + "-"),
    ],
)
def test_names_are_cleaned_and_stay_different(dataset: str, longest: int, allowed: str, wanted: str) -> None:
    name = name_of(dataset, longest=longest, allowed=allowed)
    assert (
        name == wanted
        if not wanted.endswith("-")
        else name.startswith(wanted) and len(name) == len(wanted) + 8
    )
    assert len(name) <= longest
    assert name == name_of(dataset, longest=longest, allowed=allowed)
    assert name != name_of(f"{dataset}?", longest=longest, allowed=allowed)


@pytest.mark.parametrize(
    ("url", "changes", "message"),
    [
        ("s3://bucket", {"to": "pubsub"}, "takes queue, function, eventbridge"),
        ("s3://bucket", {"to": "eventgrid"}, "takes queue, function, eventbridge"),
        ("gs://bucket", {"to": "eventbridge"}, "takes queue, pubsub, function"),
        ("az://account/container", {"to": "pubsub"}, "takes queue, eventgrid, function"),
        ("s3://bucket", {"to": "function"}, "--function"),
        ("s3://bucket", {"function": "f"}, "--to function"),
        ("s3://bucket", {"queue": "pubsub://project/name"}, "sqs:// only"),
        ("gs://bucket", {"queue": "sqs://name"}, "pubsub:// only"),
        ("az://account/container", {"queue": "servicebus://name/queue"}, "azqueue:// only"),
        ("s3://bucket", {"queue": "sqs://photos.fifo?region=eu-west-1"}, "FIFO"),
        ("gs://bucket", {"to": "function", "function": "photos"}, "https://"),
        ("az://account/container", {"to": "function", "function": "photos"}, "/functions/NAME"),
        ("memory://bucket", {}, "no bucket that tells of events"),
        ("/a folder", {}, "watch:///a%20folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_asked(
    url: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as told:
        open_wiring(parse_url(url), Target("photos", "1", **changes))
    assert message in str(told.value)


def test_the_events_that_are_bound_are_those_that_items_depend_on() -> None:
    for names, bound in (
        (s3_events.NAMES, [name.removeprefix("s3:") for name in s3_documents.EVENTS]),
        (s3_events.NAMES, s3_documents.DETAILS),
        (gcs_events.NAMES, gcs_wiring.EVENTS),
        (azure_events.NAMES, [name.removeprefix("Microsoft.Storage.") for name in azure_wiring.EVENTS]),
    ):
        assert [name for name in bound if names.get(name) is None] == []


# -- S3 ------------------------------------------------------------------------------------------


class Aws:
    """A fresh bucket at moto."""

    def __init__(self, rig: S3Rig, stack: ExitStack) -> None:
        self.stack, self.endpoint = stack, rig.endpoint
        self.id = uuid.uuid4().hex[:24]
        self.bucket = f"test-{self.id}"
        self.s3, self.sqs = rig.client, boto3.client("sqs", endpoint_url=rig.endpoint, **KEYS)
        stack.callback(self.sqs.close)
        self.s3.create_bucket(Bucket=self.bucket)
        self.target = Target("photos", self.id, queue=f"sqs://photos-{self.id}?region=us-east-1")

    def open(self, path: str = "", **changes: Any) -> Wiring:
        spec = parse_url(f"s3://{self.bucket}{path}?endpoint={self.endpoint}&region=us-east-1")
        wiring = open_wiring(spec, replace(self.target, **changes), KEY)
        self.stack.callback(wiring.close)
        return wiring

    def queue(self, **attributes: str) -> str:
        """The queue that is bound, made before; its ARN."""
        url = self.sqs.create_queue(QueueName=f"photos-{self.id}", Attributes=attributes)["QueueUrl"]
        told = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(told["Attributes"]["QueueArn"])

    def policy(self) -> dict[str, Any]:
        url = self.sqs.get_queue_url(QueueName=f"photos-{self.id}")["QueueUrl"]
        told = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return dict(json.loads(told.get("Policy") or "{}"))

    def document(self) -> dict[str, Any]:
        told = self.s3.get_bucket_notification_configuration(Bucket=self.bucket)
        return {name: value for name, value in told.items() if name != "ResponseMetadata"}

    def put(self, *entries: dict[str, Any]) -> None:
        document = {"QueueConfigurations": list(entries)}
        self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=document)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_models(monkeypatch)


@pytest.fixture
def aws(s3_rig: S3Rig) -> Iterator[Aws]:
    with ExitStack() as stack:
        yield Aws(s3_rig, stack)


def entry(
    arn: str, id: str = "theirs", prefix: str = "", events: tuple[str, ...] = s3_documents.EVENTS
) -> dict[str, Any]:
    rules = [{"Name": "prefix", "Value": prefix}] if prefix else []
    told = {"Id": id, "QueueArn": arn, "Events": list(events)}
    return {**told, "Filter": {"Key": {"FilterRules": rules}}} if rules else told


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", None),
        ("/raw", "raw/"),
        ("/in%20coming/a%2Bb%26c%3D1", "in+coming/a%2Bb%26c%3D1/"),
        ("/%E5%86%99%E7%9C%9F", "%E5%86%99%E7%9C%9F/"),
        ("/tra", "tra/"),
        ("/a~*(1)!", "a%7E*%281%29%21/"),
    ],
)
def test_the_filter_is_the_path_as_s3_writes_keys(aws: Aws, path: str, value: str | None) -> None:
    apply(aws.open(path))
    (told,) = aws.document()["QueueConfigurations"]
    rules = told.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    assert [one["Value"] for one in rules] == ([value] if value else [])
    assert sorted(told["Events"]) == sorted(s3_documents.EVENTS)
    assert told["Id"] == f"syncagent-{aws.id}"


def test_a_prefix_is_no_folder(aws: Aws) -> None:
    spec = parse_url(f"s3://{aws.bucket}/tra?scope=prefix&endpoint={aws.endpoint}&region=us-east-1")
    wiring = open_wiring(spec, aws.target, KEY)
    aws.stack.callback(wiring.close)
    apply(wiring)
    assert aws.document()["QueueConfigurations"][0]["Filter"]["Key"]["FilterRules"][0]["Value"] == "tra"


def test_a_queue_that_is_made_keeps_messages_and_has_dead_letters(aws: Aws) -> None:
    apply(aws.open())
    url = aws.sqs.get_queue_url(QueueName=f"photos-{aws.id}")["QueueUrl"]
    told = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert told["MessageRetentionPeriod"] == "1209600"
    redrive = json.loads(told["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith(f":photos-{aws.id}-dead")
    assert int(redrive["maxReceiveCount"]) == 100
    assert aws.sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"syncagent": "bind"}
    aws.sqs.delete_queue(QueueUrl=aws.sqs.get_queue_url(QueueName=f"photos-{aws.id}-dead")["QueueUrl"])
    lost = [step for step in aws.open().plan() if step.action is not Action.SAME]
    assert [(step.action, step.what) for step in lost] == [(Action.ADDED, f"queue photos-{aws.id}-dead")]


def test_a_queue_that_was_there_is_left_as_it_is_but_for_one_statement(aws: Aws) -> None:
    theirs = {
        "Sid": "theirs", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::210987654321:root"}, "Action": "sqs:*", "Resource": "*",
    }  # fmt: skip
    arn = aws.queue(
        Policy=json.dumps({"Version": "2008-10-17", "Id": "old", "Statement": theirs}), DelaySeconds="3"
    )
    steps = apply(aws.open())
    assert [step.what for step in steps if step.action is Action.SAME] == [f"queue photos-{aws.id}"]
    policy = aws.policy()
    assert (policy["Version"], policy["Id"], policy["Statement"][0]) == ("2008-10-17", "old", theirs)
    assert policy["Statement"][1] == {
        "Sid": f"Syncagent{aws.id}", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {
            "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{aws.bucket}"}, "StringEquals": {"aws:SourceAccount": "123456789012"},
        },
    }  # fmt: skip
    steps = apply(aws.open(), unbind=True)
    assert find(steps, "queue").detail == "kept: bind did not make it"
    assert aws.policy()["Statement"] == [theirs]


def test_a_statement_that_was_altered_is_made_right(aws: Aws) -> None:
    apply(aws.open())
    url = aws.sqs.get_queue_url(QueueName=f"photos-{aws.id}")["QueueUrl"]
    policy = aws.policy()
    right = policy["Statement"][0]["Condition"]
    policy["Statement"][0]["Condition"] = {"StringEquals": {"aws:SourceAccount": "1"}}
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    assert find(aws.open().plan(), "policy").action is Action.CHANGED
    apply(aws.open())
    assert [one["Condition"] for one in aws.policy()["Statement"]] == [right]


def test_others_that_send_to_our_queue_keep_it(aws: Aws) -> None:
    one, other = aws.open("/a"), aws.open("/b", dataset="second", id="b" * 24)
    apply(one)
    apply(other)
    steps = apply(one, unbind=True)
    assert find(steps, "queue").detail == "kept: others send to it"
    assert {step.action for step in other.plan()} == {Action.SAME}
    # S3 sent test events.
    aws.sqs.purge_queue(QueueUrl=aws.sqs.get_queue_url(QueueName=f"photos-{aws.id}")["QueueUrl"])
    last = apply(other, unbind=True)
    assert [step.what for step in last if step.action is Action.REMOVED and step.what.startswith("queue")] == [
        f"queue photos-{aws.id}", f"queue photos-{aws.id}-dead",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "events", "suffix", "stands"),
    [
        ("", ("s3:ObjectCreated:*",), "", True),
        ("raw/2026/", ("s3:ObjectCreated:Put",), "", True),
        ("ra", ("s3:ObjectRemoved:DeleteMarkerCreated",), ".jpg", True),
        ("row/", ("s3:ObjectCreated:*",), "", False),
        ("raw/", ("s3:ObjectTagging:*", "s3:Replication:*"), "", False),
    ],
)
def test_an_entry_in_the_way_is_named(
    aws: Aws, prefix: str, events: tuple[str, ...], suffix: str, stands: bool
) -> None:
    told = entry(aws.queue().replace("photos", "theirs"), "nightly", prefix, events)
    aws.sqs.create_queue(QueueName=f"theirs-{aws.id}")
    if suffix:
        told["Filter"]["Key"]["FilterRules"].append({"Name": "suffix", "Value": suffix})
    aws.put(told)
    wiring = aws.open("/raw")
    step = find(wiring.plan(), "notification")
    if not stands:
        assert step.action is Action.ADDED
        return
    assert step.action is Action.FAILED
    with pytest.raises(ConfigError, match=r"'nightly' .*--to eventbridge"):
        step.apply()
    assert len(aws.document()["QueueConfigurations"]) == 1


def test_an_entry_that_does_the_same_already_is_enough(aws: Aws) -> None:
    arn = aws.queue()
    aws.put(entry(arn, "by hand", "ra", (*s3_documents.EVENTS, "s3:ObjectAcl:Put")))
    wiring = aws.open("/raw")
    assert find(wiring.plan(), "notification").detail == "not made by bind"
    apply(wiring)
    assert [one["Id"] for one in aws.document()["QueueConfigurations"]] == ["by hand"]
    assert not any(step.what.startswith("notification") for step in wiring.plan(unbind=True))
    # One that tells less is none.
    aws.put(entry(arn, "by hand", "raw/", s3_documents.EVENTS[:2]))
    less = find(wiring.plan(), "notification")
    assert less.action is Action.FAILED
    assert "remove it, and run it again" in less.detail


def test_an_entry_that_matches_no_key_is_not_enough(aws: Aws) -> None:
    arn = aws.queue()
    for value, enough in (("day%3D1/", True), ("day=1/", False)):
        aws.put(entry(arn, "by hand", value))
        found = find(aws.open("/day%3D1").plan(), "notification")
        assert found.action is (Action.SAME if enough else Action.FAILED), value


def test_another_datasets_queue_that_tells_of_both_is_named(aws: Aws) -> None:
    apply(aws.open("/raw"))
    inner = {"dataset": "second", "id": "b" * 24}
    step = find(aws.open("/raw/new", **inner, queue=None).plan(), "notification")
    assert step.action is Action.FAILED
    url = f"sqs://photos-{aws.id}?region=us-east-1&endpoint={aws.endpoint}"
    assert f"--queue '{url}'" in step.detail
    # As it is said, so it is done; and who unbinds is told who goes without.
    apply(second := aws.open("/raw/new", **inner, queue=url))
    assert {step.action for step in second.plan()} == {Action.SAME}
    assert "bind them again" in find(aws.open("/raw").plan(unbind=True), "notification").detail
    assert find(second.plan(unbind=True), "policy").action is Action.REMOVED
    apply(second, unbind=True)
    assert find(aws.open("/raw").plan(unbind=True), "notification").detail == ""


def test_what_others_write_between_two_tries_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    theirs = f"<QueueConfiguration><Id>theirs</Id><Queue>{ARN}</Queue><Event>s3:ObjectTagging:*</Event></QueueConfiguration>"
    document = b"<NotificationConfiguration/>"
    tries = 0

    def reply(request: Request) -> Answer:
        nonlocal document, tries
        if request.method == "PUT":
            tries += 1
            if tries == 1:  # the queue's policy is not known everywhere yet, and somebody else is faster
                document = f"<NotificationConfiguration>{theirs}</NotificationConfiguration>".encode()
                return s3_error(400, "InvalidArgument")
            document = request.body
            return 200, {}, b""
        return s3_answers((200, {}, b""), told=document)(request)

    with FakeHttp(reply) as server:
        spec = parse_url(f"s3://b?endpoint={server.url}&region=us-east-1")
        wiring = open_wiring(spec, Target("photos", "1", queue="sqs://photos"), KEY)
        apply(wiring)
        wiring.close()
    assert tries == 2
    assert b"<Id>theirs</Id>" in document
    assert b"<Id>syncagent-1</Id>" in document


def test_what_others_write_after_the_plan_is_kept(aws: Aws) -> None:
    wiring = aws.open("/raw")
    steps = wiring.plan()
    aws.put(entry(aws.queue(), "theirs", "thumbs/"))
    with pytest.raises(Conflict, match="somebody else made queue"):
        for step in steps:
            step.apply()
    apply(wiring)
    assert {one["Id"] for one in aws.document()["QueueConfigurations"]} == {"theirs", f"syncagent-{aws.id}"}
    steps = aws.open("/new").plan()
    aws.put(*aws.document()["QueueConfigurations"], entry(aws.queue(), "late", "new/x"))
    with pytest.raises(ConfigError, match="'late'"):
        find(steps, "notification").apply()
    assert len(aws.document()["QueueConfigurations"]) == 3


def test_another_way_takes_the_place_of_the_old_one(aws: Aws, aws_rig: Any) -> None:
    bucket = aws.bucket
    aws_rig.s3.create_bucket(Bucket=bucket)
    spec = parse_url(f"s3://{bucket}?endpoint={aws_rig.endpoint}&region=us-east-1")
    target = replace(aws.target, queue=None, dataset=f"photos-{aws.id}")
    for to in ("queue", "eventbridge"):
        wiring = open_wiring(spec, replace(target, to=to), KEY)
        aws.stack.callback(wiring.close)
        steps = apply(wiring)
        assert {step.action for step in wiring.plan()} == {Action.SAME}
    assert find(steps, "policy").action is Action.CHANGED
    assert find(steps, "notification").action is Action.REMOVED
    assert [step.what.split()[0] for step in steps[-2:]] == ["EventBridge", "notification"], (
        "the new way before the old one goes"
    )
    told = aws_rig.s3.get_bucket_notification_configuration(Bucket=bucket)
    assert "QueueConfigurations" not in told
    assert "EventBridgeConfiguration" in told
    removed = apply(wiring, unbind=True)
    assert find(removed, "EventBridge").detail == "kept on: others' rules may need it"
    assert "EventBridgeConfiguration" in aws_rig.s3.get_bucket_notification_configuration(Bucket=bucket)


def test_a_rule_that_is_altered_or_shared(aws: Aws, aws_rig: Any) -> None:
    aws_rig.s3.create_bucket(Bucket=aws.bucket)
    events = boto3.client("events", endpoint_url=aws_rig.endpoint, **KEYS)
    aws.stack.callback(events.close)
    spec = parse_url(f"s3://{aws.bucket}/raw?endpoint={aws_rig.endpoint}&region=us-east-1")
    target = replace(aws.target, to="eventbridge")
    apply(first := open_wiring(spec, target, KEY))
    apply(
        second := open_wiring(
            replace(spec, path="raw/new"), replace(target, dataset="second", id="b" * 24), KEY
        )
    )
    for wiring in (first, second):
        aws.stack.callback(wiring.close)
    assert find(second.plan(), "rule").detail == "shared with another dataset"
    assert "bind them again" in find(first.plan(unbind=True), "rule").detail
    name = f"syncagent-{aws.id}"
    (told,) = events.list_targets_by_rule(Rule=name)["Targets"]
    events.put_targets(Rule=name, Targets=[{**told, "InputPath": "$.detail.object"}])
    assert find(first.plan(), "rule").action is Action.CHANGED
    apply(first)
    assert events.list_targets_by_rule(Rule=name)["Targets"] == [told]


def test_a_rule_of_our_template_is_enough(aws: Aws, aws_rig: Any) -> None:
    """The one of deploy/aws/template.yaml, with its queue's policy."""
    bucket, name = aws.bucket, f"stack-{aws.id}"
    aws_rig.s3.create_bucket(Bucket=bucket)
    events = boto3.client("events", endpoint_url=aws_rig.endpoint, **KEYS)
    aws.stack.callback(events.close)
    url = aws_rig.queue(name)
    arn = aws_rig.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    account = arn.split(":")[4]
    allowed = {
        "Sid": "Rules", "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": arn, "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    aws_rig.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    pattern = {
        "source": ["aws.s3"],
        "detail-type": [
            "Object Created",
            "Object Deleted",
            "Object Restore Completed",
            "Object Restore Expired",
        ],
        "detail": {"bucket": {"name": [bucket]}, "object": {"key": [{"prefix": ""}]}},
    }
    events.put_rule(Name=name, EventPattern=json.dumps(pattern), State="ENABLED")
    events.put_targets(Rule=name, Targets=[{"Id": "events", "Arn": arn}])
    spec = parse_url(f"s3://{bucket}/raw?endpoint={aws_rig.endpoint}&region=us-east-1")
    target = replace(aws.target, to="eventbridge", queue=f"sqs://{name}?region=us-east-1")
    wiring = open_wiring(spec, target, KEY)
    aws.stack.callback(wiring.close)
    told = [(step.action.value, step.what, step.detail) for step in apply(wiring)]
    assert told == [
        ("=", f"queue {name}", ""),
        ("=", f"policy of queue {name}", "allows it already"),
        ("=", f"rule {name}", "not made by bind"),
        ("+", f"EventBridge of bucket {bucket}", ""),
    ]
    assert {step.action for step in wiring.plan()} == {Action.SAME}


WANTED = {
    "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": ARN,
    "Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::b"}, "StringEquals": {"aws:SourceAccount": "1"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({}, True),
        ({"Condition": {"StringEquals": {"AWS:SourceAccount": ["2", "1"]}}}, True),
        ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:*"}}}, True),
        ({"Condition": {}}, True),
        ({"Principal": "*", "Action": ["SQS:*"], "Resource": ["*"]}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Effect": "Deny"}, False),
        ({"Principal": {"Service": "sns.amazonaws.com"}}, False),
        ({"Principal": {"AWS": "1"}}, False),
        ({"Action": "sqs:ReceiveMessage"}, False),
        ({"Resource": "arn:aws:sqs:us-east-1:123456789012:other"}, False),
        ({"Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::c"}}}, False),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": "*"}}}, False),
        ({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o"}}}, False),
        ({"Condition": {"Bool": {"aws:SourceArn": "arn:aws:s3:::b"}}}, False),
    ],
)
def test_a_statement_that_allows_it_is_known(changes: dict[str, Any], enough: bool) -> None:
    assert allows({**WANTED, **changes}, WANTED) is enough


PATTERN: dict[str, Any] = {
    "source": ["aws.s3"], "detail-type": list(s3_documents.DETAILS),
    "detail": {"bucket": {"name": ["b"]}, "object": {"key": [{"prefix": "raw/"}]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({}, True),
        ({"detail": {"bucket": {"name": ["a", "b"]}}}, True),
        ({"detail": {}, "detail-type": [*s3_documents.DETAILS, "Object Tags Added"]}, True),
        ({"detail": {"bucket": {"name": ["a"]}}}, False),
        ({"detail": {"bucket": {"name": ["b"]}, "object": {"key": [{"prefix": "raw/x"}]}}}, False),
        ({"detail": {"bucket": {"name": ["b"]}, "object": {"key": [{"suffix": ".jpg"}]}}}, False),
        ({"detail": {"bucket": {"name": ["b"]}, "object": {"key": ["raw/1"]}}}, False),
        ({"detail": {"bucket": {"name": ["b"]}, "object": {"size": [{"numeric": [">", 0]}]}}}, False),
        ({"detail": {"bucket": {"name": ["b"]}, "reason": ["PutObject"]}}, False),
        ({"detail-type": ["Object Created"]}, False),
        ({"source": ["mine"]}, False),
        ({"region": ["us-east-1"]}, False),
    ],
)
def test_a_pattern_that_tells_all_is_known(changes: dict[str, Any], enough: bool) -> None:
    assert covers({**PATTERN, **changes}, "b", "raw/2026/") is enough


def test_what_is_no_pattern_tells_nothing() -> None:
    assert not covers(None, "b", "")
    assert not covers({**PATTERN, "detail": ["b"]}, "b", "")


def test_events_overlap_by_their_families() -> None:
    assert overlapping(["s3:ObjectCreated:Put"])
    assert overlapping(["s3:ObjectTagging:*", "s3:LifecycleExpiration:Delete"])
    assert not overlapping(["s3:ObjectTagging:*", "s3:ObjectAcl:Put", "s3:LifecycleTransition"])


def test_arns_are_of_the_buckets_own_partition() -> None:
    spec = parse_url("s3://b?region=cn-north-1")
    wiring = s3_wiring.S3Wiring(spec, Target("photos", "7"), "queue", KEY)
    queue = {"QueueArn": "arn:aws-cn:sqs:cn-north-1:210987654321:q"}
    condition = wiring._statement_of_bucket(queue)["Condition"]
    assert condition["ArnEquals"] == {"aws:SourceArn": "arn:aws-cn:s3:::b"}
    assert condition["StringEquals"] == {"aws:SourceAccount": "210987654321"}


def test_what_is_in_another_region_is_refused(aws: Aws) -> None:
    wiring = aws.open(queue="sqs://photos?region=eu-west-1")
    with pytest.raises(ConfigError, match=r"is in eu-west-1, and bucket .* in us-east-1"):
        wiring.plan()
    with pytest.raises(NotFound, match="no such function: none"):
        aws.open(to="function", function="none").plan()


def test_what_is_in_another_account_is_refused(aws: Aws) -> None:
    url = f"https://sqs.us-east-1.amazonaws.com/210987654321/photos-{aws.id}"
    with pytest.raises(NotFound, match=r"no such queue: https://.*--queue 'sqs://photos-"):
        aws.open(queue=url).plan()
    assert aws.open(queue=url).plan(unbind=True) == []
    aws.queue()
    for unbind in (False, True):
        with pytest.raises(
            ConfigError, match="is of account 210987654321, and these credentials are of 1234"
        ):
            aws.open(queue=url).plan(unbind=unbind)
    assert aws.open(queue=url.replace("210987654321", "123456789012")).plan()


def test_directory_buckets_and_keys_of_aws_are_refused(aws: Aws) -> None:
    with pytest.raises(Unsupported, match="tells of no events"):
        open_wiring(parse_url("s3://b--use1-az4--x-s3?region=us-east-1"), aws.target, KEY).plan()
    aws.queue(KmsMasterKeyId="alias/aws/sqs")
    with pytest.raises(ConfigError, match="alias/aws/sqs"):
        aws.open().plan()


def test_looking_reads_and_nothing_else(aws: Aws) -> None:
    apply(wiring := aws.open())
    asked: set[str] = set()
    assert isinstance(wiring, s3_wiring.S3Wiring)
    for client in wiring._clients.values():
        client.meta.events.register("before-call", lambda model, **_: asked.add(model.name))
    wiring.plan()
    wiring.plan(unbind=True)
    assert {name for name in asked if not name.startswith(("Get", "List", "Describe"))} == set()
    assert len(asked) > 3


def test_a_queue_that_fills_meanwhile_is_not_removed(aws: Aws) -> None:
    apply(wiring := aws.open())
    url = aws.sqs.get_queue_url(QueueName=f"photos-{aws.id}")["QueueUrl"]
    aws.sqs.purge_queue(QueueUrl=url)
    steps = wiring.plan(unbind=True)
    aws.sqs.send_message(QueueUrl=url, MessageBody="x")
    with pytest.raises(Conflict, match="1 message came into it"):
        for step in steps:
            step.apply()


def s3_answers(put: Answer, *, told: bytes = b"<NotificationConfiguration/>") -> Callable[[Request], Answer]:
    """S3 and SQS of one queue that is there, with a policy that allows all; `put` answers for the document."""
    policy = json.dumps(
        {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"}]}
    )

    def reply(request: Request) -> Answer:
        if request.method == "PUT":
            return put
        if request.method == "GET":
            return 200, {"Content-Type": "application/xml"}, told
        action = request.headers["x-amz-target"].partition(".")[2]
        answers: dict[str, Any] = {
            "GetQueueUrl": {"QueueUrl": "http://127.0.0.1/1/photos"},
            "GetQueueAttributes": {"Attributes": {"QueueArn": ARN, "Policy": policy}},
        }
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(answers[action]).encode()

    return reply


def s3_error(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    return status, {"Content-Type": "application/xml"}, body.encode()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (s3_error(403, "AccessDenied"), AccessDenied, "not allowed: s3:PutBucketNotification on bucket b"),
        (s3_error(400, "InvalidArgument"), Transient, "may not send"),
        (s3_error(403, "ExpiredToken"), AccessDenied, "expired"),
        (s3_error(403, "InvalidAccessKeyId"), AccessDenied, "does not accept"),
        (s3_error(404, "NoSuchBucket"), NotFound, "no such bucket: b"),
        (s3_error(409, "OperationAborted"), Transient, "busy"),
        (s3_error(400, "MalformedXML"), SyncAgentError, "MalformedXML"),
        ((200, {}, b""), Conflict, "somebody else changed the notifications of bucket b"),
    ],
)
def test_s3s_errors_are_ours(
    answer: Answer, error: type[SyncAgentError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with FakeHttp(s3_answers(answer)) as server:
        spec = parse_url(f"s3://b?endpoint={server.url}&region=us-east-1")
        wiring = open_wiring(spec, Target("photos", "1", queue="sqs://photos"), KEY)
        with pytest.raises(error, match=message) as told:
            apply(wiring)
        wiring.close()
    assert type(told.value) is error


def test_a_right_that_is_missing_to_look_is_named() -> None:
    with FakeHttp() as server:
        server.always(
            (
                403,
                {"Content-Type": "application/x-amz-json-1.0"},
                b'{"__type": "AccessDeniedException", "message": "User: u is not authorized to perform: sqs:getqueueurl on resource: q"}',
            )
        )
        spec = parse_url(f"s3://b?endpoint={server.url}&region=us-east-1")
        wiring = open_wiring(spec, Target("photos", "1"), KEY)
        with pytest.raises(AccessDenied) as told:
            wiring.plan()
        wiring.close()
    assert told.value.permission == "sqs:GetQueueUrl"
    assert told.value.resource == "syncagent-photos"


# -- Google --------------------------------------------------------------------------------------


class Google:
    """A fresh bucket, and Pub/Sub."""

    def __init__(self, fake: PubSub, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake, self.stack = fake, stack
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{fake.port}")
        monkeypatch.setattr(gcs_wiring, "_LOOK", 0.2)
        self.id = uuid.uuid4().hex[:24]
        self.bucket = f"test-{self.id}"
        self.notifications = Notifications(self.bucket)
        self.server = stack.enter_context(FakeHttp(self.notifications))
        self.target = Target(f"photos-{self.id}", self.id)
        self.name = f"syncagent-photos-{self.id}"
        self.topic = f"projects/test-project/topics/{self.name}"
        self.subscription = f"projects/test-project/subscriptions/{self.name}"

    def open(self, path: str = "", project: str = "&project=test-project", **changes: Any) -> Wiring:
        spec = parse_url(f"gs://{self.bucket}{path}?endpoint={self.server.url}{project}")
        wiring = open_wiring(spec, replace(self.target, **changes))
        self.stack.callback(wiring.close)
        return wiring


@pytest.fixture
def google(pubsub_rig: PubSub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    with ExitStack() as stack:
        yield Google(pubsub_rig, stack, monkeypatch)


def test_googles_wiring_is_whole(google: Google) -> None:
    apply(google.open("/raw"))
    (told,) = google.notifications.of[google.bucket].values()
    assert told["topic"] == f"//pubsub.googleapis.com/{google.topic}"
    assert told["payload_format"] == "JSON_API_V1"
    assert told["object_name_prefix"] == "raw/"
    assert told["custom_attributes"] == {"syncagent": google.id}
    assert set(told["event_types"]) == set(gcs_wiring.EVENTS)
    made = google.fake.subscriptions[google.subscription]
    assert made.ack_deadline_seconds == 60
    assert "expiration_policy" in made
    assert not made.expiration_policy.ttl, "it never expires"
    assert made.retry_policy.maximum_backoff.total_seconds() == 600
    assert made.dead_letter_policy.dead_letter_topic == f"{google.topic}-dead"
    assert made.dead_letter_policy.max_delivery_attempts == 100
    dead = google.fake.subscriptions[f"{google.subscription}-dead"]
    assert dead.topic == f"{google.topic}-dead"

    def members(path: str) -> dict[str, list[str]]:
        return {one.role: list(one.members) for one in google.fake.policies[path].bindings}

    # 42 is the number of the bucket's project, and 7 that of the topic's.
    bury = "serviceAccount:service-7@gcp-sa-pubsub.iam.gserviceaccount.com"
    publishes = "serviceAccount:service-42@gs-project-accounts.iam.gserviceaccount.com"
    assert members(google.topic) == {"roles/pubsub.publisher": [publishes]}
    assert members(f"{google.topic}-dead") == {"roles/pubsub.publisher": [bury]}
    assert members(google.subscription) == {"roles/pubsub.subscriber": [bury]}


def test_others_rights_on_a_topic_are_kept(google: Google) -> None:
    from google.iam.v1.policy_pb2 import Policy  # type: ignore[import-untyped]
    from google.pubsub_v1 import types
    from google.type.expr_pb2 import Expr  # type: ignore[import-untyped]

    google.fake.topics[google.topic] = types.Topic(name=google.topic)
    theirs = Policy(etag=b"1", version=3)
    theirs.bindings.add(
        role="roles/pubsub.publisher", members=["user:a@b"], condition=Expr(expression="false")
    )
    theirs.bindings.add(role="roles/pubsub.publisher", members=["user:c@d"])
    google.fake.policies[google.topic] = theirs
    apply(wiring := google.open())
    first, second = google.fake.policies[google.topic].bindings
    assert first == theirs.bindings[0]
    assert list(second.members)[:1] == ["user:c@d"]
    assert len(second.members) == 2
    steps = apply(wiring, unbind=True)
    assert [step.detail for step in steps if step.what == f"topic {google.name}"] == [
        "kept: bind did not make it"
    ]
    assert google.topic in google.fake.topics


def test_rights_that_change_meanwhile_are_not_overwritten(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiring = google.open()
    assert isinstance(wiring, gcs_wiring.GcsWiring)
    steps, read = wiring.plan(), wiring._policy

    def read_and_wait(kind: str, path: str) -> Any:
        policy = copy.deepcopy(read(kind, path))
        google.fake.policies[path].etag = b"another"  # somebody writes it now
        return policy

    monkeypatch.setattr(wiring, "_policy", read_and_wait)
    with pytest.raises(Conflict, match="somebody else changed topic"):
        for step in steps:
            step.apply()
    assert len(google.fake.policies[f"{google.topic}-dead"].bindings) == 0


def test_a_subscription_that_was_there_keeps_its_topic_and_its_settings(google: Google) -> None:
    url = google.fake.create(google.name, deadline=33, project="other-project")
    wiring = google.open(queue=url)
    steps = apply(wiring)
    assert find(steps, "subscription").action is Action.SAME
    (told,) = google.notifications.of[google.bucket].values()
    assert told["topic"] == f"//pubsub.googleapis.com/projects/other-project/topics/{google.name}"
    assert (
        google.fake.subscriptions[f"projects/other-project/subscriptions/{google.name}"].ack_deadline_seconds
        == 33
    )
    assert not any("dead" in step.what for step in steps)
    assert wiring.queue == url
    removed = apply(wiring, unbind=True)
    assert {step.action for step in removed if not step.what.startswith("notification")} == {Action.SAME}


def test_a_subscription_that_is_of_no_use_is_refused(google: Google) -> None:
    from google.pubsub_v1 import types

    url = google.fake.create(google.name)
    made = google.fake.subscriptions[f"projects/test/subscriptions/{google.name}"]
    made.push_config = types.PushConfig(push_endpoint="https://else.example")
    with pytest.raises(ConfigError, match=r"is pushed to https://else.example, and bind did not make it"):
        google.open(queue=url).plan()
    made.topic = "_deleted-topic_"
    with pytest.raises(ConfigError, match=r"topic of subscription .* was deleted"):
        google.open(queue=url).plan()
    assert {step.action for step in apply(google.open(queue=url), unbind=True)} == {Action.SAME}, (
        "it is not ours"
    )


def test_a_push_is_signed_for_an_account(google: Google) -> None:
    to = {"to": "function", "function": "https://photos.example/push"}
    with pytest.raises(ConfigError, match="--service-account"):
        apply(google.open(**to))
    apply(google.open(**to, account="pusher@test"))
    made = google.fake.subscriptions[google.subscription]
    assert made.push_config.push_endpoint == "https://photos.example/push"
    assert made.push_config.oidc_token.service_account_email == "pusher@test"
    assert {step.action for step in google.open(**to).plan()} == {Action.SAME}, (
        "not named again: left as it is"
    )
    steps = apply(google.open())
    changed = [step for step in steps if step.action is Action.CHANGED]
    assert [step.what for step in changed] == [f"subscription {google.name}"]
    assert not google.fake.subscriptions[google.subscription].push_config.push_endpoint


def test_a_notification_of_somebody_that_tells_all_is_enough(google: Google) -> None:
    apply(google.open())
    (id,) = google.notifications.of[google.bucket]
    told = google.notifications.of[google.bucket][id]
    del told["custom_attributes"], told["event_types"]
    told["object_name_prefix"] = "ra"
    steps = apply(google.open("/raw"))
    assert find(steps, "notification").detail == "not made by bind"
    assert list(google.notifications.of[google.bucket]) == [id]


def test_a_notification_that_was_made_twice_is_one_again(google: Google) -> None:
    apply(wiring := google.open())
    there = google.notifications.of[google.bucket]
    (told,) = there.values()
    there["99"] = {**told, "id": "99"}
    assert [step.action for step in wiring.plan() if step.what.startswith("notification")] == [
        Action.SAME,
        Action.REMOVED,
    ]
    apply(wiring)
    assert len(there) == 1


def test_looking_at_google_reads_and_nothing_else(google: Google) -> None:
    apply(wiring := google.open())
    before, fake = len(google.server.requests), google.fake
    there = copy.deepcopy((dict(fake.topics), dict(fake.subscriptions), dict(fake.policies)))
    wiring.plan()
    wiring.plan(unbind=True)
    assert {request.method for request in google.server.requests[before:]} == {"GET"}
    assert (fake.topics, fake.subscriptions, fake.policies) == there


def test_the_project_is_found_or_asked_for(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.auth.default", lambda **_: (None, None))
    with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        google.open(project="").plan()
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test-project")
    wiring = google.open(project="")
    wiring.plan()
    assert wiring.queue == f"pubsub://test-project/{google.name}"
    content = json.dumps({"type": "service_account", "project_id": "own-project"})
    spec = parse_url(f"gs://{google.bucket}")
    own = gcs_wiring.GcsWiring(spec, google.target, "queue", Integration("i", "gcs", {"content": content}))
    assert own._own_project() == "own-project"


def test_googles_errors_are_ours(google: Google) -> None:
    google.notifications.denied.add("POST")
    with pytest.raises(AccessDenied) as told:
        apply(google.open())
    assert told.value.permission == "storage.buckets.update"
    google.notifications.denied.add("GET")
    with pytest.raises(AccessDenied) as told:
        google.open().plan()
    assert told.value.permission == "storage.buckets.get"
    google.notifications.denied.clear()
    google.notifications.of.clear()
    with pytest.raises(NotFound, match="no such bucket"):
        google.open().plan()


# -- Azure ---------------------------------------------------------------------------------------


class Cloud:
    """A resource manager, and Azurite's queues."""

    def __init__(self, rig: AzureRig, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stack = stack
        self.manager = Manager()
        self.server = stack.enter_context(FakeHttp(self.manager))
        monkeypatch.setitem(azure_wiring._MANAGERS, "core.windows.net", self.server.url)
        monkeypatch.setattr(azure_wiring, "_STEP", 0.01)
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{self.server.url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        self.integration = rig.integration
        self.id = uuid.uuid4().hex[:24]
        self.target = Target(
            "photos", self.id, queue=f"azqueue://devstoreaccount1/q-{self.id}?endpoint={rig.queues}"
        )

    def open(self, path: str = "", **changes: Any) -> Wiring:
        spec = parse_url(f"az://devstoreaccount1/photos{path}")
        wiring = open_wiring(spec, replace(self.target, **changes), self.integration)
        self.stack.callback(wiring.close)
        return wiring

    def made(self) -> dict[str, Any]:
        return dict(self.manager.there[f"syncagent-{self.id}"]["properties"])


@pytest.fixture
def cloud(azure_rig: AzureRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield Cloud(azure_rig, stack, monkeypatch)


def test_azures_wiring_is_whole(cloud: Cloud) -> None:
    apply(cloud.open("/raw", dead_letter="lost"))
    made = cloud.made()
    assert made["destination"] == {
        "endpointType": "StorageQueue",
        "properties": {
            "resourceId": Manager.ACCOUNT,
            "queueName": f"q-{cloud.id}",
            "queueMessageTimeToLiveInSeconds": 1209600,
        },
    }
    assert made["filter"]["subjectBeginsWith"] == "/blobServices/default/containers/photos/blobs/raw/"
    assert made["filter"]["isSubjectCaseSensitive"] is True
    assert made["filter"]["includedEventTypes"] == list(azure_wiring.EVENTS)
    assert made["retryPolicy"] == {"maxDeliveryAttempts": 30, "eventTimeToLiveInMinutes": 1440}
    assert made["deadLetterDestination"]["properties"]["blobContainerName"] == "lost"
    assert cloud.manager.tokens == [f"{cloud.server.url}"], (
        "a key manages nothing: the machine's own identity does"
    )
    wiring = cloud.open("/raw")
    assert {step.action for step in wiring.plan()} == {Action.SAME}
    cloud.manager.there[f"syncagent-{cloud.id}"]["properties"]["filter"]["subjectBeginsWith"] = "/else"
    apply(wiring)
    assert cloud.made()["deadLetterDestination"]["properties"]["blobContainerName"] == "lost", "left as it is"


def test_a_hierarchical_account_tells_of_the_whole_container(cloud: Cloud) -> None:
    cloud.manager.tree = True
    apply(cloud.open("/raw"))
    assert cloud.made()["filter"]["subjectBeginsWith"] == "/blobServices/default/containers/photos/blobs/"


def test_a_resource_id_spares_the_search(cloud: Cloud) -> None:
    apply(cloud.open(scope=Manager.ACCOUNT))
    assert not any(
        request.path.endswith(("/storageAccounts", "/subscriptions")) for request in cloud.server.requests
    )


def test_an_account_that_is_not_seen_is_told(cloud: Cloud) -> None:
    spec = parse_url("az://absent/photos")
    with pytest.raises(NotFound, match=r"see no storage account absent; .*--scope"):
        wiring = open_wiring(spec, Target("photos", "1"))
        cloud.stack.callback(wiring.close)
        wiring.plan()


def test_looking_at_azure_reads_and_nothing_else(cloud: Cloud) -> None:
    apply(wiring := cloud.open())
    before = len(cloud.server.requests)
    wiring.plan()
    wiring.plan(unbind=True)
    assert {request.method for request in cloud.server.requests[before:]} == {"GET"}


@pytest.mark.parametrize(
    ("method", "answer", "error", "message"),
    [
        (
            "PUT",
            (403, "AuthorizationFailed"),
            AccessDenied,
            "not allowed: Microsoft.EventGrid/eventSubscriptions/write",
        ),
        (
            "GET",
            (403, "AuthorizationFailed"),
            AccessDenied,
            "not allowed: Microsoft.EventGrid/eventSubscriptions/read",
        ),
        ("PUT", (409, "MissingSubscriptionRegistration"), ConfigError, "az provider register"),
        ("PUT", (409, "Conflict"), Conflict, "is being changed"),
        ("PUT", (401, "InvalidToken"), AccessDenied, "does not accept"),
        ("PUT", (429, "TooManyRequests"), Transient, "busy"),
        ("PUT", (400, "InvalidRequest"), SyncAgentError, "InvalidRequest"),
    ],
)
def test_azures_errors_are_ours(
    cloud: Cloud, method: str, answer: tuple[int, str], error: type[SyncAgentError], message: str
) -> None:
    body = json.dumps({"error": {"code": answer[1], "message": "secret words"}}).encode()
    cloud.manager.fails[method] = answer[0], {"Content-Type": "application/json"}, body
    with pytest.raises(error, match=message) as told:
        apply(cloud.open())
    assert type(told.value) is error
    assert "secret words" not in str(told.value)


def test_a_subscription_that_azure_could_not_make_is_told_and_made_again(cloud: Cloud) -> None:
    cloud.manager.outcome = "Failed"
    with pytest.raises(SyncAgentError, match=r"could not make event subscription .*: Failed"):
        apply(cloud.open())
    cloud.manager.outcome = "Succeeded"
    steps = apply(cloud.open())
    assert find(steps, "event subscription").action is Action.CHANGED
    assert {step.action for step in cloud.open().plan()} == {Action.SAME}


def test_a_subscription_that_takes_too_long_is_told(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_wiring, "_PATIENCE", 0.0)
    with pytest.raises(Transient, match="is still Creating"):
        apply(cloud.open())


def test_a_queue_that_another_subscription_uses_is_kept(cloud: Cloud) -> None:
    apply(cloud.open("/a"))
    apply(cloud.open("/b", dataset="second", id="b" * 24))
    steps = apply(cloud.open("/a"), unbind=True)
    assert find(steps, "queue").detail == f"kept: event subscription syncagent-{'b' * 24} sends to it"
