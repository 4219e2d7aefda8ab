"""A queue in this process's memory, for tests and examples: ``memory://name``. It hands out as SQS does."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence

from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.model import Integration

OPTIONS = {
    "provider": "whose events are in it; default memory",
}
_STORES: dict[str, _Store] = {}


class _Store:
    """Messages by id: the message as sent, and when it may be handed out."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.messages: dict[str, tuple[Message, float]] = {}


class MemoryQueue:
    """See `Queue`."""

    most = 1000
    keeps = True

    def __init__(self, spec: QueueSpec) -> None:
        self.url, self.provider = spec.url, spec.options.get("provider", "memory")
        self.hold = spec.hold
        self._store = _STORES.setdefault(spec.name, _Store())

    def send(self, body: str, attributes: Mapping[str, str] | None = None) -> None:
        """Put a message in."""
        with self._store.changed:
            name = uuid.uuid4().hex
            sent = Message(name, body, dict(attributes or {}), 0, time.time())
            self._store.messages[name] = sent, 0.0
            self._store.changed.notify()

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        until = time.monotonic() + wait
        with self._store.changed:
            while not (found := self._take(most)) and (left := until - time.monotonic()) > 0:
                self._store.changed.wait(min(left, 0.05))
            return found

    def _take(self, most: int) -> list[Message]:
        found: list[Message] = []
        now = time.monotonic()
        for name, (one, free) in self._store.messages.items():
            if free <= now and len(found) < most:
                taken = Message(
                    name, one.body, one.attributes, one.attempts + 1, one.sent_at, uuid.uuid4().hex
                )
                found.append(taken)
        self._store.messages.update((one.id, (one, now + self.hold)) for one in found)
        return found

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        with self._store.changed:
            for one in messages:
                if self._ours(one):
                    del self._store.messages[one.id]

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`."""
        self.release(messages, self.hold)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`."""
        with self._store.changed:
            for one in messages:
                if self._ours(one):
                    self._store.messages[one.id] = one, time.monotonic() + after
            self._store.changed.notify_all()

    def _ours(self, one: Message) -> bool:
        known = self._store.messages.get(one.id)
        return known is not None and known[0].handle == one.handle

    def depth(self) -> Depth:
        """See `Queue.depth`."""
        with self._store.changed:
            now = time.monotonic()
            waiting = sum(free <= now for _, free in self._store.messages.values())
            return Depth(waiting, len(self._store.messages) - waiting)

    def close(self) -> None:
        """Nothing to release; the messages stay."""


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> MemoryQueue:
    """Open the queue of this name, making it on first use."""
    return MemoryQueue(spec)
