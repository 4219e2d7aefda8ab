"""A queue over something that is none: messages are kept in this process until they are deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from syncagent.drivers.queues import Depth, Message


class Kept:
    """Messages of a source, handed out as a queue does. Used from many threads. See `Queue`."""

    def __init__(self, hold: int) -> None:
        self.hold = hold
        self.lock = threading.Lock()
        self._kept: dict[str, tuple[Message, float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, id: str, body: str, sent_at: float) -> None:
        """Keep one more. An id that is kept already is the same message."""
        with self.lock:
            self._kept.setdefault(id, (Message(id, body, {}, 0, sent_at), 0.0))

    def take(self, most: int) -> list[Message]:
        """Up to `most` of those that nobody has."""
        found: list[Message] = []
        with self.lock:
            now = time.monotonic()
            for one, free in self._kept.values():
                if len(found) >= most:
                    break
                if free <= now:
                    found.append(Message(one.id, one.body, {}, one.attempts + 1, one.sent_at))
            self._kept.update((one.id, (one, now + self.hold)) for one in found)
        return found

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        with self.lock:
            for one in messages:
                self._kept.pop(one.id, None)

    def release(self, messages: Sequence[Message], after: float) -> None:
        """See `Queue.release`."""
        with self.lock:
            for one in messages:
                if one.id in self._kept:
                    self._kept[one.id] = one, time.monotonic() + after

    def depth(self) -> Depth:
        """See `Queue.depth`."""
        with self.lock:
            now = time.monotonic()
            waiting = sum(free <= now for _, free in self._kept.values())
            return Depth(waiting, len(self._kept) - waiting)
