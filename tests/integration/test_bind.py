"""From an empty bucket to an item, by what bind wired: the daemon takes events from the queue that it made."""

from __future__ import annotations

import tomllib
import uuid
from pathlib import Path

import pytest

from syncagent.agent import Agent
from syncagent.cli import run
from syncagent.config import load
from tests.integration.test_daemon import running, settings_of, until
from tests.rigs.catalogs import url_of
from tests.rigs.ministack import AwsRig


@pytest.mark.parametrize("to", ["queue", "eventbridge"])
def test_what_bind_wired_makes_items(
    to: str,
    aws_rig: AwsRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    catalog = url_of(tmp_path / "catalog.db")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing"), ("SYNCAGENT_CATALOG", catalog),
        ("SYNCAGENT_HOME", str(tmp_path / "home")),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    bucket = f"bucket-{uuid.uuid4().hex[:20]}"
    aws_rig.s3.create_bucket(Bucket=bucket)
    aws_rig.s3.put_object(Bucket=bucket, Key="raw/before.jpg", Body=b"x")
    url = f"s3://{bucket}/raw?endpoint={aws_rig.endpoint}&region=us-east-1"
    assert run(["sync", url, "--dataset", bucket, "--quiet"]) == 0
    capsys.readouterr()
    assert run(["bind", bucket, "--to", to]) == 0
    told = tomllib.loads(capsys.readouterr().err.partition("\n")[2])["datasets"]

    with Agent(load(catalog=catalog)) as agent, running(settings_of(catalog, told)) as daemon:
        dataset = agent.catalog.dataset(bucket)

        def keys() -> list[str]:
            return sorted(item.key for item in agent.catalog.items(dataset.id))

        settled = "syncagent_keys_settled_total"
        aws_rig.s3.put_object(Bucket=bucket, Key="raw/a b+ü.jpg", Body=b"y")
        aws_rig.s3.put_object(Bucket=bucket, Key="other/c.jpg", Body=b"z")
        until(lambda: keys() == ["a b+ü.jpg", "before.jpg"])
        aws_rig.s3.delete_object(Bucket=bucket, Key="raw/before.jpg")
        until(lambda: keys() == ["a b+ü.jpg"])
        assert daemon.figure(settled, source="event", action="added") == 1, "by an event, and by no sweep"
        assert daemon.figure(settled, source="event", action="removed") == 1
