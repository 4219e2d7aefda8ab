"""Listings that break: nothing is ever removed because of one, and the next sound one repairs everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import AccessDenied, SyncAgentError, Transient
from syncagent.model import ObjectInfo
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal, drop, live, memory_bucket, put, reconciler
from tests.rigs.catalogs import open_at

Pages = Iterator[list[ObjectInfo]]
PAGE = 100


class Faulty(MemoryDriver):
    """A bucket in memory whose listing goes through `fault`, if there is one."""

    fault: Callable[[Pages], Pages] | None = None

    def list(self, prefix: str = "", *, after: str | None = None, until: str | None = None) -> Pages:
        pages = super().list(prefix, after=after, until=until)
        return self.fault(pages) if self.fault else pages


def breaks(at: int, error: SyncAgentError) -> Callable[[Pages], Pages]:
    def fault(pages: Pages) -> Pages:
        for number, page in enumerate(pages):
            if number == at:
                raise error
            yield page

    return fault


def empty(_: Pages) -> Pages:
    return iter(())


def page_twice(pages: Pages) -> Pages:
    for number, page in enumerate(pages):
        yield page
        if number == 2:
            yield page


def swapped_inside(pages: Pages) -> Pages:
    for number, page in enumerate(pages):
        yield [*page[:10], page[11], page[10], *page[12:]] if number == 2 else page


def swapped_pages(pages: Pages) -> Pages:
    first, second, third, *rest = pages
    yield from [first, third, second, *rest]


def a_bug(pages: Pages) -> Pages:
    yield next(pages)
    raise ZeroDivisionError


@pytest.fixture
def driver() -> Faulty:
    return Faulty(page_size=PAGE)


@pytest.fixture
def of(tmp_path: Path, driver: Faulty) -> Iterator[Reconciler]:
    """A swept bucket of 1,000 objects; since then 30 vanished, 30 came and 10 changed, all over it."""
    with open_at(tmp_path / "catalog.db") as catalog:
        bucket = memory_bucket({f"{n:04}": b"%d" % n for n in range(1000)}, driver=driver)
        made = reconciler(catalog, bucket)
        made.sweep()
        catalog.annotate(made.dataset.id, "0000", {"label": "cat"})
        drop(bucket, *[f"{n:04}" for n in range(0, 990, 33)])
        for n in range(1, 990, 33):
            put(bucket, f"{n:04}-new", b"new %d" % n)
        for n in range(50, 1000, 100):
            put(bucket, f"{n:04}", b"changed %d" % n)
        yield made


def unharmed(of: Reconciler) -> None:
    """Nothing went, and everything that came is really there."""
    assert list(of.catalog.items(of.dataset.id, trashed=True)) == []
    keys = live(of.catalog, of.dataset)
    assert {f"{n:04}" for n in range(1000)} <= set(keys)
    for key in set(keys) - {f"{n:04}" for n in range(1000)}:
        assert of.bucket.stat(key).fingerprint == keys[key]


def repaired(of: Reconciler, driver: Faulty) -> None:
    driver.fault = None
    report = of.sweep()
    assert report.refused is None
    assert report.removed == 30
    assert_equal(of)
    assert of.catalog.runs()[0].state == "done"
    assert of.catalog.item(of.dataset.id, "0000").annotations == 1
    assert list(of.check()) == []


BROKEN = {
    "transient at the start": (breaks(0, Transient("503")), Transient, 5, "503", 0),
    "transient on page 2": (breaks(1, Transient("503")), Transient, 5, "503", 1),
    "denied half-way": (
        breaks(5, AccessDenied("no s3:ListBucket", resource="box")),
        AccessDenied,
        6,
        "s3:ListBucket",
        5,
    ),
    "fails at the very end": (breaks(9, Transient("reset")), Transient, 5, "reset", 9),
    "a page twice": (page_twice, SyncAgentError, 1, "not byte order", 3),
    "out of order in a page": (swapped_inside, SyncAgentError, 1, "not byte order", 2),
    "pages out of order": (swapped_pages, SyncAgentError, 1, "not byte order", 2),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_listing_that_breaks_removes_nothing(of: Reconciler, driver: Faulty, name: str) -> None:
    fault, kind, exit_code, said, pages = BROKEN[name]
    had = of.catalog.count(of.dataset.id)
    driver.fault = fault
    with pytest.raises(SyncAgentError, match=said) as caught:
        of.sweep()
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    run = of.catalog.runs()[0]
    assert (run.state, run.error) == ("failed", str(caught.value))
    assert (of.catalog.count(of.dataset.id) > had) is (pages > 0), "what was found so far stands"
    # Where the order was wrong, keys before the cursor may never have been listed: that is not resumed.
    assert (run.cursor is not None) is (pages > 0 and kind is not SyncAgentError)
    unharmed(of)
    repaired(of, driver)


@pytest.mark.parametrize("name", ["transient on page 2", "denied half-way", "out of order in a page"])
def test_breaking_again_and_again_removes_nothing(of: Reconciler, driver: Faulty, name: str) -> None:
    for _ in range(3):
        driver.fault = BROKEN[name][0]
        with suppress(SyncAgentError):
            of.sweep()
            break  # going on from where it broke, there were fewer pages left than it takes
        unharmed(of)
    else:
        repaired(of, driver)
    driver.fault = None
    assert_equal(of)


@pytest.mark.parametrize("pages", range(11))
def test_whatever_page_it_breaks_on_the_next_sweep_goes_on(
    of: Reconciler, driver: Faulty, pages: int
) -> None:
    driver.fault = breaks(pages, Transient("503"))
    try:
        of.sweep()
    except Transient:
        unharmed(of)
        cursor = of.catalog.runs()[0].cursor
        driver.fault = None
        driver.requests.clear()
        repaired(of, driver)
        assert of.catalog.runs()[0].report.resumed_after == cursor
    else:
        assert pages == 10
        assert_equal(of)


def test_an_empty_listing_is_refused(of: Reconciler, driver: Faulty) -> None:
    driver.fault = empty
    report = of.sweep()
    assert report.refused is not None and "empty" in report.refused
    assert of.catalog.runs()[0].state == "refused"
    assert of.catalog.count(of.dataset.id) == 1000
    unharmed(of)
    repaired(of, driver)


def test_an_empty_listing_that_is_believed_is_still_looked_at_key_by_key(
    of: Reconciler, driver: Faulty
) -> None:
    driver.fault = empty
    report = of.sweep(max_deletes=1000)
    assert report.removed == 30, "those that are really gone"
    driver.fault = None
    of.sweep()
    assert_equal(of)


def test_a_listing_that_just_ends_early_removes_only_what_is_gone(of: Reconciler, driver: Faulty) -> None:
    """No driver may do this; if one does, the look before each removal still saves the items."""

    def short(pages: Pages) -> Pages:
        yield next(pages)

    driver.fault = short
    report = of.sweep()
    assert report.removed == 30
    assert {f"{n:04}" for n in range(990, 1000)} <= set(live(of.catalog, of.dataset))
    driver.fault = None
    of.sweep()
    assert_equal(of)


def test_a_bug_in_a_driver_removes_nothing(of: Reconciler, driver: Faulty) -> None:
    driver.fault = a_bug
    with pytest.raises(ZeroDivisionError):
        of.sweep()
    assert of.catalog.runs()[0].state == "failed"
    unharmed(of)
    repaired(of, driver)


def test_plan_and_check_raise_as_well(of: Reconciler, driver: Faulty) -> None:
    driver.fault = breaks(5, AccessDenied("no s3:ListBucket"))
    for read in (of.plan, of.check):
        with pytest.raises(AccessDenied):
            list(read())
    unharmed(of)
