"""Datasets: made, found, changed, mirrored, copied."""

from __future__ import annotations

import json
import zipfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from random import Random
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from fastapi import APIRouter

from syncagent.catalog.base import Item
from syncagent.catalog.filters import Query, parse_query
from syncagent.errors import InvalidInput, NotFound, Refused, Unsupported
from syncagent.ingest.probing import probe_dataset
from syncagent.model import Report
from syncagent.server import shapes
from syncagent.server.auth import Who
from syncagent.server.platform import Platform, Progress
from syncagent.server.routes.common import Api, Json, JsonBody, On, everything, part, text

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", summary="Create a dataset")
def create(on: On, who: Who, api: Api, body: JsonBody) -> Json:
    projects = body.get("projects")
    if not isinstance(projects, list) or len(projects) != 1:
        raise InvalidInput("a dataset needs one project", resource="projects")
    project = str(projects[0])
    who.may("dataset.write", project)
    if text(body, "name") == "Binaries":
        raise InvalidInput("the name Binaries is taken by every project's hidden dataset", resource="name")
    data: Json = {"metadata": {"system": {"recipes": []}}}
    if expiration := _expiration(body):
        data["expirationOptions"] = expiration
    with on.catalog.db.transaction():
        made = on.datasets.create(
            project, text(body, "name"), by=who.email, driver=body.get("driver"), data=data
        )
        if body.get("createDefaultRecipe", True):
            recipes = {"system": {"recipes": [on.recipes.default(project, made["name"])]}}
            made = on.datasets.change(made["id"], data={"metadata": recipes})
    return shapes.dataset(made, api)


def _expiration(body: Json) -> Json:
    """What `catalog vacuum` will heed: ``itemMaxDays``."""
    told = part(body, "expirationOptions")
    days = told.get("itemMaxDays")
    if days is not None and (
        isinstance(days, bool) or not isinstance(days, int | float) or not 0 < days <= 36500
    ):
        raise InvalidInput("itemMaxDays must be a number of days", resource="expirationOptions")
    return told


@router.post("/query", summary="Find datasets")
def query(on: On, who: Who, api: Api, body: JsonBody) -> Json:
    wanted = parse_query({"filter": {}, **body, "resource": "datasets"})
    names, creators = _asked(body)
    projects = part(body, "context").get("projects")
    allowed = who.projects()
    chosen = [p for p in projects if p in allowed] if isinstance(projects, list) else allowed
    found: list[Json] = []
    wanted_names: list[str | None] = [*names] or [None]
    for name in wanted_names:
        hidden = bool(body.get("systemSpace")) or name == "Binaries"
        if hidden and name == "Binaries":
            for project in chosen:
                on.datasets.binaries(project)
        found += on.datasets.of(projects=chosen, name=name, system=hidden)
    found = [f for f in found if creators is None or f["creator"] in creators]
    size = wanted.page_size
    shown = found[wanted.page * size : (wanted.page + 1) * size]
    return shapes.page([shapes.dataset(f, api) for f in shown], len(found), wanted.page, size)


def _asked(body: Json) -> tuple[list[str], list[str] | None]:
    names: list[str] = []
    creators: list[str] | None = None
    for condition in part(body, "filter").get("$and") or []:
        for field, value in condition.items():
            values = value.get("$in", [value.get("$eq")]) if isinstance(value, dict) else [value]
            if field == "name":
                names = [str(v) for v in values]
            elif field == "creator":
                creators = [str(v) for v in values]
            else:
                raise InvalidInput(f"datasets cannot be found by {field!r}", resource=field)
    return names, creators


@router.get("/{dataset}", summary="One dataset")
def get(on: On, who: Who, api: Api, dataset: str) -> Json:
    return shapes.dataset(_readable(on, who, dataset, counted=True), api)


@router.patch("/{dataset}", summary="Change a dataset")
def change(on: On, who: Who, api: Api, dataset: str, body: JsonBody) -> Json:
    _writable(on, who, dataset, locked=True)
    readonly = body.get("readonly")
    data = {"metadata": part(body, "metadata"), "expirationOptions": _expiration(body)}
    data = {name: given for name, given in data.items() if given}
    name = body.get("name")
    made = on.datasets.change(
        dataset,
        name=name if isinstance(name, str) else None,
        readonly=readonly if isinstance(readonly, bool) else None,
        data=data,
    )
    return shapes.dataset(made, api)


@router.patch("/{dataset}/unlock", summary="Allow writes again")
def unlock(on: On, who: Who, api: Api, dataset: str) -> Json:
    _writable(on, who, dataset, locked=True)
    return shapes.dataset(on.datasets.change(dataset, readonly=False), api)


@router.delete("/{dataset}", summary="Forget a dataset; the bucket is not touched")
def delete(on: On, who: Who, dataset: str) -> Json:
    if _writable(on, who, dataset)["system"]:
        raise Refused("a project's Binaries stay as long as the project", resource=dataset)
    on.catalog.remove_dataset(dataset)
    on.forget(dataset)
    return {"id": dataset}


@router.get("/{dataset}/directoryTree", summary="The folders of a dataset")
def directory_tree(on: On, who: Who, dataset: str) -> Json:
    _readable(on, who, dataset)
    root: Json = {"value": _folder(dataset, ""), "children": []}
    nodes = {"": root}
    for key in on.datasets.folders(dataset):
        nodes[key] = {"value": _folder(dataset, key), "children": []}
        nodes[key.rpartition("/")[0]]["children"].append(nodes[key])
    return root


def _folder(dataset: str, key: str) -> Json:
    above, _, name = f"/{key}".rpartition("/")
    return {
        "id": f"{dataset}/{key}",
        "name": name,
        "dir": above or "/",
        "filename": f"/{key}",
        "metadata": {},
    }


@router.post("/{dataset}/sync", summary="Make the dataset equal to its bucket")
def sync(on: On, who: Who, api: Api, dataset: str) -> Json:
    found = _writable(on, who, dataset)
    reconciler = on.reconciler(dataset)
    if reconciler is None:
        raise InvalidInput(f"dataset {found['name']!r} has no driver to mirror", resource=dataset)

    def work(progress: Progress) -> Json:
        known = on.datasets.get(dataset)["itemsCount"]

        def seen(report: Report) -> None:
            progress(min(95, report.listed * 90 // max(report.listed, known or 1)))

        report = reconciler.sweep(on_progress=seen)
        if report.refused:
            raise Refused(
                report.refused, resource=found["name"], hint="'syncagent sync --max-deletes' allows it"
            )
        mirrored = on.catalog.dataset(dataset)
        followed = on.agent.follow(mirrored)
        progress(97)
        if on.catalog.labels.settings(dataset).get("probe"):
            probe_dataset(on.catalog.labels, dataset, reconciler.bucket, workers=on.agent.settings.workers)
        files = {"files": followed.files, "filesFailed": followed.failed} if followed is not None else {}
        return {"listed": report.listed, "added": report.added, "removed": report.removed, **files}

    return shapes.command(on.start("SyncDataset", who.email, work, spec={"datasetId": dataset}), api)


@router.post("/{dataset}/clone", summary="Copy items, metadata and annotations")
def clone(on: On, who: Who, api: Api, dataset: str, body: JsonBody) -> Json:
    source = _readable(on, who, dataset)
    project = source["projects"][0]
    who.may("dataset.write", project)
    params = part(body, "cloneDatasetParams")
    wanted = everything(body.get("filter"))
    target = params.get("targetDatasetId")
    if target:
        _writable(on, who, str(target))
    else:
        target = on.datasets.create(project, text(body, "name"), by=who.email, driver=source["driver"],
                                    data=_kept(source))["id"]  # fmt: skip

    def work(progress: Progress) -> Json:
        _copy(on, dataset, str(target), wanted, params, who.email, progress)
        return {"returnedModelId": target}

    return shapes.command(on.start("CloneDataset", who.email, work, spec={"returnedModelId": target}), api)


@router.post("/merge", summary="Copy several datasets into a new one")
def merge(on: On, who: Who, api: Api, body: JsonBody) -> Json:
    sources = [_readable(on, who, str(one)) for one in body.get("datasetsIds") or []]
    if not sources:
        raise InvalidInput("there is nothing to merge", resource="datasetsIds")
    project = sources[0]["projects"][0]
    who.may("dataset.write", project)
    drivers = {source["driver"] for source in sources}
    if len(drivers) > 1:
        raise Unsupported("datasets over different drivers cannot be merged", resource="datasetsIds")
    target = on.datasets.create(
        project, text(body, "name"), by=who.email, driver=drivers.pop(), data=_kept(sources[0])
    )

    def work(progress: Progress) -> Json:
        for number, source in enumerate(sources):
            _copy(
                on, source["id"], target["id"], everything(None), part(body, "mergeDatasetParams"), who.email
            )
            progress(100 * (number + 1) // len(sources))
        return {}

    spec = {"mergeDatasetsConfiguration": {"datasetId": target["id"]}, "returnedModelId": target["id"]}
    return shapes.command(on.start("MergeDatasets", who.email, work, spec=spec), api)


@router.post("/{dataset}/export", summary="Items with their annotations, as a file")
def export(on: On, who: Who, api: Api, dataset: str, body: JsonBody) -> Json:
    found = _readable(on, who, dataset)
    wanted = everything(body.get("itemsQuery"))
    labels = body.get("annotationsQuery")
    kind = str(body.get("exportType") or "zip")
    version = body.get("exportVersion") or "V1"
    binaries = on.datasets.binaries(found["projects"][0])["id"]

    def work(progress: Progress) -> Json:
        with cast("BinaryIO", SpooledTemporaryFile(16 << 20)) as out:
            total = on.items.page(dataset, Query.everything())[1] or 1
            told = _exported(on, api, dataset, wanted, labels)
            counted = _progressing(told, total, progress)
            if kind == "json":
                _write_list(out, counted)
            else:
                _write_zip(out, counted, str(version))
            out.seek(0)
            suffix = "json" if kind == "json" else "zip"
            name = f".dataloop/exports/{found['name']}-{on.catalog.now()}-{id(out):x}.{suffix}".replace(
                " ", "_"
            )
            return {"outputItemId": on.content(binaries).upload(name, out, by=who.email).id}

    return shapes.command(on.start("ExportDatasetAsJson", who.email, work, spec={"datasetId": dataset}), api)


def _exported(on: Platform, api: str, dataset: str, wanted: Query, labels: Any) -> Iterator[Json]:
    for item in on.items.all(dataset, wanted):
        told = shapes.item(item, api)
        found = on.annotations.of(dataset, item.id, labels if isinstance(labels, dict) else None)
        yield told | {"annotations": [shapes.annotation(one, api) for one in found]}


def _progressing(told: Iterator[Json], total: int, progress: Progress) -> Iterator[Json]:
    for number, one in enumerate(told):
        if number % 500 == 0:
            progress(90 * number // total)
        yield one


def _write_list(out: BinaryIO, told: Iterator[Json]) -> None:
    out.write(b"[")
    for number, one in enumerate(told):
        out.write((b",\n" if number else b"") + json.dumps(one).encode())
    out.write(b"]")


def _write_zip(out: BinaryIO, told: Iterator[Json], version: str) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in told:
            folder, _, name = one["filename"].removeprefix("/").rpartition("/")
            stem = name if version == "V2" or "." not in name else name.rpartition(".")[0]
            archive.writestr(f"{folder}/{stem}.json" if folder else f"{stem}.json", json.dumps(one))


@router.post("/{dataset}/items/bulk-update-metadata", summary="Merge metadata into many items")
def bulk_update(on: On, who: Who, api: Api, dataset: str, body: JsonBody) -> Json:
    _writable(on, who, dataset)
    wanted = everything(body.get("query"))
    update = part(part(body, "updateQuery"), "update")

    def work(progress: Progress) -> Json:
        return {"updated": update_found(on, dataset, wanted, update, who.email)}

    return shapes.command(on.start("BulkUpdateMetadata", who.email, work, spec={"datasetId": dataset}), api)


@router.post("/{dataset}/split", summary="Divide items into named subsets, by chance")
def split(on: On, who: Who, api: Api, dataset: str, body: JsonBody) -> Json:
    _writable(on, who, dataset)
    wanted, shares = everything(body.get("itemsQuery")), _shares(body.get("MLSplitList"))

    def work(progress: Progress) -> Json:
        items = array("q", (on.catalog.number_of(item.id) for item in on.items.all(dataset, wanted)))
        Random(dataset).shuffle(items)  # noqa: S311  # the same each time, which nobody may rely on to be secret
        ends = [round(end * len(items) / 100) for end in accumulate(shares.values())]
        tags = dict.fromkeys(shares)
        for place, number in enumerate(items):
            if place % 500 == 0:
                progress(100 * place // len(items))
            name = list(shares)[bisect_right(ends, place)]
            change = {"tags": {**tags, name: True}}
            with suppress(NotFound):  # removed meanwhile
                on.items.change(on.catalog.public_id(number), by=who.email, system=change)
        return {"items": len(items)}

    return shapes.command(on.start("SplitDataset", who.email, work, spec={"datasetId": dataset}), api)


def _shares(told: Any) -> dict[str, int]:
    """Percentages by name, of an object or of a list of ``{"name", "percentage"}``."""
    if isinstance(told, list) and all(isinstance(one, dict) for one in told):
        told = {str(one.get("name")): one.get("percentage") for one in told}
    sound = isinstance(told, dict) and all(
        isinstance(share, int) and not isinstance(share, bool) and share >= 0 for share in told.values()
    )
    if not sound or sum(told.values()) != 100:
        raise InvalidInput(
            "MLSplitList must give whole percentages that add up to 100", resource="MLSplitList"
        )
    return dict(told)


def update_found(on: Platform, dataset: str, wanted: Query, update: Json, by: str) -> int:
    """Merge an update into every item that a query finds; returns how many."""
    metadata = part(update, "metadata")
    changed = 0
    for item in on.items.all(dataset, wanted):
        on.items.change(item.id, by=by, user=part(metadata, "user"), system=part(metadata, "system"))
        changed += 1
    return changed


def _copy(
    on: Platform,
    source: str,
    target: str,
    wanted: Query,
    params: Json,
    by: str,
    progress: Progress | None = None,
) -> None:
    folder = str(params.get("targetDirectory") or "").strip("/")
    for number, item in enumerate(on.items.all(source, wanted)):
        if progress is not None and number % 100 == 0:
            progress(1 + number // 100)
        copy_item(on, item, target, f"{folder}/{item.key}" if folder else item.key, params, by)


def copy_item(on: Platform, item: Item, target: str, key: str, params: Json, by: str) -> Item:
    """A copy of an item that shares its bytes where the two datasets share a driver."""
    drivers = {on.datasets.get(one, counted=False)["driver"] for one in (item.dataset, target)}
    if item.type == "dir":
        return on.items.place(target, key, storage="dir", by=by)
    if len(drivers) == 1:
        made = on.items.place(
            target, key, storage=item.storage or f"key:{item.key}", by=by, size=item.size, fingerprint=item.etag,
            content_id=item.content_id, content_type=item.mimetype, modified=item.modified,
        )  # fmt: skip
    else:
        with on.content(item.dataset).open(item) as stream:
            made = on.content(target).upload(key, stream, by=by, content_type=item.mimetype)
    if params.get("withMetadata", True):
        made = on.items.change(
            made.id, by=by, user=item.user, system=item.system, description=item.description
        )
    if params.get("withItemsAnnotations", True):
        on.annotations.add(made.id, _without_parents(on.annotations.of(item.dataset, item.id)), by=by)
        made = on.items.get(made.id)
    return made


def _without_parents(annotations: list[Json]) -> list[Json]:
    told: list[Json] = json.loads(json.dumps(annotations))
    for one in told:
        ((one.get("metadata") or {}).get("system") or {}).pop("parentId", None)
    return told


def _kept(source: Json) -> Json:
    return {"metadata": {"system": {"recipes": source["metadata"]["system"]["recipes"]}}}


def _readable(on: Platform, who: Who, dataset: str, *, counted: bool = False) -> Json:
    found = on.datasets.get(dataset, counted=counted)
    who.may("dataset.read", found["projects"][0])
    return found


def _writable(on: Platform, who: Who, dataset: str, *, locked: bool = False) -> Json:
    found = on.datasets.get(dataset, counted=False)
    who.may("dataset.write", found["projects"][0])
    return found if locked else on.writable(dataset)
