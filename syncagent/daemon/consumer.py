"""Follows one queue: receives, settles in batches, and deletes a message only when its keys are settled."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from syncagent.catalog import Dataset
from syncagent.daemon.letters import DeadLetters
from syncagent.daemon.metrics import Metrics
from syncagent.drivers.queues import Message, Queue
from syncagent.errors import AccessDenied, NotFound, SyncAgentError
from syncagent.handlers.deliveries import Taken, parser, take, without_keys
from syncagent.handlers.mirror import Mirror

_log = logging.getLogger("syncagent.daemon")
_BATCH = 1000
_RECEIVERS = 4  # for queues that give few messages a request
_IDLE_SECONDS = 0.5
_FEW, _MANY_RECEIVERS = 100, 16
_LONGEST_PAUSE = 60.0
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 600.0
_PATIENCE = 3600.0  # seconds that a message may fail for what may pass, before it is given up
_DEPTH_SECONDS = 30.0
_REMEMBERED = 100_000  # attempts, where a queue does not count them


@dataclass(slots=True)
class _Held:
    """A message in our hands. Times by the monotonic clock."""

    message: Message
    received: float
    until: float
    """When it is not ours any more."""


class Consumer:
    """Threads that work off one queue.

    :param opened: opens the queue, anew after its credentials were refused.
    :param lost: called when something may have come that nobody will tell of.
    :param attempts: deliveries after which a message that fails is given up.
    """

    def __init__(
        self,
        url: str,
        opened: Callable[[], Queue],
        mirror: Mirror,
        metrics: Metrics,
        letters: DeadLetters,
        *,
        in_flight: int = 2000,
        attempts: int = 10,
        poll: float = 10.0,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self._open, self._mirror, self._metrics, self._letters = opened, mirror, metrics, letters
        self._in_flight, self._attempts, self._poll = in_flight, attempts, poll
        self._lost = lost
        self._changed = threading.Condition()
        self._waiting: deque[_Held] = deque()
        self._held: dict[int, _Held] = {}
        self._stopping = threading.Event()
        self._busy = threading.Event()
        self._until, self._pauses = 0.0, 0
        self._tries: Counter[str] = Counter()
        self._queue: Queue | None = None
        self._opening = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._finishers = ThreadPoolExecutor(_RECEIVERS, thread_name_prefix="syncagent-finish")
        self.ready = threading.Event()
        """Set when the queue has answered."""

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. Returns at once.

        :raises ConfigError: the queue's URL is wrong, or nobody knows its events.
        """
        queue = self._opened()
        self._parse = parser(queue.provider)
        receivers = _MANY_RECEIVERS if queue.most == 1 else _RECEIVERS if queue.most < _FEW else 1
        work: list[tuple[str, Callable[[], None]]]
        work = [("receive", partial(self._receive, first=not number)) for number in range(receivers)]
        work += [("settle", self._settle), ("extend", self._extend), ("depth", self._measure)]
        for name, run in work:
            thread = threading.Thread(target=run, name=f"syncagent-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, seconds: float) -> int:
        """Take no more messages, and end what is in hand; returns how many are left for another delivery."""
        until = time.monotonic() + seconds
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held, timeout=max(0.0, seconds))
            left = [one.message for one in self._held.values()]
            self._held.clear()
            self._waiting.clear()
        self._finishers.shutdown(wait=not left, cancel_futures=True)
        if left:
            with contextlib.suppress(SyncAgentError):
                self._opened().release(left)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self._queue is not None:
            self._queue.close()
        return len(left)

    def _opened(self) -> Queue:
        with self._opening:
            if self._queue is None:
                self._queue = self._open()
            return self._queue

    # -- threads ---------------------------------------------------------------------------------

    def _receive(self, *, first: bool) -> None:
        """One thread waits for messages; the others help while there are many. A queue's requests cost money."""
        missed = keeps = True
        while not self._stopping.is_set():
            if self._paused() or (not first and not self._busy.wait(_IDLE_SECONDS)):
                continue
            with self._changed:
                if not self._changed.wait_for(
                    lambda: self._stopping.is_set() or len(self._held) < self._in_flight, timeout=1
                ):
                    continue
                room = self._in_flight - len(self._held)
            if self._stopping.is_set():
                return
            try:
                queue = self._opened()
                keeps = queue.keeps
                # The first answer says that all is well: nobody should wait a whole poll for that.
                wait = self._poll if self.ready.is_set() else min(self._poll, 1.0)
                found = queue.receive(min(room, queue.most), wait)
            except SyncAgentError as reason:
                self._fell(reason, "receive")
                missed = True
                continue
            except Exception as bug:  # a thread that died in silence would be the worst of all
                _log.exception("receiving from %s failed", self.url)
                self._metrics.errors.labels(self.url, type(bug).__name__).inc()
                self._pause()
                missed = True
                continue
            self.ready.set()
            if missed and not found:
                missed = False
                if not keeps:  # it is watched from now on, and nobody tells what happened before
                    self._lost()
            if found:
                self._busy.set()
            elif first:
                self._busy.clear()
            now = time.monotonic()
            if self._stopping.is_set():
                if found:
                    with contextlib.suppress(SyncAgentError):
                        queue.release(found)
                return
            with self._changed:
                for message in found:
                    one = _Held(message, now, now + queue.hold)
                    self._held[id(one)] = one
                    self._waiting.append(one)
                self._changed.notify_all()

    def _settle(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping.is_set(), timeout=1)
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            if batch:
                try:
                    self._work(batch)
                except Exception:  # they come again when their time is over
                    _log.exception("a batch of %s was not ended", self.url)
                    self._let_go(batch)
            elif self._stopping.is_set():
                return

    def _extend(self) -> None:
        """Keep what is in our hands ours, for as long as it takes."""
        while not self._stopping.wait(0.2) or self._held:
            if self._stopping.is_set():
                time.sleep(0.2)
            try:
                queue = self._opened()
                now = time.monotonic()
                with self._changed:
                    due = [one for one in self._held.values() if one.until - now < queue.hold / 2]
                if due:
                    queue.extend([one.message for one in due])
                    for one in due:
                        one.until = now + queue.hold
            except SyncAgentError as reason:
                self._metrics.errors.labels(self.url, type(reason).__name__).inc()
                self._stopping.wait(1)
            except Exception:
                _log.exception("extending messages of %s failed", self.url)
                self._stopping.wait(1)
            self._tell_held()

    def _measure(self) -> None:
        while True:
            try:
                self._metrics.queue_depth(self.url, self._opened().depth())
            except SyncAgentError as reason:
                self._metrics.errors.labels(self.url, type(reason).__name__).inc()
            except Exception:
                _log.exception("the depth of %s is not known", self.url)
            if self._stopping.wait(_DEPTH_SECONDS):
                return

    # -- a batch ---------------------------------------------------------------------------------

    def _work(self, batch: Sequence[_Held]) -> None:
        # A message that came twice is one delivery for each: both have to be deleted.
        deliveries = [
            (str(number), partial(self._parse, one.message.body, one.message.attributes))
            for number, one in enumerate(batch)
        ]
        try:
            taken = take(self._mirror, deliveries)
        except Exception as bug:  # a bug of ours: nothing is lost, and it does not stop the others
            _log.exception("a batch of %s failed", self.url)
            reason = SyncAgentError(f"a bug: {type(bug).__name__}")
            taken = Taken(errors={id: reason for id, _ in deliveries})
        now = time.monotonic()
        done = [one for number, one in enumerate(batch) if str(number) not in taken.errors]
        failed = [
            (one, taken.errors[str(number)], taken.failed.get(str(number), []))
            for number, one in enumerate(batch)
            if str(number) in taken.errors
        ]
        self._metrics.batch(self.url, taken, [now - one.received for one in done])
        _log.log(
            logging.WARNING if failed else logging.INFO,
            "batch",
            extra={"fields": taken.record(queue=self.url, messages=len(batch))},
        )
        self._freed(taken)
        if done:
            self._submit(partial(self._delete, done), done)
        if failed:
            self._submit(partial(self._failed, failed), [one for one, _, _ in failed])
        reasons = [reason for _, reason, _ in failed]
        if reasons:
            self._metrics.queue(self.url, trouble=str(reasons[0]), trouble_at=time.time())
        if not done and reasons and all(one.transient or isinstance(one, AccessDenied) for one in reasons):
            self._fell(reasons[0], "settle")
        elif done:
            self._pauses = 0

    def _submit(self, work: Callable[[], None], held: Sequence[_Held]) -> None:
        try:
            self._finishers.submit(self._guarded, work, held)
        except RuntimeError:  # shut down: what is in hand is released
            return

    def _guarded(self, work: Callable[[], None], held: Sequence[_Held]) -> None:
        try:
            work()
        except Exception as bug:
            _log.exception("ending a batch of %s failed", self.url)
            self._metrics.errors.labels(self.url, type(bug).__name__).inc()
        finally:
            self._let_go(held)  # what was not deleted comes again

    def _delete(self, done: Sequence[_Held]) -> None:
        result = "done"
        try:
            self._opened().delete([one.message for one in done])
        except SyncAgentError as reason:
            # They come again, and settling again changes nothing.
            result = "settled, not deleted"
            self._fell(reason, "delete")
        self._metrics.messages.labels(self.url, result).inc(len(done))
        for one in done:
            self._tries.pop(one.message.id, None)
        self._let_go(done)

    def _failed(self, failed: Sequence[tuple[_Held, SyncAgentError, list[tuple[Dataset, str]]]]) -> None:
        later: dict[float, list[_Held]] = {}
        gone: list[_Held] = []
        for one, reason, places in failed:
            tries = self._tried(one.message)
            if self._hopeless(one.message, reason, tries) and self._give_up(one.message, reason, places):
                gone.append(one)
                continue
            later.setdefault(min(_FIRST_DELAY * 2 ** (tries - 1), _LONGEST_DELAY), []).append(one)
        for delay, some in later.items():
            with contextlib.suppress(SyncAgentError):  # then they come again when their time is over
                self._opened().release([one.message for one in some], delay)
            self._metrics.messages.labels(self.url, "again").inc(len(some))
            self._let_go(some)
        if gone:
            with contextlib.suppress(SyncAgentError):
                self._opened().delete([one.message for one in gone])
            self._metrics.messages.labels(self.url, "dead").inc(len(gone))
            self._metrics.dead.set(self._letters.count())
            self._let_go(gone)

    def _tried(self, message: Message) -> int:
        if len(self._tries) > _REMEMBERED:
            self._tries.clear()
        self._tries[message.id] += 1
        return max(self._tries[message.id], message.attempts)

    def _hopeless(self, message: Message, reason: SyncAgentError, tries: int) -> bool:
        """What may pass by itself gets more time: an outage is no reason to give up."""
        if tries < self._attempts or reason.transient:
            return False
        if isinstance(reason, AccessDenied | NotFound) and message.sent_at is not None:
            return time.time() - message.sent_at > _PATIENCE
        return True

    def _give_up(
        self, message: Message, reason: SyncAgentError, places: Sequence[tuple[Dataset, str]]
    ) -> bool:
        """Keep the message in a file and its keys in the quarantine; False where it could not be kept."""
        queue = self._opened()
        try:
            self._letters.keep(queue.url, queue.provider, message, reason)
        except OSError as error:
            _log.error("message %s of %s cannot be kept: %s", message.id, self.url, error)
            return False
        _log.error(
            "message %s of %s is given up after %d deliveries: %s: %s",
            message.id, self.url, max(message.attempts, self._attempts), type(reason).__name__, without_keys(reason),
        )  # fmt: skip
        for dataset, key in places:
            with contextlib.suppress(SyncAgentError):
                self._mirror.quarantine(dataset, key, reason)
        return True

    def _freed(self, taken: Taken) -> None:
        """A key that is settled now leaves the quarantine."""
        if taken.settled is not None:
            with contextlib.suppress(SyncAgentError):
                self._mirror.release(taken.settled.outcomes)

    # -- trouble ---------------------------------------------------------------------------------

    def _fell(self, reason: SyncAgentError, what: str) -> None:
        self._metrics.errors.labels(self.url, type(reason).__name__).inc()
        pause = self._pause(getattr(reason, "retry_after", None))
        _log.warning(
            "%s: cannot %s for now, next try in %.0f s: %s: %s",
            self.url, what, pause, type(reason).__name__, without_keys(reason),
        )  # fmt: skip
        if what != "settle":
            self._metrics.queue(self.url, trouble=str(reason), trouble_at=time.time())
        if isinstance(reason, AccessDenied):
            # Credentials that were renewed somewhere are read again.
            self._mirror.forget()
            with self._opening:
                old, self._queue = self._queue, None
            if old is not None:
                with contextlib.suppress(SyncAgentError):
                    old.close()

    def _pause(self, at_least: float | None = None) -> float:
        with self._changed:
            now = time.monotonic()
            if now < self._until:  # several threads fell over the same stone
                return self._until - now
            self._pauses += 1
            pause = min(_LONGEST_PAUSE, 2.0 ** (self._pauses - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
            pause = max(pause, at_least or 0.0)
            self._until = now + pause
            return pause

    def _paused(self) -> bool:
        left = self._until - time.monotonic()
        return left > 0 and not self._stopping.wait(min(left, 1.0))

    def _let_go(self, some: Sequence[_Held]) -> None:
        with self._changed:
            for one in some:
                self._held.pop(id(one), None)
            self._changed.notify_all()
        self._tell_held()

    def _tell_held(self) -> None:
        with self._changed:
            held = [one.message.sent_at for one in self._held.values()]
        sent = [at for at in held if at is not None]
        oldest = max(0.0, time.time() - min(sent)) if sent else 0.0
        self._metrics.held.labels(self.url).set(len(held))
        self._metrics.oldest.labels(self.url).set(oldest)
        self._metrics.queue(self.url, held=len(held), oldest_seconds=round(oldest, 1))
