"""The platform's unmodified client works against `syncagent serve`: one script of assertions per chapter."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from tests.rigs.s3 import S3Rig
from tests.rigs.server import ServerRig

SCRIPTS = sorted(
    path for path in (Path(__file__).parent / "scripts").glob("*.py") if not path.name.startswith("_")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_chapter(script: Path, server_rig: ServerRig, s3_rig: S3Rig, tmp_path: Path) -> None:
    bucket = f"dtlpy-{uuid.uuid4().hex[:12]}"
    s3_rig.client.create_bucket(Bucket=bucket)
    keys = ["images/cat.jpg", "images/dogs/rex.jpg", "notes.txt", "images/dogs/a+b %20.txt"]
    if script.stem == "mirror":
        keys += ["odd//twice.txt", "ümlaut/日本.txt", "deep/er/and/deeper/x.bin"]
    for key in keys:
        s3_rig.client.put_object(Bucket=bucket, Key=key, Body=f"bytes of {key}".encode())
    done = server_rig.client(script, tmp_path, BUCKET=bucket, S3=s3_rig.endpoint, KEYS="\n".join(keys))
    said = "\n".join(line for line in done.stderr.splitlines() if line.strip() and "it/s]" not in line)
    assert done.returncode == 0, done.stdout[-1000:] + said[-3000:]
    assert done.stdout.endswith("done\n"), "the script ran to its end"
    left = {o["Key"] for o in s3_rig.client.list_objects_v2(Bucket=bucket).get("Contents", [])}
    if script.stem == "storage":
        assert left == {"images/cat.jpg", "notes.txt", "images/dogs/a+b %20.txt", "up/new.txt"}
    else:
        assert left == set(keys), "nothing else touches the bucket"


def test_what_the_table_says_to_work_is_shown() -> None:
    """Every call in the table of docs/dataloop.md that works is made by a script."""
    page = (Path(__file__).parents[2] / "docs/dataloop.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")]
    scripts = "\n".join(path.read_text() for path in (Path(__file__).parent / "scripts").glob("*.py"))
    calls = {
        call
        for told, verdict in rows
        if verdict.strip() in ("works", "differs")
        for call in re.findall(r"`(?:dl|[a-z]+)\.([a-z_0-9]+)[`(]", told)
    }
    assert len(calls) > 35
    lacking = {call for call in calls if not re.search(rf"\.{call}\b", scripts)}
    assert not lacking, f"no script shows {sorted(lacking)}"
