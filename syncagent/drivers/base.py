"""The contract of a storage driver: what a cloud implements. Everyone else holds a `Bucket`.

A driver is right when `tests/contract/test_driver.py` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO, Literal, Protocol

from syncagent.model import ObjectInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do, readable before calling."""

    sorted_listing: bool
    """`list` yields keys in UTF-8 byte order; if False, `Bucket` sorts on disk."""
    conditional_put: bool
    """`put(if_absent=True)` is atomic; if False, it raises `Unsupported`."""
    signs: bool
    """`sign` works; if False, it raises `Unsupported`."""
    content_type_in_listing: bool
    any_key: bool
    """Every Unicode key up to 1,024 bytes can be stored as it is (a file system cannot)."""
    ranges: bool = False
    """A listing may begin at any key for the price of a page, and a page is worth waiting for in parallel."""
    prices: tuple[tuple[str, float], ...] = ()
    """US dollars per 1,000 requests of each kind, for estimates; empty where not known."""


class Driver(Protocol):
    """One bucket of one store.

    - Keys are full keys of the bucket: decoded once from the wire, never changed after that.
    - Errors are `SyncAgentError` subclasses with `resource` set and the SDK's error as `__cause__`.
    - One object may be used from many threads.
    - Not here: creating buckets, ACLs, lifecycle, copy, rename, folders, retries (the SDK has its own).
    """

    caps: Capabilities
    requests: Counter[str]
    """Requests sent, by kind: ``list``, ``head``, ``get``, ``put``, ``delete``."""

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[Sequence[ObjectInfo]]:
        """Pages of objects, flat and lazy, in UTF-8 byte order when `caps.sorted_listing`.

        :param prefix: plain text that keys start with; not a folder.
        :param after: exclusive lower bound, any string.
        :param until: inclusive upper bound. A hint: more may come, and `Bucket` cuts.
        :raises SyncAgentError: whatever goes wrong, also half-way; a listing never just ends early.
        """
        ...

    def stat(self, key: str) -> ObjectInfo:
        """The object as it is this moment (strongly consistent).

        :raises NotFound: there is no such object; a delete marker is none.
        """
        ...

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Stream bytes ``[offset, offset+length)``; past the end there are none, and that is no error.

        :raises NotFound: there is no such object.
        """
        ...

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """Store the whole object or nothing; returns what `stat` would.

        :raises AlreadyExists: `if_absent` and the key is there.
        :raises InvalidInput: the store cannot hold this key.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete the object; a missing one is success."""
        ...

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """A URL that allows `method` on this key until `expires` from now.

        :raises Unsupported: the driver or its credentials cannot sign.
        """
        ...

    def close(self) -> None:
        """Release connections. Calling twice is fine."""
        ...
