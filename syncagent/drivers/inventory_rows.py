"""The rows of an inventory report's files as records, whatever the store calls its columns."""

from __future__ import annotations

import csv
import gzip
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from syncagent.drivers.spool import Record
from syncagent.errors import InvalidInput

_BATCH = 50_000
_CELL = 1 << 16
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(?: ?(?:Z|UTC|[+-]00:?00))?")

Read = tuple[int, list[Record]]
"""How many rows were read, and the records of those that count."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rows are of current objects, by one column.

    Case does not count, and an empty cell is ``""``.
    """

    column: str
    kept: frozenset[str]
    given: str = ""
    """Another column: the rule is about the rows only in which that one is not empty."""
    needed: bool = False
    """A report without this column cannot be read. Where it is not needed, its absence keeps all rows."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A store's columns, called as in its configuration, and how rows of them become records.

    A file's own names for them may differ in case, hyphens and underscores.
    """

    store: str
    """In messages: ``S3``."""
    key: str
    size: str
    modified: str
    fingerprint: tuple[str, ...]
    """Columns that make up the driver's fingerprint: times to the second, tags without quotes."""
    joined: str
    """What stands between those."""
    ending: str = ""
    """What stands after them."""
    rules: tuple[Rule, ...] = ()
    below: str = ""
    """What the keys of the wanted bucket begin with in the report, and not in the bucket."""
    decoded: Callable[[str], str] | None = None
    """How a CSV's keys are encoded; None for not at all."""
    remedy: str = "add {} to the fields of its configuration"
    """How columns come into a report; takes their names."""

    def needed(self) -> list[str]:
        """The columns that a report must have."""
        rules = (rule.column for rule in self.rules if rule.needed)
        return list(dict.fromkeys([self.key, self.size, self.modified, *self.fingerprint, *rules]))

    def wanted(self) -> list[str]:
        """The columns that are read where they are there."""
        rules = (name for rule in self.rules for name in (rule.column, rule.given) if name)
        return list(dict.fromkeys([*self.needed(), *rules]))

    def found(self, names: Sequence[str]) -> dict[str, int]:
        """Where the wanted ones stand among a file's columns.

        :raises InvalidInput: needed ones are not there.
        """
        there = {plain(name): place for place, name in enumerate(names)}
        if lacking := [name for name in self.needed() if plain(name) not in there]:
            told = ", ".join(lacking)
            raise InvalidInput(
                f"the inventory lacks {told}, which tell whether an object is the same",
                hint=self.remedy.format(told),
            )
        return {name: there[plain(name)] for name in self.wanted() if plain(name) in there}


@dataclass(frozen=True, slots=True)
class Csv:
    """How a report's CSV files are written; in UTF-8, and quoted as RFC 4180 has it."""

    header: tuple[str, ...] | None = None
    """The columns; None where each file's first row names them. It may do so in any case."""
    delimiter: str = ","
    packed: bool = False
    """Compressed with gzip."""


def read_csv(layout: Layout, how: Csv, path: Path) -> Iterator[Read]:
    """Batches of a CSV file.

    :raises ValueError, OSError, csv.Error, zlib.error: it is damaged. :raises InvalidInput: it lacks columns.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _CELL))
    opened: Any = gzip.open if how.packed else open
    # A header may come after a byte order mark; where there is none, the first cell may be a key that begins with one.
    encoding = "utf-8-sig" if how.header is None else "utf-8"
    with opened(path, "rt", encoding=encoding, errors="strict", newline="") as text:
        rows = csv.reader(text, strict=True, delimiter=how.delimiter)
        first = next(rows, None)
        names = how.header or first
        if names is None or first is None:
            return  # not even a header: a file without rows
        read, count = _row_reader(layout, names), 0
        batch: list[Record] = []
        # A first row that names the columns is one in any case: no object has the size "size".
        for row in rows if [*map(plain, first)] == [*map(plain, names)] else itertools.chain([first], rows):
            if len(row) != len(names):
                raise ValueError("a row with more or fewer columns than the schema")
            count += 1
            if (record := read(row)) is not None:
                batch.append(record)
            if count == _BATCH:
                yield count, batch
                batch, count = [], 0
        yield count, batch


def _row_reader(layout: Layout, names: Sequence[str]) -> Callable[[list[str]], Record | None]:
    at = layout.found(names)
    key, size, modified = at[layout.key], at[layout.size], at[layout.modified]
    parts = [(at[name], name == layout.modified) for name in layout.fingerprint]
    rules = [(at[rule.column], rule.kept, at.get(rule.given)) for rule in layout.rules if rule.column in at]
    below, cut, decoded = layout.below, len(layout.below), layout.decoded

    def read(row: list[str]) -> Record | None:
        for column, kept, given in rules:
            if row[column].lower() not in kept and (given is None or row[given]):
                return None
        name = decoded(row[key]) if decoded else row[key]
        if not name.startswith(below):
            return None
        when = moment(row[modified])
        told = [when if timed else row[column].strip('"') for column, timed in parts]
        known = layout.joined.join(told) + layout.ending if all(told) else ""
        return _named(name[cut:]), known, int(row[size] or 0), f"{when}Z"

    return read


def read_parquet(layout: Layout, path: Path) -> Iterator[Read]:
    """Batches of a Parquet file.

    :raises ValueError, OSError, NotImplementedError: it is damaged, or its columns are of other types.
    :raises InvalidInput: it lacks columns.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        names = file.schema_arrow.names
        at = layout.found(names)
        wanted = [names[place] for place in at.values()]
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
            yield batch.num_rows, _records(layout, {name: batch[names[place]] for name, place in at.items()})


def read_orc(layout: Layout, path: Path) -> Iterator[Read]:
    """Batches of an ORC file; see `read_parquet`."""
    import pyarrow.orc

    file = pyarrow.orc.ORCFile(path)
    names = file.schema.names
    at = layout.found(names)
    for number in range(file.nstripes):
        stripe = file.read_stripe(number, columns=[names[place] for place in at.values()])
        for start in range(0, stripe.num_rows, _BATCH):
            batch = stripe.slice(start, _BATCH)
            yield batch.num_rows, _records(layout, {name: batch[names[place]] for name, place in at.items()})


def _records(layout: Layout, columns: Mapping[str, Any]) -> list[Record]:
    """Rows of a record batch. What can be done a column at a time is; a batch of 50,000 takes some 40 ms."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def text(name: str) -> Any:
        return pc.fill_null(columns[name].cast(pa.string()), "")

    def untagged(column: Any) -> Any:
        if pa.types.is_integer(column.type):
            return column.cast(pa.string())
        return pc.utf8_trim(column.cast(pa.string()), '"')

    keep = None
    for rule in layout.rules:
        if rule.column not in columns:
            continue
        kept = pc.is_in(pc.utf8_lower(text(rule.column)), value_set=pa.array(sorted(rule.kept)))
        if rule.given in columns:
            kept = pc.or_(kept, pc.equal(text(rule.given), ""))
        keep = kept if keep is None else pc.and_(keep, kept)
    if layout.below:
        ours = pc.starts_with(text(layout.key), layout.below)
        keep = ours if keep is None else pc.and_(keep, ours)
    if keep is not None:
        columns = {name: column.filter(keep) for name, column in columns.items()}
    keys = columns[layout.key].cast(pa.string())
    if layout.below:
        keys = pc.utf8_slice_codeunits(keys, len(layout.below))
    # Whole seconds, as a listing has them.
    at = _seconds(columns[layout.modified])
    size = columns[layout.size].cast(pa.int64())
    parts = [at if name == layout.modified else untagged(columns[name]) for name in layout.fingerprint]
    known = pc.fill_null(pc.binary_join_element_wise(*parts, layout.joined), "")
    if layout.ending:
        known = pc.if_else(pc.equal(known, ""), known, pc.binary_join_element_wise(known, layout.ending, ""))
    modified = pc.fill_null(pc.binary_join_element_wise(at, "Z", ""), "")
    told = keys, known, pc.fill_null(size, 0), modified
    if keys.null_count or pc.any(pc.equal(keys, "")).as_py():
        raise ValueError("a row without a key")
    return list(zip(*(column.to_pylist() for column in told), strict=True))


def _seconds(column: Any) -> Any:
    """Times as ``2026-11-20T01:02:03``, whether the file has them as times, milliseconds or text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_integer(column.type):
        column = column.cast(pa.int64()).cast(pa.timestamp("ms"))
    if not pa.types.is_timestamp(column.type):
        texts = column.cast(pa.string()).to_pylist()
        return pa.array([moment(text) or None if text else None for text in texts], pa.string())
    # With a zone the same instant is told in UTC.
    return pc.strftime(pc.floor_temporal(column, unit="second").cast(pa.timestamp("s")))


def _named(key: str) -> str:
    if not key:
        raise ValueError("a row without a key")
    return key


def moment(text: str) -> str:
    """A time in UTC as ``2026-11-20T01:02:03``, from ISO 8601, from SQL's form of it, or from HTTP's.

    :raises ValueError: it is none of these, or in another zone.
    """
    if not text:
        return ""
    if found := _MOMENT.fullmatch(text):
        return f"{found[1]}T{found[2]}"
    if text.endswith(" GMT"):
        return parsedate_to_datetime(text).strftime("%Y-%m-%dT%H:%M:%S")
    raise ValueError("not a time")


def plain(name: str) -> str:
    """A name as it is compared: ``Last-Modified``, ``last_modified`` and ``lastModified`` are the same."""
    return name.strip().replace("_", "").replace("-", "").lower()
