"""Events of Azure Blob Storage, in every envelope they come in.

Event Grid, both schemas: https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage
Change feed: https://learn.microsoft.com/azure/storage/blobs/storage-blob-change-feed
Blob trigger: https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-blob-trigger
"""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote, urlsplit

from syncagent.handlers.events import BadEvent, Event, Json, Kind, Parsed, decoded, part, seconds, text, whole

# https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage#available-event-types
# None: no item depends on it. Without ``Microsoft.Storage.``, as the change feed has them.
NAMES: dict[str, Kind | None] = {
    "BlobCreated": Kind.CREATED,
    "BlobDeleted": Kind.REMOVED,
    "BlobRenamed": Kind.CREATED,
    "BlobTierChanged": Kind.CHANGED,
    "DirectoryRenamed": Kind.BELOW,
    "DirectoryDeleted": Kind.BELOW,
    "DirectoryCreated": None,
    "AsyncOperationInitiated": None,
    "BlobInventoryPolicyCompleted": None,
    "LifecyclePolicyCompleted": None,
    # https://learn.microsoft.com/azure/storage/blobs/storage-blob-change-feed#event-record-schemas
    "BlobPropertiesUpdated": Kind.CHANGED,
    "BlobSnapshotCreated": None,
    "BlobAsyncOperationInitiated": None,
    "RestorePointMarkerCreated": None,
    "Control": None,
    # Not Event Grid's, and told by the parser alone.
    "blobTrigger": Kind.CREATED,
}
_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_ABOUT = "/blobServices/default/containers/"


def parse(payload: Any) -> Parsed:
    """The events of a payload: JSON, as text (a queue's in Base64, maybe) or as objects; one, or a list of them.

    They may be in Event Grid's own schema, in that of CloudEvents 1.0, or records of the change feed.

    :raises BadEvent: it, or something in it, is none of these; nothing of it is given back then.
    """
    found = Parsed()
    for one in _told(payload):
        found.add(_one(one))
    return found


def validation(payload: Any) -> str | None:
    """The code that a webhook's handshake wants back; None where the payload is none.

    https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema

    :raises BadEvent: the payload is not JSON, or a handshake without a code.
    """
    for one in _told(payload):
        if isinstance(one, dict) and one.get("eventType") == _VALIDATION:
            where = "the handshake"
            return text(part(one, "data", where), "validationCode", where)
    return None


def trigger(name: Any, uri: Any) -> Event:
    """The event of a function's blob trigger, by its stream's name (``container/blob``) and address.

    :raises BadEvent: they name no blob.
    """
    container, _, key = name.partition("/") if isinstance(name, str) else ("", "", "")
    account = _account("", uri)
    if not container or not key or not account:
        raise BadEvent("the blob trigger names no blob")
    return Event("azureblob", f"{account}/{container}", key, Kind.CREATED, "blobTrigger")


def _told(payload: Any) -> list[Any]:
    """The events of JSON, or of JSON in Base64, as Event Grid and the portal write it into queues."""
    where = "the Event Grid event"
    try:
        told = decoded(payload, where)
    except BadEvent:
        try:
            told = decoded(base64.b64decode(payload, validate=True), where)
        except (ValueError, binascii.Error):
            told = None
        if told is None:
            raise
    return told if isinstance(told, list) else [told]


def _one(told: Any) -> Parsed:
    where, found = "the Event Grid event", Parsed()
    cloud = isinstance(told, dict) and "specversion" in told
    full = text(told, "type" if cloud else "eventType", where)
    name = full.removeprefix("Microsoft.Storage.")
    kind = NAMES.get(name)
    if kind is None:
        found.ignored[name] += 1
        return found
    data = part(told, "data", where)
    account = _account(told.get("source" if cloud else "topic"), data.get("url"))
    at, id, size = (
        seconds(told.get("time" if cloud else "eventTime")), str(told.get("id") or ""), whole(data.get("contentLength")),
    )  # fmt: skip

    def add(container: str, key: str, kind: Kind, size: int | None = None) -> None:
        if kind is Kind.BELOW:
            key = key.rstrip("/") + "/"
        found.events.append(Event("azureblob", f"{account}/{container}", key, kind, name, at, id, size))

    if not account:
        raise BadEvent(f"{where} names no storage account")
    add(*_subject(told, data), kind, size)
    for other, what in (("sourceUrl", Kind.REMOVED), ("destinationUrl", Kind.CREATED)):
        # A rename is one event: both names are looked at.
        if name in {"BlobRenamed", "DirectoryRenamed"} and isinstance(data.get(other), str):
            place = _path(data[other], account)
            if place is None:
                raise BadEvent(f"{where} has a {other} that names no blob")
            add(*place, Kind.BELOW if kind is Kind.BELOW else what)
    found.events = list(dict.fromkeys(found.events))
    return found


def _subject(told: Json, data: Json) -> tuple[str, str]:
    """Container and blob. The subject is not encoded."""
    where = "the Event Grid event"
    about = text(told, "subject", where)
    container, slash, key = about.removeprefix(_ABOUT).partition("/blobs/")
    if "\ufffd" in about and isinstance(data.get("url"), str):
        # Characters beyond 16 bits come damaged: https://github.com/Azure-Samples/azure-event-grid-viewer/issues/9
        place = _path(data["url"], _account("", data["url"]))
        if place:
            return place
    if not about.startswith(_ABOUT) or not container or "/" in container or not slash or not key:
        raise BadEvent(f"{where} has a subject that names no blob")
    return container, key


def _account(about: Any, url: Any) -> str:
    """The storage account, of an event's topic or source, or else of the blob's address."""
    if isinstance(about, str):
        head, _, rest = about.partition("/storageAccounts/")
        if not rest:
            head, _, rest = about.partition("/StorageAccounts/")
        if head and rest:
            return rest.partition("/")[0].lower()
    host, first = _parts(url)
    # An emulator has the account in the path.
    return (
        first if host.replace(".", "").isdecimal() or host == "localhost" else host.partition(".")[0]
    ).lower()


def _path(url: str, account: str) -> tuple[str, str] | None:
    """Container and blob of an address, whose path is encoded."""
    try:
        path = unquote(urlsplit(url).path, errors="strict").removeprefix("/")
    except (ValueError, UnicodeDecodeError):
        return None
    host, first = _parts(url)
    if host.partition(".")[0].lower() != account and first.lower() == account:
        path = path.partition("/")[2]
    container, _, key = path.partition("/")
    return (container, key) if container and key else None


def _parts(url: Any) -> tuple[str, str]:
    """An address's host, and the first part of its path."""
    try:
        split = urlsplit(url if isinstance(url, str) else "")
        return split.hostname or "", split.path.strip("/").partition("/")[0]
    except ValueError:
        return "", ""
