"""Events of Google Cloud Storage, in every envelope they come in.

Pub/Sub notifications: https://cloud.google.com/storage/docs/pubsub-notifications
Eventarc: https://cloud.google.com/eventarc/docs/reference/supported-events#cloud-storage
Functions of the first generation: https://cloud.google.com/functions/1stgendocs/calling/storage
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

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

# https://cloud.google.com/storage/docs/pubsub-notifications#events
# None: no item depends on it. An overwrite removes a generation: the key is looked at, and its live object stays.
NAMES: dict[str, Kind | None] = {
    "OBJECT_FINALIZE": Kind.CREATED,
    "OBJECT_INITIALIZE": Kind.CREATED,
    "OBJECT_METADATA_UPDATE": Kind.CHANGED,
    "OBJECT_DELETE": Kind.REMOVED,
    "OBJECT_ARCHIVE": Kind.REMOVED,
    # https://googleapis.github.io/google-cloudevents/examples/structured/storage/
    "google.cloud.storage.object.v1.finalized": Kind.CREATED,
    "google.cloud.storage.object.v1.metadataUpdated": Kind.CHANGED,
    "google.cloud.storage.object.v1.deleted": Kind.REMOVED,
    "google.cloud.storage.object.v1.archived": Kind.REMOVED,
    # Functions of the first generation.
    "google.storage.object.finalize": Kind.CREATED,
    "google.storage.object.metadataUpdate": Kind.CHANGED,
    "google.storage.object.delete": Kind.REMOVED,
    "google.storage.object.archive": Kind.REMOVED,
    # An object's resource alone, whose event nobody named.
    "storage#object": Kind.CHANGED,
}
_PUBSUB = "google.cloud.pubsub.topic.v1.messagePublished"
_BACKGROUND_PUBSUB = "google.pubsub.topic.publish"


def parse(payload: Any, attributes: Mapping[str, Any] | None = None) -> Parsed:
    """The events of a payload: JSON, as text or as objects.

    It may be a Pub/Sub notification (a pulled message's body with its attributes, a push request's body, what ``gcloud
    pubsub subscriptions pull`` prints), a CloudEvent of Eventarc (structured, or its data with the headers), or the
    event of a first-generation function, with its context or without.

    :param attributes: a message's, or the headers of a request, or the context's ``eventType``.
    :raises BadEvent: it, or something in it, is none of these; nothing of it is given back then.
    """
    return _parsed(payload, {str(name): value for name, value in (attributes or {}).items()}, 0)


def _parsed(payload: Any, attributes: Mapping[str, Any], depth: int) -> Parsed:
    found, depth = Parsed(), deeper(depth, "the GCS event")
    if isinstance(attributes.get("eventType"), str) and "objectId" in attributes:
        return _notified(attributes)  # the body, if any, says nothing that is believed
    headers = {name.lower(): value for name, value in attributes.items()}
    told = decoded(payload, "the GCS event")
    if isinstance(told, list):
        for one in told:
            found.add(_parsed(one, {}, depth))
        return found
    if not isinstance(told, dict):
        raise BadEvent("the GCS event is no JSON object")
    kind = headers.get("ce-type") or told.get("type")
    if kind == _PUBSUB and "specversion" in told:
        return _parsed(part(told, "data", "the CloudEvent"), {}, depth)
    if isinstance(told.get("message"), dict):  # pushed, or pulled by gcloud
        return _message(told["message"], depth)
    if "@type" in told or _BACKGROUND_PUBSUB in (attributes.get("eventType"), attributes.get("event_type")):
        return _message(told, depth)
    if isinstance(kind, str) and "specversion" in told:
        return _object(kind, _data(told), told.get("time"), told.get("id"))
    if isinstance(kind, str) and "ce-type" in headers:
        return _object(kind, told, headers.get("ce-time"), headers.get("ce-id"))
    if isinstance(context := told.get("context"), dict) and "data" in told:  # as the platform posts it
        return _parsed(told["data"], {**context, "eventType": context.get("eventType", "")}, depth)
    if isinstance(kind := attributes.get("eventType") or told.get("kind"), str):
        return _object(kind, told, attributes.get("timestamp"), attributes.get("eventId"))
    raise BadEvent("the payload is no event of GCS", hint="its envelope is not known; see docs/events.md")


def _message(message: Json, depth: int) -> Parsed:
    """A Pub/Sub message as JSON, its data in Base64."""
    attributes = message.get("attributes")
    data = message.get("data", "")
    try:
        body = base64.b64decode(data, validate=True).decode()
    except (TypeError, ValueError, binascii.Error):
        raise BadEvent("the data of a Pub/Sub message is not Base64 of a text") from None
    return _parsed(body, attributes if isinstance(attributes, dict) else {}, depth)


def _data(told: Json) -> Any:
    if "data_base64" not in told:
        return told.get("data")
    try:
        return base64.b64decode(told["data_base64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BadEvent("the data of a CloudEvent is not Base64") from None


def _notified(attributes: Mapping[str, Any]) -> Parsed:
    where, found = "the Pub/Sub notification", Parsed()
    name = str(attributes["eventType"])
    kind = NAMES.get(name)
    if kind is None:
        found.ignored[name] += 1
        return found
    bucket, key = (text(attributes, told, where) for told in ("bucketId", "objectId"))
    generation = str(attributes.get("objectGeneration") or "")
    found.events.append(_event(bucket, key, kind, name, attributes.get("eventTime"), generation))
    return found


def _object(name: str, data: Any, at: Any, id: Any) -> Parsed:
    """An object's resource and what happened to it. Keys are not encoded."""
    found, where = Parsed(), "the GCS event"
    kind = NAMES.get(name)
    if kind is None:
        found.ignored[name] += 1
        return found
    told = decoded(data, where)
    bucket, key = (text(told, field, where) for field in ("bucket", "name"))
    found.events.append(
        _event(bucket, key, kind, name, at or told.get("updated"), str(id or ""), told.get("size"))
    )
    return found


def _event(
    bucket: str, key: str, kind: Kind, name: str, at: Any = None, id: str = "", size: Any = None
) -> Event:
    return Event("gcs", bucket, key, kind, name, seconds(at), id, whole(size))
