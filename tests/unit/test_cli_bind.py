"""bind as a person meets it."""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from syncagent.cli import run
from syncagent.errors import Transient
from tests.rigs.catalogs import url_of
from tests.rigs.ministack import KEYS
from tests.rigs.s3 import S3Rig
from tests.rigs.wiring import remember_models


class Place:
    """A bucket at moto, mirrored into a dataset, and a folder to work in."""

    def __init__(self, rig: S3Rig, sqs: Any) -> None:
        self.s3, self.sqs = rig.client, sqs
        self.bucket = f"test-{uuid.uuid4().hex[:20]}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.s3.put_object(Bucket=self.bucket, Key="raw/a.jpg", Body=b"x")
        self.url = f"s3://{self.bucket}/raw?endpoint={rig.endpoint}&region=us-east-1"
        self.name = f"photos-{self.bucket[-6:]}"
        self.queue = f"syncagent-{self.name}"

    def entries(self) -> list[dict[str, Any]]:
        told = self.s3.get_bucket_notification_configuration(Bucket=self.bucket)
        return list(told.get("QueueConfigurations", []))

    def queues(self) -> list[str]:
        told = self.sqs.list_queues(QueueNamePrefix=self.queue).get("QueueUrls", [])
        return sorted(url.rpartition("/")[2] for url in told)


@pytest.fixture(scope="module")
def sqs(s3_rig: S3Rig) -> Iterator[Any]:
    client = boto3.client("sqs", endpoint_url=s3_rig.endpoint, **KEYS)
    yield client
    client.close()


@pytest.fixture
def place(s3_rig: S3Rig, sqs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    remember_models(monkeypatch)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "catalog.db"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    made = Place(s3_rig, sqs)
    assert run(["sync", made.url, "--dataset", made.name, "--quiet"]) == 0
    return made


def test_bind_shows_what_it_makes_and_what_to_write_down(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    wanted = [
        f"+ queue {place.queue}-dead (for what failed 100 times)",
        f"+ queue {place.queue}",
        f"+ policy of queue {place.queue}",
    ]
    assert run(["bind", place.name, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:3] == wanted
    assert told.out.splitlines()[3].startswith("+ notification syncagent-")
    assert told.out.splitlines()[3].endswith(f" of bucket {place.bucket} (raw/)")
    assert told.err == ""
    assert (place.queues(), place.entries()) == ([], []), "a dry run does nothing"

    assert run(["bind", place.name]) == 0
    made = capsys.readouterr()
    assert made.out == told.out
    first, *lines = made.err.splitlines()
    assert first == "for syncagent.toml:"
    settings = tomllib.loads("\n".join(lines))["datasets"][place.name]
    assert settings["queue"].startswith(f"sqs://{place.queue}?region=us-east-1")
    assert (len(place.queues()), len(place.entries())) == (2, 1)

    Path("syncagent.toml").write_text("\n".join(lines))
    assert run(["bind", place.name]) == 0
    again = capsys.readouterr()
    assert {line[:2] for line in again.out.splitlines()} == {"= "}
    assert again.err == "", "it is written down already"
    assert run(["bind", "--check"]) == 0
    assert capsys.readouterr().out == again.out


def test_check_finds_what_was_lost(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bind", place.name]) == 0
    place.s3.put_bucket_notification_configuration(Bucket=place.bucket, NotificationConfiguration={})
    capsys.readouterr()
    assert run(["bind", "--check", place.name]) == 1
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["=", "=", "=", "+"]
    assert place.entries() == [], "a check does nothing"
    assert run(["bind", place.name]) == 0
    assert run(["bind", "--check", place.name]) == 0


def test_check_looks_at_all_that_are_written_down(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    Path("syncagent.toml").write_text(
        f'[datasets.{place.name}]\nbind = "queue"\n[datasets.gone]\nqueue = "sqs://gone?region=us-east-1"\n'
        '[datasets.swept]\nsweep = "1h"\n[datasets.watched]\nqueue = "watch:///folder"\n'
    )
    capsys.readouterr()
    assert run(["bind", "--check"]) == 4, "no dataset of that name"
    told = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in told] == [*[f"+ {place.name}"] * 4, "! gone"]
    assert run(["bind", "--check", "--json"]) == 4
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["dataset"], one["action"]) for one in lines] == [
        *[(place.name, "added")] * 4,
        ("gone", "failed"),
    ]


def test_check_needs_something_to_look_at(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["bind", "--check"]) == 2
    assert "[datasets.NAME]" in capsys.readouterr().err


def test_unbind_removes_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bind", place.name]) == 0
    place.sqs.purge_queue(QueueUrl=place.sqs.get_queue_url(QueueName=place.queue)["QueueUrl"])
    capsys.readouterr()
    assert run(["bind", place.name, "--unbind", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert len(place.entries()) == 1
    assert run(["bind", place.name, "--unbind"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (shown, "")
    assert [line[0] for line in told.out.splitlines()] == ["-"] * 4
    assert (place.queues(), place.entries()) == ([], [])
    assert run(["bind", place.name, "--unbind"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"nothing is bound for '{place.name}'")


def test_what_is_in_the_way_is_said_and_nothing_is_done(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    url = place.sqs.create_queue(QueueName=f"other-{place.bucket}")["QueueUrl"]
    arn = place.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    theirs = {"Id": "nightly", "QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    place.s3.put_bucket_notification_configuration(
        Bucket=place.bucket, NotificationConfiguration={"QueueConfigurations": [theirs]}
    )
    capsys.readouterr()
    for more, code in ((["--dry-run"], 1), (["--check"], 1), ([], 2)):
        assert run(["bind", place.name, *more]) == code
        told = capsys.readouterr()
        assert "! notification" in told.out
        assert "'nightly'" in told.out
        assert "--to eventbridge" in told.out
        assert ("syncagent: error:" in told.err) is (code == 2)
    assert place.queues() == []


def test_a_failure_half_way_says_what_was_done(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.drivers.s3_wiring import S3Wiring

    def broken(self: S3Wiring, change: object) -> None:
        raise Transient("AWS is busy", hint="run it again")

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(S3Wiring, "_write", broken)
        assert run(["bind", place.name]) == 5
    told = capsys.readouterr()
    assert [line[0] for line in told.out.splitlines()] == ["+", "+", "+", "!"]
    assert told.out.splitlines()[3].endswith("(AWS is busy; run it again)")
    assert "syncagent: error: AWS is busy" in told.err
    assert run(["bind", place.name]) == 0
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["=", "=", "=", "+"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "bind takes one dataset"),
        (["NAME", "another"], 2, "bind takes one dataset"),
        (["NAME", "--check", "--unbind"], 2, "--check changes nothing"),
        (["NAME", "--check", "--dry-run"], 2, "--check changes nothing"),
        (["absent"], 4, "absent"),
        (["NAME", "--to", "pubsub"], 2, "takes queue, function, eventbridge"),
        (["NAME", "--to", "function"], 2, "--function"),
        (["NAME", "--to", "sns"], 2, "Invalid value"),
        (["NAME", "--queue", "pubsub://project/name"], 2, "sqs:// only"),
        (["NAME", "--queue", "sqs://name?regoin=x"], 2, "regoin"),
        (["NAME", "--function", "none"], 4, "no such function: none"),
    ],
)
def test_what_cannot_be_is_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    capsys.readouterr()
    assert run(["bind", *[place.name if word == "NAME" else word for word in words]]) == code
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert "Traceback" not in told.err


def test_the_settings_say_how(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's own words win; what leads to a queue leads to the one that is named."""
    Path("syncagent.toml").write_text(
        f'[datasets.{place.name}]\nbind = "function"\nfunction = "none"\nqueue = "sqs://{place.queue}-x?region=us-east-1"\n'
    )
    capsys.readouterr()
    assert run(["bind", place.name, "--dry-run"]) == 4
    assert "no such function: none" in capsys.readouterr().err
    assert run(["bind", place.name, "--dry-run", "--to", "queue"]) == 0
    assert f"+ queue {place.queue}-x\n" in capsys.readouterr().out
    assert run(["bind", place.name, "--dry-run", "--queue", f"sqs://{place.queue}-y?region=us-east-1"]) == 0
    assert f"+ queue {place.queue}-y\n" in capsys.readouterr().out
    Path("syncagent.toml").write_text(f'[datasets.{place.name}]\nbind = "eventbridge"\n')
    assert run(["bind", place.name, "--dry-run", "--queue", f"sqs://{place.queue}-y?region=us-east-1"]) == 0
    told = capsys.readouterr().out
    assert f"+ queue {place.queue}-y\n" in told
    assert "+ rule syncagent-" in told


def test_a_folder_has_nothing_to_bind(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures").mkdir()
    assert run(["sync", "./pictures", "--quiet"]) == 0
    capsys.readouterr()
    assert run(["bind", "pictures"]) == 2
    assert "watch://" in capsys.readouterr().err
