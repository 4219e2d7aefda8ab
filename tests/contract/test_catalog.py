"""The contract of a catalog, over every catalog. A new one is right when this says so.

To add an implementation, add a `Made` for it to `made`.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from syncagent.catalog import Dataset, Store, open_catalog
from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.digest import Digest
from syncagent.errors import AccessDenied, AlreadyExists, ConfigError, Conflict, NotFound, Refused, Transient
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Settle
from syncagent.pages import ObjectPage
from tests.engine import Clock, info
from tests.keys import NASTY
from tests.rigs.catalogs import POSTGRES, url_of
from tests.rigs.postgres import rows_of, server
from tests.rigs.served import EMAIL, PASSWORD, BadNetwork, Served

SPEC = DriverSpec(type="memory", bucket="box", name="box")


class Made(ABC):
    """One place that holds a catalog; `open` connects to it, as often as wanted, each like a process."""

    tells_secrets = True
    """Whether the options of integrations come back. Where they do not, nothing here can open them wrongly."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stack = ExitStack()

    @abstractmethod
    def connect(self, *, secret_key: str | None = None) -> Store: ...

    @abstractmethod
    def raw(self) -> bytes:
        """Everything that is at rest."""

    def open(self, *, secret_key: str | None = None) -> Store:
        catalog = self.connect(secret_key=secret_key)
        self.stack.callback(catalog.close)
        return catalog


class MadeSqlite(Made):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "catalog.db"
        self.key_file = folder / "catalog.db.key"

    def connect(self, *, secret_key: str | None = None) -> Store:
        return SqliteCatalog(self.path, secret_key=secret_key, timeout=1.0, clock=self.clock)

    def raw(self) -> bytes:
        files = self.path.parent.glob(self.path.name + "*")
        return b"".join(file.read_bytes() for file in files if file != self.key_file)


class MadePostgres(Made):
    """A schema of a PostgreSQL server."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.url, self.key_file = server().schema(), folder / "catalog.key"

    def connect(self, *, secret_key: str | None = None) -> Store:
        return PostgresCatalog(
            self.url, secret_key=secret_key, secret_key_file=self.key_file, timeout=1.0, clock=self.clock
        )

    def raw(self) -> bytes:
        return rows_of(self.url)


class MadeServed(Made):
    """A server of ours, reached over HTTP."""

    tells_secrets = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.server = self.stack.enter_context(Served(folder / "catalog.db", self.clock))
        self.url = self.server.url

    def connect(self, *, secret_key: str | None = None) -> Store:
        return open_catalog(f"dataloop+{self.url}", username=EMAIL, password=SecretStr(PASSWORD))

    def raw(self) -> bytes:
        path = self.server.path
        if POSTGRES:
            return rows_of(url_of(path))
        return b"".join(
            file.read_bytes() for file in path.parent.glob(path.name + "*") if file.suffix != ".key"
        )


class MadeAfar(MadeServed):
    """The same over a network that misbehaves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = self.stack.enter_context(BadNetwork(self.server.url)).url


@pytest.fixture(params=["sqlite", "postgres", "served", "afar"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    kinds: dict[str, Callable[[Path], Made]] = {
        "sqlite": MadeSqlite, "postgres": MadePostgres, "served": MadeServed, "afar": MadeAfar,
    }  # fmt: skip
    one = kinds[request.param](tmp_path)
    with one.stack:
        yield one


@pytest.fixture
def catalog(made: Made) -> Store:
    return made.open()


@pytest.fixture
def dataset(catalog: Store) -> Dataset:
    return catalog.ensure_dataset("data", SPEC)


@pytest.fixture
def ds(dataset: Dataset) -> str:
    return dataset.id


def keys(catalog: Store, ds: str, **bounds: object) -> list[str]:
    return [row.key for row in catalog.scan(ds, **bounds)]


def grow(catalog: Store, ds: str, count: int) -> list[str]:
    names = [f"{n:06}" for n in range(count)]
    assert catalog.insert_new(ds, [info(name) for name in names]) == []
    return names


def trash(catalog: Store, ds: str, key: str) -> None:
    row = catalog.get(ds, key)
    assert row is not None
    catalog.settle(ds, key, None, expect_rev=row.rev)


def restore(catalog: Store, ds: str, found: ObjectInfo) -> None:
    row = catalog.get(ds, found.key)
    assert row is not None
    catalog.settle(ds, found.key, found, expect_rev=row.rev)


# -- get and scan --------------------------------------------------------------------------------


def test_get_of_a_key_never_seen_is_none(catalog: Store, ds: str) -> None:
    assert catalog.get(ds, "k") is None


def test_get_tells_what_was_written(catalog: Store, ds: str) -> None:
    found = info("k", "four")
    catalog.insert_new(ds, [found])
    row = catalog.get(ds, "k")
    assert row is not None
    assert (row.key, row.fingerprint, row.rev, row.size, row.content_id) == (
        "k", found.fingerprint, 1, 4, found.content_id,
    )  # fmt: skip
    assert row.item > 0


def test_an_unknown_dataset_is_not_found(catalog: Store) -> None:
    for call in (
        lambda: catalog.get("0" * 24, "k"),
        lambda: list(catalog.scan("0" * 24)),
        lambda: catalog.insert_new("0" * 24, [info("k")]),
        lambda: catalog.settle("0" * 24, "k", None, expect_rev=0),
        lambda: catalog.begin_run("0" * 24),
    ):
        with pytest.raises(NotFound, match="no dataset"):
            call()


def test_scan_is_in_byte_order_and_every_key_is_kept_as_it_is(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info(key, key) for key in sorted(NASTY, key=str.encode)])
    assert keys(catalog, ds) == sorted(NASTY, key=str.encode)
    for key in NASTY:
        row = catalog.get(ds, key)
        assert row is not None and row.key == key
        assert catalog.item(ds, key).filename == "/" + key


def test_scan_bounds_are_exclusive_below_and_inclusive_above_at_every_nasty_key(
    catalog: Store, ds: str
) -> None:
    ordered = sorted(NASTY, key=str.encode)
    catalog.insert_new(ds, [info(key) for key in ordered])
    for at, key in enumerate(ordered):
        assert keys(catalog, ds, after=key) == ordered[at + 1 :]
        assert keys(catalog, ds, until=key) == ordered[: at + 1]
    assert keys(catalog, ds, after=ordered[3], until=ordered[9]) == ordered[4:10]
    assert keys(catalog, ds, after=ordered[9], until=ordered[3]) == []


@pytest.mark.parametrize("by_column", [False, True])
def test_rows_are_unchanged_only_if_they_are_all_and_the_same(
    catalog: Store, ds: str, *, by_column: bool
) -> None:
    objects = [info(key, key) for key in sorted([*NASTY, "m\x01n", "m\x01o"], key=str.encode)]

    def unchanged(told: list[ObjectInfo], after: str | None = None) -> bool | None:
        return catalog.unchanged(ds, ObjectPage.of(told) if by_column else told, after=after)

    assert unchanged(objects) is None
    catalog.insert_new(ds, objects)
    assert unchanged(objects) is True
    assert unchanged(objects[:7]) is True, "what comes after the last is not asked for"
    assert unchanged(objects[7:], after=objects[6].key) is True
    assert unchanged(objects[7:]) is False, "a row too many before"
    assert unchanged([*objects[:3], *objects[4:]]) is False, "a row too many"
    assert unchanged([*objects[:9], info(objects[8].key + "+", "x"), *objects[9:]]) is False, "one too few"
    assert unchanged([*objects[:9], objects[9]._replace(fingerprint="other"), *objects[10:]]) is False
    assert unchanged([info("~~~")], after=objects[-1].key) is None
    gone = catalog.get(ds, objects[4].key)
    assert gone is not None
    catalog.settle(ds, gone.key, None, expect_rev=gone.rev)
    assert unchanged(objects[:7]) is False, "a tombstone is none"
    assert unchanged(objects[5:], after=gone.key) is True


@pytest.mark.parametrize("by_column", [False, True])
def test_texts_that_are_alike_when_joined_are_not_the_same(
    catalog: Store, ds: str, *, by_column: bool
) -> None:
    held = [info("a", fingerprint="1"), info("b\x01c", fingerprint="2")]
    catalog.insert_new(ds, held)
    for told in (
        [info("a\x01b", fingerprint="1"), info("c", fingerprint="2")],
        [info("a", fingerprint="1"), info("b", fingerprint="2"), info("c", fingerprint="3")],
        [info("a", fingerprint="1\x012"), info("b\x01c", fingerprint="")],
    ):
        assert not catalog.unchanged(ds, ObjectPage.of(told) if by_column else told, after=None)
    assert catalog.unchanged(ds, ObjectPage.of(held) if by_column else held, after=None)


@pytest.mark.parametrize("limit", [0, 1, 999, 1000, 1001, 2500, 4000])
def test_scan_limit(catalog: Store, ds: str, limit: int) -> None:
    names = grow(catalog, ds, 2500)
    assert keys(catalog, ds, limit=limit) == names[:limit]
    assert keys(catalog, ds, after=names[99], limit=limit) == names[100 : 100 + limit]


def test_scan_without_a_limit_gives_all(catalog: Store, ds: str) -> None:
    names = grow(catalog, ds, 6000)
    assert keys(catalog, ds) == names
    assert keys(catalog, ds, after=names[0], until=names[-2]) == names[1:-1]


def test_scan_includes_tombstones(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("a"), info("b")])
    trash(catalog, ds, "a")
    catalog.settle(ds, "never", None, expect_rev=0)
    rows = {row.key: row.fingerprint for row in catalog.scan(ds)}
    assert rows == {"a": None, "b": info("b").fingerprint, "never": None}


# -- digest --------------------------------------------------------------------------------------


def summed(rows: Iterable[tuple[str, str]]) -> Digest:
    """The digest as docs/scale.md tells it, by other means."""
    numbers = [
        int(hashlib.sha256(key.encode() + b"\0" + fingerprint.encode()).hexdigest()[:32], 16)
        for key, fingerprint in rows
    ]
    return Digest(len(numbers), sum(numbers) % 2**128)


def test_the_digest_of_nothing(catalog: Store, ds: str) -> None:
    assert catalog.digest(ds, after=None, until=None) == Digest(0, 0)
    catalog.settle(ds, "never", None, expect_rev=0)
    assert catalog.digest(ds, after=None, until="z") == Digest(0, 0)
    with pytest.raises(NotFound, match="no dataset"):
        catalog.digest("0" * 24, after=None, until=None)


def test_the_digest_is_of_keys_as_they_are_and_of_live_rows_only(catalog: Store, ds: str) -> None:
    names = sorted(NASTY, key=str.encode)
    catalog.insert_new(ds, [info(key, key) for key in [*names, "trashed"]])
    trash(catalog, ds, "trashed")
    assert catalog.digest(ds, after=None, until=None) == summed(
        (key, info(key, key).fingerprint) for key in names
    )


def test_the_digest_has_the_bounds_of_a_scan(catalog: Store, ds: str) -> None:
    names = sorted(NASTY, key=str.encode)
    catalog.insert_new(ds, [info(key) for key in names])
    whole = catalog.digest(ds, after=None, until=None)
    for at in range(0, len(names), 5):
        below = catalog.digest(ds, after=None, until=names[at])
        above = catalog.digest(ds, after=names[at], until=None)
        assert below == summed((key, info(key).fingerprint) for key in names[: at + 1])
        assert below + above == whole
    assert catalog.digest(ds, after=names[9], until=names[3]) == Digest(0, 0)


def test_the_digest_changes_with_what_is_settled(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("a"), info("b")])
    before = catalog.digest(ds, after=None, until=None)
    restore(catalog, ds, info("a", "newer"))
    assert catalog.digest(ds, after=None, until=None) == summed(
        [("a", info("a", "newer").fingerprint), ("b", info("b").fingerprint)]
    )
    restore(catalog, ds, info("a"))
    assert catalog.digest(ds, after=None, until=None) == before, "revisions are not part of it"


def test_a_digest_of_more_rows_than_one_statement_reads(
    catalog: Store, ds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("syncagent.catalog.sql.catalog", "syncagent.catalog.served"):
        monkeypatch.setattr(f"{module}._SUMMED", 10)
    names = grow(catalog, ds, 40)
    trash(catalog, ds, names[9])
    live = [(name, info(name).fingerprint) for name in names if name != names[9]]
    assert catalog.digest(ds, after=None, until=None) == summed(live)
    assert catalog.digest(ds, after=names[3], until=names[33]) == summed(live[4:33])


# -- insert_new ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 1000, 1001, 3210])
def test_insert_new_in_batches(catalog: Store, ds: str, count: int) -> None:
    names = grow(catalog, ds, count)
    assert keys(catalog, ds) == names
    assert catalog.count(ds) == count


def test_insert_new_returns_keys_that_had_a_row_and_leaves_them(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("000500", "old"), info("001500", "old"), info("002100", "gone")])
    trash(catalog, ds, "002100")
    catalog.settle(ds, "000007", None, expect_rev=0)
    had = ["000007", "000500", "001500", "002100"]
    before = [catalog.get(ds, key) for key in had]
    offered = [info(f"{n:06}", "new") for n in range(2500)]
    assert sorted(catalog.insert_new(ds, offered, run=7)) == had
    assert [catalog.get(ds, key) for key in had] == before
    assert len(keys(catalog, ds)) == 2500
    assert catalog.count(ds) == 2498


@pytest.mark.parametrize("count", [0, 1, 1001])
def test_insert_new_takes_a_page_by_column(catalog: Store, ds: str, count: int) -> None:
    """As a sweep gives it, where a driver's parser made columns."""
    offered = [info(f"{n:06}") for n in range(count)]
    assert catalog.insert_new(ds, ObjectPage.of(offered)) == []
    assert [(row.key, row.fingerprint) for row in catalog.scan(ds)] == [
        (one.key, one.fingerprint) for one in offered
    ]
    assert catalog.insert_new(ds, ObjectPage.of(offered)) == [one.key for one in offered]


@pytest.mark.parametrize("run", [0, 7])
def test_insert_new_again_returns_all_of_them(catalog: Store, ds: str, run: int) -> None:
    offered = [info(f"{n:06}") for n in range(1500)]
    assert catalog.insert_new(ds, offered, run=run) == []
    before = list(catalog.scan(ds))
    assert catalog.insert_new(ds, offered, run=run) == [found.key for found in offered]
    assert list(catalog.scan(ds)) == before


def test_insert_new_takes_any_order(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("m", "old")])
    assert catalog.insert_new(ds, [info("z"), info("m"), info("a")]) == ["m"]
    assert keys(catalog, ds) == ["a", "m", "z"]


def test_two_datasets_do_not_see_each_other(catalog: Store, ds: str) -> None:
    other = catalog.ensure_dataset("other", DriverSpec(type="memory", bucket="other")).id
    catalog.insert_new(ds, [info("k", "one"), info("l", "one")])
    assert catalog.insert_new(other, [info("k", "two")]) == []
    assert keys(catalog, other) == ["k"]
    trash(catalog, other, "k")
    assert catalog.count(other) == 0
    row = catalog.get(ds, "k")
    assert row is not None and row.fingerprint == info("k", "one").fingerprint
    assert catalog.empty_trash(ds) == 0
    catalog.quarantine(ds, "k", Transient("no"))
    assert catalog.quarantined(other) == []
    assert catalog.release(other) == 0
    assert catalog.begin_run(ds).number != catalog.begin_run(other).number
    assert [run.dataset for run in catalog.runs(other)] == ["other"]
    assert catalog.item(ds, "l").id != catalog.item(ds, "k").id
    assert keys(catalog, ds) == ["k", "l"]


# -- settle --------------------------------------------------------------------------------------


def test_settle_with_zero_makes_the_first_row(catalog: Store, ds: str) -> None:
    row = catalog.settle(ds, "k", info("k"), expect_rev=0)
    assert (row.rev, row.fingerprint) == (1, info("k").fingerprint)
    assert row == catalog.get(ds, "k")


@pytest.mark.parametrize("found", [info("k", "new"), None], ids=["object", "nothing"])
@pytest.mark.parametrize("rev", [0, 1, 3, 99])
def test_settle_with_another_revision_writes_nothing(
    catalog: Store, ds: str, found: ObjectInfo | None, rev: int
) -> None:
    catalog.insert_new(ds, [info("k", "old")])
    restore(catalog, ds, info("k", "old"))
    before = catalog.get(ds, "k")
    assert before is not None and before.rev == 2
    with pytest.raises(Conflict) as caught:
        catalog.settle(ds, "k", found, expect_rev=rev)
    assert caught.value.resource == "k"
    assert catalog.get(ds, "k") == before


def test_settle_of_a_row_that_is_not_there_conflicts(catalog: Store, ds: str) -> None:
    for found in (None, info("k")):
        with pytest.raises(Conflict):
            catalog.settle(ds, "k", found, expect_rev=3)
    assert catalog.get(ds, "k") is None


def test_settle_always_bumps_the_revision(catalog: Store, ds: str) -> None:
    rev = catalog.settle(ds, "k", info("k"), expect_rev=0).rev
    for found in (info("k"), info("k"), None, None, info("k"), info("k", "x")):
        row = catalog.settle(ds, "k", found, expect_rev=rev)
        assert row.rev == rev + 1
        assert row.fingerprint == (found.fingerprint if found else None)
        rev = row.rev


def test_a_key_never_seen_gets_a_tombstone(catalog: Store, ds: str) -> None:
    row = catalog.settle(ds, "k", None, expect_rev=0)
    assert (row.fingerprint, row.rev) == (None, 1)
    assert catalog.count(ds) == 0
    assert list(catalog.items(ds)) == list(catalog.items(ds, trashed=True)) == []
    with pytest.raises(NotFound):
        catalog.item(ds, "k")
    with pytest.raises(Conflict):
        catalog.settle(ds, "k", info("k"), expect_rev=0)
    catalog.settle(ds, "k", info("k"), expect_rev=1)
    assert catalog.count(ds) == 1
    assert not catalog.item(ds, "k").changed_since_annotated


def test_trash_keeps_everything_and_gives_it_back(catalog: Store, ds: str, made: Made) -> None:
    catalog.insert_new(ds, [info("k")])
    number = catalog.annotate(ds, "k", {"label": "cat"})
    catalog.set_user_metadata(ds, "k", {"split": "train"})
    before = catalog.item(ds, "k")
    made.clock.forward(days=3)
    trash(catalog, ds, "k")
    assert catalog.count(ds) == 0
    assert list(catalog.items(ds)) == []
    (trashed,) = catalog.items(ds, trashed=True)
    assert (trashed.id, trashed.annotations, trashed.user) == (before.id, 1, {"split": "train"})
    assert trashed.removed_at is not None and trashed.removed_at > before.created_at
    assert catalog.annotations(ds, "k") == [{"id": number, "label": "cat"}]
    restore(catalog, ds, info("k"))
    after = catalog.item(ds, "k")
    assert (after.id, after.user, after.annotations, after.removed_at, after.created_at) == (
        before.id, {"split": "train"}, 1, None, before.created_at,
    )  # fmt: skip
    assert not after.changed_since_annotated
    assert catalog.annotations(ds, "k") == [{"id": number, "label": "cat"}]
    assert list(catalog.items(ds, trashed=True)) == []


def test_trashed_twice_keeps_the_first_time(catalog: Store, ds: str, made: Made) -> None:
    catalog.insert_new(ds, [info("k")])
    trash(catalog, ds, "k")
    first = catalog.item(ds, "k").removed_at
    made.clock.forward(days=1)
    trash(catalog, ds, "k")
    assert catalog.item(ds, "k").removed_at == first


CONTENT = [
    # before, after, marked
    (info("k", "a", fingerprint="1"), info("k", "a", fingerprint="2"), False),
    (info("k", "a", fingerprint="1"), info("k", "b", fingerprint="2"), True),
    (info("k", "a", fingerprint="1"), info("k", "a", fingerprint="1"), False),
    (
        info("k", "a", fingerprint="1", content_id=None),
        info("k", "a", fingerprint="2", content_id=None),
        True,
    ),
    (
        info("k", "a", fingerprint="1", content_id=None),
        info("k", "a", fingerprint="1", content_id=None),
        False,
    ),
    (info("k", "a", fingerprint="1"), info("k", "a", fingerprint="2", content_id=None), True),
    (info("k", "a", fingerprint="1", content_id=None), info("k", "a", fingerprint="2"), True),
    (info("k", "a", fingerprint="1", content_id="c"), info("k", "aa", fingerprint="2", content_id="c"), True),
]


@pytest.mark.parametrize(("before", "after", "marked"), CONTENT)
def test_an_overwrite_is_marked_when_the_bytes_may_be_others(
    catalog: Store, ds: str, before: ObjectInfo, after: ObjectInfo, marked: bool
) -> None:
    catalog.insert_new(ds, [before])
    catalog.annotate(ds, "k", {})
    old = catalog.item(ds, "k")
    assert not old.changed_since_annotated
    restore(catalog, ds, after)
    new = catalog.item(ds, "k")
    assert new.changed_since_annotated is marked
    assert (new.id, new.annotations, new.etag) == (old.id, 1, after.etag)


def test_an_item_without_annotations_is_never_marked_and_annotating_again_clears_the_mark(
    catalog: Store, ds: str
) -> None:
    catalog.insert_new(ds, [info("k", "a")])
    restore(catalog, ds, info("k", "b"))
    assert not catalog.item(ds, "k").changed_since_annotated
    catalog.annotate(ds, "k", {})
    assert not catalog.item(ds, "k").changed_since_annotated
    restore(catalog, ds, info("k", "c"))
    assert catalog.item(ds, "k").changed_since_annotated
    restore(catalog, ds, info("k", "c"))
    assert catalog.item(ds, "k").changed_since_annotated
    catalog.annotate(ds, "k", {})
    assert not catalog.item(ds, "k").changed_since_annotated


def test_a_listing_that_tells_no_content_type_does_not_forget_it(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("k.bin")])
    restore(catalog, ds, info("k.bin")._replace(content_type=None))
    assert catalog.item(ds, "k.bin").mimetype == "text/plain"


# -- move ----------------------------------------------------------------------------------------


@pytest.fixture
def moved(catalog: Store, ds: str) -> tuple[str, int]:
    """An annotated item at `old`, the same bytes at `new`; returns id and annotation of the old one."""
    catalog.insert_new(ds, [info("new", fingerprint="2"), info("old", fingerprint="1")])
    number = catalog.annotate(ds, "old", {"label": "cat"})
    catalog.set_user_metadata(ds, "old", {"split": "train"})
    return catalog.item(ds, "old").id, number


def test_move_keeps_the_item(catalog: Store, ds: str, moved: tuple[str, int]) -> None:
    old, new = catalog.get(ds, "old"), catalog.get(ds, "new")
    assert old is not None and new is not None
    row = catalog.move(ds, old, new, info("new", fingerprint="2"))
    item = catalog.item(ds, "new")
    assert row == catalog.get(ds, "new")
    assert (row.fingerprint, item.id, item.user) == ("2", moved[0], {"split": "train"})
    assert catalog.annotations(ds, "new") == [{"id": moved[1], "label": "cat"}]
    assert not item.changed_since_annotated
    tombstone = catalog.get(ds, "old")
    assert tombstone is not None and tombstone.fingerprint is None
    assert tombstone.rev > old.rev and row.rev > new.rev, "whoever read before must read again"
    assert list(catalog.items(ds, trashed=True)) == []
    assert [i.key for i in catalog.items(ds)] == ["new"]
    with pytest.raises(NotFound):
        catalog.item(ds, "old")


@pytest.mark.parametrize("spoil", ["old", "new", "annotated", "metadata", "gone"])
def test_move_conflicts_when_anything_happened_meanwhile(
    catalog: Store, ds: str, moved: tuple[str, int], spoil: str
) -> None:
    old, new = catalog.get(ds, "old"), catalog.get(ds, "new")
    assert old is not None and new is not None
    if spoil in ("old", "new"):
        restore(catalog, ds, info(spoil, fingerprint="2" if spoil == "new" else "1"))
    elif spoil == "gone":
        trash(catalog, ds, "new")
    elif spoil == "annotated":
        catalog.annotate(ds, "new", {"label": "dog"})
    else:
        catalog.set_user_metadata(ds, "new", {"split": "test"})
    before = list(catalog.scan(ds))
    with pytest.raises(Conflict):
        catalog.move(ds, old, new, info("new", fingerprint="2"))
    assert list(catalog.scan(ds)) == before
    assert catalog.item(ds, "old").id == moved[0]


# -- items ---------------------------------------------------------------------------------------


def test_item_ids_are_24_hexadecimal_digits_and_stay(catalog: Store, ds: str, made: Made) -> None:
    catalog.insert_new(ds, [info("a"), info("b")])
    ids = {item.key: item.id for item in catalog.items(ds)}
    assert len(set(ids.values())) == 2
    for item_id in ids.values():
        assert len(item_id) == 24
        assert set(item_id) <= set("0123456789abcdef")
    restore(catalog, ds, info("a", "new"))
    assert {item.key: item.id for item in made.open().items(ds)} == ids


def test_items_by_prefix_page_and_limit(catalog: Store, ds: str) -> None:
    names = [f"{folder}/{n:04}" for folder in "abc" for n in range(1200)]
    catalog.insert_new(ds, [info(name) for name in names])
    assert [i.key for i in catalog.items(ds)] == names
    assert [i.key for i in catalog.items(ds, prefix="b/")] == names[1200:2400]
    assert [i.key for i in catalog.items(ds, prefix="b/", limit=7)] == names[1200:1207]
    assert [i.key for i in catalog.items(ds, prefix="b/", after="b/1100", limit=1001)] == names[2301:2400]
    assert [i.key for i in catalog.items(ds, prefix="x")] == []
    assert [i.key for i in catalog.items(ds, limit=0)] == []


@pytest.mark.parametrize("key", [*NASTY, "\x01", "\ue000private", "\U00010000"])
def test_items_by_every_nasty_prefix(catalog: Store, ds: str, key: str) -> None:
    everything = [*NASTY, "\x01", "\ue000private", "\U00010000"]
    catalog.insert_new(ds, [info(name) for name in everything])
    for prefix in (key, key[:1]):
        want = sorted((k for k in everything if k.startswith(prefix)), key=str.encode)
        assert [item.key for item in catalog.items(ds, prefix=prefix)] == want


def test_unknown_items_are_not_found(catalog: Store, ds: str) -> None:
    for call in (
        lambda: catalog.item(ds, "k"),
        lambda: catalog.annotate(ds, "k", {}),
        lambda: catalog.annotations(ds, "k"),
        lambda: catalog.set_user_metadata(ds, "k", {}),
    ):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.resource == "k"


def test_metadata_is_replaced_and_annotations_are_added(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("k")])
    catalog.set_user_metadata(ds, "k", {"a": 1, "ü": ["😀"]})
    catalog.set_user_metadata(ds, "k", {"b": 2})
    first = catalog.annotate(ds, "k", {"label": "cat", "type": "box"})
    second = catalog.annotate(ds, "k", {"label": "dog"})
    item = catalog.item(ds, "k")
    assert (item.user, item.annotations) == ({"b": 2}, 2)
    assert catalog.annotations(ds, "k") == [
        {"id": first, "label": "cat", "type": "box"},
        {"id": second, "label": "dog"},
    ]
    assert item.to_json()["metadata"]["user"] == {"b": 2}
    assert json.loads(json.dumps(item.to_json()))["annotationsCount"] == 2


# -- integrations, drivers, datasets -------------------------------------------------------------

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


def test_integrations_come_back_with_their_options(catalog: Store, made: Made) -> None:
    options = {"key": "AKIA", "secret": SECRET, "ünï": "😀"}
    stored = catalog.create_integration(Integration("aws", "s3", options))
    assert stored.id
    assert stored.options == (options if made.tells_secrets else {})
    for one in (catalog, made.open()):
        assert one.integration("aws") == stored
        (listed,) = one.integrations()
        assert (listed.name, listed.type, listed.id, listed.options) == ("aws", "s3", stored.id, {})


def test_secrets_are_nowhere_at_rest_and_in_no_repr(catalog: Store, made: Made) -> None:
    integration = catalog.create_integration(Integration("aws", "s3", {"key": "AKIA4711", "secret": SECRET}))
    at_rest = made.raw()
    assert b"aws" in at_rest, "the right files were read"
    for secret in (SECRET, "AKIA4711", SECRET[5:25]):
        assert secret.encode() not in at_rest
        for thing in (integration, catalog.integrations(), catalog.integration("aws"), catalog):
            assert secret not in repr(thing) + str(thing)


def test_the_key_file_is_for_its_owner_only(catalog: Store, made: Made) -> None:
    if not isinstance(made, MadeSqlite):
        pytest.skip("keeps its key elsewhere")
    assert not made.key_file.exists()
    catalog.create_integration(Integration("aws", "s3", {"secret": SECRET}))
    assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    made.key_file.unlink()
    with pytest.raises(AccessDenied, match=r"key file .* is gone"):
        catalog.integration("aws")
    assert not made.key_file.exists(), "a new key would open nothing"


def test_another_key_opens_nothing(catalog: Store, made: Made) -> None:
    if not made.tells_secrets:
        pytest.skip("has no key: the secrets stay at the server")
    catalog.create_integration(Integration("aws", "s3", {"secret": SECRET}))
    other = made.open(secret_key=Fernet.generate_key().decode())
    with pytest.raises(AccessDenied, match="sealed with another key") as caught:
        other.integration("aws")
    assert caught.value.resource == "aws"
    assert [i.name for i in other.integrations()] == ["aws"]
    with pytest.raises(ConfigError, match="not a Fernet key") as broken:
        made.open(secret_key="hunter2").integration("aws")
    assert "hunter2" not in str(broken.value)


def test_drivers_come_back_as_they_were(catalog: Store) -> None:
    catalog.create_integration(Integration("aws", "s3", {}))
    spec = DriverSpec(
        type="s3", bucket="b", path="a//b", region="eu", endpoint="http://e", storage_class="GLACIER",
        allow_external_delete=True, options={"requester_pays": "yes"}, name="d", integration="aws",
    )  # fmt: skip
    made = catalog.create_driver(spec)
    assert catalog.driver("d") == made == catalog.drivers()[0]
    assert made.id and made == DriverSpec(
        **{**{f: getattr(spec, f) for f in spec.__slots__}, "id": made.id}  # everything else unchanged
    )


def test_names_are_unique(catalog: Store, dataset: Dataset) -> None:
    catalog.create_integration(Integration("aws", "s3", {}))
    for call, name in (
        (lambda: catalog.create_integration(Integration("aws", "gcs", {})), "aws"),
        (lambda: catalog.create_driver(SPEC), "box"),
        (lambda: catalog.create_dataset("data", "box"), "data"),
    ):
        with pytest.raises(AlreadyExists, match=name):
            call()
    assert [i.type for i in catalog.integrations()] == ["s3"]
    assert len(catalog.drivers()) == len(catalog.datasets()) == 1


def test_names_are_not_empty(catalog: Store, dataset: Dataset) -> None:
    for call in (
        lambda: catalog.create_integration(Integration("", "s3", {})),
        lambda: catalog.create_driver(DriverSpec(type="memory", bucket="b")),
        lambda: catalog.create_dataset("", "box"),
        lambda: catalog.ensure_dataset("", SPEC),
    ):
        with pytest.raises(ConfigError):
            call()


def test_unknown_names_are_not_found_and_the_known_ones_named(catalog: Store, dataset: Dataset) -> None:
    catalog.create_integration(Integration("aws", "s3", {}))
    for call, known in (
        (lambda: catalog.integration("x"), "aws"),
        (lambda: catalog.remove_integration("x"), "aws"),
        (lambda: catalog.driver("x"), "box"),
        (lambda: catalog.remove_driver("x"), "box"),
        (lambda: catalog.dataset("x"), "data"),
        (lambda: catalog.remove_dataset("x"), "data"),
        (lambda: catalog.create_dataset("y", "x"), "box"),
        (lambda: catalog.create_driver(DriverSpec(type="s3", bucket="b", name="n", integration="x")), "aws"),
    ):
        with pytest.raises(NotFound, match="'x'") as caught:
            call()
        assert caught.value.resource == "x"
        assert known in str(caught.value)
        assert caught.value.exit_code == 4


def test_what_is_used_is_not_removed(catalog: Store) -> None:
    catalog.create_integration(Integration("aws", "s3", {}))
    catalog.create_driver(DriverSpec(type="s3", bucket="b", name="d", integration="aws"))
    catalog.create_dataset("data", "d")
    with pytest.raises(Refused, match="used by driver 'd'"):
        catalog.remove_integration("aws")
    with pytest.raises(Refused, match="used by dataset 'data'"):
        catalog.remove_driver("d")
    catalog.remove_dataset("data")
    catalog.remove_driver("d")
    catalog.remove_integration("aws")
    assert catalog.drivers() == catalog.datasets() == catalog.integrations() == []


def test_datasets_by_name_and_by_id(catalog: Store, dataset: Dataset) -> None:
    assert catalog.dataset("data") == catalog.dataset(dataset.id) == dataset == catalog.datasets()[0]
    assert len(dataset.id) == 24
    assert dataset.driver.bucket == "box"


def test_ensure_dataset_makes_it_once_and_refuses_another_source(catalog: Store, dataset: Dataset) -> None:
    assert catalog.ensure_dataset("data", SPEC) == dataset
    policy = DriverSpec(type="memory", bucket="box", allow_external_delete=True)
    assert catalog.ensure_dataset("data", policy) == dataset
    for other in (DriverSpec(type="memory", bucket="x"), DriverSpec(type="memory", bucket="box", path="p")):
        with pytest.raises(ConfigError, match="another source"):
            catalog.ensure_dataset("data", other)
    assert catalog.ensure_dataset("again", SPEC).driver == dataset.driver
    with pytest.raises(AlreadyExists):
        catalog.ensure_dataset("third", DriverSpec(type="memory", bucket="x", name="box"))


def test_remove_dataset_takes_everything_and_nobody_elses(catalog: Store, ds: str) -> None:
    other = catalog.ensure_dataset("other", DriverSpec(type="memory", bucket="o")).id
    for one in (ds, other):
        catalog.insert_new(one, [info("k")])
        catalog.annotate(one, "k", {"of": one})
        catalog.quarantine(one, "q", Transient("no"))
        run = catalog.begin_run(one)
        catalog.advance(run.number, "k", ["gone"], Report())
        catalog.finish_run(run.number, "interrupted", Report())
    catalog.remove_dataset("data")
    with pytest.raises(NotFound):
        catalog.get(ds, "k")
    assert catalog.annotations(other, "k")[0]["of"] == other
    assert catalog.stats()["items"] == catalog.stats()["annotations"] == catalog.stats()["quarantined"] == 1
    assert [run.dataset for run in catalog.runs()] == ["other"]
    again = catalog.create_dataset("data", "box").id
    assert again != ds
    assert keys(catalog, again) == catalog.runs(again) == []


def test_a_swept_dataset_is_not_removed(catalog: Store, ds: str) -> None:
    run = catalog.begin_run(ds)
    with pytest.raises(Conflict, match="being swept"):
        catalog.remove_dataset("data")
    catalog.finish_run(run.number, "done", Report())
    catalog.remove_dataset("data")


def test_a_removed_dataset_leaves_no_door_to_the_next_one(catalog: Store, ds: str, made: Made) -> None:
    """A process that still holds the id of a removed dataset must not write into its successor."""
    assert catalog.get(ds, "k") is None
    other = made.open()
    other.remove_dataset("data")
    after = other.create_dataset("data", "box").id
    for write in (
        lambda: catalog.insert_new(ds, [info("k")]),
        lambda: catalog.settle(ds, "l", info("l"), expect_rev=0),
    ):
        with suppress(NotFound):
            write()
    assert keys(other, after) == []


# -- runs ----------------------------------------------------------------------------------------


def me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def interrupted(catalog: Store, ds: str, cursor: str | None = "m", missing: tuple[str, ...] = ()) -> int:
    run = catalog.begin_run(ds)
    catalog.advance(run.number, cursor, missing, Report(listed=5, added=2))
    catalog.finish_run(run.number, "interrupted", Report(listed=5, added=2))
    return run.number


def test_a_second_sweep_conflicts_and_names_the_holder(catalog: Store, ds: str, made: Made) -> None:
    run = catalog.begin_run(ds)
    assert (run.state, run.holder, run.cursor, run.origin) == ("running", me(), None, run.number)
    for other in (catalog, made.open()):
        with pytest.raises(Conflict, match=me()) as caught:
            other.begin_run(ds)
        assert caught.value.exit_code == 5
    made.clock.forward(days=2)
    with pytest.raises(Conflict):
        catalog.begin_run(ds)  # the process lives, whatever the clock says
    catalog.finish_run(run.number, "done", Report(added=3))
    assert catalog.begin_run(ds).number > run.number


def test_a_dead_process_holds_nothing(made: Made, catalog: Store, ds: str) -> None:
    if not isinstance(made, MadeSqlite | MadePostgres):
        pytest.skip("needs a second process on the same catalog")
    script = (
        "import sys, pathlib\n"
        "from syncagent.catalog.sql.postgres import PostgresCatalog\n"
        "from syncagent.catalog.sql.sqlite import SqliteCatalog\n"
        "from syncagent.model import Report\n"
        "where, clock = sys.argv[1], lambda: 1_800_000_000.0\n"
        "if '://' in where:\n"
        "    catalog = PostgresCatalog(where, clock=clock)\n"
        "else:\n"
        "    catalog = SqliteCatalog(pathlib.Path(where), clock=clock)\n"
        "run = catalog.begin_run(sys.argv[2])\n"
        "catalog.advance(run.number, 'm', ['a', 'b'], Report(listed=7))\n"
        "catalog.close()\n"
    )
    where = made.url if isinstance(made, MadePostgres) else str(made.path)
    subprocess.run([sys.executable, "-c", script, where, ds], check=True)
    (dead,) = catalog.runs(ds)
    assert dead.state == "running" and dead.holder != me()
    run = catalog.begin_run(ds)
    assert (run.cursor, run.origin, run.report.listed) == ("m", dead.number, 7)
    assert catalog.missing(run.number) == ["a", "b"]
    assert [r.state for r in catalog.runs(ds)] == ["running", "resumed"]


def test_the_lease_of_another_host_ends_after_a_minute_of_silence(
    catalog: Store, ds: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "elsewhere")
        run = catalog.begin_run(ds)
    assert run.holder.startswith("elsewhere:")
    made.clock.forward(seconds=59)
    with pytest.raises(Conflict, match="elsewhere:"):
        catalog.begin_run(ds)
    catalog.heartbeat(run.number)
    made.clock.forward(seconds=59)
    with pytest.raises(Conflict, match="elsewhere:"):
        catalog.begin_run(ds)
    catalog.advance(run.number, "k", [], Report())
    made.clock.forward(seconds=60)
    mine = catalog.begin_run(ds)
    assert (mine.holder, mine.cursor) == (me(), "k")
    with pytest.raises(Conflict, match="taken over"):
        catalog.advance(run.number, "z", ["lost"], Report())
    catalog.finish_run(run.number, "done", Report())
    assert [r.state for r in catalog.runs(ds)] == ["running", "resumed"]
    assert catalog.missing(mine.number) == []


def test_a_sweep_goes_on_where_the_last_one_stopped(catalog: Store, ds: str) -> None:
    first = interrupted(catalog, ds, "m", ("a", "b"))
    run = catalog.begin_run(ds)
    assert (run.cursor, run.origin, run.report.listed, run.report.added) == ("m", first, 5, 2)
    assert catalog.missing(run.number) == ["a", "b"]
    catalog.advance(run.number, "z", ["b", "n"], Report())
    assert catalog.missing(run.number) == ["a", "b", "n"]
    assert catalog.missing(run.number, after="a", limit=1) == ["b"]
    catalog.finish_run(run.number, "failed", Report(), "it broke")
    third = catalog.begin_run(ds)
    assert (third.cursor, third.origin) == ("z", first)
    catalog.finish_run(third.number, "done", Report())
    assert catalog.missing(third.number) == []
    fourth = catalog.begin_run(ds)
    assert (fourth.cursor, fourth.origin, fourth.report.listed) == (None, fourth.number, 0)


@pytest.mark.parametrize(
    "ranges", [[], [(None, "b"), ("m", None)], [(key, key + "z") for key in NASTY], [(None, None)]]
)
def test_a_sweep_goes_on_with_the_ranges_that_are_left(
    catalog: Store, ds: str, ranges: list[tuple[str | None, str | None]]
) -> None:
    first = catalog.begin_run(ds)
    assert first.ranges is None
    catalog.advance(first.number, None, ["gone"], Report(listed=5), ranges)
    catalog.finish_run(first.number, "interrupted", Report(listed=5))
    assert catalog.runs(ds)[0].ranges == ranges
    run = catalog.begin_run(ds)
    assert (run.ranges, run.cursor, run.origin, run.report.listed) == (ranges, None, first.number, 5)
    assert catalog.missing(run.number) == ["gone"]
    catalog.finish_run(run.number, "failed", Report(), "broke before it came far")
    third = catalog.begin_run(ds)
    assert third.ranges == ranges, "what nobody worked on is left as it was"
    catalog.advance(third.number, None, [], Report())  # to begin at the beginning
    catalog.finish_run(third.number, "failed", Report(), "out of order")
    fourth = catalog.begin_run(ds)
    assert (fourth.ranges, fourth.origin) == (None, fourth.number)


def test_ranges_of_a_sweep_that_ended_are_nobodys(catalog: Store, ds: str) -> None:
    run = catalog.begin_run(ds)
    catalog.advance(run.number, None, [], Report(), [("a", "b")])
    catalog.finish_run(run.number, "done", Report())
    assert catalog.begin_run(ds).ranges is None


@pytest.mark.parametrize("every", [1, 3, 100])
def test_quantiles_are_keys_in_byte_order_evenly_apart_or_none(
    catalog: Store, ds: str, made: Made, every: int
) -> None:
    catalog.insert_new(ds, [info(key) for key in NASTY])
    trash(catalog, ds, NASTY[0])
    found = catalog.quantiles(ds, every)
    if isinstance(made, MadeServed):
        assert found == []
    else:
        assert found == sorted(NASTY)[every - 1 :: every]
    assert (
        catalog.quantiles(
            catalog.ensure_dataset("empty", DriverSpec(type="memory", bucket="other")).id, every
        )
        == []
    )


@pytest.mark.parametrize(
    ("hours", "resume", "cursor", "resumed"),
    [(23.9, True, "m", True), (24.1, True, "m", False), (0, False, "m", False), (0, True, None, False)],
)
def test_resuming_has_its_limits(
    catalog: Store, ds: str, made: Made, hours: float, resume: bool, cursor: str | None, resumed: bool
) -> None:
    first = interrupted(catalog, ds, cursor, ("a",))
    made.clock.forward(seconds=hours * 3600)
    run = catalog.begin_run(ds, resume=resume)
    assert run.cursor == ("m" if resumed else None)
    assert run.origin == (first if resumed else run.number)
    assert run.report.listed == (5 if resumed else 0)
    assert catalog.missing(run.number) == (["a"] if resumed else [])
    if not resumed:
        assert catalog.missing(first) == [], "nobody will ever come back for them"


def test_a_day_counts_from_the_beginning_of_the_listing(catalog: Store, ds: str, made: Made) -> None:
    interrupted(catalog, ds, "m")
    for _ in range(3):
        made.clock.forward(seconds=7 * 3600)
        interrupted(catalog, ds, "m")
    made.clock.forward(seconds=7 * 3600)
    assert catalog.begin_run(ds).cursor is None


@pytest.mark.parametrize("state", ["done", "refused"])
def test_what_ended_is_not_resumed(catalog: Store, ds: str, state: str) -> None:
    run = catalog.begin_run(ds)
    catalog.advance(run.number, "m", ["a"], Report())
    catalog.finish_run(run.number, state, Report(refused="no"), None)
    assert catalog.missing(run.number) == []
    after = catalog.begin_run(ds)
    assert after.cursor is None


def test_runs_are_listed_newest_first(catalog: Store, ds: str, made: Made) -> None:
    for state in ("done", "failed"):
        run = catalog.begin_run(ds, resume=False)
        made.clock.forward(seconds=90)
        catalog.finish_run(run.number, state, Report(added=4, requests={"list": 2}, cost=0.5), "why")
    newest, oldest = catalog.runs(ds)
    assert (newest.state, oldest.state) == ("failed", "done")
    assert newest.report == Report(added=4, requests={"list": 2}, cost=0.5)
    assert (newest.error, newest.dataset) == ("why", "data")
    assert newest.ended_at is not None and newest.ended_at > newest.started_at > oldest.started_at
    assert [r.number for r in catalog.runs(limit=1)] == [newest.number]


def test_moves_pairs_only_the_unambiguous(catalog: Store, ds: str) -> None:
    catalog.insert_new(
        ds,
        [
            info("old/1", "one"), info("old/2", "two"), info("old/2b", "two"), info("old/3", "three"),
            info("old/empty", ""), info("old/hashless", "h", content_id=None), info("stays", "four"),
        ],
    )  # fmt: skip
    run = catalog.begin_run(ds)
    catalog.insert_new(ds, [info("before", "four")])
    new = [
        info("new/1", "one"), info("new/2", "two"), info("new/3", "three"), info("new/3b", "three"),
        info("new/empty", ""), info("new/four", "four"), info("new/hashless", "h", content_id=None),
    ]  # fmt: skip
    catalog.insert_new(ds, new, run=run.origin)
    gone = [row.key for row in catalog.scan(ds, after="old/", until="old0")]
    catalog.advance(run.number, "z", gone, Report())
    assert catalog.moves(run.number) == [], "nothing is paired before it is asked for"
    assert catalog.pair_moves(run.number) == 1
    assert catalog.moves(run.number) == [("old/1", "new/1")]


def test_pairs_are_paged_and_found_anew(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info(f"old/{n}", f"{n}") for n in range(3)])
    run = catalog.begin_run(ds)
    catalog.insert_new(ds, [info(f"new/{n}", f"{n}") for n in range(3)], run=run.origin)
    catalog.advance(run.number, "z", [f"old/{n}" for n in range(3)], Report())
    assert catalog.pair_moves(run.number) == 3
    assert catalog.moves(run.number, limit=2) == [("old/0", "new/0"), ("old/1", "new/1")]
    assert catalog.moves(run.number, after="old/1") == [("old/2", "new/2")]
    catalog.forget_missing(run.number, ["old/0", "never"])
    assert (catalog.count_missing(run.number), catalog.missing(run.number)) == (2, ["old/1", "old/2"])
    catalog.insert_new(ds, [info("new/2b", "2")], run=run.origin)
    assert catalog.pair_moves(run.number) == 1
    assert catalog.moves(run.number) == [("old/1", "new/1")], "two new keys have the bytes of old/2 by now"


def test_pairing_moves_takes_no_product(catalog: Store, ds: str) -> None:
    """A folder of 4,000 objects renamed: the two sides are grouped, not each compared with each."""
    catalog.insert_new(ds, [info(f"a/{n:04}", f"{n}") for n in range(4000)])
    run = catalog.begin_run(ds)
    catalog.insert_new(ds, [info(f"b/{n:04}", f"{n}") for n in range(4000)], run=run.origin)
    catalog.advance(run.number, "z", [f"a/{n:04}" for n in range(4000)], Report())
    started = time.process_time()
    assert catalog.pair_moves(run.number) == 4000
    assert catalog.moves(run.number, limit=5000) == [(f"a/{n:04}", f"b/{n:04}") for n in range(4000)]
    assert time.process_time() - started < 2


# -- quarantine, trash, upkeep -------------------------------------------------------------------


def test_quarantine_counts_attempts(catalog: Store, ds: str, made: Made) -> None:
    catalog.quarantine(ds, "k", AccessDenied("not you", hint="ask"))
    made.clock.forward(days=1)
    catalog.quarantine(ds, "k", Transient("busy"))
    catalog.quarantine(ds, "j", Transient("busy"))
    j, k = catalog.quarantined(ds)
    assert (j.key, j.attempts, j.first_at == j.last_at) == ("j", 1, True)
    assert (k.key, k.reason, k.error, k.attempts, k.dataset) == ("k", "busy", "Transient", 2, "data")
    assert k.first_at < k.last_at
    assert catalog.quarantined() == [j, k]
    assert catalog.release(ds, ["k", "never"]) == 1
    assert [q.key for q in catalog.quarantined()] == ["j"]
    assert catalog.release(ds) == 1
    assert catalog.release(ds) == 0


def test_empty_trash_is_for_good(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info(k) for k in "abcd"])
    for key in "abc":
        catalog.annotate(ds, key, {"label": key})
        catalog.set_user_metadata(ds, key, {"k": key})
        trash(catalog, ds, key)
    rev = catalog.get(ds, "a").rev
    assert catalog.empty_trash(ds, ["a", "d", "never"]) == 1
    assert [i.key for i in catalog.items(ds, trashed=True)] == ["b", "c"]
    with pytest.raises(NotFound):
        catalog.item(ds, "a")
    row = catalog.get(ds, "a")
    assert row.fingerprint is None and row.rev > rev, "a tombstone stays, under a new revision"
    restore(catalog, ds, info("a"))
    assert (catalog.annotations(ds, "a"), catalog.item(ds, "a").user) == ([], {})
    assert catalog.empty_trash(ds) == 2
    assert catalog.empty_trash(ds) == 0
    assert [i.key for i in catalog.items(ds)] == ["a", "d"]
    assert catalog.stats()["annotations"] == 0


def test_vacuum_keeps_trash_30_days_and_tombstones_15(catalog: Store, ds: str, made: Made) -> None:
    catalog.insert_new(ds, [info("live"), info("trashed")])
    catalog.annotate(ds, "trashed", {"label": "cat"})
    catalog.annotate(ds, "live", {"label": "cat"})
    trash(catalog, ds, "trashed")
    catalog.settle(ds, "never", None, expect_rev=0)
    made.clock.forward(days=14.9)
    assert catalog.vacuum()["tombstones"] == 0
    assert keys(catalog, ds) == ["live", "never", "trashed"]
    made.clock.forward(days=0.2)
    assert catalog.vacuum()["tombstones"] == 1
    assert keys(catalog, ds) == ["live", "trashed"]
    made.clock.forward(days=14.8)
    assert catalog.vacuum()["trash"] == 0
    assert [i.key for i in catalog.items(ds, trashed=True)] == ["trashed"]
    made.clock.forward(days=0.2)
    done = catalog.vacuum()
    assert (done["trash"], done["tombstones"]) == (1, 1)
    assert keys(catalog, ds) == ["live"]
    assert catalog.stats()["annotations"] == 1
    assert catalog.annotations(ds, "live")


def test_vacuum_gives_space_back(catalog: Store, ds: str, made: Made) -> None:
    grow(catalog, ds, 1500)
    gone = [Settle(row.key, None, row.rev) for row in catalog.scan(ds)]
    assert all(catalog.settle_many(ds, gone))
    made.clock.forward(days=31)
    before = catalog.stats()["bytes"]
    done = catalog.vacuum()
    assert done["trash"] == done["tombstones"] == 1500
    assert done["bytes"] > 0
    assert catalog.stats()["bytes"] < before


def test_stats(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info(k) for k in "abc"])
    catalog.annotate(ds, "a", {})
    trash(catalog, ds, "b")
    catalog.settle(ds, "never", None, expect_rev=0)
    catalog.quarantine(ds, "q", Transient("x"))
    stats = catalog.stats()
    counted = {
        name: stats[name]
        for name in ("datasets", "items", "trash", "tombstones", "annotations", "quarantined")
    }
    assert counted == {
        "datasets": 1,
        "items": 2,
        "trash": 1,
        "tombstones": 1,
        "annotations": 1,
        "quarantined": 1,
    }
    assert stats["bytes"] > 0
    assert stats["schema"] >= 1


def test_closing_twice_is_fine(made: Made) -> None:
    catalog = made.open()
    catalog.close()
    catalog.close()


# -- many keys at once ---------------------------------------------------------------------------


def test_rows_are_told_in_the_order_of_the_keys(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("a"), info("c")])
    catalog.settle(ds, "gone", None, expect_rev=0)
    told = catalog.rows(ds, ["c", "never", "gone", "a", "c"])
    assert told == [catalog.get(ds, key) for key in ["c", "never", "gone", "a", "c"]]
    assert [row and row.key for row in told] == ["c", None, "gone", "a", "c"]
    assert catalog.rows(ds, []) == []


def test_many_settles_are_as_good_as_each(catalog: Store, ds: str) -> None:
    catalog.insert_new(ds, [info("a"), info("late"), info("gone")])
    told = catalog.settle_many(
        ds,
        [
            Settle("a", info("a", "newer"), 1),
            Settle("late", info("late", "newer"), 7),
            Settle("gone", None, 1),
            Settle("new", info("new"), 0),
            Settle("never", None, 0),
        ],
    )
    assert [row and (row.key, row.fingerprint is not None, row.rev) for row in told] == [
        ("a", True, 2), None, ("gone", False, 2), ("new", True, 1), ("never", False, 1),
    ]  # fmt: skip
    late = catalog.get(ds, "late")
    assert late is not None
    assert late.fingerprint == info("late").fingerprint, "one that came too late writes nothing"
    assert [catalog.get(ds, row.key) for row in told if row] == [row for row in told if row]
    assert catalog.settle_many(ds, []) == []
