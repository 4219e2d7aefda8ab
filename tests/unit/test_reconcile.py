"""The engine over a bucket in memory: merge, plan, check, sweep."""

from __future__ import annotations

import io
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from syncagent import reconcile
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.drivers import Bucket
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import AccessDenied, Conflict, NotFound, Transient
from syncagent.model import Action, DriverSpec, ObjectInfo, Outcome, Report, Row
from syncagent.reconcile import Reconciler, differences, merge
from tests.engine import assert_equal, drop, info, live, memory_bucket, put, reconciler, stored
from tests.keys import NASTY
from tests.rigs.catalogs import open_at


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    with open_at(tmp_path / "catalog.db") as opened:
        yield opened


def swept(catalog: SqlCatalog, objects: dict[str, bytes], **options: int) -> Reconciler:
    """A reconciler after its first sweep."""
    of = reconciler(catalog, memory_bucket(objects, **options))
    of.sweep()
    return of


def numbered(count: int, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{n:06}": b"%d" % n for n in range(count)}


def counts(report: Report) -> dict[str, int]:
    names = ("added", "changed", "moved", "removed", "failed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def trash(of: Reconciler) -> list[str]:
    return [item.key for item in of.catalog.items(of.dataset.id, trashed=True)]


# -- merge ---------------------------------------------------------------------------------------


def row(key: str, fingerprint: str | None, rev: int = 1) -> Row:
    return Row(key, fingerprint, rev, 1, 4, None)


def obj(key: str, fingerprint: str) -> ObjectInfo:
    return ObjectInfo(key, fingerprint, 4, "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("objects", "rows", "new", "changed", "missing"),
    [
        ([], [], "", "", ""),
        ([("a", "1")], [("a", "1")], "", "", ""),
        ([("a", "1")], [], "a", "", ""),
        ([], [("a", "1")], "", "", "a"),
        ([], [("a", None)], "", "", ""),
        ([("a", "1")], [("a", None)], "", "a", ""),
        ([("a", "2")], [("a", "1")], "", "a", ""),
        ([("b", "1")], [("a", "1"), ("c", "1")], "b", "", "ac"),
        (
            [("a", "1"), ("b", "1"), ("c", "2")],
            [("b", "1"), ("c", "1"), ("d", None), ("e", "1")],
            "a",
            "c",
            "e",
        ),
        ([("a", "1"), ("c", "1")], [("a", None), ("b", None), ("c", "1")], "", "a", ""),
    ],
)
def test_merge(objects: list, rows: list, new: str, changed: str, missing: str) -> None:
    found = merge("z", [obj(*o) for o in objects], [row(*r) for r in rows])
    assert found.last == "z"
    assert found.listed == len(objects)
    assert "".join(o.key for o in found.new) == new
    assert "".join(o.key for o, _ in found.changed) == changed
    assert all(o.key == r.key for o, r in found.changed)
    assert "".join(r.key for r in found.missing) == missing


@pytest.mark.parametrize("side", ["objects", "rows"])
@pytest.mark.parametrize("keys", ["ba", "aa", "acb"])
def test_merge_of_a_side_out_of_order_is_an_error(side: str, keys: str) -> None:
    objects = [obj(k, "1") for k in keys] if side == "objects" else []
    rows = [row(k, "1") for k in keys] if side == "rows" else []
    with pytest.raises(ValueError, match="out of order"):
        merge("z", objects, rows)


# -- the sweep -----------------------------------------------------------------------------------


def test_first_sweep_adds_everything(catalog: SqlCatalog) -> None:
    of = reconciler(catalog, memory_bucket({key: key.encode() for key in NASTY}, page_size=7))
    told: list[Outcome] = []
    report = of.sweep(on_outcome=told.append)
    assert_equal(of)
    assert (report.listed, counts(report), report.same) == (len(NASTY), {"added": len(NASTY)}, 0)
    assert [o.key for o in told] == sorted(NASTY, key=str.encode)
    assert {o.action for o in told} == {Action.ADDED}
    assert report.requests["list"] == 5
    assert "head" not in report.requests, "new keys come straight from the listing"
    (run,) = catalog.runs()
    assert (run.state, run.report.added, run.number) == ("done", len(NASTY), report.run)


def test_an_unchanged_object_costs_nothing(catalog: SqlCatalog) -> None:
    of = swept(catalog, numbered(20_000))
    assert_equal(of)
    before = catalog.db.statements
    rows = list(catalog.scan(of.dataset.id))
    statements = catalog.db.statements
    told: list[Outcome] = []
    report = of.sweep(on_outcome=told.append)
    spent = catalog.db.statements - statements
    assert statements > before
    assert (report.same, report.listed, counts(report), told) == (20_000, 20_000, {}, [])
    assert spent / 20_000 <= 0.01, f"{spent} statements"
    assert dict(report.requests) == {"list": 20}
    assert list(catalog.scan(of.dataset.id)) == rows, "no row was written"


def test_a_first_sweep_costs_few_statements_as_well(catalog: SqlCatalog) -> None:
    of = reconciler(catalog, memory_bucket(numbered(20_000)))
    statements = catalog.db.statements
    of.sweep()
    assert (catalog.db.statements - statements) / 20_000 <= 0.01


def test_changed_keeps_id_and_labels_and_is_marked(catalog: SqlCatalog) -> None:
    of = swept(catalog, numbered(3000))
    for key in ("000001", "002999"):
        catalog.annotate(of.dataset.id, key, {"label": "cat"})
    before = {item.key: item.id for item in catalog.items(of.dataset.id)}
    put(of.bucket, "000001", b"other bytes")
    put(of.bucket, "002999", b"2999")  # a new version of the same bytes
    report = of.sweep()
    assert counts(report) == {"changed": 2}
    assert report.same == 2998
    assert_equal(of)
    assert {item.key: item.id for item in catalog.items(of.dataset.id)} == before
    one, other = (catalog.item(of.dataset.id, key) for key in ("000001", "002999"))
    assert (one.annotations, one.changed_since_annotated) == (1, True)
    assert (other.annotations, other.changed_since_annotated) == (1, False)
    assert report.requests["head"] == 2


def test_removed_goes_to_the_trash_and_comes_back(catalog: SqlCatalog) -> None:
    of = swept(catalog, numbered(2500))
    catalog.annotate(of.dataset.id, "000700", {"label": "cat"})
    item = catalog.item(of.dataset.id, "000700").id
    drop(of.bucket, "000700", "002499")
    assert counts(of.sweep()) == {"removed": 2}
    assert trash(of) == ["000700", "002499"]
    assert_equal(of)
    assert counts(of.sweep()) == {}, "a tombstone is no difference"
    put(of.bucket, "000700", b"700")
    report = of.sweep()
    assert counts(report) == {"added": 1}
    back = catalog.item(of.dataset.id, "000700")
    assert (back.id, back.annotations, back.changed_since_annotated) == (item, 1, False)
    assert trash(of) == ["002499"]
    assert_equal(of)


def test_a_noted_key_that_is_back_is_not_removed(catalog: SqlCatalog) -> None:
    """The listing lacked it, the look before removing finds it."""

    class Late(MemoryDriver):
        def stat(self, key: str) -> ObjectInfo:
            if key == "b":
                self.put("b", io.BytesIO(b"back"))
            return super().stat(key)

    driver = Late()
    of = reconciler(catalog, memory_bucket({"a": b"1", "b": b"2", "c": b"3"}, driver=driver))
    of.sweep()
    drop(of.bucket, "b")
    report = of.sweep()
    assert report.removed == 0
    assert_equal(of)


@pytest.mark.parametrize("gone_from", [0, 15_000, 30_000 - 10_000])
def test_ten_thousand_neighbours_vanish(catalog: SqlCatalog, gone_from: int) -> None:
    """More rows between two listed keys than a page holds."""
    names = list(numbered(30_000))
    of = reconciler(catalog, memory_bucket())
    catalog.insert_new(of.dataset.id, [info(name) for name in names])
    gone = set(names[gone_from : gone_from + 10_000])
    kept = [info(name) for name in names if name not in gone]

    class Canned(MemoryDriver):
        def list(self, prefix="", *, after=None, until=None):  # type: ignore[no-untyped-def]
            for start in range(0, len(kept), 700):
                yield kept[start : start + 700]

        def stat(self, key: str) -> ObjectInfo:
            raise NotFound("gone", resource=key)

    bucket = Bucket(Canned(), DriverSpec(type="memory", bucket="box"), url="memory://box")
    seen: list[str] = []
    listed = 0
    last = ""
    for difference in differences(bucket, catalog, of.dataset.id):
        assert len(difference.missing) <= 2 * 1000 + 700 + catalog.span
        assert difference.last > last
        last = difference.last
        assert difference.new == difference.changed == []
        seen += [r.key for r in difference.missing]
        listed += difference.listed
    assert seen == sorted(gone)
    assert listed == len(kept)
    report = Reconciler(catalog, of.dataset, bucket).sweep(max_deletes=10_000)
    assert counts(report) == {"removed": 10_000}
    assert list(live(catalog, of.dataset)) == [o.key for o in kept]


# -- moves ---------------------------------------------------------------------------------------


def label(of: Reconciler, key: str) -> str:
    of.catalog.annotate(of.dataset.id, key, {"label": key})
    return of.catalog.item(of.dataset.id, key).id


def rename(of: Reconciler, old: str, new: str) -> None:
    with of.bucket.open(old) as stream:
        put(of.bucket, new, stream.read())
    drop(of.bucket, old)


@pytest.mark.parametrize("new", ["aa", "zz"])
def test_a_move_keeps_the_item(catalog: SqlCatalog, new: str) -> None:
    of = swept(catalog, {"m": b"picture", "n": b"other"})
    item = label(of, "m")
    rename(of, "m", new)
    told: list[Outcome] = []
    report = of.sweep(on_outcome=told.append)
    assert counts(report) == {"moved": 1}
    assert told[-1] == Outcome(new, Action.MOVED, source="m")
    moved = catalog.item(of.dataset.id, new)
    assert (moved.id, moved.annotations, moved.changed_since_annotated) == (item, 1, False)
    assert trash(of) == []
    assert_equal(of)
    assert counts(of.sweep()) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": b"same", "b": b"same"}, {"x": b"same"}),
        ({"a": b"same"}, {"x": b"same", "y": b"same"}),
        ({"a": b"same", "b": b"same"}, {"x": b"same", "y": b"same"}),
        ({"a": b"one"}, {"x": b"two"}),
        ({"a": b"one"}, {"x": b"longer"}),
        ({"a": b""}, {"x": b""}),
    ],
    ids=["two to one", "one to two", "two to two", "other bytes", "other size", "empty"],
)
def test_what_is_not_surely_a_move_is_none(
    catalog: SqlCatalog, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    of = swept(catalog, {"keep": b"keep", **before})
    ids = {key: label(of, key) for key in before}
    for key, body in after.items():
        put(of.bucket, key, body)
    drop(of.bucket, *before)
    report = of.sweep()
    assert counts(report) == {"added": len(after), "removed": len(before)}
    assert trash(of) == sorted(before)
    assert {key: catalog.item(of.dataset.id, key).id for key in before} == ids
    assert all(catalog.item(of.dataset.id, key).annotations == 0 for key in after)
    assert_equal(of)


def test_a_renamed_folder_is_no_removal_however_large(catalog: SqlCatalog) -> None:
    names = [f"{n:04}" for n in range(2500)]
    of = swept(catalog, {f"old/{name}": name.encode() for name in names})
    item = label(of, "old/0007")
    for name in names[:2400]:
        put(of.bucket, f"new/{name}", name.encode())
    drop(of.bucket, *(f"old/{name}" for name in names))
    report = of.sweep(max_deletes=100)
    assert (counts(report), report.refused) == ({"moved": 2400, "removed": 100}, None)
    assert (catalog.item(of.dataset.id, "new/0007").id, trash(of)) == (
        item,
        [f"old/{n}" for n in names[2400:]],
    )
    assert_equal(of)


def test_a_move_does_not_lift_the_cap_for_what_is_gone(catalog: SqlCatalog) -> None:
    of = swept(catalog, {name: name.encode() for name in "abcdef"})
    rename(of, "a", "z")
    drop(of.bucket, "b", "c", "d")
    report = of.sweep(max_deletes=2)
    assert report.refused == "3 items would be removed, more than the 2 allowed"
    assert (counts(report), trash(of)) == ({"moved": 1}, [])


def test_a_store_that_tells_no_hash_has_no_moves(catalog: SqlCatalog) -> None:
    class Multipart(MemoryDriver):
        def list(self, prefix="", *, after=None, until=None):  # type: ignore[no-untyped-def]
            for page in super().list(prefix, after=after, until=until):
                yield [found._replace(content_id=None) for found in page]

        def stat(self, key: str) -> ObjectInfo:
            return super().stat(key)._replace(content_id=None)

    of = reconciler(catalog, memory_bucket({"a": b"big", "k": b"k"}, driver=Multipart()))
    of.sweep()
    rename(of, "a", "z")
    assert counts(of.sweep()) == {"added": 1, "removed": 1}
    assert trash(of) == ["a"]
    assert_equal(of)


def test_over_a_tombstone_nothing_moves_and_nothing_is_lost(catalog: SqlCatalog) -> None:
    """A key that was an item before gets that item back; the other one is kept in the trash."""
    of = swept(catalog, {"a": b"first", "b": b"second", "k": b"k"})
    first, second = label(of, "a"), label(of, "b")
    drop(of.bucket, "a")
    of.sweep()
    rename(of, "b", "a")
    planned = Report()
    list(of.plan(planned))
    report = of.sweep()
    assert counts(report) == counts(planned) == {"added": 1, "removed": 1}
    assert catalog.item(of.dataset.id, "a").id == first
    assert catalog.item(of.dataset.id, "a").changed_since_annotated
    assert (trash(of), catalog.item(of.dataset.id, "b").id) == (["b"], second)
    assert_equal(of)


def test_moved_there_and_back_and_there(catalog: SqlCatalog) -> None:
    of = swept(catalog, {"a": b"picture", "k": b"k"})
    label(of, "a")
    for old, new in (("a", "b"), ("b", "a"), ("a", "b")):
        rename(of, old, new)
        of.sweep()
        assert_equal(of)
    labels = [
        i.annotations for trashed in (True, False) for i in catalog.items(of.dataset.id, trashed=trashed)
    ]
    assert sum(labels) == 1, "the label is still somewhere"


def test_a_vanished_key_that_is_back_does_not_move(catalog: SqlCatalog) -> None:
    """Its copy was listed and it was not; by the time of pairing it is there again."""

    class Late(MemoryDriver):
        late = False

        def stat(self, key: str) -> ObjectInfo:
            if key == "m" and self.late:
                self.late = False
                self.put("m", io.BytesIO(b"picture"))
            return super().stat(key)

    driver = Late()
    of = reconciler(catalog, memory_bucket({"m": b"picture", "n": b"n"}, driver=driver))
    of.sweep()
    item = label(of, "m")
    rename(of, "m", "z")
    driver.late = True
    assert of.sweep().moved == 0
    assert catalog.item(of.dataset.id, "m").id == item
    assert catalog.item(of.dataset.id, "z").annotations == 0
    assert_equal(of)


# -- caps ----------------------------------------------------------------------------------------


def lost(of: Reconciler, count: int) -> None:
    drop(of.bucket, *[f"{n:06}" for n in range(count)])


@pytest.mark.parametrize(
    ("size", "gone", "cap", "refused"),
    [
        (1500, 1000, None, False),
        (1500, 1001, None, True),
        (11_000, 1100, None, False),
        (11_000, 1101, None, True),
        (20, 5, 5, False),
        (20, 5, 4, True),
        (20, 1, 0, True),
        (20, 0, 0, False),
        (20, 20, None, True),
        (20, 20, 20, False),
        (20, 19, None, False),
    ],
)
def test_a_sweep_that_would_remove_too_much_removes_nothing(
    catalog: SqlCatalog, size: int, gone: int, cap: int | None, refused: bool
) -> None:
    of = swept(catalog, numbered(size))
    lost(of, gone)
    report = of.sweep(max_deletes=cap)
    state = catalog.runs()[0].state
    if refused:
        assert (state, report.removed, catalog.count(of.dataset.id)) == ("refused", 0, size)
        assert report.refused is not None and str(gone) in report.refused
        assert trash(of) == []
        put(of.bucket, "new")
        again = of.sweep(max_deletes=0)
        assert (again.added, again.removed) == (1, 0)
        assert again.resumed_after is None, "the next one begins at the beginning"
        assert of.sweep(max_deletes=gone).removed == gone
    else:
        assert (state, report.removed, report.refused) == ("done", gone, None)
    assert_equal(of)


# -- failures ------------------------------------------------------------------------------------


class Picky(MemoryDriver):
    """Fails for some keys."""

    bad: set[str] = set()  # noqa: RUF012

    def stat(self, key: str) -> ObjectInfo:
        if key in self.bad:
            raise AccessDenied("no s3:GetObject", resource=key, permission="s3:GetObject")
        return super().stat(key)


def test_a_failing_key_is_quarantined_and_the_others_go_on(catalog: SqlCatalog) -> None:
    driver = Picky()
    of = reconciler(catalog, memory_bucket(numbered(50), driver=driver))
    of.sweep()
    for n in range(20):
        put(of.bucket, f"{n:06}", b"new")
    drop(of.bucket, *[f"{n:06}" for n in range(30, 40)])
    driver.bad = {"000003", "000033"}
    told: list[Outcome] = []
    report = of.sweep(on_outcome=told.append)
    assert counts(report) == {"changed": 19, "removed": 9, "failed": 2}
    assert [(o.key, o.error) for o in told if o.action is Action.FAILED] == [
        ("000003", "no s3:GetObject"), ("000033", "no s3:GetObject"),
    ]  # fmt: skip
    assert catalog.runs()[0].state == "done"
    assert [(q.key, q.error, q.attempts) for q in catalog.quarantined()] == [
        ("000003", "AccessDenied", 1), ("000033", "AccessDenied", 1),
    ]  # fmt: skip
    assert "000033" in live(catalog, of.dataset), "not known to be gone, so not gone"
    of.sweep()
    assert [q.attempts for q in catalog.quarantined()] == [2, 2]
    driver.bad = {"000033"}
    assert of.settle("000003").action is Action.CHANGED
    assert catalog.release(of.dataset.id, ["000003"]) == 1
    assert [q.key for q in catalog.quarantined()] == ["000033"]
    driver.bad = set()
    assert counts(of.sweep()) == {"removed": 1}
    assert catalog.quarantined() == []
    assert_equal(of)


def test_settle_raises_what_the_bucket_says_and_writes_nothing(catalog: SqlCatalog) -> None:
    driver = Picky()
    of = reconciler(catalog, memory_bucket({"a": b"1"}, driver=driver))
    of.sweep()
    driver.bad = {"a", "b"}
    for key in "ab":
        with pytest.raises(AccessDenied):
            of.settle(key)
    assert [(r.key, r.rev) for r in catalog.scan(of.dataset.id)] == [("a", 1)]


def test_a_bucket_that_is_gone_says_nothing_about_its_objects(catalog: SqlCatalog) -> None:
    class Gone(MemoryDriver):
        gone = False

        def list(self, prefix="", *, after=None, until=None):  # type: ignore[no-untyped-def]
            if self.gone:
                raise NotFound("no bucket", resource="box")
            yield from super().list(prefix, after=after, until=until)

        def stat(self, key: str) -> ObjectInfo:
            if self.gone:
                raise NotFound("no bucket", resource="box")
            return super().stat(key)

    driver = Gone()
    of = reconciler(catalog, memory_bucket({"a": b"1", "box": b"2"}, driver=driver))
    of.sweep()
    driver.gone = True
    for key in ("a", "box"):
        with pytest.raises(NotFound):
            of.settle(key)
    with pytest.raises(NotFound):
        of.sweep()
    assert catalog.count(of.dataset.id) == 2


def test_a_key_that_is_called_like_its_bucket_can_go(catalog: SqlCatalog) -> None:
    of = swept(catalog, {"a": b"1", "box": b"2", "c": b"3"})
    drop(of.bucket, "box")
    assert counts(of.sweep()) == {"removed": 1}
    assert_equal(of)


def test_settle_tries_again_when_somebody_was_faster(catalog: SqlCatalog) -> None:
    of = swept(catalog, {"a": b"1"})
    looks = []
    real = of.bucket.stat

    def stat(key: str) -> ObjectInfo:
        found = real(key)
        if len(looks) < 3:
            rev = catalog.get(of.dataset.id, key).rev
            catalog.settle(of.dataset.id, key, found, expect_rev=rev)
        looks.append(key)
        return found

    of.bucket.stat = stat  # type: ignore[method-assign]
    assert of.settle("a").action is Action.SAME
    assert len(looks) == 4, "the object is looked at again each time"


def test_settle_gives_up_at_last(catalog: SqlCatalog) -> None:
    of = swept(catalog, {"a": b"1"})
    calls = []

    def settle(*_: object, **__: object) -> Row:
        calls.append(1)
        raise Conflict("always", resource="a")

    catalog.settle = settle  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        of.settle("a")
    assert len(calls) == 20


# -- plan and check ------------------------------------------------------------------------------


def disturbed(catalog: SqlCatalog) -> Reconciler:
    """Everything that can happen, between two sweeps."""
    of = swept(catalog, numbered(2100), page_size=100)
    drop(of.bucket, "000005")
    of.sweep()
    put(of.bucket, "000005", b"back")
    put(of.bucket, "000100", b"changed")
    put(of.bucket, "zz/new", b"new")
    put(of.bucket, "folder/", b"")
    drop(of.bucket, "000010", "002099")
    rename(of, "000011", "moved/11")
    return of


EXPECTED = {"added": 2, "changed": 1, "moved": 1, "removed": 2}


def outcomes(told: list[Outcome]) -> set[tuple[str, str]]:
    """Without the halves of a move, which a plan tells one by one first."""
    moves = {o.source for o in told if o.action is Action.MOVED}
    return {(o.action.value, o.key) for o in told if not (o.action is Action.REMOVED and o.key in moves)}


def test_plan_is_what_the_sweep_does(catalog: SqlCatalog) -> None:
    of = disturbed(catalog)
    planned, told = Report(), []
    plan = list(of.plan(planned))
    report = of.sweep(on_outcome=told.append)
    assert outcomes(plan) == outcomes(told)
    assert counts(planned) == counts(report) == EXPECTED
    assert planned.listed == report.listed
    assert planned.ignored == report.ignored == 1
    assert planned.drift == report.drift == 6
    assert_equal(of)
    assert list(of.plan()) == []


def rows_at_rest(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


def test_plan_and_check_write_nothing(catalog: SqlCatalog, tmp_path: Path) -> None:
    of = disturbed(catalog)
    before = rows_at_rest(tmp_path / "catalog.db")
    bucket_before = stored(of.bucket)
    assert list(of.plan())
    assert list(of.check())
    assert rows_at_rest(tmp_path / "catalog.db") == before
    assert stored(of.bucket) == bucket_before


def test_check_tells_the_differences(catalog: SqlCatalog) -> None:
    of = disturbed(catalog)
    report = Report()
    told = [(o.action.value, o.key) for o in of.check(report)]
    assert told == [
        ("+", "000005"), ("-", "000010"), ("-", "000011"), ("*", "000100"), ("-", "002099"),
        ("+", "moved/11"), ("+", "zz/new"),
    ]  # fmt: skip
    assert report.listed == 2099
    assert report.same == 2099 - 4
    of.sweep()
    assert list(of.check()) == []


def test_check_confirms_before_it_complains(catalog: SqlCatalog) -> None:
    """A handler settles a key between the listing and the second look: no drift."""
    of = swept(catalog, numbered(10))
    put(of.bucket, "new", b"new")
    put(of.bucket, "000003", b"changed")
    drop(of.bucket, "000007")
    put(of.bucket, "drift", b"drift")
    real, done = catalog.get, set()

    def get(dataset: str, key: str) -> Row | None:
        if key in ("new", "000003", "000007") and key not in done:
            done.add(key)
            of.settle(key)
        return real(dataset, key)

    catalog.get = get  # type: ignore[method-assign]
    report = Report()
    assert [(o.action, o.key) for o in of.check(report)] == [(Action.ADDED, "drift")]
    assert (report.drift, report.same, report.listed) == (1, 10, 11)


def test_check_confirms_only_the_first_thousand(catalog: SqlCatalog) -> None:
    of = reconciler(catalog, memory_bucket(numbered(1500)))
    report = Report()
    assert len(list(of.check(report))) == 1500
    assert report.requests["head"] == 1000


def test_markers_are_counted_as_ignored(catalog: SqlCatalog) -> None:
    of = reconciler(catalog, memory_bucket({"a/": b"", "a/b/": b"", "a/c/": b"bytes", "a/d": b""}))
    report = of.sweep()
    assert (report.ignored, report.added, report.listed) == (2, 2, 2)
    assert of.settle("a/").action is Action.SAME
    assert sorted(live(catalog, of.dataset)) == ["a/c/", "a/d"]


# -- sweeps that meet, stop and go on ------------------------------------------------------------


def test_a_second_sweep_conflicts_and_names_the_holder(catalog: SqlCatalog) -> None:
    of = swept(catalog, numbered(10))
    caught: list[Exception] = []

    def second(_: Report) -> None:
        try:
            of.sweep()
        except Conflict as error:
            caught.append(error)

    of.sweep(on_progress=second)
    assert caught
    assert "being swept by" in str(caught[0])
    assert catalog.runs()[0].holder in str(caught[0])
    assert [run.state for run in catalog.runs()] == ["done", "done"]


def test_ctrl_c_ends_cleanly_and_the_next_sweep_goes_on(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", 0.0)
    monkeypatch.setattr(catalog, "span", 1)
    of = swept(catalog, numbered(50, "gone/"), page_size=100)
    drop(of.bucket, *numbered(3, "gone/"))
    for name in numbered(3000):
        put(of.bucket, name)
    told: list[Outcome] = []
    pressed = threading.Event()

    def progress(report: Report) -> None:
        if report.listed >= 1000 and not pressed.is_set():
            pressed.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        of.sweep(on_progress=progress, on_outcome=told.append)
    broken = catalog.runs()[0]
    assert (broken.state, broken.cursor) == ("interrupted", "000999")
    assert len(told) == len({o.key for o in told}) == 1000, "nothing is told twice"
    assert broken.report.added == 1000, "nothing is counted twice"
    asked: list[str | None] = []
    driver = of.bucket.driver
    real = driver.list

    def listing(prefix: str = "", *, after: str | None = None, until: str | None = None):  # type: ignore[no-untyped-def]
        asked.append(after)
        return real(prefix, after=after, until=until)

    driver.list = listing  # type: ignore[method-assign]
    report = of.sweep()
    assert asked == ["000999"]
    assert report.resumed_after == "000999"
    assert (report.listed, counts(report)) == (3047, {"added": 3000, "removed": 3})
    assert [run.state for run in catalog.runs()][:2] == ["done", "resumed"]
    del driver.list
    assert_equal(of)


@pytest.mark.parametrize("resume", [True, False])
def test_missing_keys_noted_before_the_stop_are_removed_after_it(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", 0.0)
    monkeypatch.setattr(catalog, "span", 1)
    of = swept(catalog, numbered(3000), page_size=100)
    lost(of, 50)
    rename(of, "000060", "000060-renamed")
    put(of.bucket, "002998-new", b"x")

    def progress(report: Report) -> None:
        if report.listed >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        of.sweep(on_progress=progress)
    assert catalog.count(of.dataset.id) == 3001, "nothing is removed before the listing has ended"
    report = of.sweep(resume=resume)
    assert (report.resumed_after is not None) is resume
    assert report.removed == (50 if resume else 51)
    assert report.moved == (1 if resume else 0), "a pair is known only to the listing that found it"
    assert_equal(of)


def test_a_bug_in_a_callback_ends_the_run_as_failed(catalog: SqlCatalog) -> None:
    of = reconciler(catalog, memory_bucket(numbered(10)))

    def broken(_: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        of.sweep(on_outcome=broken)
    assert (catalog.runs()[0].state, catalog.runs()[0].error) == ("failed", "ZeroDivisionError")
    of.sweep()
    assert_equal(of)


def test_a_sweep_that_was_taken_over_stops(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", 0.0)
    of = swept(catalog, numbered(500), page_size=100)
    lost(of, 5)

    def steal(_: Report) -> None:
        catalog.db.sql("UPDATE run SET state = 'interrupted' WHERE state = 'running'")

    with pytest.raises(Conflict, match="taken over"):
        of.sweep(on_progress=steal)
    assert catalog.count(of.dataset.id) == 500
    of.sweep()
    assert_equal(of)


def test_a_catalog_that_stays_locked_is_transient(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = reconciler(catalog, memory_bucket(numbered(10)))

    def locked(*_: object, **__: object) -> list[str]:
        raise Transient("locked")

    with monkeypatch.context() as patched:
        patched.setattr(catalog, "insert_new", locked)
        with pytest.raises(Transient):
            of.sweep()
    assert catalog.runs()[0].state == "failed"
    of.sweep()
    assert_equal(of)
