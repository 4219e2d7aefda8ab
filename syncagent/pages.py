"""A page of a listing by column: `ObjectPage`.

A listing of millions gives columns, and what becomes of it (a comparison, an insert, a line to another process) takes columns: so
an object of it is made only where somebody asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, cast, overload

from syncagent.model import ObjectInfo

SEPARATOR = "\x01"
"""Stands between the values of a column that is one text. One that holds it is never joined."""

Column = Sequence[Any] | str | int
"""Values of some objects: each; joined by `SEPARATOR`; a tuple of the one that they share; the number of the same column."""

_WIDTH = len(ObjectInfo._fields)
_ENDS = (0, -1)
_new = tuple.__new__


class ObjectPage(Sequence[ObjectInfo]):
    """Some objects, by column. Equal to a list of the same objects.

    :param size: how many; :param columns: what each field of `ObjectInfo` is, in their order.
    """

    __slots__ = ("_columns", "_size", "_values")

    def __init__(self, size: int, columns: Sequence[Column]) -> None:
        self._size = size
        self._columns = columns
        self._values: list[Sequence[Any] | None] = [None] * _WIDTH

    @staticmethod
    def of(objects: Sequence[ObjectInfo]) -> ObjectPage:
        """The same objects by column."""
        if isinstance(objects, ObjectPage):
            return objects
        return ObjectPage(len(objects), list(zip(*objects, strict=True)) if objects else [()] * _WIDTH)

    @staticmethod
    def joined(parts: Sequence[Sequence[ObjectInfo]]) -> Sequence[ObjectInfo]:
        """The objects of some pages, one after the other."""
        parts = [part for part in parts if part]
        if len(parts) == 1:
            return parts[0]
        pages = [part for part in parts if isinstance(part, ObjectPage)]
        if len(pages) < len(parts) or not parts:
            return list(chain.from_iterable(parts))
        return ObjectPage(sum(map(len, pages)), [_concatenated(pages, at) for at in range(_WIDTH)])

    def column(self, at: int) -> Sequence[Any]:
        """The values of one field."""
        values = self._values[at]
        if values is None:
            column = self._columns[at]
            if isinstance(column, int):
                values = self.column(column)
            elif isinstance(column, str):
                values = column.split(SEPARATOR)
            else:
                values = column if len(column) == self._size else [column[0]] * self._size
            self._values[at] = values
        return values

    def value(self, at: int, number: int) -> Any:
        """The value that one object has in one field; takes no text apart for the first's and the last's, which everybody asks for."""
        column = self._columns[at]
        if number in _ENDS and self._values[at] is None and self._size:
            if isinstance(column, int):
                return self.value(column, number)
            if isinstance(column, str):
                if number:
                    return column[column.rfind(SEPARATOR) + 1 :]
                return column[: column.find(SEPARATOR)] if self._size > 1 else column
        return self.column(at)[number]

    def some(self, at: int, count: int) -> Sequence[Any]:
        """About `count` values of one field, in their order, from all over the page; takes no text apart for that."""
        column = self._columns[at]
        if self._values[at] is not None or not isinstance(column, str) or self._size <= count:
            return self.column(at)[:: max(1, self._size // count)]
        values, start = [], 0
        for part in range(1, count + 1):
            end = column.find(SEPARATOR, start)
            if end < 0:
                values.append(column[start:])
                break
            values.append(column[start:end])
            start = column.find(SEPARATOR, max(end, part * len(column) // count)) + 1
            if not start:
                break
        return values

    def shared(self, at: int) -> tuple[Any] | None:
        """The value that all objects have in one field, as a tuple of it; None where they differ."""
        column = self._columns[at]
        if isinstance(column, tuple) and len(column) == 1:
            return column
        if isinstance(column, int):
            return self.shared(column)
        return None if isinstance(column, str) else shared_by(column)

    def text(self, at: int) -> str | None:
        """The values of one field, joined by `SEPARATOR`; None where they are no texts that can be taken apart again."""
        column = self._columns[at]
        if isinstance(column, int):
            return self.text(column)
        if isinstance(column, str):
            return column
        try:
            text = SEPARATOR.join(self.column(at))
        except TypeError:
            return None
        return text if self._size and text.count(SEPARATOR) == self._size - 1 else None

    def packed(self) -> tuple[int, list[Column]]:
        """What makes the same page again, in few large values: made to be marshalled."""
        packed: list[Column] = []
        for at in range(_WIDTH):
            column = self._columns[at]
            if isinstance(column, int):
                packed.append(column)
                continue
            packed.append(self.shared(at) or self.text(at) or tuple(self.column(at)))
        return self._size, packed

    def replaced(self, at: int, values: Column) -> ObjectPage:
        """The same objects with other values in one field."""
        columns = [column if column != at else self.column(at) for column in self._columns]
        columns[at] = values
        return ObjectPage(self._size, columns)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[ObjectInfo]:
        columns = zip(*map(self.column, range(_WIDTH)), strict=True)
        return cast("Iterator[ObjectInfo]", map(_new, repeat(ObjectInfo), columns))

    @overload
    def __getitem__(self, at: int) -> ObjectInfo: ...
    @overload
    def __getitem__(self, at: slice) -> ObjectPage: ...
    def __getitem__(self, at: int | slice) -> ObjectInfo | ObjectPage:
        if isinstance(at, int):
            return ObjectInfo._make([self.value(field, at) for field in range(_WIDTH)])
        size = len(range(*at.indices(self._size)))
        columns: list[Column] = []
        for field in range(_WIDTH):
            column = self._columns[field]
            kept = isinstance(column, int) or (isinstance(column, tuple) and len(column) == 1 < self._size)
            columns.append(column if kept else self.column(field)[at])
        return ObjectPage(size, columns) if size else ObjectPage.of([])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == self._size and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return f"<ObjectPage of {self._size}>"


class Keys(Sequence[str]):
    """The keys of a page, of which the first and the last cost little."""

    __slots__ = ("_page",)

    def __init__(self, page: ObjectPage) -> None:
        self._page = page

    def __len__(self) -> int:
        return len(self._page)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return self._page.column(0)[at]
        return cast("str", self._page.value(0, at))

    def __iter__(self) -> Iterator[str]:
        return iter(self._page.column(0))

    def some(self, count: int) -> Sequence[str]:
        """About so many of them, ascending, from all over the page; takes no text apart for that."""
        return self._page.some(0, count)


def keys_of(objects: Sequence[ObjectInfo]) -> Sequence[str]:
    """The keys of some objects."""
    return Keys(objects) if isinstance(objects, ObjectPage) else [found[0] for found in objects]


def last_key(objects: Sequence[ObjectInfo]) -> str:
    """The key of the last of some objects, without making that object."""
    return objects.value(0, -1) if isinstance(objects, ObjectPage) else objects[-1][0]


def shared_by(values: Sequence[Any]) -> tuple[Any] | None:
    """The value that all of some values are, as a tuple of it; None where they differ, or where there are none."""
    if not values or values[0] != values[-1] or values.count(values[0]) < len(values):
        return None
    return (values[0],)


def _concatenated(pages: Sequence[ObjectPage], at: int) -> Column:
    columns = [page._columns[at] for page in pages]
    if isinstance(columns[0], int) and columns.count(columns[0]) == len(columns):
        return columns[0]
    if all(isinstance(column, str) for column in columns):
        return SEPARATOR.join(cast("list[str]", columns))
    shared = pages[0].shared(at)
    if shared is not None and all(page.shared(at) == shared for page in pages):
        return shared
    return list(chain.from_iterable(page.column(at) for page in pages))
