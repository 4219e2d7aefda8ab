"""A folder that is watched: ``watch:///folder``. What was missed while nobody watched, a sweep finds."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.drivers.source_queue import Kept
from syncagent.errors import NotFound, Transient
from syncagent.model import Integration

OPTIONS: dict[str, str] = {}
_STEP = 50  # milliseconds within which changes come together


class WatchQueue:
    """`Queue` over watchfiles: the operating system's own notices. A message is kept here until it is deleted."""

    provider = "file"
    most = 1000
    keeps = False

    def __init__(self, spec: QueueSpec) -> None:
        self.url, self.hold = spec.url, spec.hold
        self._folder = "/" + spec.name
        self._watching = threading.Lock()
        self._changes: Iterator[set[tuple[Any, str]]] | None = None
        self._stop = threading.Event()
        self._kept = Kept(spec.hold)

    def __repr__(self) -> str:
        return f"<WatchQueue {self._folder}>"

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        until = time.monotonic() + wait
        while True:
            found = self._kept.take(most)
            left = until - time.monotonic()
            if found or left <= 0 or self._stop.is_set():
                return found
            with self._watching:
                self._watch()

    def _watch(self) -> None:
        from watchfiles import watch

        if self._changes is None:
            if not Path(self._folder).is_dir():
                raise NotFound(f"no such folder: {self._folder}", resource=self._folder)
            self._changes = watch(
                self._folder, watch_filter=None, step=_STEP, debounce=400, rust_timeout=500,
                yield_on_timeout=True, stop_event=self._stop, raise_interrupt=False,
                ignore_permission_denied=True,
            )  # fmt: skip
        try:
            changes = next(self._changes, set())
        except Exception as error:  # a name that is no text, a limit of the system
            self._changes = None
            raise Transient(
                f"watching {self._folder} broke off: {type(error).__name__}", resource=self._folder,
                hint="it is watched anew, and a sweep finds what was missed",
            ) from error  # fmt: skip
        for change, path in sorted(changes, key=lambda one: one[1]):
            body = json.dumps({"folder": self._folder, "path": path, "change": change.name})
            self._kept.add(uuid.uuid4().hex, body, time.time())

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        self._kept.delete(messages)

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`."""
        self.release(messages, self.hold)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`."""
        self._kept.release(messages, after)

    def depth(self) -> Depth:
        """See `Queue.depth`."""
        return self._kept.depth()

    def close(self) -> None:
        """See `Queue.close`."""
        self._stop.set()
        with self._watching:
            if self._changes is not None:
                for _ in self._changes:  # ends by the event, and lets go of the folder
                    pass
                self._changes = None


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> WatchQueue:
    """Watch a folder, from the first `receive` on."""
    import watchfiles  # noqa: F401  # missing: said at once, with the extra to install

    return WatchQueue(spec)
