"""Reads an iterator in a thread, some values ahead of whoever takes them: `in_thread`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

_GOODBYE = 60.0  # seconds for what is under way when nobody wants more
_LOOK = 1.0  # seconds of one wait: a signal that comes just before it begins is handled when it ends
_Value = TypeVar("_Value")


def in_thread(
    values: Iterator[_Value], *, ahead: int, name: str, stop: Callable[[], None] = lambda: None
) -> Generator[_Value]:
    """The same values in the same order, and what `values` raises after them.

    :param values: read, and closed if it is a generator, in a thread of its own.
    :param ahead: how many may wait to be taken. :param stop: called when nobody wants more, so that `values` waits for nothing long.
    """
    # Queues of the interpreter alone: see `workers`.
    handed: SimpleQueue[tuple[_Value] | BaseException | None] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    stopped = threading.Event()
    for _ in range(ahead):
        room.put(None)

    def offer(what: tuple[_Value] | BaseException | None) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(Empty):
                room.get(timeout=0.1)
                handed.put(what)
                return True
        return False

    def read() -> None:
        try:
            try:
                for value in values:
                    if not offer((value,)):
                        break
            finally:
                if isinstance(values, Generator):
                    values.close()
            offer(None)
        except BaseException as error:  # handed over: raised where the values are taken
            offer(error)

    thread = threading.Thread(target=read, name=name, daemon=True)
    thread.start()
    try:
        while True:
            try:
                got = handed.get(timeout=_LOOK)
            except Empty:
                continue
            if got is None:
                return
            if isinstance(got, BaseException):
                raise got
            room.put(None)
            yield got[0]
    finally:
        stopped.set()
        stop()
        thread.join(timeout=_GOODBYE)
