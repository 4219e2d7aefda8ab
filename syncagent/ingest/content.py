"""The bytes of items: put, read and deleted where the item's dataset keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import BinaryIO, cast

from syncagent.catalog.base import Item
from syncagent.catalog.files import Files
from syncagent.catalog.sql.items import Items
from syncagent.drivers.streams import Limited
from syncagent.errors import InvalidInput, NotFound, Refused, Unsupported
from syncagent.reconcile import Reconciler


class Content:
    """The bytes of one dataset's items.

    :param reconciler: of the dataset's bucket; None for a dataset without a driver, whose bytes are in `files`.
    """

    def __init__(self, items: Items, files: Files, dataset: str, reconciler: Reconciler | None) -> None:
        self._items = items
        self._files = files
        self._dataset = dataset
        self._reconciler = reconciler

    def upload(self, key: str, body: BinaryIO, *, by: str, content_type: str | None = None) -> Item:
        """Put an object, then settle its item: no item without its bytes.

        :raises InvalidInput: no object can have this key.
        """
        if not key or key.endswith("/") or "\0" in key:
            raise InvalidInput(f"{key!r} is no path of a file", resource=key)
        if self._reconciler is None:
            digest, size = self._files.put(body)
            return self._items.place(
                self._dataset, key, storage=f"file:{digest}", by=by, size=size, fingerprint=digest,
                content_id=f"sha256:{digest}", content_type=content_type,
            )  # fmt: skip
        self._reconciler.bucket.put(key, body, content_type=content_type)
        self._reconciler.settle(key)
        return self._mirrored(key)

    def take_over(self, key: str, filename: str, *, by: str) -> Item:
        """Make an item of an object that is in the bucket already.

        :param filename: the item's path without its first slash; another one than `key` makes it an alias.
        :raises NotFound: no such object.
        """
        if self._reconciler is None:
            raise InvalidInput("the dataset has no driver to import from", resource=key)
        if key == filename:
            self._reconciler.settle(key)
            # Whoever asks for an item by name wants it back, also if somebody deleted it while its object stayed.
            self._reconciler.catalog.restore(self._dataset, key)
            return self._mirrored(key)
        found = self._reconciler.bucket.stat(key)
        return self._items.place(
            self._dataset, filename, storage=f"key:{key}", by=by, size=found.size, fingerprint=found.fingerprint,
            content_id=found.content_id, content_type=found.content_type, modified=found.modified,
        )  # fmt: skip

    def _mirrored(self, key: str) -> Item:
        item = self._items.at(self._dataset, key)
        if item is None:
            raise NotFound(f"no object {key!r}", resource=key, hint="upload it first")
        return item

    @contextlib.contextmanager
    def open(self, item: Item, *, offset: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        """The bytes of an item from `offset` on, at most `length` of them."""
        kind, _, name = (item.storage or f"key:{item.key}").partition(":")
        if kind == "file":
            with contextlib.closing(self._files.open(name)) as stream:
                stream.seek(offset)
                yield stream if length is None else cast(BinaryIO, Limited(stream, length))
        elif kind == "key" and self._reconciler is not None:
            with self._reconciler.bucket.open(name, offset=offset, length=length) as stream:
                yield stream
        else:
            raise InvalidInput(f"{item.filename} is a folder and has no bytes", resource=item.id)

    def signed(self, item: Item, *, expires: timedelta) -> str | None:
        """A URL that gives the bytes to whoever has it, or None where none can be signed."""
        kind, _, name = (item.storage or f"key:{item.key}").partition(":")
        if kind != "key" or self._reconciler is None or not self._reconciler.bucket.caps.signs:
            return None
        try:
            return self._reconciler.bucket.sign(name, expires=expires)
        except Unsupported:  # these credentials cannot
            return None

    def delete(self, item: Item, *, by: str) -> None:
        """Move an item to the trash; its object goes first, where the driver allows that.

        :raises SyncAgentError: the object could not be deleted; the item stays.
        """
        mirrored = item.storage is None and self._reconciler is not None
        if mirrored and self._reconciler is not None:
            with contextlib.suppress(
                Refused
            ):  # the driver does not allow it: the object stays, the item goes
                self._reconciler.bucket.delete(item.key)
                self._reconciler.settle(item.key)
                return
        self._items.dismiss(item.id, by=by)


class ContentTarget:
    """`ingest.upload.Target` over a dataset whose bytes are kept beside the catalog."""

    def __init__(self, content: Content, *, by: str = "syncagent") -> None:
        self._content, self._by = content, by

    def put(self, key: str, body: BinaryIO, *, content_type: str | None) -> tuple[Item, str]:
        """See `ingest.upload.Target.put`."""
        item = self._content.upload(key, body, by=self._by, content_type=content_type)
        return item, (item.storage or "").removeprefix("file:")

    def holds(self, item: Item, body: BinaryIO) -> bool:
        """See `ingest.upload.Target.holds`. The item's digest tells it."""
        return False
