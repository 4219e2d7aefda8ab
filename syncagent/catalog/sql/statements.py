"""Reads the statements and the migrations: SQL lives in .sql files, by name.

Named statements are written once, with ``:name`` for a parameter. `translated` puts them into a database's own words, when
they are loaded: it knows texts, quoted names, comments and casts, and touches nothing in them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

_HERE = files("syncagent.catalog.sql")
Kind = Literal["sqlite", "postgres"]

_TOKEN = re.compile(
    r"""
    (?P<text>'(?:[^']|'')*') | (?P<quoted>"[^"]*") | (?P<comment>--[^\n]*) | (?P<cast>::)
    | (?P<each>\beach_(?P<type>text|number)\(:(?P<of>\w+)\)\ AS\ (?P<alias>\w+))
    | :(?P<name>[a-z_]\w*) | (?P<place>\?) | (?P<percent>%)
    """,
    re.VERBOSE,
)
_ARRAYS = {"text": "text[]", "number": "bigint[]"}


@cache
def queries(kind: Kind) -> dict[str, str]:
    """Statements of a database, by name."""
    return {
        name: translated(body, kind)
        for name, body in {**named("queries"), **named(f"queries.{kind}")}.items()
    }


@cache
def named(file: str) -> dict[str, str]:
    """The statements of a file as they are written, by name."""
    text = (_HERE / f"{file}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def parameters(statement: str) -> set[str]:
    """Names of the parameters of a statement as it is written."""
    found = _TOKEN.finditer(statement)
    return {name for token in found if (name := token["name"] or token["of"])}


def translated(statement: str, kind: Kind) -> str:
    """A statement in the words of a database."""

    def word(token: re.Match[str]) -> str:
        if token["each"]:
            of, alias = token["of"], token["alias"]
            if kind == "sqlite":
                return f"json_each(:{of}) AS {alias}"
            return f"unnest(CAST(%({of})s AS {_ARRAYS[token['type']]})) AS {alias} (value)"
        if kind == "sqlite":
            return token[0]
        if token["name"]:
            return f"%({token['name']})s"
        if token["place"]:
            return "%s"
        if token["comment"]:
            return ""
        return token[0].replace("%", "%%")

    return _TOKEN.sub(word, statement)


@cache
def migrations(kind: Kind = "sqlite") -> list[str]:
    """Scripts in order; the schema's version is how many of them have run."""
    folder = _HERE / ("migrations" if kind == "sqlite" else "migrations_postgres")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def split(script: str) -> list[str]:
    """The statements of a script for PostgreSQL, whose functions' bodies are between ``$$``."""
    parts = re.split(r"(\$\$.*?\$\$|--[^\n]*|;)", script, flags=re.DOTALL)
    statements, current = [], ""
    for part in parts:
        if part == ";":
            statements.append(current.strip())
            current = ""
        elif not part.startswith("--"):
            current += part
    return [statement for statement in statements if statement]
