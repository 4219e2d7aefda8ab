"""Option, then environment, then file, then default; and one line for whatever is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from syncagent.config import Follow, Run, load
from syncagent.errors import ConfigError


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a home folder without settings files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_defaults(empty_place: Path) -> None:
    settings = load()
    assert settings.catalog == f"sqlite:///{empty_place / 'home/.syncagent/catalog.db'}"
    assert (settings.workers, settings.max_deletes, settings.trash_days, settings.tombstone_days) == (
        8,
        None,
        30,
        15,
    )


def test_home_moves_the_default_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCAGENT_HOME", "/srv/syncagent")
    assert load().catalog == "sqlite:////srv/syncagent/catalog.db"


def test_option_wins_over_environment_over_file_over_default(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_place / "syncagent.toml").write_text("workers = 2\nmax_deletes = 20\ntrash_days = 3\n")
    monkeypatch.setenv("SYNCAGENT_WORKERS", "4")
    monkeypatch.setenv("SYNCAGENT_MAX_DELETES", "40")
    settings = load(max_deletes=60)
    assert (settings.max_deletes, settings.workers, settings.trash_days, settings.tombstone_days) == (
        60,
        4,
        3,
        15,
    )


def test_an_empty_variable_is_none(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_place / "syncagent.toml").write_text("max_deletes = 20\n")
    monkeypatch.setenv("SYNCAGENT_MAX_DELETES", "")
    assert load().max_deletes == 20


def test_the_file_here_wins_over_the_one_at_home(empty_place: Path) -> None:
    at_home = empty_place / "home/.config/syncagent/config.toml"
    at_home.parent.mkdir(parents=True)
    at_home.write_text("workers = 3\n")
    assert load().workers == 3
    (empty_place / "syncagent.toml").write_text("trash_days = 5\n")
    assert (load().workers, load().trash_days) == (8, 5)


def test_a_named_file_wins_over_the_variable_over_the_one_here(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("syncagent.toml", "variable.toml", "option.toml"), start=1):
        (empty_place / name).write_text(f"workers = {number}\n")
    assert load().workers == 1
    monkeypatch.setenv("SYNCAGENT_CONFIG", "variable.toml")
    assert load().workers == 2
    assert load(Path("option.toml")).workers == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wrokers = 3", "syncagent.toml: unknown setting 'wrokers'; did you mean 'workers'?"),
        ("frobnicate = 3", "unknown setting 'frobnicate'; known are admin_email,"),
        ("workers = 'many'", "syncagent.toml: workers: "),
        ("workers = 0", "syncagent.toml: workers: Input should be greater than or equal to 1"),
        ("workers = 257", "less than or equal to 256"),
        ("log_level = 'loud'", "syncagent.toml: log_level: "),
        ("workers = ", "syncagent.toml is not readable TOML: "),
        ("[run]\nlisen = ''", "syncagent.toml: unknown setting 'run.lisen'; did you mean 'listen'?"),
        ("[run]\nfrob = 1", "syncagent.toml: unknown setting 'run.frob'; known are attempts, dead_letters,"),
        (
            "[datasets.'a.b']\nqeue = ''",
            "syncagent.toml: unknown setting 'datasets.a.b.qeue'; did you mean 'queue'?",
        ),
        (
            "[run]\npoll = 0",
            "syncagent.toml: run.poll: Input should be greater than or equal to 1; see docs/events.md",
        ),
        ("[datasets.a]\ndrift_warning = -1", "; see docs/events.md"),
        ("workers = 0", "; see docs/cli.md"),
    ],
)
def test_a_wrong_file_is_one_line(empty_place: Path, text: str, expected: str) -> None:
    (empty_place / "syncagent.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(empty_place: Path) -> None:
    (empty_place / "syncagent.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"is not readable TOML"):
        load()


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"no such settings file: nowhere\.toml"):
        load(Path("nowhere.toml"))


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCAGENT_WORKERS", "s3cr3t")
    with pytest.raises(ConfigError, match=r"^SYNCAGENT_WORKERS: ") as caught:
        load()
    assert "s3cr3t" not in str(caught.value)


def test_secrets_are_never_shown(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_place / "syncagent.toml").write_text("secret_key = 12345\n")
    with pytest.raises(ConfigError) as caught:
        load()
    assert "12345" not in str(caught.value)
    monkeypatch.setenv("SYNCAGENT_SECRET_KEY", "s3cr3t")
    assert "s3cr3t" not in repr(load())


def test_an_unknown_name_in_a_variable_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCAGENT_RUN", '{"lisen": ""}')
    with pytest.raises(
        ConfigError, match=r"^SYNCAGENT_RUN: unknown setting 'run\.lisen'; did you mean 'listen'\?"
    ):
        load()


def test_every_setting_of_the_daemon_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs/events.md").read_text()
    for head, model in (("| `[run]` |", Run), ("| `[datasets.NAME]` |", Follow)):
        table = page[page.index(head) :].partition("\n\n")[0]
        names = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
        assert names == list(model.model_fields), head
