"""What people and files say about items, in batches, for another syncagent: one operation of `LabelStore` each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import AfterValidator, Field

from syncagent.catalog.filters import parse_query
from syncagent.catalog.labels import Awaited, Change, Entry, Facts, Stale
from syncagent.server.auth import Who
from syncagent.server.routes.common import Json, On
from syncagent.server.routes.extension import Key, Text, asked
from syncagent.server.routes.once import Once
from syncagent.server.routes.store import Line

router = APIRouter(prefix="/syncagent/datasets/{dataset}", tags=["syncagent"], route_class=Once)
BATCH = 1000
_ENTRIES = 1_000_000


_READS = [asked("dataset.read", writes=False)]
_ANNOTATES = [asked("annotation.write")]
_WRITES = [asked("item.write")]
_MANAGES = [asked("dataset.write")]


def _sound(told: Any) -> Any:
    """JSON that a database can hold."""
    _check(told, 0)
    return told


def _check(told: Any, depth: int) -> None:
    if depth > 60:
        raise ValueError("nested too deeply")
    if isinstance(told, str) and "\0" in told:
        raise ValueError("a text holds a NUL")
    if isinstance(told, dict):
        for name, value in told.items():
            _check(name, depth)
            _check(value, depth + 1)
    elif isinstance(told, list):
        for value in told:
            _check(value, depth + 1)


Id = Annotated[str, Field(max_length=64)]
Object = Annotated[Json, AfterValidator(_sound)]
Objects = Annotated[list[Json], AfterValidator(_sound)]
Keys = Annotated[list[Key], Field(max_length=BATCH), Body(embed=True)]
Ids = Annotated[list[Id], Field(max_length=BATCH), Body(embed=True)]
Limit = Annotated[int, Field(ge=1, le=BATCH), Body()]
Changed = tuple[Id, Object | None, Object | None, Line | None]
Fact = tuple[Id, Text, Object, Annotated[str, Field(max_length=255)] | None]
Said = tuple[Key, bool, Objects, Object]


@router.post("/find", summary="Files that a query finds, in the order of ids", dependencies=_READS)
def find(
    on: On,
    dataset: str,
    query: Annotated[Json | None, Body()] = None,
    after: Annotated[Id | None, Body()] = None,
    limit: Limit = BATCH,
) -> Json:
    given = dict(query or {"filter": {"$and": [{"type": "file"}]}})
    wanted: list[Any] = [given.get("filter") or {}]
    if after is not None:
        wanted.append({"id": {"$gt": after}})
    whole = {**given, "filter": {"$and": [one for one in wanted if one]} if any(wanted) else {}, "resource": "items",
             "sort": {"id": "ascending"}, "page": 0, "pageSize": limit}  # fmt: skip
    found, _ = on.items.page(dataset, parse_query(whole))
    return {"items": [asdict(one) for one in found]}


@router.post("/at", summary="Live items of some keys", dependencies=_READS)
def at(on: On, dataset: str, keys: Keys) -> Json:
    return {"items": [asdict(one) for one in on.catalog.labels.at(dataset, keys).values()]}


@router.post("/stems", summary="Live items by their key without its extension", dependencies=_READS)
def stems(on: On, dataset: str, stems: Keys) -> Json:
    found = on.catalog.labels.stems(dataset, stems)
    return {"items": {stem: [asdict(one) for one in items] for stem, items in found.items()}}


@router.post("/describe", summary="Merge metadata into items", dependencies=_WRITES)
def describe(
    on: On,
    who: Who,
    dataset: str,
    changes: Annotated[list[Changed], Field(max_length=BATCH), Body(embed=True)],
) -> Json:
    return {
        "count": on.catalog.labels.describe(dataset, [Change(*one) for one in changes], by=who.account.email)
    }


@router.post("/annotations_of", summary="Annotations of some items", dependencies=_READS)
def annotations_of(on: On, dataset: str, items: Ids) -> Json:
    return {"annotations": on.catalog.labels.annotations_of(dataset, items)}


@router.post("/annotate_items", summary="Add annotations to items, all or none", dependencies=_ANNOTATES)
def annotate_items(
    on: On,
    who: Who,
    dataset: str,
    given: Annotated[list[tuple[Id, Objects]], Field(max_length=BATCH), Body(embed=True)],
) -> Json:
    return {"ids": on.catalog.labels.annotate(dataset, given, by=who.account.email)}


@router.post("/unannotate", summary="Remove annotations", dependencies=_ANNOTATES)
def unannotate(on: On, dataset: str, annotations: Ids) -> Json:
    return {"count": on.catalog.labels.unannotate(dataset, annotations)}


@router.post("/labels", summary="The recipe's labels, parents first", dependencies=_READS)
def labels(on: On, dataset: str) -> Json:
    return {"labels": on.catalog.labels.labels(dataset)}


@router.post("/add_labels", summary="Add labels that are not there yet", dependencies=_MANAGES)
def add_labels(
    on: On, dataset: str, labels: Annotated[Objects, Field(max_length=100_000), Body(embed=True)]
) -> Json:
    return {"count": on.catalog.labels.add_labels(dataset, labels)}


@router.post("/unprobed", summary="Files written since they were probed", dependencies=_READS)
def unprobed(on: On, dataset: str, after: Annotated[Id | None, Body()] = None, limit: Limit = BATCH) -> Json:
    found = on.catalog.labels.unprobed(dataset, after=after, limit=limit)
    return {"items": [[asdict(item), fingerprint] for item, fingerprint in found]}


@router.post("/set_facts", summary="Note what objects' bytes say of them", dependencies=_WRITES)
def set_facts(
    on: On, dataset: str, facts: Annotated[list[Fact], Field(max_length=BATCH), Body(embed=True)]
) -> Json:
    return {"count": on.catalog.labels.set_facts(dataset, [Facts(*one) for one in facts])}


@router.post("/settings", summary="What the dataset says about its own files", dependencies=_READS)
def settings(on: On, dataset: str) -> Json:
    return {"settings": on.catalog.labels.settings(dataset)}


@router.post("/set_settings", summary="Replace it", dependencies=_MANAGES)
def set_settings(on: On, dataset: str, settings: Annotated[Object, Body(embed=True)]) -> Json:
    on.catalog.labels.set_settings(dataset, settings)
    return {}


@router.post("/stale", summary="Files written, or gone, since they were taken", dependencies=_READS)
def stale(
    on: On,
    dataset: str,
    prefix: Annotated[Line, Body()],
    suffixes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=64), Body()
    ],
    after: Annotated[Line | None, Body()] = None,
    limit: Limit = BATCH,
) -> Json:
    return {"files": on.catalog.labels.stale(dataset, prefix, suffixes, after=after, limit=limit)}


@router.post("/take", summary="Make what comes from a file equal to what it says", dependencies=_WRITES)
def take(
    on: On,
    dataset: str,
    file: Annotated[tuple[Key, Text | None], Body()],
    entries: Annotated[list[Said], Field(max_length=_ENTRIES), Body()],
    overwrite: Annotated[bool, Body()] = False,
    error: Annotated[Line | None, Body()] = None,
    awaited: Annotated[tuple[Key, bool, Text | None] | None, Body()] = None,
    lists: Annotated[Line | None, Body()] = None,
) -> Json:
    taken = on.catalog.labels.take(
        dataset, Stale(*file), [Entry(*one) for one in entries], overwrite=overwrite, error=error,
        awaited=Awaited(*awaited) if awaited else None, lists=lists,
    )  # fmt: skip
    return {"taken": taken}


@router.post("/wake", summary="Files that waited for an item are stale when it came", dependencies=_WRITES)
def wake(
    on: On,
    dataset: str,
    keys: Annotated[list[Key] | None, Field(max_length=BATCH), Body(embed=True)] = None,
) -> Json:
    return {"files": on.catalog.labels.wake(dataset, keys)}


@router.post("/match", summary="Give waiting entries to items that came", dependencies=_WRITES)
def match(
    on: On,
    dataset: str,
    keys: Annotated[list[Key] | None, Field(max_length=BATCH), Body(embed=True)] = None,
) -> Json:
    return {"count": on.catalog.labels.match(dataset, keys)}
