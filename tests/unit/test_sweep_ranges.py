"""Sweeps by several workers, over a bucket in memory: the same as by one, whatever happens in between."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from syncagent import reconcile
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.drivers import parallel
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import AccessDenied, SyncAgentError, Transient
from syncagent.model import Action, ObjectInfo, Outcome, Report
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal, drop, memory_bucket, put, reconciler
from tests.rigs.catalogs import open_at

PAGE = 20
SIZE = 1000
Pages = Iterator[list[ObjectInfo]]


class Ranged(MemoryDriver):
    """A bucket in memory that several workers may list; its `fail_at`-th page from now on fails with `error`."""

    caps = replace(MemoryDriver.caps, ranges=True)

    def __init__(self) -> None:
        super().__init__(page_size=PAGE)
        self.lock = threading.Lock()
        self.asked: list[str | None] = []
        self.pages = 0
        self.fail_at: int | None = None
        self.error: BaseException = Transient("503", resource="box")

    def list(self, prefix: str = "", *, after: str | None = None, until: str | None = None) -> Pages:
        with self.lock:
            self.asked.append(after)
        for page in super().list(prefix, after=after, until=until):
            with self.lock:
                self.pages += 1
                if self.fail_at is not None and self.pages >= self.fail_at:
                    raise self.error
            yield page

    def works(self) -> None:
        self.fail_at, self.pages = None, 0
        self.asked.clear()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is written at once, hints are close, failures are followed by no pause."""
    monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "_HINT", 2 * PAGE)
    monkeypatch.setattr(parallel, "_PAUSE", 0.0001)


@pytest.fixture
def driver() -> Ranged:
    return Ranged()


@pytest.fixture(params=["sqlite", "spans"])
def of(
    request: pytest.FixtureRequest, tmp_path: Path, driver: Ranged, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reconciler]:
    """A bucket that changed in every way since it was swept: 30 vanished, 30 came, 10 changed, 10 moved."""
    if request.param == "spans":  # as a catalog far away has it: rows are compared by many at once
        monkeypatch.setattr(SqlCatalog, "span", 150)
    with open_at(tmp_path / "catalog.db") as catalog:
        bucket = memory_bucket({f"{n:04}": b"%d" % n for n in range(SIZE)}, driver=driver)
        made = reconciler(catalog, bucket, listers=4)
        made.sweep()
        catalog.annotate(made.dataset.id, "0007", {"label": "cat"})
        for n in range(7, SIZE, 100):
            drop(bucket, f"{n:04}")
            put(bucket, f"{SIZE - n:04}-moved", b"%d" % n)
        drop(bucket, *[f"{n:04}" for n in range(0, 990, 33)])
        for n in range(1, 990, 33):
            put(bucket, f"{n:04}-new", b"new %d" % n)
        for n in range(50, SIZE, 100):
            put(bucket, f"{n:04}", b"changed %d" % n)
        driver.works()
        yield made


def counts(report: Report) -> tuple[int, ...]:
    return report.added, report.changed, report.moved, report.removed, report.failed


ALL = (30, 10, 10, 30, 0)


def settled(of: Reconciler, *, moved: bool = True) -> None:
    assert_equal(of)
    assert list(of.check()) == []
    if moved:
        assert of.catalog.item(of.dataset.id, f"{SIZE - 7:04}-moved").annotations == 1, "with its label"
    assert of.catalog.runs()[0].state == "done"


@pytest.mark.parametrize("listers", [1, 2, 4, 16])
def test_the_same_by_any_number(of: Reconciler, listers: int) -> None:
    of.listers = listers
    told: list[Outcome] = []
    report = of.sweep(on_outcome=told.append)
    assert counts(report) == ALL
    assert (report.listed, report.same) == (SIZE, SIZE - 50)
    assert len(told) == len({(one.key, one.action) for one in told}) == 30 + 10 + 10 + 10 + 30
    settled(of)


def test_a_first_sweep(driver: Ranged, tmp_path: Path) -> None:
    bucket = memory_bucket({f"{n:04}": b"%d" % n for n in range(SIZE)}, driver=driver)
    with open_at(tmp_path / "catalog.db") as catalog:
        of = reconciler(catalog, bucket, listers=4)
        report = of.sweep()
        assert (report.listed, counts(report)) == (SIZE, (SIZE, 0, 0, 0, 0))
        assert_equal(of)


def test_the_catalog_says_where_to_divide(of: Reconciler, driver: Ranged) -> None:
    of.sweep()
    hints = of.catalog.quantiles(of.dataset.id, 2 * PAGE)
    driver.works()
    of.sweep()
    # Each worker begins at one of them; where none lies ahead any more, a free worker may still guess.
    assert len({None, *hints} & set(driver.asked)) >= 4
    assert driver.pages <= SIZE // PAGE + 4 + len(driver.asked)


def test_a_driver_without_ranges_is_listed_by_one(of: Reconciler, driver: Ranged) -> None:
    driver.caps = MemoryDriver.caps
    of.sweep()
    assert driver.asked == [None]
    settled(of)


@pytest.mark.parametrize("stop_at", [1, 100, 400, 700, SIZE])
@pytest.mark.parametrize("then", [4, 1, 16])
def test_ctrl_c_anywhere_and_the_next_sweep_goes_on(
    of: Reconciler, driver: Ranged, stop_at: int, then: int
) -> None:
    told: list[Outcome] = []

    def progress(report: Report) -> None:
        if report.listed >= stop_at and not stopped.is_set():
            stopped.set()
            raise KeyboardInterrupt

    stopped = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        of.sweep(on_progress=progress, on_outcome=told.append)
    broken = of.catalog.runs()[0]
    assert broken.state == "interrupted" and broken.ranges is not None
    assert of.catalog.count(of.dataset.id) >= SIZE, "nothing is removed before the listing has ended"
    driver.works()
    of.listers = then
    report = of.sweep(on_outcome=told.append)
    assert report.run == broken.number + 1 and report.resumed_after is not None
    assert set(driver.asked) >= {lo for lo, _ in broken.ranges[: max(1, then)]}, "from where each was"
    assert (report.listed, counts(report)) == (SIZE, ALL), "nothing is left out, and nothing counted twice"
    assert len(told) == len({(one.key, one.action) for one in told})
    settled(of)


def test_a_sweep_by_one_is_gone_on_with_by_many(of: Reconciler, driver: Ranged) -> None:
    of.listers = 1
    driver.fail_at = 20
    with pytest.raises(Transient):
        of.sweep()
    run = of.catalog.runs()[0]
    assert run.ranges is None and run.cursor is not None
    of.listers = 4
    driver.works()
    assert counts(of.sweep()) == ALL
    assert None not in driver.asked and run.cursor in driver.asked
    settled(of)


@pytest.mark.parametrize("listers", [1, 4])
def test_what_was_listed_before_a_listing_broke_is_compared(
    of: Reconciler, driver: Ranged, monkeypatch: pytest.MonkeyPatch, listers: int
) -> None:
    """Also where the catalog is far away, and compares more at once than was listed."""
    monkeypatch.setattr(of.catalog, "span", 10 * SIZE)
    of.listers = listers
    driver.works()
    # No range of the four ends before that.
    driver.fail_at, driver.error = 8, AccessDenied("no s3:ListBucket", resource="box")
    with pytest.raises(AccessDenied):
        of.sweep()
    run = of.catalog.runs()[0]
    assert run.report.listed == 7 * PAGE if listers == 1 else run.report.listed >= PAGE
    driver.works()
    assert counts(of.sweep()) == ALL
    settled(of)


def test_ranges_of_a_store_that_lists_no_more_by_range(of: Reconciler, driver: Ranged) -> None:
    driver.fail_at, driver.error = 20, AccessDenied("no s3:ListBucket", resource="box")
    with pytest.raises(AccessDenied):
        of.sweep()
    driver.works()
    driver.caps = replace(MemoryDriver.caps, sorted_listing=False)
    assert counts(of.sweep()) == ALL
    settled(of)


@pytest.mark.parametrize("at", [1, 2, 15, 40])
@pytest.mark.parametrize(
    "error", [Transient("503", resource="box"), AccessDenied("no s3:ListBucket"), ZeroDivisionError("a bug")]
)
def test_a_listing_that_breaks_removes_nothing_and_is_gone_on_with(
    of: Reconciler, driver: Ranged, at: int, error: Exception
) -> None:
    driver.fail_at, driver.error = at, error
    with pytest.raises(type(error)):
        of.sweep()
    assert of.catalog.runs()[0].state == "failed"
    assert list(of.catalog.items(of.dataset.id, trashed=True)) == []
    driver.works()
    report = of.sweep()
    # After a bug the listing begins anew, and a pair is known only to the listing that found it.
    known = isinstance(error, SyncAgentError)
    assert (report.removed + report.moved, report.refused) == (40, None)
    assert report.removed == 30 or not known
    settled(of, moved=known)


def test_a_failure_now_and_then_breaks_nothing(of: Reconciler, driver: Ranged) -> None:
    real = Ranged.list

    def moody(prefix: str = "", *, after: str | None = None, until: str | None = None) -> Pages:
        for page in real(driver, prefix, after=after, until=until):
            yield page
            if driver.pages % 7 == 0:
                raise Transient("SlowDown", resource="box")

    driver.list = moody  # type: ignore[method-assign]
    assert counts(of.sweep()) == ALL
    del driver.list
    settled(of)


def test_a_store_that_begins_before_the_key_starts_over(of: Reconciler, driver: Ranged) -> None:
    real = Ranged.list
    driver.list = lambda prefix="", *, after=None, until=None: real(driver, prefix)  # type: ignore[method-assign]
    with pytest.raises(SyncAgentError, match="before") as caught:
        of.sweep()
    assert "SYNCAGENT_LISTERS=1" in str(caught.value)
    run = of.catalog.runs()[0]
    assert (run.state, run.cursor, run.ranges) == ("failed", None, None)
    of.listers = 1
    report = of.sweep()
    assert report.removed + report.moved == 40
    del driver.list
    settled(of, moved=False)


@pytest.mark.parametrize(("cap", "refused"), [(39, False), (30, False), (29, True), (0, True)])
def test_the_cap_holds(of: Reconciler, cap: int, refused: bool) -> None:
    report = of.sweep(max_deletes=cap)
    assert (report.refused is not None) is refused
    assert report.removed == (0 if refused else 30)
    of.sweep()
    assert_equal(of)


def test_an_empty_listing_is_refused(of: Reconciler, driver: Ranged) -> None:
    driver.list = lambda prefix="", *, after=None, until=None: iter(())  # type: ignore[method-assign]
    report = of.sweep()
    assert report.refused is not None and "empty" in report.refused
    assert of.catalog.count(of.dataset.id) >= SIZE
    del driver.list
    of.sweep()
    assert_equal(of)


def test_what_millions_of_vanished_neighbours_take_is_bounded(
    tmp_path: Path, driver: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are one part of one range, and noted page by page."""
    monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", 60.0)
    monkeypatch.setattr(reconcile, "_PAGE", 20)
    monkeypatch.setattr(reconcile, "_INSERT", 100)
    with open_at(tmp_path / "catalog.db") as catalog:
        bucket = memory_bucket({f"{n:04}": b"%d" % n for n in range(SIZE)}, driver=driver)
        swept = reconciler(catalog, bucket, listers=4)
        swept.sweep()
        drop(bucket, *[f"{n:04}" for n in range(1, SIZE)])
        noted: list[int] = []
        advance = catalog.advance

        def counted(run: int, cursor: object, missing: list[str], *rest: object) -> None:
            noted.append(len(missing))
            advance(run, cursor, missing, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(catalog, "advance", counted)
        report = swept.sweep(max_deletes=SIZE)
        assert (report.removed, sum(noted)) == (SIZE - 1, SIZE - 1)
        assert max(noted) <= 100 + 3 * 20


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts a job in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_the_store_asks_for_a_pause_ends_it_at_once(
    of: Reconciler, driver: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes meanwhile that the thread that compares could notice it at."""
    paused = threading.Event()
    failed = parallel.Crew._failed

    def noted(*given: object) -> None:
        paused.set()
        failed(*given)  # type: ignore[arg-type]  # a method's own

    monkeypatch.setattr(parallel.Crew, "_failed", noted)
    driver.fail_at, driver.error = 5, Transient("503", resource="box", retry_after=40)

    def interrupt() -> None:
        assert paused.wait(20)
        time.sleep(0.2)  # until all of them pause
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        of.sweep()
    assert time.monotonic() - started < 15
    thread.join()
    driver.works()
    of.sweep()
    assert_equal(of)


def test_what_was_not_begun_when_somebody_raises_is_not_begun_any_more(
    of: Reconciler, driver: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the caller's own function that raises, and somebody keeps the error with all its frames."""
    of.workers = 1
    begun: list[str] = []
    move = of.move

    def slowly(old: str, new: str) -> bool:
        begun.append(new)
        time.sleep(0.05 if len(begun) > 1 else 0)
        return move(old, new)

    def told(outcome: Outcome) -> None:
        if outcome.action is Action.MOVED:
            raise ZeroDivisionError

    monkeypatch.setattr(of, "move", slowly)
    with pytest.raises(ZeroDivisionError) as caught:
        of.sweep(on_outcome=told)
    count = len(begun)
    assert count < 10, "of ten that moved"
    time.sleep(0.2)
    assert len(begun) == count
    assert caught.value.__traceback__ is not None
