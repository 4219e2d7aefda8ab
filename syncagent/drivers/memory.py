"""A bucket in memory: the reference driver. Engine tests use it instead of mocks.

``memory://name`` opens the same bucket again and again within one process.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Literal

from syncagent.drivers.base import Capabilities
from syncagent.errors import AlreadyExists, NotFound, Unsupported
from syncagent.model import DriverSpec, Integration, ObjectInfo

USAGE = "memory://name"
_STORES: dict[str, _Store] = {}


@dataclass(frozen=True, slots=True)
class _Object:
    info: ObjectInfo
    body: bytes


class _Store:
    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self.lock = threading.Lock()
        self.generation = 0


class MemoryDriver:
    """`Driver` over a dictionary. Every write gets a new version, as in Google Cloud Storage."""

    caps = Capabilities(
        sorted_listing=True,
        conditional_put=True,
        signs=False,
        content_type_in_listing=True,
        any_key=True,
    )

    def __init__(self, store: _Store | None = None, *, page_size: int = 1000) -> None:
        self._store = store or _Store()
        self._page_size = page_size
        self.requests: Counter[str] = Counter()

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        """See `Driver.list`."""
        cursor = after
        while True:
            self.requests["list"] += 1
            with self._store.lock:
                keys = sorted(
                    k for k in self._store.objects if k.startswith(prefix) and (cursor is None or k > cursor)
                )
                page = [self._store.objects[k].info for k in keys[: self._page_size]]
            if page:
                yield page
                cursor = page[-1].key
            if len(keys) <= self._page_size or (until is not None and cursor is not None and cursor >= until):
                return

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        self.requests["head"] += 1
        return self._get(key).info

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> closing[BinaryIO]:
        """See `Driver.open`."""
        self.requests["get"] += 1
        end = None if length is None else offset + length
        return closing(io.BytesIO(self._get(key).body[offset:end]))

    def _get(self, key: str) -> _Object:
        found = self._store.objects.get(key)
        if found is None:
            raise NotFound(f"no object {key!r}", resource=key) from KeyError(key)
        return found

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`."""
        self.requests["put"] += 1
        data = body.read()
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._store.lock:
            if if_absent and key in self._store.objects:
                raise AlreadyExists(f"{key!r} is already there", resource=key) from KeyError(key)
            self._store.generation += 1
            version = str(self._store.generation)
            info = ObjectInfo(
                key, version, len(data), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                md5, version, md5, content_type, "STANDARD",
            )  # fmt: skip
            self._store.objects[key] = _Object(info, data)
        return info

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        self.requests["delete"] += 1
        with self._store.lock:
            self._store.objects.pop(key, None)

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """Unsupported: nobody else can reach this process's memory."""
        raise Unsupported("memory:// cannot sign URLs", resource=key)

    def close(self) -> None:
        """Nothing to release; the objects stay."""


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> MemoryDriver:
    """Open the bucket of this name, making it on first use."""
    return MemoryDriver(_STORES.setdefault(spec.bucket, _Store()))
