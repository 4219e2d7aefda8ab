"""Where the bytes of items come from: a bucket, the folder beside the catalog, a server. Read from any place on, and looked at anew."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from syncagent.catalog.base import Item
from syncagent.catalog.files import Files
from syncagent.catalog.rest import Session
from syncagent.drivers import Bucket
from syncagent.errors import AccessDenied, InvalidInput, NotFound
from syncagent.model import ObjectInfo

_CHUNK = 1 << 18
_MD5 = re.compile("[0-9a-f]{32}")
_AT_ONCE = 6  # streams of one session: it has eight connections


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an object's bytes."""

    size: int
    content_id: str | None
    etag: str | None
    version: str | None
    modified: str
    """UTC, ISO 8601; empty where nobody knows."""

    @property
    def token(self) -> str:
        """Equal for one write of the object; a part of its bytes goes on only where it is."""
        write = self.etag or self.version or self.content_id or self.modified
        return hashlib.sha256(f"{self.size}\0{write}".encode()).hexdigest()[:16]

    @property
    def seconds(self) -> int | None:
        """When it was written, in Unix seconds; None where nobody knows."""
        try:
            return int(datetime.fromisoformat(self.modified).timestamp())
        except (ValueError, OverflowError):
            return None

    @property
    def digest(self) -> tuple[str, bytes] | None:
        """``md5`` or ``sha256`` and its value, where the store says that its id of the content is one."""
        kind, _, told = (self.content_id or "").partition(":")
        try:
            if kind == "sha256":
                return kind, bytes.fromhex(told)
            return (kind, base64.b64decode(told, validate=True)) if kind == "md5" else None
        except ValueError:
            return None

    @property
    def provable(self) -> bool:
        """Whether the store tells a digest of the content, or what may be one."""
        return self.digest is not None or _MD5.fullmatch(self.content_id or "") is not None

    def is_md5(self, told: str) -> bool:
        """Whether an MD5, in hexadecimal, proves that bytes are the object's. If not, they still may be.

        The etag of S3 is an MD5 or, in a bucket sealed with keys of KMS, looks like one.
        """
        return self.content_id == told


def facts_of(item: Item | ObjectInfo) -> Facts:
    """What the catalog, or the store, knows."""
    return Facts(item.size, item.content_id, item.etag, item.version, item.modified)


class Origin(Protocol):
    """Bytes of items. Used from many threads.

    :raises NotFound: an item has none, or they are gone. :raises SyncAgentError: whatever else goes wrong, also half-way.
    """

    def chunks(self, item: Item, offset: int = 0) -> Generator[bytes, None, None]:
        """The bytes from `offset` on. To be closed if not read to the end."""
        ...

    def now(self, item: Item) -> Facts:
        """What is there this moment, and not when the catalog looked last."""
        ...


class HereOrigin:
    """A dataset of an embedded catalog, or one whose bucket can be reached from here.

    :param bucket: None for a dataset without one; :param files: beside the catalog, if that is here.
    """

    def __init__(self, bucket: Bucket | None, files: Files | None) -> None:
        self._bucket, self._files = bucket, files

    def chunks(self, item: Item, offset: int = 0) -> Generator[bytes, None, None]:
        """See `Origin.chunks`."""
        kind, name = _place(item)
        with contextlib.ExitStack() as stack:
            if kind == "file" and self._files is not None:
                stream: BinaryIO = stack.enter_context(contextlib.closing(self._files.open(name)))
                stream.seek(offset)
            elif kind == "key" and self._bucket is not None:
                stream = stack.enter_context(self._bucket.open(name, offset=offset))
            else:
                raise NotFound(f"{item.key!r} has no bytes here", resource=item.key)
            while chunk := stream.read(_CHUNK):
                yield chunk

    def now(self, item: Item) -> Facts:
        """See `Origin.now`."""
        kind, name = _place(item)
        if kind == "key" and self._bucket is not None:
            return facts_of(self._bucket.stat(name))
        return facts_of(item)  # a file beside the catalog never changes


class ServerOrigin:
    """Items of a server of ours, or of the platform.

    :param item_at: the item of a key as the server has it this moment; None if it is gone.
    """

    def __init__(self, session: Session, item_at: Callable[[str], Item | None]) -> None:
        self._session, self._item_at = session, item_at
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def chunks(self, item: Item, offset: int = 0) -> Generator[bytes, None, None]:
        """See `Origin.chunks`."""
        with (
            self._turns,
            contextlib.closing(self._session.stream(f"/items/{item.id}/stream", offset=offset)) as stream,
        ):
            yield from stream

    def now(self, item: Item) -> Facts:
        """See `Origin.now`."""
        found = self._item_at(item.key)
        if found is None or found.id != item.id:
            raise NotFound(f"the item {item.key!r} is gone", resource=item.key)
        return facts_of(found)


class EitherOrigin:
    """A bucket with this machine's own credentials, and the server where those are not enough."""

    def __init__(self, bucket: Origin, server: Origin) -> None:
        self._bucket, self._server = bucket, server
        self._denied = False

    def chunks(self, item: Item, offset: int = 0) -> Generator[bytes, None, None]:
        """See `Origin.chunks`."""
        if not self._denied:
            began = False
            try:
                for chunk in self._bucket.chunks(item, offset):
                    began = True
                    yield chunk
                return
            except AccessDenied:
                self._denied = True
                if began:
                    raise
            except NotFound:  # the item may have another name than its object
                if began:
                    raise
        yield from self._server.chunks(item, offset)

    def now(self, item: Item) -> Facts:
        """See `Origin.now`."""
        if not self._denied:
            try:
                return self._bucket.now(item)
            except AccessDenied:
                self._denied = True
            except NotFound:
                pass
        return self._server.now(item)


def _place(item: Item) -> tuple[str, str]:
    """See `catalog.sql.items`: what kind of storage, and the name there."""
    kind, _, name = (item.storage or f"key:{item.key}").partition(":")
    return kind, name


def item_of(told: Any) -> Item:
    """An item of the platform's JSON, as far as its bytes are concerned.

    :raises InvalidInput: it is no item.
    """
    try:
        system = told["metadata"]["system"]
        return Item(
            id=told["id"], dataset=told["datasetId"], key=str(told["filename"]).removeprefix("/"), size=int(system["size"]),
            mimetype=str(system.get("mimetype") or ""), etag=system.get("etag"), version=system.get("version"), content_id=None,
            storage_class=None, modified=str(system.get("modified") or ""), created_at="", removed_at=None, rev=0, annotations=0,
            changed_since_annotated=False, system=system, type=str(told.get("type") or "file"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput("the server answered with something that is no item") from error
