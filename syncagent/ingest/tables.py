"""Rows of a CSV, JSONL or Parquet file, one at a time."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.ingest.formats import stream
from syncagent.ingest.formats.base import wrong

Row = dict[str, Any]
_CELL = 16 << 20


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows by column's name, each with the words that name it (``line 3``). Empty cells are left out.

    :param path: a file ending in ``.csv``, ``.jsonl`` or ``.parquet``.
    :raises InvalidInput: it is not what it claims to be; which line.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}", resource=str(path))
    match path.suffix.lower():
        case ".csv":
            yield from _csv(path)
        case ".jsonl" | ".ndjson":
            with path.open("rb") as file:
                for number, told in stream.lines(file, str(path), dict[str, Any]):
                    yield f"line {number}", {name: value for name, value in told.items() if value is not None}
        case ".parquet":
            yield from _parquet(path)
        case other:
            raise InvalidInput(
                f"{path}: a table ends in .csv, .jsonl or .parquet, not in {other!r}", resource=str(path)
            )


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(min(_CELL, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise wrong(
                        str(path), f"line {reader.line_num}", "has another number of cells than the header"
                    )
                yield f"line {reader.line_num}", {name: value for name, value in row.items() if value != ""}
    except UnicodeDecodeError as error:
        raise wrong(str(path), None, f"not UTF-8 at byte {error.start}") from error
    except csv.Error as error:
        raise wrong(str(path), f"line {reader.line_num}", str(error)) from error


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as missing:
        raise Unsupported(
            f"{path}: reading Parquet needs pyarrow",
            resource=str(path),
            hint="pip install 'syncagent[parquet]'",
        ) from missing
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for told in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {name: value for name, value in told.items() if value is not None}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise wrong(str(path), f"row {number + 1} or after it", reason) from error


def json_cell(value: Any, path: str, row: str, column: str) -> Any:
    """What a cell that holds JSON says; a table of another kind may hold the value itself.

    :raises InvalidInput: it is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise wrong(path, row, f"{column} is no JSON: {error}") from error
