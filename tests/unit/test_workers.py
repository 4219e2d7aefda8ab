"""Jobs in threads: Ctrl-C may come anywhere, and whoever waits for them always ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any, cast

import pytest

from syncagent.catalog import Item
from syncagent.catalog.labels import LabelStore
from syncagent.drivers import Bucket
from syncagent.errors import NotFound
from syncagent.ingest.download import Downloader
from syncagent.ingest.gather import Upload
from syncagent.ingest.origin import Origin
from syncagent.ingest.probing import probe_dataset
from syncagent.ingest.upload import Target, Uploader
from syncagent.workers import Workers, each

JOBS = 12
ENDLESS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts a job in the background with it ignored
import threading
from syncagent.workers import Workers

def do(job):
    print("under way", flush=True)
    threading.Event().wait()

with Workers(do, 2, name="test") as workers:
    try:
        workers.put(1)
        workers.take()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise
"""
PLUMBING = (
    "workers.py",
    "threading.py",
    "queue.py",
    "concurrent/futures/thread.py",
    "concurrent/futures/_base.py",
)
"""Code that waits for threads: where an interruption could leave something taken."""


class Gone(Exception):
    """A thread still waits."""


def interrupted(run: Callable[[], object], place: int) -> bool:
    """Run it in a thread that gets a KeyboardInterrupt at the `place`-th point of its waiting; whether it came so far.

    The interpreter looks for signals where a function begins and where one of C has returned: what a profile function is told as well.
    """
    seen = 0
    raised: list[BaseException] = []

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal seen
        if event in {"call", "c_return"} and frame.f_code.co_filename.endswith(PLUMBING):
            seen += 1
            if seen == place:
                sys.setprofile(None)
                raise KeyboardInterrupt

    def work() -> None:
        sys.setprofile(profile)
        try:
            run()
        except KeyboardInterrupt:
            pass
        except BaseException as error:  # told to whoever called
            raised.append(error)
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    if thread.is_alive():
        raise Gone(f"interrupted at its point {place} it never ends")
    if raised:
        raise raised[0]
    return seen >= place


def everywhere(run: Callable[[], object]) -> int:
    """Interrupt a run at each point of its waiting, one after the other; returns how many there are."""
    place = 1
    while interrupted(run, place):
        place += 1
    return place - 1


class Store:
    """A dataset of which nothing is known."""

    def labels(self, dataset: str) -> list[Any]:
        return []

    def at(self, dataset: str, keys: list[str]) -> dict[str, Any]:
        return {}

    def find(self, dataset: str, query: object) -> list[Any]:
        return [
            Item(f"{n:024x}", dataset, f"{n}", 1, "", *[None] * 4, "", "", None, 1, 0, False)
            for n in range(JOBS)
        ]

    def unprobed(self, dataset: str, *, after: str | None, limit: int) -> list[tuple[Any, str]]:
        return [(one, "stamp") for one in self.find(dataset, None)]

    def set_facts(self, dataset: str, facts: list[Any]) -> int:
        return len(facts)


class Nothing:
    """A bucket, or another place that bytes come from, with nothing in it: which it takes a moment to say."""

    def open(self, *_: object, **__: object) -> Any:
        time.sleep(0.0005)  # so that somebody waits
        raise NotFound("gone")

    now = chunks = open


def upload(_: Path) -> None:
    uploads = [Upload(f"{n}", "", Nothing().open) for n in range(JOBS)]
    told = Uploader(cast(Target, None), cast(LabelStore, Store()), "d", workers=2).run(uploads)
    assert told.failed == JOBS


def download(folder: Path) -> None:
    def linked(_: str) -> tuple[Item, Origin]:
        raise NotFound("nothing is linked")

    of = Downloader(cast(Origin, Nothing()), cast(LabelStore, Store()), "d", linked=linked, workers=2)
    assert of.run(folder, None).failed == JOBS


def probe(_: Path) -> None:
    assert probe_dataset(cast(LabelStore, Store()), "d", cast(Bucket, Nothing()), workers=2).late == JOBS


@pytest.mark.parametrize("run", [upload, download, probe])
def test_whatever_works_in_threads_ends_wherever_it_is_interrupted(
    run: Callable[[Path], None], tmp_path: Path
) -> None:
    assert everywhere(lambda: run(tmp_path)) > JOBS


def test_what_is_under_way_when_it_is_interrupted_is_finished_and_nothing_else_is_begun() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def do(job: int) -> int:
        begun.append(job)
        time.sleep(0.0005)
        ended.append(job)
        return job

    def run() -> None:
        begun.clear()
        ended.clear()
        try:
            with Workers(do, 2, name="test") as workers:
                for job in range(JOBS):
                    workers.put(job)
                assert sorted(workers.take() for _ in range(JOBS)) == list(range(JOBS))
                assert workers.left == 0
        finally:
            assert sorted(begun) == sorted(ended)

    assert everywhere(run) > JOBS


def test_what_a_job_raises_is_raised_where_results_are_taken() -> None:
    def do(job: int) -> int:
        if job == 5:
            raise NotFound("gone")
        return job

    with pytest.raises(NotFound, match="gone"):
        list(each(do, range(JOBS), 2, name="test"))


def test_results_have_the_order_of_their_jobs() -> None:
    def do(job: int) -> int:
        time.sleep(0.01 if job % 3 == 0 else 0)
        return -job

    assert list(each(do, range(JOBS), 4, name="test")) == [-job for job in range(JOBS)]
    assert list(each(do, [], 4, name="test")) == []


def test_results_come_as_soon_as_they_are_there() -> None:
    go = threading.Event()
    found = each(lambda job: job if job < 3 else go.wait(60), range(5), 2, name="test")
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    go.set()
    assert list(found) == [True, True]


def test_a_result_that_does_not_come_in_time_is_waited_for_again() -> None:
    go = threading.Event()
    with Workers(lambda job: go.wait(60) and job, 1, name="test") as workers:
        workers.put(7)
        with pytest.raises(Empty):
            workers.take(0.001)
        assert workers.left == 1
        go.set()
        assert workers.take() == 7
        assert workers.left == 0


def test_threads_that_cannot_be_had_are_an_error_and_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        list(each(str, [1], 2, name="test"))


def test_a_second_interruption_does_not_wait_for_what_is_under_way() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "under way\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == -signal.SIGINT
