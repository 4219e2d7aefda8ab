"""Downloads: items' bytes and annotations into a local folder. Run again it goes on, and tells what is there already.

Layouts are those of the platform's client (`ingest.layout`). Where that keeps any file that has the right name, drops items without a
word, or writes two items into one file, this says so: an item whose file is there and different is an error unless `overwrite`.
"""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, BinaryIO

from syncagent.catalog import Item
from syncagent.catalog.labels import LabelStore
from syncagent.errors import AlreadyExists, InvalidInput, NotFound, Refused, SyncAgentError
from syncagent.ingest import fetch, render
from syncagent.ingest.annotate import colors_of
from syncagent.ingest.annotation_files import AnnotationFiles
from syncagent.ingest.layout import DRAWN, Names, Options, item_name, link_of, suffix_of
from syncagent.ingest.origin import Origin, facts_of
from syncagent.ingest.partial import Saver, Stopped, is_same
from syncagent.model import Action, Outcome
from syncagent.workers import Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

Json = dict[str, Any]
_BATCH = 200
_AHEAD = 4  # batches' worth of items that wait for a worker
_TELL = 0.5  # seconds between two looks at how far it is
_HOPS = 5  # from link to link
_MEMORY = 8 << 20
MAX_PICTURE = 512 << 20
"""Bytes of an item that is to be decoded."""


@dataclass(slots=True)
class Downloaded:
    """What became of some items."""

    added: int = 0
    changed: int = 0
    """Replaced."""
    same: int = 0
    """There already."""
    failed: int = 0
    bytes: int = 0
    """That came; told while they come."""
    files: int = 0
    """Of annotations, written."""
    found: int = 0
    """Items that the query gave so far, and the sum of their sizes in bytes."""
    size: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    """Each that failed, and why: all of them, for a log."""
    notes: list[str] = field(default_factory=list)
    """What is in no file because it has no place there."""
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of the items that come just now: bytes that are here, and all of them (0 where nobody knows)."""


@dataclass(frozen=True, slots=True)
class _Job:
    item: Item
    path: Path | None
    """Where the bytes go; None if they are not wanted."""
    annotations: Mapping[str, Path]
    told: list[Json]
    source: Item | str
    """Whose bytes: the item's own, those that it points to, or an address."""
    origin: Origin | None
    error: SyncAgentError | None = None
    """Why it has no file."""
    annotation_error: SyncAgentError | None = None


class Downloader:
    """Downloads of one dataset.

    :param linked: the item of an id, and where its bytes come from; for items that point to others.
    :param workers: downloads at once.
    """

    def __init__(
        self, origin: Origin, store: LabelStore, dataset: str, *, linked: Callable[[str], tuple[Item, Origin]],
        workers: int = 8,
    ) -> None:  # fmt: skip
        self._origin, self._store, self._dataset = origin, store, dataset
        self._linked, self._workers = linked, workers

    def run(
        self,
        folder: Path,
        query: Mapping[str, Any] | None = None,
        options: Options | None = None,
        *,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_progress: Callable[[Downloaded], None] | None = None,
    ) -> Downloaded:
        """Download everything that a query finds (None: all files) below a folder; one that fails does not stop the others.

        Interrupted, it leaves whole files, and parts that the next run goes on with.

        :param on_progress: called from this thread after each item, and about twice a second.
        :raises AlreadyExists: the folder has other numbers of labels: see `layout.INSTANCE_MAP`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        run = _Run(self, self._store, self._dataset, folder, options or Options())
        report = run.report
        with Workers(run.one, self._workers, name="syncagent-download") as workers:
            try:
                for outcome in self._outcomes(workers, run, query):
                    if outcome is not None:
                        _count(report, outcome)
                        if on_outcome is not None:
                            on_outcome(outcome)
                    if on_progress is not None:
                        on_progress(report)
            except BaseException:
                run.stop.set()
                raise
        return report

    def _outcomes(
        self, workers: Workers[_Job, Outcome], run: _Run, query: Mapping[str, Any] | None
    ) -> Iterator[Outcome | None]:
        """Outcomes as they come; None now and then while none does."""
        for jobs in run.jobs(self._store.find(self._dataset, query)):
            for job in jobs:
                workers.put(job)
            while workers.left > _AHEAD * self._workers:
                yield _next(workers)
        while workers.left:
            yield _next(workers)

    # -- one item --------------------------------------------------------------------------------

    def picture(self, item: Item, *, max_bytes: int = 1 << 30, allow_private: bool = False) -> Picture:
        """An item's picture, decoded, upright: RGB, or RGBA where it can be seen through. A link is followed.

        :raises Unsupported: it is no picture that Pillow reads, or too large a one; Pillow is not installed.
        :raises InvalidInput: it is damaged. :raises SyncAgentError: its bytes cannot be had.
        """
        options = Options(max_bytes=max_bytes, allow_private=allow_private)
        with closing(self.body(*self.target(item), options)) as body:
            return render.opened(body, item.key)

    def to_array(self, item: Item) -> NDArray[np.uint8]:
        """An item's picture: uint8 RGB (height, width, 3), upright.

        :raises SyncAgentError: see `picture`.
        """
        picture = self.picture(item)
        import numpy as np

        return np.array(picture.convert("RGB"))

    def target(self, item: Item) -> tuple[Item | str, Origin]:
        """Whose bytes an item has: its own, or those that it points to.

        :raises InvalidInput: it is a link in a circle, or through too many others.
        """
        found, origin = item, self._origin
        for _ in range(_HOPS):
            link = link_of(found)
            if link is None:
                return found, origin
            kind, ref = link
            if kind == "url":
                return ref, origin
            found, origin = self._linked(ref)
        raise InvalidInput(f"{item.key} is a link through too many others", resource=item.key)

    def body(self, source: Item | str, origin: Origin, options: Options) -> BinaryIO:
        """The whole bytes of what `target` gave, in memory or in a file without a name."""
        if isinstance(source, str):
            return fetch.fetch(source, limit=options.max_bytes, private=options.allow_private)[0]
        if source.size > MAX_PICTURE:
            raise Refused(f"{source.key} is larger than {MAX_PICTURE >> 20} MiB", resource=source.key)
        with tempfile.TemporaryDirectory(prefix="syncagent-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "body"
            Saver().save(origin, source, path)
            if source.size <= _MEMORY:
                return io.BytesIO(path.read_bytes())
            return path.open("rb")  # the name goes, the bytes stay until it is closed


class _Run:
    """One run into one folder. Its methods but `one` are called from one thread."""

    def __init__(
        self, of: Downloader, store: LabelStore, dataset: str, folder: Path, options: Options
    ) -> None:
        self.report = Downloaded()
        self.stop = threading.Event()
        self._of, self._store, self._dataset, self._options = of, store, dataset, options
        self._names = Names(folder)
        self._saver = Saver(self.stop.is_set)
        self._lock = threading.Lock()
        self._files: AnnotationFiles | None = None
        if options.annotations:
            try:
                labels = store.labels(dataset)
            except NotFound:  # on the platform a dataset may have no recipe
                labels = []
            self._files = AnnotationFiles(self._names, options, labels, colors_of(labels))
            self._files.begin()

    def jobs(self, items: Iterable[Item]) -> Iterator[list[_Job]]:
        """What is to be done, in batches; the older of two items has a name."""
        left = iter(items)
        while batch := list(islice(left, _BATCH)):
            told: Mapping[str, list[Json]] = {}
            if self._files is not None:
                marked = [item.id for item in batch if item.annotations]
                told = self._store.annotations_of(self._dataset, marked) if marked else {}
            files = [item for item in batch if item.type == "file"]
            self.report.found += len(files)
            self.report.size += sum(item.size for item in files)
            yield [self._job(item, told.get(item.id, [])) for item in files]

    def _job(self, item: Item, told: list[Json]) -> _Job:
        source: Item | str = item
        origin = None
        path = None
        try:
            if self._options.binaries or DRAWN & set(self._options.annotations):
                source, origin = self._of.target(item)
            if self._options.binaries:
                suffix = (
                    "" if source is item else suffix_of(source if isinstance(source, str) else source.key)
                )
                path = self._names.claim(item_name(item.key, self._options, suffix), item.key)
        except SyncAgentError as error:
            return _Job(item, None, {}, told, source, origin, error)
        try:
            files = self._files.claim(item) if self._files is not None else {}
        except SyncAgentError as error:
            return _Job(item, path, {}, told, source, origin, annotation_error=error)
        return _Job(item, path, files, told, source, origin)

    def one(self, job: _Job) -> Outcome:
        """Download one item."""
        key = job.item.key
        action, size = Action.SAME, job.item.size
        try:
            if job.error is not None:
                raise job.error
            if job.path is not None:
                action, size = self._bytes(job, job.path)
            if job.annotation_error is not None:
                raise job.annotation_error
            if self._files is not None:
                done = self._annotations(job, self._files)
                action = done if action is Action.SAME else action
        except SyncAgentError as error:
            return Outcome(key, Action.FAILED, error=str(error))
        except Stopped:
            return Outcome(key, Action.FAILED, error="interrupted")
        except OSError as error:
            what = error.strerror or type(error).__name__
            return Outcome(key, Action.FAILED, error=f"{error.filename or job.path}: {what}")
        finally:
            with self._lock:
                self.report.running.pop(key, None)
        return Outcome(key, action, size)

    def _bytes(self, job: _Job, path: Path) -> tuple[Action, int]:
        there = path.exists() or path.is_symlink()
        if path.is_dir():
            raise AlreadyExists(f"{path} is a folder", resource=job.item.key, hint="move it away")
        if there and self._kept(job, path):
            return Action.SAME, path.stat().st_size
        if there and not self._options.overwrite:
            raise AlreadyExists(
                f"{path} is there, and has other bytes", resource=job.item.key, hint="--overwrite replaces it"
            )
        if isinstance(job.source, str):
            size = self._address(job, job.source, path)
        else:
            size = self._object(job, job.source, path)
        return Action.CHANGED if there else Action.ADDED, size

    def _object(self, job: _Job, source: Item, path: Path) -> int:
        assert job.origin is not None  # noqa: S101  # what has a path has a source
        self._tick(job.item.key, 0, source.size)
        return self._saver.save(
            job.origin, source, path, lambda count: self._tick(job.item.key, count, source.size)
        ).size

    def _kept(self, job: _Job, path: Path) -> bool:
        """Whether the file that is there is the item's. What an address has is not looked at again."""
        if isinstance(job.source, str):
            return not self._options.overwrite
        known, proof = facts_of(job.source), self._options.overwrite
        if is_same(path, known, proof=proof):
            return True
        # The catalog may be behind its bucket, and the file may be what that has by now.
        now = job.origin.now(job.source) if job.origin is not None else known
        return now.token != known.token and is_same(path, now, proof=proof)

    def _address(self, job: _Job, url: str, path: Path) -> int:
        body, _ = fetch.fetch(url, limit=self._options.max_bytes, private=self._options.allow_private)
        with closing(body):
            return self._saver.copy(body, path, lambda count: self._tick(job.item.key, count, 0))

    def _annotations(self, job: _Job, files: AnnotationFiles) -> Action:
        """Write the annotations' files; returns what became of them all."""

        def body() -> BinaryIO:
            if job.path is not None:
                return job.path.open("rb")
            assert job.origin is not None  # noqa: S101  # what is drawn has a source
            return self._of.body(job.source, job.origin, self._options)

        actions, notes = files.write(job.item, job.told, job.annotations, body)
        with self._lock:
            self.report.files += sum(action is not Action.SAME for action in actions)
            self.report.notes += notes
        return next((one for one in (Action.CHANGED, Action.ADDED) if one in actions), Action.SAME)

    def _tick(self, key: str, count: int, size: int) -> None:
        with self._lock:
            self.report.bytes += count
            here, _ = self.report.running.get(key, (0, 0))
            self.report.running[key] = here + count, size


def _next(workers: Workers[_Job, Outcome]) -> Outcome | None:
    try:
        return workers.take(_TELL)
    except Empty:
        return None


def _count(report: Downloaded, outcome: Outcome) -> None:
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


__all__ = ["Downloaded", "Downloader", "Options"]
