"""What people do to items, and what a sweep makes of it afterwards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncagent.catalog.files import Files
from syncagent.catalog.sql.items import Items, merged
from syncagent.drivers import open_bucket
from syncagent.errors import AlreadyExists, InvalidInput, NotFound
from syncagent.ingest.content import Content
from syncagent.reconcile import Reconciler
from tests.rigs.catalogs import open_at


class Kit:
    """A mirrored dataset of three objects, as a server holds it."""

    def __init__(self, folder: Path, *, deletes: bool = False) -> None:
        (folder / "box").mkdir()
        self.bucket = open_bucket(f"file://{folder}/box?allow_delete={'yes' if deletes else 'no'}")
        self.catalog = open_at(folder / "catalog.db")
        self.dataset = self.catalog.ensure_dataset("data", self.bucket.spec)
        self.of = Reconciler(self.catalog, self.dataset, self.bucket)
        self.items = Items(self.catalog)
        self.content = Content(self.items, Files(folder / "files"), self.dataset.id, self.of)
        for key in ("a.txt", "b.txt", "c.txt"):
            self.write(key, key)
        self.of.sweep()

    def write(self, key: str, text: str) -> None:
        self.bucket.put(key, io.BytesIO(text.encode()))

    def at(self, key: str) -> str:
        item = self.items.at(self.dataset.id, key)
        assert item is not None, key
        return item.id

    def live(self) -> list[str]:
        return [item.key for item in self.catalog.items(self.dataset.id)]

    def read(self, key: str) -> bytes:
        with self.content.open(self.items.get(self.at(key))) as stream:
            return stream.read()

    def drift(self) -> list[str]:
        return [outcome.key for outcome in self.of.check()]


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    made.bucket.close()
    made.catalog.close()


def test_a_deleted_item_stays_deleted_while_its_object_stays_the_same(kit: Kit) -> None:
    item = kit.at("a.txt")
    kit.catalog.annotate(kit.dataset.id, "a.txt", {"type": "class", "label": "x"})
    kit.content.delete(kit.items.get(item), by="me")
    assert kit.live() == ["b.txt", "c.txt"]
    with pytest.raises(NotFound):
        kit.items.get(item)
    kit.of.sweep()
    kit.of.settle("a.txt")  # a late event
    assert (kit.live(), kit.drift()) == (["b.txt", "c.txt"], [])
    kit.catalog.vacuum(trash_days=-1, tombstone_days=-1)
    kit.of.sweep()
    assert kit.live() == ["b.txt", "c.txt"], "also when the trash has forgotten it"


def test_a_deleted_item_comes_back_with_its_labels_when_its_object_changes(kit: Kit) -> None:
    item = kit.at("a.txt")
    kit.catalog.annotate(kit.dataset.id, "a.txt", {"type": "class", "label": "x"})
    kit.content.delete(kit.items.get(item), by="me")
    kit.write("a.txt", "other bytes")
    kit.of.sweep()
    assert kit.at("a.txt") == item
    assert kit.items.get(item).annotations == 1


def test_a_deleted_item_can_be_restored(kit: Kit) -> None:
    item = kit.at("a.txt")
    kit.content.delete(kit.items.get(item), by="me")
    assert kit.catalog.restore(kit.dataset.id, "a.txt") is True
    assert kit.catalog.restore(kit.dataset.id, "a.txt") is False
    assert (kit.at("a.txt"), kit.drift()) == (item, [])


def test_a_deleted_item_whose_object_goes_later_is_like_any_other(kit: Kit) -> None:
    kit.content.delete(kit.items.get(kit.at("a.txt")), by="me")
    (Path(kit.bucket.spec.bucket) / "a.txt").unlink()
    kit.of.sweep()
    assert (kit.live(), kit.drift()) == (["b.txt", "c.txt"], [])
    assert kit.catalog.restore(kit.dataset.id, "a.txt") is False, "its object is gone"


def test_where_the_driver_allows_it_the_object_goes_first(tmp_path: Path) -> None:
    kit = Kit(tmp_path, deletes=True)
    kit.content.delete(kit.items.get(kit.at("a.txt")), by="me")
    assert not (tmp_path / "box/a.txt").exists()
    assert (kit.live(), kit.drift()) == (["b.txt", "c.txt"], [])
    kit.catalog.close()


def test_a_moved_item_keeps_its_id_and_bytes_and_the_bucket_is_not_touched(kit: Kit) -> None:
    item = kit.at("a.txt")
    moved = kit.items.rename(item, "folder/new.txt", by="me")
    assert (moved.id, moved.filename, moved.storage, moved.updated_by) == (
        item,
        "/folder/new.txt",
        "key:a.txt",
        "me",
    )
    assert kit.read("folder/new.txt") == b"a.txt"
    report = kit.of.sweep()
    assert (report.drift, kit.live(), kit.drift()) == (0, ["b.txt", "c.txt", "folder/new.txt"], [])
    assert kit.items.rename(item, "folder/new.txt", by="me").id == item
    kit.write("a.txt", "changed")
    kit.of.sweep()
    assert kit.live() == ["a.txt", "b.txt", "c.txt", "folder/new.txt"]
    assert kit.at("a.txt") != item, "the object became an item of its own"


def test_a_path_that_is_taken_and_one_that_only_the_trash_holds(kit: Kit) -> None:
    with pytest.raises(AlreadyExists, match=r"/b\.txt"):
        kit.items.rename(kit.at("a.txt"), "b.txt", by="me")
    kit.content.delete(kit.items.get(kit.at("b.txt")), by="me")
    assert kit.items.rename(kit.at("a.txt"), "b.txt", by="me").filename == "/b.txt"
    assert kit.read("b.txt") == b"a.txt"
    [trashed] = kit.catalog.items(kit.dataset.id, trashed=True)
    assert trashed.filename.startswith("/b.txt (trashed "), "under a name of its own"


def test_an_alias_is_no_object_and_no_sweep_removes_it(kit: Kit) -> None:
    made = kit.content.take_over("b.txt", "other/name.jpg", by="me")
    assert (made.mimetype, made.size, made.creator) == (
        "image/jpeg",
        5,
        "me",
    ) or made.mimetype == "text/plain"
    kit.of.sweep(max_deletes=0)
    kit.of.settle("other/name.jpg")  # an event for a key that is none
    assert kit.live() == ["a.txt", "b.txt", "c.txt", "other/name.jpg"]
    assert (kit.read("other/name.jpg"), kit.drift()) == (b"b.txt", [])
    with pytest.raises(NotFound):
        kit.content.take_over("never.txt", "x", by="me")


def test_an_object_where_an_alias_is_takes_its_place(kit: Kit) -> None:
    kit.content.take_over("b.txt", "d.txt", by="me")
    kit.write("d.txt", "an object")
    kit.of.sweep()
    assert (kit.read("d.txt"), kit.drift()) == (b"an object", [])
    assert kit.items.get(kit.at("d.txt")).storage is None


def test_an_upload_is_an_object_and_then_an_item(kit: Kit) -> None:
    made = kit.content.upload("up/new.bin", io.BytesIO(b"bytes"), by="me")
    assert (made.storage, made.size) == (None, 5)
    assert kit.drift() == []
    for key in ("", "dir/", "nul\0"):
        with pytest.raises(InvalidInput):
            kit.content.upload(key, io.BytesIO(b""), by="me")


def test_the_object_tells_the_facts_and_people_the_rest(kit: Kit) -> None:
    item = kit.at("a.txt")
    changed = kit.items.change(
        item,
        by="me",
        user={"k": {"a": 1, "b": 2}},
        system={"size": 99, "mimetype": "x/y", "height": 3},
        description="d",
    )
    assert (changed.size, changed.mimetype, changed.system) == (5, "text/plain", {"height": 3})
    changed = kit.items.change(item, by="me", user={"k": {"a": None}, "l": [1]})
    assert (changed.user, changed.description) == ({"k": {"b": 2}, "l": [1]}, "d")
    assert kit.items.change(item, by="me", description="").description is None


def test_merging_removes_by_null_and_replaces_lists() -> None:
    old = {"a": {"b": 1, "c": 2}, "l": [1, 2], "gone": 1}
    assert merged(old, {"a": {"b": None, "d": 3}, "l": [3], "gone": None}) == {
        "a": {"c": 2, "d": 3},
        "l": [3],
    }
    assert merged({"a": 1}, {"a": {"b": None}}) == {"a": {}}
    assert old == {"a": {"b": 1, "c": 2}, "l": [1, 2], "gone": 1}
