"""Events are settled where a dataset mirrors their place, and nowhere else."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.config import load
from syncagent.drivers.memory import MemoryDriver, open_driver
from syncagent.errors import AccessDenied, Transient
from syncagent.handlers.events import Event, Kind
from syncagent.handlers.mirror import Mirror
from syncagent.model import DriverSpec, ObjectInfo, Scope
from syncagent.reconcile import Reconciler
from tests.rigs.catalogs import url_of


class World:
    """Two datasets over one bucket in memory, one of them below a path."""

    def __init__(self, agent: Agent, name: str) -> None:
        self.agent, self.name, self.now = agent, name, 0.0
        self.whole = agent.catalog.ensure_dataset("whole", DriverSpec(type="memory", bucket=name, name="w"))
        self.part = agent.catalog.ensure_dataset(
            "part", DriverSpec(type="memory", bucket=name, path="in", name="p")
        )
        self.driver = open_driver(DriverSpec(type="memory", bucket=name))
        self.mirror = Mirror(agent, clock=lambda: self.now)

    def event(self, key: str, kind: Kind = Kind.CREATED, *, size: int | None = None) -> Event:
        return Event("memory", self.name, key, kind, "Test", size=size)

    def put(self, *keys: str) -> None:
        for key in keys:
            self.driver.put(key, io.BytesIO(key.encode()))

    def asked(self) -> Counter[str]:
        """Requests that the mirror sent, by kind."""
        drivers = [of.bucket.driver for _, of in self.mirror._reconcilers.values()]
        return sum((driver.requests for driver in drivers), Counter())

    def keys(self, dataset: Dataset) -> list[str]:
        return [item.key for item in self.agent.catalog.items(dataset.id)]


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"), workers=2)) as agent:
        yield World(agent, f"{request.node.name}-{tmp_path.name}")


def test_a_dataset_that_cannot_be_opened_stops_no_other_over_its_bucket(world: World) -> None:
    broken = world.agent.catalog.ensure_dataset(
        "a-part",
        DriverSpec(type="memory", bucket=world.name, path="in", name="x", options={"page_size": "wrong"}),
    )
    real = world.agent.reconciler

    def reconciler(dataset: Dataset) -> Reconciler:
        if dataset.id == broken.id:
            raise AccessDenied("its integration is gone")
        return real(dataset)

    world.agent.reconciler = reconciler  # type: ignore[method-assign]
    world.put("in/a", "zz/a")
    done = world.mirror.settle([world.event("in/a"), world.event("zz/a")])
    assert isinstance(done.errors[0], AccessDenied), "it is delivered again"
    assert done.errors[1] is None, "that dataset has nothing there"
    assert world.keys(world.whole) == ["in/a", "zz/a"]
    assert world.keys(world.part) == ["a"]


def test_a_new_dataset_gets_its_events_at_once_and_one_that_goes_is_closed(world: World) -> None:
    world.put("new/a")
    world.mirror.settle([world.event("new/a")])
    made = world.agent.catalog.ensure_dataset(
        "new", DriverSpec(type="memory", bucket=world.name, path="new", name="n")
    )
    world.now += 1.5
    world.mirror.settle([world.event("new/a")])
    assert world.keys(made) == ["a"]
    assert {dataset.name for dataset, _ in world.mirror.buckets()} == {"whole", "new"}
    world.agent.catalog.remove_dataset("new")
    world.now += 1.5
    world.mirror.settle([world.event("new/a")])
    assert {dataset.name for dataset, _ in world.mirror.buckets()} == {"whole"}


def test_an_event_is_settled_in_every_dataset_that_mirrors_its_place(world: World) -> None:
    world.put("in/a", "b")
    done = world.mirror.settle([world.event("in/a"), world.event("b"), world.event("in")])
    assert done.errors == [None] * 3
    assert world.keys(world.whole) == ["b", "in/a"]
    assert world.keys(world.part) == ["a"]
    assert done.counts == {"added": 3, "same": 1}, "nothing is at 'in', which is a key of the whole only"


def test_what_an_event_claims_is_not_believed(world: World) -> None:
    world.put("there")
    world.mirror.settle([world.event("there", Kind.REMOVED), world.event("gone", Kind.CREATED)])
    assert world.keys(world.whole) == ["there"]


def test_a_key_is_settled_once_however_many_events_name_it(world: World) -> None:
    world.put("a")
    done = world.mirror.settle([world.event("a"), world.event("a", Kind.REMOVED), world.event("a")])
    assert [outcome.key for _, outcome in done.outcomes] == ["a"]
    row = world.agent.catalog.get(world.whole.id, "a")
    assert row is not None
    assert row.rev == 1


def test_events_outside_every_dataset_cost_nothing(world: World) -> None:
    world.mirror.settle([world.event("warm")])
    before = world.asked()
    assert before["head"] == 1
    elsewhere = [Event("memory", "another", f"{n}", Kind.CREATED, "Test") for n in range(100)]
    statements = world.agent.catalog.db.statements  # type: ignore[attr-defined]
    done = world.mirror.settle([*elsewhere, Event("s3", world.name, "a", Kind.CREATED, "Test")])
    assert done.outside == 101
    assert not done.outcomes
    assert world.asked() == before
    assert world.agent.catalog.db.statements == statements  # type: ignore[attr-defined]


def test_a_folder_marker_is_passed_over(world: World) -> None:
    before = world.asked()
    done = world.mirror.settle([world.event("folder/", size=0)])
    assert not done.outcomes
    assert world.asked() == before


def test_below_a_directory_everything_is_looked_at(world: World) -> None:
    world.put("in/d/1", "in/d/2", "in/e", "d/3", "in/d")
    done = world.mirror.settle([world.event("in/d/", Kind.BELOW)])
    assert done.errors == [None]
    assert world.keys(world.part) == ["d/1", "d/2"]
    assert world.keys(world.whole) == ["in/d/1", "in/d/2"]
    world.driver.delete("in/d/1")
    done = world.mirror.settle([world.event("in/", Kind.BELOW)])
    assert world.keys(world.part) == ["d", "d/2", "e"]
    assert done.counts == {"added": 4, "removed": 2}
    world.mirror.settle([world.event("", Kind.BELOW)])
    assert "d/3" in world.keys(world.whole)


@pytest.mark.parametrize(
    ("directory", "wanted"),
    [
        ("raw/", ["train_1/a", "train_2"]),
        ("raw/train_1/", ["train_1/a"]),
        ("raw/t", ["train_1/a", "train_2"]),
        ("other/", []),
    ],
)
def test_below_a_directory_where_a_dataset_has_a_plain_prefix(
    world: World, directory: str, wanted: list[str]
) -> None:
    spec = DriverSpec(type="memory", bucket=world.name, path="raw/train_", scope=Scope.PREFIX, name="t")
    training = world.agent.catalog.ensure_dataset("training", spec)
    world.put("raw/train_1/a", "raw/train_2", "raw/test_1", "other/train_1")
    mirror = Mirror(world.agent, only=["training"])
    done = mirror.settle([world.event(directory, Kind.BELOW)])
    assert done.errors == [None]
    assert world.keys(training) == wanted


def test_a_dataset_that_cannot_be_opened_does_not_stop_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("in/a")
    real = world.agent.reconciler

    def reconciler(dataset: Dataset) -> Reconciler:
        if dataset == world.whole:
            raise AccessDenied("no credentials")
        return real(dataset)

    monkeypatch.setattr(world.agent, "reconciler", reconciler)
    done = world.mirror.settle([world.event("in/a")])
    assert isinstance(done.errors[0], AccessDenied), "it comes again"
    assert world.keys(world.part) == ["a"]


def test_a_key_that_is_no_text_is_an_error_of_its_own(world: World) -> None:
    """As JSON's escapes allow it: the others of the batch are settled."""
    world.put("in/a")
    events = [world.event(json.loads('"in/\\ud800"')), world.event("in/a")]
    events.append(world.event(json.loads('"in/\\ud800/"'), Kind.BELOW))
    done = world.mirror.settle(events)
    assert [type(error).__name__ for error in done.errors] == ["InvalidInput", "NoneType", "InvalidInput"]
    assert world.keys(world.part) == ["a"]


def test_one_event_that_fails_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a", "b", "d/1")
    real = MemoryDriver.stat

    def stat(driver: MemoryDriver, key: str) -> ObjectInfo:
        if key in {"b", "d/1"}:
            raise AccessDenied("no", resource=key)
        return real(driver, key)

    monkeypatch.setattr(MemoryDriver, "stat", stat)
    events = [world.event("b"), world.event("a"), world.event("b"), world.event("d/", Kind.BELOW)]
    done = world.mirror.settle([*events, world.event("x" * 2000)])
    assert [type(error).__name__ for error in done.errors] == [
        "AccessDenied", "NoneType", "AccessDenied", "AccessDenied", "InvalidInput",
    ]  # fmt: skip
    assert world.keys(world.whole) == ["a"]


def test_with_no_time_left_the_rest_waits_for_another_delivery(world: World) -> None:
    world.put("a", "d/1")
    events = [world.event("a"), world.event("d/", Kind.BELOW)]
    done = world.mirror.settle(events, left=lambda: 0.0)
    assert all(isinstance(error, Transient) for error in done.errors)
    assert world.keys(world.whole) == []
    assert world.mirror.settle(events, left=lambda: 1.0).errors == [None, None]


def test_a_dataset_that_came_later_is_found(world: World) -> None:
    driver = open_driver(DriverSpec(type="memory", bucket=world.name + "-2"))
    driver.put("a", io.BytesIO(b"1"))
    event = Event("memory", world.name + "-2", "a", Kind.CREATED, "Test")
    assert world.mirror.settle([event]).outside == 1
    spec = DriverSpec(type="memory", bucket=world.name + "-2", name="l")
    later = world.agent.catalog.ensure_dataset("later", spec)
    assert world.mirror.settle([event]).outside == 1, "the table is not read for every unknown bucket"
    world.now += 6
    assert world.mirror.settle([event]).outside == 0
    assert world.keys(later) == ["a"]


def test_a_dataset_that_was_removed_is_forgotten_in_time(world: World) -> None:
    world.put("a")
    assert world.mirror.settle([world.event("a")]).outside == 0
    for dataset in ("whole", "part"):
        world.agent.catalog.remove_dataset(dataset)
    world.now += 61
    assert world.mirror.settle([world.event("a")]).outside == 1


def test_only_the_named_datasets_are_worked_on(world: World) -> None:
    world.put("in/a")
    Mirror(world.agent, only=["part"]).settle([world.event("in/a")])
    assert (world.keys(world.whole), world.keys(world.part)) == ([], ["a"])
    Mirror(world.agent, only=[world.whole.id]).settle([world.event("in/a")])
    assert world.keys(world.whole) == ["in/a"]


@pytest.mark.parametrize("first", ["labels", "image"])
def test_an_annotation_file_is_taken_when_its_event_comes(world: World, first: str) -> None:
    sources = [{"prefix": "labels/", "format": "dataloop"}]
    world.agent.catalog.labels.set_settings(world.whole.id, {"sources": sources})
    told = {"filename": "/x/a.png", "annotations": [{"type": "class", "label": "cat"}]}
    world.driver.put("labels/a.json", io.BytesIO(json.dumps(told).encode()))
    world.put("x/a.png")
    keys = ["labels/a.json", "x/a.png"]
    for key in keys if first == "labels" else keys[::-1]:
        world.mirror.settle([world.event(key)])
    assert world.agent.catalog.item(world.whole.id, "x/a.png").annotations == 1


REMOTE = "dataloop+https://gate.dataloop.ai"


@pytest.fixture
def read(world: World) -> list[float]:
    """When the table of datasets was read."""
    reads: list[float] = []
    real = world.agent.catalog.datasets
    world.agent.catalog.datasets = lambda: reads.append(world.now) or real()  # type: ignore[func-returns-value, method-assign]
    return reads


def name_one(world: World, catalog: str) -> None:
    """Have the settings name one dataset. The catalog that is open stays."""
    given = {"dataset_id": world.whole.id, "catalog": catalog}
    world.agent.settings = world.agent.settings.model_copy(update=given)
    world.mirror = Mirror(world.agent, clock=lambda: world.now)


@pytest.mark.parametrize(
    ("catalog", "kept"),
    [(None, 1.0), ("sqlite:///elsewhere.db", 1.0), (REMOTE, 60.0)],
    ids=["all", "named, and nobody heeds it", "named"],
)
def test_how_long_the_table_of_datasets_is_believed(
    world: World, read: list[float], catalog: str | None, kept: float
) -> None:
    if catalog:
        name_one(world, catalog)
    world.mirror = Mirror(world.agent, clock=lambda: world.now)
    world.put("in/a")
    for world.now in (0.0, kept - 0.1, kept + 0.1):
        assert world.mirror.settle([world.event("in/a")]).errors == [None]
    assert read == [0.0, kept + 0.1]


def test_what_the_one_dataset_does_not_seem_to_mirror_is_looked_up_each_second(
    world: World, read: list[float]
) -> None:
    name_one(world, REMOTE)
    elsewhere = Event(world.whole.driver.type, "another-bucket", "a", Kind.CREATED, "made")
    for world.now in (0.0, 0.9, 1.1, 2.0, 2.2):
        assert world.mirror.settle([elsewhere]).outside == 1
    assert read == [0.0, 1.1, 2.2]
