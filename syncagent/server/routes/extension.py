"""What the reconciler needs of a catalog, beside the platform's API: compare-and-set, ranges, batches.

A client of ours finds it at ``/api/v1/syncagent`` and then converges as over an embedded catalog; the platform
has no such path. Rows and objects travel as arrays, in the order of `Row` and `ObjectInfo`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from syncagent.errors import InvalidInput
from syncagent.model import ObjectInfo, Settle
from syncagent.server.auth import Who
from syncagent.server.routes.common import Json, On
from syncagent.server.routes.once import Once

router = APIRouter(prefix="/syncagent", tags=["syncagent"], route_class=Once)
VERSION = 1
BATCH = 5000
SUMMED = 20_000
OPERATIONS = ("get", "scan", "stamps", "digest", "insert", "settle")


def whole(key: str) -> str:
    """The text, if a catalog can hold it."""
    if "\0" in key:
        raise ValueError("no key, name or path can have a NUL")
    return key


Key = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(whole)]
Text = Annotated[str, StringConstraints(max_length=8192)]  # as long as a store's headers may be
Size = Annotated[int, Field(ge=0, lt=1 << 62)]
Revision = Annotated[int, Field(ge=0, lt=1 << 62)]
Found = tuple[Key, Text, Size, Text, Text | None, Text | None, Text | None, Text | None, Text | None]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Range(_Body):
    """``after < key <= until``."""

    after: str | None = None
    until: str | None = None
    limit: Annotated[int, Field(ge=1, le=BATCH)] = 1000


class Summed(_Body):
    """``after < key <= until``, of which no rows travel."""

    after: str | None = None
    until: str | None = None
    limit: Annotated[int, Field(ge=1, le=SUMMED)] = SUMMED


class Keys(_Body):
    """Some keys."""

    keys: Annotated[list[Key], Field(max_length=BATCH)]


class Objects(_Body):
    """Objects that a listing told."""

    found: Annotated[list[Found], Field(max_length=BATCH)]
    run: Revision = 0
    """The sweep that found them, to pair moves."""


class Settled(_Body):
    """What the bucket holds at a key (None: nothing), looked at after the row had revision `expectRev`."""

    key: Key
    found: Found | None = None
    expectRev: Revision  # noqa: N815  # as the API writes names


class Settles(_Body):
    """Keys that were looked at."""

    settles: Annotated[list[Settled], Field(max_length=BATCH)]


def asked(action: str, *, writes: bool = True, mirrored: bool = False) -> Any:
    """A check before the body is looked at: whether the caller may.

    :param writes: and the dataset is not locked; :param mirrored: and it mirrors a bucket.
    """

    def check(on: On, who: Who, dataset: str) -> None:
        found = on.datasets.get(dataset, counted=False)
        who.may(action, found["projects"][0])
        if mirrored and found["driver"] is None:
            raise InvalidInput(f"dataset {found['name']!r} mirrors no bucket", resource=dataset)
        if writes:
            on.writable(dataset)

    return Depends(check)


_READS = [asked("dataset.read", writes=False, mirrored=True)]
_WRITES = [asked("item.write", mirrored=True)]


@router.get("", summary="Whether and which operations of the reconciler are offered")
def offered(who: Who) -> Json:
    return {"version": VERSION, "batch": BATCH, "operations": OPERATIONS}


@router.post(
    "/datasets/{dataset}/get",
    summary="Rows of some keys; null for a key never seen",
    dependencies=_READS,
)
def get(on: On, dataset: str, body: Keys) -> Json:
    return {"rows": on.catalog.rows(dataset, body.keys)}


@router.post(
    "/datasets/{dataset}/scan",
    summary="Rows of a range of keys, in byte order, tombstones included",
    dependencies=_READS,
)
def scan(on: On, dataset: str, body: Range) -> Json:
    rows = on.catalog.scan(dataset, after=body.after, until=body.until, limit=body.limit)
    return {"rows": list(rows)}


@router.post(
    "/datasets/{dataset}/stamps",
    summary="Key and fingerprint of the rows that a scan would tell",
    dependencies=_READS,
)
def stamps(on: On, dataset: str, body: Range) -> Json:
    if body.until is None:
        raise InvalidInput("stamps need the end of their range", resource="until")
    return {"stamps": on.catalog.stamps(dataset, after=body.after, until=body.until, limit=body.limit)}


@router.post(
    "/datasets/{dataset}/digest",
    summary="Count and sum of the live rows of a range, or of its first rows",
    dependencies=_READS,
)
def digest(on: On, dataset: str, body: Summed) -> Json:
    """`last` is the key after which it goes on, or null at the end; parts add up, modulo 2**128."""
    found, last = on.catalog.digest_page(dataset, after=body.after, until=body.until, limit=body.limit)
    return {"count": found.count, "sum": found.hex, "last": last}


@router.post(
    "/datasets/{dataset}/insert",
    summary="Insert items for keys never seen; tells those that were",
    dependencies=_WRITES,
)
def insert(on: On, dataset: str, body: Objects) -> Json:
    return {"known": on.catalog.insert_new(dataset, [to_object(one) for one in body.found], run=body.run)}


@router.post(
    "/datasets/{dataset}/settle",
    summary="Write what the bucket holds, where the revisions still fit",
    dependencies=_WRITES,
)
def settle(on: On, dataset: str, body: Settles) -> Json:
    """Each for itself: one that came too late is null, and does not stop the others."""
    settles = []
    for one in body.settles:
        found = None if one.found is None else to_object(one.found)
        if found is not None and found.key != one.key:
            raise InvalidInput(f"{found.key!r:.60} is not the object at {one.key!r:.60}", resource=one.key)
        settles.append(Settle(one.key, found, one.expectRev))
    return {"rows": on.catalog.settle_many(dataset, settles)}


def to_object(told: Any) -> ObjectInfo:
    """An object as it came, checked."""
    return ObjectInfo._make(told)
