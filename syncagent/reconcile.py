"""Makes a catalog equal to a bucket. The one idea of syncagent, in one file.

An event says where to look, never what happened. `settle` makes one row agree with the bucket;
everything else only chooses keys. A listing is compared with the catalog as two sorted streams, so
an unchanged object costs neither a write nor a request of its own. Why this converges, and what the
three details that look optional are for: docs/promises.md and docs/decisions/001.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from syncagent.ahead import in_thread
from syncagent.catalog.base import Catalog, Dataset, Ranges, Run, Store
from syncagent.drivers.bucket import Bucket
from syncagent.drivers.partition import Partition, Range
from syncagent.errors import AccessDenied, NotFound, SyncAgentError
from syncagent.model import Action, ObjectInfo, Outcome, Report, Row, Settle
from syncagent.pages import ObjectPage, last_key
from syncagent.retry import retrying
from syncagent.workers import each

if TYPE_CHECKING:
    from syncagent.certificate import Part
    from syncagent.drivers.parallel import Piece

_PAGE = 1000
_INSERT = 5000  # new objects a transaction
_AHEAD = 8  # parts that are compared while one transaction is written, if they are pages
_HINT = 2000  # keys of the catalog between two points where a listing may be split
_ADVANCE_SECONDS = 1.0
_HEARTBEAT_SECONDS = 10.0
_CONFIRM = 1000  # differences that `check` looks at twice
_SUMMED = 10_000  # objects that `check` compares by one digest
_RENAME_SECONDS = 120.0  # between the two events of a rename
_RENAME_MEMORY = 10_000
_PAIR_MEMORY = 200_000  # new and vanished keys that `plan` keeps to pair moves
_LOOKS = 5
_DENSE = 16  # keys of a page that make it cheaper than as many looks: stores ask 12 times as much for it
_SPARSE = 20
_MIN_CAP, _CAP_SHARE = 1000, 0.10
_COUNTED = ("listed", "added", "changed", "same", "failed")
_stamp = itemgetter(0, 1)

Elsewhere = Callable[[Run, Callable[[Ranges, Report], None]], None]
"""Has others list, compare and write: what a run has left, each a part of it by `Reconciler.sweep_part`.

It calls back about once a second, and before it returns or raises, with what is left by now and what was counted since it was called.
"""


@dataclass(slots=True)
class Difference:
    """What one key range holds on both sides. Sizes: at most a page each."""

    last: str
    """Everything up to this key is in here."""
    listed: int = 0
    new: Sequence[ObjectInfo] = field(default_factory=list)
    """Keys without a row."""
    changed: list[tuple[ObjectInfo, Row]] = field(default_factory=list)
    """Keys whose row tells another fingerprint; a tombstone tells none."""
    missing: list[Row] = field(default_factory=list)
    """Live rows without an object."""


def merge(last: str, objects: Sequence[ObjectInfo], rows: Sequence[Row]) -> Difference:
    """Compare both sides of one key range. Does no I/O.

    :param objects: all objects of the range, ascending; :param rows: all its rows, ascending.
    :raises ValueError: a side is out of order.
    """
    difference = Difference(last, listed=len(objects))
    new: list[ObjectInfo] = []
    if list(map(_stamp, objects)) == list(map(_stamp, rows)):
        return difference
    for side in (objects, rows):
        keys = [entry[0] for entry in side]
        if any(one >= other for one, other in itertools.pairwise(keys)):
            raise ValueError("a side is out of order")
    by_key = {row[0]: row for row in rows}
    for found in objects:
        row = by_key.pop(found[0], None)
        if row is None:
            new.append(found)
        elif row[1] != found[1]:
            difference.changed.append((found, row))
    difference.new = new
    difference.missing = [row for row in by_key.values() if row.fingerprint is not None]
    return difference


def differences(
    bucket: Bucket, catalog: Catalog, dataset: str, *, after: str | None = None, until: str | None = None
) -> Generator[Difference, None, None]:
    """Walk bucket and catalog in step, range by range, in key order.

    Memory: one page of either side, or the catalog's `span`. The listing's errors are raised as they come.

    :param after: exclusive lower bound; :param until: inclusive upper bound.
    """
    cursor = after
    with contextlib.closing(_pages(bucket, after, until)) as pages:
        for listed in _spans(pages, catalog.span):
            yield from _compared(catalog, dataset, cursor, listed)
            cursor = last_key(listed)
    yield from _vanished(catalog, dataset, cursor, until)


def _compared(
    catalog: Catalog, dataset: str, cursor: str | None, objects: Sequence[ObjectInfo]
) -> Iterator[Difference]:
    """Compare all objects after a key, up to the last of them, with the rows there."""
    last = last_key(objects)
    same = catalog.unchanged(dataset, objects, after=cursor)
    if same is not False:
        yield Difference(last, listed=len(objects), new=[] if same else objects)
        return
    while True:
        # Bounded also where the bucket lost millions of neighbouring keys.
        limit = 2 * _PAGE + len(objects)
        rows = list(catalog.scan(dataset, after=cursor, until=last, limit=limit))
        if len(rows) < limit:
            yield merge(last, objects, rows)
            return
        cut = bisect_right(objects, rows[-1].key, key=itemgetter(0))
        yield merge(rows[-1].key, objects[:cut], rows)
        objects, cursor = objects[cut:], rows[-1].key


def _vanished(catalog: Catalog, dataset: str, cursor: str | None, until: str | None) -> Iterator[Difference]:
    """The rows after a listing's last object."""
    while rows := list(catalog.scan(dataset, after=cursor, until=until, limit=_PAGE)):
        cursor = rows[-1].key
        yield merge(cursor, [], rows)


def _pages(
    bucket: Bucket, after: str | None, until: str | None = None
) -> Generator[Sequence[ObjectInfo], None, None]:
    yield from bucket.list(after=after, until=until)


def _spans(pages: Iterator[Sequence[ObjectInfo]], span: int) -> Iterator[Sequence[ObjectInfo]]:
    """Pages, put together until they hold `span` objects. Rows are read after the last of them, as they must be."""
    parts: list[Sequence[ObjectInfo]] = []
    broken = None
    try:
        for page in pages:
            parts.append(page)
            if _count_all(parts) >= span:
                yield ObjectPage.joined(parts)
                parts = []
    except SyncAgentError as error:
        broken = error
    if parts:
        yield ObjectPage.joined(parts)  # also if the listing broke: what came before that stands
    if broken is not None:
        raise broken


@dataclass(slots=True)
class _Part:
    """All objects of a part of one worker's range, which begins after `after` and goes on to the last of them, or to `until` if it ended."""

    range: Range
    after: str | None
    pieces: list[Sequence[ObjectInfo]] = field(default_factory=list)
    ended: bool = False
    until: str | None = None

    @property
    def objects(self) -> Sequence[ObjectInfo]:
        """All of them."""
        if len(self.pieces) > 1:
            self.pieces = [ObjectPage.joined(self.pieces)]
        return self.pieces[0] if self.pieces else []

    @property
    def last(self) -> str | None:
        """The key up to which it goes."""
        if self.ended:
            return self.until
        return last_key(self.pieces[-1]) if self.pieces else self.after

    def differences(self, catalog: Catalog, dataset: str) -> Iterator[Difference]:
        """Compare it with the rows there."""
        cursor = self.after
        if self.objects:
            yield from _compared(catalog, dataset, cursor, self.objects)
            cursor = last_key(self.objects)
        if self.ended and (cursor is None or cursor != self.until):
            yield from _vanished(catalog, dataset, cursor, self.until)


def _gathered(pieces: Iterable[Piece], least: int) -> Iterator[_Part]:
    """Pieces, put together until a part has `least` objects, or ends; parts of one range come in order, and follow each other.

    If the listing breaks, what came before that comes first.
    """
    parts: dict[Range, _Part] = {}
    broken = None
    try:
        for piece in pieces:
            part = parts.setdefault(piece.range, _Part(piece.range, piece.range.lo))
            if piece.objects:
                part.pieces.append(piece.objects)
            part.ended, part.until = piece.ended, piece.until
            if part.ended or _count_all(part.pieces) >= least:
                parts[piece.range] = _Part(piece.range, part.last)
                if part.ended:
                    del parts[piece.range]
                yield part
    except SyncAgentError as error:
        broken = error
    if broken is not None:
        yield from (part for part in parts.values() if part.pieces)
        raise broken


def _past(prefix: str) -> str | None:
    """The first string after all that start with `prefix`; None where there is none."""
    prefix = prefix.rstrip(chr(sys.maxunicode))
    if not prefix:
        return None
    after = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if after == 0xD800 else after)  # surrogates are not characters


def action(row: Row | None, found: ObjectInfo | None) -> Action:
    """What making `row` agree with `found` amounts to."""
    known = row.fingerprint if row else None
    if found is None:
        return Action.SAME if known is None else Action.REMOVED
    if known is None:
        return Action.ADDED
    return Action.SAME if known == found.fingerprint else Action.CHANGED


class Reconciler:
    """Keeps one dataset equal to one bucket. One object may be used from many threads.

    :param workers: how many keys are settled at once; each costs one metadata request.
    :param listers: how many parts of the bucket a sweep lists at once, where the store can; see `Bucket.parallel`.
    :param processes: how many processes read a long listing's pages for them; None for one for each core, 4 at most.
    """

    def __init__(
        self,
        catalog: Store,
        dataset: Dataset,
        bucket: Bucket,
        *,
        workers: int = 8,
        listers: int = 1,
        processes: int | None = 0,
    ) -> None:
        self.catalog = catalog
        self.dataset = dataset
        self.bucket = bucket
        self.workers = workers
        self.listers = listers
        self.processes = processes
        self._sparse = 0  # batches of keys for which no listing is tried
        self._renames = _Renames()

    def stand_by(self) -> None:
        """For who is about to list, and serves nobody else: see `Bucket.stand_by`."""
        self.bucket.stand_by(self.listers, processes=self.processes)

    # -- one key ---------------------------------------------------------------------------------

    def settle(self, key: str, *, removing: bool = True) -> Outcome:
        """Make the row of `key` agree with the bucket, whatever anybody else does meanwhile.

        Read the row *before* looking at the object; *always* write, so that whoever read the row
        before us must read again; leave a tombstone even for a key never seen.

        :param removing: False leaves the item of a vanished object as it is; the outcome is the same.
        :raises SyncAgentError: the object could not be looked at, or the row not be written.
        """
        self.bucket.full_key(key)  # what no store could hold has no row either
        return retrying(self._settle_once, attempts=20)(key, removing)

    def _settle_once(self, key: str, removing: bool) -> Outcome:
        row = self.catalog.get(self.dataset.id, key)
        found = self._look(key)
        if not removing and action(row, found) is Action.REMOVED:
            return Outcome(key, Action.REMOVED)
        self.catalog.settle(self.dataset.id, key, found, expect_rev=row.rev if row else 0)
        if not self.catalog.atomic:
            found = self._look_again(key, found)
        return Outcome(key, action(row, found), found.size if found else None)

    def _look_again(self, key: str, found: ObjectInfo | None) -> ObjectInfo | None:
        """Go on until row and object agree, a few times: somebody may have written between our read and our write."""
        for _ in range(_LOOKS):
            row = self.catalog.get(self.dataset.id, key)
            found = self._look(key)
            if action(row, found) is Action.SAME:
                break
            self.catalog.settle(self.dataset.id, key, found, expect_rev=row.rev if row else 0)
        return found

    def _look(self, key: str) -> ObjectInfo | None:
        try:
            return self.bucket.stat(key)
        except NotFound as error:
            if error.resource == self.bucket.spec.bucket:
                if self.bucket.full_key(key) != error.resource:
                    raise  # the bucket itself is gone: that says nothing about its objects
                # A key that is called like its bucket: only a listing tells which of the two is gone.
                with contextlib.closing(_pages(self.bucket, key)) as pages:
                    next(pages, None)
            return None

    # -- many keys -------------------------------------------------------------------------------

    def settle_many(self, keys: Sequence[str], *, removing: bool = True) -> list[Outcome | SyncAgentError]:
        """Settle each of some distinct keys; what one failing would raise stands in its place.

        The same steps as in `settle`, each for all keys at once. Raises nothing of its own but a bug.

        :param removing: False leaves the items of vanished objects as they are; their outcomes are the same.
        """
        settled = partial(self._settled, removing=removing)
        if not self.catalog.atomic:
            return self._each(settled, keys)
        done: dict[str, Outcome | SyncAgentError] = {}
        for key in keys:
            try:
                self.bucket.full_key(key)
            except SyncAgentError as error:
                done[key] = error
        good = [key for key in keys if key not in done]
        try:
            rows = retrying(self.catalog.rows)(self.dataset.id, good)
        except SyncAgentError as error:
            done.update(dict.fromkeys(good, error))
            return [done[key] for key in keys]
        settles = []
        told: list[tuple[Row | None, ObjectInfo | None]] = []
        for row, (key, found) in zip(rows, self._look_all(good), strict=True):
            if isinstance(found, SyncAgentError):
                done[key] = found
            elif not removing and action(row, found) is Action.REMOVED:
                done[key] = Outcome(key, Action.REMOVED)
            else:
                settles.append(Settle(key, found, row.rev if row else 0))
                told.append((row, found))
                done[key] = Outcome(key, action(row, found), found.size if found else None)
        try:
            written = retrying(self.catalog.settle_many)(self.dataset.id, settles)
        except SyncAgentError as error:
            done.update({one.key: error for one in settles})
        else:
            late = [one.key for one, row in zip(settles, written, strict=True) if row is None]
            done.update(zip(late, self._each(settled, late), strict=True))
            for old, new in self._renames.pairs(told):
                if self.move(old, new):
                    done[new] = Outcome(new, Action.MOVED, source=old)
        return [done[key] for key in keys]

    def move(self, old: str, new: str) -> bool:
        """Give a new key the item of a vanished one with the same bytes, with its id and its labels; whether it was done.

        Looks at both objects first, and leaves alone what somebody changed meanwhile.
        """
        try:
            old_row, new_row = self.catalog.get(self.dataset.id, old), self.catalog.get(self.dataset.id, new)
            gone, found = self._look(old), self._look(new)
            if old_row is None or new_row is None or gone is not None or found is None:
                return False
            if (found.content_id, found.size) != (old_row.content_id, old_row.size):
                return False
            self.catalog.move(self.dataset.id, old_row, new_row, found)
        except SyncAgentError:
            return False
        return True

    def settle_below(
        self, prefix: str, *, on_page: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome | SyncAgentError]:
        """Settle every key that starts with `prefix` and differs. Reads a part of the listing.

        :param on_page: called before each part of the work; may raise to end it. What was done stays done.
        :raises SyncAgentError: the listing broke.
        """
        if prefix:
            self.bucket.full_key(prefix)
            if action(self.catalog.get(self.dataset.id, prefix), self._look(prefix)) is not Action.SAME:
                yield self._settled(prefix)
        walk = differences(
            self.bucket, self.catalog, self.dataset.id, after=prefix or None, until=_past(prefix)
        )
        with contextlib.closing(walk):
            for difference in walk:
                on_page()
                keys = [found.key for found in difference.new]
                keys += [found.key for found, _ in difference.changed]
                keys += [row.key for row in difference.missing]
                keys = [key for key in keys if key.startswith(prefix)]
                for start in range(0, len(keys), _PAGE):
                    yield from self.settle_many(keys[start : start + _PAGE])

    def _each(
        self, do: Callable[[str], Outcome | SyncAgentError], keys: Sequence[str]
    ) -> list[Outcome | SyncAgentError]:
        if len(keys) < 2:
            return [do(key) for key in keys]
        return list(each(do, keys, self.workers, name="syncagent-settle"))

    def _settled(self, key: str, removing: bool = True) -> Outcome | SyncAgentError:
        try:
            return self.settle(key, removing=removing)
        except SyncAgentError as error:
            return error

    def look_many(self, keys: Sequence[str]) -> Iterator[tuple[str, ObjectInfo | SyncAgentError | None]]:
        """What the bucket holds at each of some distinct keys: the object, None, or why that is not known."""
        return self._look_all(keys)

    def _look_all(self, keys: Sequence[str]) -> Iterator[tuple[str, ObjectInfo | SyncAgentError | None]]:
        """What the bucket holds at each key: by a listing where the keys lie close together, else one by one."""
        seen = self._look_by_listing(keys) if len(keys) > _DENSE and self.bucket.seeks else {}
        left = [key for key in keys if key not in seen]
        if len(left) < 2:
            seen.update((key, self._looked(key)) for key in left)
        else:
            seen.update(zip(left, each(self._looked, left, self.workers, name="syncagent-look"), strict=True))
        return ((key, seen[key]) for key in keys)

    def _look_by_listing(self, keys: Sequence[str]) -> dict[str, ObjectInfo | SyncAgentError | None]:
        """Pages of the listing, for as long as each answers for enough keys to be worth its price.

        A listing is as consistent as a look at each, and the rows were read before it.
        """
        seen: dict[str, ObjectInfo | SyncAgentError | None] = {}
        if self._sparse:
            self._sparse -= 1
            return seen
        wanted = sorted(keys)
        at = 0  # a page starts after a key, so that one is looked at by itself
        with contextlib.suppress(SyncAgentError):  # each key will tell what is wrong
            while len(wanted) - at > _DENSE:
                with contextlib.closing(_pages(self.bucket, wanted[at], wanted[-1])) as pages:
                    page = next(pages, [])
                end = bisect_right(wanted, page[-1].key) if page else len(wanted)
                by_key = {found.key: found for found in page}
                for key in wanted[at + 1 : end]:
                    seen[key] = by_key.get(key)
                if end - at < _DENSE:
                    self._sparse = _SPARSE
                    break
                at = end
        return seen

    def _looked(self, key: str) -> ObjectInfo | SyncAgentError | None:
        try:
            return self._look(key)
        except SyncAgentError as error:
            return error

    # -- reading only ----------------------------------------------------------------------------

    def plan(self, report: Report | None = None) -> Iterator[Outcome]:
        """What a sweep would do, key by key, then the moves. Reads only; counts into `report`."""
        report = report if report is not None else Report()
        pairs = _Pairs()
        with self._counted(report):
            for difference in differences(self.bucket, self.catalog, self.dataset.id):
                report.listed += difference.listed
                report.same += difference.listed - len(difference.new) - len(difference.changed)
                pairs.see(difference)
                for outcome in _outcomes(difference):
                    _count(report, outcome)
                    yield outcome
            for old, new in pairs.moves():
                outcome = Outcome(new, Action.MOVED, source=old)
                _count(report, outcome)
                report.removed -= 1  # told as removed when its row came by
                yield outcome

    def check(self, report: Report | None = None, *, parts: list[Part] | None = None) -> Iterator[Outcome]:
        """Differences between bucket and catalog. Reads only, lists everything.

        In the order of their keys where one worker lists; several work off one range each, and tell of it when they are there.
        A listing is not a snapshot, so the first 1,000 differences are confirmed by looking again.

        :param parts: gets what was seen of each range, for a `Certificate`; in any order, and whole once this has ended.
        """
        report = report if report is not None else Report()
        with self._counted(report):
            yield from _Check(self, report, parts).outcomes()

    @contextlib.contextmanager
    def _counted(self, report: Report) -> Generator[None, None, None]:
        """Time, requests and price of what happens inside."""
        before, requests_before, ignored = (
            dict(report.requests),
            dict(self.bucket.driver.requests),
            self.bucket.ignored,
        )
        started = time.monotonic() - report.seconds
        report.dataset = self.dataset.name

        try:
            yield
        finally:
            report.seconds = time.monotonic() - started
            report.ignored += self.bucket.ignored - ignored
            for kind, count in self.bucket.driver.requests.items():
                if sent := count - requests_before.get(kind, 0):
                    report.requests[kind] = before.get(kind, 0) + sent
            prices = dict(self.bucket.caps.prices)
            if prices:
                report.cost = sum(prices.get(kind, 0.0) * n / 1000 for kind, n in report.requests.items())

    # -- the sweep -------------------------------------------------------------------------------

    def sweep(
        self,
        *,
        max_deletes: int | None = None,
        resume: bool = True,
        inventory: Bucket | None = None,
        elsewhere: Elsewhere | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_progress: Callable[[Report], None] | None = None,
    ) -> Report:
        """Make every row agree with the bucket.

        :param max_deletes: how many items may go; default the larger of 1,000 and 10 % of the dataset,
            and none when the listing is empty. Beyond that nothing is removed and `Report.refused` says so.
        :param resume: go on where an interrupted sweep stopped, if that was within a day.
        :param inventory: look at the keys of which this report of the bucket says something else than the catalog,
            instead of listing the bucket; see `drivers.inventory`. Begins anew each time: what was settled is not looked at again.
        :param elsewhere: others that list and compare, instead of this process. It looks at what is missing, and removes.
        :param on_outcome: called for every key that is not the same; from this thread. What others find is only counted.
        :param on_progress: called with the report so far, about once a second.
        :raises Conflict: another sweep holds the dataset.
        :raises SyncAgentError: the listing broke; nothing was removed. The next sweep goes on from there, unless
            the listing cannot be trusted.
        """
        run = self.catalog.begin_run(self.dataset.id, resume=resume and inventory is None)
        report = run.report
        report.run, report.resumed_after, report.refused = run.number, _resumed(run), None
        sweep = _Sweep(self, run, report, on_outcome or _ignore, on_progress or _ignore)
        state, error = "interrupted", None
        try:
            with self._counted(report), _beating(self.catalog, run.number):
                if elsewhere is not None:
                    sweep.follow_elsewhere(elsewhere)
                elif inventory is None:
                    sweep.follow_listing()
                else:
                    sweep.follow_inventory(inventory)
                # First the moves: a renamed folder is no removal, however large.
                sweep.move()
                missing = self.catalog.count_missing(run.number)
                report.refused = self._refusal(report, missing, max_deletes)
                if report.refused is None:
                    sweep.remove()
            state = "refused" if report.refused else "done"
        except SyncAgentError as failure:
            state, error = "failed", str(failure)
            if not (failure.transient or isinstance(failure, AccessDenied)):
                sweep.start_over()
            raise
        except Exception as bug:
            state, error = "failed", type(bug).__name__
            sweep.start_over()
            raise
        finally:
            # A catalog that cannot be written now must not hide the error that came first.
            with contextlib.suppress(SyncAgentError):
                self.catalog.finish_run(run.number, state, report, error)
        return report

    def sweep_part(
        self,
        run: Run,
        part: tuple[str | None, str | None],
        report: Report,
        record: Callable[[Sequence[str], Ranges], bool],
        *,
        hints: Sequence[str] = (),
    ) -> None:
        """List a part of the keys for a sweep that another process runs: compare, and write what is new or changed.

        A part may be done twice, by two processes at once if need be: the second one finds everything to be the same.

        :param part: an exclusive and an inclusive bound; None for the beginning, and for the end.
        :param report: what was done is counted in here, also when this raises.
        :param record: called about once a second, when everything else is written, with keys that are missing and with what is
            left of the part. False ends it. It is called at the end as well, also when this raises.
        :param hints: keys of the part that divide it evenly, as a former sweep saw it.
        :raises SyncAgentError: the listing broke.
        """
        share = _Share(self, run, report, record)
        with self._counted(report):
            share.follow_ranges([part], hints)

    def _refusal(self, report: Report, missing: int, max_deletes: int | None) -> str | None:
        if not missing or (max_deletes is not None and missing <= max_deletes):
            return None
        if max_deletes is not None:
            return f"{missing} items would be removed, more than the {max_deletes} allowed"
        if not report.listed:
            return f"the listing is empty, and all {missing} items would be removed"
        cap = _MIN_CAP
        if missing > cap:
            cap = max(cap, int(self.catalog.count(self.dataset.id) * _CAP_SHARE))
        return f"{missing} items would be removed, more than the {cap} allowed" if missing > cap else None


class _Check:
    """The state of one check.

    Where the catalog can tell a range's digest for less than its rows, that is asked first, and rows are read only where it differs.
    The objects are kept until then: to list a differing range again would cost requests, and compare another moment's.
    """

    def __init__(self, reconciler: Reconciler, report: Report, parts: list[Part] | None) -> None:
        self._of, self._report, self._parts = reconciler, report, parts
        self._catalog, self._dataset = reconciler.catalog, reconciler.dataset.id
        self._confirmed = 0

    def outcomes(self) -> Iterator[Outcome]:
        from syncagent.certificate import pieces  # a function never checks

        of, listers = self._of, self._of.listers if self._of.bucket.parallel else 1
        hints = self._catalog.quantiles(self._dataset, _HINT) if listers > 1 else []
        least = self._catalog.span
        if self._catalog.sums or self._parts is not None:
            least = max(least, _SUMMED)
        with contextlib.closing(pieces(of.bucket, listers, hints, processes=of.processes)) as found:
            for part in _gathered(found, least):
                yield from self._compare(part)

    def _compare(self, part: _Part) -> Iterator[Outcome]:
        """Compare a part with the rows there: by its digest first, where the catalog tells one."""
        from syncagent.certificate import Part, moment
        from syncagent.digest import Digest, digest_of

        listed_to, differed, looked = moment(), 0, self._confirmed
        digest = digest_of(part.objects) if self._catalog.sums or self._parts is not None else Digest()
        self._report.listed += len(part.objects)
        bounds = {"after": part.after, "until": part.last}
        if self._catalog.sums and self._catalog.digest(self._dataset, **bounds) == digest:
            self._report.same += len(part.objects)
        else:
            for difference in part.differences(self._catalog, self._dataset):
                self._report.same += difference.listed - len(difference.new) - len(difference.changed)
                seen = {found.key: found for found in difference.new}
                seen.update((found.key, found) for found, _ in difference.changed)
                for outcome in _outcomes(difference):
                    if self._confirmed < _CONFIRM:
                        self._confirmed += 1
                        row = self._catalog.get(self._dataset, outcome.key)
                        found = self._of._look(outcome.key)
                        digest += digest_of([found] if found else [])
                        digest -= digest_of([seen[outcome.key]] if outcome.key in seen else [])
                        if action(row, found) is Action.SAME:
                            self._report.same += found is not None
                            continue
                    differed += 1
                    _count(self._report, outcome)
                    yield outcome
        if self._parts is not None:
            listed_to = moment() if self._confirmed > looked else listed_to
            self._parts.append(
                Part(part.after, part.last, moment(part.range.since), listed_to, digest, differed)
            )


class _Sweep:
    """The state of one sweep."""

    def __init__(
        self,
        reconciler: Reconciler,
        run: Run,
        report: Report,
        on_outcome: Callable[[Outcome], None],
        on_progress: Callable[[Report], None],
    ) -> None:
        self._of = reconciler
        self._catalog, self._dataset = reconciler.catalog, reconciler.dataset.id
        self._run, self._report = run, report
        self._ended = False
        self._tell, self._on_progress = on_outcome, on_progress

    def follow_listing(self) -> None:
        """New keys straight from the listing, changed ones settled, missing ones noted for later."""
        cursor, ranges = self._run.cursor, self._run.ranges
        if ranges is not None or (self._of.listers > 1 and self._of.bucket.parallel):
            if ranges is None and cursor is not None:
                ranges = [(cursor, None)]
            hints = self._catalog.quantiles(self._dataset, _HINT) if ranges is None else []
            self.follow_ranges(ranges, hints)
            return
        new: list[Sequence[ObjectInfo]] = []
        missing: list[str] = []
        advanced = time.monotonic()
        walk = differences(self._of.bucket, self._catalog, self._dataset, after=cursor)
        with contextlib.closing(walk):
            try:
                for difference in walk:
                    new.append(difference.new)
                    missing += [row.key for row in difference.missing]
                    self._settle_all([found.key for found, _ in difference.changed])
                    self._report.listed += difference.listed
                    self._report.same += difference.listed - len(difference.new) - len(difference.changed)
                    cursor = difference.last
                    due = time.monotonic() - advanced >= _ADVANCE_SECONDS
                    if due or max(_count_all(new), len(missing)) >= _INSERT:
                        self._advance(cursor, new, missing)
                        advanced = time.monotonic()
            finally:
                # What was worked off counts, also when the listing broke or somebody pressed Ctrl-C.
                self._advance(cursor, new, missing)

    def follow_ranges(self, ranges: Ranges | None, hints: Sequence[str]) -> None:
        """The same by several workers, each with a range of the keys. Another thread compares; this one writes.

        :param ranges: None for all; :param hints: see `Partition`.
        """
        bucket, listers = self._of.bucket, self._of.listers if self._of.bucket.parallel else 1
        crew = bucket.crew(Partition(listers, hints, ranges), listers, processes=self._of.processes)
        new: list[Sequence[ObjectInfo]] = []
        changed: list[str] = []
        missing: list[str] = []
        done: dict[Range, tuple[str | None, bool]] = {}
        listed = same = 0
        advanced = time.monotonic()

        def advance() -> None:
            for one, (cursor, ended) in done.items():
                crew.done_until(one, cursor, ended=ended)
            done.clear()
            # Just before it is recorded: what a process did and did not tell is done again, and counted as the same.
            self._settle_all(changed)
            changed.clear()
            self._advance(None, new, missing, crew.left())

        span = self._catalog.span
        compared = in_thread(
            self._compared(crew.pieces(), span),
            ahead=max(1, _AHEAD // span),
            name="syncagent-compare",
            stop=crew.stop,
        )
        with contextlib.closing(compared):
            try:
                for part, difference, whole in compared:
                    if difference is not None:
                        new.append(difference.new)
                        changed += [found.key for found, _ in difference.changed]
                        missing += [row.key for row in difference.missing]
                        listed += difference.listed
                        same += difference.listed - len(difference.new) - len(difference.changed)
                    if whole:  # a part that is left in the middle is listed again
                        done[part.range] = part.last, part.ended
                        self._report.listed += listed
                        self._report.same += same
                        listed = same = 0
                    due = time.monotonic() - advanced >= _ADVANCE_SECONDS
                    if due or max(_count_all(new), len(changed), len(missing)) >= _INSERT:
                        advance()
                        advanced = time.monotonic()
                        if self._ended:
                            crew.finish()
            finally:
                advance()

    def _compared(
        self, pieces: Generator[Piece], least: int
    ) -> Generator[tuple[_Part, Difference | None, bool]]:
        """What differs, and whether that is all of its part; ahead of what is written, which is other keys.

        One by one: a part that lost millions of neighbouring keys has many.
        """
        with contextlib.closing(pieces):
            for part in _gathered(pieces, least):
                held = None
                for difference in part.differences(self._catalog, self._dataset):
                    if held is not None:
                        yield part, held, False
                    held = difference
                yield part, held, True

    def follow_elsewhere(self, elsewhere: Elsewhere) -> None:
        """The same by other processes. This one keeps their progress."""
        before, told = replace(self._report), Report()

        def advance(left: Ranges, counts: Report) -> None:
            nonlocal told
            for name in _COUNTED:
                setattr(self._report, name, getattr(before, name) + getattr(counts, name))
            sent = {kind: n - told.requests.get(kind, 0) for kind, n in counts.requests.items()}
            self._of.bucket.count(sent, counts.ignored - told.ignored)
            told = replace(counts, requests=dict(counts.requests))
            self._record(None, [], left)
            self._on_progress(self._report)

        elsewhere(self._run, advance)

    def follow_inventory(self, inventory: Bucket) -> None:
        """Look at every key of which the report says something else than the catalog; the report decides nothing.

        What is new goes the way of a listing's new keys, so that moves are found; what is gone is noted for later.
        """
        new: list[Sequence[ObjectInfo]] = []
        missing: list[str] = []
        unknown: list[str] = []  # keys without a row
        doubtful: list[str] = []

        def look(least: int) -> None:
            while len(unknown) >= least:
                batch, unknown[:] = unknown[:_PAGE], unknown[_PAGE:]
                looked = list(self._of.look_many(batch))
                self._fail_all(
                    [(key, found) for key, found in looked if isinstance(found, SyncAgentError)], batch
                )
                new.append([found for _, found in looked if isinstance(found, ObjectInfo)])
            while len(doubtful) >= least:
                batch, doubtful[:] = doubtful[:_PAGE], doubtful[_PAGE:]
                told = list(zip(batch, self._of.settle_many(batch, removing=False), strict=True))
                self._fail_all([(key, one) for key, one in told if isinstance(one, SyncAgentError)], batch)
                settled = [one for _, one in told if isinstance(one, Outcome)]
                self._catalog.release(self._dataset, [one.key for one in settled])
                for one in settled:
                    if one.action is Action.REMOVED:
                        missing.append(one.key)
                    else:
                        self._count(one)

        # Of a bucket that is gone a store may say only that each object is; a listing tells, for one request.
        with contextlib.closing(_pages(self._of.bucket, None)) as pages:
            next(pages, None)
        advanced = time.monotonic()
        walk = differences(inventory, self._catalog, self._dataset)
        with contextlib.closing(walk):
            for difference in walk:
                unknown += [found.key for found in difference.new]
                doubtful += [found.key for found, _ in difference.changed]
                doubtful += [row.key for row in difference.missing]
                self._report.listed += difference.listed
                self._report.same += difference.listed - len(difference.new) - len(difference.changed)
                look(_PAGE)
                if time.monotonic() - advanced >= _ADVANCE_SECONDS or _count_all(new) >= _INSERT:
                    # No cursor: a sweep that lists the bucket has nothing to go on from.
                    self._advance(None, new, missing)
                    advanced = time.monotonic()
        look(1)
        self._advance(None, new, missing)

    def _advance(
        self,
        cursor: str | None,
        new: list[Sequence[ObjectInfo]],
        missing: list[str],
        ranges: Ranges | None = None,
    ) -> None:
        """Write what was found, and empty both lists, so that nothing is counted twice."""
        # Rows first: should the process die in between, the next one finds them to be the same.
        found = ObjectPage.joined(new)
        known = (
            retrying(self._catalog.insert_new)(self._dataset, found, run=self._run.origin) if found else []
        )
        seen = set(known)
        added = [one for one in found if one.key not in seen] if seen else found
        new.clear()
        if self._tell is _ignore:  # nobody asked for each of them
            self._report.added += len(added)
        else:
            for one in added:
                self._count(Outcome(one.key, Action.ADDED, one.size))
        self._settle_all(known)
        self._record(cursor, missing, ranges)
        missing.clear()
        self._on_progress(self._report)

    def _record(self, cursor: str | None, missing: Sequence[str], ranges: Ranges | None) -> None:
        retrying(self._catalog.advance)(self._run.number, cursor, missing, self._report, ranges)

    def start_over(self) -> None:
        """A listing that was not sound (out of order, say) may have left out keys before the cursor."""
        with contextlib.suppress(SyncAgentError):
            self._catalog.advance(self._run.number, None, [], self._report)

    def move(self) -> None:
        """Pairs of a vanished and a new key with the same bytes keep the item, its id and its labels."""
        if not self._report.added or not self._catalog.pair_moves(self._run.number):
            return
        after: str | None = None
        while pairs := self._catalog.moves(self._run.number, after=after, limit=_PAGE):
            after = pairs[-1][0]
            done = []
            moves = each(lambda pair: self._of.move(*pair), pairs, self._of.workers, name="syncagent-move")
            with contextlib.closing(moves):
                for (old, new), moved in zip(pairs, moves, strict=True):
                    if moved:
                        done.append(old)
                        self._count(Outcome(new, Action.MOVED, source=old))
            self._catalog.forget_missing(self._run.number, done)
            self._on_progress(self._report)

    def remove(self) -> None:
        """Look at every key that the listing lacked, and move to the trash what is gone."""
        batch: list[str] = []
        for key in self._missing():
            batch.append(key)
            if len(batch) == _PAGE:
                self._settle_all(batch)
                self._on_progress(self._report)
                batch = []
        self._settle_all(batch)

    def _missing(self) -> Iterator[str]:
        after: str | None = None
        while keys := self._catalog.missing(self._run.number, after=after, limit=_PAGE):
            yield from keys
            after = keys[-1]

    def _settle_all(self, keys: Sequence[str]) -> None:
        with contextlib.closing(
            each(self._settle, keys, self._of.workers, name="syncagent-settle")
        ) as settled:
            for outcome in settled:
                self._count(outcome)

    def _settle(self, key: str) -> Outcome:
        """One key failing does not stop the others: it is quarantined, with the reason."""
        try:
            outcome = self._of.settle(key)
            self._catalog.release(self._dataset, [key])
        except SyncAgentError as error:
            self._catalog.quarantine(self._dataset, key, error)
            return Outcome(key, Action.FAILED, error=str(error))
        return outcome

    def _fail_all(self, failed: Sequence[tuple[str, SyncAgentError]], batch: Sequence[str]) -> None:
        """Quarantine what could not be looked at. Where that is all of a batch, the bucket is at fault, not its keys."""
        if len(failed) == len(batch) > 1:
            raise failed[0][1]
        for key, error in failed:
            self._catalog.quarantine(self._dataset, key, error)
            self._count(Outcome(key, Action.FAILED, error=str(error)))

    def _count(self, outcome: Outcome) -> None:
        _count(self._report, outcome)
        if outcome.action is not Action.SAME:
            self._tell(outcome)


class _Share(_Sweep):
    """A part of a sweep whose progress another process keeps."""

    def __init__(
        self,
        reconciler: Reconciler,
        run: Run,
        report: Report,
        record: Callable[[Sequence[str], Ranges], bool],
    ) -> None:
        super().__init__(reconciler, run, report, _ignore, _ignore)
        self._told = record

    def _record(self, cursor: str | None, missing: Sequence[str], ranges: Ranges | None) -> None:
        if not self._told(missing, ranges or []):
            self._ended = True


class _Renames:
    """Vanished and new keys that events named lately: a rename is two events, of which either may come first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._gone: dict[tuple[str, int], dict[str, float]] = {}
        self._new: dict[tuple[str, int], dict[str, float]] = {}
        self._order: deque[tuple[float, dict[tuple[str, int], dict[str, float]], tuple[str, int], str]] = (
            deque()
        )

    def pairs(self, told: Sequence[tuple[Row | None, ObjectInfo | None]]) -> list[tuple[str, str]]:
        """Note what was settled, rows as they were before; returns the pairs of an old and a new key that are unambiguous now."""
        with self._lock:
            now, touched = self._clock(), set()
            self._forget(now)
            for row, found in told:
                if row is not None and row.fingerprint is not None and found is None and row.content_id:
                    touched.add(self._note(self._gone, (row.content_id, row.size), row.key, now))
                elif (row is None or not row.item) and found is not None and found.content_id and found.size:
                    touched.add(self._note(self._new, (found.content_id, found.size), found.key, now))
            pairs = []
            for same in touched:
                gone, new = self._gone.get(same, {}), self._new.get(same, {})
                if len(gone) == len(new) == 1:
                    pairs.append((next(iter(gone)), next(iter(new))))
                    del self._gone[same], self._new[same]
            return sorted(pairs)

    def _note(
        self, kept: dict[tuple[str, int], dict[str, float]], same: tuple[str, int], key: str, now: float
    ) -> tuple[str, int]:
        other = self._new if kept is self._gone else self._gone
        other.get(same, {}).pop(key, None)  # it came and went, or went and came back
        kept.setdefault(same, {})[key] = now
        self._order.append((now, kept, same, key))
        return same

    def _forget(self, now: float) -> None:
        while self._order and (
            now - self._order[0][0] > _RENAME_SECONDS or len(self._order) > _RENAME_MEMORY
        ):
            at, kept, same, key = self._order.popleft()
            if kept.get(same, {}).get(key) == at:
                del kept[same][key]
            if not kept.get(same, True):
                del kept[same]


class _Pairs:
    """Pairs moves for `plan`, within a bound of memory."""

    def __init__(self) -> None:
        self._new: dict[tuple[str, int], list[str]] = {}
        self._gone: dict[tuple[str, int], list[str]] = {}
        self._kept = 0

    def see(self, difference: Difference) -> None:
        sides = ((difference.new, self._new), (difference.missing, self._gone))
        for entries, kept in sides:
            for entry in entries:
                if entry.content_id and entry.size and self._kept < _PAIR_MEMORY:
                    self._kept += 1
                    kept.setdefault((entry.content_id, entry.size), []).append(entry.key)

    def moves(self) -> Iterator[tuple[str, str]]:
        if self._kept >= _PAIR_MEMORY:
            return  # some were not kept, so no pair is known to be unambiguous
        for same, gone in sorted(self._gone.items(), key=itemgetter(1)):
            new = self._new.get(same, [])
            if len(gone) == len(new) == 1:
                yield gone[0], new[0]


def _outcomes(difference: Difference) -> list[Outcome]:
    found = [Outcome(o.key, Action.ADDED, o.size) for o in difference.new]
    # A tombstone whose object is back is an addition.
    found += [Outcome(o.key, action(row, o), o.size) for o, row in difference.changed]
    found += [Outcome(row.key, Action.REMOVED, row.size) for row in difference.missing]
    return sorted(found, key=lambda outcome: outcome.key)


def _count(report: Report, outcome: Outcome) -> None:
    match outcome.action:
        case Action.ADDED:
            report.added += 1
        case Action.CHANGED:
            report.changed += 1
        case Action.REMOVED:
            report.removed += 1
        case Action.MOVED:
            # It was counted, and told, as an addition when the listing came by.
            report.moved += 1
            report.added -= 1
        case Action.SAME:
            report.same += 1
        case Action.FAILED:
            report.failed += 1


@contextlib.contextmanager
def _beating(catalog: Store, run: int) -> Generator[None, None, None]:
    """Show by the clock that the run is alive, also while one page takes long."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(SyncAgentError):  # the next write says what is wrong
                catalog.heartbeat(run)

    thread = threading.Thread(target=beat, name="syncagent-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _resumed(run: Run) -> str | None:
    """The key after which a run goes on; the first of them, where several workers do."""
    if run.ranges is None:
        return run.cursor
    return (run.ranges[0][0] or "") if run.ranges else ""


def _count_all(pages: Sequence[Sequence[ObjectInfo]]) -> int:
    return sum(map(len, pages))


def _ignore(_: object) -> None:
    pass
