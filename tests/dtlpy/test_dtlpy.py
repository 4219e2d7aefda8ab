"""The platform's unmodified client works against `syncagent serve`: one script of assertions per chapter."""

from __future__ import annotations

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
    for key in ("images/cat.jpg", "images/dogs/rex.jpg", "notes.txt", "images/dogs/a+b %20.txt"):
        s3_rig.client.put_object(Bucket=bucket, Key=key, Body=f"bytes of {key}".encode())
    done = server_rig.client(script, tmp_path, BUCKET=bucket, S3=s3_rig.endpoint)
    said = "\n".join(line for line in done.stderr.splitlines() if line.strip() and "it/s]" not in line)
    assert done.returncode == 0, done.stdout[-1000:] + said[-3000:]
    assert done.stdout.endswith("done\n"), "the script ran to its end"
    left = {o["Key"] for o in s3_rig.client.list_objects_v2(Bucket=bucket).get("Contents", [])}
    if script.stem == "storage":
        assert left == {"images/cat.jpg", "notes.txt", "images/dogs/a+b %20.txt", "up/new.txt"}
    else:
        assert len(left) == 4, "nothing else touches the bucket"
