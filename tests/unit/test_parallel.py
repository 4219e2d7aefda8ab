"""Many workers, one listing: what they hand on, how they fail and recover, and what is left at every moment."""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from syncagent.drivers import parallel
from syncagent.drivers.memory import MemoryDriver
from syncagent.drivers.parallel import Crew, Piece
from syncagent.drivers.partition import Partition
from syncagent.errors import AccessDenied, SyncAgentError, Transient
from syncagent.model import ObjectInfo
from tests.engine import info, memory_bucket

KEYS = [f"{n:05}" for n in range(2000)]
OBJECTS = {key: info(key) for key in KEYS}
PAGE = 20
Bound = str | None
Pages = Callable[[Bound, Bound], Iterator[list[ObjectInfo]]]


class Store:
    """Lists `KEYS` in pages. `before` is called before each answer, and may raise or wait."""

    def __init__(self, before: Callable[[Bound, int], object] = lambda after, number: None) -> None:
        self.before = before
        self.lock = threading.Lock()
        self.requests = self.now = self.most = 0

    def __call__(self, after: Bound, until: Bound) -> Iterator[list[ObjectInfo]]:
        cursor = after
        while True:
            with self.lock:
                self.requests += 1
                number = self.requests
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                self.before(cursor, number)
            finally:
                with self.lock:
                    self.now -= 1
            start = bisect_right(KEYS, cursor) if cursor is not None else 0
            page = [OBJECTS[key] for key in KEYS[start : start + PAGE] if until is None or key <= until]
            if page:
                yield page
                cursor = page[-1].key
            if len(page) < PAGE:
                return


def crew(
    pages: Pages,
    workers: int = 4,
    ranges: list[tuple[Bound, Bound]] | None = None,
    hints: list[str] | None = None,
) -> Crew:
    """Pauses are no longer than it takes to be woken."""
    return Crew(
        left(pages),
        Partition(workers, hints or [], ranges),
        workers,
        sleep=lambda stopped, _: stopped.wait(0.001),
    )


def left(pages: Pages) -> parallel.Pages:
    """What a range has left, of a listing by bounds."""
    return lambda one: pages(one.cursor, one.hi)


def slowly(_: Bound, __: int) -> None:
    time.sleep(0.001)


def keys_of(pieces: Iterator[Piece]) -> list[str]:
    return [found.key for piece in pieces for found in piece.objects]


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    """Whatever happens to a listing, no thread of it stays."""
    yield
    assert not [one for one in threading.enumerate() if one.name.startswith("syncagent-list")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more worker each hundredth of a second of success."""
    monkeypatch.setattr(parallel, "_RECOVER", 0.01)


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_everything_once_and_each_range_in_order(workers: int) -> None:
    store = Store(slowly)
    found, last, ended = [], defaultdict(str), set()
    for piece in crew(store, workers).pieces():
        assert piece.range not in ended
        for one in piece.objects:
            assert one.key > last[id(piece.range)]
            last[id(piece.range)] = one.key
        found += [one.key for one in piece.objects]
        if piece.ended:
            ended.add(piece.range)
    assert sorted(found) == KEYS
    assert store.most <= workers
    # What ended is the whole space, each part up to where the next begins.
    parts = sorted(ended, key=lambda one: one.lo or "")
    assert parts[0].lo is None and parts[-1].hi is None
    assert all(one.hi == other.lo for one, other in itertools.pairwise(parts))
    assert (len(parts) > 1) is (workers > 1)


def test_an_empty_store_is_one_range_that_ends() -> None:
    (piece,) = crew(lambda after, until: iter(()), 3).pieces()
    assert (piece.objects, piece.ended, piece.until) == ([], True, None)


def test_nothing_left_is_nothing_to_do() -> None:
    assert list(crew(Store(), ranges=[]).pieces()) == []


def test_only_what_is_left_is_listed() -> None:
    ranges = [("00100", "00200"), ("01500", None)]
    assert sorted(keys_of(crew(Store(), ranges=ranges).pieces())) == KEYS[101:201] + KEYS[1501:]


# -- what is left --------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", range(0, 130, 9))
def test_killed_anywhere_the_rest_is_exactly_what_is_left(stop_at: int) -> None:
    one = crew(Store(slowly), hints=KEYS[500:700:50])
    worked_off: list[str] = []
    with closing(one.pieces()) as pieces:
        for number, piece in enumerate(pieces):
            if number == stop_at:
                break  # this piece is handed on, and not worked off
            worked_off += [found.key for found in piece.objects]
            if piece.objects or piece.ended:
                cursor = piece.objects[-1].key if piece.objects else None
                one.done_until(piece.range, cursor, ended=piece.ended)
            left = one.left()
            for (_, hi), (lo, _) in itertools.pairwise(left):
                assert hi is not None and lo is not None and hi <= lo, "disjoint"
            inside = [k for k in KEYS if any((lo or "") < k and (hi is None or k <= hi) for lo, hi in left)]
            assert sorted(worked_off + inside) == KEYS
    rest = keys_of(crew(Store(), ranges=one.left()).pieces())
    assert sorted(worked_off + rest) == KEYS


# -- errors --------------------------------------------------------------------------------------


def test_a_failure_costs_workers_and_time_brings_them_back(quick: None) -> None:
    one: list[Crew] = []
    allowed: list[int] = []

    def before(_: Bound, number: int) -> None:
        time.sleep(0.002)
        if number == 10:
            raise Transient("SlowDown")
        if one:
            allowed.append(one[0]._allowed)

    one.append(crew(Store(before), 8))
    assert sorted(keys_of(one[0].pieces())) == KEYS
    assert min(allowed) == 4, "halved, once"
    assert allowed[-1] > 4, "and recovered"


def test_workers_beyond_what_is_allowed_stop_after_their_page() -> None:
    """Fewer requests are under way at once, also when every worker has a long range."""
    refuse = threading.Event()
    refused: list[int] = []

    def before(_: Bound, number: int) -> None:
        time.sleep(0.002)
        if number == 40:
            refused.append(store.requests)
            store.most = 0
            raise Transient("SlowDown")
        if number == 60:
            store.most = 0  # those under way at the time of the failure have come back
        if number > 60:
            refuse.set()

    store = Store(before)
    assert sorted(keys_of(crew(store, 8).pieces())) == KEYS
    assert refused and refuse.is_set()
    assert store.most <= 4


def test_requests_that_fail_together_are_one_failure() -> None:
    """Sixteen under way when the store says SlowDown: that is no reason to give up."""
    together = threading.Barrier(16)

    def before(_: Bound, number: int) -> None:
        if number <= 16:
            together.wait(10)
            raise Transient("SlowDown")

    ranges = list(itertools.pairwise([None, *KEYS[100:1600:100], None]))
    one = crew(Store(before), 16, ranges=ranges)
    assert sorted(keys_of(one.pieces())) == KEYS
    assert one._allowed >= 8


def test_a_store_that_stays_away_is_given_up() -> None:
    def before(_: Bound, number: int) -> None:
        if number > 20:
            raise Transient("503", resource="box")

    store = Store(before)
    one = crew(store)
    with pytest.raises(Transient, match="503"):
        list(one.pieces())
    assert one._allowed == 1
    assert store.requests <= 20 + 4 + parallel._PATIENCE + 1


def test_pauses_double_and_heed_what_the_store_asks_for() -> None:
    waited: list[float] = []

    def before(_: Bound, number: int) -> None:
        if number <= 4:
            raise Transient("429", retry_after=7.0 if number == 3 else None)

    one = Crew(left(Store(before)), Partition(1), 1, sleep=lambda stopped, seconds: waited.append(seconds))
    assert keys_of(one.pieces()) == KEYS
    assert waited == [0.5, 1.0, 7.0, 4.0]


def test_where_a_page_failed_it_is_asked_for_again_from_the_last_key() -> None:
    asked: list[Bound] = []

    def before(after: Bound, number: int) -> None:
        asked.append(after)
        if number == 3:
            raise Transient("reset")

    assert keys_of(crew(Store(before), 1).pieces()) == KEYS
    assert asked[:4] == [None, "00019", "00039", "00039"]


@pytest.mark.parametrize(
    "error", [AccessDenied("no s3:ListBucket"), ZeroDivisionError(), KeyboardInterrupt()]
)
@pytest.mark.parametrize("at", [1, 30])
def test_anything_else_is_raised_where_the_listing_is_read(error: BaseException, at: int) -> None:
    def before(_: Bound, number: int) -> None:
        time.sleep(0.0005)
        if number == at:
            raise error

    with pytest.raises(type(error)):
        list(crew(Store(before)).pieces())


def test_closing_early_ends_a_pause() -> None:
    def before(_: Bound, number: int) -> None:
        if number > 4:
            raise Transient("503", retry_after=3600)

    one = Crew(left(Store(before)), Partition(4), 4)
    started = time.monotonic()
    with closing(one.pieces()) as pieces:
        next(pieces)
    assert time.monotonic() - started < 5


# -- memory, and answers that are odd ------------------------------------------------------------


def test_who_reads_slowly_is_waited_for() -> None:
    store = Store()
    with closing(crew(store, 4).pieces()) as pieces:
        next(pieces)
        time.sleep(0.1)
        assert store.requests <= 4 * parallel._AHEAD + 4 + 1 + 4


def test_a_bound_that_is_lowered_while_a_page_is_under_way() -> None:
    """P4: a page that was asked for before another worker took its far part."""
    split, first = threading.Event(), threading.Event()

    def before(after: Bound, _: int) -> None:
        if after == "00019":  # the near part's second page comes after the far part's first
            first.set()
            assert split.wait(10)
        elif after is not None and first.is_set():
            split.set()

    found = keys_of(crew(Store(before), 2).pieces())
    assert sorted(found) == KEYS


def test_a_store_that_ignores_the_upper_bound() -> None:
    """P7: it is cut here."""
    store = Store(slowly)
    found = keys_of(crew(lambda after, until: store(after, None)).pieces())
    assert sorted(found) == KEYS


def test_short_pages_are_no_end() -> None:
    """P5: pages of one, two and three objects."""

    def pages(after: Bound, until: Bound) -> Iterator[list[ObjectInfo]]:
        start = bisect_right(KEYS, after) if after is not None else 0
        for size in itertools.cycle([1, 3, 2]):
            page = [OBJECTS[key] for key in KEYS[start : start + size] if until is None or key <= until]
            if not page:
                return
            yield page
            start += size

    assert sorted(keys_of(crew(pages, 3).pieces())) == KEYS


class Odd(MemoryDriver):
    """Ignores bounds, or lists in the order of UTF-16, as JavaScript does."""

    def __init__(self, *, bounds: bool = True, utf16: bool = False) -> None:
        super().__init__()
        self.bounds, self.utf16 = bounds, utf16

    def list(
        self, prefix: str = "", *, after: Bound = None, until: Bound = None
    ) -> Iterator[list[ObjectInfo]]:
        def order(key: str) -> bytes:
            return key.encode("utf-16-be") if self.utf16 else key.encode()

        keys = sorted(self._store.objects, key=order)
        if self.bounds and after is not None:
            keys = [key for key in keys if order(key) > order(after)]
        for start in range(0, len(keys), PAGE):
            time.sleep(0.001)
            page = keys[start : start + PAGE]
            yield [self._store.objects[key].info for key in page]
            if self.bounds and until is not None and order(page[-1]) >= order(until):
                return


def test_a_store_that_ignores_the_lower_bound_is_no_store_for_many_workers() -> None:
    bucket = memory_bucket(dict.fromkeys(KEYS[:400], b"x"), driver=Odd(bounds=False))
    assert [found.key for page in bucket.list(after=KEYS[50]) for found in page] == KEYS[51:400], "one can"
    with pytest.raises(SyncAgentError, match="before") as caught:
        keys_of(bucket.crew(Partition(4), 4).pieces())
    assert "SYNCAGENT_LISTERS=1" in str(caught.value.hint)


def test_a_store_of_another_order_is_noticed_by_whoever_lists_there() -> None:
    """P3: emoji come before private letters in UTF-16, and after them in UTF-8.

    Not noticed where a range ends exactly between the two (docs/scale.md); `check` lists by one worker, and does.
    """
    letters = ["a", "\ue000", "\uf8ff", "\U0001f600", "\U0001f680"]
    keys = sorted(f"{letter}{n:03}" for letter in letters for n in range(60))
    for hints in ([], ["\U0001f600030"], ["\uf000", "\U0001f620"]):
        bucket = memory_bucket(dict.fromkeys(keys, b"x"), driver=Odd(utf16=True))
        with pytest.raises(SyncAgentError):
            keys_of(bucket.crew(Partition(4, hints), 4).pieces())
