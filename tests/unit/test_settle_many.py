"""Many keys settled at once, and everything below a prefix."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.drivers import Bucket
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import AccessDenied, Conflict, InvalidInput, SyncAgentError, Transient
from syncagent.model import Action, DriverSpec, ObjectInfo, Outcome, Row
from syncagent.reconcile import Reconciler, _Renames
from tests.engine import assert_equal, drop, info, live, memory_bucket, put, reconciler
from tests.keys import NASTY
from tests.rigs.catalogs import open_at


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlCatalog]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    with open_at(tmp_path / "catalog.db", timeout=1.0) as one:
        yield one


def told(results: list[Outcome | SyncAgentError]) -> list[str]:
    return [r.action.value if isinstance(r, Outcome) else type(r).__name__ for r in results]


def test_each_key_gets_what_settle_would_give_it(catalog: SqlCatalog) -> None:
    bucket = memory_bucket({"same": b"1", "changed": b"1", "gone": b"1"})
    of = reconciler(catalog, bucket)
    of.sweep()
    put(bucket, "new")
    put(bucket, "changed", b"22")
    drop(bucket, "gone")
    keys = ["never", "gone", "", "changed", "same", "new"]
    assert told(of.settle_many(keys)) == ["=", "-", "InvalidInput", "*", "=", "+"]
    assert_equal(of)
    row = catalog.get(of.dataset.id, "same")
    assert row is not None
    assert row.rev == 2, "always written, also when nothing changed"
    assert catalog.get(of.dataset.id, "never") is not None, "a tombstone for a key never seen"
    assert of.settle_many([]) == []


@pytest.mark.parametrize("seed", range(30))
def test_random_histories_converge(catalog: SqlCatalog, seed: int) -> None:
    rng = random.Random(seed)
    bucket = memory_bucket(page_size=rng.choice([1, 7, 1000]))
    of = reconciler(catalog, bucket)
    names = [*NASTY, *(f"dense/{n:03}" for n in range(80))]
    for _ in range(4):
        touched = rng.sample(names, rng.randrange(1, len(names)))
        for key in touched:
            if rng.random() < 0.4:
                drop(bucket, key)
            else:
                put(bucket, key, rng.randbytes(rng.randrange(3)))
        of.settle_many(rng.sample(touched, len(touched)))
        assert_equal(of)


def test_keys_that_lie_close_together_are_looked_at_by_listing(catalog: SqlCatalog) -> None:
    names = [f"{n:05}.jpg" for n in range(2500)]
    bucket = memory_bucket(dict.fromkeys(names, b"1"))
    of = reconciler(catalog, bucket)
    random.Random(1).shuffle(names)
    for wanted in "+=":
        bucket.driver.requests.clear()
        assert set(told(of.settle_many(names))) == {wanted}
        assert bucket.driver.requests["list"] <= 4
        assert bucket.driver.requests["head"] <= 4, "none came too late, to be settled once more"
    assert_equal(of)


def test_a_bucket_that_lists_in_no_order_is_not_listed(catalog: SqlCatalog) -> None:
    """It would be listed whole, to be sorted on disk, for every batch of events."""
    spec = DriverSpec(type="memory", bucket="box", options={"sorted": "no"})
    bucket = Bucket(MemoryDriver(), spec, url="memory://box?sorted=no")
    names = [f"{n:03}" for n in range(100)]
    for name in names:
        put(bucket, name)
    of = reconciler(catalog, bucket)
    of.settle_many(names)
    assert bucket.driver.requests["list"] == 0
    assert_equal(of)


def test_keys_far_apart_are_looked_at_one_by_one(catalog: SqlCatalog) -> None:
    bucket = memory_bucket({f"{n:06}": b"" for n in range(60_000)})
    of = reconciler(catalog, bucket)
    for start in range(3):
        bucket.driver.requests.clear()
        of.settle_many([f"{n:06}" for n in range(start, 60_000, 2000)])
        assert bucket.driver.requests["head"] >= 28
        assert bucket.driver.requests["list"] == (not start), "it is not tried again and again"
    assert len(live(catalog, of.dataset)) == 90


def test_what_fails_stands_in_its_place_and_the_others_go_on(catalog: SqlCatalog) -> None:
    class Denies(MemoryDriver):
        def stat(self, key: str) -> ObjectInfo:
            if key == "b":
                raise AccessDenied("no", resource=key)
            return super().stat(key)

        def list(self, *args: object, **options: object) -> Iterator[list[ObjectInfo]]:
            raise AccessDenied("no listing")

    bucket = memory_bucket(dict.fromkeys("abcdefghijklmnopqrstuvwxyz", b""), driver=Denies())
    of = reconciler(catalog, bucket)
    results = of.settle_many(list("abcdefghijklmnopqrstuvwxyz"))
    assert told(results) == ["+", "AccessDenied", *"+" * 24]
    assert catalog.get(of.dataset.id, "b") is None


def test_one_that_comes_too_late_is_settled_again(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = memory_bucket({"a": b"1", "b": b"1"})
    of = reconciler(catalog, bucket)
    real = catalog.settle_many

    def slow(dataset: str, settles: list) -> list:
        put(bucket, "a", b"newer")
        of.settle("a")
        return real(dataset, settles)

    monkeypatch.setattr(catalog, "settle_many", slow)
    assert told(of.settle_many(["a", "b"])) == ["=", "+"]
    assert_equal(of)


def test_a_catalog_that_is_down_is_told_for_every_key(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = reconciler(catalog, memory_bucket({"a": b"1", "b": b"1"}))

    def down(*_: object) -> list:
        raise Transient("locked")

    for name in ("rows", "settle_many"):
        with monkeypatch.context() as patch:
            patch.setattr(catalog, name, down)
            assert told(of.settle_many(["a", "b"])) == ["Transient", "Transient"]
    assert told(of.settle_many(["a", "b"])) == ["+", "+"]


def test_below_a_prefix_everything_that_differs_is_settled(catalog: SqlCatalog) -> None:
    bucket = memory_bucket({
        "dir": b"", "dir-": b"", "dir/gone": b"", "dir/same": b"", "dir/\U0010fffd": b"", "dir0": b"", "dis": b"",
    })  # fmt: skip
    of = reconciler(catalog, bucket)
    of.sweep()
    outside = ["dir", "dir-", "dir0"]
    drop(bucket, "dir/gone", "dir/\U0010fffd", *outside)
    put(bucket, "dir/new")
    pages: list[None] = []
    done = list(of.settle_below("dir/", on_page=lambda: pages.append(None)))
    assert sorted((o.key, o.action) for o in done if isinstance(o, Outcome)) == [
        ("dir/gone", Action.REMOVED), ("dir/new", Action.ADDED), ("dir/\U0010fffd", Action.REMOVED),
    ]  # fmt: skip
    assert pages
    assert set(outside) <= live(catalog, of.dataset).keys(), "what is outside is not looked at"
    for key in outside:
        of.settle(key)
    assert_equal(of)


def test_below_no_prefix_is_everything(catalog: SqlCatalog) -> None:
    bucket = memory_bucket({"a": b"", "b/c": b""})
    of = reconciler(catalog, bucket)
    assert len(list(of.settle_below(""))) == 2
    assert_equal(of)


def test_below_a_prefix_it_ends_where_the_caller_says_so(catalog: SqlCatalog) -> None:
    bucket = memory_bucket({f"d/{n:04}": b"" for n in range(3000)}, page_size=1000)
    of = reconciler(catalog, bucket)
    catalog.span = 1
    left = iter(range(1))

    def stop() -> None:
        if next(left, None) is None:
            raise Conflict("no time left")

    with pytest.raises(Conflict):
        list(of.settle_below("d/", on_page=stop))
    assert len(live(catalog, of.dataset)) == 1000, "what was done stays done"


@pytest.mark.parametrize(
    "bad", ["x" * 2000, "nul\0", "\ud800", ""], ids=["long", "nul", "surrogate", "empty"]
)
@pytest.mark.parametrize("others", [0, 1, 40])
def test_a_key_that_no_store_could_hold_is_an_error_of_its_own(
    catalog: SqlCatalog, bad: str, others: int
) -> None:
    """Also among so many that they are looked at by listing: it gets no row, and stops nobody else."""
    names = [f"{n:02}" for n in range(others)]
    of = reconciler(catalog, memory_bucket(dict.fromkeys(names, b"")))
    assert told(of.settle_many([*names, bad])) == ["+"] * others + ["InvalidInput"]
    assert [row.key for row in catalog.scan(of.dataset.id)] == names
    with pytest.raises(InvalidInput):
        of.settle(bad)
    if bad:
        with pytest.raises(InvalidInput):
            list(of.settle_below(bad))


@pytest.mark.parametrize("prefix", ["d/", "d/\U0010ffff", "\ud7ff", "\U0010ffff"])
def test_below_a_prefix_nothing_is_left_out(catalog: SqlCatalog, prefix: str) -> None:
    inside = [prefix, prefix + "a", prefix + "\U0010ffff", prefix + "\U0010ffff\U0010ffffz", prefix + "é"]
    outside = ["c", "d.", "d0", "\ue000", "d\U0010ffff"]
    bucket = memory_bucket(dict.fromkeys([*inside, *outside], b"bytes"))
    of = reconciler(catalog, bucket)
    list(of.settle_below(prefix))
    wanted = {key for key in [*inside, *outside] if key.startswith(prefix)}
    assert live(catalog, of.dataset).keys() == wanted
    drop(bucket, *inside)
    list(of.settle_below(prefix))
    assert not live(catalog, of.dataset).keys() & set(inside)
    assert list(of.settle_below(prefix)) == []


# -- renames -------------------------------------------------------------------------------------


def labelled(of: Reconciler, key: str) -> str:
    """Give an item a label; its id."""
    of.catalog.annotate(of.dataset.id, key, {"label": "cat", "type": "class"})
    return of.catalog.item(of.dataset.id, key).id


@pytest.mark.parametrize("order", [["old", "new"], ["new", "old"], ["together"]])
def test_a_renamed_object_keeps_its_item_whichever_event_comes_first(
    tmp_path: Path, order: list[str]
) -> None:
    with open_at(tmp_path / "c.db") as catalog:
        bucket = memory_bucket()
        of = Reconciler(catalog, catalog.ensure_dataset("d", bucket.spec), bucket)
        put(bucket, "old", b"bytes")
        put(bucket, "other", b"others")
        of.settle_many(["old", "other"])
        item = labelled(of, "old")
        drop(bucket, "old")
        put(bucket, "new", b"bytes")
        last: list[object] = []
        for step in order:
            last = list(of.settle_many(["new", "old"] if step == "together" else [step]))
        assert Action.MOVED in {one.action for one in last if isinstance(one, Outcome)} or order[-1] == "old"
        kept = catalog.item(of.dataset.id, "new")
        assert (kept.id, kept.annotations, kept.removed_at) == (item, 1, None)
        assert [one.key for one in catalog.items(of.dataset.id)] == ["new", "other"]
        assert list(of.check()) == []


def test_a_rename_that_is_not_certain_is_none(tmp_path: Path) -> None:
    with open_at(tmp_path / "c.db") as catalog:
        bucket = memory_bucket()
        of = Reconciler(catalog, catalog.ensure_dataset("d", bucket.spec), bucket)
        for key in ("a", "b"):
            put(bucket, key, b"same")
        of.settle_many(["a", "b"])
        labelled(of, "a")
        for key in ("a", "b"):
            drop(bucket, key)
        put(bucket, "c", b"same")
        of.settle_many(["a", "b", "c"])
        assert catalog.item(of.dataset.id, "c").annotations == 0, "of which of the two?"
        put(bucket, "d", b"")
        put(bucket, "e", b"")
        of.settle_many(["d"])
        drop(bucket, "d")
        of.settle_many(["d", "e"])
        assert catalog.item(of.dataset.id, "d").removed_at is not None, "empty files are all alike"
        assert list(of.check()) == []


def test_renames_are_remembered_for_a_while_and_no_more_than_some() -> None:
    now = 0.0
    renames = _Renames(lambda: now)
    row = Row("old", "1", 1, 1, 5, "same")
    assert renames.pairs([(row, None)]) == []
    now = 121.0
    assert renames.pairs([(None, info("new")._replace(content_id="same", size=5))]) == []
    assert renames.pairs([(row, None)]) == [("old", "new")]
    for n in range(30_000):
        renames.pairs([(None, info(f"{n}")._replace(content_id=f"{n}", size=5))])
    assert len(renames._order) <= 10_001
    assert len(renames._new) <= 10_001
