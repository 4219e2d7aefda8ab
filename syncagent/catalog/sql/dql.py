"""Compiles the query language to SQL, of SQLite or of PostgreSQL.

Every value and every JSON path is a bound parameter; the only names in the SQL are ours. Conditions on
paths become ranges of `item.key`, on ids ranges of the row number, so that the indexes are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from syncagent.catalog.filters import All, Condition, Either, Expression, Op, Query
from syncagent.catalog.sql.dialects import SQLITE, Dialect
from syncagent.errors import InvalidInput

_COMPARE = {Op.GT: ">", Op.LT: "<", Op.GTE: ">=", Op.LTE: "<="}
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*\Z")
TRUE, FALSE = "(1 = 1)", "(1 = 0)"


@dataclass(slots=True)
class Compiled:
    """SQL of a query, for rows of ``item i`` (``annotation a``)."""

    where: str
    order_by: str
    parameters: dict[str, Any]
    needs_metadata: bool
    """Whether ``item_metadata m`` must be joined."""


def compile_query(query: Query, *, stamp: str, dialect: Dialect = SQLITE) -> Compiled:
    """The SQL of a query of items or annotations.

    :param stamp: the eight digits that begin the catalog's ids.
    :raises InvalidInput: a field is not known, or a value does not fit it.
    """
    compiler = _Compiler(stamp, dialect)
    fields = _FIELDS[query.resource]
    where = compiler.expression(query.where, fields)
    if query.join is not None:
        inner = compiler.expression(query.join.where, _FIELDS[query.join.resource])
        where = f"{where} AND {_JOINS[query.join.resource].format(where=inner, dataset=dialect.parameter('dataset'))}"
    order = compiler.order(query, fields)
    used = re.search(r"\bm\.", f"{where} {order}") is not None
    return Compiled(where, order, compiler.parameters, used and query.resource == "items")


_JOINS = {
    "annotations": "i.n IN (SELECT a.item FROM annotation a WHERE a.dataset = {dataset} AND ({where}))",
    "items": "EXISTS (SELECT 1 FROM item i LEFT JOIN item_metadata m ON m.item = i.n WHERE i.n = a.item AND ({where}))",
}


class _Compiler:
    def __init__(self, stamp: str, dialect: Dialect) -> None:
        self.stamp = stamp
        self.dialect = dialect
        self.parameters: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return self.dialect.parameter(name)

    def expression(self, tree: Expression, fields: _Fields) -> str:
        if isinstance(tree, Condition):
            return f"({self.condition(tree, fields)})"
        parts = [self.expression(part, fields) for part in tree.parts]
        if isinstance(tree, Either):
            return f"({' OR '.join(parts)})"
        return f"({' AND '.join(parts)})" if parts else TRUE

    def condition(self, told: Condition, fields: _Fields) -> str:
        found = fields.find(told.field)
        if told.op is Op.NE:
            return f"({found.test(self, Op.EQ, told.value)}) IS NOT TRUE"
        if told.op is Op.NIN:
            return f"({found.test(self, Op.IN, told.value)}) IS NOT TRUE"
        return found.test(self, told.op, told.value)

    def order(self, query: Query, fields: _Fields) -> str:
        terms: list[str] = []
        down = False
        one_folder = any(
            isinstance(part, Condition)
            and part.field == "dir"
            and part.op is Op.EQ
            and "*" not in str(part.value)
            for part in (query.where.parts if isinstance(query.where, All) else (query.where,))
        )
        for name, down in query.sort:
            # Inside one folder, names sort like keys, and keys are sorted already.
            found = fields.find("filename" if name == "name" and one_folder else name)
            terms += [self.dialect.sorted(term, down=down) for term in found.sort(self)]
            if name in ("id", "filename"):
                return ", ".join(terms)
        (number,) = fields.find("id").sort(self)
        return ", ".join([*terms, self.dialect.sorted(number, down=down)])


# -- kinds of fields -----------------------------------------------------------------------------


class _Field:
    """What a field does with an operator. NE and NIN are not asked for: they are EQ and IN, turned round."""

    def test(self, to: _Compiler, op: Op, value: Any) -> str:
        raise NotImplementedError

    def sort(self, to: _Compiler) -> list[str]:
        raise NotImplementedError


@dataclass(frozen=True)
class _Column(_Field):
    """A column that holds one value."""

    expression: str
    numbers = False

    def take(self, value: Any) -> Any:
        """The value as the column holds it; None if it holds no such thing."""
        return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None

    def test(self, to: _Compiler, op: Op, value: Any) -> str:
        match op:
            case Op.EXISTS:
                return f"{self.expression} IS {'NOT ' if value else ''}NULL"
            case Op.EQ if value is None:
                return f"{self.expression} IS NULL"
            case Op.EQ:
                taken = None if isinstance(value, list) else self.take(value)
                return FALSE if taken is None else self.equals(to, taken)
            case Op.IN:
                return self.among(to, value)
            case Op.MATCH:
                return FALSE
        taken = self.take(value)
        if taken is None:
            raise InvalidInput(f"{op.value} cannot take {value!r:.60} here", resource=self.expression)
        return f"{self.expression} {_COMPARE[op]} {to.bind(taken)}"

    def equals(self, to: _Compiler, taken: Any) -> str:
        if isinstance(taken, str) and "*" in taken:
            return _globbed(to, self.expression, taken)
        return f"{self.expression} = {to.bind(taken)}"

    def among(self, to: _Compiler, values: list[Any]) -> str:
        plain, others = [], []
        for value in values:
            taken = None if isinstance(value, list) or value is None else self.take(value)
            if taken is None or (isinstance(taken, str) and "*" in taken):
                others.append(self.test(to, Op.EQ, value))
            else:
                plain.append(taken)
        if plain:
            others.append(
                f"{self.expression} IN {to.dialect.listed(to.bind(json.dumps(plain)), numbers=self.numbers)}"
            )
        return " OR ".join(others) if others else FALSE

    def sort(self, to: _Compiler) -> list[str]:
        return [self.expression]


class _Number(_Column):
    """Sizes and counts; a number may be written as a text."""

    numbers = True

    def take(self, value: Any) -> Any:
        if isinstance(value, bool):
            return None
        return _number(value) if isinstance(value, str) else value


class _Truth(_Column):
    """Zero or one. `annotated` is also told as a status: any word but ``false`` means yes."""

    numbers = True

    def take(self, value: Any) -> Any:
        return (
            int(value.lower() not in {"", "false", "0", "no"}) if isinstance(value, str) else int(bool(value))
        )


class _Time(_Column):
    """Unix seconds; told as ISO 8601."""

    numbers = True

    def take(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str):
            return None if isinstance(value, bool) or value is None else value / 1000
        try:
            told = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidInput(f"{value!r:.60} is no ISO 8601 time", resource=self.expression) from None
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


class _Id(_Column):
    """A row's number, told as 24 digits."""

    def test(self, to: _Compiler, op: Op, value: Any) -> str:
        if op in _COMPARE:
            given = str(value).lower()
            if given[:8] != to.stamp:
                return TRUE if (given < to.stamp) == (op in (Op.GT, Op.GTE)) else FALSE
            number = _hexadecimal(given[8:].ljust(16, "0"))
            return f"{self.expression} {_COMPARE[op]} {to.bind(min(number, (1 << 63) - 1))}"
        return super().test(to, op, value)

    def take(self, value: Any) -> Any:
        return value if isinstance(value, str) else ""

    def equals(self, to: _Compiler, taken: Any) -> str:
        return f"{self.expression} = {to.bind(self._row(to, taken))}"

    def among(self, to: _Compiler, values: list[Any]) -> str:
        rows = [self._row(to, value) for value in values]
        return f"{self.expression} IN {to.dialect.listed(to.bind(json.dumps(rows)), numbers=True)}"

    def _row(self, to: _Compiler, value: Any) -> int:
        if not isinstance(value, str) or len(value) != 24 or not value.startswith(to.stamp):
            return -1
        number = _hexadecimal(value[8:])
        return number if number < 1 << 63 else -1


class _Filename(_Column):
    """``/`` and the key. A pattern with a fixed beginning is a range of keys."""

    def take(self, value: Any) -> Any:
        return str(value).removeprefix("/") if isinstance(value, str | int | float) else None

    def equals(self, to: _Compiler, taken: Any) -> str:
        stem = taken.rstrip("*")
        if "*" not in taken:
            return f"i.key = {to.bind(taken)}"
        if "*" in stem:
            return _globbed(to, "i.key", taken)
        within = _starts(to, "i.key", stem)
        one_level = taken == f"{stem}*" and (stem.endswith("/") or not stem)
        return f"{within} AND {_no_slash_after(to, stem)}" if one_level else within

    def sort(self, to: _Compiler) -> list[str]:
        return ["i.key"]


class _Folder(_Column):
    """The directory of an item, without a slash at its end; ``/`` for the root."""

    def take(self, value: Any) -> Any:
        return str(value) if isinstance(value, str | int | float) else None

    def equals(self, to: _Compiler, taken: Any) -> str:
        folder = taken.strip("/") if "*" not in taken else taken.removeprefix("/")
        if "*" not in taken:
            stem = f"{folder}/" if folder else ""
            return f"{_starts(to, 'i.key', stem)} AND {_no_slash_after(to, stem)}"
        stem = folder.rstrip("*")
        if "*" not in stem and (stem.endswith("/") or not stem):
            # Any depth below, but not the folder itself.
            return f"{_starts(to, 'i.key', stem)} AND NOT {_no_slash_after(to, stem)}" if stem else TRUE
        return _globbed(to, self.expression, f"/{folder}")


@dataclass(frozen=True)
class _Json(_Field):
    """A value inside a JSON object. One of an array's elements is enough."""

    root: str
    names: tuple[str, ...]

    def test(self, to: _Compiler, op: Op, value: Any) -> str:
        path = to.dialect.path(self.names, to.bind)
        kind = to.dialect.kind(self.root, path)
        match op:
            case Op.EXISTS:
                return f"{kind} <> 'null'" if value else f"coalesce({kind}, 'null') = 'null'"
            case Op.EQ if value is None:
                return f"coalesce({kind}, 'null') = 'null'"
            case Op.EQ if isinstance(value, list):
                same = f"{kind} = 'array' AND {to.dialect.same(self.root, path, value, to.bind)}"
                return same if value else f"coalesce({kind}, 'null') = 'null' OR ({same})"
            case Op.EQ:
                return self._some(to, path, kind, _same(to, value))
            case Op.IN:
                tests = [_same(to, one) for one in value if one is not None and not isinstance(one, list)]
                found = self._some(to, path, kind, " OR ".join(tests)) if tests else FALSE
                return f"({found}) OR coalesce({kind}, 'null') = 'null'" if None in value else found
            case Op.MATCH:
                whole = _matched(to, self.root, self.names, value)
                each = _matched(to, to.dialect.value("e"), (), value)
                table = to.dialect.each(self.root, path, "e")
                return f"({whole}) OR EXISTS (SELECT 1 FROM {table} WHERE e.type = 'object' AND {each})"
        number = _number(value) if isinstance(value, str) else value
        sign, tests = _COMPARE[op], []
        if number is not None:
            tests.append(f"({_IS_NUMBER} AND {to.dialect.number('e')} {sign} {to.bind(number)})")
        if isinstance(value, str):
            tests.append(f"(e.type = 'text' AND {to.dialect.text('e')} {sign} {to.bind(value)})")
        return self._some(to, path, kind, " OR ".join(tests))

    def _some(self, to: _Compiler, path: str, kind: str, test: str) -> str:
        # An object's members are not its elements.
        table = to.dialect.each(self.root, path, "e")
        return f"{kind} <> 'object' AND EXISTS (SELECT 1 FROM {table} WHERE {test})"

    def sort(self, to: _Compiler) -> list[str]:
        return to.dialect.order(self.root, to.dialect.path(self.names, to.bind))


_IS_NUMBER = "e.type IN ('integer', 'real')"


def _matched(to: _Compiler, root: str, names: tuple[str, ...], wanted: Mapping[str, Any]) -> str:
    """Whether the members of an object are these."""
    tests = [
        to.dialect.same(root, to.dialect.path((*names, *name.split(".")), to.bind), value, to.bind)
        for name, value in wanted.items()
    ]
    return " AND ".join(tests) or FALSE


def _same(to: _Compiler, value: Any) -> str:
    if isinstance(value, bool):
        return f"(e.type = '{'true' if value else 'false'}')"
    if isinstance(value, int | float):
        return f"({_IS_NUMBER} AND {to.dialect.number('e')} = {to.bind(value)})"
    told = to.dialect.text("e")
    text = (
        f"(e.type = 'text' AND {_globbed(to, told, value) if '*' in value else f'{told} = {to.bind(value)}'})"
    )
    number = _number(value)
    if number is None:
        return text
    return f"({text} OR ({_IS_NUMBER} AND {to.dialect.number('e')} = {to.bind(number)}))"


def _globbed(to: _Compiler, expression: str, pattern: str) -> str:
    stem = pattern.rstrip("*")
    if "*" not in stem:
        return _starts(to, expression, stem)
    return to.dialect.glob(expression, to.bind(to.dialect.pattern(pattern)))


def _starts(to: _Compiler, expression: str, stem: str) -> str:
    """A range, which an index serves, of the texts that begin with `stem`."""
    if not stem:
        return f"{expression} IS NOT NULL"
    low = f"{expression} >= {to.bind(stem)}"
    trimmed = stem.rstrip(chr(0x10FFFF))
    if not trimmed:
        return low
    after = 0xE000 if ord(trimmed[-1]) == 0xD7FF else ord(trimmed[-1]) + 1
    return f"{low} AND {expression} < {to.bind(trimmed[:-1] + chr(after))}"


def _no_slash_after(to: _Compiler, stem: str) -> str:
    return f"NOT {to.dialect.glob('i.key', to.bind(to.dialect.pattern(f'{stem}*/*')))}"


def _number(text: str) -> int | float | None:
    if not _NUMBER.match(text):
        return None
    value = float(text)
    return (
        int(text)
        if re.fullmatch(r"\s*[-+]?\d{1,18}\s*", text)
        else value
        if abs(value) < float("inf")
        else None
    )


def _hexadecimal(digits: str) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        return (1 << 64) - 1


# -- resources -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fields:
    """The fields of a resource: columns, and JSON below some names."""

    columns: Mapping[str, _Field]
    json: Callable[[tuple[str, ...]], _Field | None] = field(default=lambda _: None)

    def find(self, name: str) -> _Field:
        if name in self.columns:
            return self.columns[name]
        found = self.json(tuple(name.split(".")))
        if found is None:
            known = ", ".join([*self.columns, "metadata.user.*", "metadata.system.*"])
            raise InvalidInput(f"unknown field {name!r:.60}", resource="filter", hint=f"known are {known}")
        return found


def _item_json(names: tuple[str, ...]) -> _Field | None:
    if names[0] == "metadata" and len(names) > 2 and names[1] in ("user", "system"):
        return _Json(f"m.{names[1]}", names[2:])
    return None


_DIRNAME = "rtrim(i.key, replace(i.key, '/', ''))"
_NAME = f"substr(i.key, length({_DIRNAME}) + 1)"
_FIELDS: Mapping[str, _Fields] = {
    "items": _Fields(
        {
            "id": _Id("i.n"),
            "filename": _Filename("i.key"),
            "dir": _Folder(f"'/' || rtrim({_DIRNAME}, '/')"),
            "name": _Column(_NAME),
            "type": _Column("i.type"),
            "hidden": _Truth("i.hidden"),
            "createdAt": _Time("i.created_at"),
            "updatedAt": _Time("coalesce(i.updated_at, i.created_at)"),
            "creator": _Column("i.creator"),
            "updatedBy": _Column("i.updated_by"),
            "description": _Column("m.description"),
            "annotated": _Truth("CASE WHEN i.annotations > 0 THEN 1 ELSE 0 END"),
            "annotationsCount": _Number("i.annotations"),
            "datasetId": _Column("(SELECT d.id FROM dataset d WHERE d.n = i.dataset)"),
            "metadata.system.size": _Number("i.size"),
            "metadata.system.mimetype": _Column("i.content_type"),
            "metadata.system.originalname": _Column(_NAME),
            "metadata.system.etag": _Column("i.etag"),
            "metadata.system.version": _Column("i.version"),
            "metadata.system.modified": _Column("i.modified"),
            "metadata.system.storageClass": _Column("i.storage_class"),
        },
        _item_json,
    ),
    "annotations": _Fields(
        {
            "id": _Id("a.n"),
            "annotationId": _Id("a.n"),
            "itemId": _Id("a.item"),
            "datasetId": _Column("(SELECT d.id FROM dataset d WHERE d.n = a.dataset)"),
            "type": _Column("a.type"),
            "label": _Column("a.label"),
            "creator": _Column("a.creator"),
            "createdAt": _Time("a.created_at"),
            "updatedAt": _Time("a.updated_at"),
            "updatedBy": _Column("a.updated_by"),
        },
        lambda names: _Json("a.data", names),
    ),
}
