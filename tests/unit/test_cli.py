"""The command line in detail: what is printed, what is left out, and what each option is called.

The first things a person meets (exit codes, symbols, one-line errors) are in `test_cli_manners.py`.
"""

from __future__ import annotations

import gc
import io
import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from syncagent import cli, open_bucket
from syncagent.cli.browse import describe_listing
from syncagent.cli.doctor import policy
from syncagent.cli.output import line, printable
from syncagent.drivers import parse_url
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import AccessDenied, NotFound, Transient
from syncagent.model import Action, ObjectInfo, Outcome
from tests.rigs.catalogs import url_of

COMMAND = [sys.executable, "-m", "syncagent"]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.out.splitlines()]


class Shell:
    """Runs commands in this process, over one catalog."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self.setenv = monkeypatch.setenv

    def __call__(self, *words: str | Path) -> Done:
        self._capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Done(code, *self._capsys.readouterr())


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "catalog.db"))
    threshold = gc.get_threshold()
    yield Shell(capsys, monkeypatch)
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.txt"):
        (folder / name).write_text(f"bytes of {name}")
    return folder


@pytest.fixture
def bucket() -> str:
    """A fresh bucket in memory with two objects."""
    url = f"memory://cli-{uuid.uuid4().hex}"
    put(url, "a", b"a")
    put(url, "b", b"b")
    return url


def put(url: str, key: str, body: bytes) -> None:
    with open_bucket(url) as opened:
        opened.put(key, io.BytesIO(body))


# -- sync, plan, check, settle -------------------------------------------------------------------


def test_a_failed_key_is_a_line_with_its_reason() -> None:
    assert line(Outcome("k", Action.FAILED, error="not allowed")) == "! k: not allowed"


def test_plan_stores_nothing_and_check_wants_a_dataset(run: Shell, photos: Path) -> None:
    assert run("plan", photos).out.splitlines()[:3] == ["+ a.jpg", "+ b.jpg", "+ c.txt"]
    assert run("datasets", "ls").out == ""
    missing = run("check", photos)
    assert missing.code == 4
    assert "make one with 'syncagent sync" in missing.err


def test_check_counts_by_kind_with_samples(run: Shell, photos: Path) -> None:
    run("sync", photos)
    for number in range(4):
        (photos / f"new{number}").write_text(str(number))
    done = run("check", "photos", "--samples", "2")
    assert done.code == 1
    assert done.out.splitlines()[:4] == [
        "+ 4 in the bucket, not in the catalog",
        "  + new0",
        "  + new1",
        "  … and 2 more",
    ]


def test_quiet_prints_the_summary_only(run: Shell, photos: Path) -> None:
    done = run("sync", photos, "--quiet")
    assert len(done.out.splitlines()) == 1
    assert done.err == ""


def test_lines_are_left_out_after_a_thousand(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(1005):
        (tmp_path / f"many/{number:04}").touch()
    planned = run("plan", tmp_path / "many")
    assert len(planned.out.splitlines()) == 1001
    assert planned.err.count("further lines left out") == 1
    assert len(run("-v", "plan", tmp_path / "many").out.splitlines()) == 1006
    assert len(run("sync", tmp_path / "many", "--json").out.splitlines()) == 1006


def test_a_refusal_says_how_to_go_on(run: Shell, photos: Path) -> None:
    run("sync", photos)
    for file in photos.iterdir():
        file.unlink()
    for words in (
        ["sync", "photos"],
        ["sync", "photos", "--max-deletes", "2"],
        ["check", "photos", "--repair"],
    ):
        refused = run(*words)
        assert refused.code == 8
        assert "nothing was removed" in refused.err
        assert "--max-deletes" in refused.err
        assert len(run("items", "photos").out.splitlines()) == 3
    assert run("sync", "photos", "--max-deletes", "3").code == 0
    assert run("items", "photos").out == ""


def test_settle_goes_on_after_an_error(run: Shell, photos: Path) -> None:
    run("sync", photos)
    (photos / "a.jpg").unlink()
    done = run("settle", "photos", "a.jpg", "k" * 1025, "b.jpg")
    assert done.code == 2
    removed, failed, same = done.out.splitlines()
    assert (removed, same) == ("- a.jpg", "= b.jpg")
    assert failed.startswith("! kkk")


def test_a_listing_that_breaks_removes_nothing(
    run: Shell, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("sync", bucket, "--dataset", "data")

    def gone(*_: object, **__: object) -> Iterator[list[ObjectInfo]]:
        raise NotFound("no such bucket", resource="x")
        yield []

    monkeypatch.setattr(MemoryDriver, "list", gone)
    assert run("sync", "data").code == 4
    assert len(run("items", "data").out.splitlines()) == 2
    assert "failed" in run("runs", "data").out


# -- looking -------------------------------------------------------------------------------------


def test_ls_prints_time_size_and_key(run: Shell, photos: Path) -> None:
    listed = [text.split()[1:] for text in run("ls", photos).out.splitlines()]
    assert listed == [["14", "a.jpg"], ["14", "b.jpg"], ["14", "c.txt"]]
    assert run("ls", photos, "--summary").out == "3 objects, 42 bytes\n"
    assert run("ls", photos, "--summary", "--json").json == [{"objects": 3, "bytes": 42}]


def test_ls_of_a_dataset_lists_items(run: Shell, photos: Path) -> None:
    run("sync", photos)
    listed = run("ls", photos)
    (photos / "later.txt").write_text("not synced")
    assert run("ls", "photos").out == listed.out


def test_ls_format(run: Shell, bucket: str) -> None:
    done = run("ls", bucket, "--format", "{size:>3}|{key}|{class}|{{x}}")
    assert done.out == "  1|a|STANDARD|{x}\n  1|b|STANDARD|{x}\n"
    assert run("ls", bucket, "--format", "{type:>5}.").out == "    -.\n    -.\n"


@pytest.mark.parametrize(
    "pattern",
    ["{colour}", "{", "}", "{size:zz}", "{key:d}", "{key.__class__}", "{0}", "{}", "{key!x}", "{key:{size}}"],
)
def test_a_wrong_format_is_a_usage_error(run: Shell, bucket: str, pattern: str) -> None:
    done = run("ls", bucket, "--format", pattern)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("syncagent: error: --format: ")
    assert len(done.err.splitlines()) == 1


def test_verbose_ls_says_folder_or_prefix(run: Shell, bucket: str) -> None:
    put(bucket, "train/x", b"x")
    put(bucket, "training/y", b"y")
    folder, prefix = run("-v", "ls", f"{bucket}/train"), run("-v", "ls", f"{bucket}/train?scope=prefix")
    assert "the folder train/" in folder.err
    assert "starts with 'train'" in prefix.err
    assert folder.err.count("swept by one worker: ") == 1
    assert (len(folder.out.splitlines()), len(prefix.out.splitlines())) == (1, 2)


@pytest.mark.parametrize(
    ("url", "listers", "told"),
    [
        ("s3://box?region=us-east-1", "8", "swept by 8 workers, each with a range of the keys"),
        ("gs://box?anonymous=yes", "3", "swept by 3 workers, each with a range of the keys"),
        ("s3://box?region=us-east-1", "1", "swept by one worker: SYNCAGENT_LISTERS is 1"),
        ("s3://box?region=us-east-1&sorted=no", "8", "by one worker: the store does not list in byte order"),
        (
            "s3://box--use1-az4--x-s3?region=us-east-1",
            "8",
            "by one worker: the store does not list in byte order",
        ),
        (
            "az://account/box?anonymous=yes",
            "8",
            "by one worker: a listing of this store cannot begin at a key",
        ),
        ("memory://box", "8", "by one worker: a listing of this store cannot begin at a key"),
    ],
)
def test_how_a_bucket_is_listed(url: str, listers: str, told: str) -> None:
    """What `ls -v` says; nobody is asked."""
    with open_bucket(url) as opened:
        assert told in describe_listing(opened, int(listers))


def test_control_characters_are_escaped_for_people_and_kept_for_programs(run: Shell, bucket: str) -> None:
    key = "bad\nname\x1b[31m\ttab"
    put(bucket, key, b"x")
    assert r"+ bad\nname\x1b[31m\ttab" in run("sync", bucket, "--dataset", "odd").out.splitlines()
    for words in (
        ["ls", bucket],
        ["ls", bucket, "--format", "{key}"],
        ["ls", "odd"],
        ["items", "odd"],
        ["item", "odd", key],
    ):
        done = run(*words)
        assert r"bad\nname\x1b[31m\ttab" in done.out, words
        assert "\x1b" not in done.out
    assert key in [one["key"] for one in run("ls", bucket, "--json").json]
    assert "/" + key in [one["filename"] for one in run("items", "odd", "--json").json]
    assert printable("plain ünïcode 😀.jpg") == "plain ünïcode 😀.jpg"


def test_every_reading_verb_prints_one_json_object_a_line(run: Shell, photos: Path) -> None:
    assert {one["action"] for one in run("sync", photos, "--json").json[:-1]} == {"added"}
    (photos / "a.jpg").unlink()
    assert run("plan", "photos", "--json").json[0]["action"] == "removed"
    assert run("check", "photos", "--json").json[-1]["report"]["removed"] == 1
    run("sync", "photos")
    for words in (
        ["ls", photos], ["items", "photos"], ["item", "photos", "b.jpg"], ["runs"], ["runs", "photos"], ["trash", "ls", "photos"],
        ["datasets", "ls"], ["drivers", "ls"], ["catalog", "stats"], ["settle", "photos", "b.jpg"],
    ):  # fmt: skip
        found = run(*words, "--json").json
        assert found, words
        assert all(isinstance(one, dict) for one in found)
    for words in (["datasets", "show", "photos"], ["drivers", "show", "photos"]):
        assert len(run(*words).json) == 1


def test_items_by_prefix_and_limit(run: Shell, photos: Path) -> None:
    run("sync", photos)
    assert len(run("items", "photos", "--prefix", "a").out.splitlines()) == 1
    assert len(run("items", "photos", "--limit", "2").out.splitlines()) == 2


# -- trash and records ---------------------------------------------------------------------------


def test_emptying_the_trash_asks_unless_told(run: Shell, photos: Path) -> None:
    run("sync", photos)
    (photos / "a.jpg").unlink()
    run("sync", "photos")
    assert run("trash", "empty", "photos").code != 0  # nobody there to say yes
    assert "a.jpg" in run("trash", "ls", "photos").out
    assert run("trash", "empty", "photos", "--yes").out == "1 forgotten\n"
    assert run("trash", "ls", "photos").out == ""


def test_restoring_a_key_never_seen(run: Shell, photos: Path) -> None:
    run("sync", photos)
    assert run("trash", "restore", "photos", "never-seen").code == 4


def test_records_come_and_go(run: Shell, bucket: str) -> None:
    assert run("drivers", "create", "store", f"{bucket}/train").code == 0
    assert run("datasets", "create", "data", "--driver", "store").code == 0
    assert run("datasets", "show", "data").json[0]["source"] == f"{bucket}/train"
    assert run("drivers", "rm", "store").code == 8  # in use
    assert run("datasets", "create", "data", "--driver", "store").code == 1  # taken
    assert run("datasets", "rm", "data", "--yes").code == 0
    assert run("drivers", "rm", "store").code == 0
    assert run("datasets", "show", "data").code == 4


@pytest.mark.parametrize(
    "words",
    [
        ["--option", "secret=wJalrXUtnFEMI"],  # a secret as an option's value
        ["--option", "wJalrXUtnFEMI"],
        ["--option-env", "wJalrXUtnFEMI"],
        ["--option-env", "secret=wJalrXUtnFEMI"],  # the value where the variable's name belongs
        ["--option-file", "secret=wJalrXUtnFEMI"],
        ["--option-file", "colour=file"],
        [],
    ],
)
def test_a_wrong_way_to_give_a_secret_does_not_repeat_it(run: Shell, words: list[str]) -> None:
    done = run("integrations", "create", "mine", "--type", "s3", *words)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "wJalrXUtnFEMI" not in done.out + done.err


def test_a_url_with_credentials_is_not_repeated(run: Shell) -> None:
    done = run("ls", "s3://AKIA:wJalrXUtnFEMI@bucket")
    assert done.code == 2
    assert "wJalrXUtnFEMI" not in done.err


# -- doctor --------------------------------------------------------------------------------------


def test_doctor_on_a_missing_folder(run: Shell, tmp_path: Path) -> None:
    done = run("doctor", tmp_path / "nowhere")
    assert done.code == 4
    assert done.out.startswith("FAIL  open: no such folder: ")


def test_doctor_says_what_it_could_not_test(run: Shell, bucket: str) -> None:
    done = run("doctor", f"{bucket}/nowhere")
    assert done.code == 0
    assert "the folder nowhere/" in done.out
    assert "ok    list: 0 objects" in done.out
    assert "-     get: not tested: there is no object to read" in done.out
    assert "warning: no object matches" in done.err


def test_doctor_deletes_only_its_own(run: Shell, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(MemoryDriver, "delete", lambda _, key: deleted.append(key))
    assert run("doctor", bucket, "--put", "--delete").code == 0
    (probe,) = deleted
    assert probe.startswith(".syncagent-doctor-")


def test_doctor_counts_to_a_thousand_and_shows_five(run: Shell, bucket: str) -> None:
    for number in range(1001):
        put(bucket, f"n{number:04}", b"")
    done = run("doctor", bucket)
    assert "1000 or more objects" in done.out
    assert sum(text.startswith("      ") for text in done.out.splitlines()) == 5


def test_doctor_names_what_is_missing_and_goes_on(
    run: Shell, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object, **__: object) -> None:
        raise AccessDenied("not allowed: s3:PutObject", permission="s3:PutObject")

    monkeypatch.setattr(MemoryDriver, "put", deny)
    done = run("doctor", bucket, "--put", "--delete")
    assert done.code == 6
    assert "ok    get: " in done.out
    assert "FAIL  put: not allowed: s3:PutObject" in done.out
    assert "grant s3:PutObject" in done.out
    assert "-     delete: not tested: nothing of its own was stored" in done.out


def test_doctors_exit_code_is_the_first_failures(
    run: Shell, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise Transient("busy")

    def deny(*_: object, **__: object) -> None:
        raise AccessDenied("no")

    monkeypatch.setattr(MemoryDriver, "list", busy)
    monkeypatch.setattr(MemoryDriver, "put", deny)
    assert run("doctor", bucket, "--put").code == 5


@pytest.mark.parametrize(
    ("url", "test", "expected"),
    [
        ("s3://b/train", "list", '"Resource": "arn:aws:s3:::b"}'),
        ("s3://b/train", "get", '"Resource": "arn:aws:s3:::b/train/*"}'),
        ("s3://b/train?scope=prefix", "get", '"Resource": "arn:aws:s3:::b/train*"}'),
        ("s3://b", "get", '"Resource": "arn:aws:s3:::b/*"}'),
        ("gs://b", "list", "--role=roles/storage.objectViewer"),
        ("gs://b", "put", "--role=roles/storage.objectCreator"),
        ("gs://b", "delete", "--role=roles/storage.objectUser"),
        ("az://acc/con", "get", '"Storage Blob Data Reader"'),
        ("az://acc/con", "put", "storageAccounts/acc/blobServices/default/containers/con"),
        ("/folder", "put", "chmod"),
    ],
)
def test_the_policy_to_add(url: str, test: str, expected: str) -> None:
    assert expected in policy(parse_url(url), test, "the-permission")


def test_the_policy_for_s3_is_json() -> None:
    statement = json.loads(policy(parse_url("s3://b"), "put", "s3:PutObject").partition(": ")[2])
    assert statement == {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::b/*"}


# -- usage and variables -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["sync"], ["sync", "--colour", "x"], ["sync", ".", "--max-deletes", "-1"]]
)
def test_wrong_usage(run: Shell, words: list[str]) -> None:
    assert run(*words).code == 2


def test_a_variable_that_nothing_reads(run: Shell) -> None:
    run.setenv("SYNCAGENT_WROKERS", "3")
    run.setenv("SYNCAGENT_LS_JSON", "1")
    run.setenv("SYNCAGENT_TRASH_DAYS", "3")
    done = run("datasets", "ls")
    assert done.code == 0
    assert done.err == (
        "syncagent: warning: SYNCAGENT_WROKERS is no variable of syncagent; did you mean SYNCAGENT_WORKERS?\n"
    )


def test_variables_are_called_like_their_options(run: Shell, bucket: str) -> None:
    run.setenv("SYNCAGENT_LS_FORMAT", "{size}")
    assert run("ls", bucket).out == "1\n1\n"
    run.setenv("SYNCAGENT_LS_JSON", "1")
    assert run("ls", bucket).json[0]["key"] == "a"


# -- as a process --------------------------------------------------------------------------------


@pytest.fixture
def many(run: Shell, tmp_path: Path) -> Path:
    """More lines than a pipe holds."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(4000):
        (folder / f"{number:04}-{'x' * 40}").touch()
    return folder


@pytest.mark.parametrize("verb", ["ls", "plan"])
def test_a_reader_that_leaves_ends_it_quietly(many: Path, verb: str) -> None:
    words = [*COMMAND, "-v", verb, str(many)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_a_sync_goes_on_when_its_reader_leaves(run: Shell, many: Path) -> None:
    words = [*COMMAND, "-v", "sync", str(many)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0
    assert run("datasets", "ls", "--json").json[0]["items"] == 4000
    assert run("check", "many").code == 0


def test_progress_on_a_terminal_leaves_the_data_alone(run: Shell, photos: Path) -> None:
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "sync", str(photos)],
            stdout=subprocess.PIPE,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm"},
            check=True,
        )
    finally:
        os.close(terminal)
        os.close(master)
    assert done.stdout.decode().splitlines()[:3] == ["+ a.jpg", "+ b.jpg", "+ c.txt"]
    assert b"\x1b" not in done.stdout


def test_version_and_help_load_little() -> None:
    code = (
        "import sys; from syncagent.cli import run; run(['--version']); run(['sync', '--help'])\n"
        "print(sorted({'pydantic', 'rich', 'boto3', 'httpx', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "SYNCAGENT_SYNC_MAX_DELETES" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_click_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(name='click')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "syncagent: the command line needs click: pip install 'syncagent[cli]'\n"
