"""A bucket is mirrored by every catalog alike, whatever form a driver's pages have: what goes between the two is nobody's own.

To add a catalog, add it to `KINDS`; to add a form of pages, add it to `FORMS`.
"""

from __future__ import annotations

import marshal
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from syncagent import reconcile
from syncagent.catalog import Dataset, Store
from syncagent.certificate import Part
from syncagent.digest import Digest, digest_of
from syncagent.drivers import Bucket, open_bucket
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import SyncAgentError
from syncagent.model import Action, DriverSpec, ObjectInfo, Outcome, Report
from syncagent.pages import ObjectPage
from syncagent.reconcile import Reconciler
from tests.contract.test_catalog import Made, MadeAfar, MadePostgres, MadeServed, MadeSqlite
from tests.engine import assert_equal, drop, put, stored
from tests.keys import NASTY
from tests.rigs.served import Served

PAGE = 40
KEYS = [*(key for key in NASTY if len(key) < 1000), *(f"plain/{n:04}.jpg" for n in range(5 * PAGE))]
Page = Sequence[ObjectInfo]


class MadeDataloop(MadeServed):
    """The platform: a server without what it lacks."""

    def __init__(self, folder: Path) -> None:
        Made.__init__(self)
        self.server = self.stack.enter_context(Served(folder / "catalog.db", self.clock, extension=False))
        self.url = self.server.url

    def dataset(self, catalog: Store, spec: DriverSpec) -> Dataset:
        """Made by a person there."""
        return catalog.dataset(self.server.catalog.ensure_dataset("data", spec).id)


def columns(page: Page) -> ObjectPage:
    """By column, as S3's parser gives it: what no listing tells is said once, and a hash is an ETag."""
    by_field = [*ObjectPage.of(page).packed()[1]]
    by_field[ObjectInfo._fields.index("content_type")] = (None,)
    by_field[ObjectInfo._fields.index("content_id")] = ObjectInfo._fields.index("etag")
    return ObjectPage(len(page), by_field)


def sent(page: Page) -> ObjectPage:
    """By column, as another process gives it."""
    return ObjectPage(*marshal.loads(marshal.dumps(columns(page).packed())))  # noqa: S302  # our own


FORMS: dict[str, Callable[[Page], Page]] = {"list": list, "columns": columns, "sent": sent}
KINDS: dict[str, Callable[[Path], Made]] = {
    "sqlite": MadeSqlite, "postgres": MadePostgres, "served": MadeServed, "afar": MadeAfar, "dataloop": MadeDataloop,
}  # fmt: skip


@pytest.fixture(params=FORMS)
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What buckets in memory list: small pages of this form, that several workers may ask for."""
    form, listed = FORMS[request.param], MemoryDriver.list

    def given(driver: MemoryDriver, *prefix: str, **bounds: str | None) -> Iterator[Page]:
        driver._page_size = PAGE
        return map(form, listed(driver, *prefix, **bounds))  # type: ignore[arg-type]  # a method's own

    monkeypatch.setattr(MemoryDriver, "list", given)
    monkeypatch.setattr(MemoryDriver, "caps", replace(MemoryDriver.caps, ranges=True))
    monkeypatch.setattr(reconcile, "_HINT", 2 * PAGE)


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    one = KINDS[request.param](tmp_path)
    with one.stack:
        yield one


@pytest.fixture(params=["", "below"])
def of(request: pytest.FixtureRequest, made: Made, pages: None) -> Reconciler:
    """A bucket, or a folder of it, that nobody has swept yet. Only in the whole one are keys that pages are made lists for."""
    name = uuid.uuid4().hex
    whole = open_bucket(f"memory://{name}")
    for key in KEYS:
        put(whole, key)
        if not key.endswith("/"):
            put(whole, f"below/{key}")
    spec = DriverSpec(type="memory", bucket=name, name=name, path=request.param)
    catalog = made.open()
    make = made.dataset if isinstance(made, MadeDataloop) else _ensured
    return Reconciler(catalog, make(catalog, spec), Bucket(whole.driver, spec, url=whole.url), workers=2)


def _ensured(catalog: Store, spec: DriverSpec) -> Dataset:
    return catalog.ensure_dataset("data", spec)


def actions(outcomes: Iterable[Outcome | SyncAgentError]) -> dict[str, Action]:
    return {one.key: one.action for one in outcomes if isinstance(one, Outcome)}


def swept(of: Reconciler, told: list[Outcome]) -> Report:
    told.clear()
    return of.sweep(max_deletes=10**6, on_outcome=told.append)


@pytest.mark.parametrize("listers", [1, 3])
def test_a_bucket_is_mirrored(of: Reconciler, listers: int) -> None:
    of.listers = listers
    count = len(stored(of.bucket))
    planned, told = Report(), list[Outcome]()
    assert len(list(of.plan(planned))) == planned.added == count
    report = swept(of, told)
    assert (report.listed, report.added, report.failed, len(told)) == (count, count, 0, count)
    assert_equal(of)
    report = swept(of, told)
    assert (report.same, report.drift, told) == (count, 0, [])

    put(of.bucket, "plain/0007.jpg", b"other")
    put(of.bucket, "plain/0007.jpg+", b"new")
    gone = [f"plain/{n:04}.jpg" for n in (*range(50, 60), 100)]
    drop(of.bucket, *map(of.bucket.full_key, gone))
    differ = {"plain/0007.jpg": Action.CHANGED, "plain/0007.jpg+": Action.ADDED}
    differ |= dict.fromkeys(gone, Action.REMOVED)
    parts: list[Part] = []
    assert actions(of.check(parts=parts)) == differ
    whole = sum((part.digest for part in parts), Digest())
    assert whole == digest_of(found for page in of.bucket.list() for found in page)
    report = swept(of, told)
    assert actions(told) == differ
    assert (report.changed, report.added, report.removed, report.failed) == (1, 1, len(gone), 0)
    assert_equal(of)

    for key in gone[:2]:
        put(of.bucket, key, b"back")
    assert actions(of.settle_below("plain/")) == dict.fromkeys(gone[:2], Action.ADDED)
    drop(of.bucket, of.bucket.full_key(gone[0]))
    put(of.bucket, gone[2], b"back as well")
    report = swept(of, told)
    assert actions(told) == {gone[0]: Action.REMOVED, gone[2]: Action.ADDED}
    assert list(of.check()) == []
