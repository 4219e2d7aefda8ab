"""The change feed of an Azure storage account without a hierarchical namespace: ``azfeed://account``.

Complete, and in order for each blob, but minutes late: https://learn.microsoft.com/azure/storage/blobs/storage-blob-change-feed.
How far it was read stands in a file of this machine. Without one it is read from its newest hour on: a sweep finds the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from syncagent.config import home
from syncagent.drivers.azure import access_of
from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.drivers.source_queue import Kept
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import DriverSpec, Integration

OPTIONS = {
    "endpoint": "another server that speaks the same protocol",
    "suffix": "of the cloud's hosts; default core.windows.net",
    "container": "of the feed; default $blobchangefeed",
    "every": "seconds between two looks; default 60",
}
_SEGMENTS = "idx/segments/"
_MOST_KEPT = 20_000
_STEP = 0.2
_SAVE_SECONDS = 1.0
_ACTION = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"


class ChangeFeedQueue:
    """`Queue` over a change feed."""

    provider = "azureblob"
    most = 1000
    keeps = True

    def __init__(self, spec: QueueSpec, integration: Integration | None = None) -> None:
        options = dict(spec.options)
        if "/" in spec.name:
            raise ConfigError(f"{spec.url} names no account", resource=spec.url, hint="azfeed://account")
        every = options.pop("every", "60")
        if not (every.isascii() and every.isdecimal()):
            raise ConfigError(f"every={every} is no number of seconds", resource=spec.name)
        self.url, self._name, self.hold, self._every = spec.url, spec.name, spec.hold, int(every)
        self._container = options.pop("container", "$blobchangefeed")
        endpoint = options.pop("endpoint", None)
        self._spec = DriverSpec(type="azureblob", bucket=f"{spec.name}/x", endpoint=endpoint, options=options)
        self._integration = integration
        self._kept = Kept(spec.hold)
        self._looking = threading.Lock()
        self._made: Any = None
        self._looked_at = float("-inf")
        self._seen: dict[str, int] = {}  # chunks that were read to their end, and their size then
        self._position = Position(_file(f"{endpoint or spec.name}/{spec.name}/{self._container}"))

    def __repr__(self) -> str:
        return f"<ChangeFeedQueue {self._name}>"

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        until = time.monotonic() + wait
        while True:
            found = self._kept.take(most)
            if found:
                return found
            with self._looking:
                if time.monotonic() - self._looked_at >= self._every:
                    with self._translated():
                        full = self._look()
                    self._looked_at = float("-inf") if full else time.monotonic()
                    found = self._kept.take(most)
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(_STEP, left))

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`. What was read and done is not read again, also by the next process."""
        self._kept.delete(messages)
        self._position.done([one.id for one in messages])

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`."""
        self.release(messages, self.hold)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`."""
        self._kept.release(messages, after)

    def depth(self) -> Depth:
        """See `Queue.depth`: what was read and is not done."""
        return self._kept.depth()

    def close(self) -> None:
        """See `Queue.close`."""
        with self._looking:
            if self._made is not None:
                self._made.close()
        self._position.save()

    # -- the feed --------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Read what is new; whether there may be more, for which there was no room."""
        if len(self._kept) >= _MOST_KEPT:
            return True
        told = self._json("meta/segments.json")
        until = _hour(str(told.get("lastConsumable", "")))
        segments = [name for name in self._names(_SEGMENTS) if self._wanted(name, until)]
        if self._position.segment is None and segments:
            self._position.begin(segments[-1])
            segments = segments[-1:]
        elif segments and self._position.segment not in segments:
            self._position.begin(
                segments[0]
            )  # what we stopped at has left the feed: a sweep finds what was there
        sizes: dict[str, int] = {}
        for name in segments:
            segment = self._json(name)
            for shard in segment.get("chunkFilePaths", []):
                # The path begins with the container.
                for chunk, size in self._sizes(str(shard).partition("/")[2]):
                    sizes[chunk] = size
                    if self._seen.get(chunk) == size:
                        continue
                    for number, record in self._records(chunk, self._position.read(name, chunk)):
                        id = self._position.reads(name, chunk, number)
                        self._kept.add(id, json.dumps(record, default=str), _seconds(record))
                        if len(self._kept) >= _MOST_KEPT:
                            return True
                    self._seen[chunk] = size
            if segment.get("status") == "Finalized" and name != segments[-1]:
                self._position.ends(name, segments[segments.index(name) + 1])
        self._seen = sizes
        return False

    def _wanted(self, name: str, until: str) -> bool:
        """Whether a segment may be read: not before ours, and not after the newest that is complete."""
        hour = name.removeprefix(_SEGMENTS).removesuffix("/meta.json")
        # The first of a feed has the year 1601, and nothing in it.
        return (
            name.endswith("/meta.json")
            and not hour.startswith("1601/")
            and hour <= until
            and (self._position.segment or "") <= name
        )

    def _names(self, prefix: str) -> list[str]:
        return [name for name, _ in self._sizes(prefix)]

    def _sizes(self, prefix: str) -> list[tuple[str, int]]:
        found = self._client().list_blobs(name_starts_with=prefix)
        return sorted((str(one.name), int(one.size)) for one in found)

    def _json(self, name: str) -> dict[str, Any]:
        told = json.loads(self._client().download_blob(name).readall())
        if not isinstance(told, dict):
            raise SyncAgentError(f"the change feed of {self._name} has a damaged {name}", resource=self._name)
        return told

    def _records(self, chunk: str, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records of a chunk from number `after` on. Chunks grow at their end."""
        from fastavro import reader

        body = io.BytesIO(self._client().download_blob(chunk).readall())
        for number, record in enumerate(reader(body)):
            if number >= after and isinstance(record, dict):
                yield number, record

    def _client(self) -> Any:
        from azure.storage.blob import ContainerClient

        if self._made is None:
            access = access_of(self._spec, self._integration)
            self._made = ContainerClient(
                access.url, self._container, credential=access.credential, retry_total=4, initial_backoff=1,
                increment_base=2, connection_timeout=10, read_timeout=60,
            )  # fmt: skip
        return self._made

    @contextlib.contextmanager
    def _translated(self) -> Generator[None, None, None]:
        """The one place where the SDK's errors become ours."""
        from azure.core import exceptions

        name = self._name
        try:
            yield
        except exceptions.HttpResponseError as error:
            answer: Any = error.response
            if answer is not None:
                answer.internal_response.close()  # of a download, its connection is still open
            status = error.status_code or 0
            if status == 404:
                raise NotFound(
                    f"account {name} has no change feed", resource=name, hint="turn it on in the account's data protection",
                ) from error  # fmt: skip
            if status in {401, 403}:
                raise AccessDenied(
                    f"not allowed: {_ACTION} on the change feed of {name}", resource=name,
                    hint="give the role 'Storage Blob Data Reader'", permission=_ACTION,
                ) from error  # fmt: skip
            if status in {0, 408, 409, 429} or status >= 500:
                raise Transient(
                    f"Azure is busy ({status}) on the change feed of {name}", resource=name
                ) from error
            raise SyncAgentError(
                f"Azure answered {status} for the change feed of {name}", resource=name
            ) from error
        except exceptions.AzureError as error:
            raise Transient(
                f"cannot reach the change feed of {name}: {type(error).__name__}", resource=name
            ) from error
        except (ValueError, EOFError, KeyError) as error:  # JSON or Avro
            raise SyncAgentError(f"the change feed of {name} is damaged", resource=name) from error


class Position:
    """How far a feed was read, and how far that is done; the latter is kept in a file.

    A segment is left when it has ended and all of it is done. Numbers are those of records in their chunk.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._saved_at = float("-inf")
        self.segment: str | None = None
        """The first segment of which not all is done."""
        self._done: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._open: dict[str, set[int]] = {}
        self._of: dict[str, str] = {}
        self._next: dict[str, str] = {}
        self._load()

    def begin(self, segment: str) -> None:
        """Start at a segment, whatever was before."""
        with self._lock:
            self.segment = segment
            for kept in (self._done, self._read, self._open, self._of, self._next):
                kept.clear()
        self.save()

    def read(self, segment: str, chunk: str) -> int:
        """The first record of a chunk that was not read yet."""
        with self._lock:
            self._of[chunk] = segment
            return self._read.get(chunk, self._done.get(chunk, 0))

    def reads(self, segment: str, chunk: str, number: int) -> str:
        """A record is read; returns the id by which `done` knows it."""
        with self._lock:
            self._read[chunk] = number + 1
            self._open.setdefault(chunk, set()).add(number)
        return f"{chunk}#{number}"

    def ends(self, segment: str, following: str) -> None:
        """A segment gets no more records, and was read to its end."""
        with self._lock:
            self._next[segment] = following
            self._go_on()

    def done(self, ids: Sequence[str]) -> None:
        """Records are done."""
        with self._lock:
            for id in ids:
                chunk, _, number = id.rpartition("#")
                self._open.get(chunk, set()).discard(int(number))
            self._go_on()
        if time.monotonic() - self._saved_at > _SAVE_SECONDS:
            self.save()

    def _go_on(self) -> None:
        while self.segment in self._next and not any(
            left and self._of.get(chunk) == self.segment for chunk, left in self._open.items()
        ):
            for chunk in [chunk for chunk, segment in self._of.items() if segment == self.segment]:
                for kept in (self._done, self._read, self._open, self._of):
                    kept.pop(chunk, None)
            self.segment = self._next.pop(self.segment)

    def save(self) -> None:
        """Write the file. A reader sees the old one or the new one.

        :raises Transient: the disk is full, or the like.
        """
        try:
            self._write()
        except OSError as error:
            raise Transient(
                f"{self._file} cannot be written: {error.strerror}", resource=str(self._file)
            ) from error

    def _write(self) -> None:
        with self._lock:
            self._saved_at = time.monotonic()
            done = {chunk: min(self._open.get(chunk) or {number}) for chunk, number in self._read.items()}
            told = json.dumps({"segment": self.segment, "chunks": {**self._done, **done}})
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(handle, "w") as out:
                out.write(told)
            Path(temporary).replace(self._file)

    def _load(self) -> None:
        try:
            told = json.loads(self._file.read_text())
            self.segment = told["segment"]
            self._done = {str(chunk): int(number) for chunk, number in told["chunks"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.segment, self._done = None, {}  # as if there were none: a sweep finds the rest


def _file(name: str) -> Path:
    return home() / "change-feeds" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


def _hour(text: str) -> str:
    """As it stands in a segment's name. :raises ValueError: it is no time."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y/%m/%d/%H%M")


def _seconds(record: dict[str, Any]) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return datetime.fromisoformat(record.get("eventTime", "")).timestamp()
    return time.time()


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> ChangeFeedQueue:
    """Open a feed. No request is sent yet."""
    import azure.storage.blob  # noqa: F401  # missing: said at once, with the extra to install
    import fastavro  # noqa: F401

    return ChangeFeedQueue(spec, integration)
