"""Measures on this machine what benchmarks/scale.py reckons with, and keeps it in benchmarks/scale.json.

    nice python benchmarks/scale.py --measure                          # 1,000,000 objects: half an hour
    nice python benchmarks/scale.py --measure sweep --objects 20000    # to try a part; prints, and keeps nothing

CPU seconds, not seconds of the clock, wherever a machine that others use would tell more of them than of us.
Sizes of SQLite are what its pages hold: whatever is dropped goes to the free list, and is counted there.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from mirror import ENV, stub
from s3_stub import Pages, make_keys
from scale_simulation import Rates, Sweep, dates

from syncagent import open_bucket
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.drivers import processes as listing
from syncagent.drivers.partition import Partition
from syncagent.model import DriverSpec, Integration, ObjectInfo
from syncagent.reconcile import Reconciler

HERE = Path(__file__).parent
KEPT = HERE / "scale.json"
LENGTHS = (40, 100)
RANGES = 8
"""Parts of the key space that rows are inserted into in turns, as eight listers bring them."""
BATCH = 5000
"""Rows a transaction, as a sweep writes them."""
SPEC = DriverSpec(type="s3", bucket="bench")
S3 = Integration("bench", "s3", {"key": "testing", "secret": "testing"})
BOX = (
    '{"type":"box","label":"car","attributes":[],"coordinates":[{"x":104.5,"y":88.25,"z":0},{"x":310.75,"y":240.5,"z":0}],'
    '"metadata":{"system":{"attributes":{},"system":false},"user":{}},"source":"ui"}'
)


def key(number: int, length: int) -> str:
    """A key of so many characters; they ascend with their numbers."""
    folder = f"raw/{number // 1000:07}/"
    name = f"img-{number:010}.jpg"
    middle = length - len(folder) - len(name)
    return folder + "camera-front/session-0042/".ljust(middle, "x")[: middle - 1] + "/" + name


def info(number: int, length: int) -> ObjectInfo:
    """An object as S3's listing tells it: an ETag of 32 digits, a time, a class."""
    etag, modified = f"{number * 2654435761 % 2**128:032x}", "2026-11-01T02:03:05"
    return ObjectInfo(key(number, length), f"{etag}:{number}:{modified}", number, f"{modified}Z", etag, None, etag, None, "STANDARD")  # fmt: skip


def batches(count: int, length: int, ranges: int) -> Iterator[list[ObjectInfo]]:
    """All objects, a transaction's worth of each range in turns."""
    edges = [count * n // ranges for n in range(ranges + 1)]
    starts = [range(lo, hi, BATCH) for lo, hi in pairwise(edges)]
    for turn in range(max(map(len, starts))):
        for hi, each in zip(edges[1:], starts, strict=True):
            if turn < len(each):
                yield [info(n, length) for n in range(each[turn], min(each[turn] + BATCH, hi))]


def fill(catalog: SqlCatalog, count: int, length: int, ranges: int) -> list[float]:
    """Insert so many rows; returns how many CPU seconds of this process the catalog took for each tenth of them."""
    dataset = catalog.ensure_dataset("bench", SPEC).id
    took, written = [0.0] * 10, 0
    for batch in batches(count, length, ranges):
        burnt = time.process_time()
        catalog.insert_new(dataset, batch)
        took[min(9, 10 * written // count)] += time.process_time() - burnt
        written += len(batch)
    return took


def annotate(path: Path) -> None:
    """A box on every tenth item."""
    with SqliteCatalog(path) as catalog, catalog.db.transaction():
        catalog.db.sql(
            "INSERT INTO annotation (item, data, content_rev, updated_at, dataset, type, label, creator, created_at)"
            " SELECT n, :box, 1, 1790000000, dataset, 'box', 'car', 'somebody@example.com', 1790000000 FROM item WHERE n % 10 = 0",
            {"box": BOX},
        )


# -- sizes ---------------------------------------------------------------------------------------


def sqlite_sizes(path: Path) -> dict[str, int]:
    """Bytes of each table and each index that has rows. Changes nothing."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA foreign_keys=OFF")
        db.execute("PRAGMA secure_delete=OFF")  # what is dropped need not be overwritten: it comes back
        ((page,),) = db.execute("PRAGMA page_size")
        found = db.execute(
            "SELECT name, type FROM sqlite_master WHERE type IN ('index', 'table') AND sql IS NOT NULL ORDER BY type"
        ).fetchall()
        db.execute("BEGIN")
        sizes = {}
        ((before,),) = db.execute("PRAGMA freelist_count")
        for name, kind in found:  # indexes first: a table takes its own with it
            if not name.startswith("sqlite_"):
                db.execute(f"DROP {kind} {name}")
                ((after,),) = db.execute("PRAGMA freelist_count")
                sizes[name], before = (after - before) * page, after
        db.execute("ROLLBACK")
    finally:
        db.close()
    return {name: size for name, size in sizes.items() if name.split("_")[0] in ("item", "annotation")}


def sqlite(count: int, folder: Path) -> dict[str, Any]:
    """SQLite: bytes by length of key, with listers' ranges and after VACUUM, and what VACUUM takes."""
    found: dict[str, Any] = {}
    for length in LENGTHS:
        path = folder / f"catalog-{length}.db"
        with SqliteCatalog(path) as catalog:
            took = fill(catalog, count, length, RANGES)
        annotate(path)
        sizes = {"filled": sqlite_sizes(path)}
        spent = child("--vacuum", str(path))
        sizes["vacuumed"] = sqlite_sizes(path)
        items = sum(size for name, size in sizes["vacuumed"].items() if name.startswith("item"))
        found[str(length)] = {
            "bytes_per_million": {
                state: {name: per_million(size, count) for name, size in told.items() if size > count}
                for state, told in sizes.items()
            },
            "insert_cpu_s_per_million": round(sum(took) / count * 1e6, 2),
            "vacuum_cpu_s_per_million": round(spent["cpu"] / count * 1e6, 2),
            "vacuum_memory_mb": round(spent["memory"]),
            "annotations_of_a_tenth_bytes_per_million": per_million(
                sum(sizes["vacuumed"].values()) - items, count
            ),
        }
        path.unlink()
    return found


def growth(count: int, folder: Path) -> dict[str, Any]:
    """Whether inserting slows down as the catalog outgrows SQLite's cache: ten times as many rows, by tenths."""
    path = folder / "large.db"
    with SqliteCatalog(path) as catalog:
        took = fill(catalog, 10 * count, LENGTHS[1], RANGES)
    sizes = sqlite_sizes(path)
    path.unlink()
    return {
        "rows": 10 * count,
        "insert_cpu_s_per_million_by_tenth": [round(each / count * 1e6, 2) for each in took],
        "bytes_per_million": per_million(sum(sizes.values()), 10 * count),
    }


def postgres(count: int, folder: Path) -> dict[str, Any]:
    """PostgreSQL: bytes by length of key, and what COPY burns here and in the server, which does not wait for its disk."""
    from syncagent.catalog.sql.postgres import PostgresCatalog
    from tests.rigs.postgres import Server

    found: dict[str, Any] = {}
    with Server() as server:
        for length in LENGTHS:
            url = server.schema(f"length_{length}")
            with PostgresCatalog(url, secret_key_file=folder / "key", folder=folder) as catalog:
                before = server_cpu(catalog)
                client = sum(fill(catalog, count, length, RANGES))
                burnt = server_cpu(catalog) - before
                before = server_cpu(catalog)
                read = compare(catalog, count)
                served = server_cpu(catalog) - before
                rows = catalog.db.sql(
                    "SELECT c.relname, pg_table_size(c.oid) FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace"
                    " AND c.relkind IN ('r', 'i')"
                )
                ((version,),) = catalog.db.sql("SHOW server_version")
            found[str(length)] = {
                "bytes_per_million": {
                    name: per_million(size, count) for name, size in sorted(rows) if size > count
                },
                "client_cpu_s_per_million": round(client / count * 1e6, 2),
                "server_cpu_s_per_million": round(burnt / count * 1e6, 2),
                "client_read_cpu_s_per_million": round(read / count * 1e6, 2),
                "server_read_cpu_s_per_million": round(served / count * 1e6, 2),
            }
            found["version"] = version
    return found


def compare(catalog: SqlCatalog, count: int) -> float:
    """Read every row's fingerprint, as an unchanged sweep does; returns CPU seconds of this process."""
    dataset, after, read = catalog.datasets()[0].id, None, 0
    last, burnt = key(count, LENGTHS[1]) + "~", time.process_time()
    while rows := catalog.stamps(dataset, after=after, until=last, limit=1000):
        after, read = rows[-1][0], read + len(rows)
    assert read == count, read
    return time.process_time() - burnt


def server_cpu(catalog: SqlCatalog) -> float:
    """CPU seconds of all processes of a PostgreSQL on this machine so far."""
    total = 0
    for (pid,) in catalog.db.sql("SELECT pid FROM pg_stat_activity"):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def per_million(size: float, count: int) -> int:
    """Rounded to what a measurement is good for."""
    return round(size / count * 1e6 / 1e5) * 100_000


# -- processor and wire --------------------------------------------------------------------------


def pages(count: int, folder: Path) -> dict[str, Any]:
    """A sweep's CPU seconds for a million objects, in the process that compares and writes, and in those that list."""
    body = Pages(make_keys(2000)).response({"list-type": "2", "encoding-type": "url"})
    found: dict[str, Any] = {"wire_bytes_per_page": len(body)}
    with stub(count) as url:
        source = f"s3://bucket?region=us-east-1&endpoint={url}"
        for processes in (0, 2):
            path = folder / f"sweep-{processes}.db"
            for state in ("first", "unchanged"):
                told = child("--sweep", source, str(path), str(processes))
                assert told["listed"] == count, told
                found[f"{state}_{processes}_processes"] = {
                    "main_cpu_s_per_million": round(told["main"] / count * 1e6, 2),
                    "listing_cpu_s_per_million": round(told["children"] / count * 1e6, 2),
                    "memory_mb": round(told["memory"]),
                }
    return found


def sweep(source: str, catalog: Path, processes: int) -> dict[str, float]:
    """In a process of its own: what a sweep by eight listers burns."""
    gc.freeze()  # as the command line does
    gc.set_threshold(50_000, 50, 50)
    children = 0.0
    end = listing._end

    def ended(child: subprocess.Popen[bytes]) -> None:
        nonlocal children
        children += burnt_by(child.pid)
        end(child)

    listing._end = ended  # its copies are nobody's children afterwards
    with SqliteCatalog(catalog) as store, open_bucket(source, S3) as bucket:
        dataset = store.ensure_dataset("bench", replace(bucket.spec, integration=None))
        reconciler = Reconciler(store, dataset, bucket, listers=RANGES, processes=processes)
        burnt = time.process_time()
        report = reconciler.sweep()
        main = time.process_time() - burnt
    return {"listed": report.listed, "main": main, "children": children, "memory": peak()}


def burnt_by(group: int) -> float:
    """CPU seconds of the processes of a group that still run."""
    found = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            told = path.read_text().rpartition(") ")[2].split()
            if int(told[2]) == group:
                found += (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
    return found


def hints(count: int, _: Path) -> dict[str, Any]:
    """Memory that grows with the bucket: the points at which a known one is divided, and the beginnings of keys that a first listing learns."""
    points = max(1000, count // 10)
    tracemalloc.start()
    told = [key(number * 2000, LENGTHS[1]) for number in range(points)]
    known = Partition(RANGES, told)
    held, _ = tracemalloc.get_traced_memory()
    assert known.waiting
    del told, known
    before, _ = tracemalloc.get_traced_memory()
    first = Sweep(dates(count), Rates(0.1, 0.0, 0.0), listers=RANGES, cores=1, processes=1, known=False)
    first.run()
    learned = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"bytes_each": round(held / points), "learned_bytes_each": round(learned / first.learned)}


def inventory(count: int, folder: Path) -> dict[str, Any]:
    """What benchmarks/inventory.py says of ten times as many rows."""
    command = [sys.executable, str(HERE / "inventory.py"), "--rows", str(10 * count), "--folder", str(folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"([\d,]+) rows in ([\d.]+) s .* (\d+) MB", told)
    assert found is not None, told
    rows, seconds, memory = int(found[1].replace(",", "")), float(found[2]), int(found[3])
    return {"rows": rows, "s_per_million": round(seconds / rows * 1e6, 2), "memory_mb": memory}


# -- processes -----------------------------------------------------------------------------------


def child(*words: str) -> dict[str, float]:
    """Run a part in a process of its own; returns what it printed."""
    command = [sys.executable, str(Path(__file__)), *words]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=ENV).stdout
    found: dict[str, float] = json.loads(told)
    return found


def peak() -> float:
    """The most memory that this process had, in MB. What `getrusage` says begins with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def vacuum(path: Path) -> dict[str, float]:
    """As ``syncagent catalog vacuum`` ends."""
    with SqliteCatalog(path) as catalog:
        burnt = time.process_time()
        catalog.reclaim()
        return {"cpu": time.process_time() - burnt, "memory": peak()}


PARTS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "sqlite": sqlite, "sweep": pages, "hints": hints, "postgres": postgres, "growth": growth, "inventory": inventory,
}  # fmt: skip


def measure(count: int, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Everything, or some parts; `growth` and `inventory` take ten times the objects."""
    found: dict[str, Any] = {"measured": datetime.now(UTC).strftime("%Y-%m-%d"), "objects": count, "machine": machine()}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or PARTS:
            print(f"{part} …", file=sys.stderr, flush=True)
            found[part] = PARTS[part](count, Path(folder))
    return found


def machine() -> str:
    """What this was measured on."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"


def main() -> None:
    """A part, in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweep", nargs=3)
    parser.add_argument("--vacuum", type=Path)
    given = parser.parse_args()
    if given.sweep:
        source, catalog, processes = given.sweep
        print(json.dumps(sweep(source, Path(catalog), int(processes))))
    else:
        print(json.dumps(vacuum(given.vacuum)))


if __name__ == "__main__":
    main()
