"""Events of Amazon S3, and of stores that speak like it (MinIO, Ceph), in every envelope they come in.

Notification: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
EventBridge: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
Batch Operations: https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from syncagent.handlers.events import (
    BadEvent,
    Event,
    Json,
    Kind,
    Parsed,
    decoded,
    deeper,
    part,
    seconds,
    text,
    whole,
)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html
# None: no item depends on it. A star stands for what the vendor adds to a family later.
NAMES: dict[str, Kind | None] = {
    "ObjectCreated:*": Kind.CREATED,
    "ObjectCreated:Put": Kind.CREATED,
    "ObjectCreated:Post": Kind.CREATED,
    "ObjectCreated:Copy": Kind.CREATED,
    "ObjectCreated:CompleteMultipartUpload": Kind.CREATED,
    "ObjectRemoved:*": Kind.REMOVED,
    "ObjectRemoved:Delete": Kind.REMOVED,
    "ObjectRemoved:DeleteMarkerCreated": Kind.REMOVED,
    "LifecycleExpiration:*": Kind.REMOVED,
    "LifecycleExpiration:Delete": Kind.REMOVED,
    "LifecycleExpiration:DeleteMarkerCreated": Kind.REMOVED,
    "LifecycleTransition": Kind.CHANGED,
    "IntelligentTiering": Kind.CHANGED,
    "ObjectRestore:*": Kind.CHANGED,
    "ObjectRestore:Post": Kind.CHANGED,
    "ObjectRestore:Completed": Kind.CHANGED,
    "ObjectRestore:Delete": Kind.CHANGED,
    "ReducedRedundancyLostObject": Kind.CHANGED,
    "Replication:*": None,
    "ObjectTagging:*": None,
    "ObjectAnnotation:*": None,
    "ObjectRetention:*": None,
    "ObjectAcl:*": None,
    # EventBridge's, https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventBridge.html
    "Object Created": Kind.CREATED,
    "Object Deleted": Kind.REMOVED,
    "Object Restore Initiated": Kind.CHANGED,
    "Object Restore Completed": Kind.CHANGED,
    "Object Restore Expired": Kind.CHANGED,
    "Object Storage Class Changed": Kind.CHANGED,
    "Object Access Tier Changed": Kind.CHANGED,
    "Object ACL Updated": None,
    "Object Tags Added": None,
    "Object Tags Deleted": None,
}


def parse(payload: Any) -> Parsed:
    """The events of a payload: JSON, as text or as objects.

    It may be a notification, EventBridge's event or a task of S3 Batch Operations, in messages of SQS and SNS, in
    what Lambda hands to a destination after a failure, and in each other.

    :raises BadEvent: it, or something in it, is none of these; nothing of it is given back then.
    """
    return _parsed(payload, 0)


def task(told: Any) -> Event:
    """A task of S3 Batch Operations, whose keys are encoded as in its manifest.

    :raises BadEvent: it is none.
    """
    where = "the task"
    arn = told.get("s3BucketArn") if isinstance(told, dict) else None
    bucket = arn.rpartition(":")[2] if isinstance(arn, str) and arn else text(told, "s3Bucket", where)
    return _event(bucket, _unquoted(text(told, "s3Key", where)), Kind.CHANGED, "Batch", id=told.get("taskId"))


def _parsed(payload: Any, depth: int) -> Parsed:
    told = decoded(payload, "the S3 event")
    found, depth = Parsed(), deeper(depth, "the S3 event")
    if not isinstance(told, dict):
        raise BadEvent("the S3 event is no JSON object")
    if isinstance(records := told.get("Records"), list):
        for record in records:
            found.add(_record(record, depth))
    elif isinstance(messages := told.get("Messages"), list):  # what `aws sqs receive-message` prints
        for message in messages:
            found.add(_parsed(text(message, "Body", "the SQS message"), depth))
    elif told.get("Event") == "s3:TestEvent":
        found.ignored["TestEvent"] += 1
    elif told.get("Type") == "Notification" and "TopicArn" in told:
        found.add(_parsed(text(told, "Message", "the SNS message"), depth))
    elif str(told.get("Type")) in {"SubscriptionConfirmation", "UnsubscribeConfirmation"}:
        found.ignored[told["Type"]] += 1
    elif "detail-type" in told:
        found.add(_bridged(told))
    elif isinstance(tasks := told.get("tasks"), list):
        found.events += map(task, tasks)
    elif "requestPayload" in told:  # a destination's record of an invocation that failed
        found.add(_parsed(told["requestPayload"], depth))
    else:
        raise BadEvent("the payload is no event of S3", hint="its envelope is not known; see docs/events.md")
    return found


def _record(record: Any, depth: int) -> Parsed:
    source = record.get("eventSource", record.get("EventSource")) if isinstance(record, dict) else None
    if source == "aws:sqs":
        return _parsed(text(record, "body", "the SQS record"), depth)
    if source == "aws:sns":
        return _parsed(text(part(record, "Sns", "the SNS record"), "Message", "the SNS record"), depth)
    if not isinstance(source, str) or not source.endswith(":s3"):
        raise BadEvent("a record is of no source that has S3 events")
    where = "the S3 record"
    name = text(record, "eventName", where).removeprefix("s3:")  # as MinIO and Ceph have it
    kind, found = _kind(name), Parsed()
    if kind is None:
        found.ignored[name] += 1
        return found
    of = part(record, "s3", where)
    thing = part(of, "object", where)
    answer = record.get("responseElements")
    found.events.append(
        _event(
            text(part(of, "bucket", where), "name", where), _unquoted(text(thing, "key", where)), kind, name,
            at=record.get("eventTime"), id=answer.get("x-amz-request-id") if isinstance(answer, dict) else None,
            size=thing.get("size"),
        )
    )  # fmt: skip
    return found


def _bridged(told: Json) -> Parsed:
    name, found = text(told, "detail-type", "the EventBridge event"), Parsed()
    kind = NAMES.get(name)
    if told.get("source") != "aws.s3" or kind is None:
        found.ignored[name] += 1
        return found
    where = "the EventBridge event"
    detail = part(told, "detail", where)
    thing = part(detail, "object", where)
    found.events.append(
        _event(  # its keys are not encoded
            text(part(detail, "bucket", where), "name", where), text(thing, "key", where), kind, name,
            at=told.get("time"), id=detail.get("request-id"), size=thing.get("size"),
        )
    )  # fmt: skip
    return found


def _kind(name: str) -> Kind | None:
    return NAMES[name] if name in NAMES else NAMES.get(f"{name.partition(':')[0]}:*")


def _unquoted(key: str) -> str:
    """A form-encoded key: a space is a plus."""
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise BadEvent("the key of an S3 record is not UTF-8") from None


def _event(
    bucket: str, key: str, kind: Kind, name: str, *, at: Any = None, id: Any = None, size: Any = None
) -> Event:
    return Event("s3", bucket, key, kind, name, seconds(at), str(id or ""), whole(size))
