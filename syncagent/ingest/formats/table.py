"""Tables, CSV and Parquet: one row an annotation, the same columns in both; a header is required.

===================================  ===========================================================================================
``key``                              the file's path; the only column that must be there
``stem, width, height, fps, frames`` of the item; ``user`` (JSON) and ``item_description`` as well. Told in its first row at least
``label``, ``type``                  the class; ``box``, ``point``, ``segment`` (or ``polygon``), ``polyline``, ``ellipse``, ``cube``,
                                     ``binary`` (or ``mask``), ``pose``, ``note``, ``subtitle``, ``class`` … Without a type, a row with
                                     ``left`` is a box, one with ``points`` a polygon, and one with a label alone a classification
``left, top, right, bottom, angle``  of a box or note, in pixels; degrees
``x, y, rx, ry``                     of a point or ellipse
``points``                           JSON: a list of flat rings ``[[x, y, x, y, …], …]`` of polygons, polylines and cuboids
``counts``                           of a mask: COCO's compressed run lengths, of a picture of ``width`` and ``height``
``text``                             of a subtitle
``geometry``                         JSON: what the columns above do not tell (a pose's joints, which rings are holes, …)
``frame, end_frame, start, end``     of the annotation; ``key_frames`` (JSON) of a track: objects with members called as columns
``score, model, object_id, id, parent, crowd, visible, description``
``attributes``                       JSON object. Any other column is an attribute, too, of the column's name
===================================  ===========================================================================================

An empty cell is "not told", so that an empty text reads as none. A row with a key alone is an item without annotations. Rows of one
item need not stand together: every run of them comes as a piece, and whoever reads puts them together. Everything else that the
model has is told in full. Numbers have as many digits as tell them exactly.

A text may begin with ``=``, ``+``, ``-`` or ``@``, which spreadsheet programs take for formulas. By default it is written as it is;
``Table(guard=True)`` puts an apostrophe before it, and takes it off when it reads.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, BinaryIO, ClassVar

import msgspec

from syncagent.errors import InvalidInput, Unsupported
from syncagent.ingest.annotations import KINDS, Annotation, Label, Labelled, Other
from syncagent.ingest.formats.base import MAX_RECORD, Context, Losses, Out, Tree, refuse, wrong
from syncagent.ingest.formats.carry import number
from syncagent.ingest.formats.checks import sound, writable
from syncagent.ingest.formats.table_rows import ITEM, TYPES, Row, annotation, cells, item_cells, item_of

_BATCH = 10_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


class Table:
    """See `formats.base.Format`. Writes ``annotations.csv``, or ``annotations.parquet``; reads both.

    :param parquet: write Parquet.
    :param guard: no text of a CSV is a formula in a spreadsheet program.
    """

    name: ClassVar[str] = "table"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".parquet")
    holds: ClassVar[frozenset[type]] = frozenset({*KINDS, Other})

    def __init__(self, *, parquet: bool = False, guard: bool = False) -> None:
        self._parquet, self._guard = parquet, guard

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`.

        :raises Unsupported: Parquet needs pyarrow, which is not installed.
        """
        for name in tree.names():
            if name.lower().endswith(self.suffixes):
                with contextlib.closing(tree.open(name)) as file:
                    rows = (
                        _parquet_rows(file, name)
                        if name.lower().endswith(".parquet")
                        else self._csv_rows(file, name)
                    )
                    yield from _items(rows, name)

    def labels(self, tree: Tree) -> list[Label]:
        """None: a table declares nothing."""
        return []

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. It holds everything."""
        rows = _rows(writable(items, self.name, losses if losses is not None else Losses()))
        if self._parquet:
            with out.create("annotations.parquet") as file:
                _write_parquet(rows, file)
            return
        with out.create("annotations.csv") as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(TYPES)
            writer.writerows([self._guarded(_cell(row.get(name))) for name in TYPES] for row in rows)
            text.detach()

    def _guarded(self, cell: str) -> str:
        return f"'{cell}" if self._guard and cell.startswith(_FORMULA) and not _is_number(cell) else cell

    def _csv_rows(self, file: BinaryIO, name: str) -> Iterator[tuple[str, Row]]:
        # The limit is one of the whole process. It is only raised: no other reader of tables is cut short by it.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(_lines(lines, name), strict=True)
        try:
            header = next(reader, [])
            _check_header(header, name)
            for cells_ in reader:
                if not cells_:
                    continue
                if len(cells_) != len(header):
                    refuse(
                        name,
                        f"line {reader.line_num}",
                        f"{len(cells_)} cells, where the header has {len(header)}",
                    )
                if self._guard:
                    cells_ = [cell.removeprefix("'") for cell in cells_]  # noqa: PLW2901
                yield (
                    f"line {reader.line_num}",
                    {one: cell for one, cell in zip(header, cells_, strict=True) if cell != ""},
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise wrong(name, f"line {reader.line_num or 1}", f"no CSV in UTF-8: {error}") from error
        finally:
            with contextlib.suppress(ValueError):
                lines.detach()


def _lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    for count, line in enumerate(iter(lambda: text.readline(MAX_RECORD), ""), 1):
        if len(line) >= MAX_RECORD:
            refuse(name, f"line {count}", f"longer than {MAX_RECORD >> 20} MiB")
        yield line


def _check_header(header: Sequence[str], file: str) -> None:
    if "key" not in header:
        refuse(file, "header", "has no column 'key'")
    for name in header:
        if header.count(name) > 1:
            refuse(file, "header", f"has the column {name[:40]!r} twice")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return True
    return False


# -- rows ----------------------------------------------------------------------------------------


def _rows(items: Iterable[Labelled]) -> Iterator[dict[str, Any]]:
    for item in items:
        first = item_cells(item)
        rest = {"key": item.key, "width": item.width, "height": item.height}
        if not item.annotations:
            yield first
        for count, one in enumerate(item.annotations):
            yield {**(rest if count else first), **cells(one, item)}


def _items(rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Labelled]:
    """Each run of rows of one key as an item."""

    def key(told: tuple[str, Row]) -> str:
        found = told[1].get("key")
        return found if isinstance(found, str) and found else refuse(file, told[0], "tells no key")

    for name, run in itertools.groupby(rows, key):
        item = Labelled(key=name)
        found: list[Annotation] = []
        for record, row in run:
            try:
                item = sound(item_of(row, item), file, record)
                if any(column not in ITEM for column in row):
                    found.append(annotation(row, item))
            except InvalidInput as error:
                raise wrong(file, record, error.message) from error
        yield msgspec.structs.replace(item, annotations=tuple(found))


# -- Parquet -------------------------------------------------------------------------------------


def _arrow(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise Unsupported(
            "tables in Parquet need pyarrow, which is not installed",
            hint="run 'pip install pyarrow', or use CSV",
        ) from error


def _parquet_rows(file: BinaryIO, name: str) -> Iterator[tuple[str, Row]]:
    """The rows of a file, a batch of them in memory at a time."""
    arrow, parquet = _arrow("pyarrow"), _arrow("pyarrow.parquet")
    count = 0
    try:
        source = parquet.ParquetFile(file)
        _check_header(source.schema_arrow.names, name)
        for batch in source.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                count += 1
                yield f"row {count}", {column: cell for column, cell in row.items() if _tells(cell)}
    except (arrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise wrong(name, f"row {count + 1}", f"no Parquet: {error}") from error


def _tells(cell: Any) -> bool:
    """Whether a cell is not empty; NaN is how pandas says that it is."""
    return cell is not None and not (isinstance(cell, str) and not cell) and cell == cell  # noqa: PLR0124


def _write_parquet(rows: Iterator[dict[str, Any]], file: BinaryIO) -> None:
    arrow, parquet = _arrow("pyarrow"), _arrow("pyarrow.parquet")
    kinds = {str: arrow.string(), float: arrow.float64(), int: arrow.int64(), bool: arrow.bool_()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in TYPES.items()])
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(itertools.islice(rows, _BATCH)):
            writer.write_table(arrow.Table.from_pylist(batch, schema))
