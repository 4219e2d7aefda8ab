"""What the tests of catalog and reconciler share: small objects, buckets in memory, comparisons."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from syncagent.catalog.base import Catalog, Dataset, Store
from syncagent.drivers import Bucket
from syncagent.drivers.memory import MemoryDriver
from syncagent.model import DriverSpec, ObjectInfo
from syncagent.reconcile import Reconciler

HASH = object()
"""Stands for "the hash of the content" where None means "the store does not tell"."""


def info(
    key: str, content: str = "body", *, fingerprint: str | None = None, content_id: object = HASH
) -> ObjectInfo:
    """An object as a listing tells it. Its fingerprint is its content unless given."""
    digest = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    return ObjectInfo(
        key, fingerprint or digest, len(content), "2026-01-02T03:04:05Z", digest, fingerprint,
        digest if content_id is HASH else content_id, "text/plain", "STANDARD",
    )  # fmt: skip


def memory_bucket(
    objects: Mapping[str, bytes] | None = None, *, page_size: int = 1000, driver: MemoryDriver | None = None
) -> Bucket:
    """A bucket of its own, filled."""
    bucket = Bucket(
        driver or MemoryDriver(page_size=page_size),
        DriverSpec(type="memory", bucket="box"),
        url="memory://box",
    )
    for key, body in (objects or {}).items():
        put(bucket, key, body)
    return bucket


def put(bucket: Bucket, key: str, body: bytes = b"body") -> ObjectInfo:
    return bucket.put(key, io.BytesIO(body))


def drop(bucket: Bucket, *keys: str) -> None:
    """Delete behind syncagent's back, past the delete policy."""
    for key in keys:
        bucket.driver.delete(key)


def reconciler(catalog: Store, bucket: Bucket, *, workers: int = 2, listers: int = 1) -> Reconciler:
    dataset = catalog.ensure_dataset("data", bucket.spec)
    return Reconciler(catalog, dataset, bucket, workers=workers, listers=listers)


def live(catalog: Catalog, dataset: Dataset) -> dict[str, str]:
    """Fingerprints of live rows by key."""
    return {row.key: row.fingerprint for row in catalog.scan(dataset.id) if row.fingerprint is not None}


def stored(bucket: Bucket) -> dict[str, str]:
    """Fingerprints of objects by key."""
    return {found.key: found.fingerprint for page in bucket.list() for found in page}


def assert_equal(of: Reconciler) -> None:
    """The catalog holds what the bucket holds, no more and no less."""
    assert live(of.catalog, of.dataset) == stored(of.bucket)


class Clock:
    """Time that passes only when told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, *, days: float = 0, seconds: float = 0) -> None:
        self.now += days * 86400 + seconds
