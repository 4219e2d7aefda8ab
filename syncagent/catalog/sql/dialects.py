"""What SQLite and PostgreSQL each say in their own way. Everything else of a query is the same in both.

A JSON value is told by its root, a column, and a *path* that `path` made. `each` makes a table of a value's elements; its
column `type` has SQLite's names: ``object array text integer real true false null``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Bind = Callable[[Any], str]


class Dialect(Protocol):
    """One database's SQL."""

    def parameter(self, name: str) -> str:
        """A bound parameter."""
        ...

    def path(self, names: tuple[str, ...], bind: Bind) -> str:
        """A path into an object."""
        ...

    def kind(self, root: str, path: str) -> str:
        """``object``, ``array``, ``null`` or another type's name; NULL where there is nothing."""
        ...

    def each(self, root: str, path: str, alias: str) -> str:
        """A table of the elements of an array, or of the one value."""
        ...

    def value(self, alias: str) -> str:
        """The JSON value of a row of `each`, as a root."""
        ...

    def number(self, alias: str) -> str:
        """Its number, where its type is one."""
        ...

    def text(self, alias: str) -> str:
        """Its text, where its type is one."""
        ...

    def same(self, root: str, path: str, value: Any, bind: Bind) -> str:
        """Whether a JSON value is this one: a number, text, truth value, list or object."""
        ...

    def listed(self, parameter: str, *, numbers: bool) -> str:
        """A subquery of the values of a bound JSON array."""
        ...

    def glob(self, expression: str, parameter: str) -> str:
        """Whether a text fits a pattern that `pattern` made."""
        ...

    def pattern(self, given: str) -> str:
        """A pattern in which only ``*`` is special."""
        ...

    def order(self, root: str, path: str) -> list[str]:
        """What sorts JSON values: nothing, then numbers, then texts."""
        ...

    def sorted(self, term: str, *, down: bool) -> str:
        """A term of ORDER BY. Nothing is less than anything."""
        ...

    def limit(self, size: int, skip: int) -> str:
        """The end of a query that gives one page."""
        ...

    def by_number(self, statement: str) -> str:
        """The same query of items, by the numbers that it looks up rather than by dataset."""
        ...

    def covered(self, statement: str) -> str:
        """The same query of items, all of whose columns are in the index `item_type`."""
        ...


class Sqlite:
    """SQLite: JSON is text, and a value has the type that it has."""

    def parameter(self, name: str) -> str:
        """See `Dialect`."""
        return f":{name}"

    def path(self, names: tuple[str, ...], bind: Bind) -> str:
        """See `Dialect`."""
        return bind("$" + "".join(f'."{name}"' for name in names))

    def kind(self, root: str, path: str) -> str:
        """See `Dialect`."""
        return f"json_type({root}, {path})"

    def each(self, root: str, path: str, alias: str) -> str:
        """See `Dialect`."""
        return f"json_each({root}, {path}) {alias}"

    def value(self, alias: str) -> str:
        """See `Dialect`."""
        return f"{alias}.value"

    number = text = value

    def same(self, root: str, path: str, value: Any, bind: Bind) -> str:
        """See `Dialect`."""
        plain = _compact(value) if isinstance(value, list | Mapping) else value
        return f"json_extract({root}, {path}) = {bind(plain)}"

    def listed(self, parameter: str, *, numbers: bool) -> str:
        """See `Dialect`."""
        return f"(SELECT value FROM json_each({parameter}))"

    def glob(self, expression: str, parameter: str) -> str:
        """See `Dialect`."""
        return f"{expression} GLOB {parameter}"

    def pattern(self, given: str) -> str:
        """See `Dialect`."""
        return re.sub(r"([?\[])", r"[\1]", re.sub(r"\*+", "*", given))

    def order(self, root: str, path: str) -> list[str]:
        """See `Dialect`."""
        return [f"json_extract({root}, {path})"]

    def sorted(self, term: str, *, down: bool) -> str:
        """See `Dialect`."""
        return f"{term} DESC" if down else term

    def by_number(self, statement: str) -> str:
        """See `Dialect`."""
        return statement.replace("WHERE i.dataset", "WHERE +i.dataset", 1)

    def covered(self, statement: str) -> str:
        """See `Dialect`. SQLite does not see that this index alone answers the question."""
        return statement.replace("FROM item i", "FROM item i INDEXED BY item_type", 1)

    def limit(self, size: int, skip: int) -> str:
        """See `Dialect`."""
        return _limit(size, skip)


class Postgres:
    """PostgreSQL: JSON is ``jsonb``, texts are compared by their bytes (``COLLATE "C"``)."""

    def parameter(self, name: str) -> str:
        """See `Dialect`."""
        return f"%({name})s"

    def path(self, names: tuple[str, ...], bind: Bind) -> str:
        """See `Dialect`. Step by step, so that a digit names a member and no element."""
        return "".join(f" -> {bind(name)}::text" for name in names)

    def kind(self, root: str, path: str) -> str:
        """See `Dialect`."""
        return f"jsonb_typeof({root}{path})"

    def each(self, root: str, path: str, alias: str) -> str:
        """See `Dialect`."""
        whole = f"({root}{path})"
        return (
            "(SELECT v AS value, v #>> '{}' AS text, "
            "CASE jsonb_typeof(v) WHEN 'number' THEN 'real' WHEN 'string' THEN 'text' WHEN 'boolean' THEN v::text"
            " ELSE jsonb_typeof(v) END AS type, "
            "CASE jsonb_typeof(v) WHEN 'number' THEN (v #>> '{}')::numeric END AS number"
            f" FROM jsonb_array_elements(CASE jsonb_typeof({whole}) WHEN 'array' THEN {whole}"
            f" ELSE jsonb_build_array({whole}) END) v) {alias}"
        )

    def value(self, alias: str) -> str:
        """See `Dialect`."""
        return f"{alias}.value"

    def number(self, alias: str) -> str:
        """See `Dialect`."""
        return f"{alias}.number"

    def text(self, alias: str) -> str:
        """See `Dialect`."""
        return f'{alias}.text COLLATE "C"'

    def same(self, root: str, path: str, value: Any, bind: Bind) -> str:
        """See `Dialect`. Two nulls are not the same, as in SQL."""
        return "FALSE" if value is None else f"({root}{path}) = {bind(_compact(value))}::jsonb"

    def listed(self, parameter: str, *, numbers: bool) -> str:
        """See `Dialect`."""
        cast = "::numeric" if numbers else ""
        return f"(SELECT t.value{cast} FROM jsonb_array_elements_text({parameter}::jsonb) AS t (value))"

    def glob(self, expression: str, parameter: str) -> str:
        """See `Dialect`."""
        return f"{expression} LIKE {parameter}"

    def pattern(self, given: str) -> str:
        """See `Dialect`."""
        return re.sub(r"\*+", "%", re.sub(r"([%_\\])", r"\\\1", given))

    def order(self, root: str, path: str) -> list[str]:
        """See `Dialect`."""
        whole = f"({root}{path})"
        kind = f"jsonb_typeof({whole})"
        return [
            f"CASE WHEN coalesce({kind}, 'null') = 'null' THEN 0 WHEN {kind} IN ('number', 'boolean') THEN 1 ELSE 2 END",
            f"CASE {kind} WHEN 'number' THEN ({whole} #>> '{{}}')::numeric WHEN 'boolean' THEN {whole}::boolean::int END",
            f"(CASE WHEN {kind} NOT IN ('number', 'boolean', 'null') THEN {whole} #>> '{{}}' END) COLLATE \"C\"",
        ]

    def sorted(self, term: str, *, down: bool) -> str:
        """See `Dialect`. PostgreSQL itself puts nothing after everything."""
        return f"{term} DESC NULLS LAST" if down else f"{term} NULLS FIRST"

    def by_number(self, statement: str) -> str:
        """See `Dialect`. PostgreSQL counts what is behind each way, and needs no hint."""
        return statement

    covered = by_number

    def limit(self, size: int, skip: int) -> str:
        """See `Dialect`."""
        return _limit(size, skip)


SQLITE, POSTGRES = Sqlite(), Postgres()


def _limit(size: int, skip: int) -> str:
    return f"LIMIT {int(size)} OFFSET {int(skip)}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
