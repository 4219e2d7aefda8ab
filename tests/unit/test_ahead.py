"""Values read in a thread, ahead of whoever takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import pytest

from syncagent.ahead import in_thread
from syncagent.errors import NotFound


def test_values_come_in_their_order_and_end() -> None:
    assert list(in_thread(iter(range(100)), ahead=3, name="test")) == list(range(100))
    assert list(in_thread(iter([]), ahead=3, name="test")) == []
    assert list(in_thread(iter([None, None]), ahead=1, name="test")) == [None, None]


def test_what_is_raised_comes_after_what_was_read() -> None:
    def values() -> Iterator[int]:
        yield from range(5)
        raise NotFound("gone")

    taken = []
    with pytest.raises(NotFound, match="gone"):
        for value in in_thread(values(), ahead=2, name="test"):
            taken.append(value)
    assert taken == list(range(5))


def test_no_more_is_read_than_may_wait() -> None:
    read: list[int] = []

    def values() -> Iterator[int]:
        for n in range(100):
            read.append(n)
            yield n

    found = in_thread(values(), ahead=3, name="test")
    assert next(found) == 0
    deadline = time.monotonic() + 10
    while len(read) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert len(read) == 5, "one taken, three that wait, one that waits for room"
    found.close()


def test_who_wants_no_more_waits_for_nothing() -> None:
    """Whatever the values wait for: they are told, and closed where they are read."""
    go, closed = threading.Event(), []

    def values() -> Generator[int]:
        try:
            yield 1
            assert go.wait(60)
            yield 2
        finally:
            closed.append(threading.current_thread().name)

    found = in_thread(values(), ahead=3, name="test-reader", stop=go.set)
    assert next(found) == 1
    started = time.monotonic()
    found.close()
    assert time.monotonic() - started < 10
    assert closed == ["test-reader"]
