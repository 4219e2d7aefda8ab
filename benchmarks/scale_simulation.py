"""Sweeps of up to a hundred million keys, page by page, by the project's own `Partition`: for benchmarks/scale.py.

Keys are not kept but made when somebody looks, so a page costs a few of them. Around the partition stands a queue of three
stations: the store (every request takes as long), the cores that read pages, and the one thread that compares and writes.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

from syncagent.drivers.partition import Partition, Range

HINT = 2000
"""Keys of the catalog between two points where a known bucket is divided, as a sweep asks for them."""
AHEAD = 2
"""Pages of a lister that may wait for the thread that writes; the lister waits beyond."""
DAYS = 365
TENANTS = 2000


class Keys(Sequence[str]):
    """Ascending keys, the n-th of which `name` makes."""

    def __init__(self, name: Callable[[int], str], numbers: range) -> None:
        self._name, self._numbers = name, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Keys: ...
    def __getitem__(self, at: int | slice) -> str | Keys:
        if isinstance(at, slice):
            return Keys(self._name, self._numbers[at])
        return self._name(self._numbers[at])


def dates(count: int) -> Keys:
    """A folder for each day of a year."""

    def name(number: int) -> str:
        day = number * DAYS // count
        part = number - -(-day * count // DAYS)
        return f"raw/year=2025/month={day // 31 + 1:02}/day={day % 31 + 1:02}/part-{part:08}-{number * 2654435761 % 2**32:08x}.parquet"

    return Keys(name, range(count))


def uuids(count: int) -> Keys:
    """Names of 32 random digits."""

    def name(number: int) -> str:
        return f"{(number * 2**32 + number * 2654435761 % 2**32) * 2**96 // count:032x}"

    return Keys(name, range(count))


def tenants(count: int) -> Keys:
    """Tenants, of which the first has 40 %, and of whom each has less than the one before."""
    shares = [1 / (n + 1) ** 1.5 for n in range(TENANTS)]
    shares[0] = sum(shares[1:]) * 2 / 3
    ends = [round(count * share / sum(shares)) for share in accumulate(shares)]

    def name(number: int) -> str:
        tenant = bisect_right(ends, number)
        return f"tenant-{tenant:04}/f{number - (ends[tenant - 1] if tenant else 0):010}.json"

    return Keys(name, range(count))


SHAPES: dict[str, Callable[[int], Keys]] = {"dates": dates, "uuids": uuids, "tenants": tenants}


@dataclass(frozen=True, slots=True)
class Rates:
    """What one page costs, in seconds."""

    latency: float
    """From a request to its answer."""
    reading: float
    """Of a core, in a process that lists."""
    writing: float
    """Of a core, in the one thread that compares and writes."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a simulated sweep took."""

    requests: int
    seconds: float
    writing: float
    """The share of the time in which the thread that writes was at work."""


class Sweep:
    """One sweep, in simulated time.

    :param cores: of the machine; readers and the writer share them, first come, first served.
    :param known: whether a catalog knows all keys.
    """

    def __init__(
        self, keys: Keys, rates: Rates, *, listers: int, cores: int, processes: int, known: bool, page: int = 1000
    ) -> None:  # fmt: skip
        self._keys, self._rates, self._listers, self._page = keys, rates, listers, page
        self._partition = Partition(listers, keys[HINT - 1 :: HINT] if known else [])
        self._cores, self._readers = [0.0] * cores, [0.0] * max(1, processes)
        self._writer = self._wrote = 0.0
        self._written: dict[Range, list[float]] = {}
        self._events: list[tuple[float, int, Range, int]] = []
        self._number = self._busy = self._requests = 0

    def run(self) -> Told:
        """List everything."""
        found, now = 0, 0.0
        self._start(now)
        while self._events:
            now, _, taken, start = heapq.heappop(self._events)
            if start < 0:  # an answer came: somebody reads it
                ready = self._on_core(now, self._readers, self._rates.reading)
                self._at(ready, taken, -start - 1)
                continue
            if start == len(self._keys):
                self._partition.ended(taken)
                count, ended = 0, True
            else:
                page = self._keys[start : start + self._page]
                count, ended = self._partition.answered(taken, page, start + self._page < len(self._keys))
            found += count
            waits = self._write(now, taken)
            if ended:
                self._busy -= 1
                self._written.pop(taken)
            else:
                self._ask(max(now, waits), taken, start + count)
            self._start(now)
        if found != len(self._keys):
            raise AssertionError(f"{found} of {len(self._keys)} keys were listed")
        end = max(now, self._writer)
        return Told(self._requests, end, self._wrote / end)

    @property
    def learned(self) -> int:
        """Beginnings of keys that the partition remembers."""
        return len(self._partition._next)

    def _start(self, now: float) -> None:
        """Give every free lister a range, if there is one."""
        while self._busy < self._listers and (taken := self._partition.take()) is not None:
            self._busy += 1
            self._ask(now, taken, 0 if taken.cursor is None else bisect_right(self._keys, taken.cursor))

    def _ask(self, now: float, taken: Range, start: int) -> None:
        self._requests += 1
        self._at(now + self._rates.latency, taken, -start - 1)

    def _at(self, when: float, taken: Range, start: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, taken, start))

    def _on_core(self, now: float, servers: list[float], seconds: float) -> float:
        """Have one of the servers work on a core; returns when it is done."""
        done = max(now, heapq.heappop(servers), heapq.heappop(self._cores)) + seconds
        heapq.heappush(servers, done)
        heapq.heappush(self._cores, done)
        return done

    def _write(self, now: float, taken: Range) -> float:
        """Compare and write a page; returns when its lister may go on."""
        writer = [self._writer]
        self._writer = self._on_core(now, writer, self._rates.writing)
        self._wrote += self._rates.writing
        waiting = self._written.setdefault(taken, [])
        waiting.append(self._writer)
        return waiting.pop(0) if len(waiting) > AHEAD else 0.0
