"""A partition lists every key exactly once, whatever the keys, the answers' order and the hints; and few requests are wasted."""

from __future__ import annotations

import itertools
import math
import random
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncagent.drivers.partition import Partition, Range
from tests.keys import NASTY

Bounds = list[tuple[str | None, str | None]]


def flat(count: int, _: random.Random) -> list[str]:
    return [f"{n:08}.bin" for n in range(count)]


def uuids(count: int, rng: random.Random) -> list[str]:
    def one() -> str:
        digits = f"{rng.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    return sorted({one() for _ in range(count)})


def dates(count: int, rng: random.Random) -> list[str]:
    days = [f"raw/year=2025/month={n // 31 + 1:02}/day={n % 31 + 1:02}" for n in range(365)]
    return sorted(f"{days[n * 365 // count]}/part-{n:06}-{rng.getrandbits(32):08x}" for n in range(count))


def skewed(count: int, rng: random.Random) -> list[str]:
    """Tenants of which one has 40 %."""
    return sorted(
        f"tenant-{min(int(rng.paretovariate(0.7)) - 1, 9999):04}/f{n:09}.json" for n in range(count)
    )


def scripts(count: int, rng: random.Random) -> list[str]:
    pools = ["/abcdefghij", "àéîõü", "日本語中文字", "😀😁🚀", "אבגד", "\uff41\uff42", "\ue000\uf8ff"]
    found: set[str] = set()
    while len(found) < count:
        pool = rng.choice(pools)
        found.add("".join(rng.choice(pool) for _ in range(4)) + f"/{rng.getrandbits(24):06x}")
    return sorted(found)


def giant(count: int, _: random.Random) -> list[str]:
    """One folder with nearly everything, deep below one long prefix, and a few neighbours."""
    deep = "a/very/long/prefix/that/all/keys/share/" * 4
    return sorted([*(f"{deep}{n:09}" for n in range(count - 2)), "a", "z"])


def counters(count: int, _: random.Random) -> list[str]:
    """Tenants that number their files, of which the first has 40 %: nothing like its last digits is seen before."""
    keys: list[str] = []
    share, tenant = count * 2 // 5, 0
    while len(keys) < count:
        share = max(1, min(share, count - len(keys)))
        keys += [f"tenant-{tenant:04}/f{number:010}.json" for number in range(share)]
        share, tenant = share * 2 // 3, tenant + 1
    return keys


def stairs(count: int, _: random.Random) -> list[str]:
    """Keys that are prefixes of each other."""
    return sorted(
        {"ab" * n for n in range(1, 200)} | {f"{'x' * (n % 150)}{n:05}" for n in range(count - 199)}
    )


SHAPES: dict[str, Callable[[int, random.Random], list[str]]] = {
    "flat": flat, "uuid": uuids, "date": dates, "skew": skewed, "unicode": scripts, "giant": giant, "stairs": stairs,
    "counters": counters,
}  # fmt: skip


@dataclass
class Simulation:
    """Workers over a partition, whose answers come in any order: `choose` says whose is next."""

    keys: Sequence[str]
    partition: Partition
    workers: int
    page: int
    choose: Callable[[int], int]
    asked: list[tuple[Range, str | None]] = field(default_factory=list)
    seen: list[Range] = field(default_factory=list)
    """Every range that was ever taken."""
    found: list[str] = field(default_factory=list)
    requests: int = 0
    fruitless: int = 0
    """Ranges in which nothing was found."""

    def __post_init__(self) -> None:
        self.space = joined(bounds(self.partition.waiting))

    def fill(self) -> bool:
        """Give every worker a request; whether any is under way."""
        while len(self.asked) < self.workers and (taken := self.partition.take()) is not None:
            self.asked.append((taken, taken.hi))
            if taken not in self.seen:
                self.seen.append(taken)
        return bool(self.asked)

    def step(self, *, fail: bool = False) -> None:
        """One answer, to a request that knew the bound of its time; or none."""
        taken, hi = self.asked.pop(self.choose(len(self.asked)))
        if fail:
            self.partition.give_back(taken)
            return
        self.requests += 1
        start = 0 if taken.cursor is None else bisect_right(self.keys, taken.cursor)
        page = self.keys[start : start + self.page]
        if hi is not None:  # a bound is cut when the request is made, and again by what it is by now
            page = page[: bisect_right(page, hi) + 1]
        first = not taken.pages
        if page:
            count, ended = self.partition.answered(taken, page, start + self.page < len(self.keys))
            self.found += page[:count]
        else:
            count, ended = 0, True
            self.partition.ended(taken)
        self.fruitless += first and not count
        if not ended:
            self.asked.append((taken, taken.hi))

    def restart(self, partition: Partition) -> None:
        """The process dies, and another goes on with what is left."""
        self.partition, self.asked, self.seen = partition, [], []
        self.__post_init__()

    def left(self) -> Bounds:
        return bounds([*self.partition.live, *self.partition.waiting])

    def covers(self) -> None:
        """P1: what is found and what is left are disjoint, and together everything."""
        known = [*self.seen, *(one for one in self.partition.waiting if one not in self.seen)]
        assert joined([(one.lo, one.hi) for one in known]) == self.space
        left = self.left()
        for (_, hi), (lo, _) in itertools.pairwise(left):
            assert hi is not None and lo is not None and hi <= lo
        assert all(lo is None or hi is None or lo < hi for lo, hi in left)
        inside = [key for key in self.keys if any(within(key, one) for one in left)]
        assert sorted(self.found + inside) == list(self.keys)
        assert len(self.partition.live) == len(self.asked) <= self.workers

    def run(self, *, steps: int | None = None) -> None:
        while True:
            if not self.fill() or steps == 0:
                return
            self.step()
            steps = None if steps is None else steps - 1


def bounds(ranges: Sequence[Range]) -> Bounds:
    return sorted(((one.cursor, one.hi) for one in ranges), key=lambda pair: pair[0] or "")


def joined(ranges: Bounds) -> Bounds:
    """The same space in as few ranges as possible; they may not overlap."""
    found: Bounds = []
    for lo, hi in sorted(ranges, key=lambda pair: pair[0] or ""):
        if found and found[-1][1] == lo and lo is not None:
            found[-1] = found[-1][0], hi
        else:
            assert not found or (lo is not None and found[-1][1] is not None and found[-1][1] < lo)
            found.append((lo, hi))
    return found


def within(key: str, pair: tuple[str | None, str | None]) -> bool:
    lo, hi = pair
    return (lo is None or key > lo) and (hi is None or key <= hi)


SYMBOLS = st.one_of(
    st.sampled_from("ab01/ -_.~%+"),
    st.sampled_from(
        ["\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "é", "e", "\u0301", "日", "😀", "\t"]
    ),
    st.characters(codec="utf-8", exclude_characters="\0"),
)
ANY_KEYS = st.one_of(
    st.sets(st.text(SYMBOLS, min_size=1, max_size=8), max_size=120).map(sorted),
    st.builds(
        lambda prefix, tails: sorted({prefix + tail for tail in tails}),
        st.text(SYMBOLS, max_size=20),
        st.sets(st.text(st.sampled_from("\U0010ffff\U0010fffea"), min_size=1, max_size=7), max_size=120),
    ),
    st.builds(
        lambda shape, count, seed: SHAPES[shape](max(count, 200), random.Random(seed)),
        st.sampled_from(sorted(SHAPES)),
        st.integers(200, 400),
        st.integers(0, 5),
    ),
    st.just(sorted({*NASTY, *(unicodedata.normalize("NFD", key) for key in NASTY)})),
)


@st.composite
def hinted(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Keys, and hints that are right, stale, or anything."""
    keys = draw(ANY_KEYS)
    kind = draw(st.sampled_from(["none", "right", "stale", "wrong", "between"]))
    every = draw(st.integers(1, 20))
    if kind == "none" or not keys:
        return keys, []
    if kind == "right":
        return keys, keys[every::every]
    if kind == "stale":
        cut = draw(st.integers(0, len(keys)))
        return keys, (keys[:cut] + keys[cut + len(keys) // 3 :])[every::every]
    if kind == "between":
        return keys, [key + "\x01" for key in keys[::every]]
    return keys, draw(st.lists(st.text(SYMBOLS, min_size=1, max_size=6), max_size=20))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(hinted(), st.integers(1, 9), st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_key_exactly_once(
    given: tuple[list[str], list[str]], workers: int, page: int, rng: random.Random
) -> None:
    keys, hints = given
    one = Simulation(keys, Partition(workers, hints), workers, page, rng.randrange)
    fails = resumes = 0
    bound = 20 * len(keys) + 200
    while one.fill():
        for taken, _ in one.asked:
            for edge in (taken.lo, taken.hi):
                assert edge is None or edge.encode(), "valid UTF-8"
        one.covers()
        fail = fails < 20 and rng.random() < 0.05
        fails += fail
        one.step(fail=fail)
        if resumes < 3 and rng.random() < 0.02:
            resumes += 1
            one.restart(Partition(workers, ranges=one.left()))
        bound -= 1
        assert bound > 0, "it never ends"
    assert not one.partition.live and not one.partition.waiting
    assert sorted(one.found) == keys


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_KEYS, st.integers(1, 9), st.integers(1, 12), st.randoms(use_true_random=False))
def test_guesses_are_bounded(keys: list[str], workers: int, page: int, rng: random.Random) -> None:
    """Ranges that nothing was found in: four for each worker, 6 % of the pages, and those under way when that was reached."""
    one = Simulation(keys, Partition(workers), workers, page, rng.randrange)
    one.run()
    assert one.fruitless <= 4 * workers + 0.06 * one.partition.pages + workers


@pytest.mark.parametrize("shape", SHAPES)
def test_resumed_from_any_step(shape: str) -> None:
    keys = SHAPES[shape](1000, random.Random(1))
    for steps in range(0, 60, 7):
        rng = random.Random(steps)
        one = Simulation(keys, Partition(5), 5, 20, rng.randrange)
        one.run(steps=steps)
        one.covers()
        rest = Simulation(keys, Partition(3, ranges=one.left()), 3, 20, rng.randrange)
        rest.run()
        assert sorted(one.found + rest.found) == keys


def test_one_worker_is_a_sequential_listing() -> None:
    keys = flat(1000, random.Random())
    one = Simulation(keys, Partition(1), 1, 100, lambda _: 0)
    one.run()
    assert (one.requests, one.found) == (10, keys)


def test_nothing_left_is_nothing_to_do() -> None:
    assert Partition(4, ranges=[]).take() is None


def test_hints_divide_evenly_from_the_start() -> None:
    partition = Partition(4, ["b", "d", "c", "a", "b"])
    taken = [partition.take() for _ in range(4)]
    assert [(one.lo, one.hi) for one in taken if one] == [(None, "b"), ("b", "c"), ("c", "d"), ("d", None)]


def test_a_lowered_bound_cuts_what_was_under_way() -> None:
    """P4: the answer belongs to the range as it is when it comes, not as it was asked."""
    keys = flat(100, random.Random())
    partition = Partition(2, [keys[50], keys[60]])
    near = partition.take()
    assert near is not None
    partition.answered(near, keys[:10], more=True)
    partition.waiting.clear()
    near.hi = keys[14]
    assert partition.answered(near, keys[10:20], more=True) == (5, True)


def test_a_range_ends_only_where_it_is_known_to() -> None:
    """P5: neither a short page nor an empty one is an end; a key at the bound, or beyond it, is."""
    partition = Partition(1, ranges=[("b", "f")])
    one = partition.take()
    assert one is not None
    assert partition.answered(one, ["c"], more=True) == (1, False)
    assert partition.answered(one, ["d", "f"], more=True) == (2, True)
    partition = Partition(1, ranges=[("b", "f")])
    one = partition.take()
    assert one is not None
    assert partition.answered(one, ["g"], more=True) == (0, True)


# -- what it costs -------------------------------------------------------------------------------

COUNT, PAGE, WORKERS = 60_000, 100, 16
FIRST, KNOWN, SLICE = "first", "known", "slice"
COSTS = {
    # requests a page, at most, and speed-up, at least
    ("flat", FIRST): (1.16, 12.4), ("flat", KNOWN): (1.02, 15.3), ("flat", SLICE): (1.04, 13.5),
    ("uuid", FIRST): (1.07, 13.2), ("uuid", KNOWN): (1.01, 15.7), ("uuid", SLICE): (1.03, 12.4),
    ("date", FIRST): (1.16, 8.2), ("date", KNOWN): (1.02, 15.3), ("date", SLICE): (1.02, 8.9),
    ("skew", FIRST): (1.11, 10.2), ("skew", KNOWN): (1.02, 15.3), ("skew", SLICE): (1.03, 13.2),
    ("unicode", FIRST): (1.12, 10.1), ("unicode", KNOWN): (1.02, 15.3), ("unicode", SLICE): (1.04, 11.7),
    ("counters", FIRST): (1.19, 9.6), ("counters", KNOWN): (1.01, 15.7), ("counters", SLICE): (1.05, 14.2),
    ("giant", FIRST): (1.15, 5.7), ("giant", KNOWN): (1.01, 15.7), ("giant", SLICE): (1.04, 12.7),
}  # fmt: skip


def costs(keys: list[str], hints: Sequence[str] = ()) -> tuple[float, float]:
    """Requests for each page, and how much faster than one worker, if every request takes as long."""
    one = Simulation(keys, Partition(WORKERS, hints), WORKERS, PAGE, lambda _: 0)
    rounds = 0
    while one.fill():
        rounds += 1
        for _ in range(len(one.asked)):
            one.step()
    assert len(one.found) == len(keys)
    pages = math.ceil(len(keys) / PAGE)
    return one.requests / pages, pages / rounds


@pytest.mark.parametrize("shape", sorted({shape for shape, _ in COSTS}))
def test_what_it_costs(shape: str) -> None:
    """600 pages, 16 workers: at a first listing; by a catalog that knows the bucket; and by one that lacks a tenth in one place."""
    keys = SHAPES[shape](COUNT, random.Random(7))
    cut = COUNT * 6 // 10
    old = keys[:cut] + keys[cut + COUNT // 10 :]
    every = 2 * PAGE
    for state, hints in ((FIRST, []), (KNOWN, keys[every::every]), (SLICE, old[every::every])):
        requests, speed = costs(keys, hints)
        most, least = COSTS[shape, state]
        assert requests <= most, state
        assert speed >= least, state
