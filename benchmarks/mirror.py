"""List and mirror a million objects, beside rclone on the same server.

    make bench                                  # or: python benchmarks/mirror.py --objects 1000000 --rounds 3

Runs are interleaved, so that a busy minute of the machine hits all of them; medians are printed.
The bars are ratios: `ls` 6x rclone, first sync 5x, unchanged sync 8x, memory 200 MB and 1.25x of a
tenth of the objects, 0.01 SQL statements per unchanged object. Exits 1 when a bar is missed. Memory is that
of a round of its own: to count what several processes share takes time that would count as theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
# PYTHON*: without bytecode on disk, say, every start would compile everything.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("AWS_", "RCLONE_", "SYNCAGENT_", "PYTHON"))
}
ENV = {
    **CLEAN,
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def stub(objects: int) -> Iterator[str]:
    """A listing server with that many objects; yields its URL."""
    command = [sys.executable, str(HERE / "s3_stub.py"), "--objects", str(objects)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def resident(pid: int) -> float:
    """MB of a process and of all that it started, now; what they share counts once."""
    total, pids = 0, [pid]
    while pids:
        folder = Path("/proc") / str(pids.pop())
        with contextlib.suppress(OSError):
            total += next(
                int(line.split()[1])
                for line in (folder / "smaps_rollup").read_text().splitlines()
                if line.startswith("Pss:")
            )
            for children in folder.glob("task/*/children"):
                pids += [int(child) for child in children.read_text().split()]
    return total / 1024


def measure(command: list[str], output: Path, *, whole: bool = True) -> tuple[float, float]:
    """Run to the end; returns (seconds, peak resident MB).

    :param whole: count the processes that it starts. That takes a tenth of its time, as pages are counted one by one.
    """
    peak, ended = 0.0, threading.Event()
    with output.open("wb") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, env=ENV)

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.25):
                peak = max(peak, resident(process.pid))

        watcher = threading.Thread(target=watch)
        if whole:
            watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        ended.set()
        if whole:
            watcher.join()
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed: {errors[-500:]}")
    return seconds, max(peak, usage.ru_maxrss / 1024)


def rclone(url: str) -> list[str]:
    """List with size, time and path; without --use-server-modtime it would send a HEAD per object."""
    return [
        "rclone", "lsf", "-R", "--files-only", "--format", "pst", "--use-server-modtime", "--config", os.devnull,
        "--s3-provider", "Other", "--s3-endpoint", url, "--s3-access-key-id", "bench",
        "--s3-secret-access-key", "bench", "--s3-force-path-style=true", ":s3:bucket",
    ]  # fmt: skip


def syncagent(*words: str, catalog: Path | None = None) -> list[str]:
    """A command as a user types it."""
    given = ["--catalog", f"sqlite:///{catalog}"] if catalog else []
    return [sys.executable, "-m", "syncagent", *given, *words]


def statements_per_object(url: str, catalog: Path) -> float:
    """SQL statements of an unchanged sweep, per object."""
    code = (
        "import sys; from syncagent import Reconciler, open_bucket, open_catalog\n"
        "catalog = open_catalog(sys.argv[1]); dataset = catalog.datasets()[0]\n"
        "bucket = open_bucket(dataset.driver); before = catalog.db.statements\n"
        "report = Reconciler(catalog, dataset, bucket).sweep(); assert report.same == report.listed\n"
        "print((catalog.db.statements - before) / report.listed)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(catalog)], env=ENV, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main() -> int:
    """Measure, print the table, and say whether every bar is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rclone", action="store_true", help="only syncagent's sweeps, for their memory")
    parser.add_argument("--folder", type=Path, help="where catalogs are written; default a temporary folder")
    arguments = parser.parse_args()
    count = arguments.objects
    times: dict[str, list[float]] = {"rclone lsf": [], "ls": [], "first sync": [], "unchanged sync": []}
    memory: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        stub(count) as url,
        stub(count // 10) as small,
    ):
        source, output = f"s3://bucket?endpoint={url}", Path(folder) / "out"
        for turn in range(arguments.rounds + 1):  # the last for memory alone
            catalog = Path(folder) / f"catalog-{turn}.db"
            runs = {
                "rclone lsf": rclone(url),
                "ls": syncagent("ls", source),
                "first sync": syncagent("sync", source, "--dataset", "bench", "--quiet", catalog=catalog),
                "unchanged sync": syncagent("sync", "bench", "--quiet", catalog=catalog),
            }
            if arguments.no_rclone or turn == arguments.rounds:
                del runs["rclone lsf"], runs["ls"]
            for name, command in runs.items():
                seconds, peak = measure(command, output, whole=turn == arguments.rounds)
                if turn < arguments.rounds:
                    times[name].append(seconds)
                memory[name] = max(memory.get(name, 0), peak)
                print(
                    f"round {turn + 1}: {name:15} {seconds:6.2f} s {peak:5.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )
                if name in ("rclone lsf", "ls"):
                    with output.open("rb") as written:  # not all at once: a child begins with our memory
                        lines = sum(1 for _ in written)
                    assert lines == count, f"{name} printed {lines} lines"
        per_object = statements_per_object(url, catalog)
        little = syncagent(
            "sync",
            f"s3://bucket?endpoint={small}",
            "--dataset",
            "small",
            "--quiet",
            catalog=Path(folder) / "small.db",
        )
        small_peak = max(measure(little, output)[1] for _ in range(1))
    medians = {name: statistics.median(values) for name, values in times.items() if values}
    bars = {"ls": 6.0, "first sync": 5.0, "unchanged sync": 8.0}
    print(f"| {count:,} objects | seconds | objects/s | against rclone | bar | peak MB |")
    print("|---|---|---|---|---|---|")
    missed = []
    for name, seconds in medians.items():
        ratio = medians.get("rclone lsf", 0.0) / seconds
        bar = None if arguments.no_rclone else bars.get(name)
        if bar and ratio < bar:
            missed.append(name)
        print(
            f"| {name} | {seconds:.2f} | {count / seconds:,.0f} | {ratio:.1f}x | {f'{bar:.0f}x' if bar else ''} | {memory[name]:.0f} |"
        )
    peak = max(memory["first sync"], memory["unchanged sync"])
    checks = {
        f"peak memory of a sync: {peak:.0f} MB (bar 200)": peak <= 200,
        f"of a tenth of the objects: {small_peak:.0f} MB, ratio {peak / small_peak:.2f} (bar 1.25)": peak
        <= 1.25 * small_peak,
        f"SQL statements per unchanged object: {per_object:.4f} (bar 0.01)": per_object <= 0.01,
    }
    print()
    for text, met in checks.items():
        print(f"- {text}{'' if met else ' MISSED'}")
        if not met:
            missed.append(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
