"""List an S3 bucket by one worker and by several, on a stub that takes its time over every request.

    python benchmarks/listing_s3.py --objects 1000000 --rounds 3

For each shape of keys: by one worker (one page after the other, as s5cmd and the SDKs list), by 16 that know nothing of the
keys, by 16 that are told every 2,000th of them, as a catalog tells from the sweep before, and by `rclone lsf -R` with 16
checkers, folder by folder and with `--fast-list`. Only the listing is measured: what a sweep compares and
writes is benchmarks/mirror.py's. Exits 1 when a ratio or the number of requests misses its bar.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from syncagent import open_bucket
from syncagent.drivers.bucket import Bucket
from syncagent.drivers.partition import Partition
from syncagent.model import Integration

PAGE = 1000
WORKERS = 16
HINT = 2000
BARS = {"flat": 12.0, "uuid": 12.0, "date": 8.0, "skew": 8.0, "unicode": 8.0}
"""Times as fast as one worker, at least, on a first listing."""
KNOWN_BAR = 14.0
SURPLUS, KNOWN_SURPLUS = 0.15, 0.05
LIST = Integration("bench", "s3", {"key": "testing", "secret": "testing"})


def flat(count: int, _: random.Random) -> list[str]:
    """Numbers."""
    return [f"{n:08}.bin" for n in range(count)]


def uuids(count: int, rng: random.Random) -> list[str]:
    """Random names."""
    return sorted(str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(count))


def dates(count: int, rng: random.Random) -> list[str]:
    """A folder for each day of a year."""
    days = [f"raw/events/year=2025/month={n // 31 + 1:02}/day={n % 31 + 1:02}" for n in range(365)]
    return sorted(
        f"{days[n * 365 // count]}/part-{n:07}-{rng.getrandbits(48):012x}.parquet" for n in range(count)
    )


def skewed(count: int, rng: random.Random) -> list[str]:
    """Tenants of which one has 40 %."""
    return sorted(
        f"tenant-{min(int(rng.paretovariate(0.7)) - 1, 9999):04}/f{n:09}.json" for n in range(count)
    )


def scripts(count: int, rng: random.Random) -> list[str]:
    """Letters of many scripts, and emoji."""
    pools = ["/abcdefghij", "àéîõü", "日本語中文字", "😀😁🚀", "אבגד", "\uff41\uff42"]
    found: set[str] = set()
    while len(found) < count:
        pool = rng.choice(pools)
        found.add("".join(rng.choice(pool) for _ in range(4)) + f"/{rng.getrandbits(24):06x}")
    return sorted(found)


SHAPES: dict[str, Callable[[int, random.Random], list[str]]] = {
    "flat": flat, "uuid": uuids, "date": dates, "skew": skewed, "unicode": scripts,
}  # fmt: skip


def keys_of(shape: str, count: int) -> list[str]:
    """The same keys in every process."""
    return SHAPES[shape](count, random.Random(7))


@contextlib.contextmanager
def stub(shape: str, count: int, latency: float) -> Iterator[str]:
    """The S3 stub in a process of its own; yields its URL."""
    command = [
        sys.executable, str(Path(__file__).with_name("s3_stub.py")), "--objects", str(count), "--shape", shape,
        "--latency", str(latency),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def alone(bucket: Bucket) -> int:
    """How many objects one worker lists."""
    return sum(map(len, bucket.list()))


def together(bucket: Bucket, hints: list[str]) -> int:
    """How many objects a crew lists."""
    crew = bucket.crew(Partition(WORKERS, hints), WORKERS, processes=None)
    with contextlib.closing(crew.pieces()) as pieces:
        return sum(len(piece.objects) for piece in pieces)


def rclone(url: str, *words: str) -> int:
    """How many objects rclone lists."""
    command = [
        "rclone", "lsf", "-R", "--files-only", "--format", "pst", "--use-server-modtime", "--config", os.devnull,
        "--checkers", "16", *words, "--s3-provider", "Other", "--s3-endpoint", url, "--s3-access-key-id", "bench",
        "--s3-secret-access-key", "bench", "--s3-force-path-style=true", ":s3:bucket",
    ]  # fmt: skip
    given = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=given) as process:
        assert process.stdout is not None
        return sum(chunk.count(b"\n") for chunk in iter(lambda: process.stdout.read(1 << 20), b""))  # type: ignore[union-attr]


def main() -> int:
    """Measure, print the table, and say whether the bars are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1, help="how often rclone lists each shape")
    parser.add_argument("--latency", type=float, default=50.0, help="milliseconds of each request")
    parser.add_argument("--shape", choices=sorted(SHAPES), action="append")
    given = parser.parse_args()
    pages = -(-given.objects // PAGE)
    gc.freeze()  # as the command line does
    gc.set_threshold(50_000, 50, 50)
    print(f"| {given.objects:,} keys, {given.latency:.0f} ms | one worker | {WORKERS}, first listing | surplus requests "
          f"| {WORKERS}, keys known | surplus requests | rclone | rclone --fast-list |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    met = True
    for shape in given.shape or SHAPES:
        hints = keys_of(shape, given.objects)[HINT - 1 :: HINT]
        ways: dict[str, Callable[[Bucket], int]] = {
            "alone": alone,
            "first": lambda bucket: together(bucket, []),
            "known": lambda bucket, hints=hints: together(bucket, hints),  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        requests: dict[str, list[int]] = {name: [] for name in ways}
        peers: dict[str, list[float]] = {"": [], "--fast-list": []}
        with stub(shape, given.objects, given.latency) as url:
            for turn in range(given.rounds):
                for name, way in ways.items():
                    with open_bucket(f"s3://bucket?region=us-east-1&endpoint={url}", LIST) as bucket:
                        with contextlib.closing(bucket.driver.list()) as warm:  # type: ignore[type-var]
                            next(warm)  # loads the SDK, signs, connects
                        bucket.driver.requests.clear()
                        started = time.perf_counter()
                        assert way(bucket) == given.objects, (shape, name)
                        times[name].append(time.perf_counter() - started)
                        requests[name].append(bucket.driver.requests["list"])
                for word, values in peers.items() if turn < given.peer_rounds else ():
                    started = time.perf_counter()
                    assert rclone(url, *word.split()) == given.objects, (shape, word)
                    values.append(time.perf_counter() - started)
        took = {name: statistics.median(values) for name, values in times.items()}
        surplus = {name: statistics.median(values) / pages - 1 for name, values in requests.items()}
        theirs = " | ".join(
            f"{statistics.median(values):.1f} s" if values else "" for values in peers.values()
        )
        first, known = took["alone"] / took["first"], took["alone"] / took["known"]
        met = met and first >= BARS[shape] and known >= KNOWN_BAR
        met = met and surplus["first"] <= SURPLUS and surplus["known"] <= KNOWN_SURPLUS
        print(
            f"| {shape} | {took['alone']:.1f} s | {took['first']:.2f} s, {first:.1f}x (bar {BARS[shape]:.0f}x) "
            f"| {surplus['first']:.1%} (bar {SURPLUS:.0%}) | {took['known']:.2f} s, {known:.1f}x (bar {KNOWN_BAR:.0f}x) "
            f"| {surplus['known']:.1%} (bar {KNOWN_SURPLUS:.0%}) | {theirs} |",
            flush=True,
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
