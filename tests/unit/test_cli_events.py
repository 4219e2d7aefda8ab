"""handle, status, run and webhook as a person meets them; schedules."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import click
import pytest

from syncagent.agent import Agent
from syncagent.cli import run
from syncagent.cli.daemon import handle
from syncagent.config import load
from syncagent.daemon.letters import DeadLetters
from syncagent.daemon.metrics import Metrics
from syncagent.daemon.schedule import Schedule
from syncagent.daemon.sweeper import Plan, Sweeper
from syncagent.drivers.queues import Message
from syncagent.errors import ConfigError, SyncAgentError, Transient
from syncagent.handlers.events import BadEvent
from syncagent.reconcile import Reconciler
from tests.rigs.catalogs import url_of
from tests.rigs.fake_http import FakeHttp


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirrored folder, which says that it is a bucket of S3's: events name it so."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_text("x")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "catalog.db"))
    assert run(["sync", str(folder), "--quiet"]) == 0
    return folder


def change(folder: Path, name: str, what: str = "added") -> str:
    return json.dumps({"folder": str(folder), "path": str(folder / name), "change": what})


def test_handle_settles_what_a_payload_names(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "b.jpg").write_text("y")
    capsys.readouterr()
    Path("event.json").write_text(change(photos, "b.jpg"))
    assert run(["handle", "event.json", "--from", "local"]) == 0
    assert capsys.readouterr().out.splitlines() == ["+ b.jpg", "2 events: 1 added"]
    (photos / "b.jpg").unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO(change(photos, "b.jpg", "deleted")))
    assert run(["handle", "-", "--from", "local", "--json"]) == 0
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["action"] == "removed"
    assert last["handled"]["settled"] == {"removed": 1}


def test_the_docs_name_whomever_handle_takes_events_from() -> None:
    page = (Path(__file__).parents[2] / "docs/events.md").read_text()
    line = next(line for line in page.splitlines() if "handle event.json --from" in line)
    (choice,) = (one for one in handle.params if one.name == "provider")
    assert isinstance(choice.type, click.Choice)
    assert [
        name for name in choice.type.choices if f"`{name}`" not in line and f"--from {name}`" not in line
    ] == []


def test_handle_tells_what_is_outside_and_what_is_ignored(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = Path(__file__).parents[1] / "events"
    capsys.readouterr()
    assert run(["handle", str(events / "s3/notification-put.json"), "--from", "aws"]) == 0
    assert run(["handle", str(events / "s3/test-event.json"), "--from", "aws"]) == 0
    assert run(["handle", str(events / "gcs/pull-finalize.json"), "--from", "gcp"]) == 0
    assert run(["handle", str(events / "azure/queue-base64.txt"), "--from", "azure"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 events: nothing; 1 outside every dataset",
        "0 events: nothing; 1 ignored",
        "1 events: nothing; 1 outside every dataset",
        "1 events: nothing; 1 outside every dataset",
    ]


def test_handle_takes_a_message_that_was_given_up(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.jpg").write_text("y")
    letters = DeadLetters(Path("letters"))
    message = Message("m", change(photos, "b.jpg"), {"a": "b"}, 10, 1.0)
    for _ in range(2):
        letters.keep("watch:///x", "file", message, BadEvent("it was broken"))
    assert letters.count() == 1, "the same message is kept once"
    (letter,) = Path("letters").iterdir()
    capsys.readouterr()
    assert run(["handle", str(letter)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "+ b.jpg"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["handle", "none.json", "--from", "aws"], 2, "none.json cannot be read"),
        (["handle", "event.json"], 2, "does not say whose event it is; give --from aws, gcp, azure or local"),
        (["handle", "event.json", "--from", "aws"], 2, "no event of S3"),
        (["run"], 2, "there is nothing to follow"),
        (["run", "--sweep", "1h"], 2, "are for datasets"),
        (["run", "nothing"], 4, "nothing"),
        (["run", "photos", "--sweep", "often"], 2, "no schedule"),
        (["run", "photos", "--queue", "sqs://a@b"], 2, "holds credentials"),
        (["run", "photos", "--sweep", "often"], 2, "datasets.photos: 'often' is no schedule"),
        (
            ["run", "photos", "--queue", "nonsense"],
            2,
            "datasets.photos: 'nonsense' is no queue's URL; known are sqs://, ",
        ),
        (["run", "photos", "--queue", "AccountKey=pass@x"], 2, "datasets.photos: the text is no queue's URL"),
        (["run", "photos", "--queue", "sqs://[x"], 2, "is no queue's URL"),
        (
            ["run", "photos", "--queue", "ftp://x"],
            2,
            "datasets.photos: unknown queue ftp://; known are sqs://, ",
        ),
        (["run", "photos", "--listen", "here"], 2, "no address"),
        (["run", "photos", "--listen", ":99999"], 2, "no address"),
        (["run", "photos", "--listen", f"{'ä' * 70}:80"], 2, "cannot listen on"),
        (["status", "nothing"], 4, "nothing"),
        (["webhook", "set", "photos", "ftp://x"], 2, "no http or https address"),
        (
            ["webhook", "set", "photos", "http://example.com"],
            2,
            "in the clear; write https://, or give --allow-private",
        ),
        (["webhook", "set", "photos", "https://user:pass@example.com"], 2, "no http or https address"),
        (["webhook", "set", "nothing", "https://example.com"], 4, "nothing"),
        (["webhook", "rm", "photos"], 4, "has no webhook"),
        (["webhook", "test", "photos"], 4, "has no webhook"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    Path("event.json").write_text('{"hello": 1}')
    capsys.readouterr()
    assert run(words) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("syncagent: error: ")
    assert told in lines[-1]
    assert "pass@" not in lines[-1]


def test_status_says_how_far_every_dataset_is(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    (told,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (told["dataset"], told["items"], told["sweep"], told["drift"]) == ("photos", 1, "done", None)
    Path("syncagent.toml").write_text(
        f'[datasets.photos]\nqueue = "watch://{photos}"\ndrift_warning = 1\n[run]\nlisten = ""\n'
    )
    for name in "bcd":
        (photos / name).write_text(name)
    run(["sync", "photos", "--quiet"])
    with Agent(load()) as agent:
        agent.catalog.quarantine(agent.catalog.dataset("photos").id, "x", SyncAgentError("broken"))
    capsys.readouterr()
    assert run(["status"]) == 1, "it needs a look"
    shown = capsys.readouterr().out
    assert "drift: 3 keys differed that no event told of" in shown
    assert "see 'syncagent quarantine ls'" in shown
    assert run(["status", "photos", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["drift"], told["quarantined"]) == (3, 1)


def test_a_webhook_is_set_listed_tested_and_removed(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHttp(lambda _: (204, {}, b"")) as receiver:
        capsys.readouterr()
        assert run(["webhook", "set", "photos", f"{receiver.url}/hook", "--allow-private"]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("whsec_")
        assert run(["webhook", "ls", "--json"]) == 0
        shown = capsys.readouterr().out
        assert json.loads(shown)["url"] == f"{receiver.url}/hook"
        assert told.out.strip() not in shown
        assert run(["webhook", "test", "photos"]) == 0
        assert json.loads(receiver.requests[0].body)["type"] == "io.syncagent.test"
        receiver.always((500, {}, b""))
        assert run(["webhook", "test", "photos"]) == 5
    monkeypatch.setenv("SYNCAGENT_WEBHOOK_SECRET", "short")
    assert run(["webhook", "set", "photos", "https://example.com/"]) == 2
    monkeypatch.setenv("SYNCAGENT_WEBHOOK_SECRET", "aws-secret://team/hook?region=eu-west-1")
    capsys.readouterr()
    assert run(["webhook", "set", "photos", "https://example.com/"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["webhook", "rm", "photos"]) == 0
    assert run(["webhook", "ls"]) == 0
    assert "example.com" not in capsys.readouterr().out


def test_a_sweep_that_is_wanted_at_once_stays_wanted_until_it_went_well(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Agent(load()) as agent:
        plan = Plan("photos", Schedule("24h"))
        sweeper = Sweeper(agent, [plan], Metrics())
        sweeper.soon(["photos"])
        with monkeypatch.context() as away:
            away.setattr(
                Reconciler, "sweep", lambda *_, **__: (_ for _ in ()).throw(Transient("the bucket is away"))
            )
            with pytest.raises(Transient):
                sweeper._if_due(plan)
        assert plan.now, "the schedule alone would put it off for a day"
        sweeper._if_due(plan)
        assert not plan.now
        assert [run.state for run in agent.catalog.runs()] == ["done", "done"]


# -- schedules -----------------------------------------------------------------------------------


def test_schedules() -> None:
    noon = 1_764_072_000.0  # 2025-11-25T12:00:00Z
    assert Schedule("6h").next(noon, noon) == noon + 6 * 3600
    assert Schedule("90s").next(noon, noon + 1) == noon + 90
    assert Schedule("1d").next(None, noon) == noon, "there was none yet"
    assert Schedule("0 3 * * *").next(noon, noon) == noon + 15 * 3600
    assert Schedule("off").next(None, noon) is None
    for wrong in ("", "often", "6", "-1h", "0s", "* * *", "61 * * * *", "1h 2h", "0 3 30 2 *"):
        with pytest.raises(ConfigError, match="no schedule"):
            Schedule(wrong)


@pytest.mark.parametrize("text", ["6h", "0 3 * * *"])
def test_a_clock_that_jumps_back_puts_no_sweep_off(text: str) -> None:
    now = time.time()
    due = Schedule(text).next(now + 365 * 86400, now)
    assert due is not None
    assert due <= now + 86400
