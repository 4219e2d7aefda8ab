"""A function's archive, cold start, memory and requests, beside the platform tutorial's handler with dtlpy, on three clouds.

    make bench                                # or: python benchmarks/coldstart.py --rounds 5 --clouds aws,gcp,azure

Both run on the cloud's own runtime (benchmarks/functions.py), in a Python that has nothing else, over one catalog (`syncagent serve`)
and one emulator of its buckets, both behind proxies that count requests. Every object has to be in the dataset in the end.

- archive: ours is what `syncagent package` writes, whole: with compiled files, and on Google with the framework's wheels. The
  tutorial's is dtlpy with what it needs (on Google with the framework, on Azure with its SDK), installed and zipped alike, without
  compiled files: the benefit of the doubt.
- cold start: from the process's start to the answer to its first event. The tutorial's packages are compiled.
- peak memory: of all processes of the runtime, what a container is charged for, read from /proc. What they share counts once: of
  anonymous memory the proportional shares, of each file the pages of the process that has most; and what a process once had beside.
- requests: of the catalog and the bucket, of events that come alone; the catalog's own look at the bucket is the tutorial's. The
  bucket lets everybody read, so credentials are loaded, and no token is asked for.

Beside them a handler that does nothing: what the runtime takes alone, which a ratio has on both sides.

Bars: a fifth of its size, a third of its cold start, half of its peak memory, no more requests an event, and 4 requests of the catalog
for a delivery of 1,000 events (Google brings each event alone). Exits 1 when AWS misses one; misses of the others are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.functions import CLOUDS, Cloud, Entrant  # after the path is known
from syncagent.agent import Agent
from syncagent.config import load
from tests.rigs import server
from tests.rigs.between import Between
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

EVENTS = 20
BATCH = 1000


class World:
    """A catalog and a cloud's buckets, whose requests are counted."""

    def __init__(self, place: Path, cloud: Cloud, storage: str, catalog: Between, bucket: Between) -> None:
        self.cloud, self.catalog = cloud, catalog
        self._place, self._storage, self._bucket = place, storage, bucket
        self._number = 0

    def _agent(self) -> Agent:
        catalog = f"dataloop+{self.catalog.url}"
        return Agent(load(catalog=catalog, dtlpy_username=EMAIL, dtlpy_password=PASSWORD))

    def dataset(self, objects: int) -> tuple[str, str]:
        """A fresh bucket with objects, and the id of a dataset over it."""
        self._number += 1
        name = f"bucket-{self.cloud.name}-{self._number}"
        self.cloud.fill(self._storage, name, [key_of(number) for number in range(objects)])
        # The emulator's address may have a path, which the proxy passes on.
        path = "/" + self._storage.partition("://")[2].partition("/")[2]
        with self._agent() as agent:
            url = self.cloud.url(self._bucket.url + path.rstrip("/"), name)
            return name, agent.resolve(url, name=name, create=True).id

    def verify(self, dataset: str, objects: int) -> None:
        """:raises SystemExit: not every object is an item."""
        with self._agent() as agent:
            found = {item.key for item in agent.catalog.items(dataset)}
        if lacking := {key_of(number) for number in range(objects)} - found:
            raise SystemExit(f"{len(lacking)} of {objects} objects are not in the dataset")

    @property
    def requests(self) -> int:
        return len(self.catalog.requests) + len(self._bucket.requests)

    def environment(self, dataset: str) -> dict[str, str]:
        """What either needs: the tutorial finds the server by dtlpy's own cookie file."""
        home = Path(tempfile.mkdtemp(dir=self._place))
        api, gate = f"{self.catalog.url}/api/v1", self.catalog.url
        login = {
            "alias": "mine", "gate_url": gate, "url": f"{gate}/", "verify_ssl": False, "audience": None, "client_id": None,
            "auth0_url": None, "token": None, "refresh_token": None,
        }  # fmt: skip
        (home / "cookie.json").write_text(json.dumps({"url": api, "login_parameters": {api: login}}))
        return {
            "DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD, "DATASET_ID": dataset, "SYNCAGENT_CATALOG": f"dataloop+{gate}",
            "DATALOOP_PATH": str(home), "SYNCAGENT_HOME": str(home / "home"), "HOME": str(home), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip


def key_of(number: int) -> str:
    # Without a folder, which dtlpy would leave out of the item's name.
    return f"image-{number:04}.jpg"


def measure(entrant: Entrant, world: World) -> None:
    """One cold start, and some events after it."""
    bucket, dataset = world.dataset(EVENTS + 1)
    given = {**world.environment(dataset), **entrant.environment}
    before = world.requests
    with world.cloud.run(entrant, bucket, given) as function:
        function.tell(key_of(0))
        entrant.cold.append(time.perf_counter() - function.started)
        entrant.first.append(world.requests - before)
        before = world.requests
        for number in range(1, EVENTS + 1):
            function.tell(key_of(number))
        entrant.each.append((world.requests - before) / EVENTS)
        if entrant.settles:
            world.verify(dataset, EVENTS + 1)
        entrant.memory.append(peak(function.pid))


def batch(entrant: Entrant, world: World) -> int:
    """Requests of the catalog for a delivery of 1,000 events."""
    bucket, dataset = world.dataset(BATCH)
    taker = world.cloud.batched(entrant)
    given = {**world.environment(dataset), **taker.environment}
    with world.cloud.run(taker, bucket, given) as function:
        function.batch([key_of(0)])
        before = len(world.catalog.requests)
        function.batch([key_of(number) for number in range(BATCH)])
        requests = len(world.catalog.requests) - before
    world.verify(dataset, BATCH)
    return requests


def peak(pid: int) -> float:
    """What a container with a process and its children is charged for at most, in MB."""
    charged, files = 0, Counter[str]()
    for one in family(pid):
        status, shares = fields(one, "status"), fields(one, "smaps_rollup")
        charged += shares["Pss_Anon"] + shares["Pss_Shmem"] + status["VmHWM"] - status["VmRSS"]
        files |= mapped(one)
    return (charged + files.total()) / 1000


def mapped(pid: int) -> Counter[str]:
    """By file, what of it is in a process's memory and was not written to, in kB."""
    found, path = Counter[str](), ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            path = rest[4] if len(rest) > 4 else ""
        elif path.startswith("/") and first in {"Rss:", "Anonymous:"}:
            found[path] += int(rest[0]) * (1 if first == "Rss:" else -1)
    return found


def family(pid: int) -> list[int]:
    children = [
        int(child)
        for told in Path(f"/proc/{pid}/task").glob("*/children")
        for child in told.read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def fields(pid: int, file: str) -> dict[str, int]:
    """Of a file in /proc, those in kB."""
    rows = (line.split() for line in Path(f"/proc/{pid}/{file}").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[-1:] == ["kB"]}


@contextlib.contextmanager
def world_of(cloud: Cloud, place: Path, served: ServerRig) -> Iterator[World]:
    with (
        cloud.storage() as storage,
        Between(served.url) as catalog,
        Between(storage.partition("/devstoreaccount1")[0]) as bucket,
    ):
        yield World(place, cloud, storage, catalog, bucket)


def report(cloud: Cloud, mine: Entrant, theirs: Entrant, empty: Entrant, requests: int | None) -> bool:
    """Print a table; whether every bar is met."""
    median = statistics.median
    rows = [
        ("archive, MB", mine.size / 1e6, theirs.size / 1e6, None, 1 / 5),
        ("cold start, s", median(mine.cold), median(theirs.cold), median(empty.cold), 1 / 3),
        ("peak memory, MB", median(mine.memory), median(theirs.memory), median(empty.memory), 1 / 2),
        ("requests of a cold start", median(mine.first), median(theirs.first), None, None),
        ("requests an event", median(mine.each), median(theirs.each), None, 1),
    ]
    print(f"{cloud.name:28}{mine.name:>24}{theirs.name:>10}{'ratio':>8}{'bar':>8}{empty.name:>10}")
    fine = True
    for name, our, their, none, bar in rows:
        met = bar is None or our <= bar * their
        fine = fine and met
        wanted, floor = (f"{bar:8.2f}" if bar else " " * 8), (f"{none:10.2f}" if none else " " * 10)
        print(
            f"{name:28}{our:24.2f}{their:10.2f}{our / their:8.2f}{wanted}{floor}{'' if met else '  MISSED'}"
        )
    if requests is not None:
        fine = fine and requests <= 4
        name = f"catalog, {BATCH} events at once"
        print(f"{name:28}{requests:24}{'':18}{4:8}{'' if requests <= 4 else '  MISSED'}")
    print()
    return fine


def compare(cloud: Cloud, place: Path, served: ServerRig, rounds: int) -> bool:
    """Measure a cloud in turns, and report; whether every bar is met."""
    ours, theirs = cloud.ours(place), cloud.tutorial(place)
    empty = cloud.nothing(place, theirs)
    with world_of(cloud, place, served) as world:
        for number in range(rounds):
            for entrant in (*ours, theirs, empty):
                measure(entrant, world)
            told = ", ".join(f"{one.name} {one.cold[-1]:.2f} s" for one in (*ours, theirs))
            print(f"{cloud.name}, round {number}: {told}", file=sys.stderr)
        requests = batch(ours[0], world) if cloud.batches else None
    # What takes batches is the same archive, whichever way it is compared.
    met = [report(cloud, one, theirs, empty, requests if one is ours[0] else None) for one in ours]
    return all(met)


def main() -> int:
    """Returns 1 when a bar is missed on AWS."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clouds", default=",".join(CLOUDS), help="of aws, gcp and azure; default all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="syncagent-bench-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        (place / "served").mkdir()
        with server.serving(place / "served") as served:
            met = {name: compare(CLOUDS[name](), place, served, args.rounds) for name in args.clouds.split(",")}  # fmt: skip
    return 0 if met.get("aws", True) else 1


if __name__ == "__main__":
    sys.exit(main())
