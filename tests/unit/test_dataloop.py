"""The catalog on the platform: against our server without what the platform lacks, and against one that is stricter."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from syncagent.catalog import open_catalog
from syncagent.catalog.base import Dataset
from syncagent.catalog.dataloop import DataloopCatalog
from syncagent.catalog.rest import Session
from syncagent.digest import digest_of
from syncagent.drivers import Bucket, open_bucket
from syncagent.errors import Conflict, NotFound, Refused, Transient, Unsupported
from syncagent.model import Action, DriverSpec
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal, drop, info, live, put
from tests.keys import NASTY
from tests.rigs.fake_http import Answer, FakeHttp, Request
from tests.rigs.served import EMAIL, PASSWORD, Served
from tests.unit.test_rest import SIGNED_IN, said


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    with Served(tmp_path / "catalog.db", extension=False) as one:
        yield one


@pytest.fixture
def catalog(server: Served) -> Iterator[DataloopCatalog]:
    one = open_catalog(f"dataloop+{server.url}", username=EMAIL, password=SecretStr(PASSWORD))
    assert isinstance(one, DataloopCatalog)
    yield one
    one.close()


@pytest.fixture
def of(server: Served, catalog: DataloopCatalog) -> Reconciler:
    """A dataset of the platform over a bucket that both can see."""
    name = f"box-{uuid.uuid4().hex}"
    dataset = server.catalog.ensure_dataset("data", DriverSpec(type="memory", bucket=name, name=name))
    return Reconciler(catalog, catalog.dataset(dataset.id), open_bucket(f"memory://{name}"), workers=4)


def fill(bucket: Bucket, *keys: str, body: bytes = b"body") -> None:
    for key in keys:
        put(bucket, key, body)


def test_a_sweep_makes_it_equal_whatever_the_keys(of: Reconciler, catalog: DataloopCatalog) -> None:
    fill(of.bucket, *NASTY)
    report = of.sweep()
    assert (report.added, report.failed) == (len(NASTY), 0)
    assert_equal(of)
    assert of.sweep().added == 0
    victims = [key for key in NASTY if "*" in key] or ["*"]
    fill(of.bucket, "x*y", "xay")
    of.sweep()
    drop(of.bucket, "x*y", *victims)
    put(of.bucket, NASTY[0], b"another body")
    report = of.sweep()
    assert report.failed == 0
    assert_equal(of)
    assert "xay" in live(catalog, of.dataset), "a key is no pattern"
    assert list(of.check()) == []


def test_many_objects_take_few_requests(of: Reconciler, catalog: DataloopCatalog) -> None:
    fill(of.bucket, *(f"{number:05}" for number in range(2100)))
    before = catalog._session.requests
    assert of.sweep().added == 2100
    assert catalog._session.requests - before < 20
    before = catalog._session.requests
    assert of.sweep().same == 2100
    assert catalog._session.requests - before < 15
    assert len(list(catalog.items(of.dataset.id))) == 2100
    assert [one.key for one in catalog.items(of.dataset.id, prefix="0007", limit=7)] == [
        f"{number:05}" for number in range(70, 77)
    ]
    assert catalog.count(of.dataset.id) == 2100
    objects = [found for page in of.bucket.list() for found in page]
    assert catalog.digest(of.dataset.id, after=None, until=None) == digest_of(objects)
    inner = catalog.digest(of.dataset.id, after="00099", until="01500")
    assert inner == digest_of(objects[100:1501])


def test_an_overwrite_keeps_the_item_and_marks_it(of: Reconciler, catalog: DataloopCatalog) -> None:
    put(of.bucket, "k", b"one")
    of.sweep()
    ds = of.dataset.id
    before = catalog.item(ds, "k")
    catalog.annotate(ds, "k", {"type": "class", "label": "cat", "coordinates": {}})
    catalog.set_user_metadata(ds, "k", {"split": "train"})
    of.sweep()
    assert not catalog.item(ds, "k").changed_since_annotated
    put(of.bucket, "k", b"two")
    assert of.settle("k").action is Action.CHANGED
    after = catalog.item(ds, "k")
    assert (after.id, after.annotations, after.user, after.changed_since_annotated) == (
        before.id, 1, {"split": "train"}, True,
    )  # fmt: skip
    assert [one["label"] for one in catalog.annotations(ds, "k")] == ["cat"]
    catalog.set_user_metadata(ds, "k", {"seen": 1})
    assert catalog.item(ds, "k").user == {"seen": 1}
    assert list(of.check()) == [], "the mark is still there"


def test_items_that_somebody_else_made_are_taken_over(of: Reconciler, server: Served) -> None:
    fill(of.bucket, "a", "b")
    session = Session(server.url, EMAIL, SecretStr(PASSWORD))
    told = session.post(f"/datasets/{of.dataset.id}/imports", [{"filename": "/a", "storageId": "a"}])
    report = of.sweep()
    assert (report.added, report.changed) == (1, 1)
    assert_equal(of)
    assert of.catalog.item(of.dataset.id, "a").id == told[0]["id"]
    session.close()


def test_a_revision_that_is_another_one_conflicts(of: Reconciler, catalog: DataloopCatalog) -> None:
    ds = of.dataset.id
    found = put(of.bucket, "k")
    for expect in (1, 7):
        with pytest.raises(Conflict):
            catalog.settle(ds, "k", found, expect_rev=expect)
    row = catalog.settle(ds, "k", found, expect_rev=0)
    with pytest.raises(Conflict):
        catalog.settle(ds, "k", found, expect_rev=0)
    again = catalog.settle(ds, "k", found, expect_rev=row.rev)
    assert again.rev == row.rev + 1
    assert catalog.settle(ds, "k", None, expect_rev=again.rev).fingerprint is None
    assert catalog.get(ds, "k") is None
    assert catalog.settle(ds, "k", found, expect_rev=0).rev != row.rev, "not the same item again"


def test_a_write_between_two_of_ours_is_seen(of: Reconciler, monkeypatch: pytest.MonkeyPatch) -> None:
    put(of.bucket, "k", b"one")
    stat, looks = of.bucket.stat, []

    def slow(key: str) -> Any:
        found = stat(key)
        looks.append(key)
        if len(looks) == 1:
            put(of.bucket, "k", b"two")  # after the look, before the write
        return found

    monkeypatch.setattr(of.bucket, "stat", slow)
    of.settle("k")
    assert_equal(of)


def test_an_object_that_comes_and_goes_is_given_up_after_a_while(
    of: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, looks = of.bucket.stat, []

    def never_still(key: str) -> Any:
        looks.append(key)
        put(of.bucket, "k", str(len(looks)).encode())
        return stat(key)

    monkeypatch.setattr(of.bucket, "stat", never_still)
    of.settle("k")
    assert len(looks) == 6


def test_an_item_is_not_removed_where_its_object_would_go_too(
    server: Served, catalog: DataloopCatalog
) -> None:
    name = f"box-{uuid.uuid4().hex}"
    spec = DriverSpec(type="memory", bucket=name, name=name, allow_external_delete=True)
    dataset = server.catalog.ensure_dataset("deletes", spec)
    of = Reconciler(catalog, catalog.dataset(dataset.id), open_bucket(f"memory://{name}"))
    put(of.bucket, "k")
    of.sweep()
    drop(of.bucket, "k")
    with pytest.raises(Refused, match="without allow_external_delete"):
        of.settle("k")
    report = of.sweep(max_deletes=9)
    assert report.failed == 1
    (one,) = catalog.quarantined(dataset.id)
    assert (one.key, one.dataset, one.error) == ("k", "deletes", "Refused")
    assert catalog.release(dataset.id) == 1


def test_runs_are_kept_in_a_journal_of_this_machine(
    of: Reconciler, catalog: DataloopCatalog, server: Served, tmp_path: Path
) -> None:
    ds = of.dataset.id
    assert catalog.runs() == catalog.quarantined() == []
    assert catalog.release(ds) == 0
    assert not list((tmp_path / "home").glob("*")), "reading makes no journal"
    run = catalog.begin_run(ds)
    other = open_catalog(
        f"dataloop+{server.url}", username=EMAIL, password=SecretStr(PASSWORD), dataset_id=ds
    )
    with pytest.raises(Conflict, match="being swept"):
        other.begin_run(ds)
    catalog.advance(run.number, "m", ["a"], run.report)
    catalog.finish_run(run.number, "interrupted", run.report)
    resumed = other.begin_run(ds)
    assert (resumed.cursor, resumed.dataset, other.missing(resumed.number)) == ("m", "data", ["a"])
    assert [one.id for one in other.datasets()] == [ds]
    assert other.runs(ds)[0].dataset == "data"
    other.close()


def test_what_the_platform_lacks_is_said(of: Reconciler, catalog: DataloopCatalog) -> None:
    row = info("k")
    for call in (
        lambda: catalog.create_dataset("x", "y"),
        lambda: catalog.ensure_dataset("x", DriverSpec(type="memory", bucket="x")),
        lambda: catalog.create_driver(of.bucket.spec),
        lambda: catalog.remove_dataset("data"),
        lambda: catalog.move(of.dataset.id, row, row, row),  # type: ignore[arg-type]
    ):
        with pytest.raises(Unsupported):
            call()
    assert list(catalog.items(of.dataset.id, trashed=True)) == []
    assert catalog.ensure_dataset("data", of.dataset.driver).id == of.dataset.id
    with pytest.raises(NotFound):
        catalog.item(of.dataset.id, "k")
    with pytest.raises(NotFound):
        catalog.dataset("nowhere")


# -- platforms that are stricter, or odd -----------------------------------------------------------


class Strict:
    """One dataset `d` over the bucket `b` with the path `p`; `imports` decides what becomes of them."""

    def __init__(self, *, most: int = 1000, marks: bool = True) -> None:
        self.most, self.marks = most, marks
        self.items: dict[str, dict[str, Any]] = {}
        self.imported: list[Any] = []

    def __call__(self, request: Request) -> Answer:
        body = json.loads(request.body or b"null")
        match request.method, request.path.removeprefix("/api/v1").strip("/").split("/"):
            case "POST", ["token"]:
                return SIGNED_IN
            case "GET", ["datasets", _]:
                return said(
                    {"id": "d", "name": "data", "driver": "r", "createdAt": "2026-01-01T00:00:00.000Z"}
                )
            case "GET", ["drivers", _]:
                return said({"id": "r", "name": "r", "type": "s3", "bucketName": "b", "path": "p"})
            case "POST", ["datasets", _, "imports"]:
                if len(body) > self.most:
                    return said({"message": "one at a time"}, 400)
                self.imported += body
                for one in body:
                    user = one["metadata"]["user"] if self.marks else {}
                    number = f"{len(self.items) + 1:024x}"
                    item = {
                        "id": number,
                        "filename": one["filename"],
                        "metadata": {"system": {}, "user": user},
                    }
                    self.items.setdefault(one["filename"], item)
                return said([self.items[one["filename"]] for one in body])
            case "PATCH", ["items", number]:
                (item,) = [one for one in self.items.values() if one["id"] == number]
                item["metadata"]["user"].update(body["metadata"]["user"])
                return said(item)
        return said({"message": f"{request.method} {request.path}"}, 404)


def over(fake: FakeHttp, platform: Strict, tmp_path: Path) -> DataloopCatalog:
    fake.reply = platform
    session = Session(fake.url, "me", SecretStr("x"))
    return DataloopCatalog(session, only="d", journal=tmp_path / "journal.db")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHttp]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    with FakeHttp() as one:
        yield one


def test_a_platform_that_takes_one_object_at_a_time_is_told_of_once(
    fake: FakeHttp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform = Strict(most=1)
    catalog = over(fake, platform, tmp_path)
    names = [f"{number:04}" for number in range(1200)]
    assert catalog.insert_new("d", [info(name) for name in names]) == []
    assert sorted(platform.items) == [f"/{name}" for name in names]
    assert caplog.text.count("one by one") == 1
    assert sorted(one["storageId"] for one in platform.imported) == [f"b:p/{name}" for name in names]
    catalog.close()


def test_a_platform_that_takes_no_metadata_with_imports_is_told_it_after(
    fake: FakeHttp, tmp_path: Path
) -> None:
    platform = Strict(marks=False)
    catalog = over(fake, platform, tmp_path)
    assert catalog.insert_new("d", [info("a"), info("b")]) == []
    marks = [item["metadata"]["user"]["syncagent"]["fingerprint"] for item in platform.items.values()]
    assert marks == [info("a").fingerprint] * 2
    assert catalog.insert_new("d", [info("a", "newer"), info("c")]) == ["a"], (
        "it has an item, of another write"
    )
    catalog.close()


def test_names_in_another_order_are_refused(fake: FakeHttp, tmp_path: Path) -> None:
    page = [{"id": f"{n:024x}", "filename": name, "metadata": {}} for n, name in enumerate(["/b", "/a"])]
    fake.reply = lambda request: SIGNED_IN if request.path == "/token" else said({"items": page})
    session = Session(fake.url, "me", SecretStr("x"))
    catalog = DataloopCatalog(session, journal=tmp_path / "journal.db")
    with pytest.raises(Unsupported, match="order of their bytes"):
        list(catalog.scan("d"))
    catalog.close()


def test_a_busy_platform_is_waited_for(fake: FakeHttp, tmp_path: Path) -> None:
    calm, turns = Strict(), iter(range(1000))
    catalog = over(fake, calm, tmp_path)
    fake.reply = lambda request: said({}, 429) if next(turns) % 3 == 1 else calm(request)
    assert catalog.insert_new("d", [info("a")]) == []
    fake.reply = lambda request: said({}, 503)
    with pytest.raises(Transient):
        catalog.insert_new("d", [info("b")])
    catalog.close()


def test_it_is_a_dataset_over_a_bucket(fake: FakeHttp, tmp_path: Path) -> None:
    catalog = over(fake, Strict(), tmp_path)
    (one,) = catalog.datasets()
    assert isinstance(one, Dataset)
    assert (one.driver.type, one.driver.bucket, one.driver.path) == ("s3", "b", "p")
    catalog.close()
