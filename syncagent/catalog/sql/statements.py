"""Reads `queries.sql` and the migrations: SQL lives in .sql files, by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_HERE = files("syncagent.catalog.sql")


@cache
def queries() -> dict[str, str]:
    """Statements by name."""
    text = (_HERE / "queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}


@cache
def migrations() -> list[str]:
    """Scripts in order; the schema's version is how many of them have run."""
    folder = _HERE / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]
