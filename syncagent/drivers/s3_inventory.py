"""S3 Inventory: reports in CSV, Parquet and ORC, as S3 delivers them to a bucket."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from syncagent.drivers.bucket import Bucket
from syncagent.drivers.inventory import File, damaged, fetch
from syncagent.drivers.spool import Record
from syncagent.errors import ConfigError, InvalidInput, NotFound, Unsupported

_DATED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\dZ)/manifest\.checksum")
_MD5 = re.compile(r"[0-9a-f]{32}")
_MANIFEST_BYTES = 64 << 20  # some 300,000 files
_BATCH = 50_000
_CELL = 1 << 16

# The names in a CSV's schema, and of the columns in the other formats.
_COLUMNS = {
    "Key": "key",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
}
_VERSIONS = {"IsLatest": "is_latest", "IsDeleteMarker": "is_delete_marker"}


class S3Report:
    """`Report` of S3 Inventory.

    :param stored: the configuration's folder.
    :param folder: the report's inside it, with a slash at its end.
    """

    def __init__(self, stored: Bucket, folder: str, manifest: dict[str, Any]) -> None:
        self._stored, self._folder = stored, folder
        try:
            self.bucket = str(manifest["sourceBucket"])
            began = datetime.fromtimestamp(int(manifest["creationTimestamp"]) / 1000, UTC)
            self._format = str(manifest["fileFormat"])
            self._schema = [name.strip() for name in str(manifest.get("fileSchema", "")).split(",")]
            self._files = [_file(one) for one in manifest["files"]]
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise damaged("manifest.json", "it is not as S3 writes it") from error
        self.taken_at = began.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.records = None
        if self._format not in {"CSV", "Parquet", "ORC"}:
            raise Unsupported(
                f"an inventory in {self._format!r} cannot be read",
                resource=stored.url,
                hint="configure CSV, Parquet or ORC",
            )

    def rows(self, folder: Path) -> Iterator[list[Record]]:
        """See `Report.rows`."""
        read = {"CSV": self._csv, "Parquet": _parquet, "ORC": _orc}[self._format]
        for file in self._files:
            copy = folder / "file"
            name = self._fetch(file, copy)
            try:
                yield from read(copy)
            except ModuleNotFoundError as missing:
                raise ConfigError(
                    f"an inventory in {self._format} needs the package {missing.name}",
                    hint="pip install 'syncagent[parquet]', or configure CSV",
                ) from missing
            except (ValueError, IndexError, OSError, EOFError, zlib.error, csv.Error) as error:
                raise damaged(name, f"it is not {self._format} as S3 writes it") from error
            finally:
                copy.unlink(missing_ok=True)

    def _fetch(self, file: File, copy: Path) -> str:
        """Where S3 puts it, or beside the manifest, where a person may have copied it; returns the key.

        The manifest's own key is not followed: it names a place in another bucket once the report was copied.
        """
        name = file.key.rpartition("/")[2]
        places = [f"data/{name}", f"{self._folder}{name}"]
        for number, key in enumerate(places):
            try:
                fetch(self._stored, File(key, file.md5, file.size), copy)
            except NotFound as error:
                if number < len(places) - 1:
                    continue
                raise NotFound(
                    f"{places[0]!r} of the inventory is not in {self._stored.url}",
                    resource=places[0],
                    hint="copy the folder data as well, or use another day's report",
                ) from error
            return key
        raise AssertionError  # the last place returned or raised

    def _csv(self, path: Path) -> Iterator[list[Record]]:
        _need(set(self._schema), {name: name for name in _COLUMNS})
        key, size, modified, etag = (self._schema.index(name) for name in _COLUMNS)
        latest, marker = (self._schema.index(name) if name in self._schema else None for name in _VERSIONS)
        width = len(self._schema)
        csv.field_size_limit(max(csv.field_size_limit(), _CELL))
        with gzip.open(path, "rt", encoding="utf-8", errors="strict", newline="") as text:
            batch: list[Record] = []
            for row in csv.reader(text, strict=True):
                if len(row) != width:
                    raise ValueError("a row with more or fewer columns than the schema")
                if latest is not None and row[latest] != "true":
                    continue
                if marker is not None and row[marker] == "true":
                    continue
                at = row[modified][:19]
                told = row[etag].strip('"')
                known = f"{told}:{row[size]}:{at}" if told and row[size] and at else ""
                batch.append((_decoded(row[key]), known, int(row[size] or 0), f"{at}Z"))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            yield batch


def open_report(stored: Bucket, manifest: str | None) -> S3Report:
    """Open the report of a manifest, or the newest complete one; see `inventory.open_inventory`.

    :param stored: its configuration's folder. :param manifest: the key there; None for the newest.
    """
    if manifest is None:
        manifest = f"{_newest(stored)}/manifest.json"
    checksum = f"{manifest.removesuffix('.json')}.checksum"
    try:
        told = stored.read_bytes(checksum, limit=100).strip().decode("ascii", "replace").lower()
    except NotFound as error:
        raise NotFound(
            f"there is no {checksum!r} in {stored.url}: the report is not complete",
            resource=checksum,
            hint="wait for it, copy it as well, or use another day's report",
        ) from error
    body = stored.read_bytes(manifest, limit=_MANIFEST_BYTES)
    if hashlib.md5(body, usedforsecurity=False).hexdigest() != told:
        raise damaged(manifest, "its checksum is another one")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise damaged(manifest, "it is not JSON") from error
    if not isinstance(parsed, dict):
        raise damaged(manifest, "it is not as S3 writes it")
    return S3Report(stored, manifest[: manifest.rfind("/") + 1], parsed)


def _newest(stored: Bucket) -> str:
    """The folder of the newest report that is complete: its checksum is written last."""
    newest = ""
    # Reports are called by their dates, and sort before the folders data and hive.
    for page in stored.list(until="a"):
        for found in page:
            if (dated := _DATED.fullmatch(found.key)) and dated[1] > newest:
                newest = dated[1]
    if not newest:
        raise NotFound(
            f"there is no complete S3 Inventory report in {stored.url}",
            resource=stored.url,
            hint="name a manifest.json, or the folder that holds the dated ones",
        )
    return newest


def _file(told: dict[str, Any]) -> File:
    md5, size = str(told["MD5checksum"]).lower(), told.get("size")
    if not _MD5.fullmatch(md5):
        raise ValueError("no checksum")
    return File(str(told["key"]), md5, None if size is None else int(size))


def _decoded(key: str) -> str:
    """A CSV's keys are encoded as in forms, as those of a listing are. Decoded here, and nowhere after."""
    return unquote_plus(key, errors="strict") if "%" in key or "+" in key else key


def _need(have: set[str], names: Mapping[str, str]) -> None:
    """:param names: what the report's configuration calls a column, and what the file calls it."""
    if lacking := [name for name, column in names.items() if column not in have]:
        raise InvalidInput(
            f"the inventory lacks {', '.join(lacking)}, which tell whether an object is the same",
            hint=f"add {'it' if len(lacking) == 1 else 'them'} to the optional fields of its configuration",
        )


def _parquet(path: Path) -> Iterator[list[Record]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        wanted = _wanted(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
            yield _records(batch)


def _orc(path: Path) -> Iterator[list[Record]]:
    import pyarrow.orc

    file = pyarrow.orc.ORCFile(path)
    wanted = _wanted(file.schema.names)
    for number in range(file.nstripes):
        stripe = file.read_stripe(number, columns=wanted)
        for start in range(0, stripe.num_rows, _BATCH):
            yield _records(stripe.slice(start, _BATCH))


def _wanted(names: Sequence[str]) -> list[str]:
    _need(set(names), _COLUMNS)
    return [*_COLUMNS.values(), *(name for name in _VERSIONS.values() if name in names)]


def _records(batch: Any) -> list[Record]:
    """Rows of a record batch. What can be done a column at a time is; a batch of 50,000 takes some 40 ms."""
    import pyarrow as pa
    import pyarrow.compute as pc

    have = batch.schema.names
    if "is_latest" in have:
        batch = batch.filter(batch["is_latest"])
    if "is_delete_marker" in have:
        batch = batch.filter(pc.invert(pc.fill_null(batch["is_delete_marker"], False)))
    # Whole seconds, as a listing has them; with a zone the same instant is told in UTC.
    at = pc.strftime(pc.floor_temporal(batch["last_modified_date"], unit="second").cast(pa.timestamp("s")))
    size = batch["size"].cast(pa.int64())
    etag = pc.utf8_trim(batch["e_tag"], '"')
    known = pc.fill_null(pc.binary_join_element_wise(etag, size.cast(pa.string()), at, ":"), "")
    modified = pc.fill_null(pc.binary_join_element_wise(at, "Z", ""), "")
    columns = batch["key"], known, pc.fill_null(size, 0), modified
    return list(zip(*(column.to_pylist() for column in columns), strict=True))
