"""One listing by several workers, each with a range of the key space: `pieces`."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from syncagent.drivers.partition import Partition, Range
from syncagent.errors import Transient
from syncagent.model import ObjectInfo
from syncagent.pages import keys_of

Pages = Callable[[Range], Iterator[Sequence[ObjectInfo]]]
"""Lists what a range has left, after its cursor and up to its bound: strictly ascending pages; never just ends early."""

_AHEAD = 2  # pieces for each worker: what comes in while one transaction is written
_PATIENCE = 8  # failures in a row, over all workers
_PAUSE, _LONGEST = 0.5, 30.0  # seconds after a failure, doubling
_GOODBYE = 60.0  # seconds for requests that are under way when the listing is closed
_RECOVER = 1.0  # seconds of success, after which one more worker may go on


@dataclass(frozen=True, slots=True)
class Piece:
    """A page, as much of it as is its range's; pieces of one range come in order."""

    range: Range
    objects: Sequence[ObjectInfo]
    ended: bool
    """Nothing more comes in this range: what lies after these objects, up to `until`, is empty."""
    until: str | None
    """Where the range ends, if it has ended; None is the end of everything."""


class Crew:
    """Workers over one partition. Iterate over `pieces` once, and close it.

    :param sleep: waits; it is given an event that ends the waiting, and seconds.
    :param close: called when the workers have stopped.
    """

    def __init__(
        self,
        pages: Pages,
        partition: Partition,
        workers: int,
        *,
        sleep: Callable[[threading.Event, float], object] = threading.Event.wait,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._pages, self._partition, self._workers, self._sleep = pages, partition, workers, sleep
        self._close = close
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._finishing = False
        self._handed: queue.Queue[Piece | BaseException | None] = queue.Queue(workers * _AHEAD)
        self._allowed = workers
        self._failures = 0
        self._slowed = 0
        self._raised_at = time.monotonic()
        self._left: dict[int, tuple[Range, str | None]] = {
            id(one): (one, one.lo) for one in partition.waiting
        }

    def pieces(self) -> Generator[Piece, None, None]:
        """What the workers find, as it comes.

        :raises SyncAgentError: the listing broke: for good, or more often in a row than is worth trying.
        """
        threads = [
            threading.Thread(target=self._work, args=(n,), name=f"syncagent-list-{n}", daemon=True)
            for n in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running and not self._stopped.is_set():
                got = self._handed.get()
                if got is None:
                    running -= 1
                elif isinstance(got, BaseException):
                    raise got
                else:
                    yield got
        finally:
            self._stopped.set()
            with self._changed:
                self._changed.notify_all()
            deadline = time.monotonic() + _GOODBYE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._close()

    def stop(self) -> None:
        """End `pieces`, from another thread, whatever it waits for: what was not handed on yet is in `left`."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        with contextlib.suppress(queue.Full):
            self._handed.put_nowait(None)

    def finish(self) -> None:
        """List no more than the pages that are under way: `pieces` ends with them, and the rest is in `left`."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def done_until(self, one: Range, key: str | None, *, ended: bool) -> None:
        """Note that what was handed on is worked off: for `left`."""
        with self._changed:
            if ended:
                self._left.pop(id(one), None)
            else:
                self._left[id(one)] = one, key

    def left(self) -> list[tuple[str | None, str | None]]:
        """Ranges that are not worked off, together exactly that: an exclusive and an inclusive bound each."""
        with self._changed:
            return sorted(
                ((done, one.hi) for one, done in self._left.values()), key=lambda bounds: bounds[0] or ""
            )

    # -- a worker --------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        try:
            while (taken := self._take(number)) is not None:
                self._list(number, taken)
            self._offer(None)
        except BaseException as error:  # handed over: raised where the listing is read
            self._offer(error)

    def _take(self, number: int) -> Range | None:
        """A range, as soon as there is one; None when there will be none."""
        with self._changed:
            while not self._stopped.is_set() and not self._finishing:
                if number < self._allowed:
                    taken = self._partition.take()
                    if taken is not None:
                        self._left.setdefault(id(taken), (taken, taken.cursor))
                        return taken
                    if not self._partition.live and not self._partition.waiting:
                        self._changed.notify_all()
                        return None
                elif not self._partition.live and not self._partition.waiting:
                    return None
                self._changed.wait(_RECOVER)
                self._recover()
        return None

    def _list(self, number: int, taken: Range) -> None:
        slowed = self._slowed
        try:
            with contextlib.closing(_generator(self._pages(taken))) as pages:
                for page in pages:
                    if not self._hand_on(number, taken, page):
                        return
                    slowed = self._slowed
        except Transient as failure:
            self._failed(taken, failure, slowed)
            return
        with self._changed:
            self._partition.ended(taken)
            until = taken.hi
            self._changed.notify_all()
        self._offer(Piece(taken, [], True, until))

    def _hand_on(self, number: int, taken: Range, page: Sequence[ObjectInfo]) -> bool:
        """A page, as far as it is the range's; whether this worker is to go on with it."""
        keys = keys_of(page)
        with self._changed:
            # By the bound of this moment: another worker may have taken the far part meanwhile.
            cut, ended = self._partition.answered(taken, keys, more=True)
            until = taken.hi
            self._failures = 0
            self._recover()
            self._changed.notify_all()
        objects = page[:cut] if cut < len(page) else page
        if not self._offer(Piece(taken, objects, ended, until)) or ended:
            return False
        with self._changed:
            if number < self._allowed and not self._finishing:
                return True
            # The store is busy: whoever is allowed to goes on with it, after what was just handed on.
            self._partition.give_back(taken)
            self._changed.notify_all()
        return False

    def _failed(self, taken: Range, failure: Transient, slowed: int) -> None:
        """Fewer workers, and a pause: the store is busy, or the network is.

        :param slowed: what `_slowed` was when the request began. Those under way together fail together, which is one failure.
        """
        with self._changed:
            if slowed == self._slowed:
                self._slowed += 1
                self._failures += 1
                self._allowed = max(1, self._allowed // 2)
                self._raised_at = time.monotonic()
            if self._failures > _PATIENCE:
                raise failure
            pause = failure.retry_after or min(_LONGEST, _PAUSE * 2 ** max(0, self._failures - 1))
        self._sleep(self._stopped, pause)
        with self._changed:
            self._partition.give_back(taken)
            self._changed.notify_all()

    def _recover(self) -> None:
        now = time.monotonic()
        if self._allowed < self._workers and not self._failures and now - self._raised_at >= _RECOVER:
            self._allowed, self._raised_at = self._allowed + 1, now

    def _offer(self, what: Piece | BaseException | None) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._handed.put(what, timeout=0.1)
                return True
        return False


def _generator(pages: Iterator[Sequence[ObjectInfo]]) -> Generator[Sequence[ObjectInfo], None, None]:
    yield from pages
