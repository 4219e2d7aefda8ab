"""Pages read by other processes: the same as by this one, whatever becomes of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from syncagent import open_bucket
from syncagent.drivers import processes
from syncagent.drivers.bucket import Bucket
from syncagent.drivers.parallel import Piece
from syncagent.drivers.partition import Partition
from syncagent.errors import AccessDenied, NotFound, SyncAgentError, packed, unpacked
from syncagent.model import Integration, ObjectInfo
from tests.rigs.s3 import S3Rig

COUNT, PAGE = 60_000, 1000
STUB = Path(__file__).parents[2] / "benchmarks" / "s3_stub.py"
KEYS = Integration("bench", "s3", {"key": "testing", "secret": "testing"})
STANDS_BY = "SYNCAGENT_TEST_STANDS_BY" in os.environ
"""A process with one thread runs these tests: see test_standby.py."""


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """60 pages of keys, each after 10 ms."""
    command = [sys.executable, str(STUB), "--objects", str(COUNT), "--shape", "flat", "--latency", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture
def bucket(stub: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(processes, "_LONG", 2)
    with open_bucket(f"s3://bucket?region=us-east-1&endpoint={stub}", KEYS) as opened:
        if STANDS_BY:
            opened.stand_by(4, processes=2)
            assert len(children()) == 1
        yield opened
    assert not children()


def listed(pieces: Iterator[Piece]) -> list[ObjectInfo]:
    return sorted(found for piece in pieces for found in piece.objects)


def children() -> list[int]:
    """Processes that this one started, or copied, that list, and their copies."""
    found, me = [], Path("/proc/self/cmdline").read_bytes()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            if command == me or b"syncagent.drivers.processes" in command:
                found.append(int(folder.name))
    mine = {os.getpid()}
    for _ in range(2):
        mine |= {pid for pid in found if parent(pid) in mine}
    return sorted(mine & set(found) - {os.getpid()})


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def until_they_list() -> list[int]:
    until = time.monotonic() + 20
    while len(found := children()) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return found


def test_listed_by_processes_as_by_one(bucket: Bucket) -> None:
    alone = sorted(found for page in bucket.list() for found in page)
    bucket.driver.requests.clear()
    crew = bucket.crew(Partition(4), 4, processes=2)
    seen: set[int] = set()

    def watched() -> Iterator[Piece]:
        with contextlib.closing(crew.pieces()) as pieces:
            for piece in pieces:
                if len(seen) < 2:
                    seen.update(until_they_list())
                yield piece

    assert listed(watched()) == alone
    assert len(alone) == COUNT
    assert len(seen) == 2
    assert not children()
    # What other processes asked for is counted here, and little is asked for twice.
    assert COUNT / PAGE <= bucket.driver.requests["list"] <= COUNT / PAGE * 1.4


def test_a_short_listing_starts_none(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LONG", COUNT)
    with contextlib.closing(bucket.crew(Partition(4), 4, processes=2).pieces()) as pieces:
        for _ in pieces:
            assert len(children()) == STANDS_BY


def test_of_a_listing_that_the_catalog_knows_to_be_long_they_start_at_once(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_LONG", 50)
    hints = [f"{n:08}.bin" for n in range(0, COUNT, COUNT // 50)]
    with contextlib.closing(bucket.crew(Partition(4, hints), 4, processes=2).pieces()) as pieces:
        next(pieces)
        assert len(until_they_list()) == 2


@pytest.mark.parametrize("victims", [1, 2])
def test_killed_in_the_middle(bucket: Bucket, victims: int) -> None:
    """Their workers go on by themselves, after the last page that came."""
    crew = bucket.crew(Partition(4), 4, processes=2)
    found: list[ObjectInfo] = []
    killed = 0
    with contextlib.closing(crew.pieces()) as pieces:
        for piece in pieces:
            found += piece.objects
            if not killed and len(found) > 10 * PAGE:
                for pid in until_they_list()[-victims:]:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    assert killed == victims
    assert [one.key for one in sorted(found)] == [f"{n:08}.bin" for n in range(COUNT)]
    assert not children()


def test_ctrl_c_is_for_the_process_that_was_started_by_hand(bucket: Bucket) -> None:
    """A terminal sends it to a whole group. The session is the same, by which Linux shares the cores first."""
    with contextlib.closing(bucket.crew(Partition(4), 4, processes=2).pieces()) as pieces:
        next(pieces)
        for pid in until_they_list():
            assert os.getpgid(pid) != os.getpgid(0)
            assert os.getsid(pid) == os.getsid(0)


def test_left_in_the_middle(bucket: Bucket) -> None:
    """Nobody reads on: what was asked for is counted, and no process stays."""
    crew = bucket.crew(Partition(4), 4, processes=2)
    bucket.driver.requests.clear()
    pages = 0
    with contextlib.closing(crew.pieces()) as pieces:
        for piece in pieces:
            pages += bool(piece.objects)
            if until_they_list() and pages > 20:
                break
    assert pages <= bucket.driver.requests["list"] < COUNT / PAGE
    assert not children()


def test_none_can_be_started(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with contextlib.closing(bucket.crew(Partition(4), 4, processes=2).pieces()) as pieces:
        assert len(listed(pieces)) == COUNT


def test_one_that_cannot_open_the_bucket(bucket: Bucket, capfd: pytest.CaptureFixture[str]) -> None:
    """This process lists, as well as it can."""
    assert bucket.recipe is not None
    bucket.recipe = replace(bucket.spec, options={"profile": "which only this process knows"}), None
    with contextlib.closing(bucket.crew(Partition(4), 4, processes=2).pieces()) as pieces:
        assert len(listed(pieces)) == COUNT
    assert capfd.readouterr().err == ""


def test_a_failure_in_another_process_is_this_ones(s3_rig: S3Rig, bucket: Bucket) -> None:
    """Its kind, its words, and what it is about."""
    with open_bucket(f"s3://gone?region=us-east-1&endpoint={s3_rig.endpoint}", s3_rig.integration) as gone:
        bucket.recipe = gone.recipe
        with pytest.raises(SyncAgentError) as local:
            next(iter(gone.list()))
        with (
            pytest.raises(NotFound) as remote,
            contextlib.closing(bucket.crew(Partition(4), 4, processes=2).pieces()) as pieces,
        ):
            for _ in pieces:
                until_they_list()
    told, known = remote.value, local.value
    assert (type(told), str(told), told.resource) == (type(known), str(known), known.resource)


def test_an_error_is_the_same_on_the_other_side() -> None:
    error = AccessDenied("not allowed", resource="box", hint="ask", permission="s3:ListBucket")
    error.__cause__ = RuntimeError("holds a request")
    made = unpacked(packed(error))
    assert (type(made), vars(made), made.__cause__) == (AccessDenied, vars(error), None)
    assert type(unpacked(packed(Odd("odd")))) is SyncAgentError


class Odd(SyncAgentError):
    """A plugin's own."""
