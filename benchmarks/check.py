"""Check a million objects against a catalog: in SQLite, and behind `syncagent serve`.

    make bench                                  # or: python benchmarks/check.py --objects 1000000 --rounds 3

Runs are interleaved; medians are printed. Requests and bytes are those between `check` and the catalog's server, the bytes
counted by a proxy in a run of their own. `--beside FOLDER` measures another version's sources in the same turns.
The bar: over the server, less than a byte moves for an object. Exits 1 when it is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.mirror import ENV, stub  # after the path is known
from benchmarks.rest import requests
from tests.rigs.server import EMAIL, PASSWORD, serving

ROOT = Path(__file__).parents[1]
ACCOUNT = {"DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD}
BAR = 1.0
"""Bytes for an object."""


class Counting:
    """A proxy of TCP that counts what passes, both ways. Use it in a `with` statement."""

    def __init__(self, url: str) -> None:
        self._to = (urlsplit(url).hostname, urlsplit(url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes = 0

    def __enter__(self) -> Counting:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._to)
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := one.recv(1 << 16):
                self.bytes += len(chunk)
                other.sendall(chunk)
            other.shutdown(socket.SHUT_WR)


def run(sources: Path, catalog: str, *words: str) -> tuple[float, float, float]:
    """A command of some sources to its end; returns seconds, seconds of a core, and peak resident MB."""
    env = {**ENV, **ACCOUNT, "SYNCAGENT_CATALOG": catalog, "PYTHONPATH": str(sources)}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "syncagent", *words], env=env, cwd=sources, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode()[-1000:])
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@contextlib.contextmanager
def catalogs(folder: Path, target: str) -> Iterator[dict[str, str]]:
    """Both kinds of catalog, filled; their URLs."""
    with serving(folder) as rig:
        found = {"SQLite": f"sqlite:///{folder}/own.db", "server": f"dataloop+{rig.url}"}
        for catalog in found.values():
            run(ROOT, catalog, "sync", target, "--dataset", "data", "--quiet")
        yield found


def main() -> int:
    """Measure, print the table, and say whether the bar is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="a folder with another version's sources")
    given = parser.parse_args()
    variants: dict[str, tuple[Path, tuple[str, ...]]] = {"check": (ROOT, ())}
    if given.beside:
        variants["other version's check"] = (given.beside, ())
    with tempfile.TemporaryDirectory() as name, stub(given.objects) as s3:
        folder, target = Path(name), f"s3://bucket?endpoint={s3}&region=us-east-1"
        variants["check --certificate"] = (ROOT, ("--certificate", str(folder / "certificate.json")))
        measured: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        traffic: dict[str, tuple[int, int]] = {}
        with catalogs(folder, target) as found:
            for _ in range(given.rounds):
                for where, catalog in found.items():
                    for what, (sources, words) in variants.items():
                        done = run(sources, catalog, "check", "data", *words)
                        measured.setdefault((where, what), []).append(done)
                    done = run(ROOT, catalog, "verify", str(folder / "certificate.json"))
                    measured.setdefault((where, "verify"), []).append(done)
            url = found["server"].removeprefix("dataloop+")
            for what, (sources, words) in variants.items():
                with Counting(url) as proxy:
                    before = requests(url)
                    run(sources, f"dataloop+{proxy.url}", "check", "data", *words)
                    traffic[what] = requests(url) - before - 2, proxy.bytes  # two are of asking
            held = (folder / "certificate.json").stat().st_size
    print(f"{given.objects} objects; a certificate has {held:,} bytes")
    print(f"{'catalog':8} {'command':24} {'seconds':>8} {'CPU':>6} {'MB':>6} {'requests':>9} {'bytes':>13}")
    for (where, what), runs in measured.items():
        seconds, core, memory = (statistics.median(values) for values in zip(*runs, strict=True))
        sent = (
            "".join(f"{count:>{width},}" for count, width in zip(traffic[what], (10, 14), strict=True))
            if (where == "server" and what in traffic)
            else ""
        )
        print(f"{where:8} {what:24} {seconds:8.2f} {core:6.2f} {memory:6.0f}{sent}")
    share = traffic["check"][1] / given.objects
    print(f"bytes for an object: {share:.2f} (bar {BAR}): {'met' if share < BAR else 'MISSED'}")
    return 0 if share < BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
