"""Sweep by an S3 Inventory report in Parquet, against a catalog that differs in a thousand keys.

    python benchmarks/inventory.py                    # 1,000,000 rows
    python benchmarks/inventory.py --rows 10000000    # the bar's size

The report's rows come in no order, in files of a million. The bucket is in this process and has no latency, so
the figure is the reading, the sort and the comparison. Bars: 500 MB, and one look at each key that differs.
Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.drivers import Bucket
from syncagent.drivers.inventory import open_inventory
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import NotFound
from syncagent.model import DriverSpec, ObjectInfo
from syncagent.reconcile import Reconciler

DIFFERENT = 1000
MEGABYTES = 500
FILE = 1_000_000
SPEC = DriverSpec(type="s3", bucket="photos")
MODIFIED = "2026-11-01T02:03:05"
SECOND = 1_793_498_585  # the same


def key(number: int) -> str:
    """Date-partitioned, as a camera's are."""
    return f"raw/{2020 + number % 7}/{number % 12 + 1:02}/{number:09}.jpg"


def info(number: int, etag: str) -> ObjectInfo:
    """An object as S3's listing tells it."""
    return ObjectInfo(key(number), f"{etag}:{number}:{MODIFIED}", number, f"{MODIFIED}Z", etag, None, etag, None, "STANDARD")  # fmt: skip


def etag(number: int) -> str:
    """32 digits."""
    return f"{number * 2654435761 % 2**128:032x}"


class Numbers(MemoryDriver):
    """A bucket that holds all numbers, and tells them one by one: keys that differ lie far apart."""

    caps = replace(MemoryDriver.caps, sorted_listing=False)

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows
        self.looks: Counter[str] = Counter()

    def stat(self, key: str) -> ObjectInfo:
        """One object."""
        number = int(key[-13:-4])
        self.looks["head"] += 1
        if number >= self._rows:
            raise NotFound(f"no object {key!r}", resource=key)
        return info(number, etag(number))


def write(folder: Path, rows: int) -> None:
    """The report."""
    numbers, files = list(range(rows)), []
    random.Random(7).shuffle(numbers)
    (folder / "data").mkdir(parents=True)
    for start in range(0, rows, FILE):
        some = numbers[start : start + FILE]
        path = folder / "data" / f"{start}.parquet"
        table = pa.table({
            "bucket": ["photos"] * len(some),
            "key": [key(n) for n in some],
            "size": pa.array(some, pa.int64()),
            "last_modified_date": pa.array([SECOND * 1000] * len(some), pa.timestamp("ms", "UTC")),
            "e_tag": [etag(n) for n in some],
        })  # fmt: skip
        pyarrow.parquet.write_table(table, path, compression="snappy", row_group_size=100_000)
        body = path.read_bytes()
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        files.append({"key": f"inv/data/{path.name}", "size": len(body), "MD5checksum": digest})
    manifest = {
        "sourceBucket": "photos",
        "fileFormat": "Parquet",
        "creationTimestamp": str(SECOND * 1000),
        "files": files,
    }
    dated = folder / "2026-11-20T01-00Z"
    dated.mkdir()
    text = json.dumps(manifest).encode()
    (dated / "manifest.json").write_bytes(text)
    (dated / "manifest.checksum").write_text(hashlib.md5(text, usedforsecurity=False).hexdigest())


def fill(path: Path, rows: int) -> None:
    """The catalog: a third of the differences each is changed, unknown, and gone from the bucket."""
    step, third = max(1, rows // DIFFERENT), DIFFERENT // 3
    with SqliteCatalog(path) as catalog:
        dataset = catalog.ensure_dataset("bench", SPEC)
        batch: list[ObjectInfo] = []
        unknown = {n * step for n in range(third)}
        changed = {n * step for n in range(third, DIFFERENT - third)}
        # In key order, as a sweep fills it.
        for number in sorted((n for n in range(rows + third) if n not in unknown), key=key):
            batch.append(info(number, "f" * 32 if number in changed else etag(number)))
            if len(batch) == 50_000:
                catalog.insert_new(dataset.id, batch)
                batch = []
        catalog.insert_new(dataset.id, batch)


def sweep(folder: Path, rows: int) -> None:
    """In a process of its own, whose memory is measured. Prints what it did."""
    driver = Numbers(rows)
    bucket = Bucket(driver, SPEC, url="s3://photos")
    with SqliteCatalog(folder / "catalog.db") as catalog:
        inventory = open_inventory(str(folder / "report"), bucket)
        report = Reconciler(catalog, catalog.dataset("bench"), bucket).sweep(inventory=inventory)
        print(json.dumps([report.listed, report.added, report.changed, report.removed, driver.looks["head"]]))


def main() -> int:
    """Make both sides, sweep, print the figures, and say whether the bars are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where files are written; default a temporary folder")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sweep", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        write(arguments.make / "report", arguments.rows)
        fill(arguments.make / "catalog.db", arguments.rows)
        return 0
    if arguments.sweep:
        sweep(arguments.sweep, arguments.rows)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        command = [sys.executable, __file__, "--rows", str(arguments.rows)]
        # In a process of its own: what a process had when it started another counts as the other's peak.
        subprocess.run([*command, "--make", name], check=True)
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--sweep", name], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds, megabytes = time.perf_counter() - started, usage.ru_maxrss / 1024
        if process.returncode:
            return process.returncode
    listed, added, changed, removed, looks = json.loads(told)
    print(f"{listed:,} rows in {seconds:.1f} s ({listed / seconds:,.0f} rows/s), {megabytes:.0f} MB")
    print(f"{added} added, {changed} changed, {removed} removed; {looks} looks")
    # What is gone is looked at again before it is removed.
    met = megabytes <= MEGABYTES and added + changed + removed == DIFFERENT and looks == DIFFERENT + removed
    print("met" if met else f"missed: {MEGABYTES} MB, {DIFFERENT} differences, a look at each")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
