"""Annotation and metadata files in the bucket: mirrored by sweeps and by single keys, in whichever order things arrive."""

from __future__ import annotations

import io
import json
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.config import load
from syncagent.drivers import Bucket
from syncagent.errors import ConfigError, Transient
from syncagent.ingest.follow import Follower
from syncagent.model import DriverSpec


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

    def names(self, key: str) -> list[str]:
        item = self.labels.at(self.dataset.id, [key])[key]
        told = self.labels.annotations_of(self.dataset.id, [item.id]).get(item.id, [])
        return sorted(one["label"] for one in told)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Agent(load(catalog=f"sqlite:///{tmp_path / 'catalog.db'}")) as agent:
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
