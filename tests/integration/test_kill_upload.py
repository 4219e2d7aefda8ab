"""An upload that is killed, or interrupted, half-way: what is there is whole, and the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FILES = 1500


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
        **os.environ, "SYNCAGENT_HOME": str(tmp_path), "SYNCAGENT_CATALOG": f"sqlite:///{tmp_path / 'catalog.db'}",
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
