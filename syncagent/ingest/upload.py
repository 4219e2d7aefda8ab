"""Uploads: bytes into the dataset's bucket, then its item, then what is said about it. No item without its object."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from syncagent.catalog import Item
from syncagent.catalog.labels import Change, Facts, LabelStore
from syncagent.catalog.rest import Session
from syncagent.errors import NotFound, SyncAgentError, Transient
from syncagent.ingest.annotate import colors_of
from syncagent.ingest.formats.base import Folder
from syncagent.ingest.formats.dataloop import Dataloop, annotations_json
from syncagent.ingest.gather import Upload
from syncagent.ingest.probe import MediaInfo, probe
from syncagent.model import Action, Outcome
from syncagent.reconcile import Reconciler
from syncagent.retry import retrying
from syncagent.workers import Workers

_BATCH = 200
_CHUNK = 1 << 20
_AHEAD = 4  # batches' worth of uploads that wait for a worker


class Target(Protocol):
    """Where a dataset keeps its bytes."""

    def put(self, key: str, body: BinaryIO, *, content_type: str | None) -> tuple[Item, str]:
        """Store the whole object, then make or refresh its item; returns it, and the fingerprint of what was stored.

        :raises SyncAgentError: there is no half object, and no item without one.
        """
        ...

    def holds(self, item: Item, body: BinaryIO) -> bool:
        """Whether an item of the same size has these bytes, where that can be told for less than sending them."""
        ...


class BucketTarget:
    """A dataset's bucket: the object first, then `settle` makes its item."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def put(self, key: str, body: BinaryIO, *, content_type: str | None) -> tuple[Item, str]:
        """See `Target.put`."""
        stored = self._reconciler.bucket.put(key, body, content_type=content_type)
        self._reconciler.settle(key)
        dataset = self._reconciler.dataset.id
        # Whoever uploads a path wants its item, also if somebody deleted that while its object stayed.
        self._reconciler.catalog.restore(dataset, key)
        found = self._reconciler.catalog.labels.at(dataset, [key]).get(key)
        if found is None:
            raise NotFound(f"{key!r} is gone from the bucket again", resource=key)
        return found, stored.fingerprint

    def holds(self, item: Item, body: BinaryIO) -> bool:
        """See `Target.holds`. A folder tells no digest, but is as near as the file that is sent."""
        bucket = self._reconciler.bucket
        if bucket.spec.type != "file":
            return False
        try:
            with bucket.open(item.key) as stream:
                return all(ours == theirs for ours, theirs in zip_longest(_chunks(body), _chunks(stream)))
        except NotFound:  # gone since the last sweep
            return False


class ServerTarget:
    """A dataset whose bytes are kept at the server that has the catalog."""

    def __init__(self, session: Session, store: LabelStore, dataset: str) -> None:
        self._session, self._store, self._dataset = session, store, dataset

    def put(self, key: str, body: BinaryIO, *, content_type: str | None) -> tuple[Item, str]:
        """See `Target.put`."""
        path, name = f"/datasets/{self._dataset}/items?mode=overwrite", key.rpartition("/")[2]
        self._session.upload(path, {"type": "file", "path": f"/{key}"}, body, name=name, kind=content_type)
        found = self._store.at(self._dataset, [key]).get(key)
        if found is None:
            raise NotFound(f"{key!r} is gone from the server again", resource=key)
        return found, (found.storage or "").removeprefix("file:")

    def holds(self, item: Item, body: BinaryIO) -> bool:
        """See `Target.holds`."""
        return False


class Checked(io.RawIOBase):
    """A stream that counts its bytes and takes their MD5 on the way. An SDK may go back in it, if the stream can."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._at = self._hashed = 0
        self.size = 0
        """Bytes that came by."""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        if self._at == self._hashed:  # and not a part that is sent again
            self._md5.update(data)
            self._hashed += len(data)
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def seekable(self) -> bool:
        """As the stream is."""
        return bool(getattr(self._stream, "seekable", lambda: False)())

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.RawIOBase`."""
        self._at = self._stream.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._at

    def agrees(self, item: Item) -> bool:
        """Whether the store has what was sent, as far as it tells."""
        told = item.content_id or ""
        digest = base64.b64encode(self._md5.digest()).decode()
        if told.startswith("md5:") and self._hashed == self.size and told != f"md5:{digest}":
            return False
        return item.size == self.size


@dataclass(slots=True)
class Uploaded:
    """What became of some uploads."""

    added: int = 0
    changed: int = 0
    same: int = 0
    """Left as they were: the item is there."""
    failed: int = 0
    bytes: int = 0
    """Sent."""
    annotations: int = 0
    labels: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    """Each that failed, and why: all of them, for a log."""


class Uploader:
    """Uploads into one dataset.

    :param overwrite: also where an item is there already; its id and its annotations stay.
    :param workers: uploads at once. :param facts: note what the bytes say of size, type, duration and so on.
    """

    def __init__(
        self, target: Target, store: LabelStore, dataset: str, *, overwrite: bool = False, workers: int = 8,
        by: str | None = None, facts: bool = True,
    ) -> None:  # fmt: skip
        self._target, self._store, self._dataset = target, store, dataset
        self._overwrite, self._workers, self._by = overwrite, workers, by
        self._lock = threading.Lock()
        self._facts = facts
        self._colors = colors_of(store.labels(dataset)) if _has_recipe(store, dataset) else colors_of([])

    def run(
        self,
        uploads: Iterable[Upload],
        *,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_progress: Callable[[Uploaded], None] | None = None,
    ) -> Uploaded:
        """Upload everything; one that fails does not stop the others.

        Run again after an interruption it goes on: what is there already is not sent again.
        """
        report = Uploaded()

        def do(job: tuple[Upload, Item | None]) -> Outcome:
            return self._one(*job, report)

        with Workers(do, self._workers, name="syncagent-upload") as workers:
            for outcome in self._outcomes(workers, iter(uploads)):
                _count(report, outcome)
                if on_outcome is not None:
                    on_outcome(outcome)
                if on_progress is not None:
                    on_progress(report)
        return report

    def _outcomes(
        self, workers: Workers[tuple[Upload, Item | None], Outcome], left: Iterator[Upload]
    ) -> Iterator[Outcome]:
        seen: set[str] = set()
        while batch := list(islice(left, _BATCH)):
            known = self._store.at(self._dataset, [one.key for one in batch if one.key])
            for one in batch:
                if one.key in seen and one.key:
                    yield Outcome(
                        one.key, Action.FAILED, error=f"{one.source}: another file has this name too"
                    )
                    continue
                seen.add(one.key)
                workers.put((one, known.get(one.key)))
            while workers.left > _AHEAD * self._workers:
                yield workers.take()
        while workers.left:
            yield workers.take()

    def _one(self, upload: Upload, known: Item | None, report: Uploaded) -> Outcome:
        try:
            if upload.error is not None:
                raise upload.error
            if known is not None and not self._overwrite:
                if known.size == upload.size:
                    self._heal(upload, known, report)
                return Outcome(upload.key, Action.SAME, known.size)
            same = known is not None and self._same(upload, known)
            item = known if known is not None and same else retrying(self._put)(upload, report)
            self._describe(upload, item, report)
            if same:
                return Outcome(upload.key, Action.SAME, item.size)
        except SyncAgentError as error:
            said = str(error).removeprefix(f"{upload.source}: ")  # the line begins with it already
            return Outcome(upload.key or upload.source, Action.FAILED, error=said)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return Outcome(upload.key or upload.source, Action.FAILED, error=f"{upload.source}: {reason}")
        return Outcome(upload.key, Action.CHANGED if known else Action.ADDED, item.size)

    def _same(self, upload: Upload, known: Item) -> bool:
        """Whether an item certainly has these bytes, so that they need not be sent again."""
        if upload.size is None or upload.size != known.size:
            return False
        stream, _ = upload.open()
        try:
            told = _told(known)
            if told is None:
                return self._target.holds(known, stream)
            digest = hashlib.new(told[0], usedforsecurity=False)
            for chunk in _chunks(stream):
                digest.update(chunk)
        finally:
            stream.close()
        return told[1] in {digest.hexdigest(), base64.b64encode(digest.digest()).decode()}

    def _put(self, upload: Upload, report: Uploaded) -> Item:
        stream, kind = upload.open()
        try:
            body = Checked(stream)
            # What the bytes say is known here for nothing: nobody has to read them back from the bucket.
            info = media_of(cast(BinaryIO, body), upload.key) if body.seekable() else None
            kind = kind or (info.mimetype if info else None)
            item, fingerprint = self._target.put(upload.key, cast(BinaryIO, body), content_type=kind)
        finally:
            stream.close()
        if not body.agrees(item):
            raise Transient(f"{upload.key}: the store has other bytes than were sent", resource=upload.key)
        if info is not None and self._facts:
            self._store.set_facts(self._dataset, [Facts(item.id, fingerprint, info.system(), info.mimetype)])
        with self._lock:
            report.bytes += body.size
        return item

    def _heal(self, upload: Upload, known: Item, report: Uploaded) -> None:
        """Say what an interrupted run did not come to say any more. Metadata is said last: where it is, all is."""
        unsaid = not known.user if upload.user else not known.annotations and upload.annotations is not None
        if unsaid:
            self._describe(upload, known, report)

    def _describe(self, upload: Upload, item: Item, report: Uploaded) -> None:
        if upload.annotations is not None:
            self._annotate(upload.annotations, item, report)
        if upload.user or upload.system or upload.description is not None:
            change = Change(item.id, upload.user or None, upload.system or None, upload.description)
            self._store.describe(self._dataset, [change], by=self._by)

    def _annotate(self, path: Path, item: Item, report: Uploaded) -> None:
        found = [one for labelled in Dataloop().read(Folder(path)) for one in labelled.annotations]
        new = {one.label for one in found if one.label} - self._colors.keys()
        if new:
            with self._lock:
                labels = [{"tag": label, "color": self._colors[label]} for label in sorted(new)]
                report.labels += self._store.add_labels(self._dataset, labels)
        told = annotations_json(found, self._colors)
        if item.annotations:  # overwritten: what it has already is not added again
            had = self._store.annotations_of(self._dataset, [item.id]).get(item.id, [])
            told = _new(told, had)
        self._store.annotate(self._dataset, [(item.id, told)], by=self._by)
        with self._lock:
            report.annotations += len(told)


def media_of(stream: BinaryIO, name: str) -> MediaInfo:
    """What the bytes of a stream say; it is at its beginning again afterwards."""
    size = stream.seek(0, io.SEEK_END)

    def read(offset: int, length: int) -> bytes:
        stream.seek(offset)
        return stream.read(length)

    found = probe(read, size, name)
    stream.seek(0)
    return found


def _told(item: Item) -> tuple[str, str] | None:
    """Kind and value of the digest that the store tells of an item; None if it tells none."""
    kind, _, told = (item.content_id or "").rpartition(":")
    return (kind or "md5", told) if told and kind in {"", "md5", "sha256"} else None


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _new(told: Sequence[dict[str, Any]], had: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    def content(one: dict[str, Any]) -> str:
        return repr((one["type"], one["label"], one.get("coordinates")))

    there = [content(one) for one in had]
    return [one for one in told if content(one) not in there]


def _has_recipe(store: LabelStore, dataset: str) -> bool:
    """Whether the recipe can be read; on the platform a dataset may have none."""
    try:
        store.labels(dataset)
    except NotFound:
        return False
    return True


def _count(report: Uploaded, outcome: Outcome) -> None:
    match outcome.action:
        case Action.ADDED:
            report.added += 1
        case Action.CHANGED:
            report.changed += 1
        case Action.SAME:
            report.same += 1
        case _:
            report.failed += 1
            report.errors.append((outcome.key, outcome.error or ""))
