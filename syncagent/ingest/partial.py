"""One object into one file, which appears whole or not at all. What was read of it before goes on where it stopped.

The bytes come into ``NAME.TOKEN.part`` beside the file, where the token stands for one write of the object: a part of another
write is never gone on with. When all of them are there, and are what the store says, the part is renamed, and gets the time of
the object, so that the next run knows it without reading it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from syncagent.catalog.base import Item
from syncagent.errors import SyncAgentError, Transient
from syncagent.ingest.origin import Facts, Origin, facts_of
from syncagent.retry import retrying

MAX_NAME = 255
"""Bytes of a file's name, on all common file systems."""
_PART = re.compile(r"\.[0-9a-f]{16}\.part\Z")
_TAIL = len(".0123456789abcdef.part")
_CHANGES = 3  # of an object while it is read, before it is given up
_SECOND = 1_000_000_000  # nanoseconds
_RACY = 2  # seconds: a file system's clock and a store's are not the same


class Stopped(Exception):
    """Somebody asked for an end."""


class _Changed(Exception):
    """The object is not the one that its facts tell of."""


def part_name(name: str, token: str) -> str:
    """The name of a file's part, which is never longer than a name may be."""
    raw = name.encode()
    if len(raw) + _TAIL > MAX_NAME:
        short = raw[: MAX_NAME - _TAIL - 17].decode(errors="ignore")
        name = f"{short}~{hashlib.sha256(raw).hexdigest()[:16]}"
    return f"{name}.{token}.part"


def is_part(name: str) -> bool:
    """Whether a file's name is one of a part."""
    return _PART.search(name) is not None


class Saver:
    """Saves objects to files. Used from many threads, for different files.

    :param stopped: whether to end: asked now and then. The part stays.
    """

    def __init__(self, stopped: Callable[[], bool] = lambda: False) -> None:
        self._stopped = stopped
        self._left: dict[Path, dict[str, list[str]]] = {}

    def save(
        self, origin: Origin, item: Item, path: Path, tick: Callable[[int], None] = lambda count: None
    ) -> Facts:
        """Read an item's bytes into a file; returns what they turned out to be. Passing faults are waited out.

        :param tick: called with the number of bytes that came.
        :raises SyncAgentError: they could not be read, or are damaged. :raises OSError: the disk. :raises Stopped: see `Saver`.
        """
        facts = facts_of(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_CHANGES):
            part = path.with_name(part_name(path.name, facts.token))
            self._drop_others(part)
            try:
                self._fill(origin, item, part, facts, tick)
            except _Changed:
                part.unlink(missing_ok=True)
                facts = retrying(origin.now)(item)
                continue
            finally:
                with contextlib.suppress(OSError):
                    if not part.stat().st_size and facts.size:
                        part.unlink()
            part.replace(path)
            if (stamp := _stamp(facts)) is not None:
                with contextlib.suppress(OSError, OverflowError):
                    os.utime(path, ns=(stamp, stamp))
            return facts
        raise Transient(f"{item.key}: it changed, or came damaged, each time it was read", resource=item.key)

    def copy(self, body: BinaryIO, path: Path, tick: Callable[[int], None] = lambda count: None) -> int:
        """Copy a stream into a file that appears whole or not at all; returns its size in bytes. See `save`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(part_name(path.name, "0" * 16))
        size = 0
        try:
            part.unlink(missing_ok=True)
            with _appended(part) as out:
                while chunk := body.read(1 << 18):
                    if self._stopped():
                        raise Stopped
                    out.write(chunk)
                    size += len(chunk)
                    tick(len(chunk))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def _fill(
        self, origin: Origin, item: Item, part: Path, facts: Facts, tick: Callable[[int], None]
    ) -> None:
        """:raises _Changed: the bytes are another object's."""
        read = _Read(origin, item, part, facts, tick, self._stopped)
        while True:
            before = read.size()
            try:
                retrying(read.more)()
                break
            except SyncAgentError as error:
                # Whatever came is kept: as long as some comes each time, it is worth going on.
                if not error.transient or read.size() <= before:
                    raise
        read.check()

    def _drop_others(self, part: Path) -> None:
        """Remove parts of other writes of the object, which nobody will go on with."""
        if part.parent not in self._left:
            found: dict[str, list[str]] = {}
            for entry in os.scandir(part.parent):
                if is_part(entry.name):
                    found.setdefault(entry.name[:-_TAIL], []).append(entry.name)
            self._left[part.parent] = found
        for name in self._left[part.parent].pop(part.name[:-_TAIL], []):
            if name != part.name:
                part.with_name(name).unlink(missing_ok=True)


class _Read:
    """One part that fills up."""

    def __init__(
        self, origin: Origin, item: Item, part: Path, facts: Facts, tick: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._origin, self._item, self._part, self._facts = origin, item, part, facts
        self._tick, self._stopped = tick, stopped
        self._tries = 0
        self._pieces = 0
        self._sum = _Sum(facts)

    def size(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def more(self) -> None:
        """Read what is missing.

        :raises Transient: it broke off. :raises _Changed: there is another object by now.
        """
        have = self.size()
        self._tries += 1
        if have or self._tries > 1:
            self._unchanged()
        if have > self._facts.size:
            raise _Changed
        if have < self._facts.size or not have:
            self._pieces += 1 if not have else 2
            with (
                contextlib.closing(self._origin.chunks(self._item, have)) as chunks,
                _appended(self._part) as out,
            ):
                for chunk in chunks:
                    if self._stopped():
                        raise Stopped
                    have += len(chunk)
                    if have > self._facts.size:
                        raise _Changed
                    out.write(chunk)
                    self._sum.add(chunk, have)
                    self._tick(len(chunk))
        if have < self._facts.size:
            raise Transient(
                f"{self._item.key}: the bytes broke off after {have} of {self._facts.size}",
                resource=self._item.key,
            )

    def check(self) -> None:
        """:raises _Changed: the bytes are of several writes, or damaged."""
        if self._pieces != 1:
            retrying(self._unchanged)()
        if not self._sum.agrees(self._part):
            raise _Changed

    def _unchanged(self) -> None:
        if self._origin.now(self._item).token != self._facts.token:
            raise _Changed


class _Sum:
    """The digest of a part, taken while it is written where that is possible."""

    def __init__(self, facts: Facts) -> None:
        self._wanted = facts.digest
        self._digest = None if self._wanted is None else hashlib.new(self._wanted[0], usedforsecurity=False)
        self._at = 0

    def add(self, chunk: bytes, end: int) -> None:
        """Bytes that were written up to a place."""
        if self._digest is not None and self._at == end - len(chunk):
            self._digest.update(chunk)
            self._at = end

    def agrees(self, part: Path) -> bool:
        """Whether the part has the digest that the store tells; True where it tells none."""
        if self._wanted is None or self._digest is None:
            return True
        if self._at == part.stat().st_size:
            return self._digest.digest() == self._wanted[1]
        return _digest(part, self._wanted[0]) == self._wanted[1]


def is_same(path: Path, facts: Facts, *, proof: bool = False) -> bool:
    """Whether a file has an object's bytes.

    A file of the object's size and stamp is one that was saved from it. Else the store's digest of the content has to agree.

    :param proof: the stamp is not enough where the store tells a digest. Where it tells none, reading would be the only proof.
    """
    told = path.stat()
    if told.st_size != facts.size:
        return False
    stamp = _stamp(facts)
    if stamp is not None and not (proof and facts.provable):
        if told.st_mtime_ns == stamp:
            return True
        # A file system of whole seconds. Two writes may share one, but not if the file was saved after it.
        saved_later = told.st_ctime > stamp / 1e9 + _RACY
        if saved_later and told.st_mtime_ns == stamp // _SECOND * _SECOND:
            return True
    if facts.digest is not None:
        return _digest(path, facts.digest[0]) == facts.digest[1]
    return facts.content_id is not None and facts.is_md5(_digest(path, "md5").hex())


def _stamp(facts: Facts) -> int | None:
    """When the object was written, in Unix nanoseconds; what is below the second stands for the write itself."""
    if facts.seconds is None:
        return None
    return facts.seconds * _SECOND + int(facts.token[:8], 16) % 10_000_000 * 100  # NTFS counts in hundreds


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    Saver().copy(io.BytesIO(data), path)


def _appended(part: Path) -> BinaryIO:
    """Open for appending. A symbolic link is not followed out of the folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(part, flags, 0o666), "ab")


def _digest(path: Path, kind: str) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).digest()
