"""Tasks on a Dask cluster. The only module that knows Dask."""

from __future__ import annotations

import contextlib
import gc
import logging
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from syncagent.cluster.base import Done, Event, Failed, Lost, Order, Told, Work
from syncagent.errors import Transient

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT = 10.0  # seconds to find the scheduler
_CLOSE = 2.0  # seconds to say goodbye
_LOOK = 2.0  # seconds between two looks at the workers
_REPEATED = {"repeated": True}


class DaskEngine:
    """`Engine` by a scheduler's address.

    Dask runs a task again whose worker died. Here that would begin the range from its beginning, and count twice; so a task takes a mark
    at the scheduler before it begins, and one that finds its mark taken returns at once: that is how a lost worker is noticed.
    """

    def __init__(self, address: str) -> None:
        from distributed import Client

        self.name = address
        self._prefix = f"syncagent-{uuid.uuid4().hex[:12]}"
        self._happened: queue.Queue[Event] = queue.Queue()
        self._futures: dict[str, Future[Any]] = {}
        self._slots, self._looked = 0, 0.0
        self._lost = False
        # What it logs when the scheduler goes is raised here.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        try:
            self._client: Client = Client(address, timeout=_CONNECT, set_as_default=False, name="syncagent")
        except OSError as error:  # a timeout, too
            raise self._gone("cannot be reached") from error
        self._client.subscribe_topic(self._prefix, self._hear)

    def slots(self) -> int:
        """See `Engine.slots`."""
        if time.monotonic() - self._looked >= _LOOK:
            with self._translated():
                self._slots = sum(self._client.nthreads().values())
            self._looked = time.monotonic()
        return self._slots

    def submit(self, task: str, work: Work, order: Order) -> None:
        """See `Engine.submit`."""
        key = f"{self._prefix}-{task}"
        with self._translated():
            future = self._client.submit(_once, work, dict(order), self._prefix, task, key=key, pure=False)
        self._futures[task] = future
        future.add_done_callback(lambda ended: self._ended(task, ended))

    def next(self, timeout: float) -> Event | None:
        """See `Engine.next`."""
        if self._lost:
            raise self._gone("is gone")
        try:
            event = self._happened.get(timeout=timeout)
        except queue.Empty:
            return None
        if not isinstance(event, Told):
            self._futures.pop(event.task, None)
            if isinstance(event, Failed) and isinstance(event.error, Transient):
                raise event.error
            self._clear(event.task)
        return event

    def stop(self) -> None:
        """See `Engine.stop`."""
        from distributed import Event as Flag

        with self._translated():
            Flag(f"{self._prefix}-stop", client=self._client).set()
            # Of those that run nothing is taken away: they return.
            running = {key for keys in self._client.processing().values() for key in keys}
            idle = [f for f in self._futures.values() if f.key not in running and not f.done()]
            self._client.cancel(idle)

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._lost and self._client.status == "running":
            with contextlib.suppress(OSError):
                self._client.cancel(list(self._futures.values()))
                for task in self._futures:
                    self._clear(task)
                self._clear("stop")
        self._futures.clear()
        with contextlib.suppress(OSError):
            self._client.close(timeout=_CLOSE)

    def _hear(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, message = event
        self._happened.put(Told(message["task"], message["what"]))

    def _ended(self, task: str, future: Future[Any]) -> None:
        """Called in a thread of the client's."""
        try:
            answer = future.result(timeout=_CONNECT)
        except BaseException as error:  # handed over: raised where events are read
            # An answer that is lost on its way is no error of the task's, whether the client has noticed by now or not.
            lost = future.status == "cancelled" or (future.status != "error" and isinstance(error, OSError))
            if not lost:
                self._happened.put(Failed(task, error))
            elif self._client.status == "running":
                self._happened.put(Lost(task))
            else:
                self._happened.put(Failed(task, self._gone("is gone")))
        else:
            self._happened.put(Lost(task) if answer == _REPEATED else Done(task, answer))

    def _clear(self, name: str) -> None:
        from distributed import Event as Flag

        with contextlib.suppress(OSError):
            Flag(f"{self._prefix}-{name}", client=self._client).clear()

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except OSError as error:
            raise self._gone("is gone") from error

    def _gone(self, what: str) -> Transient:
        self._lost = True
        return Transient(
            f"the cluster's scheduler {self.name} {what}",
            resource=self.name,
            hint="run it again when it is there; the sweep goes on where it was",
        )


def _once(work: Work, order: Order, prefix: str, task: str) -> Mapping[str, Any]:
    """On a worker: do the work, unless another worker has begun it."""
    from distributed import Event as Flag
    from distributed import get_worker

    mark, stop, worker = Flag(f"{prefix}-{task}"), Flag(f"{prefix}-stop"), get_worker()
    if mark.is_set():
        return _REPEATED
    mark.set()

    def tell(what: Mapping[str, Any]) -> bool:
        worker.log_event(prefix, {"task": task, "what": dict(what)})
        return not stop.is_set()

    with _UNCOLLECTED:
        return work(order, tell)


class _Uncollected:
    """No look for cycles while a task runs, of which a listing makes none; it is a tenth of the work.

    And it can hang: Dask's profiler calls `sys._current_frames` a hundred times a second, which in CPython 3.11 may begin a
    collection while it holds a lock that the collection waits for (gh-106883, distributed#8616). So none may be due whenever the profiler comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._was = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._tasks:
                self._was = gc.isenabled()
                gc.disable()
            self._tasks += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._tasks -= 1
            if not self._tasks and self._was:
                gc.collect()
                gc.enable()


_UNCOLLECTED = _Uncollected()
