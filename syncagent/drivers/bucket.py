"""`Bucket`: a driver scoped to a path. What everything outside `drivers/` holds."""

from __future__ import annotations

import contextlib
import operator
import os
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from syncagent.ahead import in_thread
from syncagent.drivers.base import Capabilities, Driver
from syncagent.drivers.parallel import Crew
from syncagent.drivers.partition import Partition
from syncagent.errors import InvalidInput, NotFound, Refused, SyncAgentError
from syncagent.model import DriverSpec, Integration, ObjectInfo, Scope
from syncagent.pages import ObjectPage, keys_of, last_key

if TYPE_CHECKING:
    from syncagent.drivers.processes import StandBy

MAX_KEY_BYTES = 1024
_SPOOL_PAGE = 1000
_AHEAD = 8  # pages: what comes in while one transaction is written
_WARM_UP = 4  # pages
_WORTH_A_THREAD = 0.005  # seconds that a page waits for the network
_new = tuple.__new__

Page = Sequence[ObjectInfo]
"""Objects in the order of their keys."""


class Bucket:
    """Objects below a driver's path, by key relative to it.

    Adds to a driver what must be the same everywhere: exact path scope, folder markers left out,
    byte order guaranteed, bounds cut on the client, pages fetched ahead, the delete policy.
    """

    def __init__(self, driver: Driver, spec: DriverSpec, *, url: str) -> None:
        self.driver = driver
        self.spec = spec
        self.url = url
        self.recipe: tuple[DriverSpec, Integration | None] | None = None
        """What opens this bucket in another process; None where nothing does."""
        self._standby: StandBy | None = None
        self._counting = threading.Lock()
        self.ignored = 0
        """Folder markers passed over by `list`, since this object was made."""
        if spec.scope is Scope.FOLDER:
            self._prefix = self._base = f"{spec.path}/" if spec.path else ""
        else:
            # Names keep the last part of a plain prefix: raw/train_ selects raw/train_1.jpg as train_1.jpg.
            self._prefix = spec.path
            self._base = spec.path[: spec.path.rfind("/") + 1]

    def __repr__(self) -> str:
        return f"<Bucket {self.url}>"

    def __enter__(self) -> Bucket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def caps(self) -> Capabilities:
        """The driver's capabilities."""
        return self.driver.caps

    @property
    def seeks(self) -> bool:
        """Whether a listing that begins at a key costs no more than what comes after it."""
        return self.caps.sorted_listing and self.spec.options.get("sorted", "yes") != "no"

    def full_key(self, key: str) -> str:
        """The key inside the bucket.

        :raises InvalidInput: no store could hold such a key below this path.
        """
        full = self._base + key
        if not key or "\0" in key:
            raise InvalidInput(f"{key!r} is not an object key", resource=key)
        try:
            size = len(full.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"{key!r} is not valid Unicode", resource=ascii(key)) from None
        if size > MAX_KEY_BYTES:
            raise InvalidInput(f"key of {size} bytes, at most {MAX_KEY_BYTES}", resource=key[:80])
        if not full.startswith(self._prefix):
            raise InvalidInput(f"{key!r} is outside {self.url}", resource=key)
        return full

    def relative(self, full_key: str) -> str | None:
        """The key relative to the path, or None for an object outside it."""
        if not full_key.startswith(self._prefix) or full_key == self._base:
            return None
        return full_key[len(self._base) :]

    def below(self, full_prefix: str) -> str | None:
        """What the keys that start with `full_prefix` in the bucket start with here; None where none are here.

        Empty where everything here is below it.
        """
        if self._prefix.startswith(full_prefix):
            return ""
        return full_prefix[len(self._base) :] if full_prefix.startswith(self._prefix) else None

    @property
    def parallel(self) -> bool:
        """Whether several workers, each with a range of the keys, list this faster than one."""
        return self.sequential is None

    @property
    def sequential(self) -> str | None:
        """Why one worker lists this; None where several can."""
        if not self.seeks:
            return "the store does not list in byte order"
        if not self.caps.ranges:
            return "a listing of this store cannot begin at a key, or is not worth it"
        return None

    def crew(self, partition: Partition, workers: int, *, processes: int | None = 0) -> Crew:
        """List by several workers; see `Crew`. Needs `parallel`, or one worker.

        :param processes: how many processes read pages for them, once the listing has proved long; None for one for
            each core that this one may use, 4 at most. Below 2 there are none.
        """

        def here(after: str | None, until: str | None) -> Generator[Page, None, None]:
            yield from self.list(after=after, until=until, alone=False)

        count = self._processes(workers, processes)
        if not count:
            return Crew(lambda one: here(one.cursor, one.hi), partition, workers)
        from syncagent.drivers.processes import Listers  # a function never lists so much

        standby, self._standby = self._standby, None
        if standby is not None and standby.size != (workers, count):
            standby.close()
            standby = None
        listers = Listers(
            self, here, workers=workers, processes=count, pages=partition.expected, standby=standby
        )
        return Crew(listers.pages, partition, workers, close=listers.close)

    def stand_by(self, workers: int, *, processes: int | None = 0) -> None:
        """Make ready what lists for a `crew` of so many, if a copy of this process can: that is soonest while it has one thread.

        The copy has everything that is open here for as long as the bucket is: not for a process that serves others.
        """
        count = self._processes(workers, processes) if self.parallel else 0
        if count:
            from syncagent.drivers.processes import StandBy

            with contextlib.suppress(OSError):  # no room for another process, or no /proc
                if StandBy.possible():
                    self._standby = StandBy(workers, count)

    def _processes(self, workers: int, processes: int | None) -> int:
        """How many processes list for so many workers; 0 for none but this one."""
        if processes is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            processes = min(4, cores or 1)
        return min(processes, workers) if processes > 1 and self.recipe is not None else 0

    def prepare(self) -> None:
        """Load and make what the first request would, where the driver can; sends nothing that a listing would not."""
        prepare = getattr(self.driver, "prepare", None)
        if prepare is not None:
            prepare()

    def count(self, requests: Mapping[str, int], ignored: int) -> None:
        """Add what another process asked for, and left out, in this bucket's name."""
        with self._counting:
            self.driver.requests.update(requests)
            self.ignored += ignored

    def list(
        self, *, after: str | None = None, until: str | None = None, alone: bool = True
    ) -> Iterator[Page]:
        """Pages of objects in strictly ascending UTF-8 byte order, without folder markers.

        :param after: exclusive lower bound; :param until: inclusive upper bound.
        :param alone: nobody lists what comes before and after these bounds: fetch a few pages ahead, where that
            pays, and pass over keys before them. Else those are an error: who lists there does not see them.
        :raises SyncAgentError: the listing broke; it never just ends early.
        """
        last = after
        with contextlib.closing(self._driver_pages(after, until, alone)) as pages:
            for page in pages:
                kept = self._scope(page)
                if not kept:
                    continue
                keys = keys_of(kept)
                # Before any bound cuts: a key that stands in the wrong place is in nobody's range.
                if any(map(operator.ge, keys, keys[1:])):
                    self._out_of_order(keys, None)
                # A server-side bound is a hint: some servers include the lower one, some ignore the upper.
                if last is not None and keys[0] <= last:
                    if last != after:
                        self._out_of_order(keys, last)
                    if keys[0] < last and not alone:
                        self._out_of_bounds(keys[0], last)
                    kept = kept[bisect_right(keys, last) :]
                past = until is not None and keys[-1] > until
                if until is not None and past:
                    kept = kept[: max(0, bisect_right(keys, until) - (len(keys) - len(kept)))]
                if kept:
                    last = last_key(kept)
                    yield kept
                if past:
                    return

    def _out_of_order(self, keys: Sequence[str], last: str | None) -> None:
        before, key = next((a, b) for a, b in zip([last or "", *keys], keys, strict=False) if a >= b)
        raise SyncAgentError(
            f"{self.url} listed {key!r} after {before!r}, which is not byte order",
            resource=self.url,
            hint="open it with ?sorted=no, so that syncagent sorts on disk",
        )

    def _out_of_bounds(self, key: str, after: str) -> None:
        raise SyncAgentError(
            f"{self.url} listed {key!r}, which comes before {after!r}, after which the listing was to begin",
            resource=self.url,
            hint="set SYNCAGENT_LISTERS=1, so that one worker lists it from its beginning",
        )

    def _driver_pages(self, after: str | None, until: str | None, alone: bool) -> Generator[Page, None, None]:
        full_after = self._base + after if after is not None else None
        full_until = self._base + until if until is not None else None
        if self.seeks:
            pages = self.driver.list(self._prefix, after=full_after, until=full_until)
            return _ahead(pages) if alone else _each(pages)
        return _sorted_on_disk(self.driver.list(self._prefix), full_after, full_until)

    def _scope(self, page: Page) -> Page:
        cut = len(self._base)
        if isinstance(page, ObjectPage):
            keys = page.column(0)
            if not any(map(str.endswith, keys, repeat("/"))):
                return page if not cut else page.replaced(0, [key[cut:] for key in keys])
        # One comprehension a page: this runs for every object of every listing.
        kept = [o for o in page if o[0][-1:] != "/" or o[2]]
        if cut:
            kept = [_new(ObjectInfo, (o[0][cut:], *o[1:])) for o in kept if len(o[0]) > cut]
        if len(kept) < len(page):
            with self._counting:
                self.ignored += len(page) - len(kept)
        return kept

    def stat(self, key: str) -> ObjectInfo:
        """The object as it is now. A folder marker is not an object here.

        :raises NotFound: there is none.
        """
        found = self.driver.stat(self.full_key(key))
        if not found.size and key.endswith("/"):
            raise NotFound(f"{key!r} is a folder marker", resource=key)
        return found._replace(key=key)

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Stream a byte range; see `Driver.open`."""
        return self.driver.open(self.full_key(key), offset=offset, length=length)

    def read_bytes(self, key: str, *, limit: int) -> bytes:
        """The first `limit` bytes of an object."""
        with self.open(key, length=limit) as stream:
            return stream.read()

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """Store an object; see `Driver.put`."""
        stored = self.driver.put(self.full_key(key), body, content_type=content_type, if_absent=if_absent)
        return stored._replace(key=key)

    def delete(self, key: str) -> None:
        """Delete an object, where the driver's record allows it.

        :raises Refused: `allow_external_delete` is off.
        """
        if not self.spec.allow_external_delete:
            raise Refused(
                f"{self.url} does not allow deletes",
                resource=key,
                hint="open it with ?allow_delete=yes if you mean it",
            )
        self.driver.delete(self.full_key(key))

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """A short-lived URL for one object; see `Driver.sign`."""
        return self.driver.sign(self.full_key(key), expires=expires, method=method)

    def close(self) -> None:
        """Release the driver's connections, and end what stands by."""
        standby, self._standby = self._standby, None
        if standby is not None:
            standby.close()
        self.driver.close()


def _each(pages: Iterator[Page]) -> Generator[Page, None, None]:
    yield from pages


def _ahead(pages: Iterator[Page]) -> Generator[Page, None, None]:
    """Hand pages on; where they wait for the network, fetch a few ahead in a thread.

    Where they do not (a local server, a folder), a thread only takes Python's lock away from the reader:
    an unchanged sweep of a million objects took 5.6 s with it and 4.4 s without.
    """
    waited = 0.0
    for number in range(_WARM_UP):
        wall, cpu = time.perf_counter(), time.thread_time()
        page = next(pages, None)
        if page is None:
            return
        if number:  # the first page also opens the connection
            waited += (time.perf_counter() - wall) - (time.thread_time() - cpu)
        yield page
    if waited / (_WARM_UP - 1) < _WORTH_A_THREAD:
        yield from pages
    else:
        yield from in_thread(pages, ahead=_AHEAD, name="syncagent-list")


def _sorted_on_disk(
    pages: Iterator[Page], after: str | None, until: str | None
) -> Generator[Page, None, None]:
    """Spool a listing to a temporary SQLite file and read it back in byte order."""
    with tempfile.TemporaryDirectory(prefix="syncagent-") as folder:
        import sqlite3  # a function never sorts, and would carry it along

        spool = sqlite3.connect(Path(folder) / "listing.db", isolation_level=None, check_same_thread=False)
        with contextlib.closing(spool):
            spool.execute("PRAGMA journal_mode=OFF")
            spool.execute("PRAGMA synchronous=OFF")
            columns = ", ".join(ObjectInfo._fields)
            spool.execute(f"CREATE TABLE listing ({columns}, PRIMARY KEY (key)) WITHOUT ROWID")
            marks = ", ".join("?" * len(ObjectInfo._fields))
            for page in pages:
                spool.execute("BEGIN")
                spool.executemany(f"INSERT OR REPLACE INTO listing VALUES ({marks})", page)  # noqa: S608
                spool.execute("COMMIT")
            where = "WHERE (?1 IS NULL OR key > ?1) AND (?2 IS NULL OR key <= ?2)"
            rows = spool.execute(f"SELECT {columns} FROM listing {where} ORDER BY key", (after, until))  # noqa: S608
            while batch := rows.fetchmany(_SPOOL_PAGE):
                yield [ObjectInfo._make(row) for row in batch]
