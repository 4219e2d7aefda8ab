"""An upload that is killed, or interrupted, half-way: what is there is whole, and the next one goes on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from syncagent import open_bucket
from syncagent.drivers import local
from syncagent.errors import AlreadyExists
from tests.rigs.catalogs import url_of

FILES = 1500
SLOW = """
import io, sys, time
from syncagent import open_bucket

class Slow(io.RawIOBase):
    def readable(self):
        return True
    def read(self, size=-1):
        if sys.stdin.readline() != "more\\n":
            return b""
        print("reading", flush=True)
        return b"part of a file"

open_bucket(sys.argv[1]).put("file", Slow())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_upload_goes_on_where_it_was_stopped(how: signal.Signals, tmp_path: Path) -> None:
    source, labels, bucket = tmp_path / "in", tmp_path / "labels", tmp_path / "bucket"
    for folder in (source, labels, bucket):
        folder.mkdir()
    for n in range(FILES):
        (source / f"{n:05}.txt").write_text(f"file {n}")
        (labels / f"{n:05}.json").write_text(
            json.dumps({"annotations": [{"type": "class", "label": f"l{n % 3}"}]})
        )
    env = {
        **os.environ, "SYNCAGENT_HOME": str(tmp_path), "SYNCAGENT_CATALOG": url_of(tmp_path / "catalog.db"),
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip

    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "syncagent", *words]

    upload = command(
        "upload", f"{source}/*", str(bucket), "--annotations", str(labels), "--metadata", '{"k": 1}', "--json"
    )
    stopped = subprocess.Popen(upload, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with stopped:
        assert stopped.stdout is not None
        seen = [json.loads(stopped.stdout.readline()) for _ in range(100)]
        stopped.send_signal(how)
        stopped.stdout.read()
        code = stopped.wait(timeout=60)
    assert code == (130 if how is signal.SIGINT else -signal.SIGKILL)
    assert all(one["action"] == "added" for one in seen)
    again = subprocess.run(upload, env=env, capture_output=True, text=True, check=True)
    report = json.loads(again.stdout.splitlines()[-1])["report"]
    assert report["same"] >= 100
    assert report["added"] + report["same"] + report["changed"] == FILES
    assert report["added"] < FILES
    items = subprocess.run(
        command("items", "bucket", "--json"), env=env, capture_output=True, text=True, check=True
    )
    told = [json.loads(line) for line in items.stdout.splitlines()]
    assert len(told) == FILES
    assert {one["annotationsCount"] for one in told} == {1}, "neither lost nor said twice"
    assert all(one["metadata"]["user"] == {"k": 1} for one in told)
    assert (
        subprocess.run(command("check", "bucket"), env=env, capture_output=True, check=False).returncode == 0
    )
    assert not [
        path for path in bucket.rglob("*") if path.is_file() and not path.read_text().startswith("file ")
    ]


@pytest.mark.parametrize("there", [False, True], ids=["new", "overwritten"])
def test_a_file_that_is_killed_half_way_leaves_nothing_of_itself(there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "file").write_text("whole")
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("more\n")
        child.stdin.flush()
        assert child.stdout.readline() == "reading\n"
        child.kill()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "whole")] * there


@pytest.mark.parametrize("unnamed", [True, False])
def test_files_are_stored_alike_with_and_without_files_that_have_no_name(
    unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unnamed:
        monkeypatch.setattr(local, "_unnamed", lambda folder: None)
    with open_bucket(str(tmp_path)) as bucket:
        bucket.put("d/a", io.BytesIO(b"1"))
        bucket.put("d/a", io.BytesIO(b"22"))
        bucket.put("b", io.BytesIO(b"3"), if_absent=True)
        with pytest.raises(AlreadyExists):
            bucket.put("b", io.BytesIO(b"4"), if_absent=True)
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == {"d/a": b"22", "b": b"3"}
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o644}
