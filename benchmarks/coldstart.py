"""A function's archive, cold start, memory and requests, beside the platform tutorial's handler with dtlpy.

    make bench                                # or: python benchmarks/coldstart.py --rounds 5

Both run on Lambda's own runtime client, in a Python that has nothing else, over one catalog (`syncagent serve`) and one bucket (moto),
both behind proxies that count requests. The cold start is from the process's start to the answer to its first event. The tutorial's
archive is dtlpy with what it needs, as pip installs it; it gets the benefit of the doubt: its size is without compiled files, its
cold start with them. Bars: a fifth of its size, a third of its cold start, half of its peak memory, no more requests an event, and
4 requests of the catalog for a batch of 1,000. Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")

from benchmarks.events import notification  # after the path is known
from syncagent.agent import Agent
from syncagent.config import load
from syncagent.packaging.archive import write_zip
from tests.rigs import server
from tests.rigs.between import Between
from tests.rigs.lambda_api import Function
from tests.rigs.server import EMAIL, PASSWORD

ROOT = Path(__file__).parents[1]
SDK = "1.126.5"
EVENTS = 20
BATCH = 1000
TUTORIAL = """
import os
import urllib.parse

import dtlpy as dl


def lambda_handler(event, context):
    dl.login_m2m(email=os.environ["DTLPY_USERNAME"], password=os.environ["DTLPY_PASSWORD"])
    dataset = dl.datasets.get(dataset_id=os.environ["DATASET_ID"], fetch=False)
    for record in event["Records"]:
        name = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
        if "ObjectRemoved" in record["eventName"]:
            dataset.items.delete(filters=dl.Filters(field="filename", values="/" + name))
        elif "ObjectCreated" in record["eventName"]:
            dataset.items.upload(local_path="external://" + name)
"""


@dataclass
class Entrant:
    """One of the two, and what was measured."""

    name: str
    folder: Path
    size: int
    """Of the archive, in bytes."""
    environment: dict[str, str] = field(default_factory=dict)
    cold: list[float] = field(default_factory=list)
    """Seconds."""
    memory: list[float] = field(default_factory=list)
    """Peak, in MB."""
    first: list[int] = field(default_factory=list)
    """Requests of a cold start with its event."""
    each: list[float] = field(default_factory=list)
    """Requests of an event after it."""


def ours(place: Path) -> Entrant:
    """The archive of the command."""
    command = [sys.executable, "-m", "syncagent", "package", "aws", "-o", str(place / "dist"), "--json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with ZipFile(told["archive"]) as archive:
        archive.extractall(place / "ours")
    return Entrant("syncagent", place / "ours", told["size"])


def tutorial(place: Path) -> Entrant:
    """dtlpy with what it needs, installed once."""
    folder = ROOT / f".rigs/tutorial-{SDK}"
    if not (folder / "lambda_function.py").exists():
        print("installing the tutorial's packages (once) ...", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), f"dtlpy=={SDK}"]
        subprocess.run(command, check=True)
    (folder / "lambda_function.py").write_text(TUTORIAL)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    write_zip(place / "tutorial.zip", files)
    return Entrant("tutorial, dtlpy", folder, (place / "tutorial.zip").stat().st_size)


class World:
    """A catalog and a bucket, whose requests are counted."""

    def __init__(self, place: Path, catalog: Between, bucket: Between, s3: Any) -> None:
        self.place, self.catalog, self.bucket, self._s3 = place, catalog, bucket, s3
        self._number = 0

    def dataset(self) -> tuple[str, str]:
        """A fresh bucket with objects, and the id of a dataset over it."""
        self._number += 1
        name = f"bucket-{self._number}"
        self._s3.create_bucket(Bucket=name)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: self._s3.put_object(Bucket=name, Key=key_of(n), Body=b"x"), range(BATCH)))
        settings = load(catalog=f"dataloop+{self.catalog.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD)
        with Agent(settings) as agent:
            dataset = agent.resolve(
                f"s3://{name}?endpoint={self.bucket.url}&region=us-east-1", name=name, create=True
            )
        return name, dataset.id

    @property
    def requests(self) -> int:
        return len(self.catalog.requests) + len(self.bucket.requests)

    def environment(self, dataset: str) -> dict[str, str]:
        """What either needs: the tutorial finds the server by dtlpy's own cookie file."""
        home = Path(tempfile.mkdtemp(dir=self.place))
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
    return f"2026/11/image-{number:04}.jpg"


def event(bucket: str, number: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(notification(bucket, key_of(number)))
    return told


def measure(entrant: Entrant, world: World) -> None:
    """One cold start, and some events after it."""
    bucket, dataset = world.dataset()
    before = world.requests
    with Function(
        entrant.folder, "lambda_function.lambda_handler", world.environment(dataset), timeout=120
    ) as function:
        told = function.invoke(event(bucket, 0))
        entrant.cold.append(time.perf_counter() - function.started)
        if not told.ok:
            raise SystemExit(f"{entrant.name}: {told.body}\n{''.join(function.log)}")
        entrant.first.append(world.requests - before)
        before = world.requests
        for number in range(1, EVENTS + 1):
            if not function.invoke(event(bucket, number)).ok:
                raise SystemExit(f"{entrant.name}: {''.join(function.log)}")
        entrant.each.append((world.requests - before) / EVENTS)
        entrant.memory.append(peak(function.process.pid))


def batch(entrant: Entrant, world: World) -> int:
    """Requests of the catalog for a batch of 1,000 messages."""
    bucket, dataset = world.dataset()
    with Function(
        entrant.folder, "lambda_function.lambda_handler", world.environment(dataset), timeout=120
    ) as function:
        function.invoke(event(bucket, 0))
        before = len(world.catalog.requests)
        records = [
            {
                "messageId": f"m{number}",
                "eventSource": "aws:sqs",
                "body": notification(bucket, key_of(number)),
            }
            for number in range(BATCH)
        ]
        told = function.invoke({"Records": records})
        if told.body != {"batchItemFailures": []}:
            raise SystemExit(f"the batch failed: {told.body}")
        return len(world.catalog.requests) - before


def peak(pid: int) -> float:
    """Most resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise SystemExit("the process has ended")


@contextlib.contextmanager
def world(place: Path) -> Iterator[World]:
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    (place / "served").mkdir()
    try:
        with (
            server.serving(place / "served") as served,
            Between(served.url) as catalog,
            Between(url) as bucket,
        ):
            yield World(place, catalog, bucket, s3)
    finally:
        s3.close()
        moto.stop()


def report(mine: Entrant, theirs: Entrant, requests: int) -> bool:
    """Print the table; whether every bar is met."""
    median = statistics.median
    rows = [
        ("archive, MB", mine.size / 1e6, theirs.size / 1e6, 1 / 5),
        ("cold start, s", median(mine.cold), median(theirs.cold), 1 / 3),
        ("peak memory, MB", median(mine.memory), median(theirs.memory), 1 / 2),
        ("requests of a cold start", median(mine.first), median(theirs.first), 1),
        ("requests an event", median(mine.each), median(theirs.each), 1),
    ]
    print(f"{'':26}{mine.name:>12}{theirs.name:>18}{'ratio':>8}{'bar':>8}")
    fine = True
    for name, our, their, bar in rows:
        fine = fine and our <= bar * their
        print(
            f"{name:26}{our:12.2f}{their:18.2f}{our / their:8.2f}{bar:8.2f}{'' if our <= bar * their else '  MISSED'}"
        )
    print(
        f"requests of the catalog for {BATCH} events: {requests} (bar 4){'' if requests <= 4 else '  MISSED'}"
    )
    return fine and requests <= 4


def main() -> int:
    """Returns 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="syncagent-bench-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        mine, theirs = ours(place), tutorial(place)
        with world(place) as there:
            for number in range(rounds):
                for entrant in (mine, theirs):
                    measure(entrant, there)
                print(
                    f"round {number}: {mine.cold[-1]:.2f} s, tutorial {theirs.cold[-1]:.2f} s",
                    file=sys.stderr,
                )
            requests = batch(mine, there)
        return 0 if report(mine, theirs, requests) else 1


if __name__ == "__main__":
    sys.exit(main())
