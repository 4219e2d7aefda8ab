"""The platform's query language (DQL): one parser, from JSON to a small typed tree.

What compiles the tree to SQL is `syncagent.catalog.sql.dql`. Source: docs/dataloop.md.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syncagent.errors import InvalidInput

MAX_PAGE = 1000
_MAX_DEPTH = 20
_MAX_CONDITIONS = 1000
_MAX_LIST = 10_000
_MAX_TEXT = 10_000
_RESOURCES = ("items", "annotations", "datasets")
_DIRECTIONS = {"ascending": False, "descending": True}


class Op(enum.Enum):
    """Operators, with their names in JSON."""

    EQ = "$eq"
    NE = "$ne"
    GT = "$gt"
    LT = "$lt"
    GTE = "$gte"
    LTE = "$lte"
    IN = "$in"
    NIN = "$nin"
    EXISTS = "$exists"
    MATCH = "$match"


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison."""

    field: str
    """Dots lead into objects: ``metadata.user.k``."""
    op: Op
    value: Any
    """A text, number, truth value or None; a list of those for IN and NIN, and for EQ and NE of a whole list; an
    object of those for MATCH."""


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; no part: everything."""

    parts: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Either:
    """Some part holds. Never without a part."""

    parts: tuple[Expression, ...]


Expression = Condition | All | Either


@dataclass(frozen=True, slots=True)
class Join:
    """Conditions on one and the same row of the other resource."""

    resource: str
    where: Expression


@dataclass(frozen=True, slots=True)
class Query:
    """What a client asks for."""

    resource: str = "items"
    where: Expression = field(default_factory=All)
    join: Join | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    """Fields, and whether they descend."""
    page: int = 0
    page_size: int = MAX_PAGE
    update: Mapping[str, Any] | None = None
    delete: bool = False

    @classmethod
    def everything(cls) -> Query:
        """All items."""
        return cls()


def parse_query(body: Mapping[str, Any]) -> Query:
    """Read the envelope of a query. What is not known in it is ignored, as the platform does.

    :raises InvalidInput: an operator, a value or the shape is wrong; which one.
    """
    resource = body.get("resource", "items")
    if resource not in _RESOURCES:
        raise InvalidInput(
            f"unknown resource {_shown(resource)}", resource="resource", hint=f"known are {_RESOURCES}"
        )
    update = body.get("update")
    if update is not None and not isinstance(update, Mapping):
        raise InvalidInput("'update' must be an object", resource="update")
    parser = _Parser()
    return Query(
        resource=str(resource),
        where=parser.expression(body.get("filter"), 0),
        join=parser.join(body.get("join"), str(resource)),
        sort=_sort(body.get("sort")),
        page=_count(body, "page", 0),
        page_size=min(_count(body, "pageSize", MAX_PAGE), MAX_PAGE),
        update=update,
        delete=body.get("delete") is True,
    )


def _sort(told: Any) -> tuple[tuple[str, bool], ...]:
    if told is None:
        return ()
    if not isinstance(told, Mapping) or len(told) > 20:
        raise InvalidInput("'sort' must be an object of at most 20 fields", resource="sort")
    for name, direction in told.items():
        if direction not in _DIRECTIONS:
            raise InvalidInput(f"sort {_shown(name)} is neither ascending nor descending", resource="sort")
    return tuple((_field(name), _DIRECTIONS[direction]) for name, direction in told.items())


def _count(body: Mapping[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise InvalidInput(f"{name!r} must be a number from 0 on", resource=name)
    return value


class _Parser:
    """Counts conditions across one query."""

    def __init__(self) -> None:
        self._conditions = 0

    def join(self, told: Any, resource: str) -> Join | None:
        if told is None:
            return None
        other = {"items": "annotations", "annotations": "items"}.get(resource)
        on = told.get("on") if isinstance(told, Mapping) else None
        if not isinstance(told, Mapping) or not isinstance(on, Mapping) or on.get("resource") != other:
            raise InvalidInput(f"{resource} can be joined with {other or 'nothing'} only", resource="join")
        where = self.expression(told.get("filter"), 0)
        return None if where == All() else Join(str(other), where)

    def expression(self, told: Any, depth: int) -> Expression:
        """An object: ``$and``, ``$or`` and fields, all of which hold."""
        if told is None:
            return All()
        if not isinstance(told, Mapping):
            raise InvalidInput("a filter must be an object", resource="filter")
        if depth > _MAX_DEPTH:
            raise InvalidInput(f"the filter is nested deeper than {_MAX_DEPTH}", resource="filter")
        parts: list[Expression] = []
        for name, value in told.items():
            if name in ("$and", "$or"):
                if not isinstance(value, list):
                    raise InvalidInput(f"{name} must be a list", resource=name)
                below = tuple(self.expression(one, depth + 1) for one in value)
                if name == "$and":
                    parts += [part for part in below if part != All()]
                elif below:
                    parts.append(Either(below))
            elif name.startswith("$"):
                raise InvalidInput(f"unknown operator {_shown(name)}", resource="filter", hint="$and or $or")
            else:
                parts += self._conditions_of(_field(name), value)
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _conditions_of(self, name: str, told: Any) -> list[Expression]:
        if not isinstance(told, Mapping):
            return [self._condition(name, Op.EQ, told)]
        if not told:
            raise InvalidInput(f"{_shown(name)} is compared with an empty object", resource=name)
        found: list[Expression] = []
        for op, value in told.items():
            try:
                known = Op(op)
            except ValueError:
                ops = ", ".join(one.value for one in Op)
                raise InvalidInput(
                    f"unknown operator {_shown(op)}", resource=name, hint=f"known are {ops}"
                ) from None
            found.append(self._condition(name, known, value))
        return found

    def _condition(self, name: str, op: Op, value: Any) -> Condition:
        self._conditions += 1
        if self._conditions > _MAX_CONDITIONS:
            raise InvalidInput(f"the filter has more than {_MAX_CONDITIONS} conditions", resource="filter")
        match op:
            case Op.IN | Op.NIN:
                good = isinstance(value, list)
            case Op.EXISTS:
                good = isinstance(value, bool)
            case Op.MATCH:
                good = isinstance(value, Mapping) and 0 < len(value) <= 100
            case Op.EQ | Op.NE:
                good = not isinstance(value, Mapping)
            case _:
                good = isinstance(value, str | int | float) and not isinstance(value, bool)
        if not good:
            raise InvalidInput(f"{op.value} on {_shown(name)} cannot take {_shown(value)}", resource=name)
        return Condition(name, op, _checked(name, value))


def _checked(name: str, value: Any) -> Any:
    """The value, if it is made of what a database can hold."""
    if isinstance(value, list):
        if len(value) > _MAX_LIST:
            raise InvalidInput(f"the list for {_shown(name)} is longer than {_MAX_LIST}", resource=name)
        return [_checked(name, one) for one in value]
    if isinstance(value, Mapping):
        return {_field(inner): _checked(name, one) for inner, one in value.items()}
    if isinstance(value, str):
        if len(value) > _MAX_TEXT or "\0" in value:
            raise InvalidInput(f"the text for {_shown(name)} is too long or holds a NUL", resource=name)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"the text for {_shown(name)} is no Unicode", resource=name) from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"the number for {_shown(name)} is not finite", resource=name)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidInput(f"the number for {_shown(name)} is too large", resource=name)
    elif value is not None:
        raise InvalidInput(f"{_shown(name)} cannot be compared with {_shown(value)}", resource=name)
    return value


def _field(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name) > 500:
        raise InvalidInput(f"{_shown(name)} is no field", resource="filter")
    if any(character in '"\\' or not character.isprintable() for character in name):
        raise InvalidInput(
            f"the field {_shown(name)} holds a quote or a control character", resource="filter"
        )
    if not all(name.split(".")):
        raise InvalidInput(f"the field {_shown(name)} has an empty part", resource="filter")
    return name


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
