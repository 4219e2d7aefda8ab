"""Statements and schemas of the two databases: the same names, parameters, tables and columns."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.catalog.sql.statements import Kind, migrations, named, parameters, queries, translated
from tests.rigs.postgres import server

_TYPES = {"INTEGER": {"bigint", "integer", "smallint"}, "TEXT": {"text", "jsonb"}, "BLOB": {"bytea"}}


def test_what_each_says_in_its_own_way_has_the_same_names_and_parameters() -> None:
    ours, theirs = named("queries.sqlite"), named("queries.postgres")
    assert list(ours) == list(theirs)
    for name, statement in ours.items():
        assert parameters(statement) == parameters(theirs[name]), name
    assert not set(ours) & set(named("queries"))


def test_every_statement_is_understood_by_postgresql() -> None:
    """Prepared with parameters of no type, as they are sent."""
    with psycopg.connect(server().schema(), autocommit=True) as client:
        PostgresCatalog(_url(client)).close()
        for name, statement in queries("postgres").items():
            numbered = _numbered(statement)
            try:
                client.execute(f"PREPARE one AS {numbered}")
            except psycopg.Error as error:
                pytest.fail(f"{name}: {error}")
            client.execute("DEALLOCATE one")


def _numbered(statement: str) -> str:
    """A statement as psycopg sends it."""
    names: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return names.setdefault(found[1] or f"?{len(names)}", f"${len(names) + 1}")

    return re.sub(r"%\((\w+)\)s|%s", number, statement).replace("%%", "%")


def _url(client: psycopg.Connection[tuple[object, ...]]) -> str:
    return f"{server().url}&options=-csearch_path%3D{client.execute('SELECT current_schema()').fetchone()[0]}"  # type: ignore[index]


@pytest.mark.parametrize(
    ("told", "kind", "wanted"),
    [
        ("SELECT :a, ':b', \"c:d\", x::text -- :e", "sqlite", "SELECT :a, ':b', \"c:d\", x::text -- :e"),
        ("SELECT :a, ':b', \"c:d\", x::text -- :e", "postgres", "SELECT %(a)s, ':b', \"c:d\", x::text "),
        ("SELECT 'it''s :a 5%', ?, 5 % 2", "postgres", "SELECT 'it''s :a 5%%', %s, 5 %% 2"),
        ("FROM each_text(:k) AS one", "sqlite", "FROM json_each(:k) AS one"),
        ("FROM each_text(:k) AS one", "postgres", "FROM unnest(CAST(%(k)s AS text[])) AS one (value)"),
        ("FROM each_number(:k) AS n", "postgres", "FROM unnest(CAST(%(k)s AS bigint[])) AS n (value)"),
    ],
)
def test_parameters_are_translated_and_texts_are_not(told: str, kind: Kind, wanted: str) -> None:
    assert translated(told, kind) == wanted


def test_both_databases_have_the_same_tables_columns_and_indexes() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript((files("syncagent.catalog.sql") / "schema.sql").read_text())
        ours = {
            table: {column: kind for _, column, kind, *_ in db.execute(f"PRAGMA table_info({table})")}
            for (table,) in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        }
        indexes = {
            name
            for (name,) in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            )
        }
        triggers = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    url = server().schema()
    PostgresCatalog(url).close()
    with psycopg.connect(url) as client:
        theirs: dict[str, dict[str, str]] = {}
        collations = set()
        for table, column, kind, collation in client.execute(
            "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns"
            " WHERE table_schema = current_schema()"
        ):
            theirs.setdefault(table, {})[column] = kind
            collations |= {collation} if kind == "text" else set()
        made = {
            name for (name,) in client.execute(
                "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND indexname !~ '_(pkey|key[0-9]*)$'"
                " OR schemaname = current_schema() AND indexname = 'item_key'"
            )
        }  # fmt: skip
        fired = {
            name for (name,) in client.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = 'item'::regclass AND NOT tgisinternal"
            )
        }  # fmt: skip
    assert {table: set(columns) for table, columns in theirs.items()} == {t: set(c) for t, c in ours.items()}
    for table, columns in ours.items():
        for column, kind in columns.items():
            assert theirs[table][column] in _TYPES[kind], (table, column)
    assert made == indexes - {"item_type"}, "of which item_order has the columns"
    assert fired == triggers | {"item_created"}, "which SQLite has only while there is a webhook"
    assert collations == {"C"}, "every text compares by its bytes, whatever the database's locale"


def test_migrations_come_in_pairs_from_now_on() -> None:
    """PostgreSQL began with what SQLite had after nine."""
    assert len(migrations("sqlite")) == len(migrations("postgres")) + 8
    folder = Path(str(files("syncagent.catalog.sql")))
    ours, theirs = (
        [name[5:] for name in sorted(file.name for file in (folder / kind).glob("*.sql"))]
        for kind in ("migrations", "migrations_postgres")
    )
    assert ours[9:] == theirs[1:]
