"""Sorts more objects than memory holds: sorted runs on disk, merged page by page."""

from __future__ import annotations

import marshal
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

_RUN = 200_000  # records sorted in memory at once: some 80 MB
_CHUNK = 1_000  # records of a run that are read at once
_FAN = 64  # runs that are open at once: as many chunks in memory, and few files for any system's limit
_PAGE = 1_000

Record = tuple[str, str, int, str]
"""Key, fingerprint, size in bytes, modified."""
_key = itemgetter(0)


class Spool:
    """Records in any order in, in key order out, each key once.

    Memory: one run while it fills, then a chunk of each run that is merged, of which there are never more than
    `fan`; many runs are first merged to fewer. Disk: all records, and some of them twice while runs are merged.

    :param folder: exists, and is removed by the caller. :param run: records that are sorted in memory.
    """

    def __init__(self, folder: Path, *, run: int = _RUN, fan: int = _FAN) -> None:
        self._folder = folder
        self._size, self._fan = run, fan
        self._held: list[Record] = []
        self._runs: deque[Path] = deque()
        self._made = 0

    def add(self, records: Iterable[Record]) -> None:
        """Take some records."""
        self._held += records
        if len(self._held) >= self._size:
            self._write()

    def pages(self) -> Iterator[list[Record]]:
        """All records by key, in UTF-8 byte order. Of records with the same key the one modified last."""
        if not self._runs:  # all of it fits into memory
            self._held.sort(key=_key)
            yield from _once([self._held] if self._held else [])
            return
        self._write()
        while len(self._runs) > self._fan:
            # The oldest first, so that what was merged is merged again last. No more than needed for one merge.
            few = min(self._fan, len(self._runs) - self._fan + 1)
            merged = [self._runs.popleft() for _ in range(few)]
            self._store(_merged(merged))
            for path in merged:
                path.unlink()
        yield from _once(_merged(self._runs))

    def _write(self) -> None:
        if not self._held:
            return
        self._held.sort(key=_key)  # Python compares strings by code point, which is the order of their bytes
        held, self._held = self._held, []
        self._store(held[start : start + _CHUNK] for start in range(0, len(held), _CHUNK))

    def _store(self, chunks: Iterable[list[Record]]) -> None:
        path = self._folder / f"run-{self._made}"
        self._made += 1
        with path.open("wb") as file:
            for chunk in chunks:
                marshal.dump(chunk, file)
        self._runs.append(path)


def _chunks(file: BinaryIO) -> Iterator[list[Record]]:
    while True:
        try:
            yield marshal.load(file)  # noqa: S302  # our own file, in a folder that only we can read
        except EOFError:
            return


def _merged(runs: Collection[Path]) -> Iterator[list[Record]]:
    """Up to the least last key of all chunks, everything is there; sorting that, C merges the sorted parts."""
    files = [path.open("rb") for path in runs]
    try:
        sources = [_chunks(file) for file in files]
        # Of each run a chunk, and how much of it is handed out: cutting lists instead would copy each record many times.
        heads = {number: (next(source), 0) for number, source in enumerate(sources)}
        while heads:
            until = min(chunk[-1][0] for chunk, _ in heads.values())
            page: list[Record] = []
            for number, (chunk, start) in list(heads.items()):
                cut = bisect_right(chunk, until, lo=start, key=_key)
                page += chunk[start:cut]
                if cut < len(chunk):
                    heads[number] = chunk, cut
                elif (following := next(sources[number], None)) is None:
                    del heads[number]
                else:
                    heads[number] = following, 0
            page.sort(key=_key)
            yield from (page[start : start + _PAGE] for start in range(0, len(page), _PAGE))
    finally:
        for file in files:
            file.close()


def _once(pages: Iterable[list[Record]]) -> Iterator[list[Record]]:
    """Without double keys; `pages` may go on with the key that the one before ended with."""
    held: list[Record] = []  # the last record of the pages before
    for page in pages:
        records = held + page
        keys = [record[0] for record in records]
        if len(set(keys)) < len(keys):
            newest: dict[str, Record] = {}
            for record in records:
                kept = newest.get(record[0])
                if kept is None or record[3] > kept[3]:
                    newest[record[0]] = record
            records = list(newest.values())
        if len(records) > 1:
            yield records[:-1]
        held = records[-1:]
    if held:
        yield held
