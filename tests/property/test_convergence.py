"""Does the catalog become the bucket, whatever happens in between? The real engine under made-up schedules.

Every handler and every sweep runs in a thread of its own, but only one of them at a time: it hands the
baton back before each look at the catalog or the bucket, and a seeded scheduler says who goes on. So one
seed is one schedule, every time. The losing strategies at the end show that these schedules do find faults.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import azure.functions as func
import pytest
from pydantic import SecretStr

from syncagent import reconcile
from syncagent.catalog import Dataset, Store, open_catalog
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.drivers import Bucket, memory
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import Conflict, NotFound
from syncagent.handlers import aws, azure, gcp
from syncagent.handlers.mirror import Mirror
from syncagent.model import DriverSpec, ObjectInfo
from syncagent.reconcile import Reconciler
from tests.engine import live, stored
from tests.rigs.catalogs import open_at
from tests.rigs.served import EMAIL, PASSWORD, BadNetwork, Served

SEEDS = 40
"""Schedules for each of the eight kinds of world."""
SEEDS_AFAR = 4
"""The same, over HTTP."""
KEYS = "ab"
NUMBERS = itertools.count()


class Task:
    """One thread that moves only when told to."""

    def __init__(self, baton: Baton, work: Callable[[], object]) -> None:
        self.go, self.done = threading.Lock(), False
        self.error: BaseException | None = None
        self.go.acquire()

        def run() -> None:
            self.go.acquire()
            try:
                work()
            except BaseException as error:
                self.error = error
            self.done = True
            baton.back.release()

        threading.Thread(target=run, daemon=True).start()


class Baton:
    """Lets one task at a time take one step. Threads that a task starts count as that task."""

    def __init__(self) -> None:
        self.back = threading.Lock()
        self.back.acquire()
        self.current: Task | None = None

    def step(self, task: Task) -> bool:
        """Let a task go on to its next pause; tells whether it has ended."""
        self.current = task
        task.go.release()
        assert self.back.acquire(timeout=30), "a task hangs"
        self.current = None
        if task.error is not None:
            raise task.error
        return task.done

    def pause(self) -> None:
        """Called by tasks: hand the baton back. Outside of a schedule it does nothing."""
        if (task := self.current) is not None:
            self.back.release()
            task.go.acquire()


_MEETING = {
    "get", "rows", "scan", "settle", "settle_many", "insert_new", "move", "moves", "missing", "advance",
}  # fmt: skip


class SteppedCatalog:
    """The real catalog, with a pause before everything that could meet somebody else's write."""

    def __init__(self, catalog: Store, baton: Baton) -> None:
        self._catalog, self._baton = catalog, baton

    def __getattr__(self, name: str) -> object:
        real = getattr(self._catalog, name)
        if name not in _MEETING:
            return real

        def stepped(*args: object, **options: object) -> object:
            self._baton.pause()
            got = real(*args, **options)
            return list(got) if name == "scan" else got

        return stepped


class SteppedDriver(MemoryDriver):
    """A bucket in memory that pauses before each look. One key a page: a listing is no snapshot."""

    def __init__(self, baton: Baton, *, by_content: bool, hashes: bool) -> None:
        super().__init__(page_size=1)
        self._baton, self._by_content, self._hashes = baton, by_content, hashes

    def _told(self, found: ObjectInfo) -> ObjectInfo:
        # As S3 does: the same bytes again are the same fingerprint.
        fingerprint = found.etag or "" if self._by_content else found.fingerprint
        return found._replace(fingerprint=fingerprint, content_id=found.content_id if self._hashes else None)

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        pages = super().list(prefix, after=after, until=until)
        while True:
            self._baton.pause()
            page = next(pages, None)
            if page is None:
                return
            yield [self._told(found) for found in page]

    def stat(self, key: str) -> ObjectInfo:
        self._baton.pause()
        return self._told(super().stat(key))

    def put(
        self, key: str, body: io.BytesIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        return self._told(super().put(key, body, content_type=content_type, if_absent=if_absent))


class SteppedBucket(Bucket):
    """Without the thread that fetches ahead: it would run beside the baton."""

    def _driver_pages(self, after: str | None, until: str | None, ahead: bool) -> Iterator[list[ObjectInfo]]:  # type: ignore[override]
        return self.driver.list(self._prefix, after=after, until=until)


@dataclass(frozen=True)
class Event:
    """What the bucket signals. Only the losing strategies look at more than the key."""

    key: str
    found: ObjectInfo | None


@dataclass(frozen=True)
class World:
    """What kind of place it is."""

    sweep: bool = False
    """A sweep runs at the same time."""
    overwrite_deletes: bool = False
    """An overwrite also signals a delete of the old version, as in Google Cloud Storage."""
    lossy: bool = False
    """Some events never arrive."""

    def __str__(self) -> str:
        return "+".join(field.name for field in fields(self) if getattr(self, field.name)) or "events"


class Schedule:
    """One seed's story: changes of the bucket, events of them, handlers and sweeps, in some order."""

    def __init__(self, catalog: Store, world: World, seed: int, *, ensure: SqlCatalog | None = None) -> None:
        self.rng = random.Random(seed)
        self.world = world
        self.baton = Baton()
        by_content, hashes = self.rng.choice([(False, True), (True, True), (False, False)])
        driver = SteppedDriver(self.baton, by_content=by_content, hashes=hashes)
        name = f"{world}-{seed}-{next(NUMBERS)}"
        spec = DriverSpec(type="memory", bucket=name, name=name)
        self.bucket = SteppedBucket(driver, spec, url=f"memory://{name}")
        self.real = catalog
        self.catalog = SteppedCatalog(catalog, self.baton)
        memory._STORES[name] = driver._store  # for a server that looks at the bucket itself
        dataset = (ensure or catalog).ensure_dataset(name, spec)
        self.of = Reconciler(self.catalog, dataset, self.bucket, workers=1)  # type: ignore[arg-type]
        self.labels = 0
        self.pending: list[Event] = []
        self.lost = 0
        if self.rng.random() < 0.5:
            self.begin_with_items()

    def begin_with_items(self) -> None:
        for key in KEYS:
            self.bucket.put(key, io.BytesIO(self.rng.choice([b"X", b"Y"])))
        self.of.sweep()
        for key in KEYS:
            self.real.annotate(self.of.dataset.id, key, {"label": key, "type": "class"})
            self.labels += 1

    def signal(self, event: Event) -> None:
        """At least once, or not at all where events get lost."""
        if self.world.lossy and self.rng.random() < 0.4:
            self.lost += 1
            return
        self.pending += [event] * self.rng.choice([1, 1, 2])

    def change(self, kind: str, key: str, body: bytes) -> None:
        there = key in self.bucket.driver._store.objects  # type: ignore[attr-defined]
        if kind == "put":
            self.signal(Event(key, self.bucket.put(key, io.BytesIO(body))))
            if there and self.world.overwrite_deletes:
                self.signal(Event(key, None))
        elif there:
            self.bucket.driver.delete(key)
            self.signal(Event(key, None))

    def run(
        self,
        handle: Callable[[Schedule, Event], object],
        *,
        together: Callable[[Schedule, list[Event]], object] | None = None,
    ) -> None:
        """:param together: handles some events at once, instead of one."""
        rng = self.rng
        changes = [
            (rng.choice(["put", "put", "put", "delete"]), rng.choice(KEYS), rng.choice([b"X", b"Y"]))
            for _ in range(8)
        ]
        active: list[Task] = []
        sweeps = rng.choice([1, 1, 2]) if self.world.sweep else 0
        sweeping: Task | None = None
        while changes or self.pending or active or sweeps:
            choices = ["step"] * 3 if active else []
            choices += ["change"] if changes else []
            choices += ["event"] if self.pending else []
            choices += ["sweep"] if sweeps and sweeping is None else []
            match rng.choice(choices):
                case "change":
                    self.change(*changes.pop(0))
                case "event":
                    event = self.pending.pop(rng.randrange(len(self.pending)))
                    if together is not None:
                        batch = [event]
                        while self.pending and rng.random() < 0.5:
                            batch.append(self.pending.pop(rng.randrange(len(self.pending))))
                        active.append(Task(self.baton, lambda batch=batch: together(self, batch)))
                    else:
                        active.append(Task(self.baton, lambda event=event: handle(self, event)))
                case "sweep":
                    sweeps -= 1
                    sweeping = Task(self.baton, lambda: self.of.sweep(max_deletes=1000))
                    active.append(sweeping)
                case "step":
                    task = rng.choice(active)
                    if self.baton.step(task):
                        active.remove(task)
                        sweeping = None if task is sweeping else sweeping

    def converged(self) -> bool:
        return live(self.real, self.of.dataset) == stored(self.bucket)

    def labels_left(self) -> int:
        ds = self.of.dataset.id
        return sum(i.annotations for trashed in (False, True) for i in self.real.items(ds, trashed=trashed))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlCatalog]:
    """One catalog, and in it a dataset for each schedule."""
    shm = Path("/dev/shm")  # noqa: S108
    folder = Path(tempfile.mkdtemp(dir=shm)) if shm.is_dir() else tmp_path_factory.mktemp("convergence")
    with open_at(folder / "catalog.db") as opened:
        yield opened
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def afar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A catalog behind a server, and that behind a bad network."""
    folder = tmp_path_factory.mktemp("afar")
    with Served(folder / "catalog.db") as server, BadNetwork(server.url) as network:
        opened = open_catalog(f"dataloop+{network.url}", username=EMAIL, password=SecretStr(PASSWORD))
        yield opened
        opened.close()
        assert {"lost", "cut", "twice", "over", "busy"} <= set(network.faults), "it was bad"


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")


WORLDS = [World(*flags) for flags in itertools.product((False, True), repeat=3)]


# -- what must hold ------------------------------------------------------------------------------


def settle(schedule: Schedule, event: Event) -> None:
    schedule.of.settle(event.key)


class Anywhere(Mirror):
    """A mirror for which every event is one of the schedule's bucket, whatever cloud it says that it comes from."""

    def __init__(self, schedule: Schedule) -> None:
        agent = SimpleNamespace(
            reconciler=lambda _: schedule.of, follow=lambda *_: None, catalog=schedule.catalog,
            settings=SimpleNamespace(dataset_id=None),
        )  # fmt: skip
        super().__init__(agent)  # type: ignore[arg-type]
        self._schedule = schedule

    def _mirroring(self, event: object) -> list[Dataset]:
        return [self._schedule.of.dataset]


def through_functions(schedule: Schedule, events: list[Event]) -> None:
    """As the clouds deliver: a batch of SQS, CloudEvents and a queue's messages, by the functions' own entry points."""
    mirror = Anywhere(schedule)
    cloud = schedule.rng.choice(["aws", "gcp", "azure"])
    if cloud == "aws":
        aws._front._made = SimpleNamespace(close=lambda: None), mirror  # type: ignore[assignment]
        records = [
            {"messageId": str(n), "eventSource": "aws:sqs", "body": json.dumps({"Records": [
                {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put" if event.found else "ObjectRemoved:Delete",
                 "s3": {"bucket": {"name": "b"}, "object": {"key": event.key}}}]})}
            for n, event in enumerate(events)
        ]  # fmt: skip
        assert aws.handler({"Records": records}) == {"batchItemFailures": []}
        return
    for event in events:
        if cloud == "gcp":
            gcp._front._made = SimpleNamespace(close=lambda: None), mirror  # type: ignore[assignment]
            kind = "google.storage.object.finalize" if event.found else "google.storage.object.delete"
            gcp.create_gcs({"bucket": "b", "name": event.key}, {"eventType": kind})
        else:
            azure._front._made = SimpleNamespace(close=lambda: None), mirror  # type: ignore[assignment]
            told = {
                "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a", "id": "1",
                "subject": f"/blobServices/default/containers/b/blobs/{event.key}", "data": {},
                "eventType": f"Microsoft.Storage.Blob{'Created' if event.found else 'Deleted'}",
            }  # fmt: skip
            azure.on_queue(func.QueueMessage(id="1", body=json.dumps(told)))


def converge(
    catalog: Store,
    world: World,
    seeds: int,
    monkeypatch: pytest.MonkeyPatch,
    together: Callable[[Schedule, list[Event]], object] | None = None,
) -> tuple[int, int]:
    """Returns how many events were lost, and how many schedules left something to the last sweep."""
    lost = stale = 0
    for seed in range(seeds):
        monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", (0.0, 1.0)[seed % 2])
        schedule = Schedule(catalog, world, seed)
        schedule.run(settle, together=together)
        if world.lossy:
            # Nobody told of some changes. Once the bucket is quiet, one sweep finds them.
            lost += schedule.lost
            stale += not schedule.converged()
            schedule.of.sweep(max_deletes=1000)
        assert schedule.converged(), (
            f"seed {seed}: {live(catalog, schedule.of.dataset)} is not {stored(schedule.bucket)}"
        )
        assert schedule.labels_left() == schedule.labels, f"seed {seed}: a label is lost"
        assert catalog.quarantined(schedule.of.dataset.id) == [], f"seed {seed}"
        assert list(schedule.of.check()) == [], f"seed {seed}"
    return lost, stale


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_the_catalog_becomes_the_bucket(
    catalog: SqlCatalog, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, stale = converge(catalog, world, SEEDS, monkeypatch)
    if world.lossy:
        assert lost > SEEDS, "events were lost"
        assert stale, "and the final sweep had something to repair"


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_the_catalog_afar_becomes_the_bucket(
    afar: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over HTTP, where requests and answers get lost, and some requests come twice."""
    converge(afar, world, SEEDS_AFAR, monkeypatch)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_through_the_functions_the_catalog_becomes_the_bucket(
    catalog: SqlCatalog, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converge(catalog, world, SEEDS // 3, monkeypatch, through_functions)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_through_the_functions_the_catalog_afar_becomes_the_bucket(
    afar: Store, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converge(afar, world, SEEDS_AFAR // 2, monkeypatch, through_functions)


@pytest.mark.parametrize("functions", [False, True], ids=["settle", "functions"])
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_on_the_platform_the_next_sweep_repairs(
    tmp_path_factory: pytest.TempPathFactory,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    functions: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without compare-and-set a row may be wrong when the events have been handled, but not after a sweep."""
    folder = tmp_path_factory.mktemp("platform")
    monkeypatch.setenv("SYNCAGENT_HOME", str(folder))
    with Served(folder / "catalog.db", extension=False) as server:
        opened = open_catalog(f"dataloop+{server.url}", username=EMAIL, password=SecretStr(PASSWORD))
        wrong = 0
        for seed in range(SEEDS_AFAR // 2):
            schedule = Schedule(opened, world, seed, ensure=server.catalog)
            schedule.run(settle, together=through_functions if functions else None)
            wrong += not schedule.converged()
            schedule.of.sweep(max_deletes=1000)
            assert schedule.converged(), (
                f"seed {seed}: {live(opened, schedule.of.dataset)} is not {stored(schedule.bucket)}"
            )
            assert list(schedule.of.check()) == [], f"seed {seed}"
        assert wrong < SEEDS_AFAR / 4 or world.lossy
        opened.close()


def test_one_seed_is_one_schedule(catalog: SqlCatalog) -> None:
    ends = []
    for _ in range(3):
        schedule = Schedule(catalog, World(sweep=True), 11)
        schedule.run(settle)
        rows = [tuple(row)[:3] for row in catalog.scan(schedule.of.dataset.id)]
        ends.append((rows, schedule.rng.random()))
    assert ends[0] == ends[1] == ends[2]


# -- strategies that lose ------------------------------------------------------------------------


def write(schedule: Schedule, key: str, found: ObjectInfo | None) -> None:
    """Unconditionally: whatever is there, in one step."""
    ds = schedule.of.dataset.id
    row = schedule.real.get(ds, key)
    schedule.real.settle(ds, key, found, expect_rev=row.rev if row else 0)


def look(schedule: Schedule, key: str) -> ObjectInfo | None:
    try:
        return schedule.bucket.stat(key)
    except NotFound:
        return None


def believe(schedule: Schedule, event: Event) -> None:
    schedule.baton.pause()
    write(schedule, event.key, event.found)


def look_and_write(schedule: Schedule, event: Event) -> None:
    found = look(schedule, event.key)
    schedule.baton.pause()
    write(schedule, event.key, found)


def compare_and_set_but_skip(schedule: Schedule, event: Event) -> None:
    """All as it should be, but a write that would change nothing is saved."""
    ds = schedule.of.dataset.id
    while True:
        row = schedule.catalog.get(ds, event.key)
        found = look(schedule, event.key)
        if (row.fingerprint if row else None) == (found.fingerprint if found else None):
            return
        try:
            schedule.catalog.settle(ds, event.key, found, expect_rev=row.rev if row else 0)
        except Conflict:
            continue
        return


def look_before_reading(schedule: Schedule, event: Event) -> None:
    """Compare-and-set with the two reads the wrong way round."""
    ds = schedule.of.dataset.id
    while True:
        found = look(schedule, event.key)
        row = schedule.catalog.get(ds, event.key)
        try:
            schedule.catalog.settle(ds, event.key, found, expect_rev=row.rev if row else 0)
        except Conflict:
            continue
        return


# Seeds at which they are known to lose. When this file's schedules change, find new ones:
#   python -m tests.property.test_convergence
LOSING = {
    believe: (World(), [1, 2, 3]),
    look_and_write: (World(), [337, 394, 1132]),
    compare_and_set_but_skip: (World(), [957, 997, 2402]),
    look_before_reading: (World(), [397, 783, 1171]),
}


@pytest.mark.parametrize("strategy", LOSING, ids=lambda strategy: strategy.__name__)
def test_a_losing_strategy_loses(catalog: SqlCatalog, strategy: Callable[[Schedule, Event], None]) -> None:
    world, seeds = LOSING[strategy]
    assert seeds
    for seed in seeds:
        lost = Schedule(catalog, world, seed)
        lost.run(strategy)
        assert not lost.converged(), f"seed {seed} no longer shows what is wrong with {strategy.__name__}"
        sound = Schedule(catalog, world, seed)
        sound.run(settle)
        assert sound.converged(), f"seed {seed}"


def find(strategies: Sequence[str], limit: int = 10_000, batch: int = 50) -> None:
    """Print seeds for `LOSING`."""
    for strategy, (world, _) in LOSING.items():
        if strategies and strategy.__name__ not in strategies:
            continue
        seeds: list[int] = []
        for start in range(0, limit, batch):
            with (
                tempfile.TemporaryDirectory() as folder,
                open_at(Path(folder) / "catalog.db") as catalog,
            ):
                for seed in range(start, start + batch):
                    schedule = Schedule(catalog, world, seed)
                    schedule.run(strategy)
                    if not schedule.converged():
                        seeds.append(seed)
            if len(seeds) >= 3:
                break
        print(strategy.__name__, world, seeds[:3], flush=True)


if __name__ == "__main__":
    find(sys.argv[1:])
