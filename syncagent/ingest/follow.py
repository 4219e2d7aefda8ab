"""Annotation and metadata files in the bucket itself, mirrored to the items that they tell of.

A file is an object like any other. When a sweep or an event settled it, `Follower.catch_up` takes what it says: it replaces what
an earlier write of the file said, and waits for items that are not there yet. A file that cannot be read without its item, since
its numbers are relative to the picture's size, waits as a whole. So it does not matter which of the two comes first, nor
whether a run is interrupted: what was taken of which write stands in the catalog.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from syncagent.catalog import Item
from syncagent.catalog.labels import Awaited, Entry, LabelStore, Stale, Taken, stable_color, state_of
from syncagent.drivers import Bucket
from syncagent.errors import ConfigError, InvalidInput, NotFound
from syncagent.ingest import sidecar
from syncagent.ingest.annotate import Colors, colors_of, context_of
from syncagent.ingest.annotations import Labelled
from syncagent.ingest.formats import get
from syncagent.ingest.formats.base import Context, Only
from syncagent.ingest.formats.dataloop import annotations_json

_log = logging.getLogger(__name__)
_MEMORY = 8 << 20
_NAMED = 20
_AT_ONCE = 100
"""Files that an event of a list of classes may make be read; the next sweep reads the others."""
SIDECAR = "sidecar"
LISTS: Mapping[str, Sequence[str]] = {
    "yolo": ("data.yaml", "data.yml", "classes.txt", "obj.names"),
    "masks": ("instance_map.json", "labelmap.txt"),
    "voc": ("labelmap.txt",),
}
"""Files at the prefix itself that say what the classes of all others are called, by format."""


class Source(BaseModel):
    """Where files that tell of a dataset's items live, and how to read them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str = ""
    """Keys that begin so, and end as the format's files do."""
    format: str = Field(min_length=1)
    """A format of `ingest.formats`, or ``sidecar`` for metadata."""
    root: str = ""
    """What the items' keys have before the names that the files tell."""
    overwrite: bool = False
    """Also where people changed or deleted what a file gave."""


class Following(BaseModel):
    """What a dataset says about its own files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[Source, ...] = ()
    probe: bool = False
    """Look into objects that changed, for their size, duration and so on."""


def following(store: LabelStore, dataset: str) -> Following:
    """The dataset's settings.

    :raises ConfigError: somebody wrote something else there.
    """
    try:
        found = Following.model_validate(store.settings(dataset))
        for source in found.sources:
            suffixes(source)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"the dataset's settings: {where}: {first['msg']}", resource=dataset) from None
    return found


def suffixes(source: Source) -> Sequence[str]:
    """How the names of a source's files end.

    :raises ConfigError: its format is none.
    """
    return sidecar.SUFFIXES if source.format == SIDECAR else get(source.format).suffixes


@dataclass(slots=True)
class Followed:
    """What became of a dataset's own files."""

    files: int = 0
    annotations: int = 0
    """That the files' items have from them now."""
    waiting: int = 0
    kept: int = 0
    """Records left as people have them."""
    matched: int = 0
    """Entries whose item came."""
    failed: int = 0
    lines: list[str] = field(default_factory=list)
    """The first things that somebody should look at."""

    def note(self, line: str) -> None:
        """Remember a line, if there are not too many."""
        if len(self.lines) < _NAMED:
            self.lines.append(line)


class Follower:
    """Takes what the files of one dataset say."""

    def __init__(self, store: LabelStore, dataset: str, bucket: Bucket) -> None:
        self._store, self._dataset, self._bucket = store, dataset, bucket
        self._following = following(store, dataset)

    @property
    def settings(self) -> Following:
        """The dataset's settings."""
        return self._following

    def catch_up(self, keys: Sequence[str] | None = None) -> Followed:
        """Take every file that was written, or that went, since it was taken; give waiting entries to items that came.

        :param keys: only these were settled; None looks at all.
        :raises SyncAgentError: the bucket or the catalog is out of reach. What was not taken stays to be taken.
        """
        report = Followed()
        if not self._following.sources:
            return report
        woken = self._store.wake(self._dataset, keys)
        looked = None if keys is None else [*dict.fromkeys([*keys, *woken])]
        for source in self._following.sources:
            # Before the others, which are read as the lists say.
            lists = list(self._lists(source, keys))
            for file in lists:
                self._attempt(source, file, report, lists=True)
            for file in self._stale(source, looked):
                self._attempt(source, file, report)
            if lists and keys is not None:
                ends = suffixes(source)
                for file in self._store.stale(self._dataset, source.prefix, ends, limit=_AT_ONCE):
                    self._attempt(source, file, report)
        report.matched = self._store.match(self._dataset, keys)
        return report

    def _lists(self, source: Source, keys: Sequence[str] | None) -> Iterator[Stale]:
        for name in LISTS.get(source.format, ()):
            key = source.prefix + name
            if keys is None or key in keys:
                found = self._store.stale(self._dataset, key, [name], limit=1)
                yield from (one for one in found if one.key == key)

    def _stale(self, source: Source, keys: Sequence[str] | None) -> Iterator[Stale]:
        ends = suffixes(source)
        if keys is not None:
            for key in keys:
                if key.startswith(source.prefix) and key.lower().endswith(tuple(ends)):
                    found = self._store.stale(self._dataset, key, ends, limit=1)
                    yield from (one for one in found if one.key == key)
            return
        after: str | None = None
        while page := self._store.stale(self._dataset, source.prefix, ends, after=after):
            yield from page
            after = page[-1].key

    def _attempt(self, source: Source, file: Stale, report: Followed, *, lists: bool = False) -> None:
        # An item that came while its file was read is there the second time.
        if not self._take(source, file, report, lists=lists):
            self._take(source, file, report, lists=lists)

    def _take(self, source: Source, file: Stale, report: Followed, *, lists: bool) -> bool:
        """Returns whether there is nothing to be gained by trying again at once."""
        used: dict[str, None] = {}
        missed: list[Awaited] = []
        # Without their list the classes' numbers would mean something else: the files stay as they were read.
        names = source.prefix if lists and file.fingerprint is not None else None
        try:
            entries = iter(()) if file.fingerprint is None else self._entries(source, file, used, missed)
            taken = self._store.take(self._dataset, file, entries, overwrite=source.overwrite, lists=names)
        except InvalidInput as error:
            return self._put_off(file, error, missed[-1] if missed else None, report)
        except NotFound:
            return True  # gone by now: a sweep or an event will say so
        if taken is not None:
            self._count(file, taken, report)
            if used:
                new = [{"tag": label, "color": stable_color(label)} for label in used if label]
                self._store.add_labels(self._dataset, new)
        return True

    def _put_off(self, file: Stale, error: InvalidInput, awaited: Awaited | None, report: Followed) -> bool:
        taken = self._store.take(self._dataset, file, (), error=str(error), awaited=awaited)
        if taken is None:
            return False
        if awaited is not None and awaited.seen is None:
            report.waiting += 1
            self._name(file, taken, report)
        else:
            report.failed += 1
            report.note(str(error))
            _log.warning("%s was not taken: %s", file.key, error)
        return True

    def _count(self, file: Stale, taken: Taken, report: Followed) -> None:
        report.files += 1
        report.annotations += taken.annotations
        report.waiting += taken.waiting
        report.kept += taken.kept
        self._name(file, taken, report)

    def _name(self, file: Stale, taken: Taken, report: Followed) -> None:
        for name in taken.ambiguous[:_NAMED]:
            report.note(f"{file.key}: several items are called {name}")

    def _entries(
        self, source: Source, file: Stale, used: dict[str, None], missed: list[Awaited]
    ) -> Iterator[Entry]:
        name = file.key[len(source.prefix) :]
        tree = Only(BucketTree(self._bucket, source.prefix), [name])
        if source.format == SIDECAR:
            found: Iterator[Entry] = (
                entry._replace(key=source.root + entry.key) for entry in sidecar.read(tree)
            )
        else:
            colors = colors_of(self._store.labels(self._dataset))
            items = get(source.format).read(tree, self._context(source, file, missed))
            found = _said(items, source.root, colors, used, missed)
        # The file is fetched with its first entry: here, before the catalog's transaction begins.
        first = next(found, None)
        return chain(() if first is None else (first,), found)

    def _context(self, source: Source, file: Stale, missed: list[Awaited]) -> Context:
        def unsized(key: str, stem: bool, item: Item | None) -> None:
            missed.append(Awaited(key, stem, None if item is None else state_of(item)))

        return context_of(
            self._store, self._dataset, root=source.root, size_of=self._size, unsized=unsized, apart=file.key,
            later=True,
        )  # fmt: skip

    def _size(self, item: Item) -> tuple[int, int] | None:
        from syncagent.ingest.probe import probe_object

        with contextlib.suppress(NotFound):
            found = probe_object(self._bucket, item.key, item.size)
            if found.width and found.height:
                return found.width, found.height
        return None


def _said(
    items: Iterable[Labelled], root: str, colors: Colors, used: dict[str, None], missed: list[Awaited]
) -> Iterator[Entry]:
    for item in items:
        missed.clear()  # it could be read without
        used.update(dict.fromkeys(one.label for one in item.annotations))
        told = annotations_json(item.annotations, colors)
        yield Entry(root + item.key, item.stem, told, dict(item.user))


class BucketTree:
    """Files of a bucket below a prefix, fetched whole when they are opened. See `formats.base.Tree`."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix

    def names(self) -> Iterator[str]:
        """Every object below the prefix."""
        for page in self._bucket.list():
            for found in page:
                if found.key.startswith(self._prefix):
                    yield found.key[len(self._prefix) :]

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        spooled = cast(BinaryIO, tempfile.SpooledTemporaryFile(_MEMORY))  # noqa: SIM115  # the reader closes it
        try:
            with self._bucket.open(self._prefix + name) as stream:
                shutil.copyfileobj(stream, spooled, 1 << 18)
        except BaseException:
            spooled.close()
            raise
        spooled.seek(0)
        return spooled
