"""The command line as a person meets it: exit codes, symbols, one-line errors, nothing secret."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from syncagent.cli import run
from tests.rigs.catalogs import url_of


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three files, a catalog beside it, and an empty working folder."""
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name in ("cats/1.jpg", "cats/2.jpg", "notes.txt"):
        (folder / name).write_text(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "catalog.db"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("syncagent: error: ")
    return line


def test_plan_and_sync_print_the_same_lines(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(photos)]) == 0
    planned = lines(capsys)
    assert planned[:3] == ["+ cats/1.jpg", "+ cats/2.jpg", "+ notes.txt"]
    assert run(["sync", str(photos)]) == 0
    assert lines(capsys)[:3] == planned[:3]
    (photos / "notes.txt").write_text("longer than before")
    (photos / "cats/1.jpg").rename(photos / "cats/one.jpg")
    (photos / "cats/2.jpg").unlink()
    assert run(["plan", "photos"]) == 0
    planned = lines(capsys)
    assert run(["sync", "photos"]) == 0
    done = lines(capsys)
    assert "> cats/1.jpg -> cats/one.jpg" in planned
    assert {"* notes.txt", "+ cats/one.jpg", "> cats/1.jpg -> cats/one.jpg", "- cats/2.jpg"} == set(done[:-1])
    assert done[-1].startswith("0 added, 1 changed, 1 moved, 1 removed; 2 listed")
    assert planned[-1].startswith("0 to add, 1 changed, 1 to move, 1 to remove; 2 listed")


def test_check_says_what_differs_and_repairs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["sync", str(photos), "--quiet"])
    (photos / "new\nline.txt").write_text("x")
    capsys.readouterr()
    assert run(["check", "photos"]) == 1
    assert "  + new\\nline.txt" in lines(capsys)
    assert run(["check", "photos", "--json"]) == 1
    assert json.loads(lines(capsys)[0]) == {"key": "new\nline.txt", "action": "added", "size": 1}
    assert run(["check", "photos", "--repair"]) == 0
    capsys.readouterr()
    assert run(["check", "photos"]) == 0
    assert lines(capsys)[0].startswith("equal: 4 objects")


def test_refused_removal_exits_8_and_removes_nothing(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["sync", str(photos)])
    for name in ("cats/1.jpg", "cats/2.jpg", "notes.txt"):
        (photos / name).unlink()
    capsys.readouterr()
    assert run(["sync", "photos"]) == 8
    assert "the listing is empty, and all 3 items would be removed" in error(capsys)
    assert run(["sync", "photos", "--max-deletes", "2"]) == 8
    assert run(["datasets", "ls", "--json"]) == 0
    assert json.loads(lines(capsys)[-1])["items"] == 3
    assert run(["sync", "photos", "--max-deletes", "3"]) == 0


def test_trash_and_back(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["sync", str(photos)])
    run(["items", "photos", "--prefix", "notes", "--json"])
    before = json.loads(lines(capsys)[-1])["id"]
    shutil.copy(photos / "notes.txt", photos.parent / "kept")
    (photos / "notes.txt").unlink()
    assert run(["settle", "photos", "notes.txt"]) == 0
    assert run(["trash", "ls", "photos"]) == 0
    assert "notes.txt (9 bytes)" in lines(capsys)[-1]
    assert run(["trash", "restore", "photos", "notes.txt"]) == 1
    assert "put it back first" in capsys.readouterr().err
    shutil.copy(photos.parent / "kept", photos / "notes.txt")
    assert run(["trash", "restore", "photos", "notes.txt"]) == 0
    run(["item", "photos", "notes.txt", "--json"])
    assert json.loads(lines(capsys)[-1])["id"] == before
    (photos / "notes.txt").unlink()
    run(["sync", "photos", "--quiet"])
    capsys.readouterr()
    assert run(["trash", "empty", "photos", "--yes"]) == 0
    assert lines(capsys) == ["1 forgotten"]


def test_quarantine_is_seen_replayed_and_dropped(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.catalog import open_catalog
    from syncagent.errors import AccessDenied

    run(["sync", str(photos)])
    catalog = open_catalog(os.environ["SYNCAGENT_CATALOG"])
    dataset = catalog.dataset("photos").id
    for key in ("notes.txt", "cats/1.jpg"):
        catalog.quarantine(dataset, key, AccessDenied("not allowed"))
    catalog.close()
    capsys.readouterr()
    assert run(["quarantine", "ls", "photos"]) == 0
    assert any("notes.txt" in line and "not allowed" in line for line in lines(capsys))
    assert run(["quarantine", "replay", "photos", "notes.txt"]) == 0
    assert lines(capsys)[-1] == "1 settled, 0 failed"
    assert run(["quarantine", "drop", "photos"]) == 0
    assert lines(capsys) == ["1 dropped"]


def test_ls_lists_a_bucket_and_a_dataset(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", str(photos), "--format", "{key}:{size}"]) == 0
    assert lines(capsys) == ["cats/1.jpg:10", "cats/2.jpg:10", "notes.txt:9"]
    assert run(["ls", str(photos), "--summary"]) == 0
    assert lines(capsys) == ["3 objects, 29 bytes"]
    run(["sync", str(photos), "--quiet"])
    capsys.readouterr()
    assert run(["ls", "photos", "--json"]) == 0
    assert [json.loads(line)["key"] for line in lines(capsys)] == ["cats/1.jpg", "cats/2.jpg", "notes.txt"]
    (photos / "esc\x1b[2J.txt").write_text("")
    assert run(["ls", str(photos)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_runs_tell_the_history(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["sync", str(photos), "--quiet"])
    run(["sync", "photos", "--quiet"])
    capsys.readouterr()
    assert run(["runs", "photos", "--json"]) == 0
    newest, oldest = map(json.loads, lines(capsys))
    assert (newest["state"], newest["report"]["same"], newest["report"]["requests"]) == (
        "done",
        3,
        {"list": 1},
    )
    assert oldest["report"]["added"] == 3


def test_doctor(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(photos), "--put", "--delete"]) == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith(("ok", "FAIL"))] == [
        "ok    list",
        "ok    get",
        "ok    put",
        "ok    delete",
    ]
    assert sorted(os.listdir(photos)) == ["cats", "notes.txt"]  # noqa: PTH208  # names are enough
    (photos.parent / "empty").mkdir()
    assert run(["doctor", str(photos.parent / "empty")]) == 0
    assert "warning: no object matches" in capsys.readouterr().err
    assert run(["doctor", str(photos.parent / "gone")]) == 4
    said = capsys.readouterr()
    assert "no such folder" in said.out + said.err


def test_secrets_are_sealed_and_never_shown(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2-hunter2")
    (tmp_path / "key").write_text("AKIAEXAMPLE\n")
    create = ["integrations", "create", "lab", "--type", "s3", "--option-env", "secret=MY_SECRET"]
    assert run([*create, "--option-file", f"key={tmp_path / 'key'}"]) == 0
    assert run(["integrations", "show", "lab"]) == 0
    assert run(["integrations", "ls", "--json"]) == 0
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err
    assert "AKIA" not in said.out
    for file in tmp_path.glob("catalog.db*"):
        assert b"hunter2" not in file.read_bytes()
    key = Path(os.environ.get("SYNCAGENT_SECRET_KEY_FILE", tmp_path / "catalog.db.key"))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert run(["integrations", "create", "x", "--type", "s3", "--option", "secret=oops"]) == 2
    assert "oops" not in error(capsys)
    assert run(["sync", "s3://KEY:SECRET@bucket/x"]) == 2
    assert "SECRET@" not in error(capsys)


BAD = [
    (["sync", "nowhere"], 4, "no dataset 'nowhere'"),
    (["sync", "./nowhere"], 4, "no such folder"),
    (["sync", "ftp://host/x"], 2, "unknown scheme ftp://"),
    (["sync", "s3://bucket?regoin=x"], 2, "unknown parameter 'regoin'"),
    (["sync", "s3://"], 2, "names no bucket"),
    (["sync", "gs://bucket?scope=tree"], 2, "scope=tree"),
    (["--catalog", "mysql://x", "runs"], 2, "unknown catalog mysql://"),
    (["ls", ".", "--format", "{nope}"], 2, "unknown field 'nope'"),
    (["item", "nowhere", "k"], 4, "no dataset 'nowhere'"),
    (["--config", "nowhere.toml", "runs"], 2, "no such settings file"),
    (["datasets", "create", "d", "--driver", "none"], 4, "no driver 'none'"),
    (
        ["integrations", "create", "i", "--type", "s3", "--option-env", "secret=NOT_SET"],
        2,
        "there is no such variable",
    ),
]


@pytest.mark.parametrize(("words", "code", "said"), BAD, ids=[" ".join(words) for words, _, _ in BAD])
def test_bad_input_is_one_line(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert run(words) == code
    assert said in error(capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_delete = 3", "did you mean 'max_deletes'?"),
        ("workers = 'many'", "workers"),
        ("workers = 0", "workers"),
        ("catalog = ", "not readable TOML"),
    ],
)
def test_bad_settings_are_one_line(
    photos: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    Path("syncagent.toml").write_text(text)
    assert run(["runs"]) == 2
    assert said in error(capsys)


def test_a_file_sets_and_a_variable_wins(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("syncagent.toml").write_text("max_deletes = 0\n")
    run(["sync", str(photos), "--quiet"])
    (photos / "notes.txt").unlink()
    capsys.readouterr()
    assert run(["sync", "photos"]) == 8
    monkeypatch.setenv("SYNCAGENT_MAX_DELETES", "1")
    assert run(["sync", "photos"]) == 0


def test_the_same_name_for_another_source_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["sync", str(photos), "--quiet"])
    other = tmp_path / "other/photos"
    other.mkdir(parents=True)
    (other / "x").write_text("x")
    capsys.readouterr()
    assert run(["sync", str(other)]) == 2
    assert f"dataset 'photos' mirrors {photos}" in error(capsys)
    assert run(["sync", str(other), "--dataset", "other"]) == 0
    assert run(["sync", str(other), "--quiet"]) == 0, "known by its source"


def test_a_locked_catalog_exits_5_and_a_newer_one_2(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCAGENT_CATALOG", f"sqlite:///{tmp_path / 'catalog.db'}")
    run(["sync", str(photos), "--quiet"])
    capsys.readouterr()
    monkeypatch.setenv("SYNCAGENT_CATALOG_TIMEOUT", "0")
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert run(["sync", "photos"]) == 5
    assert "locked by another process" in error(capsys)
    other.execute("PRAGMA user_version=99")
    other.execute("COMMIT")
    other.close()
    assert run(["runs"]) == 2
    assert "newer syncagent" in error(capsys)


def test_a_closed_pipe_is_quiet(photos: Path) -> None:
    for number in range(3000):
        (photos / f"{number:05}-{'x' * 60}").write_text("")
    command = f"{sys.executable} -m syncagent ls {photos} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_a_bug_is_70_without_a_traceback(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.agent import Agent

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Agent, "resolve", broken)
    assert run(["sync", str(photos)]) == 70
    said = capsys.readouterr().err
    assert said.startswith("syncagent: bug: RuntimeError")
    assert "secret detail" not in said
    assert "Traceback" not in said


def test_an_interrupt_is_130(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.reconcile import Reconciler

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Reconciler, "sweep", interrupted)
    assert run(["sync", str(photos)]) == 130
    assert "interrupted; run it again" in capsys.readouterr().err


def test_starting_loads_no_sdk() -> None:
    code = "import sys, syncagent.cli; print([m for m in ('boto3', 'google.cloud', 'azure', 'rich', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
