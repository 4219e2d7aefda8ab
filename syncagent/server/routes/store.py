"""The rest of a `Store`, for another syncagent: runs, quarantine, trash, records.

`extension` has what the reconciler needs of any catalog; here is what its commands need beside that, so that they
work over a server as over a file. One operation of `Store` each, of the same name.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Body
from pydantic import AfterValidator, Field, StringConstraints

from syncagent import errors
from syncagent.catalog.base import Dataset
from syncagent.errors import NotFound
from syncagent.model import DriverSpec, Integration, Report, Row
from syncagent.server.auth import Caller, Who
from syncagent.server.platform import Platform
from syncagent.server.routes.common import Json, On
from syncagent.server.routes.extension import (
    BATCH,
    Found,
    Key,
    Revision,
    Size,
    Text,
    asked,
    to_object,
    whole,
)
from syncagent.server.routes.once import Once

router = APIRouter(prefix="/syncagent", tags=["syncagent"], route_class=Once)
_READS, _WRITES = [asked("dataset.read", writes=False)], [asked("item.write")]


def _sound(report: Report) -> Report:
    if not all(math.isfinite(figure) for figure in (report.seconds, report.cost or 0)):
        raise ValueError("seconds and cost must be finite")
    return report


def _remote(spec: DriverSpec) -> DriverSpec:
    for told in (
        spec.type,
        spec.bucket,
        spec.path,
        spec.name,
        spec.region,
        spec.endpoint,
        spec.storage_class,
    ):
        whole(told or "")
    if spec.type == "file":
        raise ValueError("a folder is the caller's own, and the server could not read it; mirror a bucket")
    return replace(spec, id="")


Name = Annotated[str, StringConstraints(max_length=1024), AfterValidator(whole)]
Line = Annotated[str, StringConstraints(max_length=8192), AfterValidator(whole)]
Run = Annotated[int, Field(ge=1, lt=1 << 62), Body(embed=True)]
Limit = Annotated[int, Field(ge=0, le=BATCH), Body()]
After = Annotated[Line | None, Body()]
Bound = Line | None
Keys = Annotated[list[Key], Field(max_length=BATCH), Body(embed=True)]
SomeKeys = Annotated[list[Key] | None, Field(max_length=BATCH), Body(embed=True)]
Counts = Annotated[Report, AfterValidator(_sound), Body()]
Known = tuple[Key, Text | None, Revision, Revision, Size, Text | None]
OneKey = Annotated[Key, Body(embed=True)]
Facts = Annotated[Json, Body()]
Spec = Annotated[DriverSpec, AfterValidator(_remote)]


# -- items ---------------------------------------------------------------------------------------


@router.post("/datasets/{dataset}/count", summary="How many live items", dependencies=_READS)
def count(on: On, dataset: str) -> Json:
    return {"count": on.catalog.count(dataset)}


@router.post("/datasets/{dataset}/items", summary="A page of items, or of the trash", dependencies=_READS)
def items(
    on: On,
    dataset: str,
    prefix: Annotated[Line, Body()] = "",
    after: After = None,
    limit: Limit = 1000,
    trashed: Annotated[bool, Body()] = False,
) -> Json:
    found = on.catalog.items(dataset, prefix=prefix, after=after, limit=limit, trashed=trashed)
    return {"items": [asdict(one) for one in found]}


@router.post("/datasets/{dataset}/item", summary="One item, also from the trash", dependencies=_READS)
def item(on: On, dataset: str, key: OneKey) -> Json:
    return {"item": asdict(on.catalog.item(dataset, key))}


@router.post("/datasets/{dataset}/set_user_metadata", summary="Replace `metadata.user`", dependencies=_WRITES)
def set_user_metadata(on: On, dataset: str, key: Annotated[Key, Body()], user: Facts) -> Json:
    on.catalog.set_user_metadata(dataset, key, user)
    return {}


@router.post("/datasets/{dataset}/annotate", summary="Add an annotation", dependencies=_WRITES)
def annotate(on: On, dataset: str, key: Annotated[Key, Body()], annotation: Facts) -> Json:
    return {"id": on.catalog.annotate(dataset, key, annotation)}


@router.post("/datasets/{dataset}/annotations", summary="Annotations of an item", dependencies=_READS)
def annotations_of(on: On, dataset: str, key: OneKey) -> Json:
    return {"annotations": on.catalog.annotations(dataset, key)}


@router.post("/datasets/{dataset}/move", summary="Give a new key an old key's item", dependencies=_WRITES)
def move(
    on: On,
    dataset: str,
    old: Annotated[Known, Body()],
    new: Annotated[Known, Body()],
    found: Annotated[Found, Body()],
) -> Json:
    # The items' numbers came from the caller: only the rows' own, and only of this dataset.
    for told in (old, new):
        row = on.catalog.get(dataset, told[0])
        if row is None or row.item != told[3]:
            raise errors.Conflict(f"{told[0]!r} changed meanwhile", resource=told[0])
    return {"row": on.catalog.move(dataset, Row._make(old), Row._make(new), to_object(found))}


# -- runs ----------------------------------------------------------------------------------------


def _own(on: Platform, dataset: str, run: int) -> None:
    """Go on if the run is the dataset's, for which the caller's rights were asked."""
    if not on.catalog.is_run_of(dataset, run):
        raise NotFound(f"the dataset has no run {run}", resource=str(run))


@router.post("/datasets/{dataset}/begin_run", summary="Take the dataset for a sweep", dependencies=_WRITES)
def begin_run(
    on: On,
    dataset: str,
    holder: Annotated[Name, Body()],
    resume: Annotated[bool, Body()] = True,
) -> Json:
    return {"run": asdict(on.catalog.begin_run(dataset, resume=resume, holder=holder))}


@router.post("/datasets/{dataset}/advance", summary="Record a sweep's progress", dependencies=_WRITES)
def advance(
    on: On,
    dataset: str,
    run: Run,
    cursor: After,
    missing: Annotated[list[Key], Field(max_length=BATCH), Body()],
    report: Counts,
    ranges: Annotated[list[tuple[Bound, Bound]] | None, Field(max_length=BATCH), Body()] = None,
) -> Json:
    _own(on, dataset, run)
    on.catalog.advance(run, cursor, missing, report, ranges)
    return {}


@router.post("/datasets/{dataset}/heartbeat", summary="Say that a run is alive", dependencies=_WRITES)
def heartbeat(on: On, dataset: str, run: Run) -> Json:
    _own(on, dataset, run)
    on.catalog.heartbeat(run)
    return {}


@router.post("/datasets/{dataset}/missing", summary="Keys noted as missing", dependencies=_READS)
def missing(on: On, dataset: str, run: Run, after: After = None, limit: Limit = 1000) -> Json:
    _own(on, dataset, run)
    return {"keys": on.catalog.missing(run, after=after, limit=limit)}


@router.post("/datasets/{dataset}/count_missing", summary="How many they are", dependencies=_READS)
def count_missing(on: On, dataset: str, run: Run) -> Json:
    _own(on, dataset, run)
    return {"count": on.catalog.count_missing(run)}


@router.post("/datasets/{dataset}/forget_missing", summary="Keys that were dealt with", dependencies=_WRITES)
def forget_missing(on: On, dataset: str, run: Run, keys: Keys) -> Json:
    _own(on, dataset, run)
    on.catalog.forget_missing(run, keys)
    return {}


@router.post("/datasets/{dataset}/pair_moves", summary="Find new keys for missing ones", dependencies=_WRITES)
def pair_moves(on: On, dataset: str, run: Run) -> Json:
    _own(on, dataset, run)
    return {"pairs": on.catalog.pair_moves(run)}


@router.post("/datasets/{dataset}/moves", summary="The pairs that were found", dependencies=_READS)
def moves(on: On, dataset: str, run: Run, after: After = None, limit: Limit = 1000) -> Json:
    _own(on, dataset, run)
    return {"moves": on.catalog.moves(run, after=after, limit=limit)}


@router.post("/datasets/{dataset}/finish_run", summary="End a run", dependencies=_WRITES)
def finish_run(
    on: On,
    dataset: str,
    run: Run,
    state: Annotated[Literal["done", "failed", "refused", "interrupted"], Body()],
    report: Counts,
    error: Annotated[Line | None, Body()] = None,
) -> Json:
    _own(on, dataset, run)
    on.catalog.finish_run(run, state, report, error)
    return {}


@router.post("/datasets/{dataset}/runs", summary="Runs, newest first", dependencies=_READS)
def runs(on: On, dataset: str, limit: Annotated[int, Field(ge=0, le=BATCH), Body(embed=True)] = 20) -> Json:
    return {"runs": [asdict(one) for one in on.catalog.runs(dataset, limit=limit)]}


# -- quarantine and trash ------------------------------------------------------------------------


@router.post(
    "/datasets/{dataset}/quarantine", summary="A key that could not be settled", dependencies=_WRITES
)
def quarantine(
    on: On,
    dataset: str,
    key: Annotated[Key, Body()],
    error: Annotated[Name, Body()],
    reason: Annotated[Line, Body()],
) -> Json:
    on.catalog.quarantine(dataset, key, errors.named(error)(reason))
    return {}


@router.post("/datasets/{dataset}/quarantined", summary="Keys in quarantine", dependencies=_READS)
def quarantined(on: On, dataset: str) -> Json:
    return {"keys": [asdict(one) for one in on.catalog.quarantined(dataset)]}


@router.post("/datasets/{dataset}/release", summary="Take keys out of quarantine", dependencies=_WRITES)
def release(on: On, dataset: str, keys: SomeKeys = None) -> Json:
    return {"count": on.catalog.release(dataset, keys)}


@router.post("/datasets/{dataset}/restore", summary="Bring an item back from the trash", dependencies=_WRITES)
def restore(on: On, dataset: str, key: OneKey) -> Json:
    return {"restored": on.catalog.restore(dataset, key)}


@router.post("/datasets/{dataset}/empty_trash", summary="Forget trashed items", dependencies=_WRITES)
def empty_trash(on: On, dataset: str, keys: SomeKeys = None) -> Json:
    return {"count": on.catalog.empty_trash(dataset, keys)}


# -- records -------------------------------------------------------------------------------------


def _seen(on: Platform, who: Caller) -> list[Dataset]:
    """Datasets that the caller may read."""
    return [
        one
        for one in on.catalog.datasets()
        if on.datasets.get(one.id, counted=False)["projects"][0] in who.roles
    ]


def _dataset(on: Platform, who: Caller, name: str) -> Dataset:
    """One of those, by name or id."""
    seen = _seen(on, who)
    with contextlib.suppress(NotFound):
        found = on.catalog.dataset(name)
        if found in seen:
            return found
    known = ", ".join(one.name for one in seen[:10])
    hint = f"there are {known}" if known else "there is no dataset yet"
    raise NotFound(f"no dataset {name!r}", resource=name, hint=hint)


@router.post("/datasets", summary="Datasets that the caller may read")
def datasets(on: On, who: Who) -> Json:
    return {"datasets": [asdict(one) for one in _seen(on, who)]}


@router.post("/dataset", summary="One of them, by name or id")
def dataset(on: On, who: Who, name: Annotated[Name, Body(embed=True)]) -> Json:
    return {"dataset": asdict(_dataset(on, who, name))}


@router.post("/create_dataset", summary="Make an empty dataset over a driver")
def create_dataset(on: On, who: Who, name: Annotated[Name, Body()], driver: Annotated[Name, Body()]) -> Json:
    who.administer()
    return {"dataset": asdict(on.catalog.create_dataset(name, driver))}


@router.post("/ensure_dataset", summary="The dataset of this name over this source, made on first use")
def ensure_dataset(on: On, who: Who, name: Annotated[Name, Body()], spec: Annotated[Spec, Body()]) -> Json:
    who.administer()
    return {"dataset": asdict(on.catalog.ensure_dataset(name, spec))}


@router.post("/remove_dataset", summary="Forget a dataset with its items, annotations and runs")
def remove_dataset(on: On, who: Who, name: Annotated[Name, Body(embed=True)]) -> Json:
    found = _dataset(on, who, name)
    who.may("dataset.write", on.datasets.get(found.id, counted=False)["projects"][0])
    on.writable(found.id)
    on.catalog.remove_dataset(found.id)
    on.forget(found.id)
    return {}


@router.post("/drivers", summary="All drivers")
def drivers(on: On, who: Who) -> Json:
    who.administer()
    return {"drivers": [asdict(one) for one in on.catalog.drivers()]}


@router.post("/create_driver", summary="Store a driver")
def create_driver(on: On, who: Who, spec: Annotated[Spec, Body(embed=True)]) -> Json:
    who.administer()
    return {"driver": asdict(on.catalog.create_driver(spec))}


@router.post("/remove_driver", summary="Forget a driver that no dataset uses")
def remove_driver(on: On, who: Who, name: Annotated[Name, Body(embed=True)]) -> Json:
    who.administer()
    on.catalog.remove_driver(name)
    return {}


@router.post("/integrations", summary="Integrations, without their secrets")
def integrations(on: On, who: Who) -> Json:
    who.administer()
    return {"integrations": [_integration(one) for one in on.catalog.integrations()]}


@router.post("/create_integration", summary="Store credentials, sealed")
def create_integration(
    on: On,
    who: Who,
    name: Annotated[Name, Body()],
    kind: Annotated[Name, Body(alias="type")],
    options: Annotated[dict[Name, Text], Body()],
) -> Json:
    who.administer()
    return {"integration": _integration(on.catalog.create_integration(Integration(name, kind, options)))}


def _integration(one: Integration) -> Json:
    return {"name": one.name, "type": one.type, "id": one.id}


@router.post("/remove_integration", summary="Forget credentials that no driver uses")
def remove_integration(on: On, who: Who, name: Annotated[Name, Body(embed=True)]) -> Json:
    who.administer()
    on.catalog.remove_integration(name)
    return {}


@router.post("/stats", summary="Sizes and counts of the catalog")
def stats(on: On, who: Who) -> Json:
    who.administer()
    return on.catalog.stats()


@router.post("/vacuum", summary="Forget trash and tombstones past their time")
def vacuum(
    on: On,
    who: Who,
    trash_days: Annotated[float, Field(ge=0, le=36500), Body()] = 30,
    tombstone_days: Annotated[float, Field(ge=0, le=36500), Body()] = 15,
) -> Json:
    who.administer()
    return dict(on.catalog.vacuum(trash_days=trash_days, tombstone_days=tombstone_days))
