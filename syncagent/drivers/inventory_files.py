"""A store's inventory report: its manifest, and its files, fetched and checked."""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from csv import Error as CsvError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncagent.drivers.bucket import Bucket
from syncagent.drivers.inventory_rows import Csv, Layout, Read, read_csv, read_orc, read_parquet
from syncagent.drivers.spool import Record
from syncagent.errors import ConfigError, InvalidInput, NotFound, SyncAgentError, Unsupported

_MANIFEST_BYTES = 64 << 20  # some 300,000 files
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file of a report."""

    keys: tuple[str, ...]
    """Where it may be, relative to the bucket that the report was opened in; the first that is there counts."""
    md5: str | None
    """Hexadecimal digits, lower case. None: what the store itself knows of the file, if it knows that."""
    size: int | None
    """Bytes; None where nobody says."""


@dataclass(frozen=True, slots=True)
class Report:
    """One complete report: what its manifest says, and where its files are."""

    taken_at: str
    """When it was begun: UTC, ISO 8601 to the second, ending in ``Z``."""
    layout: Layout
    stored: Bucket = field(repr=False)
    files: tuple[File, ...]
    format: str
    """``CSV``, ``Parquet`` or ``ORC``."""
    records: int | None = None
    """How many rows it says that its files hold; None where it does not say."""
    csv: Csv = field(default_factory=Csv)

    def rows(self, folder: Path) -> Iterator[list[Record]]:
        """Batches of the bucket's current objects by full key, in any order, perhaps some twice.

        The fingerprint is the driver's own; it is empty where the row lacks what that needs.

        :param folder: for one file at a time.
        :raises InvalidInput: a file is not what the manifest says, or lacks columns that are needed.
        :raises NotFound: a file is not there.
        """
        count = 0
        for file in self.files:
            copy = folder / "file"
            name = self._fetch(file, copy)
            try:
                for read, records in self._read(copy):
                    count += read
                    yield records
            except ModuleNotFoundError as missing:
                raise ConfigError(
                    f"an inventory in {self.format} needs the package {missing.name}",
                    hint="pip install 'syncagent[parquet]', or configure CSV",
                ) from missing
            except (ValueError, IndexError, OSError, EOFError, zlib.error, CsvError) as error:
                raise damaged(name, f"it is not {self.format} as {self.layout.store} writes it") from error
            except NotImplementedError as error:  # a column of a type that cannot be what it is called
                raise damaged(name, "its columns are of other types than are known") from error
            finally:
                copy.unlink(missing_ok=True)
        if self.records is not None and count != self.records:
            raise InvalidInput(
                f"the inventory's files hold {count:,} rows, and its manifest says {self.records:,}",
                resource=self.stored.url,
                hint="copy the report again, or use another day's",
            )

    def _fetch(self, file: File, copy: Path) -> str:
        for key in file.keys:
            with suppress(NotFound):
                fetch(self.stored, File((key,), file.md5, file.size), copy)
                return key
        raise missing(self.stored, file.keys[0])

    def _read(self, path: Path) -> Iterator[Read]:
        if self.format == "CSV":
            return read_csv(self.layout, self.csv, path)
        return (read_parquet if self.format == "Parquet" else read_orc)(self.layout, path)


def signed(stored: Bucket, manifest: str, checksum: str) -> dict[str, Any]:
    """A manifest whose MD5 stands in a file of its own, which is written when the report is complete.

    :raises NotFound: one of them is not there. :raises InvalidInput: they do not fit, or it is no JSON object.
    """
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
    return _parsed(body, manifest)


def unsigned(stored: Bucket, manifest: str) -> dict[str, Any]:
    """A manifest without a checksum.

    :raises NotFound: it is not there. :raises InvalidInput: it is no JSON object.
    """
    return _parsed(stored.read_bytes(manifest, limit=_MANIFEST_BYTES), manifest)


def _parsed(body: bytes, manifest: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise damaged(manifest, "it is not JSON") from error
    if not isinstance(parsed, dict):
        raise damaged(manifest, "it is not a manifest")
    return parsed


def base_name(told: object) -> str:
    """The last part of a path that a manifest gives: where a report was copied to, its manifest does not know.

    :raises ValueError: there is none.
    """
    name = str(told).rpartition("/")[2]
    if name in {"", ".", ".."}:
        raise ValueError("no file's name")
    return name


def fetch(bucket: Bucket, file: File, path: Path) -> None:
    """Copy a file of a report to disk, and check that it is the one that the manifest names.

    :raises InvalidInput: it is not. :raises NotFound: it is not there.
    """
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with bucket.open(file.keys[0]) as stream, path.open("wb") as copy:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += copy.write(piece)
    if file.md5 is not None and digest.hexdigest() != file.md5:
        raise damaged(file.keys[0], "its checksum is not the manifest's")
    if file.size is not None and size != file.size:
        raise damaged(file.keys[0], f"it has {size:,} bytes, and should have {file.size:,}")
    if file.md5 is None and digest.hexdigest() != (_known(bucket, file.keys[0]) or digest.hexdigest()):
        raise damaged(file.keys[0], "its checksum is not the one that its store keeps")


def _known(bucket: Bucket, key: str) -> str | None:
    """The MD5 that a store keeps of an object; None where it keeps none (composed ones, say)."""
    scheme, _, digest = (bucket.stat(key).content_id or "").partition(":")
    return b64decode(digest).hex() if scheme == "md5" else None


def damaged(name: str, why: str) -> SyncAgentError:
    """The error for a file of a report that cannot be used."""
    return InvalidInput(
        f"{name} of the inventory cannot be used: {why}",
        resource=name,
        hint="copy the report again, or use another day's",
    )


def missing(stored: Bucket, key: str) -> SyncAgentError:
    """The error for a file of a report that is not there."""
    return NotFound(
        f"{key!r} of the inventory is not in {stored.url}",
        resource=key,
        hint="copy it as well, or use another day's report",
    )


def foreign(told: str, of: str) -> SyncAgentError:
    """The error for a report of another bucket."""
    return ConfigError(
        f"the inventory is of {told!r}, the dataset of {of!r}",
        resource=told,
        hint="give the report of the dataset's own bucket",
    )


def format_of(told: str, known: Sequence[str], stored: Bucket) -> str:
    """A format by the name that a manifest, or the end of a file's name, gives it.

    :param known: those that the store offers.
    :raises Unsupported: it is none of them.
    """
    for name in known:
        if name.lower() == told.lower():
            return name
    raise Unsupported(
        f"an inventory in {told!r} cannot be read",
        resource=stored.url,
        hint=f"configure {' or '.join(known)}",
    )


def check_version(told: object, known: str, stored: Bucket) -> None:
    """Whether a manifest is of the version that this was written for; one that does not say is.

    :raises Unsupported: it is of another.
    """
    if told is not None and str(told) != known:
        raise Unsupported(
            f"an inventory of version {str(told)[:40]!r} is not known, only {known}",
            resource=stored.url,
            hint="look for a newer syncagent, or sync without --inventory",
        )
