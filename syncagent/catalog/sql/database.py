"""What a catalog asks of its database. SQLite and PostgreSQL each answer in a module of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from syncagent.catalog.sql.dialects import Dialect

Parameters = Mapping[str, Any] | Sequence[Any]


class Database(Protocol):
    """Runs named statements; may be used from many threads. Errors are the project's own.

    :raises Transient: locked, out of reach, or beaten by somebody else's write; trying again may succeed.
    :raises InvalidInput: a text that this database cannot hold.
    """

    name: str
    """For people. Never holds a password."""
    dialect: Dialect
    statements: int
    """Statements run, for benchmarks and tests."""
    last_text: Any
    """A bound value that comes after every text."""

    def transaction(self, dataset: int | None = None, *, alone: bool = True) -> AbstractContextManager[None]:
        """All or nothing. Joins a transaction that this thread has open.

        What is read in it before it is written stays true: nobody else has a transaction *alone* with the same dataset,
        or, without one, with none. Whoever opens both asks for the one without a dataset first.

        :param alone: False for statements that compare and set by themselves, and wait for nobody.
        """
        ...

    def query(self, name: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a named statement."""
        ...

    def look(self, name: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a named statement that only reads, without waiting for what another thread has not committed."""
        ...

    def sql(self, statement: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement made for a query, in the database's own language."""
        ...

    def change(self, name: str, parameters: Parameters = ()) -> int:
        """Run a named statement; returns how many rows it wrote."""
        ...

    def change_sql(self, statement: str, parameters: Parameters = ()) -> int:
        """Run a statement in the database's own language; returns how many rows it wrote."""
        ...

    def change_many(self, name: str, parameters: Iterable[Parameters]) -> None:
        """Run a named statement for each of `parameters`."""
        ...

    def insert(self, name: str, parameters: Parameters) -> int:
        """Insert one row; returns its number."""
        ...

    def array(self, values: Iterable[Any]) -> Any:
        """Values of one type, bound as ``each_text`` or ``each_number`` of a statement takes them."""
        ...

    def ping(self) -> None:
        """Raise if the database cannot be asked."""
        ...

    def close(self) -> None:
        """Close; twice is fine."""
        ...
