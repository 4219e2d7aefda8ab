"""A copy of this process stands by for a long listing. Only one with a single thread has a sound copy, which this one is not."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.integration import test_listing_processes as listing

HERE = Path(__file__)

SCRIPT = """
import os, sys, threading, time
from syncagent import open_bucket
from syncagent.drivers.processes import StandBy
from syncagent.model import Integration
from pathlib import Path

def copies():
    return [int(n) for task in Path("/proc/self/task").iterdir() for n in (task / "children").read_text().split()]

def opened():
    kept.append(open_bucket("s3://bucket?endpoint=http://127.0.0.1:9", Integration("k", "s3", {"key": "k", "secret": "s"})))
    return kept[-1]

kept, before = [], []
bucket = opened()
"""


def script(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE.parents[2],
    )


def alive(pid: int) -> bool:
    """A process that nobody waits for any more, as its parent is gone, may stay as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_whatever_becomes_of_it_is_what_becomes_of_one_that_is_started() -> None:
    """The tests of those that are started, in a process of one thread, which a copy stands by."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "-v",
        listing.__file__,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command,
        check=False,
        env={**environment, "SYNCAGENT_TEST_STANDS_BY": "1"},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 11  # type: ignore[index]  # or this fails
    assert "skipped" not in done.stdout


def test_one_that_is_not_wanted_ends_with_the_bucket() -> None:
    with script(
        "bucket.stand_by(4, processes=2); print(len(copies())); bucket.stand_by(4, processes=2); print(len(copies()))\n"
        "bucket.close(); print(len(copies())); bucket.close()"
    ) as process:
        out, err = process.communicate(timeout=60)
        assert (out.split(), err) == (["1", "1", "0"], "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    "before",
    [
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()",
        "bucket.recipe = None",
        "processes = 1",
        "opened().stand_by(4, processes=2); before = copies()",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))",
    ],
    ids=["another thread", "no other process can open it", "one process", "another one", "no room"],
)
def test_none_is_made(before: str) -> None:
    with script(
        f"processes = 2; {before}; bucket.stand_by(4, processes=processes); print(len(copies()) - len(before))"
    ) as process:
        assert process.communicate(timeout=60)[0].split() == ["0"]


def test_none_is_made_where_the_system_does_not_tell_its_threads() -> None:
    with script(
        "from unittest import mock\n"
        "with mock.patch.object(StandBy, 'possible', side_effect=FileNotFoundError('/proc/self/task')):\n"
        "    bucket.stand_by(4, processes=2)\n"
        "print(len(copies()))"
    ) as process:
        assert process.communicate(timeout=60)[0].split() == ["0"]


def test_ctrl_c_while_it_is_made_is_not_for_it() -> None:
    """Else it would end what its original has open, as that does."""
    with script(
        "import signal; from syncagent.drivers import processes\n"
        "fork = os.fork\n"
        "def interrupted():\n"
        "    pid = fork()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return pid\n"
        "os.fork = interrupted\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        "    bucket.stand_by(4, processes=2)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    ) as process:
        assert process.communicate(timeout=60)[0].split() == ["interrupted"], "once"
    assert process.returncode == 0


def test_one_whose_listing_ends_before_it_is_ready_says_nothing() -> None:
    with script(
        "import pickle; bucket.stand_by(4, processes=2); child = bucket._standby.child\n"
        "child.stdout.close(); child.stdin.write(pickle.dumps(bucket.recipe)); child.stdin.flush()\n"
        "child.wait(20); bucket.close(); print('ended')"
    ) as process:
        assert process.communicate(timeout=60) == ("ended\n", "")


def test_one_that_is_for_other_numbers_makes_room() -> None:
    with script(
        "from syncagent.drivers.partition import Partition\n"
        "bucket.stand_by(4, processes=2); crew = bucket.crew(Partition(8), 8, processes=2); print(len(copies()))"
    ) as process:
        assert process.communicate(timeout=60)[0].split() == ["0"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_who_made_it_is_gone(how: signal.Signals) -> None:
    with script("bucket.stand_by(4, processes=2); print(*copies(), flush=True); time.sleep(60)") as process:
        assert process.stdout is not None
        (pid,) = map(int, process.stdout.readline().split())
        assert os.getpgid(pid) != os.getpgid(process.pid), "Ctrl-C is not for it"
        process.send_signal(how)
        process.wait(20)
    until = time.monotonic() + 20
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)


def test_a_sync_by_hand(tmp_path: Path) -> None:
    """It has the catalog open when it is copied; what lists leaves that alone."""
    stub = [sys.executable, str(listing.STUB), "--objects", "60000", "--shape", "flat", "--latency", "20"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SYNCAGENT_"))},
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "SYNCAGENT_PROCESSES": "2",
    }
    catalog = tmp_path / "catalog.db"
    with subprocess.Popen(stub, stdout=subprocess.PIPE, text=True) as server, ExitStack() as ended:
        ended.callback(server.terminate)
        assert server.stdout is not None
        url = f"s3://bucket?region=us-east-1&endpoint={server.stdout.readline().strip()}"
        for words, said in (
            (("sync", url, "--dataset", "d"), "60000 added"),
            (("sync", "d"), "0 added"),
            (("check", "d", "--certificate", str(tmp_path / "held.json")), "equal: 60000 objects"),
            (("verify", str(tmp_path / "held.json"), "--list"), "equal: catalog and bucket"),
        ):
            command = [sys.executable, "-m", "syncagent", "--catalog", f"sqlite:///{catalog}", *words]
            seen: set[int] = set()
            started: set[int] = set()
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                while process.poll() is None:
                    seen |= copies(process.pid)
                    started |= children(process.pid, b"syncagent.drivers.processes")
                    time.sleep(0.005)
                out, err = process.communicate()
            assert (process.returncode, err) == (0, "") or words[0] == "sync"
            assert said in out + err
            assert seen, "it stood by"
            assert not started, "it lists"
            assert not any(map(alive, seen))
    with closing(sqlite3.connect(catalog)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM item").fetchone() == (60_000,)


def copies(pid: int) -> set[int]:
    """Children that run the very command of their parent."""
    return children(pid, Path(f"/proc/{pid}/cmdline").read_bytes())


def children(pid: int, command: bytes) -> set[int]:
    """Those that have this in their command."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                if command and command in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(int(child))
    return found
