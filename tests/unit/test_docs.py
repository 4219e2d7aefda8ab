"""docs/cli.md is what the command line says of itself."""

from __future__ import annotations

import click
import pytest

from scripts.cli_docs import PAGE, commands, render
from syncagent.cli import cli
from tests.rigs.catalogs import url_of

ALL = list(commands(cli))


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "run python scripts/cli_docs.py"


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "syncagent" for path, _ in ALL])
def test_every_command_and_option_has_help_and_a_variable(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("version", "help"):
            assert parameter.help, parameter.name
            assert parameter.show_envvar, parameter.name


def test_a_variable_stands_in_for_an_option(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from click.testing import CliRunner

    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("x")
    monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "c.db"))
    monkeypatch.setenv("SYNCAGENT_SYNC_DATASET", "named-by-variable")
    done = CliRunner().invoke(cli, ["sync", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    assert "named-by-variable" in CliRunner().invoke(cli, ["datasets", "ls"]).output
