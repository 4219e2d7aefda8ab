"""Items: uploaded, imported, queried, changed, streamed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, File, Form, Header, Response, UploadFile
from fastapi.responses import RedirectResponse, StreamingResponse

from syncagent.catalog.base import Item
from syncagent.catalog.filters import parse_query
from syncagent.catalog.labels import Facts
from syncagent.errors import InvalidInput, NotFound
from syncagent.ingest import thumbnails
from syncagent.ingest.probe import Window
from syncagent.ingest.upload import media_of
from syncagent.server import shapes
from syncagent.server.auth import Who
from syncagent.server.platform import Platform
from syncagent.server.routes.common import Api, Json, JsonBody, On, key_of, part, text
from syncagent.server.routes.datasets import copy_item, update_found

router = APIRouter(tags=["items"])
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_CHUNK = 1 << 18
_SIGNED = timedelta(minutes=5)
_STATUSES = {"completed", "approved", "discard"}


@router.post("/datasets/{dataset}/query", summary="Find, change or delete items or annotations")
def query(on: On, who: Who, api: Api, dataset: str, body: JsonBody) -> Json:
    wanted = parse_query(body)
    changes = wanted.delete or wanted.update is not None
    _may(on, who, dataset, "item.write" if changes else "dataset.read")
    if changes:
        on.writable(dataset)
    if wanted.resource == "annotations":
        if wanted.delete:
            return {"deleted": on.annotations.delete_found(dataset, wanted)}
        if wanted.update is not None:
            raise InvalidInput("annotations cannot be updated by a query", resource="update")
        found, total = on.annotations.page(dataset, wanted)
        told = [shapes.annotation(one, api) for one in found]
    elif wanted.resource == "items":
        if wanted.delete:
            return {"deleted": _delete_found(on, dataset, wanted, who.email)}
        if wanted.update is not None:
            return {"updated": update_found(on, dataset, wanted, dict(wanted.update), who.email)}
        items, total = on.items.page(dataset, wanted)
        told = [shapes.item(one, api) for one in items]
    else:
        raise InvalidInput(f"a dataset holds no {wanted.resource!r}", resource="resource")
    return shapes.page(told, total, wanted.page, wanted.page_size)


def _delete_found(on: Platform, dataset: str, wanted: Any, by: str) -> int:
    deleted = 0
    for item in on.items.all(dataset, wanted):
        on.content(dataset).delete(item, by=by)
        deleted += 1
    return deleted


@router.post("/datasets/{dataset}/items", summary="Upload a file, or make a folder")
def upload(
    on: On,
    who: Who,
    api: Api,
    dataset: str,
    response: Response,
    path: Annotated[str, Form()],
    kind: Annotated[str, Form(alias="type")] = "file",
    metadata: Annotated[str | None, Form()] = None,
    description: Annotated[str | None, Form()] = None,
    file: Annotated[UploadFile | None, File()] = None,
    mode: str = "skip",
) -> Json:
    _may(on, who, dataset, "item.write")
    on.writable(dataset)
    key = key_of(path).rstrip("/") if kind == "dir" else key_of(path)
    known = on.items.at(dataset, key)
    if kind == "dir":
        made = known or on.items.place(dataset, key, storage="dir", by=who.email)
        return shapes.item(made, api)
    if file is None:
        raise InvalidInput("the upload has no file", resource=path)
    if known is not None and mode != "overwrite":
        response.headers["x-item-op"] = "skip"
        # The client deletes the item when it hears another size than it sent.
        file.file.seek(0, 2)
        told = shapes.item(known, api)
        told["metadata"]["system"]["size"] = file.file.tell()
        return told
    given = _metadata(metadata)
    body = file.file
    link = _link(body.read(1 << 16)) if key.endswith(".json") else None
    body.seek(0)
    made = on.content(dataset).upload(key, body, by=who.email, content_type=file.content_type)
    system = part(given, "system") | ({"shebang": {"dltype": "link", "linkInfo": link}} if link else {})
    made = on.items.change(
        made.id, by=who.email, user=part(given, "user"), system=system, description=description
    )
    response.headers["x-item-op"] = "overwrite" if known else "created"
    return shapes.item(_with_facts(on, made, body), api)


def _with_facts(on: Platform, item: Item, body: Any) -> Item:
    """The item with what its bytes, which are here, say of it: the client needs a picture's size."""
    row = on.catalog.get(item.dataset, item.key)
    if row is None or row.fingerprint is None:
        return item
    info = media_of(body, item.key)
    # The client's word for the type stands, unless the bytes are certainly a picture, a film or a sound.
    kind = info.mimetype if info.mimetype.split("/")[0] in {"image", "video", "audio"} else None
    on.catalog.labels.set_facts(item.dataset, [Facts(item.id, row.fingerprint, info.system(), kind)])
    return on.items.get(item.id)


def _metadata(given: str | None) -> Json:
    try:
        told = json.loads(given or "{}")
    except ValueError as error:
        raise InvalidInput(f"the item's metadata is no JSON: {error}", resource="metadata") from None
    if not isinstance(told, dict):
        raise InvalidInput("the item's metadata must be an object", resource="metadata")
    return told


def _link(head: bytes) -> Json | None:
    """What a link's file points to, if it is one."""
    try:
        told = json.loads(head)
    except ValueError:
        return None
    if isinstance(told, dict) and told.get("shebang") == "dataloop" and told.get("type") == "link":
        info = (told.get("metadata") or {}).get("linkInfo")
        return info if isinstance(info, dict) else None
    return None


@router.post("/datasets/{dataset}/imports", summary="Make items of objects that are in the bucket")
def imports(
    on: On,
    who: Who,
    api: Api,
    dataset: str,
    response: Response,
    body: Annotated[list[Json], Body(max_length=1000)],
) -> list[Json]:
    _may(on, who, dataset, "item.write")
    on.writable(dataset)
    told, ops = [], set()
    for entry in body:
        filename, storage = key_of(text(entry, "filename")), text(entry, "storageId")
        known = on.items.at(dataset, filename)
        made = on.content(dataset).take_over(_object(on, dataset, storage), filename, by=who.email)
        given = part(entry, "metadata")
        if given and known is None:
            made = on.items.change(
                made.id, by=who.email, user=part(given, "user"), system=part(given, "system")
            )
        ops.add("overwrite" if known else "created")
        told.append(shapes.item(made, api))
    response.headers["x-item-op"] = ops.pop() if len(ops) == 1 else "overwrite" if ops else "na"
    return told


def _object(on: Platform, dataset: str, storage: str) -> str:
    """The key, relative to the driver's path, of ``bucket:key`` or of a key alone."""
    spec = on.catalog.dataset(dataset).driver
    bucket, colon, key = storage.partition(":")
    if not colon or bucket not in {spec.bucket, spec.bucket.rpartition("/")[2]}:
        key = storage
    reconciler = on.reconciler(dataset)
    if reconciler is not None and spec.path:
        relative = reconciler.bucket.relative(key)
        return key if relative is None else relative
    return key


@router.put("/datasets/{dataset}/items/{folder}", summary="Move items into a folder")
def move(
    on: On, who: Who, api: Api, dataset: str, folder: str, body: Annotated[list[str], Body()]
) -> list[Json]:
    _may(on, who, dataset, "item.write")
    on.writable(dataset)
    target = on.items.get(folder)
    if target.dataset != dataset or target.type != "dir":
        raise InvalidInput(f"{target.filename} is no folder of the dataset", resource=folder)
    return [
        shapes.item(on.items.rename(one.id, f"{target.key}/{one.key.rpartition('/')[2]}", by=who.email), api)
        for one in (_item(on, who, item, "item.write") for item in body)
    ]


@router.get("/items/{item}", summary="One item")
def get(on: On, who: Who, api: Api, item: str) -> Json:
    return shapes.item(_item(on, who, item, "dataset.read"), api)


@router.patch("/items/{item}", summary="Change an item's metadata, name or path")
def change(on: On, who: Who, api: Api, item: str, body: JsonBody) -> Json:
    found = _item(on, who, item, "item.write")
    on.writable(found.dataset)
    metadata = part(body, "metadata")
    user = metadata.get("user")
    if "user" in metadata and user is None:
        user = dict.fromkeys(found.user)  # the whole of it goes
    description = body.get("description")
    if metadata or description is not None:
        found = on.items.change(
            item, by=who.email, user=user, system=part(metadata, "system"),
            description=description if isinstance(description, str) else None,
        )  # fmt: skip
    if isinstance(path := body.get("filename"), str):
        found = on.items.rename(item, key_of(path), by=who.email)
    if isinstance(name := body.get("name"), str):
        if "/" in name:
            raise InvalidInput("a name holds no slash; change filename to move an item", resource=name)
        folder = found.key.rpartition("/")[0]
        found = on.items.rename(item, key_of(f"{folder}/{name}" if folder else name), by=who.email)
    return shapes.item(found, api)


@router.delete("/items/{item}", summary="Move an item to the trash")
def delete(on: On, who: Who, item: str) -> Json:
    found = _item(on, who, item, "item.write")
    on.writable(found.dataset)
    on.content(found.dataset).delete(found, by=who.email)
    return {"id": item}


@router.post("/items/{item}/clone", summary="Copy an item")
def clone(on: On, who: Who, api: Api, item: str, body: JsonBody) -> Json:
    found = _item(on, who, item, "dataset.read")
    target = str(body.get("targetDatasetId") or found.dataset)
    _may(on, who, target, "item.write")
    on.writable(target)
    name = body.get("remoteFileName")
    key = key_of(name) if isinstance(name, str) and name else found.key
    if on.items.at(target, key) is not None:
        raise InvalidInput(f"there is an item /{key} already", resource=key)
    metadata = part(body, "metadata")
    params = part(body, "cloneDatasetParams")

    def work(_: Any) -> Json:
        made = copy_item(on, found, target, key, params, who.email)
        if metadata:
            on.items.change(made.id, by=who.email, user=part(metadata, "user"))
        return {"returnedModelId": [made.id]}

    return shapes.command(on.start("CloneItem", who.email, work, spec={"returnedModelId": []}), api)


@router.get(
    "/items/{item}/thumbnail",
    summary="A small picture of an image",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {}, "image/png": {}}},
        304: {"description": "it has not changed"},
    },
)
def thumbnail(
    on: On, who: Who, item: str, known: Annotated[str | None, Header(alias="if-none-match")] = None
) -> Response:
    found = _item(on, who, item, "dataset.read")
    tag = f'"{hashlib.sha256(f"{found.content_id}/{found.etag}/{found.size}".encode()).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=86400"}
    if known == tag:
        return Response(status_code=304, headers=headers)
    kept = on.thumbnails.get(found.dataset, tag)
    if kept is None:
        kept = _thumbnail(on, found)
        on.thumbnails.put(found.dataset, tag, *kept)
    picture, kind = kept
    return Response(picture, media_type=kind, headers=headers)


def _thumbnail(on: Platform, found: Item) -> tuple[bytes, str]:
    content = on.content(found.dataset)
    if found.mimetype.startswith("video/"):

        def read(offset: int, length: int) -> bytes:
            with content.open(found, offset=offset, length=length) as body:
                return body.read()

        window = Window(read, found.size, limit=thumbnails.VIDEO_BYTES)
        return thumbnails.video_thumbnail(window, found.filename)
    if not found.mimetype.startswith("image/") or found.size > thumbnails.MAX_BYTES:
        raise NotFound(f"{found.filename} has no thumbnail", resource=found.id)
    with content.open(found) as body:
        return thumbnails.thumbnail(body, found.filename)


@router.get(
    "/items/{item}/stream",
    summary="An item's bytes",
    response_class=StreamingResponse,
    responses={206: {"description": "a range of them"}, 307: {"description": "they are at a signed URL"}},
)
def stream(
    on: On, who: Who, item: str, wanted: Annotated[str | None, Header(alias="range")] = None
) -> Response:
    found = _item(on, who, item, "dataset.read")
    if on.agent.settings.redirect_streams:
        url = on.content(found.dataset).signed(found, expires=_SIGNED)
        if url is not None:
            return RedirectResponse(url, headers={"Cache-Control": "no-store"})
    first, last = _range(wanted, found.size)
    headers = {"Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
    if wanted is not None and found.size:
        headers["Content-Range"] = f"bytes {first}-{last}/{found.size}"
    # Opened here, so that what is missing is said by the status and not by a broken body.
    opened = on.content(found.dataset).open(found, offset=first, length=last - first + 1)
    body = opened.__enter__()

    def chunks() -> Iterator[bytes]:
        try:
            while chunk := body.read(_CHUNK):
                yield chunk
        finally:
            opened.__exit__(None, None, None)

    partial = "Content-Range" in headers and bool(first or last + 1 < found.size)
    if not partial:
        headers.pop("Content-Range", None)
    return StreamingResponse(
        chunks(), status_code=206 if partial else 200, headers=headers, media_type=found.mimetype
    )


@router.post("/assignments/{assignment}/items/{item}/status", summary="Set an item's status in an assignment")
def assignment_status(on: On, who: Who, assignment: str, item: str, body: JsonBody) -> Json:
    return {item: _set_status(on, who, item, {"type": "assignment", "id": assignment}, body)}


@router.post("/assignments/items/tasks/{task}/status", summary="Set the status of items in a task")
def task_status(on: On, who: Who, task: str, body: JsonBody) -> Json:
    items = body.get("itemIds")
    if not isinstance(items, list) or not all(isinstance(one, str) for one in items) or len(items) > 1000:
        raise InvalidInput("itemIds must be a list of at most 1,000 ids", resource="itemIds")
    payload = part(body, "statusPayload")
    return {item: _set_status(on, who, item, {"type": "task", "id": task}, payload) for item in items}


def _set_status(on: Platform, who: Who, item: str, place: Json, told: Json) -> Json:
    """Note a status (or, with the operation ``delete``, none) at a task or assignment, and in `annotationStatus`."""
    _item(on, who, item, "annotation.write")  # before anything is said about the request
    status, operation = text(told, "status"), told.get("operation", "create")
    if status not in _STATUSES or operation not in ("create", "delete"):
        raise InvalidInput(
            f"{operation} {status!r:.40} is no status of an item", resource="status",
            hint=f"known are {', '.join(sorted(_STATUSES))}",
        )  # fmt: skip
    with on.catalog.db.transaction():
        found = on.items.get(item)
        on.writable(found.dataset)
        refs = [one for one in found.system.get("refs") or [] if isinstance(one, dict)]
        kept = [one for one in refs if (one.get("type"), one.get("id")) != (place["type"], place["id"])]
        # The place stays known without a status, so that the client finds it for the next one.
        mine = {**place, "metadata": {"status": status}} if operation == "create" else place
        refs = [*kept, mine]
        statuses = sorted({s for one in refs if (s := (one.get("metadata") or {}).get("status"))})
        on.items.change(item, by=who.email, system={"refs": refs, "annotationStatus": statuses})
    return {"status": status if operation == "create" else None}


def _range(wanted: str | None, size: int) -> tuple[int, int]:
    """First and last byte of a Range header; the whole where there is none, or none that we know."""
    found = _RANGE.match(wanted or "")
    if not found or not (found[1] or found[2]):
        return 0, size - 1
    if not found[1]:
        return max(0, size - int(found[2])), size - 1
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if first > last and size:
        raise InvalidInput(f"the range begins after the end of {size} bytes", resource=wanted)
    return first, last


def _may(on: Platform, who: Who, dataset: str, action: str) -> None:
    who.may(action, on.datasets.get(dataset, counted=False)["projects"][0])


def _item(on: Platform, who: Who, item: str, action: str) -> Item:
    found = on.items.get(item)
    _may(on, who, found.dataset, action)
    return found
