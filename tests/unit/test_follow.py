"""Annotation and metadata files in the bucket: mirrored by sweeps and by single keys, in whichever order things arrive."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.catalog.labels import Facts
from syncagent.catalog.sql.labels import SqlLabels
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.catalog.sql.statements import migrations
from syncagent.config import load
from syncagent.drivers import Bucket
from syncagent.errors import ConfigError, Transient
from syncagent.ingest.follow import LISTS, Follower
from syncagent.ingest.formats import png
from syncagent.ingest.formats import yolo as yolo_format
from syncagent.model import DriverSpec
from tests.rigs.catalogs import url_of


class World:
    """A bucket, a dataset over it, and what a person or an event does to them."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        name = f"follow-{uuid.uuid4().hex}"
        self.dataset: Dataset = agent.catalog.ensure_dataset(
            "data", DriverSpec(type="memory", bucket=name, name=name, allow_external_delete=True)
        )
        self.bucket: Bucket = agent.bucket(self.dataset.driver)
        self.labels = agent.catalog.labels

    def source(self, *sources: dict[str, Any]) -> None:
        self.labels.set_settings(self.dataset.id, {"sources": list(sources)})

    def put(self, key: str, body: Any = b"x") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.bucket.put(key, io.BytesIO(data))

    def event(self, *keys: str) -> Any:
        for key in keys:
            self.agent.reconciler(self.dataset).settle(key)
        return self.agent.follow(self.dataset, keys)

    def sweep(self) -> Any:
        self.agent.reconciler(self.dataset).sweep(max_deletes=100)
        return self.agent.follow(self.dataset)

    def step(self, way: str, *keys: str) -> Any:
        return self.sweep() if way == "sweep" else self.event(*keys)

    def fetched(self) -> int:
        return int(self.bucket.driver.requests["get"])

    def names(self, key: str) -> list[str]:
        item = self.labels.at(self.dataset.id, [key])[key]
        told = self.labels.annotations_of(self.dataset.id, [item.id]).get(item.id, [])
        return sorted(one["label"] for one in told)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"))) as agent:
        yield World(agent)


def boxes(*labels: str, filename: str | None = None) -> dict[str, Any]:
    told = [
        {"type": "box", "label": label, "coordinates": [{"x": n, "y": 1}, {"x": n + 5, "y": 9}]}
        for n, label in enumerate(labels)
    ]
    return {"annotations": told, **({"filename": filename} if filename else {})}


@pytest.mark.parametrize("way", ["sweep", "event"])
@pytest.mark.parametrize("first", ["file", "image"])
def test_labels_reach_their_image_in_either_order(world: World, way: str, first: str) -> None:
    world.source({"prefix": "labels/", "format": "dataloop", "root": "images/"})
    keys = ["labels/a/b.json", "images/a/b.jpg"]
    bodies = {keys[0]: boxes("car", "dog"), keys[1]: b"jpeg"}
    for key in keys if first == "file" else keys[::-1]:
        world.put(key, bodies[key])
        world.sweep() if way == "sweep" else world.event(key)
    assert world.names("images/a/b.jpg") == ["car", "dog"]
    assert [one["tag"] for one in world.labels.labels(world.dataset.id)] == ["car", "dog"]
    world.put(keys[0], boxes("cat"))
    world.sweep() if way == "sweep" else world.event(keys[0])
    assert world.names("images/a/b.jpg") == ["cat"]
    world.bucket.delete(keys[0])
    world.sweep() if way == "sweep" else world.event(keys[0])
    assert world.names("images/a/b.jpg") == []


def test_files_that_name_their_item(world: World) -> None:
    world.source({"prefix": "labels/", "format": "dataloop"})
    world.put("labels/1.json", boxes("car", filename="/x/a.jpg"))
    world.put("labels/all.json", [boxes("dog", filename="/x/a.jpg"), boxes("cat", filename="/x/b.jpg")])
    for key in ("x/a.jpg", "x/b.jpg"):
        world.put(key)
    report = world.sweep()
    assert (report.files, report.annotations, report.waiting, report.failed) == (2, 3, 0, 0)
    assert (world.names("x/a.jpg"), world.names("x/b.jpg")) == (["car", "dog"], ["cat"])
    assert world.sweep().files == 0, "an unchanged file is not read again"
    before = world.bucket.driver.requests["get"]
    world.sweep()
    assert world.bucket.driver.requests["get"] == before


def test_a_broken_file_keeps_what_it_gave_and_is_read_again_when_it_changes(world: World) -> None:
    world.source({"prefix": "labels/", "format": "dataloop", "root": ""})
    world.put("a.jpg")
    world.put("labels/a.json", boxes("car"))
    world.put("labels/b.json", boxes("x", filename="/a.jpg"))
    world.sweep()
    world.put("labels/a.json", b'{"annotations": [{"type": "box", "label": "car"}]}')
    report = world.sweep()
    assert report.failed == 1
    assert "a.json: annotation 0" in report.lines[0]
    assert world.names("a.jpg") == ["car", "x"]
    assert world.sweep().failed == 0, "it is not tried again as it is"
    world.put("labels/a.json", boxes("bus"))
    assert world.sweep().files == 1
    assert world.names("a.jpg") == ["bus", "x"]


def test_a_file_that_cannot_be_fetched_now_is_taken_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.source({"prefix": "labels/", "format": "dataloop"})
    world.put("a.jpg")
    world.put("labels/a.json", boxes("car"))

    def broken(*_: Any, **__: Any) -> Any:
        raise Transient("slow down")

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "open", broken)
        with pytest.raises(Transient):
            world.sweep()
    assert world.names("a.jpg") == []
    assert world.sweep().files == 1
    assert world.names("a.jpg") == ["car"]


@pytest.mark.parametrize("name", ["a.json", "a.jpg.json"])
def test_sidecars_give_metadata(world: World, name: str) -> None:
    world.source({"format": "sidecar"})
    world.put(f"d/{name}", {"city": "Rome", "n": 1})
    world.sweep()
    world.put("d/a.jpg")
    world.sweep()
    assert world.labels.at(world.dataset.id, ["d/a.jpg"])["d/a.jpg"].user == {"city": "Rome", "n": 1}
    world.put(f"d/{name}", {"city": "Oslo"})
    world.sweep()
    assert world.labels.at(world.dataset.id, ["d/a.jpg"])["d/a.jpg"].user == {"city": "Oslo"}


def test_one_metadata_file_for_a_folder(world: World) -> None:
    world.source({"format": "sidecar"})
    for key in ("d/a.jpg", "d/e/b.jpg"):
        world.put(key)
    world.put("d/metadata.jsonl", b'{"file_name": "a.jpg", "k": 1}\n\n{"file_name": "e/b.jpg", "k": 2}\n')
    assert world.sweep().failed == 0
    found = world.labels.at(world.dataset.id, ["d/a.jpg", "d/e/b.jpg"])
    assert {key: item.user for key, item in found.items()} == {"d/a.jpg": {"k": 1}, "d/e/b.jpg": {"k": 2}}
    world.put("d/metadata.jsonl", b'{"k": 1}\n')
    report = world.sweep()
    assert "metadata.jsonl: line 1: names no file" in report.lines[0]


def test_settings_that_are_none_are_an_error_that_says_so(world: World) -> None:
    world.source({"prefix": "l/", "format": "cocoa"})
    with pytest.raises(ConfigError, match="unknown annotation format 'cocoa'"):
        world.sweep()
    world.source({"prefix": "l/", "form": "coco"})
    with pytest.raises(ConfigError, match=r"sources\.0\.format: Field required"):
        world.sweep()


def test_a_dataset_without_such_files_costs_nothing(world: World) -> None:
    world.put("a.json", boxes("x"))
    assert world.sweep() is None
    assert world.event("a.json") is None


def test_any_history_ends_in_what_the_files_say(world: World) -> None:
    """Images and label files come, change and go; some by event, some by sweep, some events lost."""
    world.source({"prefix": "l/", "format": "dataloop", "root": "i/"})
    rng = random.Random(3)
    keys = [f"{kind}/{n}.{end}" for kind, end in (("i", "jpg"), ("l", "json")) for n in range(4)]
    says: dict[str, list[str]] = {}
    there: set[str] = set()
    for _ in range(120):
        key = rng.choice(keys)
        if key in there and rng.random() < 0.4:
            world.bucket.delete(key)
            there.discard(key)
        else:
            labels = [rng.choice("abc") for _ in range(rng.randint(0, 3))]
            says[key] = labels
            world.put(key, boxes(*labels) if key.startswith("l/") else str(rng.random()).encode())
            there.add(key)
        if rng.random() < 0.6:
            world.event(rng.choice(keys), key)
        elif rng.random() < 0.1:
            world.sweep()
    world.sweep()
    for key in sorted(there):
        if key.startswith("i/"):
            file = f"l/{Path(key).stem}.json"
            assert world.names(key) == sorted(says[file] if file in there else []), key


def test_taking_a_file_again_changes_nothing(world: World) -> None:
    world.source({"prefix": "l/", "format": "dataloop", "root": "i/"})
    world.put("i/a.jpg")
    world.put("l/a.json", boxes("car"))
    world.sweep()
    item = world.labels.at(world.dataset.id, ["i/a.jpg"])["i/a.jpg"]
    before = world.labels.annotations_of(world.dataset.id, [item.id])
    follower = Follower(world.labels, world.dataset.id, world.bucket)
    for _ in range(2):
        assert follower.catch_up(["i/a.jpg", "l/a.json"]).files == 0
    assert world.labels.annotations_of(world.dataset.id, [item.id]) == before


# -- files that need to know something of their item ---------------------------------------------

BOX = b"0 0.5 0.5 0.2 0.2\n"
NAMES = b"names: [car, dog]\n"


def picture(width: int = 40, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def yolo(world: World) -> World:
    world.source({"format": "yolo"})
    world.put("data.yaml", NAMES)
    world.sweep()
    return world


@pytest.mark.parametrize("way", ["sweep", "event"])
def test_a_file_waits_for_the_size_of_its_picture(yolo: World, way: str) -> None:
    yolo.put("labels/a.txt", BOX)
    report = yolo.step(way, "labels/a.txt")
    assert (report.waiting, report.failed, report.lines) == (1, 0, [])
    before = yolo.fetched()
    yolo.put("images/b.png", picture())
    yolo.step(way, "images/b.png")
    assert yolo.fetched() == before, "what waits is not read again for another's sake"
    yolo.put("images/a.png", picture())
    report = yolo.step(way, "images/a.png")
    assert (report.files, report.annotations, report.failed) == (1, 1, 0)
    assert yolo.names("images/a.png") == ["car"]
    before = yolo.fetched()
    yolo.step(way, "images/a.png")
    assert yolo.fetched() == before


@pytest.mark.parametrize("way", ["sweep", "event"])
def test_a_picture_that_tells_no_size_is_told_once_and_waited_for(yolo: World, way: str) -> None:
    yolo.put("images/a.png", b"no picture")
    yolo.put("labels/a.txt", BOX)
    report = yolo.step(way, "images/a.png", "labels/a.txt")
    assert (report.waiting, report.failed) == (0, 1)
    assert "the width and height of images/a are not known" in report.lines[0]
    before = yolo.fetched()
    assert yolo.step(way, "images/a.png").failed == 0
    assert yolo.fetched() == before
    yolo.put("images/a.png", picture())
    yolo.step(way, "images/a.png")
    assert yolo.names("images/a.png") == ["car"]


@pytest.mark.parametrize("way", ["sweep", "event"])
def test_a_size_that_is_noted_later_is_enough(yolo: World, way: str) -> None:
    yolo.put("images/a.png", b"no picture")
    yolo.put("labels/a.txt", BOX)
    yolo.step(way, "images/a.png", "labels/a.txt")
    found = {item.key: (item.id, stamp) for item, stamp in yolo.labels.unprobed(yolo.dataset.id)}
    size = {"width": 40, "height": 20}
    yolo.labels.set_facts(yolo.dataset.id, [Facts(*found["images/a.png"], size)])
    yolo.step(way, "images/a.png")
    assert yolo.names("images/a.png") == ["car"]


@pytest.mark.parametrize("way", ["sweep", "event"])
def test_a_name_of_several_pictures_waits_until_it_is_one_s(yolo: World, way: str) -> None:
    for key in ("images/a.jpg", "images/a.png"):
        yolo.put(key, picture())
        yolo.step(way, key)
    yolo.put("labels/a.txt", BOX)
    report = yolo.step(way, "labels/a.txt")
    assert report.lines == ["labels/a.txt: several items are called images/a"]
    before = yolo.fetched()
    yolo.step(way, "images/a.png")
    assert yolo.fetched() == before
    yolo.bucket.delete("images/a.jpg")
    yolo.step(way, "images/a.jpg")
    assert yolo.names("images/a.png") == ["car"]


@pytest.mark.parametrize("way", ["sweep", "event"])
def test_a_label_file_is_not_its_own_picture(yolo: World, way: str) -> None:
    for key in ("d/a.txt", "d/a.json"):
        yolo.put(key, BOX)
        yolo.step(way, key)
    before = yolo.fetched()
    yolo.step(way, "d/a.json")
    assert yolo.fetched() == before
    yolo.put("d/a.png", picture())
    yolo.step(way, "d/a.png")
    assert yolo.names("d/a.png") == ["car"]


def test_a_picture_that_comes_while_its_file_is_read_is_seen(
    yolo: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = SqlLabels.take

    def late(*args: Any, **more: Any) -> Any:
        if more.get("awaited") is not None:
            yolo.put("images/a.png", picture())
            yolo.agent.reconciler(yolo.dataset).settle("images/a.png")
        return take(*args, **more)

    monkeypatch.setattr(SqlLabels, "take", late)
    yolo.put("labels/a.txt", BOX)
    yolo.event("labels/a.txt")
    assert yolo.names("images/a.png") == ["car"]


def test_a_large_file_is_left_to_the_sweep(yolo: World) -> None:
    """So that many pictures of one file do not make it be read at each."""
    yolo.put("labels/a.txt", BOX + b"\n" * (1 << 20))
    yolo.event("labels/a.txt")
    yolo.put("images/a.png", picture())
    before = yolo.fetched()
    yolo.event("images/a.png")
    assert yolo.fetched() == before
    yolo.sweep()
    assert yolo.names("images/a.png") == ["car"]


@pytest.mark.parametrize("seed", range(4))
def test_any_history_of_files_that_need_a_size_ends_in_what_they_say(yolo: World, seed: int) -> None:
    rng = random.Random(seed)
    keys = [f"{kind}/{n}.{end}" for kind, end in (("images", "png"), ("labels", "txt")) for n in range(4)]
    says: dict[str, int] = {}
    there: set[str] = set()
    for _ in range(120):
        key = rng.choice(keys)
        if key in there and rng.random() < 0.4:
            yolo.bucket.delete(key)
            there.discard(key)
        else:
            says[key] = rng.randint(0, 3)
            yolo.put(key, BOX * says[key] if key.startswith("labels/") else picture(rng.randint(9, 99)))
            there.add(key)
        if rng.random() < 0.6:
            yolo.event(rng.choice(keys), key)
        elif rng.random() < 0.1:
            yolo.sweep()
    yolo.sweep()
    for key in sorted(there):
        if key.startswith("images/"):
            file = f"labels/{Path(key).stem}.txt"
            assert yolo.names(key) == ["car"] * (says[file] if file in there else 0), key


# -- lists of classes beside the files -----------------------------------------------------------


@pytest.mark.parametrize("way", ["sweep", "event"])
@pytest.mark.parametrize("name", ["data.yaml", "classes.txt"])
def test_files_are_read_again_when_their_classes_change(world: World, way: str, name: str) -> None:
    def told(*names: str) -> bytes:
        return "\n".join(names).encode() if name == "classes.txt" else f"names: [{', '.join(names)}]".encode()

    world.source({"prefix": "set/", "format": "yolo", "root": "set/"})
    for key, body in (("set/images/a.png", picture()), ("set/labels/a.txt", BOX), ("set/labels/b.txt", BOX)):
        world.put(key, body)
        world.step(way, key)
    assert world.names("set/images/a.png") == []
    for tag in ("car", "bus"):
        world.put(f"set/{name}", told(tag, "dog"))
        world.step(way, f"set/{name}")
        assert world.names("set/images/a.png") == [tag]
    before = world.fetched()
    world.sweep()
    world.step(way, "set/images/a.png", f"set/{name}")
    assert world.fetched() == before


def test_a_change_of_classes_reads_a_bounded_number_of_files_at_once(
    yolo: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncagent.ingest.follow._AT_ONCE", 2)
    images = [f"images/{n}.png" for n in range(4)]
    for n, key in enumerate(images):
        yolo.put(key, picture())
        yolo.put(f"labels/{n}.txt", BOX)
    yolo.sweep()
    yolo.put("data.yaml", b"names: [bus]")
    yolo.event("data.yaml")
    assert sorted(name for key in images for name in yolo.names(key)) == ["bus", "bus", "car", "car"]
    yolo.sweep()
    assert {name for key in images for name in yolo.names(key)} == {"bus"}


def test_classes_that_cannot_be_read_or_went_change_nothing(yolo: World) -> None:
    yolo.put("images/a.png", picture())
    yolo.put("labels/a.txt", BOX)
    yolo.sweep()
    yolo.put("data.yaml", b"names: [")
    assert yolo.sweep().failed == 1
    yolo.bucket.delete("data.yaml")
    yolo.sweep()
    assert yolo.names("images/a.png") == ["car"]


def test_two_lists_of_classes_do_not_wake_each_other(yolo: World) -> None:
    yolo.put("classes.txt", b"car")
    yolo.put("images/a.png", picture())
    yolo.put("labels/a.txt", BOX)
    yolo.sweep()
    yolo.put("data.yaml", b"names: [bus]")
    yolo.sweep()
    before = yolo.fetched()
    assert yolo.sweep().files == 0
    assert yolo.fetched() == before


def test_lists_of_classes_are_those_that_the_readers_look_for() -> None:
    assert {**LISTS} == {
        "yolo": yolo_format._BESIDE,
        "masks": (png._MAP, png._LABELMAP),
        "voc": (png._LABELMAP,),
    }


@pytest.mark.parametrize("way", ["sweep", "event"])
def test_masks_are_read_again_when_their_classes_change(world: World, way: str) -> None:
    world.source({"prefix": "masks/", "format": "masks", "root": "images/"})
    mask = io.BytesIO()
    Image.new("L", (4, 4), 1).save(mask, "PNG")
    for key, body in (("images/a.jpg", b"jpeg"), ("masks/a.png", mask.getvalue())):
        world.put(key, body)
        world.step(way, key)
    for tag in ("car", "bus"):
        world.put("masks/instance_map.json", {tag: 1})
        world.step(way, "masks/instance_map.json")
        assert world.names("images/a.jpg") == [tag]


def test_files_that_failed_before_there_was_waiting_are_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    with monkeypatch.context() as old:
        old.setattr("syncagent.catalog.sql.connection.migrations", lambda: migrations()[:6])
        SqliteCatalog(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        rows = [(1, "a", "no size"), (2, "b", None), (3, None, "no size")]
        db.executemany("INSERT INTO source_file VALUES (?1, 1, ?2, ?3, 0)", rows)
    SqliteCatalog(path).close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT fingerprint FROM source_file").fetchall() == [("",), ("b",), (None,)]
