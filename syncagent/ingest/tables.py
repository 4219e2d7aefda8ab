"""Rows of a CSV, JSONL or Parquet file, one at a time."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.ingest.formats.base import MAX_RECORD, wrong

Row = dict[str, Any]
_CELL = 16 << 20


def rows(path: Path) -> Iterator[tuple[str, Row | InvalidInput]]:
    """Rows by column's name, each with the words that name it (``line 3``). Empty cells are left out.

    A row that cannot be read is given as its error: the next one may be.

    :param path: a file ending in ``.csv``, ``.jsonl`` or ``.parquet``.
    :raises InvalidInput: it is not what it claims to be.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}", resource=str(path))
    match path.suffix.lower():
        case ".csv":
            yield from _csv(path)
        case ".jsonl" | ".ndjson":
            yield from _jsonl(path)
        case ".parquet":
            yield from _parquet(path)
        case other:
            raise InvalidInput(
                f"{path}: a table ends in .csv, .jsonl or .parquet, not in {other!r}", resource=str(path)
            )


def _jsonl(path: Path) -> Iterator[tuple[str, Row | InvalidInput]]:
    decode = msgspec.json.Decoder(Row).decode
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_RECORD), b""), 1):
            where = f"line {number}"
            if not line.strip():
                continue
            try:
                told = decode(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield where, wrong(str(path), where, str(error))
            except RecursionError:
                yield where, wrong(str(path), where, "nested too deeply")
            else:
                yield where, {name: value for name, value in told.items() if value is not None}


def _csv(path: Path) -> Iterator[tuple[str, Row | InvalidInput]]:
    csv.field_size_limit(min(_CELL, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                where = f"line {reader.line_num}"
                if None in row or None in row.values():
                    yield where, wrong(str(path), where, "has another number of cells than the header")
                else:
                    yield where, {name: value for name, value in row.items() if value != ""}
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
