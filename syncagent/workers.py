"""Jobs in threads, for a thread that Ctrl-C may interrupt anywhere: `Workers`, `each`.

`concurrent.futures` and `threading` wait by conditions that are written in Python. A KeyboardInterrupt that comes just after the lock
of one was taken leaves it taken, and the threads that would end a job or begin wait for it forever. Here the waiting thread uses
queues of the interpreter alone, and starts no thread by itself: an interruption comes before or after what they do, never within.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, Self, TypeVar

_LOOK = 1.0  # seconds of one wait: a signal that comes just before it begins is handled when it ends
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class Workers(Generic[_Job, _Result]):
    """Threads that do jobs. A context manager, to be used from one thread.

    Left early, it drops the jobs that nobody took and waits for those under way. Interrupted again meanwhile, it waits no longer.

    :param do: does a job; called in the threads. :param workers: jobs at once. :param name: of the threads.
    """

    def __init__(self, do: Callable[[_Job], _Result], workers: int, *, name: str) -> None:
        self._do = do
        self._jobs: SimpleQueue[tuple[_Job] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[_Result] | BaseException] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(workers)
        ]
        self._begun = self._ended = False
        self.left = 0
        """Jobs that were put and whose results were not taken yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._jobs.put(None)
        for thread in self._threads:
            while thread.is_alive():  # one that is not yet took no job, and will find the end
                thread.join(_LOOK)

    def put(self, job: _Job) -> None:
        """Have a job done."""
        if not self._begun:
            self._begun = True
            _thread.start_new_thread(self._begin, ())
        self.left += 1
        self._jobs.put((job,))

    def take(self, timeout: float | None = None) -> _Result:
        """The result of a job that was not taken yet, as they end.

        :param timeout: in seconds; None waits for as long as it takes.
        :raises queue.Empty: there was none in time. :raises BaseException: what a job raised; after that this can only be left.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _LOOK if until is None else min(_LOOK, max(0.0, until - time.monotonic()))
            try:
                got = self._done.get(timeout=wait)
                break
            except Empty:
                if until is not None and time.monotonic() >= until:
                    raise
        self.left -= 1
        if isinstance(got, BaseException):
            raise got
        return got[0]

    def _begin(self) -> None:
        """Start the threads, out of reach of an interruption: `Thread.start` waits by a condition, too."""
        try:
            for thread in self._threads:
                thread.start()
        except BaseException as error:  # handed over: raised where the results are taken
            self._done.put(error)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._ended:
            try:
                self._done.put((self._do(job[0]),))
            except BaseException as error:  # handed over, as above
                self._done.put(error)
        self._jobs.put(None)  # for the next thread


def each(
    do: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int, *, name: str
) -> Generator[_Result]:
    """What `do` makes of each job, in their order, as soon as it is there. Close it where something else may raise before its end.

    :raises BaseException: what one of them raised.
    """
    found: dict[int, _Result] = {}
    at = 0

    def numbered(n: int) -> tuple[int, _Result]:
        return n, do(jobs[n])

    with Workers(numbered, min(workers, len(jobs)), name=name) as pool:
        for n in range(len(jobs)):
            pool.put(n)
        while pool.left:
            n, result = pool.take()
            found[n] = result
            while at in found:
                yield found.pop(at)
                at += 1


__all__ = ["Workers", "each"]
