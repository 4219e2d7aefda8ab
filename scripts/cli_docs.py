"""Writes docs/cli.md from the real command tree; a test compares the two.

python scripts/cli_docs.py            # rewrites docs/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from syncagent.cli import cli

PAGE = Path(__file__).resolve().parent.parent / "docs/cli.md"

HEAD = """# Commands

Written by `scripts/cli_docs.py` from the command line itself; `tests/unit/test_docs.py` compares the two.

A TARGET is a URL (`s3://bucket/path`, `gs://…`, `az://account/container/path`, `file:///folder`), a folder (`./photos`), or a dataset's name.

**Output.** Data on stdout, everything else on stderr. `plan`, `sync` and `settle` print one line a key: `+` added, `*` changed, `-` removed, `> old -> new` moved,
`=` same, `!` failed. Control characters in keys are escaped for people and kept in `--json`, which prints one object per line. Progress is shown on a terminal, and
as a plain line every ten seconds elsewhere.

**Exit codes.**

| code | meaning |
|---|---|
| 0 | done, and equal |
| 1 | ran to the end, but something differs or failed |
| 2 | wrong usage or settings |
| 4 | no such bucket, object, dataset |
| 5 | try again: network, throttling, a busy catalog, another sweep |
| 6 | access denied |
| 8 | refused by a safety rule; nothing was removed |
| 70 | a bug |
| 130 | interrupted; run it again to go on |

**Settings.** Every option has a variable, shown with it. These can also stand in `syncagent.toml` (here, or `~/.config/syncagent/config.toml`, or `--config`); an option wins
over the variable `SYNCAGENT_…` of the same name, the variable over the file.

| setting | default | meaning |
|---|---|---|
| `catalog` | `sqlite:///~/.syncagent/catalog.db` | where the catalog is: a file, `postgresql://user@host/database` ([PostgreSQL](postgresql.md)), or a server at `dataloop+https://host`; `SYNCAGENT_HOME` moves the folder |
| `dtlpy_username`, `dtlpy_password` | | the account for a catalog at `dataloop+https://…`; their variables are `DTLPY_USERNAME` and `DTLPY_PASSWORD` |
| `dataset_id` | | the one dataset there to work on; its variable is `DATASET_ID` |
| `secret_key` | | Fernet key that seals integrations |
| `secret_key_file` | beside the catalog | file with that key, made on first use with mode 0600; PostgreSQL has no default |
| `files` | beside the catalog | folder for bytes that belong to no bucket, and thumbnails; PostgreSQL has no default |
| `catalog_pool` | 8 | connections to PostgreSQL at most, apart from one that holds locks |
| `log_level` | `warning` | what the log on stderr tells: `debug`, `info`, `warning`, `error` |
| `catalog_timeout` | 30 | seconds to wait for another process's write |
| `max_deletes` | the larger of 1,000 and 10 % | items that one sweep may remove |
| `workers` | 8 | keys settled at once |
| `listers` | 8 | parts of a bucket that a sweep lists at once, where the store can begin at any key (S3, Google Cloud Storage): [scale](scale.md) |
| `processes` | one for each core, 4 at most | processes that read the pages of a long listing for them; 0 for none |
| `trash_days` | 30 | how long `catalog vacuum` keeps the trash |
| `redirect_streams` | false | `serve`: items' bytes come from the bucket itself, by a URL signed for five minutes, where the credentials can sign one |
| `tombstone_days` | 15 | and tombstones; longer than the slowest redelivery of an event |
"""


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words, groups first."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from commands(child, (*path, name))


def render() -> str:
    """The page."""
    parts = [HEAD]
    for path, command in commands(cli):
        words = " ".join(("syncagent", *path))
        context = click.Context(
            command, info_name=words, auto_envvar_prefix="_".join(("SYNCAGENT", *map(str.upper, path)))
        )
        usage = " ".join(command.collect_usage_pieces(context))
        if isinstance(command, click.Group) and path:
            parts.append(f"## {words}\n\n{command.help}\n")
            continue
        parts.append(
            f"{'##' if len(path) < 2 else '###'} {words}\n\n    {words} {usage}\n\n{_text(command)}\n"
        )
        rows = [
            _row(parameter, context) for parameter in command.params if isinstance(parameter, click.Option)
        ]
        if rows:
            parts.append("| option | variable | |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _text(command: click.Command) -> str:
    return "\n".join(line.strip() for line in (command.help or "").splitlines())


def _row(parameter: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    variable = (
        f"`{context.auto_envvar_prefix}_{(parameter.name or '').upper()}`" if parameter.show_envvar else ""
    )
    return f"| {names} | {variable} | {parameter.help} |"


if __name__ == "__main__":
    PAGE.write_text(render())
    sys.stdout.write(f"wrote {PAGE}\n")
